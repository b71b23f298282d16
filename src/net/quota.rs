//! How many connections the whole server, and one source address, may hold at a time.
//!
//! Taken once for each accepted connection and given back when its session ends; no byte that is
//! relayed passes here, which is why a lock for the per-address counts is in order.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The counts, shared by all cores.
pub struct Quota {
    most: usize,
    most_per_address: usize,
    used: AtomicUsize,
    /// Empty unless there is a cap for each address; an address leaves with its last connection.
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// Why a connection gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// The server holds as many as it may.
    Full,
    /// This source address holds as many as it may.
    AddressFull,
}

impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shed::Full => "max_connections reached",
            Shed::AddressFull => "max_connections_per_ip reached",
        })
    }
}

impl Quota {
    /// At most `most` connections in all, and `most_per_address` from one address (0 = no cap).
    pub fn new(most: usize, most_per_address: usize) -> Self {
        Self {
            most,
            most_per_address,
            used: AtomicUsize::new(0),
            addresses: Mutex::new(HashMap::new()),
        }
    }

    /// How many connections the server may hold.
    pub fn most(&self) -> usize {
        self.most
    }

    /// True when the server holds as many connections as it may.
    pub fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.most
    }

    /// A place for one more connection from `from`; it is given back when dropped.
    pub fn enter(self: &Arc<Self>, from: IpAddr) -> Result<Place, Shed> {
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return Err(Shed::Full);
        }
        let mut place = Place {
            quota: Arc::clone(self),
            counted: None,
        };
        if self.most_per_address > 0 {
            let mut addresses = self.addresses.lock();
            let count = addresses.entry(from).or_default();
            if *count >= self.most_per_address {
                // The place is dropped behind the lock's end, and gives back the one taken above.
                drop(addresses);
                return Err(Shed::AddressFull);
            }
            *count += 1;
            place.counted = Some(from);
        }
        Ok(place)
    }
}

/// One connection's place; dropping it frees it.
pub struct Place {
    quota: Arc<Quota>,
    counted: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.quota.used.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.counted else { return };
        let mut addresses = self.quota.addresses.lock();
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
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
        let first = quota.enter(one).ok().unwrap();
        let _second = quota.enter(one).ok().unwrap();
        assert_eq!(quota.enter(one).err(), Some(Shed::AddressFull));
        let _third = quota.enter(two).ok().unwrap();
        assert!(quota.is_full());
        assert_eq!(quota.enter(two).err(), Some(Shed::Full));
        drop(first);
        assert!(quota.enter(one).is_ok());
        assert_eq!(quota.used.load(Ordering::Relaxed), 2);
        assert_eq!(quota.addresses.lock().len(), 2);
    }
}
