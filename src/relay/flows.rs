//! Flows of datagrams: who has sent lately, and to what that leads.
//!
//! A flow has no end that anybody tells, so it ends when nothing has passed for a while, or when it is
//! the one that was idle longest and another needs its place. The table keeps them in the order of
//! their last use:
//!
//! ```text
//!   oldest <──> ... <──> newest        touch: to the newest end
//!     └─ expire, or make room                 every step takes the same time, however many there are
//! ```
//!
//! It is plain state: whoever owns it opens and closes the sockets. Bound: the number of flows that it
//! is made with.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A table of flows, found by their keys, or by the place that [`Flows::insert`] gave.
pub struct Flows<K, V> {
    places: HashMap<K, Place>,
    flows: Vec<Option<Flow<K, V>>>,
    free: Vec<u32>,
    /// Numbers the flows, so that a place is not taken for that of an earlier one.
    number: u32,
    oldest: u32,
    newest: u32,
    most: usize,
}

/// Where a flow is, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    index: u32,
    number: u32,
}

struct Flow<K, V> {
    key: K,
    value: V,
    used: Instant,
    number: u32,
    older: u32,
    newer: u32,
}

impl<K: Hash + Eq + Clone, V> Flows<K, V> {
    /// An empty table for at most `most` flows, and at least one.
    pub fn new(most: usize) -> Self {
        Self {
            places: HashMap::new(),
            flows: Vec::new(),
            free: Vec::new(),
            number: 0,
            oldest: NONE,
            newest: NONE,
            most: most.clamp(1, NONE as usize - 1),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Where the flow of a key is.
    pub fn find(&self, key: &K) -> Option<Place> {
        self.places.get(key).copied()
    }

    /// A flow and its key, left as old as it is.
    pub fn get_mut(&mut self, place: Place) -> Option<(&K, &mut V)> {
        let flow = self.flows.get_mut(place.index as usize)?.as_mut()?;
        (flow.number == place.number).then_some((&flow.key, &mut flow.value))
    }

    /// A flow that is used now.
    pub fn touch(&mut self, place: Place, now: Instant) -> Option<(&K, &mut V)> {
        let flow = self.flows.get_mut(place.index as usize)?.as_mut()?;
        if flow.number != place.number {
            return None;
        }
        flow.used = now;
        if self.newest != place.index {
            self.unchain(place.index);
            self.chain(place.index);
        }
        self.get_mut(place)
    }

    /// Adds a flow; with it comes the one that had to make room. There must be none of that key.
    pub fn insert(&mut self, key: K, value: V, now: Instant) -> (Place, Option<(K, V)>) {
        debug_assert!(!self.places.contains_key(&key), "a flow is there already");
        let evicted = match self.len() >= self.most {
            true => self.pop_oldest(),
            false => None,
        };
        self.number = self.number.wrapping_add(1);
        let flow = Flow {
            key: key.clone(),
            value,
            used: now,
            number: self.number,
            older: NONE,
            newer: NONE,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.flows[index as usize] = Some(flow);
                index
            }
            None => {
                self.flows.push(Some(flow));
                (self.flows.len() - 1) as u32
            }
        };
        self.chain(index);
        let place = Place {
            index,
            number: self.number,
        };
        self.places.insert(key, place);
        (place, evicted)
    }

    /// Takes a flow out.
    pub fn remove(&mut self, place: Place) -> Option<(K, V)> {
        self.get_mut(place)?;
        self.unchain(place.index);
        let flow = self.flows[place.index as usize].take()?;
        self.free.push(place.index);
        self.places.remove(&flow.key);
        if self.places.is_empty() {
            // A burst of flows leaves no memory behind.
            self.places.shrink_to_fit();
            self.flows = Vec::new();
            self.free = Vec::new();
        }
        Some((flow.key, flow.value))
    }

    /// Takes out the flow that was idle longest, if it was so for `idle`.
    pub fn expire(&mut self, now: Instant, idle: Duration) -> Option<(K, V)> {
        let flow = self.flows.get(self.oldest as usize)?.as_ref()?;
        let silent = now.saturating_duration_since(flow.used);
        (silent >= idle).then(|| self.pop_oldest())?
    }

    /// All of them, with the places of each, in no order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Place, &K, &mut V)> {
        self.flows.iter_mut().enumerate().filter_map(|(at, flow)| {
            let flow = flow.as_mut()?;
            let place = Place {
                index: at as u32,
                number: flow.number,
            };
            Some((place, &flow.key, &mut flow.value))
        })
    }

    fn pop_oldest(&mut self) -> Option<(K, V)> {
        let number = self.flows.get(self.oldest as usize)?.as_ref()?.number;
        let index = self.oldest;
        self.remove(Place { index, number })
    }

    /// Puts a flow at the newest end.
    fn chain(&mut self, index: u32) {
        let newest = std::mem::replace(&mut self.newest, index);
        if let Some(Some(flow)) = self.flows.get_mut(index as usize) {
            (flow.older, flow.newer) = (newest, NONE);
        }
        match self.flows.get_mut(newest as usize) {
            Some(Some(former)) => former.newer = index,
            _ => self.oldest = index,
        }
    }

    fn unchain(&mut self, index: u32) {
        let Some(Some(flow)) = self.flows.get(index as usize) else {
            return;
        };
        let (older, newer) = (flow.older, flow.newer);
        match self.flows.get_mut(older as usize) {
            Some(Some(flow)) => flow.newer = newer,
            _ => self.oldest = newer,
        }
        match self.flows.get_mut(newer as usize) {
            Some(Some(flow)) => flow.older = older,
            _ => self.newest = older,
        }
    }
}

/// No flow's index.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as a list, which is walked.
    #[derive(Default)]
    struct Model(Vec<(u8, u32, Instant)>);

    fn xorshift(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn random_use_is_kept_in_order_as_by_a_list() {
        for seed in 1..50_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut flows: Flows<u8, u32> = Flows::new(8);
            let mut model = Model::default();
            let mut now = Instant::now();
            for step in 0..2_000_u32 {
                let key = (xorshift(&mut random) % 16) as u8;
                now += Duration::from_millis(xorshift(&mut random) % 3);
                let known = model.0.iter().position(|(known, ..)| *known == key);
                match xorshift(&mut random) % 8 {
                    0 => {
                        let removed = flows.find(&key).and_then(|at| flows.remove(at));
                        let want = known.map(|at| model.0.remove(at));
                        assert_eq!(removed, want.map(|(key, value, _)| (key, value)));
                    }
                    1 => {
                        let idle = Duration::from_millis(20);
                        let expired = flows.expire(now, idle);
                        let is_due = model
                            .0
                            .first()
                            .is_some_and(|(.., used)| now - *used >= idle);
                        let want = is_due.then(|| model.0.remove(0));
                        assert_eq!(expired, want.map(|(key, value, _)| (key, value)));
                    }
                    _ => match (flows.find(&key), known) {
                        (Some(place), Some(at)) => {
                            let (_, value) = flows.touch(place, now).unwrap();
                            assert_eq!(*value, model.0[at].1);
                            let (key, value, _) = model.0.remove(at);
                            model.0.push((key, value, now));
                        }
                        (None, None) => {
                            let (place, evicted) = flows.insert(key, step, now);
                            let full = model.0.len() == 8;
                            let want = full.then(|| model.0.remove(0));
                            assert_eq!(evicted, want.map(|(key, value, _)| (key, value)));
                            model.0.push((key, step, now));
                            assert_eq!(flows.find(&key), Some(place));
                        }
                        (found, known) => panic!("{found:?} is not {known:?}"),
                    },
                }
                assert_eq!(flows.len(), model.0.len());
            }
        }
    }

    #[test]
    fn a_place_is_not_that_of_a_later_flow() {
        let mut flows: Flows<u8, u8> = Flows::new(4);
        let now = Instant::now();
        let (first, _) = flows.insert(1, 1, now);
        assert_eq!(flows.remove(first), Some((1, 1)));
        let (second, _) = flows.insert(2, 2, now);
        assert_eq!(flows.get_mut(first), None);
        assert_eq!(flows.touch(first, now), None);
        assert_eq!(flows.remove(first), None);
        assert_eq!(flows.get_mut(second), Some((&2, &mut 2)));
    }
}
