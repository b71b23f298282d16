//! The chains of one listener, and what is known of them on all cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::super::config::{Hop, Hops, PUBLIC_KEY};
use super::super::passage::{Route, Station};
use super::address_of;
use crate::net::Throttle;

/// The chains of one listener.
#[derive(Debug)]
pub(in super::super) struct Routes {
    pub(in super::super) list: Vec<Route>,
    /// One for each.
    health: Vec<Health>,
    /// Limits the bytes of all the listener's connections together.
    pub(in super::super) throttle: Option<Arc<Throttle>>,
}

/// What probes and clients have found out about a chain. Written by whoever learns something, read
/// when a chain is chosen; a stale value costs one try.
#[derive(Debug, Default)]
struct Health {
    is_broken: AtomicBool,
    /// How many of 1000 probes were lost lately.
    loss: AtomicU32,
    /// Microseconds from a probe to its last answer, smoothed; 0 before the first.
    round_trip: AtomicU32,
}

impl Routes {
    pub(in super::super) fn new(chains: &[Hops], throttle: Option<Arc<Throttle>>) -> Self {
        let list: Vec<Route> = chains.iter().map(route).collect();
        let health = list.iter().map(|_| Health::default()).collect();
        Self {
            list,
            health,
            throttle,
        }
    }

    /// A chain that was not tried (a bit each), by weight and by how few probes are lost on it; a broken
    /// one only when no other is left.
    pub(in super::super) fn choose(&self, tried: u16, random: u64) -> Option<usize> {
        let untried = |at: &usize| tried & 1 << at == 0;
        let all = (0..self.list.len()).filter(untried);
        let (broken, good): (Vec<usize>, Vec<usize>) = all.partition(|&at| self.is_broken(at));
        let among = if good.is_empty() { broken } else { good };
        let share = |&at: &usize| {
            let kept = 1000 - self.health[at].loss.load(Ordering::Relaxed).min(999);
            u64::from(self.list[at].weight) * u64::from(kept)
        };
        let mut point = random % among.iter().map(share).sum::<u64>().max(1);
        for at in &among {
            match point.checked_sub(share(at)) {
                Some(rest) => point = rest,
                None => return Some(*at),
            }
        }
        among.first().copied()
    }

    /// True while nobody has got through since somebody did not.
    pub(in super::super) fn is_broken(&self, at: usize) -> bool {
        self.health[at].is_broken.load(Ordering::Relaxed)
    }

    /// True when it is broken and there is one that is not.
    pub(in super::super) fn is_left_out(&self, at: usize) -> bool {
        self.is_broken(at) && (0..self.list.len()).any(|other| !self.is_broken(other))
    }

    /// Somebody got no further than the chain; it is left out until a probe gets through. True when
    /// that is news. A lone chain is always tried.
    pub(in super::super) fn note_broken(&self, at: usize) -> bool {
        self.list.len() > 1 && !self.health[at].is_broken.swap(true, Ordering::Relaxed)
    }

    /// A probe has ended: so many microseconds later, or not. True when it changes whether the chain
    /// is broken.
    pub(in super::super) fn note_probe(&self, at: usize, took: Option<u32>) -> bool {
        let health = &self.health[at];
        let lost = if took.is_none() { 1000 } else { 0 };
        smooth(&health.loss, lost);
        if let Some(took) = took {
            match health.round_trip.load(Ordering::Relaxed) {
                0 => health.round_trip.store(took.max(1), Ordering::Relaxed),
                _ => smooth(&health.round_trip, took),
            }
        }
        let is_broken = took.is_none();
        health.is_broken.swap(is_broken, Ordering::Relaxed) != is_broken
    }

    /// Probes lost of 1000, and microseconds to the last answer, for the log.
    pub(in super::super) fn figures(&self, at: usize) -> (u32, u32) {
        let health = &self.health[at];
        let loss = health.loss.load(Ordering::Relaxed);
        (loss, health.round_trip.load(Ordering::Relaxed))
    }
}

/// Moves a value a quarter of the way to a new one.
fn smooth(value: &AtomicU32, new: u32) {
    let old = value.load(Ordering::Relaxed);
    let next = (u64::from(old) * 3 + u64::from(new)) / 4;
    value.store(next as u32, Ordering::Relaxed);
}

fn route(chain: &Hops) -> Route {
    Route {
        hops: chain.hops.iter().map(station).collect(),
        payload_key: chain.payload_key.clone(),
        weight: chain.weight,
    }
}

fn station(hop: &Hop) -> Station {
    Station {
        target: hop.address.clone(),
        address: address_of(&hop.address),
        key: hop.key.clone().unwrap_or(PUBLIC_KEY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(weights: &[u32]) -> Routes {
        let chains: Vec<Hops> = weights
            .iter()
            .map(|&weight| Hops {
                weight,
                ..Hops::default()
            })
            .collect();
        Routes::new(&chains, None)
    }

    fn shares(routes: &Routes, tried: u16) -> Vec<usize> {
        let mut counts = vec![0; routes.list.len()];
        for point in 0..4_000_000_u64 {
            if point % 1000 == 0 {
                counts[routes.choose(tried, point).unwrap()] += 1;
            }
        }
        counts
    }

    #[test]
    fn chains_are_chosen_by_weight() {
        assert_eq!(shares(&routes(&[3, 1]), 0), [3000, 1000]);
        assert_eq!(shares(&routes(&[3, 1]), 1), [0, 4000]);
        assert_eq!(routes(&[3, 1]).choose(3, 0), None);
    }

    #[test]
    fn a_broken_chain_is_left_out_until_a_probe_gets_through() {
        let routes = routes(&[1, 1]);
        assert!(routes.note_broken(0));
        assert!(!routes.note_broken(0), "no news");
        assert_eq!(shares(&routes, 0), [0, 4000]);
        assert_eq!(routes.choose(2, 0), Some(0), "when no other is left");
        assert_eq!([0, 1].map(|at| routes.is_left_out(at)), [true, false]);
        assert!(!routes.note_probe(0, None));
        assert!(routes.note_probe(0, Some(100)));
        let [first, second] = shares(&routes, 0)[..] else {
            panic!("two chains");
        };
        assert!(0 < first && first < second, "what loses probes gets less");
    }

    #[test]
    fn each_of_sixteen_chains_can_be_tried_and_none_twice() {
        let routes = routes(&[1; 16]);
        let mut tried = 0_u16;
        for round in 0..16 {
            let at = routes.choose(tried, round * 7 + 3).unwrap();
            assert_eq!(tried & 1 << at, 0);
            tried |= 1 << at;
        }
        assert_eq!((tried, routes.choose(tried, 5)), (u16::MAX, None));
    }

    #[test]
    fn a_lone_chain_is_always_tried() {
        let routes = routes(&[1]);
        assert!(!routes.note_broken(0));
        assert_eq!(routes.choose(0, 7), Some(0));
    }
}
