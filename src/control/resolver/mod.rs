//! Names to addresses, off the workers: a few threads that may hang, and a cache that may not.
//!
//! No socket is opened and nobody is answered here: [`Resolver`] says who is to be told what,
//! and the control thread, its only caller, posts it. Time comes as a parameter.
//!
//! ```text
//!   ask ──> address written out, fresh answer ──────────────────────────> answer now
//!    └────> lookup under way? join it : queue it (full: stale or Busy)
//!                │
//!                ├─ found ─────────────────> all who wait get it; cached for the time to live
//!                ├─ failed ────────────────> an old answer (up to 1 h), else the failure
//!                ├─ 1 s, old answer known ─> the old answer; the lookup goes on
//!                └─ timeout, none known ───> TimedOut; the lookup goes on
//! ```
//!
//! The system's lookup cannot be interrupted. A hung one costs one of four threads for as long
//! as the system likes; other hosts go on on the others, and what waits longer than its timeout
//! is told so while the lookup goes on and fills the cache for the next who asks.

mod names;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

pub use names::{Addresses, Names};

/// Why a host has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The name service says that there is no such name, or that it has no address.
    NoSuchName,
    /// The name service itself does not work; another try may succeed.
    Unavailable,
    /// No answer came within this time.
    TimedOut(Duration),
    /// Too much is waiting already: lookups, or those who wait for them.
    Busy,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str("no such name"),
            Self::Unavailable => f.write_str("name service unavailable"),
            Self::TimedOut(after) => write!(f, "timed out after {after:?}"),
            Self::Busy => f.write_str("resolver busy"),
        }
    }
}

impl std::error::Error for Failure {}

/// What a lookup comes to.
pub type Outcome = Result<Addresses, Failure>;

/// Asks the name service. May block for as long as it likes.
pub trait Lookup: Send + Sync {
    /// All addresses of a host, in the order of preference.
    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's own resolution: `getaddrinfo`, with everything that it reads.
pub struct System;

impl Lookup for System {
    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok((host, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect())
    }
}

/// Where lookups are done.
enum Engine {
    /// On other threads, which take jobs and send what they found.
    Elsewhere { jobs: Sender<Arc<str>> },
    /// At once, on the caller's thread: for simulations, whose lookups do not block.
    Inline(Box<dyn Lookup>),
}

/// What came of a lookup on another thread.
pub struct Found {
    /// As it was asked.
    pub host: Arc<str>,
    /// What the name service said.
    pub result: io::Result<Vec<IpAddr>>,
}

/// Decides which lookups are made and who is told what. `W` names one who waits.
///
/// Bounds: 260 lookups queued or under way, 65536 waiting for them, 4096 hosts in the cache,
/// 1024 failures remembered for a second each.
pub struct Resolver<W> {
    names: Names,
    engine: Engine,
    found: Receiver<Found>,
    pending: HashMap<Arc<str>, Pending<W>>,
    waiting: usize,
    failed: Failed,
    timeout: Duration,
    warned: Option<Instant>,
}

/// A lookup under way.
struct Pending<W> {
    since: Instant,
    /// In the order of their deadlines.
    waiters: VecDeque<(Instant, W)>,
}

impl<W> Resolver<W> {
    /// Looks up with the system's resolution on four threads of its own.
    ///
    /// The threads end when the resolver is dropped and their lookup returns; nobody waits for
    /// them, since a hung one would hold up the end of the process.
    pub fn new(ttl: Duration, timeout: Duration) -> io::Result<Self> {
        Self::with_threads(Arc::new(System), ttl, timeout)
    }

    /// As [`Resolver::new`], with another way to look up.
    pub fn with_threads(
        lookup: Arc<dyn Lookup>,
        ttl: Duration,
        timeout: Duration,
    ) -> io::Result<Self> {
        let (resolver, jobs, found) = Self::with_channels(ttl, timeout);
        for number in 0..THREADS {
            let (lookup, jobs, found) = (Arc::clone(&lookup), jobs.clone(), found.clone());
            thread::Builder::new()
                .name(format!("resolve-{number}"))
                .spawn(move || {
                    for host in jobs {
                        let result = lookup.lookup(&host);
                        if found.send(Found { host, result }).is_err() {
                            break;
                        }
                    }
                })?;
        }
        Ok(resolver)
    }

    /// Hands the lookups out instead of doing them: whoever holds the two ends receives the
    /// hosts and sends what was found. For tests and simulations of slow name services.
    pub fn with_channels(
        ttl: Duration,
        timeout: Duration,
    ) -> (Self, Receiver<Arc<str>>, Sender<Found>) {
        let (jobs, todo) = bounded(LOOKUPS);
        let (done, found) = bounded(LOOKUPS);
        let engine = Engine::Elsewhere { jobs };
        (Self::on(engine, found, ttl, timeout), todo, done)
    }

    /// Looks up at once, on the caller's thread.
    pub fn inline(lookup: Box<dyn Lookup>, ttl: Duration, timeout: Duration) -> Self {
        let found = crossbeam_channel::never();
        Self::on(Engine::Inline(lookup), found, ttl, timeout)
    }

    fn on(engine: Engine, found: Receiver<Found>, ttl: Duration, timeout: Duration) -> Self {
        Self {
            names: Names::new(ttl),
            engine,
            found,
            pending: HashMap::new(),
            waiting: 0,
            failed: Failed::default(),
            timeout,
            warned: None,
        }
    }

    /// The cache, for the workers.
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// What the other threads found, for the caller to wait on and give to [`Resolver::finish`].
    pub fn found(&self) -> &Receiver<Found> {
        &self.found
    }

    /// Told that the other threads are gone: nothing will be found any more. What waits runs into
    /// its timeout.
    pub fn fall_silent(&mut self) {
        self.found = crossbeam_channel::never();
    }

    /// The answer when it is known at once; else `waiter` comes out of [`Resolver::finish`] or
    /// [`Resolver::expire`] exactly once.
    pub fn ask(&mut self, host: &str, waiter: W, now: Instant) -> Option<Outcome> {
        if let Some(addresses) = self.names.lookup(host, now) {
            return Some(Ok(addresses));
        }
        // No name is longer, so none is kept; nor one with a NUL, which ends it for the system.
        if host.is_empty() || host.len() > LONGEST_NAME || host.contains('\0') {
            return Some(Err(Failure::NoSuchName));
        }
        let stale = self.names.younger_than(host, STALE, now);
        if let Some(failure) = self.failed.recently(host, now) {
            return Some(stale.ok_or(failure));
        }
        let known = stale.is_some();
        if !self.pending.contains_key(host)
            && let Some(outcome) = self.start(host, stale.clone(), now)
        {
            return Some(outcome);
        }
        if self.waiting >= WAITERS {
            return Some(stale.ok_or(Failure::Busy));
        }
        let pending = self.pending.get_mut(host)?;
        let patience = now + self.timeout;
        let deadline = if known {
            patience.min(pending.since + STALE_AFTER)
        } else {
            patience
        };
        if let Some(stale) = stale.filter(|_| deadline <= now) {
            return Some(Ok(stale));
        }
        pending.waiters.push_back((deadline, waiter));
        self.waiting += 1;
        None
    }

    /// Starts a lookup; an outcome means that there is nothing to wait for.
    fn start(&mut self, host: &str, stale: Option<Addresses>, now: Instant) -> Option<Outcome> {
        let host: Arc<str> = host.into();
        match &self.engine {
            Engine::Inline(lookup) => {
                let result = lookup.lookup(&host);
                Some(self.settle(&host, result, now))
            }
            Engine::Elsewhere { jobs } => {
                if self.pending.len() >= LOOKUPS || jobs.try_send(Arc::clone(&host)).is_err() {
                    return Some(stale.ok_or(Failure::Busy));
                }
                let pending = Pending {
                    since: now,
                    waiters: VecDeque::new(),
                };
                self.pending.insert(host, pending);
                None
            }
        }
    }

    /// Takes what another thread found, and tells all who wait for it through `tell`.
    pub fn finish(&mut self, found: Found, now: Instant, mut tell: impl FnMut(W, Outcome)) {
        let outcome = self.settle(&found.host, found.result, now);
        let Some(pending) = self.pending.remove(&found.host) else {
            return;
        };
        self.waiting -= pending.waiters.len();
        for (_, waiter) in pending.waiters {
            tell(waiter, outcome.clone());
        }
    }

    /// Tells those whose patience has ended.
    pub fn expire(&mut self, now: Instant, mut tell: impl FnMut(W, Outcome)) {
        let mut given = None;
        for (host, pending) in &mut self.pending {
            // An old answer was there when they came, or its hour has ended since.
            while let Some((deadline, _)) = pending.waiters.front()
                && *deadline <= now
                && let Some((_, waiter)) = pending.waiters.pop_front()
            {
                self.waiting -= 1;
                let stale = self.names.younger_than(host, STALE, now);
                if stale.is_some() {
                    given = Some(Arc::clone(host));
                }
                tell(waiter, stale.ok_or(Failure::TimedOut(self.timeout)));
            }
        }
        if let Some(host) = given {
            self.warn(&host, "is slow", now);
        }
    }

    /// When [`Resolver::expire`] has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = self.pending.values().filter_map(|one| one.waiters.front());
        first.map(|(deadline, _)| *deadline).min()
    }

    /// How many wait for an answer.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Files a result in the cache and says what those who wait for it are told.
    fn settle(
        &mut self,
        host: &Arc<str>,
        result: io::Result<Vec<IpAddr>>,
        now: Instant,
    ) -> Outcome {
        let (mut addresses, failure) = match result {
            Ok(addresses) => (addresses, Failure::NoSuchName),
            Err(error) => (Vec::new(), meaning(&error)),
        };
        let mut seen = Vec::new();
        addresses.retain(|address| {
            let new = seen.len() < ADDRESSES && !seen.contains(address);
            if new {
                seen.push(*address);
            }
            new
        });
        if !addresses.is_empty() {
            let addresses: Addresses = addresses.into();
            self.names.put(host, Arc::clone(&addresses), now);
            return Ok(addresses);
        }
        self.failed.remember(host, failure, now);
        let stale = self.names.younger_than(host, STALE, now);
        if stale.is_some() {
            self.warn(host, "failed", now);
        }
        stale.ok_or(failure)
    }

    /// At most one line per second.
    fn warn(&mut self, host: &str, what: &str, now: Instant) {
        let recently = |at: Instant| now.saturating_duration_since(at) < QUIET;
        if !self.warned.is_some_and(recently) {
            self.warned = Some(now);
            log::warn!("resolver: lookup {what}, old addresses are used host={host}");
        }
    }
}

/// Failures of the last second, so that a missing name is not looked up for every asker.
#[derive(Default)]
struct Failed {
    hosts: HashMap<Arc<str>, (Instant, Failure)>,
    /// In the order of failing; entries that a later failure has replaced are passed over.
    order: VecDeque<(Instant, Arc<str>)>,
}

impl Failed {
    fn recently(&mut self, host: &str, now: Instant) -> Option<Failure> {
        self.forget(now);
        self.hosts.get(host).map(|(_, failure)| *failure)
    }

    fn remember(&mut self, host: &Arc<str>, failure: Failure, now: Instant) {
        self.hosts.insert(Arc::clone(host), (now, failure));
        self.order.push_back((now, Arc::clone(host)));
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, host)) = self.order.front() {
            let old = now.saturating_duration_since(*at) >= NEGATIVE;
            if !old && self.order.len() <= FAILURES {
                break;
            }
            if self.hosts.get(host).is_some_and(|(last, _)| last == at) {
                self.hosts.remove(host);
            }
            self.order.pop_front();
        }
    }
}

/// Tells "no such name" from "could not ask". The standard library keeps the number of
/// getaddrinfo's error to itself, so its text decides.
fn meaning(error: &io::Error) -> Failure {
    let could_not_ask =
        error.raw_os_error().is_some() || error.to_string().contains("Temporary failure");
    if could_not_ask {
        Failure::Unavailable
    } else {
        Failure::NoSuchName
    }
}

const THREADS: usize = 4;
/// Lookups on the threads and the 256 that may queue for them.
const LOOKUPS: usize = THREADS + 256;
const WAITERS: usize = 65_536;
/// Addresses kept of one answer: more than anyone would try.
const ADDRESSES: usize = 16;
const LONGEST_NAME: usize = 255;
/// How old an answer may be given when the name service does not answer.
const STALE: Duration = Duration::from_secs(3600);
/// How long a lookup may take before an old answer is given instead.
const STALE_AFTER: Duration = Duration::from_secs(1);
const NEGATIVE: Duration = Duration::from_secs(1);
const FAILURES: usize = 1024;
const QUIET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
