//! Who may come in where, how many, and how fast: one door for all listeners of a role, shared by
//! all cores, and one for the whole server.
//!
//! ```text
//!   accept ──> source barred? ──> its rate ──> its count ──> everybody's rate ──> in
//! ```
//!
//! Asked once for each accepted connection; no byte that is relayed passes here, which is why locks
//! are in order where there is a bound for each source. Rates follow the generic cell rate
//! algorithm: one number says when the next would be due if all came evenly, and whoever is more than
//! a second ahead of that is too fast. So a rate of 10 lets 10 come at once, and then one each 100 ms.
//!
//! Bounds: counts of sources, one for each that has a connection; rates of sources, twice
//! [`SOURCES`], of whom those that were quiet longest are forgotten first. Whoever was quiet for a
//! second starts anew anyway, so that nothing is lost by it below so many sources a second.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};

use crate::config::Terms;
use crate::stats::Refusal;

/// What holds at some listeners, and who came in by them.
pub struct Door {
    terms: RwLock<Arc<Terms>>,
    /// There are networks that may come, or may not: most doors need not look.
    is_choosy: AtomicBool,
    epoch: Instant,
    open: AtomicUsize,
    due: AtomicU64,
    counts: Mutex<HashMap<IpAddr, usize>>,
    rates: Mutex<Rates>,
}

impl Door {
    /// A door with these terms, by which nobody has come.
    pub fn new(terms: Terms) -> Self {
        let door = Self {
            terms: RwLock::default(),
            is_choosy: AtomicBool::new(false),
            epoch: Instant::now(),
            open: AtomicUsize::new(0),
            due: AtomicU64::new(0),
            counts: Mutex::default(),
            rates: Mutex::default(),
        };
        door.set(terms);
        door
    }

    /// From now on these terms hold. Who is in stays in and counts on, except that nobody is counted
    /// by source who came while there was no bound for that.
    pub fn set(&self, terms: Terms) {
        let is_choosy = !terms.allow_from.is_empty() || !terms.deny_from.is_empty();
        *self.terms.write() = Arc::new(terms);
        self.is_choosy.store(is_choosy, Ordering::Release);
    }

    /// The terms that hold now.
    pub fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read())
    }

    /// How many are in.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// True when connections from there begin with a header that says whom they are for.
    pub fn believes(&self, peer: IpAddr) -> bool {
        lies_in(&self.terms.read().accept_proxy, peer)
    }

    /// True when there are networks that may come, or may not.
    pub fn is_choosy(&self) -> bool {
        self.is_choosy.load(Ordering::Acquire)
    }

    /// True when nobody may come from there.
    pub fn bars(&self, from: IpAddr) -> bool {
        if !self.is_choosy() {
            return false;
        }
        let terms = self.terms.read();
        let is_allowed = terms.allow_from.is_empty() || lies_in(&terms.allow_from, from);
        !is_allowed || lies_in(&terms.deny_from, from)
    }

    /// Counts one more, unless there are as many as may be.
    pub(super) fn enter(&self) -> bool {
        let most = self.terms.read().max_connections;
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        if most > 0 && before >= most {
            self.leave();
            return false;
        }
        true
    }

    /// One who was counted has gone.
    pub(super) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts one more from there, as far as there are bounds for that; true when it is counted.
    pub(super) fn admit(&self, from: IpAddr, now: Instant) -> Result<bool, Refusal> {
        let terms = self.terms();
        let now = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        if terms.connection_rate_per_ip > 0
            && !self
                .rates
                .lock()
                .take(from, now, terms.connection_rate_per_ip)
        {
            return Err(Refusal::RatePerIp);
        }
        let counts = terms.max_connections_per_ip > 0;
        if counts && !self.count(from, terms.max_connections_per_ip) {
            return Err(Refusal::ConnectionsPerIp);
        }
        if terms.connection_rate > 0 && !take(&self.due, now, terms.connection_rate) {
            if counts {
                self.forget(from);
            }
            return Err(Refusal::Rate);
        }
        Ok(counts)
    }

    fn count(&self, from: IpAddr, most: usize) -> bool {
        let mut counts = self.counts.lock();
        let count = counts.entry(from).or_default();
        // An entry that was made just now is not left behind, as `most` is not 0.
        let fits = *count < most;
        *count += usize::from(fits);
        fits
    }

    /// One from there has gone who was counted.
    pub(super) fn forget(&self, from: IpAddr) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&from);
            }
        }
    }
}

/// The doors of a server: one for each service, and one more for each of its listeners that has a
/// name.
#[derive(Debug, Default)]
pub struct Doors(Mutex<HashMap<Whose, Arc<Door>>>);

/// A service, or its listener of that name.
type Whose = (usize, Option<Box<str>>);

impl Doors {
    /// That of a service, or of its listener of that name; made with these terms when it is first
    /// asked for.
    pub fn at(&self, service: usize, name: Option<&str>, terms: &Terms) -> Arc<Door> {
        let mut doors = self.0.lock();
        let door = doors.entry((service, name.map(Box::from)));
        Arc::clone(door.or_insert_with(|| Arc::new(Door::new(terms.clone()))))
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("terms", &*self.terms.read())
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

/// An address is the same whether it came by an IPv4 or by a dual-stack listener.
fn lies_in(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// Takes one from a rate of so many a second, unless that has run a second ahead.
fn take(due: &AtomicU64, now: u64, rate: usize) -> bool {
    let mut last = due.load(Ordering::Relaxed);
    loop {
        let Some(next) = next_due(last, now, rate) else {
            return false;
        };
        match due.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(changed) => last = changed,
        }
    }
}

/// When the next is due if one comes now; `None` when this one comes too soon.
fn next_due(due: u64, now: u64, rate: usize) -> Option<u64> {
    let step = SECOND / (rate as u64).clamp(1, SECOND);
    let due = due.max(now);
    (due - now <= SECOND - step).then_some(due + step)
}

/// When the next of each source is due.
#[derive(Default)]
struct Rates {
    /// Those that came lately, and those that came before them.
    young: HashMap<IpAddr, u64>,
    old: HashMap<IpAddr, u64>,
    /// When the young ones began to be gathered.
    since: u64,
}

impl Rates {
    fn take(&mut self, from: IpAddr, now: u64, rate: usize) -> bool {
        let is_over = now.saturating_sub(self.since) > SECOND;
        if is_over || self.young.len() >= SOURCES {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
        let known = self.young.get(&from).or_else(|| self.old.get(&from));
        let due = known.copied().unwrap_or_default();
        let next = next_due(due, now, rate);
        // One that is refused is remembered too, or it would be new again in a second.
        self.young.insert(from, next.unwrap_or(due));
        next.is_some()
    }
}

/// How many sources are remembered of one second.
const SOURCES: usize = 32 * 1024;

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_say_who_may_come() {
        let door = Door::new(Terms::default());
        assert!(!door.bars(ip("10.0.0.1")) && !door.believes(ip("10.0.0.1")));
        door.set(Terms {
            accept_proxy: nets(&["192.0.2.0/24"]),
            allow_from: nets(&["10.0.0.0/8", "fd00::/8"]),
            deny_from: nets(&["10.1.0.0/16", "fd00::1/128"]),
            ..Terms::default()
        });
        for (from, is_barred) in [
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("fd00::2", false),
            ("10.1.0.1", true),
            ("::ffff:10.1.0.1", true),
            ("fd00::1", true),
            ("192.0.2.1", true),
            ("::1", true),
        ] {
            assert_eq!(door.bars(ip(from)), is_barred, "{from}");
        }
        assert!(door.believes(ip("192.0.2.7")) && door.believes(ip("::ffff:192.0.2.7")));
        assert!(!door.believes(ip("192.0.3.7")) && !door.believes(ip("::192.0.2.7")));
        door.set(Terms {
            deny_from: nets(&["::/0"]),
            ..Terms::default()
        });
        assert!(door.bars(ip("::1")) && !door.bars(ip("10.1.0.1")));
    }

    #[test]
    fn a_rate_lets_a_second_s_worth_come_at_once_and_the_rest_evenly() {
        let door = Door::new(Terms {
            connection_rate: 10,
            ..Terms::default()
        });
        let start = Instant::now();
        let came = |after| {
            let now = start + Duration::from_millis(after);
            (0..100)
                .filter(|_| door.admit(ip("::1"), now).is_ok())
                .count()
        };
        assert_eq!([came(0), came(50), came(100), came(150)], [10, 0, 1, 0]);
        assert_eq!([came(550), came(10_000)], [4, 10]);
    }

    #[test]
    fn each_source_has_a_rate_of_its_own() {
        let door = Door::new(Terms {
            connection_rate_per_ip: 2,
            ..Terms::default()
        });
        let start = Instant::now();
        let came = |from, after| {
            let now = start + Duration::from_millis(after);
            door.admit(ip(from), now)
        };
        for from in ["10.0.0.1", "10.0.0.2"] {
            assert_eq!(came(from, 0), Ok(false));
            assert_eq!(came(from, 0), Ok(false));
            assert_eq!(came(from, 499), Err(Refusal::RatePerIp));
            assert_eq!(came(from, 500), Ok(false));
        }
        // Two turns of the generations later it starts anew, as it had by then.
        assert_eq!(came("10.0.0.1", 1600), Ok(false));
        assert_eq!(came("10.0.0.1", 2700), Ok(false));
        assert_eq!(came("10.0.0.1", 2700), Ok(false));
        assert_eq!(came("10.0.0.1", 2700), Err(Refusal::RatePerIp));
    }

    #[test]
    fn one_who_is_refused_all_the_time_is_not_forgotten() {
        let mut rates = Rates::default();
        let (mut taken, from) = (0, ip("10.0.0.1"));
        for tenth in 0..100 {
            taken += usize::from(rates.take(from, tenth * SECOND / 10, 1));
        }
        assert_eq!(taken, 10);
    }

    #[test]
    fn sources_are_remembered_up_to_a_bound() {
        let mut rates = Rates::default();
        for number in 0..10 * SOURCES as u32 {
            let from = IpAddr::from(number.to_be_bytes());
            assert!(rates.take(from, 0, 1));
            assert!(rates.young.len() <= SOURCES && rates.old.len() <= SOURCES);
        }
    }

    #[test]
    fn a_rate_that_many_cores_take_from_is_kept() {
        let due = AtomicU64::new(0);
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let one = take(&due, 5, 100);
                        taken.fetch_add(usize::from(one), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 100);
    }

    #[test]
    fn counts_outlive_a_change_of_terms() {
        let most = |max_connections| Terms {
            max_connections,
            ..Terms::default()
        };
        let door = Door::new(most(0));
        assert!(door.enter() && door.enter());
        door.set(most(2));
        assert!(!door.enter());
        door.set(most(3));
        assert!(door.enter() && !door.enter());
        door.leave();
        assert_eq!(door.open(), 2);
    }
}
