//! Connection and client ids: unique among those alive, and not to be guessed one from another.
//!
//! A counter passes through a keyed permutation of 32 bits, so an id comes back only after 2^32
//! others, and one that is still alive then is skipped. The permutation keeps a client from reading
//! off its own ids which ones others have; it is no cipher, and ownership is checked on every use.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::reactor::Handle;

/// The ids of one kind, shared by all cores. Bound: one entry for each id alive or reserved, which
/// their holders bound.
pub(super) struct Ids {
    counter: AtomicU32,
    key: u64,
    shards: [Mutex<HashMap<u32, Use>>; SHARDS],
}

/// What an id is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Given to that endpoint, which has not dialled with it yet.
    Reserved(Handle),
    /// A connection's, or a client's.
    Alive,
}

impl Ids {
    /// No ids yet. The key should be random.
    pub(super) fn new(key: u64) -> Self {
        Self {
            counter: AtomicU32::new(0),
            key,
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// An id that nobody has; `None` when so many in a row are taken that nearly all must be.
    pub(super) fn fresh(&self) -> Option<u32> {
        self.next(Use::Alive)
    }

    /// An id that only `holder` may claim.
    pub(super) fn reserve(&self, holder: Handle) -> Option<u32> {
        self.next(Use::Reserved(holder))
    }

    /// Takes the id that a holder chose: one reserved for it, or one that is free. False when it
    /// is another's or in use, or no id at all.
    pub(super) fn claim(&self, id: u32, holder: Handle) -> bool {
        if id == COMMANDS {
            return false;
        }
        match self.shard(id).lock().entry(id) {
            Entry::Vacant(free) => {
                free.insert(Use::Alive);
                true
            }
            Entry::Occupied(mut taken) => {
                let own = *taken.get() == Use::Reserved(holder);
                if own {
                    taken.insert(Use::Alive);
                }
                own
            }
        }
    }

    /// Gives an id back.
    pub(super) fn free(&self, id: u32) {
        self.shard(id).lock().remove(&id);
    }

    /// Gives an id back that was reserved for `holder`, unless it is in use meanwhile.
    pub(super) fn give_up(&self, id: u32, holder: Handle) {
        let mut shard = self.shard(id).lock();
        if shard.get(&id) == Some(&Use::Reserved(holder)) {
            shard.remove(&id);
        }
    }

    /// True for a connection's or a client's.
    pub(super) fn is_alive(&self, id: u32) -> bool {
        self.shard(id).lock().get(&id) == Some(&Use::Alive)
    }

    /// How many are alive or reserved.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn next(&self, purpose: Use) -> Option<u32> {
        for _ in 0..TRIES {
            let id = permute(self.counter.fetch_add(1, Ordering::Relaxed), self.key);
            if id == COMMANDS {
                continue;
            }
            if let Entry::Vacant(free) = self.shard(id).lock().entry(id) {
                free.insert(purpose);
                return Some(id);
            }
        }
        None
    }

    fn shard(&self, id: u32) -> &Mutex<HashMap<u32, Use>> {
        &self.shards[id as usize % SHARDS]
    }
}

/// A bijection of the 32-bit numbers: a Feistel network over their halves.
fn permute(number: u32, key: u64) -> u32 {
    let (mut left, mut right) = (number >> 16, number & 0xffff);
    for round in 0..ROUNDS {
        let mixed = (u64::from(right) ^ key.rotate_left(round * 13)).wrapping_mul(MIX);
        (left, right) = (right, left ^ (mixed >> 48) as u32);
    }
    left << 16 | right
}

/// The id that says "a command follows".
const COMMANDS: u32 = 0;

const SHARDS: usize = 16;
const ROUNDS: u32 = 6;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Ids that may be found taken in a row before a dial is refused.
const TRIES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::SessionKey;

    fn holder(index: u32) -> Handle {
        let session = SessionKey::from_parts(index, 1).unwrap();
        Handle { core: 0, session }
    }

    #[test]
    fn the_permutation_meets_no_number_twice() {
        const NUMBERS: u32 = 1 << 20;
        for key in [0, 1, 0xdead_beef_0bad_cafe] {
            let mut met = vec![0_u64; 1 << 26];
            for number in 0..NUMBERS {
                let image = permute(number, key) as usize;
                met[image / 64] |= 1 << (image % 64);
            }
            let count: u32 = met.iter().map(|word| word.count_ones()).sum();
            assert_eq!(count, NUMBERS);
        }
    }

    #[test]
    fn neighbours_are_not_told_by_a_step() {
        let steps: std::collections::HashSet<u32> = (0..1000)
            .map(|n| permute(n + 1, 7).wrapping_sub(permute(n, 7)))
            .collect();
        assert!(steps.len() > 900, "{} different steps", steps.len());
    }

    #[test]
    fn a_living_id_is_skipped_after_the_counter_has_wrapped() {
        let ids = Ids::new(3);
        let first = ids.fresh().unwrap();
        ids.counter.store(0, Ordering::Relaxed);
        let second = ids.fresh().unwrap();
        assert_ne!(first, second);
        ids.free(first);
        ids.counter.store(0, Ordering::Relaxed);
        assert_eq!(ids.fresh(), Some(first));
        assert_eq!(ids.len(), 2);
    }

    #[test]
    fn a_reserved_id_is_its_holders_and_a_free_one_anybodys() {
        let ids = Ids::new(9);
        let id = ids.reserve(holder(1)).unwrap();
        assert!(!ids.claim(id, holder(2)));
        assert!(ids.claim(id, holder(1)));
        assert!(!ids.claim(id, holder(1)), "it is in use");
        ids.give_up(id, holder(1));
        assert!(!ids.claim(id, holder(2)), "giving up frees no living one");
        ids.free(id);
        assert!(ids.claim(id, holder(2)));
        assert!(!ids.claim(0, holder(1)));
        let other = ids.reserve(holder(1)).unwrap();
        ids.give_up(other, holder(1));
        assert_eq!(ids.len(), 1);
    }
}
