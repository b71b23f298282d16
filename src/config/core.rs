//! The keys that belong to the server as a whole, and to no role.

use std::path::PathBuf;
use std::time::Duration;

use super::key::BANDWIDTH;
use super::{Admin, CONNECTIONS, Key, Kind, RATE, Settings, Terms};

/// The server's own part of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Core {
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    /// Whether each worker stays on a core of its own.
    pub pin: bool,
    /// The folder of the embedded store; created when missing.
    pub data_dir: PathBuf,
    /// How relayed bytes are moved.
    pub relay: Way,
    /// Bytes of one kernel pipe.
    pub pipe_size: u64,
    /// How long an idle worker polls before it sleeps.
    pub spin: Duration,
    /// Where the access log goes, and how its records are written.
    pub access_log: AccessLog,
    /// Debuggers, core files and other processes of the same user may look into its memory.
    pub debuggable: bool,
    /// What protects the machine.
    pub limits: Limits,
    /// Where it tells of itself.
    pub admin: Admin,
}

/// How the bytes of relayed pairs are moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// By what each direction of a pair does.
    #[default]
    Auto,
    /// Always through user space.
    Copy,
    /// Always through kernel pipes, as far as there are any.
    Splice,
}

/// The log of sessions: a record for each that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLog {
    /// Where it goes.
    pub target: AccessTarget,
    /// How its records are written.
    pub format: LogFormat,
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessTarget {
    /// Nowhere: no record is made.
    #[default]
    Off,
    /// To the server's standard output.
    Stdout,
    /// To this file, or pipe.
    File(PathBuf),
}

/// How a record of the access log is written, each on one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Words `key=value`.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

impl AccessLog {
    fn read(settings: &mut Settings) -> Self {
        let target = settings.path("access_log");
        let folder = target.parent().filter(|at| !at.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|at| !at.is_dir()) {
            let folder = folder.display();
            settings.warn(format!("access_log: there is no folder {folder}"));
        }
        Self {
            target: match target.to_str() {
                Some("off") => AccessTarget::Off,
                Some("stdout") => AccessTarget::Stdout,
                _ => AccessTarget::File(target),
            },
            format: match settings.choice("log_format") {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
        }
    }
}

/// Bounds that hold for the whole server.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open connections in all; 0 is what the file-descriptor limit allows.
    pub max_connections: usize,
    /// Open connections from one source address; 0 is no bound.
    pub max_connections_per_ip: usize,
    /// Bytes a second, each way, of all relays of one source address; 0 is no bound.
    pub bandwidth_per_ip: u64,
    /// New connections a second, and as many at once; 0 is no bound.
    pub connection_rate: usize,
    /// New connections a second from one source address, and as many at once; 0 is no bound.
    pub connection_rate_per_ip: usize,
    /// From accept to the end of the handshake, however slowly its bytes come.
    pub handshake_timeout: Duration,
    /// For one attempt to connect to one address.
    pub connect_timeout: Duration,
    /// How long a relay may carry nothing in either direction.
    pub idle_timeout: Duration,
    /// How long sent bytes may stay unacknowledged before the connection counts as lost.
    pub user_timeout: Duration,
    /// How long a stopping server waits for what is open.
    pub drain_timeout: Duration,
    /// Over how long the closing of what is open is spread when the server drains; zero leaves it
    /// open until it ends.
    pub drain_spread: Duration,
    /// Bytes of relay buffers in all.
    pub max_buffer_memory: u64,
    /// How long a resolved name is used without asking again.
    pub resolve_ttl: Duration,
    /// How long a name lookup may take.
    pub resolve_timeout: Duration,
}

impl Limits {
    /// What holds at every listener, those that sessions open among them.
    pub fn terms(&self) -> Terms {
        Terms {
            max_connections_per_ip: self.max_connections_per_ip,
            connection_rate: self.connection_rate,
            connection_rate_per_ip: self.connection_rate_per_ip,
            ..Terms::default()
        }
    }
}

impl Core {
    /// How many workers there are on a machine with so many cores.
    pub fn worker_threads(&self, cores: usize) -> usize {
        match self.workers {
            0 => cores,
            chosen => chosen,
        }
    }

    /// Reads the core's keys; mistakes are left in `settings`.
    pub fn read(settings: &mut Settings) -> Core {
        settings.choice("store");
        let core = Core {
            workers: settings.count("workers"),
            pin: settings.switch("pin"),
            data_dir: settings.path("data_dir"),
            relay: match settings.choice("relay") {
                "copy" => Way::Copy,
                "splice" => Way::Splice,
                _ => Way::Auto,
            },
            pipe_size: settings.size("pipe_size"),
            spin: settings.time("spin"),
            access_log: AccessLog::read(settings),
            debuggable: settings.switch("debuggable"),
            limits: Limits {
                max_connections: settings.count("limits.max_connections"),
                max_connections_per_ip: settings.count("limits.max_connections_per_ip"),
                bandwidth_per_ip: settings.size("limits.bandwidth_per_ip"),
                connection_rate: settings.count("limits.connection_rate"),
                connection_rate_per_ip: settings.count("limits.connection_rate_per_ip"),
                handshake_timeout: settings.time("limits.handshake_timeout"),
                connect_timeout: settings.time("limits.connect_timeout"),
                idle_timeout: settings.time("limits.idle_timeout"),
                user_timeout: settings.time("limits.user_timeout"),
                drain_timeout: settings.time("limits.drain_timeout"),
                drain_spread: settings.time("limits.drain_spread"),
                max_buffer_memory: settings.size("limits.max_buffer_memory"),
                resolve_ttl: settings.time("limits.resolve_ttl"),
                resolve_timeout: settings.time("limits.resolve_timeout"),
            },
            admin: Admin::read(settings),
        };
        if core.limits.drain_spread > core.limits.drain_timeout {
            let message = "is longer than `drain_timeout`, at which the server ends";
            settings.mistake_of("limits.drain_spread", format!("`drain_spread` {message}"));
        }
        core
    }
}

/// The core's keys.
pub const KEYS: &[Key] = &[
    Key::new(
        "workers",
        Kind::Count {
            least: 0,
            most: 256,
        },
        "0",
        "worker threads; 0 is one per core",
    )
    .flag("workers")
    .fixed()
    .short('w'),
    Key::new(
        "pin",
        Kind::Switch,
        "false",
        "keep each worker on a core of its own",
    )
    .flag("pin")
    .fixed(),
    Key::new(
        "data_dir",
        Kind::Path,
        "data",
        "folder of the embedded store, created when missing",
    )
    .flag("data-dir")
    .fixed()
    .short('d'),
    Key::new(
        "store",
        Kind::Choice(&["embedded"]),
        "embedded",
        "where the state is kept",
    )
    .flag("store")
    .fixed(),
    Key::new(
        "relay",
        Kind::Choice(&["auto", "copy", "splice"]),
        "auto",
        "how relayed bytes are moved: by what each pair does, copied, or spliced",
    )
    .flag("relay")
    .fixed(),
    Key::new(
        "pipe_size",
        Kind::Size {
            least: 64 << 10,
            most: 1 << 20,
        },
        "1M",
        "kernel pipe of a spliced pair, as far as the system allows",
    )
    .flag("pipe-size")
    .fixed(),
    Key::new(
        "spin",
        Kind::Time {
            least: Duration::ZERO,
            most: Duration::from_millis(1),
        },
        "0s",
        "how long an idle worker polls before it sleeps, for latency; 20us is a good value",
    )
    .flag("spin")
    .fixed(),
    Key::new(
        "access_log",
        Kind::Output,
        "off",
        "a record for each session that has ended: off, stdout or a file, reopened on SIGUSR1",
    )
    .fixed()
    .flag("access-log"),
    Key::new(
        "log_format",
        Kind::Choice(&["text", "json"]),
        "text",
        "how the access log's records are written: words key=value, or a JSON object",
    )
    .fixed()
    .flag("log-format"),
    Key::new(
        "debuggable",
        Kind::Switch,
        "false",
        "let debuggers, core files and other processes of its user see what is in memory, secrets too",
    )
    .fixed()
    .flag("debuggable"),
    Key::new(
        "limits.max_connections",
        CONNECTIONS,
        "0",
        "open connections in all; 0 is what the file-descriptor limit allows",
    )
    .flag("max-connections"),
    Key::new(
        "limits.max_connections_per_ip",
        CONNECTIONS,
        "0",
        "open connections from one source address; 0 is no bound",
    )
    .flag("max-connections-per-ip"),
    Key::new(
        "limits.bandwidth_per_ip",
        BANDWIDTH,
        "0",
        "bytes a second each way for all relays of one source address; 0 is no bound",
    )
    .flag("bandwidth-per-ip"),
    Key::new(
        "limits.connection_rate",
        RATE,
        "0",
        "new connections a second, and as many at once; 0 is no bound",
    )
    .flag("connection-rate"),
    Key::new(
        "limits.connection_rate_per_ip",
        RATE,
        "0",
        "new connections a second from one source address, and as many at once; 0 is no bound",
    )
    .flag("connection-rate-per-ip"),
    Key::new(
        "limits.handshake_timeout",
        TIMEOUT,
        "5s",
        "from accept to the end of the handshake",
    )
    .flag("handshake-timeout"),
    Key::new(
        "limits.connect_timeout",
        TIMEOUT,
        "5s",
        "for one attempt to connect to one address",
    )
    .flag("connect-timeout"),
    Key::new(
        "limits.idle_timeout",
        TIMEOUT,
        "10m",
        "how long a relay may carry nothing either way",
    )
    .flag("idle-timeout"),
    Key::new(
        "limits.user_timeout",
        TIMEOUT,
        "2m",
        "how long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT)",
    )
    .flag("user-timeout")
    .fixed(),
    Key::new(
        "limits.drain_timeout",
        PAUSE,
        "30s",
        "how long a stopping server waits for what is open",
    )
    .flag("drain-timeout"),
    Key::new(
        "limits.drain_spread",
        PAUSE,
        "0s",
        "over how long a stopping server spreads the closing of what is open; 0s leaves it open",
    )
    .flag("drain-spread"),
    Key::new(
        "limits.max_buffer_memory",
        Kind::Size {
            least: 1 << 20,
            most: 1 << 40,
        },
        "256M",
        "memory for relay buffers in all",
    )
    .flag("max-buffer-memory")
    .fixed(),
    Key::new(
        "limits.resolve_ttl",
        PAUSE,
        "10s",
        "how long a resolved name is used before it is asked again",
    )
    .flag("resolve-ttl")
    .fixed(),
    Key::new(
        "limits.resolve_timeout",
        TIMEOUT,
        "5s",
        "how long a name lookup may take",
    )
    .flag("resolve-timeout")
    .fixed(),
];

/// A deadline must leave a turn of the loop its time, and end within a week.
const TIMEOUT: Kind = Kind::Time {
    least: Duration::from_millis(10),
    most: WEEK,
};

/// A duration for which none at all makes sense too.
const PAUSE: Kind = Kind::Time {
    least: Duration::ZERO,
    most: WEEK,
};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
