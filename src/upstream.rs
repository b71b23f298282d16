//! Dialling an upstream: choose a target, resolve its name, try its addresses, go on to the next.
//!
//! A part for sessions that dial: they pass on the events that concern it and look at what it says.
//! It opens nothing itself.
//!
//! ```text
//!   start ─> target ─> name known? ──no──> Resolving ──answer──┐
//!              ^           └─yes─────────────────────────────> Connecting ─> Connected
//!              │  next target                                     │ refused: next address
//!              └──────────────── none left of this target ────────┘
//! ```
//!
//! Bounds: every target once and at most [`MOST_ADDRESSES`] addresses of each; every try within the
//! connect timeout, all of them within [`OVERALL`] connect timeouts, or the time given to
//! [`Targets::screened`].
//!
//! Where targets come from a peer, a [`Screen`] is asked about every address before it is dialled, and
//! it is that very address that is dialled then: a name that leads elsewhere a moment later changes
//! nothing.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::resolver::Names;
use crate::control::{Command, Reply};
use crate::net::ConnKey;
use crate::session::{Cause, Cx, Event};
use crate::wire::proxy::{Version, encode};

/// A host to dial, by name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A name or an IP address in text, without brackets.
    pub host: Box<str>,
    /// The TCP port, never 0.
    pub port: u16,
}

/// `host:port`, an IPv6 address in brackets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Says whether an address may be dialled for a target.
pub type Screen = Rc<dyn Fn(&Target, SocketAddr) -> bool>;

/// Targets that serve the same purpose, used in turn; one core's view of them.
pub struct Targets {
    list: Vec<Candidate>,
    next: Cell<usize>,
    connect_timeout: Duration,
    overall: Duration,
    names: Names,
    screen: Option<Screen>,
}

struct Candidate {
    target: Target,
    /// Known without asking anybody.
    literal: Option<IpAddr>,
    /// While this is in the future the target is tried only when no other is left.
    failed_until: Cell<Option<Instant>>,
}

impl Targets {
    /// Targets in the order of the configuration.
    pub fn new(list: Vec<Target>, connect_timeout: Duration, names: Names) -> Rc<Self> {
        let candidate = |target: Target| Candidate {
            literal: target.host.parse().ok(),
            target,
            failed_until: Cell::new(None),
        };
        Rc::new(Self {
            list: list.into_iter().map(candidate).collect(),
            next: Cell::new(0),
            connect_timeout,
            overall: connect_timeout * OVERALL,
            names,
            screen: None,
        })
    }

    /// A single target that somebody else has named: all tries take at most `within`, and only
    /// addresses that `screen` permits are dialled.
    pub fn screened(target: Target, within: Duration, names: Names, screen: Screen) -> Rc<Self> {
        let mut targets = Self::new(vec![target], within, names);
        if let Some(targets) = Rc::get_mut(&mut targets) {
            targets.overall = within;
            targets.screen = Some(screen);
        }
        targets
    }

    /// The target of that number in the order of the configuration.
    pub fn get(&self, number: u32) -> Option<&Target> {
        self.list.get(number as usize).map(|found| &found.target)
    }

    /// One could not be reached by other ways than a [`Dialling`]: for a while it is tried only when no
    /// other is left. True when that is news.
    pub fn note_failed(&self, number: usize, now: Instant) -> bool {
        let candidate = self.list.get(number);
        candidate.is_some_and(|candidate| {
            let until = candidate.failed_until.replace(Some(now + REST));
            until.is_none_or(|until| until <= now)
        })
    }

    /// One was reached.
    pub fn note_reached(&self, number: usize) {
        if let Some(candidate) = self.list.get(number) {
            candidate.failed_until.set(None);
        }
    }

    /// True when it failed lately, and there is one that did not.
    pub fn is_passed_over(&self, number: usize, now: Instant) -> bool {
        let candidate = self.list.get(number);
        candidate.is_some_and(|candidate| !candidate.is_rested(now))
            && self.list.iter().any(|other| other.is_rested(now))
    }

    /// The numbers of all, in the order in which one dialler tries them: round robin, those that failed
    /// lately last.
    pub fn order(&self, now: Instant) -> Vec<usize> {
        let count = self.list.len();
        let first = self.next.get();
        self.next
            .set(if count == 0 { 0 } else { (first + 1) % count });
        let turn = (0..count).map(|step| (first + step) % count);
        let (rested, failed): (Vec<_>, Vec<_>) = turn.partition(|&at| self.list[at].is_rested(now));
        rested.into_iter().chain(failed).collect()
    }
}

impl Candidate {
    fn is_rested(&self, now: Instant) -> bool {
        self.failed_until.get().is_none_or(|until| until <= now)
    }
}

/// One connect on its way.
pub struct Dialling {
    targets: Rc<Targets>,
    /// Targets still to be tried, the next one last.
    untried: Vec<usize>,
    /// The one that is being tried.
    present: usize,
    /// Its addresses still to be tried, the next one last.
    addresses: Vec<IpAddr>,
    deadline: Instant,
    /// Numbers the tries, so that an answer to an earlier one is told apart.
    attempt: u32,
    last_failure: Failure,
}

/// Why a target could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no target.
    Nothing,
    /// Its name was not resolved.
    Unresolved,
    /// The name was resolved, to no address.
    Empty,
    /// Too many names are being looked up.
    ResolverBusy,
    /// None of its addresses may be dialled.
    Forbidden,
    /// It refused the connection.
    Refused,
    /// It did not answer in time.
    TimedOut,
    /// It reset the connection.
    Reset,
    /// The network knows no way to the host.
    NoHost,
    /// There is no way to its network.
    NoNetwork,
    /// This host has no port or descriptor left to dial from.
    NoPort,
    /// This host's rules forbid it.
    NotPermitted,
    /// Anything else.
    Other,
}

impl Failure {
    /// For a log line.
    pub fn words(self) -> &'static str {
        match self {
            Self::Nothing => "no target",
            Self::Unresolved => "name not resolved",
            Self::Empty => "name without addresses",
            Self::ResolverBusy => "resolver busy",
            Self::Forbidden => "destination not allowed",
            Self::Refused => "connection refused",
            Self::TimedOut => "connect timed out",
            Self::Reset => "connection reset",
            Self::NoHost => "host unreachable",
            Self::NoNetwork => "network unreachable",
            Self::NoPort => "no local port left",
            Self::NotPermitted => "not permitted",
            Self::Other => "connect failed",
        }
    }
}

impl From<io::ErrorKind> for Failure {
    fn from(why: io::ErrorKind) -> Self {
        match why {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionReset => Self::Reset,
            io::ErrorKind::HostUnreachable => Self::NoHost,
            // The system's word for a destination that its routes swallow.
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::InvalidInput => Self::NoNetwork,
            io::ErrorKind::AddrNotAvailable => Self::NoPort,
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => Self::Other,
        }
    }
}

impl From<Failure> for Cause {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Forbidden => Self::Denied(failure.words()),
            _ => Self::Unreachable(failure.words()),
        }
    }
}

/// How far a dialling has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The event was taken, or concerns something else; wait for the next one.
    Waiting,
    /// Connected.
    Connected(ConnKey),
    /// Everything was tried.
    Failed(Failure),
}

impl Dialling {
    /// Begins with the target whose turn it is.
    pub fn start(targets: &Rc<Targets>, cx: &mut Cx<'_>) -> (Self, Progress) {
        Self::start_behind(0, targets, cx)
    }

    /// As [`Dialling::start`], for a session that has given another dialling up: `attempts` is what
    /// that one's [`Dialling::attempts`] was, so that no late answer to it is taken for one of these.
    pub fn start_behind(attempts: u32, targets: &Rc<Targets>, cx: &mut Cx<'_>) -> (Self, Progress) {
        let mut untried = targets.order(cx.now);
        untried.reverse();
        let mut dialling = Self {
            targets: Rc::clone(targets),
            untried,
            present: 0,
            addresses: Vec::new(),
            deadline: cx.now + targets.overall,
            attempt: attempts,
            last_failure: Failure::Nothing,
        };
        let progress = dialling.next_target(cx);
        (dialling, progress)
    }

    /// Takes an event of the session; those of other matters leave it as it is.
    pub fn handle(&mut self, event: &Event<'_>, cx: &mut Cx<'_>) -> Progress {
        match event {
            Event::Reply { ticket, reply } if *ticket == self.attempt => match reply {
                Reply::Resolved(Ok(addresses)) => self.resolved(addresses, cx),
                Reply::Resolved(Err(_)) => self.give_up_target(Failure::Unresolved, cx),
                Reply::Busy => self.give_up_target(Failure::ResolverBusy, cx),
                _ => Progress::Waiting,
            },
            Event::Connected { conn, tag } if *tag == self.attempt => {
                self.candidate().failed_until.set(None);
                Progress::Connected(*conn)
            }
            Event::Refused { tag, why } if *tag == self.attempt => {
                self.last_failure = (*why).into();
                self.next_address(cx)
            }
            _ => Progress::Waiting,
        }
    }

    /// How many tries there were, those before it included.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// What is dialled, or was last: for log lines.
    pub fn target(&self) -> &Target {
        &self.candidate().target
    }

    /// Its number in the order of the configuration, for [`Targets::get`].
    pub fn number(&self) -> u32 {
        self.present as u32
    }

    fn candidate(&self) -> &Candidate {
        &self.targets.list[self.present]
    }

    fn next_target(&mut self, cx: &mut Cx<'_>) -> Progress {
        let Some(next) = self.untried.pop() else {
            return Progress::Failed(self.last_failure);
        };
        self.present = next;
        let candidate = self.candidate();
        if let Some(address) = candidate.literal {
            return self.resolved(&Arc::from([address]), cx);
        }
        if let Some(known) = self.targets.names.lookup(&candidate.target.host, cx.now) {
            return self.resolved(&known, cx);
        }
        let host = candidate.target.host.clone();
        self.attempt = self.attempt.wrapping_add(1);
        cx.ask(self.attempt, Command::Resolve { host });
        Progress::Waiting
    }

    fn resolved(&mut self, addresses: &Arc<[IpAddr]>, cx: &mut Cx<'_>) -> Progress {
        let most = addresses.len().min(MOST_ADDRESSES);
        let target = &self.candidate().target;
        let screen = self.targets.screen.as_ref();
        let may_dial = |ip: &IpAddr| {
            screen.is_none_or(|screen| screen(target, SocketAddr::new(*ip, target.port)))
        };
        let permitted = addresses[..most].iter().rev().copied().filter(may_dial);
        let permitted: Vec<_> = permitted.collect();
        self.last_failure = match addresses.is_empty() {
            true => Failure::Empty,
            false => Failure::Forbidden,
        };
        self.addresses = permitted;
        self.next_address(cx)
    }

    fn next_address(&mut self, cx: &mut Cx<'_>) -> Progress {
        let left = self.deadline.saturating_duration_since(cx.now);
        if left.is_zero() {
            self.untried.clear();
            return self.give_up_target(Failure::TimedOut, cx);
        }
        let Some(address) = self.addresses.pop() else {
            return self.give_up_target(self.last_failure, cx);
        };
        self.attempt = self.attempt.wrapping_add(1);
        let to = SocketAddr::new(address, self.candidate().target.port);
        let within = self.targets.connect_timeout.min(left);
        cx.connect(to, within, self.attempt);
        Progress::Waiting
    }

    fn give_up_target(&mut self, why: Failure, cx: &mut Cx<'_>) -> Progress {
        self.last_failure = why;
        self.candidate().failed_until.set(Some(cx.now + REST));
        self.next_target(cx)
    }
}

/// Tells an upstream whom a client is, by a header before its first byte: for sessions to call when
/// they have connected and sent nothing. Nothing is told where there is no version.
pub fn introduce(version: Option<Version>, client: ConnKey, upstream: ConnKey, cx: &mut Cx<'_>) {
    if let Some(header) = introduction(version, client, cx) {
        cx.send(upstream, &header);
    }
}

/// The header that [`introduce`] sends.
pub fn introduction(version: Option<Version>, client: ConnKey, cx: &Cx<'_>) -> Option<Vec<u8>> {
    version.map(|version| encode(version, false, cx.ends(client)))
}

/// A name with very many addresses is not tried to the last one.
const MOST_ADDRESSES: usize = 16;

/// All tries of one dialling together take at most so many connect timeouts.
const OVERALL: u32 = 3;

/// How long a target that could not be reached is passed over while there are others.
const REST: Duration = Duration::from_secs(5);
