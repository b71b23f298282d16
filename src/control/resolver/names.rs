//! The answers of past lookups, read by every worker and written by the resolver.
//!
//! It asks nobody; what is not in it must be asked of the control thread.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

/// The addresses of a host, in the order in which they are to be tried; at least one, at most
/// 16 of a looked-up name.
pub type Addresses = Arc<[IpAddr]>;

/// The shared cache: at most 4096 hosts, the oldest answer leaves first. Cloning is a reference
/// count.
///
/// The lock is held for one lookup or one insert in maps of that size, and nothing is looked up
/// or logged under it, so a worker that finds it taken waits for a microsecond at most.
#[derive(Clone)]
pub struct Names {
    cache: Arc<RwLock<Cache>>,
    ttl: Duration,
}

#[derive(Default)]
struct Cache {
    answers: HashMap<Arc<str>, Answer>,
    /// The hosts in the order in which they were answered.
    order: BTreeMap<u64, Arc<str>>,
    next: u64,
}

struct Answer {
    addresses: Addresses,
    at: Instant,
    number: u64,
}

impl Names {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            cache: Arc::default(),
            ttl,
        }
    }

    /// A fresh answer: that of an address written out, or one that is not older than the time to
    /// live. `None` means: ask the control thread.
    pub fn lookup(&self, host: &str, now: Instant) -> Option<Addresses> {
        if let Some(address) = written_out(host) {
            return Some([address].into());
        }
        self.younger_than(host, self.ttl, now)
    }

    /// An answer of at most this age.
    pub(super) fn younger_than(
        &self,
        host: &str,
        age: Duration,
        now: Instant,
    ) -> Option<Addresses> {
        let cache = self.cache.read();
        let answer = cache.answers.get(host)?;
        let fresh = now.saturating_duration_since(answer.at) <= age;
        fresh.then(|| Arc::clone(&answer.addresses))
    }

    pub(super) fn put(&self, host: &Arc<str>, addresses: Addresses, at: Instant) {
        let mut cache = self.cache.write();
        let number = cache.next;
        cache.next += 1;
        let answer = Answer {
            addresses,
            at,
            number,
        };
        if let Some(old) = cache.answers.insert(Arc::clone(host), answer) {
            cache.order.remove(&old.number);
        }
        cache.order.insert(number, Arc::clone(host));
        if cache.answers.len() > HOSTS
            && let Some((_, oldest)) = cache.order.pop_first()
        {
            cache.answers.remove(&oldest);
        }
    }
}

/// The address that a host's text is, `[::1]` included; `None` for a name.
pub(super) fn written_out(host: &str) -> Option<IpAddr> {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

pub(super) const HOSTS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(last: u8) -> Addresses {
        [IpAddr::from([127, 0, 0, last])].into()
    }

    #[test]
    fn an_address_written_out_is_its_own_answer() {
        let names = Names::new(Duration::ZERO);
        let now = Instant::now();
        assert_eq!(names.lookup("127.0.0.1", now), Some(one(1)));
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(names.lookup("2001:db8::1", now).unwrap()[..], [v6]);
        assert_eq!(names.lookup("[2001:db8::1]", now).unwrap()[..], [v6]);
        for name in ["127.1.example", "[127.0.0.1]", "[::1", "", "1"] {
            assert_eq!(names.lookup(name, now), None, "{name}");
        }
    }

    #[test]
    fn an_answer_is_fresh_for_its_time_to_live() {
        let names = Names::new(Duration::from_secs(10));
        let start = Instant::now();
        names.put(&"host".into(), one(1), start);
        let at = |seconds| names.lookup("host", start + Duration::from_secs(seconds));
        assert_eq!(at(10), Some(one(1)));
        assert_eq!(at(11), None);
        assert_eq!(names.lookup("other", start), None);
    }

    #[test]
    fn the_oldest_answer_leaves_first_and_a_refresh_makes_young() {
        let names = Names::new(Duration::from_secs(10));
        let now = Instant::now();
        for number in 0..HOSTS {
            names.put(&number.to_string().into(), one(1), now);
        }
        names.put(&"0".into(), one(2), now);
        names.put(&"one more".into(), one(1), now);
        assert_eq!(names.lookup("0", now), Some(one(2)));
        assert_eq!(names.lookup("1", now), None);
        assert!(names.lookup("2", now).is_some());
        let cache = names.cache.read();
        assert_eq!((cache.answers.len(), cache.order.len()), (HOSTS, HOSTS));
    }
}
