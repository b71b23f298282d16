//! What every metric is called, of which kind it is and what it says: the one place for all three.
//! The exposition, the README's table and the tests read it.

use super::{Held, Metric};

/// One metric as the outside sees it.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name, with its unit last.
    pub name: &'static str,
    /// How it is to be read.
    pub kind: Kind,
    /// Its labels, as a reader of the table is told them; empty for none.
    pub labels: &'static str,
    /// What it says, one sentence without a full stop.
    pub help: &'static str,
    /// Where its value comes from.
    pub source: Source,
}

/// How a metric is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the server starts anew.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// Where a metric's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A counter of each core.
    Count(Metric),
    /// What each core holds.
    Held(Held),
    /// What is known of the server as a whole.
    Whole(Gauge),
    /// What the logs have lost, of each.
    LogDropped,
    /// Connections closed at the door, of each core and reason.
    Refused,
    /// Sessions begun, of each role.
    RoleOpened,
    /// Sessions that are open, of each role.
    RoleOpen,
    /// Sessions that have ended, of each role and reason.
    RoleEnded,
    /// Bytes, of each role and way.
    RoleMoved,
    /// Ports lent, of each pool.
    PoolLeased,
    /// Ports that can be lent at once, of each pool.
    PoolFree,
    /// Times that the configuration was read again, by what came of it.
    Reloads,
}

/// A figure of the server as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// One, with the version as a label.
    Build,
    /// When it started, by the wall clock.
    Start,
    /// It takes no new work.
    Draining,
    /// Worker threads.
    Workers,
    /// Connections that it may hold.
    MostConnections,
    /// Places taken of those.
    Places,
    /// Records written to the access log.
    AccessWritten,
    /// Records that it has lost.
    AccessDropped,
    /// Times that it could not be written.
    AccessFailed,
    /// The step of the overload ladder.
    Overload,
    /// Descriptors of connections, datagram sockets and pipes.
    Descriptors,
    /// How many of those there may be.
    MostDescriptors,
    /// Values in the store.
    StoreRecords,
    /// Bytes of ids, sections and values.
    StoreBytes,
    /// When the configuration in force was read.
    Configured,
}

/// Why a session has ended, in one word for a counter's label and for limiting log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs)]
pub enum Reason {
    Finished,
    HandedOn,
    ProtocolError,
    Truncated,
    Timeout,
    IoError,
    Denied,
    Unreachable,
    Overload,
    Stopping,
    Removed,
    Kicked,
    Panicked,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Self; 13] = [
        Self::Finished,
        Self::HandedOn,
        Self::ProtocolError,
        Self::Truncated,
        Self::Timeout,
        Self::IoError,
        Self::Denied,
        Self::Unreachable,
        Self::Overload,
        Self::Stopping,
        Self::Removed,
        Self::Kicked,
        Self::Panicked,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::HandedOn => "handed_on",
            Self::ProtocolError => "protocol_error",
            Self::Truncated => "truncated",
            Self::Timeout => "timeout",
            Self::IoError => "io_error",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::Overload => "overload",
            Self::Stopping => "stopping",
            Self::Removed => "removed",
            Self::Kicked => "kicked",
            Self::Panicked => "panicked",
        }
    }
}

/// Why a connection was closed at the door, before any session heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// It came from where nobody may come from.
    Denied,
    /// There are as many from its source as may be.
    ConnectionsPerIp,
    /// Too many came in a second.
    Rate,
    /// Too many came from its source in a second.
    RatePerIp,
    /// It came from a proxy that is believed, and did not say for whom.
    Header,
    /// The server gives up new work.
    Overload,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Denied,
        Self::ConnectionsPerIp,
        Self::Rate,
        Self::RatePerIp,
        Self::Header,
        Self::Overload,
    ];

    /// The word: a bound is called as its key is.
    pub fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::ConnectionsPerIp => "max_connections_per_ip",
            Self::Rate => "connection_rate",
            Self::RatePerIp => "connection_rate_per_ip",
            Self::Header => "proxy_header",
            Self::Overload => "overload",
        }
    }
}

const fn counter(name: &'static str, metric: Metric, help: &'static str) -> About {
    About {
        name,
        kind: Kind::Counter,
        labels: "core",
        help,
        source: Source::Count(metric),
    }
}

const fn held(name: &'static str, what: Held, help: &'static str) -> About {
    About {
        name,
        kind: Kind::Gauge,
        labels: "core",
        help,
        source: Source::Held(what),
    }
}

const fn whole(name: &'static str, what: Gauge, help: &'static str) -> About {
    About {
        name,
        kind: Kind::Gauge,
        labels: "",
        help,
        source: Source::Whole(what),
    }
}

const fn whole_counter(name: &'static str, what: Gauge, help: &'static str) -> About {
    let kind = Kind::Counter;
    About {
        kind,
        ..whole(name, what, help)
    }
}

const fn role(
    name: &'static str,
    kind: Kind,
    labels: &'static str,
    source: Source,
    help: &'static str,
) -> About {
    About {
        name,
        kind,
        labels,
        help,
        source,
    }
}

/// Every metric, in the order in which they are told.
pub const TABLE: &[About] = &[
    role(
        "towpath_build_info",
        Kind::Gauge,
        "version",
        Source::Whole(Gauge::Build),
        "1, with the version that runs",
    ),
    whole(
        "towpath_start_time_seconds",
        Gauge::Start,
        "when the server started, since the Unix epoch",
    ),
    whole(
        "towpath_draining",
        Gauge::Draining,
        "1 when the server takes no new work, else 0",
    ),
    role(
        "towpath_reloads_total",
        Kind::Counter,
        "outcome",
        Source::Reloads,
        "times the configuration was read again, and put in force (ok) or not (failed)",
    ),
    whole(
        "towpath_config_time_seconds",
        Gauge::Configured,
        "when the configuration in force was read, since the Unix epoch",
    ),
    whole("towpath_workers", Gauge::Workers, "worker threads"),
    whole(
        "towpath_connections_max",
        Gauge::MostConnections,
        "connections that the server may hold",
    ),
    whole(
        "towpath_connections_used",
        Gauge::Places,
        "places taken of those, a relay's two connections being one",
    ),
    whole(
        "towpath_overload_level",
        Gauge::Overload,
        "0 normal, 1 pressed (strangers are turned away), 2 full (nobody is taken in)",
    ),
    whole(
        "towpath_descriptors_used",
        Gauge::Descriptors,
        "descriptors of connections, datagram sockets and kernel pipes",
    ),
    whole(
        "towpath_descriptors_max",
        Gauge::MostDescriptors,
        "how many of those the descriptor limit leaves room for",
    ),
    role(
        "towpath_sessions",
        Kind::Gauge,
        "role",
        Source::RoleOpen,
        "sessions that are open",
    ),
    role(
        "towpath_sessions_opened_total",
        Kind::Counter,
        "role",
        Source::RoleOpened,
        "sessions begun",
    ),
    role(
        "towpath_sessions_ended_total",
        Kind::Counter,
        "role, reason",
        Source::RoleEnded,
        "sessions that have ended, by the word that says why",
    ),
    role(
        "towpath_session_bytes_total",
        Kind::Counter,
        "role, direction",
        Source::RoleMoved,
        "bytes from those who came to a role (up) and to them (down), relayed or as frames",
    ),
    held(
        "towpath_core_sessions",
        Held::Sessions,
        "sessions on a core, its own ones among them",
    ),
    held(
        "towpath_core_connections",
        Held::Connections,
        "stream sockets open on a core",
    ),
    held(
        "towpath_core_relays",
        Held::Relays,
        "relayed pairs on a core",
    ),
    held(
        "towpath_core_datagram_sockets",
        Held::Sockets,
        "datagram sockets that sessions of a core have opened",
    ),
    held(
        "towpath_core_buffer_bytes",
        Held::Buffers,
        "memory of a core that holds bytes on their way",
    ),
    held(
        "towpath_core_listeners_resting",
        Held::Resting,
        "listeners of a core that accept nobody for now, for want of places or descriptors",
    ),
    counter(
        "towpath_accepted_total",
        Metric::Accepted,
        "connections accepted",
    ),
    counter(
        "towpath_shed_total",
        Metric::Shed,
        "connections and sockets refused at a cap",
    ),
    role(
        "towpath_refused_total",
        Kind::Counter,
        "core, reason",
        Source::Refused,
        "connections closed at the door, before a session was begun for them",
    ),
    counter(
        "towpath_accept_rests_total",
        Metric::Rested,
        "times a listener rested because no connection could be taken",
    ),
    counter(
        "towpath_ended_total",
        Metric::Ended,
        "sessions that have ended, however",
    ),
    counter(
        "towpath_faulted_total",
        Metric::Faulted,
        "sessions that ended by somebody's fault",
    ),
    counter(
        "towpath_panicked_total",
        Metric::Panicked,
        "sessions that panicked",
    ),
    counter("towpath_dialled_total", Metric::Dialled, "connects begun"),
    counter(
        "towpath_dial_failed_total",
        Metric::DialFailed,
        "connects that failed",
    ),
    counter(
        "towpath_relayed_bytes_total",
        Metric::Relayed,
        "bytes relayed, both ways together",
    ),
    counter(
        "towpath_forwarded_frames_total",
        Metric::Forwarded,
        "frames passed on from one connection to another",
    ),
    counter(
        "towpath_ignored_frames_total",
        Metric::Ignored,
        "frames that their sender was not entitled to send, left without effect",
    ),
    counter(
        "towpath_rejected_total",
        Metric::Rejected,
        "connections that a session closed for what they sent, itself going on",
    ),
    counter(
        "towpath_datagrams_received_total",
        Metric::DatagramsIn,
        "datagrams received",
    ),
    counter(
        "towpath_datagrams_sent_total",
        Metric::DatagramsOut,
        "datagrams sent",
    ),
    counter(
        "towpath_datagrams_dropped_total",
        Metric::DatagramsDropped,
        "datagrams dropped, on their way in or out",
    ),
    counter(
        "towpath_datagrams_refused_total",
        Metric::DatagramsRefused,
        "datagrams of access listeners that were lost, as a hop or a destination has told",
    ),
    counter(
        "towpath_datagrams_denied_total",
        Metric::DatagramsDenied,
        "datagrams to a hop without its key, of another time or seen before, left without an answer",
    ),
    counter(
        "towpath_unasked_total",
        Metric::Unasked,
        "questions that the control thread had no room for",
    ),
    counter(
        "towpath_bandwidth_waits_total",
        Metric::PaceWaits,
        "times that a connection was not read for a while because of a bandwidth limit",
    ),
    About {
        name: "towpath_log_dropped_total",
        kind: Kind::Counter,
        labels: "log",
        help: "lines and records left out: too many of their kind, or their log took none",
        source: Source::LogDropped,
    },
    whole_counter(
        "towpath_access_records_total",
        Gauge::AccessWritten,
        "records written to the access log",
    ),
    whole_counter(
        "towpath_access_errors_total",
        Gauge::AccessFailed,
        "times that the access log could not be written",
    ),
    role(
        "towpath_leases",
        Kind::Gauge,
        "pool",
        Source::PoolLeased,
        "ports that are lent",
    ),
    role(
        "towpath_lease_ports_free",
        Kind::Gauge,
        "pool",
        Source::PoolFree,
        "ports that can be lent at once",
    ),
    whole(
        "towpath_store_records",
        Gauge::StoreRecords,
        "values in the agent store",
    ),
    whole(
        "towpath_store_bytes",
        Gauge::StoreBytes,
        "ids, sections and values in the agent store",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::stats::METRICS;

    #[test]
    fn every_counter_has_one_entry_and_names_say_what_they_are() {
        let names: HashSet<_> = TABLE.iter().map(|about| about.name).collect();
        assert_eq!(names.len(), TABLE.len());
        let told = |source: &Source| matches!(source, Source::Count(_) | Source::LogDropped);
        let counted = TABLE.iter().filter(|about| told(&about.source)).count();
        assert_eq!(counted, METRICS);
        for about in TABLE {
            assert!(about.name.starts_with("towpath_"), "{}", about.name);
            let total = about.name.ends_with("_total");
            assert_eq!(total, about.kind == Kind::Counter, "{}", about.name);
            assert!(!about.help.is_empty() && !about.help.ends_with('.'));
        }
    }

    #[test]
    fn reasons_stand_at_their_own_numbers() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "{}", reason.word());
        }
    }

    /// Prints what the README should say where it does not.
    #[test]
    fn the_readme_has_this_table() {
        let mut rows = String::new();
        for about in TABLE {
            let kind = about.kind.word();
            rows += &format!(
                "| `{}` | {kind} | {} | {} |\n",
                about.name, about.labels, about.help
            );
        }
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&rows), "the README lacks:\n{rows}");
    }
}
