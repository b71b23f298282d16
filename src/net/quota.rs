//! How many connections the whole server holds, and the place that each of them has in it.
//!
//! A place is taken for each connection before it is accepted, and given back when its session ends.
//! It also remembers which doors count the connection, and by which source.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::Door;
use crate::config::Terms;
use crate::stats::Refusal;

use super::Sources;

/// The count, shared by all cores.
pub struct Quota {
    most: AtomicUsize,
    used: AtomicUsize,
    door: Arc<Door>,
    sources: Sources,
}

impl Quota {
    /// At most `most` connections in all, and `most_per_address` from one address (0 = no cap).
    pub fn new(most: usize, most_per_address: usize) -> Self {
        let terms = Terms {
            max_connections_per_ip: most_per_address,
            ..Terms::default()
        };
        Self::with(most, terms)
    }

    /// At most `most` connections in all; for each of them these terms hold, except for their own
    /// bound of all.
    pub fn with(most: usize, terms: Terms) -> Self {
        Self {
            most: AtomicUsize::new(most),
            used: AtomicUsize::new(0),
            door: Arc::new(Door::new(terms)),
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

    /// Sets the cap and the terms anew. Who is there stays.
    pub fn set(&self, most: usize, terms: Terms) {
        self.most.store(most, Ordering::Relaxed);
        self.door.set(terms);
    }

    /// How many it holds now, those that are being taken among them.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// What holds for every connection, whichever listener it came to.
    pub fn door(&self) -> &Arc<Door> {
        &self.door
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
            door: None,
            counted: None,
        })
    }
}

/// One connection's place; dropping it frees it.
pub struct Place {
    quota: Arc<Quota>,
    /// That of its listener, which counts it, too.
    door: Option<Arc<Door>>,
    /// Boxed, as most servers have no cap for each address.
    counted: Option<Box<Counted>>,
}

/// By what source a connection is counted, and where.
struct Counted {
    from: IpAddr,
    by_server: bool,
    by_door: bool,
}

impl Place {
    /// Counts the connection at its listener's door; false when that has as many as may be.
    pub fn pass(&mut self, door: &Arc<Door>) -> bool {
        if !door.enter() {
            return false;
        }
        self.door = Some(Arc::clone(door));
        true
    }

    /// Counts the connection for its source, too, at the server and at its door; what it runs
    /// against otherwise, and whether that is the door's.
    pub fn admit(&mut self, from: IpAddr, now: Instant) -> Result<(), (Refusal, bool)> {
        let from = from.to_canonical();
        if let Some(door) = &self.door
            && door.bars(from)
        {
            return Err((Refusal::Denied, true));
        }
        // The door's first: whoever is kept out there takes nothing from the others.
        let by_door = match &self.door {
            Some(door) => door.admit(from, now).map_err(|why| (why, true))?,
            None => false,
        };
        let by_server = self.quota.door.admit(from, now);
        let counted = Counted {
            from,
            by_server: by_server == Ok(true),
            by_door,
        };
        if counted.by_server || counted.by_door {
            self.counted = Some(Box::new(counted));
        }
        by_server.map(|_| ()).map_err(|why| (why, false))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.quota.used.fetch_sub(1, Ordering::Relaxed);
        if let Some(counted) = self.counted.take() {
            if counted.by_server {
                self.quota.door.forget(counted.from);
            }
            if let (true, Some(door)) = (counted.by_door, &self.door) {
                door.forget(counted.from);
            }
        }
        if let Some(door) = &self.door {
            door.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address() {
        let quota = Arc::new(Quota::new(3, 2));
        let now = Instant::now();
        let (one, two): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        let mut first = quota.enter().unwrap();
        let mut second = quota.enter().unwrap();
        assert_eq!(first.admit(one, now), Ok(()));
        assert_eq!(second.admit(mapped, now), Ok(()));
        let mut third = quota.enter().unwrap();
        let full = Err((Refusal::ConnectionsPerIp, false));
        assert_eq!(third.admit(one, now), full, "two are from there already");
        assert_eq!(third.admit(two, now), Ok(()));
        assert!(quota.enter().is_none());
        drop(first);
        assert_eq!(quota.enter().unwrap().admit(one, now), Ok(()));
        drop((second, third));
        assert_eq!(quota.used(), 0);
        let counts = format!("{:?}", quota.enter().unwrap().admit(one, now));
        assert_eq!(counts, "Ok(())");
    }

    #[test]
    fn a_place_is_given_back_to_every_door_that_counted_it() {
        let quota = Arc::new(Quota::new(10, 1));
        let door = Arc::new(Door::new(Terms {
            max_connections: 2,
            max_connections_per_ip: 1,
            ..Terms::default()
        }));
        let now = Instant::now();
        let from = |last| IpAddr::from([10, 0, 0, last]);
        let enter = || {
            let mut place = quota.enter().unwrap();
            place.pass(&door).then_some(place)
        };
        for _ in 0..3 {
            let mut first = enter().unwrap();
            let mut second = enter().unwrap();
            assert!(enter().is_none(), "as many as may be");
            assert_eq!(first.admit(from(1), now), Ok(()));
            let full = Err((Refusal::ConnectionsPerIp, true));
            assert_eq!(second.admit(from(1), now), full);
            drop(second);
            let mut second = enter().unwrap();
            assert_eq!(second.admit(from(2), now), Ok(()));
            // Counted by the door and refused by the server: the door forgets it, too.
            let mut elsewhere = quota.enter().unwrap();
            assert_eq!(elsewhere.admit(from(3), now), Ok(()));
            drop(second);
            let mut third = enter().unwrap();
            let full = Err((Refusal::ConnectionsPerIp, false));
            assert_eq!(third.admit(from(3), now), full);
            drop((first, third, elsewhere));
            assert_eq!((quota.used(), door.open()), (0, 0));
        }
    }
}
