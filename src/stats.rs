//! Counters of one core: written by its worker alone, read by anyone at any time.
//!
//! A counter is a plain load and store on its own core, never a locked instruction; whoever reads
//! sums over the cores. What each is called outside, and what it says, stands in [`TABLE`] and
//! nowhere else. Labels take their values from short lists that are known at the start, so the
//! number of series is bounded.

mod table;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub use table::{About, Gauge, Kind, Reason, Refusal, Source, TABLE};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Metric {
    /// Connections accepted.
    Accepted,
    /// Connections refused at a cap, closed unheard.
    Shed,
    /// Times a listener rested because no connection could be taken.
    Rested,
    /// Sessions that ended, however.
    Ended,
    /// Sessions that ended by somebody's fault.
    Faulted,
    /// Sessions that panicked.
    Panicked,
    /// Connects begun.
    Dialled,
    /// Connects that failed.
    DialFailed,
    /// Bytes relayed from the first to the second connection of a pair, and back.
    Relayed,
    /// Frames passed on from one connection to another.
    Forwarded,
    /// Frames that their sender was not entitled to send, left without effect.
    Ignored,
    /// Connections that a session closed for what they sent, itself going on.
    Rejected,
    /// Datagrams received.
    DatagramsIn,
    /// Datagrams sent.
    DatagramsOut,
    /// Datagrams dropped: received cut or for a session that has gone, or not sent because there was
    /// no room or the system refused them.
    DatagramsDropped,
    /// Datagrams lost on their way through a chain, as a hop or a destination has told.
    DatagramsRefused,
    /// Datagrams to a hop that are worth no answer.
    DatagramsDenied,
    /// Times that a connection with bytes to read had to wait for its pace.
    PaceWaits,
    /// Questions that the control thread had no room for.
    Unasked,
    /// Log lines not written because there were too many of their kind.
    Unlogged,
}

const METRICS: usize = Metric::Unlogged as usize + 1;

/// What a core holds at the end of its latest turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Held {
    /// Sessions.
    Sessions,
    /// Connections.
    Connections,
    /// Relayed pairs.
    Relays,
    /// Datagram sockets that sessions have opened.
    Sockets,
    /// Bytes of buffer blocks lent out.
    Buffers,
    /// Listeners that rest because no connection can be taken.
    Resting,
}

const HELD: usize = Held::Resting as usize + 1;

/// Roles that one core counts.
const MOST_ROLES: usize = 32;

/// One core's counters.
#[derive(Default)]
pub struct Counters {
    values: [AtomicU64; METRICS],
    held: [AtomicU64; HELD],
    refused: [AtomicU64; Refusal::ALL.len()],
    /// Those that are known are in front.
    roles: Box<[OnceLock<RoleCounters>]>,
}

/// One core's counters of the sessions of one role.
pub struct RoleCounters {
    name: &'static str,
    opened: AtomicU64,
    open: AtomicU64,
    ended: [AtomicU64; Reason::ALL.len()],
    moved: [AtomicU64; 2],
}

/// One role's figures, of one core or summed over them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleFigures {
    /// What it is called in the address file and the log.
    pub name: &'static str,
    /// Sessions begun.
    pub opened: u64,
    /// Sessions that are open.
    pub open: u64,
    /// Sessions that have ended, by reason.
    pub ended: [u64; Reason::ALL.len()],
    /// Bytes from those who came, and to them.
    pub moved: [u64; 2],
}

impl Counters {
    /// Counters with those of the roles named.
    pub fn new(roles: &[&'static str]) -> Self {
        let counters = Self {
            roles: (0..MOST_ROLES).map(|_| OnceLock::new()).collect(),
            ..Self::default()
        };
        for role in roles {
            counters.enroll(role);
        }
        counters
    }

    /// Adds to a counter. Only the worker that owns the counters may call this.
    pub fn add(&self, metric: Metric, count: u64) {
        raise(&self.values[metric as usize], count);
    }

    /// The counter's value now.
    pub fn get(&self, metric: Metric) -> u64 {
        self.values[metric as usize].load(Ordering::Relaxed)
    }

    /// Counts a connection that was closed at the door. Only for the worker that owns the counters.
    pub fn refuse(&self, why: Refusal) {
        raise(&self.refused[why as usize], 1);
    }

    /// How many were closed for this reason.
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }

    /// Tells how much of something there is. Only for the worker that owns the counters.
    pub fn hold(&self, what: Held, count: usize) {
        self.held[what as usize].store(count as u64, Ordering::Relaxed);
    }

    /// How much of something there was at the end of the latest turn.
    pub fn held(&self, what: Held) -> u64 {
        self.held[what as usize].load(Ordering::Relaxed)
    }

    /// The counters of one role, by the number that [`Counters::role_number`] gave.
    pub fn role(&self, number: usize) -> Option<&RoleCounters> {
        self.roles.get(number)?.get()
    }

    /// The number of a role, which is counted from here on if it was not; `None` when there are too
    /// many. Only for the worker that owns the counters, or before it begins.
    pub fn enroll(&self, name: &'static str) -> Option<usize> {
        let known = self.role_number(name);
        known.or_else(|| {
            let is_free = |role: &OnceLock<RoleCounters>| role.get().is_none();
            let free = self.roles.iter().position(is_free)?;
            let _ = self.roles[free].set(RoleCounters::of(name));
            Some(free)
        })
    }

    /// Which of the roles has this name.
    pub fn role_number(&self, name: &str) -> Option<usize> {
        let is_it =
            |role: &OnceLock<RoleCounters>| role.get().is_some_and(|role| role.name == name);
        self.roles.iter().position(is_it)
    }
}

/// Written by the worker that owns them alone, too.
impl RoleCounters {
    fn of(name: &'static str) -> Self {
        Self {
            name,
            opened: AtomicU64::default(),
            open: AtomicU64::default(),
            ended: Default::default(),
            moved: Default::default(),
        }
    }

    /// A session has begun.
    pub fn begin(&self) {
        raise(&self.opened, 1);
        raise(&self.open, 1);
    }

    /// A session has ended.
    pub fn end(&self, reason: Reason) {
        raise(&self.ended[reason as usize], 1);
        raise(&self.open, u64::MAX);
    }

    /// Bytes came from those who came here (way 0), or went to them (way 1).
    pub fn add_moved(&self, way: usize, count: u64) {
        raise(&self.moved[way & 1], count);
    }

    /// What the role is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn figures(&self) -> RoleFigures {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        RoleFigures {
            name: self.name,
            opened: read(&self.opened),
            open: read(&self.open),
            ended: std::array::from_fn(|at| read(&self.ended[at])),
            moved: std::array::from_fn(|way| read(&self.moved[way])),
        }
    }
}

/// A plain addition, as only one thread writes; `u64::MAX` takes one away.
fn raise(value: &AtomicU64, count: u64) {
    let sum = value.load(Ordering::Relaxed).wrapping_add(count);
    value.store(sum, Ordering::Relaxed);
}

/// Lines that the log's own thread had no room for, in the whole process.
static LOST_LINES: AtomicU64 = AtomicU64::new(0);

/// Counts a line that was lost on its way to the log.
pub fn lose_line() {
    LOST_LINES.fetch_add(1, Ordering::Relaxed);
}

/// How many were.
pub fn lost_lines() -> u64 {
    LOST_LINES.load(Ordering::Relaxed)
}

/// A counter's sum over all cores.
pub fn sum<'a>(cores: impl IntoIterator<Item = &'a Counters>, metric: Metric) -> u64 {
    cores.into_iter().map(|core| core.get(metric)).sum()
}

/// How much of something all cores hold.
pub fn sum_held<'a>(cores: impl IntoIterator<Item = &'a Counters>, what: Held) -> u64 {
    cores.into_iter().map(|core| core.held(what)).sum()
}

/// Every role's figures over all cores, in the order in which the first core came to know them.
pub fn sum_roles<'a>(cores: impl IntoIterator<Item = &'a Counters>) -> Vec<RoleFigures> {
    let mut sums: Vec<RoleFigures> = Vec::new();
    for core in cores {
        for role in core.roles.iter().filter_map(OnceLock::get) {
            let more = role.figures();
            let Some(sum) = sums.iter_mut().find(|sum| sum.name == more.name) else {
                sums.push(more);
                continue;
            };
            sum.opened += more.opened;
            sum.open = sum.open.wrapping_add(more.open);
            for (sum, more) in sum.ended.iter_mut().zip(more.ended) {
                *sum += more;
            }
            for (sum, more) in sum.moved.iter_mut().zip(more.moved) {
                *sum += more;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_go_over_all_cores() {
        let cores = [Counters::default(), Counters::default()];
        cores[0].add(Metric::Accepted, 2);
        cores[1].add(Metric::Accepted, 3);
        cores[1].add(Metric::Unlogged, 1);
        assert_eq!(sum(&cores, Metric::Accepted), 5);
        assert_eq!(sum(&cores, Metric::Unlogged), 1);
        assert_eq!(sum(&cores, Metric::Shed), 0);
    }

    #[test]
    fn roles_are_counted_by_reason_and_way() {
        let cores = [Counters::new(&["a", "b"]), Counters::new(&["a", "b"])];
        let b = cores[0].role_number("b").unwrap();
        assert_eq!(cores[0].role_number("c"), None);
        for core in &cores {
            let role = core.role(b).unwrap();
            role.begin();
            role.begin();
            role.end(Reason::Kicked);
            role.add_moved(1, 7);
        }
        let sums = sum_roles(&cores);
        assert_eq!(
            sums[0],
            RoleFigures {
                name: "a",
                ..RoleFigures::default()
            }
        );
        assert_eq!((sums[1].opened, sums[1].open), (4, 2));
        assert_eq!(sums[1].ended[Reason::Kicked as usize], 2);
        assert_eq!(sums[1].ended.iter().sum::<u64>(), 2);
        assert_eq!(sums[1].moved, [0, 14]);
    }
}
