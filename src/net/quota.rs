//! How many connections the whole server, and one source address, may hold at a time.
//!
//! Taken once for each accepted connection and given back when its session ends; no byte that is
//! relayed passes here, which is why a lock for the per-address counts is in order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Sources;

/// The counts, shared by all cores.
pub struct Quota {
    most: AtomicUsize,
    most_per_address: AtomicUsize,
    used: AtomicUsize,
    /// Empty unless there is a cap for each address; an address leaves with its last connection.
    addresses: Mutex<HashMap<IpAddr, usize>>,
    sources: Sources,
}

impl Quota {
    /// At most `most` connections in all, and `most_per_address` from one address (0 = no cap).
    pub fn new(most: usize, most_per_address: usize) -> Self {
        Self {
            most: AtomicUsize::new(most),
            most_per_address: AtomicUsize::new(most_per_address),
            used: AtomicUsize::new(0),
            addresses: Mutex::new(HashMap::new()),
            sources: Sources::new(0),
        }
    }

    /// The same, with so many bytes a second each way for each address (0 = no cap).
    #[must_use]
    pub fn pacing(mut self, rate: u64) -> Self {
        self.sources = Sources::new(rate);
        self
    }

    /// How fast what comes from, and goes to, each address may be relayed.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// How many connections the server may hold.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Sets both caps anew. Who is there stays; of those who came while there was no cap for each
    /// address none is counted for one.
    pub fn set(&self, most: usize, most_per_address: usize) {
        self.most.store(most, Ordering::Relaxed);
        self.most_per_address
            .store(most_per_address, Ordering::Relaxed);
    }

    /// How many it holds now, those that are being taken among them.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A place for one more connection, taken before it is accepted; it is given back when
    /// dropped. `None` when the server holds as many as it may.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.most() {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place {
            quota: Arc::clone(self),
            counted: None,
        })
    }
}

impl Place {
    /// Counts the connection for its source address too; false when that holds as many as it may.
    pub fn admit(&mut self, from: IpAddr) -> bool {
        let most = self.quota.most_per_address.load(Ordering::Relaxed);
        if most == 0 {
            return true;
        }
        // An address is the same whether it came by an IPv4 or by a dual-stack listener.
        let from = from.to_canonical();
        let mut addresses = self.quota.addresses.lock();
        let count = addresses.entry(from).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        drop(addresses);
        self.counted = Some(Box::new(from));
        true
    }
}

/// One connection's place; dropping it frees it.
pub struct Place {
    quota: Arc<Quota>,
    /// Boxed, as most servers have no cap for each address.
    counted: Option<Box<IpAddr>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.quota.used.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.counted.take() else {
            return;
        };
        let mut addresses = self.quota.addresses.lock();
        if let Some(count) = addresses.get_mut(&*address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&*address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address() {
        let quota = Arc::new(Quota::new(3, 2));
        let (one, two): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        let mut first = quota.enter().unwrap();
        let mut second = quota.enter().unwrap();
        assert!(first.admit(one) && second.admit(mapped));
        let mut third = quota.enter().unwrap();
        assert!(!third.admit(one), "two are from there already");
        assert!(third.admit(two));
        assert!(quota.enter().is_none());
        drop(first);
        assert!(quota.enter().unwrap().admit(one));
        drop((second, third));
        assert_eq!(quota.used.load(Ordering::Relaxed), 0);
        assert!(quota.addresses.lock().is_empty());
    }
}
