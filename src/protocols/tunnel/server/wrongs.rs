//! Who has proved wrongly of late, by address and over all cores: ten of an address within a minute are as
//! many, however its connections are spread.
//!
//! The lock is taken for a wrong proof, and for an arrival while any are remembered. Bound:
//! [`MOST_WRONG`] addresses.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::relay::Flows;

/// Wrong proofs of the present minute.
pub(super) struct Wrongs {
    /// Some are remembered.
    any: AtomicBool,
    table: Mutex<Flows<IpAddr, Wrong>>,
}

struct Wrong {
    since: Instant,
    count: u32,
}

/// What is done about an address that has proved wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It is answered at once.
    Usual,
    /// It is answered a little later.
    Little,
    /// It is not listened to.
    None,
}

impl Wrongs {
    pub(super) fn new() -> Self {
        Self {
            any: AtomicBool::new(false),
            table: Mutex::new(Flows::new(MOST_WRONG)),
        }
    }

    /// What an address has earned by its wrong proofs.
    pub(super) fn patience(&self, from: IpAddr, now: Instant) -> Patience {
        // A worker that does not see another's first one yet sees it at the next arrival.
        if !self.any.load(Ordering::Relaxed) {
            return Patience::Usual;
        }
        let mut table = self.table.lock();
        // Who gave none for a minute has none that counts; each is taken out once.
        while table.expire(now, MINUTE).is_some() {}
        if table.is_empty() {
            self.any.store(false, Ordering::Relaxed);
        }
        let place = table.find(&from.to_canonical());
        let Some((_, wrong)) = place.and_then(|place| table.get_mut(place)) else {
            return Patience::Usual;
        };
        match wrong.count {
            _ if now.saturating_duration_since(wrong.since) >= MINUTE => Patience::Usual,
            ..FEW => Patience::Usual,
            FEW..MANY => Patience::Little,
            _ => Patience::None,
        }
    }

    /// An address has given a wrong proof.
    pub(super) fn note(&self, from: IpAddr, now: Instant) {
        let from = from.to_canonical();
        let fresh = Wrong {
            since: now,
            count: 1,
        };
        let mut table = self.table.lock();
        self.any.store(true, Ordering::Relaxed);
        match table.find(&from) {
            None => drop(table.insert(from, fresh, now)),
            Some(place) => {
                if let Some((_, wrong)) = table.touch(place, now) {
                    match now.saturating_duration_since(wrong.since) < MINUTE {
                        true => wrong.count = wrong.count.saturating_add(1),
                        false => *wrong = fresh,
                    }
                }
            }
        }
    }
}

/// Addresses that are remembered; the one that was wrong longest ago leaves.
const MOST_WRONG: usize = 4096;

/// Wrong proofs of one address within a minute from which on it is answered late.
const FEW: u32 = 10;

/// And from which on it is not listened to until the minute is over.
const MANY: u32 = 1000;

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_with_wrong_proofs_and_comes_back_with_the_minute() {
        let (wrongs, start) = (Wrongs::new(), Instant::now());
        let [bad, good] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        for count in 1..=MANY {
            wrongs.note(bad, start);
            let earned = match count {
                ..FEW => Patience::Usual,
                FEW..MANY => Patience::Little,
                _ => Patience::None,
            };
            assert_eq!(wrongs.patience(bad, start), earned, "{count}");
        }
        assert_eq!(
            wrongs.patience("::ffff:10.0.0.1".parse().unwrap(), start),
            Patience::None
        );
        assert_eq!(wrongs.patience(good, start), Patience::Usual);
        assert_eq!(wrongs.patience(bad, start + MINUTE), Patience::Usual);
        assert!(
            !wrongs.any.load(Ordering::Relaxed),
            "nothing is remembered any more"
        );
    }

    #[test]
    fn so_many_addresses_are_remembered_and_no_more() {
        let (wrongs, now) = (Wrongs::new(), Instant::now());
        for number in 0..2 * MOST_WRONG as u32 {
            wrongs.note(IpAddr::from(number.to_be_bytes()), now);
        }
        assert!(wrongs.table.lock().len() <= MOST_WRONG);
    }
}
