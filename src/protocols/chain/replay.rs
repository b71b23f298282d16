//! Requests that were seen before: a request's frame is taken once.
//!
//! A nonce is remembered as long as its stamp could still be admitted, in the generation that its stamp
//! belongs to. A generation is as long as the window, so that at most two of them hold stamps that can be
//! admitted; one that holds none is dropped as a whole.
//!
//! ```text
//!        generation 7     |      generation 8     |     generation 9
//!   ──────────────────────┼───────────────────────┼──────────────────> stamps
//!      dropped            |  └ now - 30 s      now + 30 s ┘
//! ```
//!
//! The clock is the wall's, and may be set. When it is set forward, generations are dropped; once it is set
//! back, their stamps would be admissible again, so that the newest stamp that was ever dropped is kept, and
//! what is not newer is stale for good. When it is set back, the generations ahead stay until their time
//! has come and gone.
//!
//! Only what is authenticated may be admitted here: else anybody fills it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use parking_lot::Mutex;

use super::wire::Nonce;

/// The nonces of one server's requests, shared by all its cores. A lock is held for one insert, and
/// there are many of them.
pub struct Replay {
    /// Secret, so that nobody can make nonces that collide.
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

/// What is to become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is new, and remembered from now on.
    Fresh,
    /// It was seen before.
    Replayed,
    /// Its stamp is too far from the server's time, or so old that it may be forgotten.
    Stale,
    /// There is no room to remember it, so that it cannot be taken.
    Full,
}

impl Replay {
    /// Remembers as many as fit into `bytes`, 8 for each and up to as much again for room between them;
    /// nothing is taken before it is needed. At least one small table in each of 64 parts.
    pub fn new(bytes: usize) -> Self {
        let share = (bytes / SHARDS / SLOT).max(SMALLEST * GENERATIONS);
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(share)));
        Self {
            hasher: RandomState::new(),
            shards: shards.collect(),
        }
    }

    /// Judges a request by its nonce and stamp, and remembers it if it is fresh. Times are milliseconds
    /// since 1970.
    pub fn admit(&self, nonce: &Nonce, stamp_ms: u64, now_ms: u64) -> Admission {
        if stamp_ms.abs_diff(now_ms) > TOLERANCE_MS {
            return Admission::Stale;
        }
        let print = self.hasher.hash_one(nonce);
        // The upper bits choose the shard, the lower ones the place in its table.
        let shard = (print >> (u64::BITS - SHARDS.ilog2())) as usize;
        let mut shard = self.shards[shard].lock();
        shard.drop_over(now_ms);
        // Zero marks an empty slot.
        shard.admit(print.max(1), stamp_ms)
    }

    /// Gives the memory back of what can be admitted no more. [`Replay::admit`] does so for the part
    /// that it touches; this is for a server that has grown quiet.
    pub fn sweep(&self, now_ms: u64) {
        for shard in &self.shards {
            shard.lock().drop_over(now_ms);
        }
    }

    /// How many bytes the tables take.
    pub fn memory(&self) -> usize {
        let slots = self.shards.iter().map(|shard| shard.lock().slots());
        slots.sum::<usize>() * SLOT
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("memory", &self.memory())
            .finish_non_exhaustive()
    }
}

/// One part of the nonces, by their fingerprints.
struct Shard {
    /// At most [`GENERATIONS`], in no order.
    generations: Vec<Generation>,
    /// Stamps that are not newer are stale.
    forgotten: Option<u64>,
    /// The most slots that all tables may have together. While one grows, the one that it grows out of is
    /// there as well.
    share: usize,
}

struct Generation {
    /// Stamps from here on, for [`GENERATION_MS`].
    number: u64,
    newest: u64,
    table: Table,
}

impl Shard {
    const fn new(share: usize) -> Self {
        Self {
            generations: Vec::new(),
            forgotten: None,
            share,
        }
    }

    fn slots(&self) -> usize {
        let tables = self.generations.iter().map(|one| one.table.slots.len());
        tables.sum()
    }

    fn admit(&mut self, print: u64, stamp_ms: u64) -> Admission {
        if self.forgotten.is_some_and(|newest| stamp_ms <= newest) {
            return Admission::Stale;
        }
        let number = stamp_ms / GENERATION_MS;
        let spare = self.share.saturating_sub(self.slots());
        let known = self.generations.iter().position(|one| one.number == number);
        let Some(at) = known else {
            // More than two only where the clock was set back, again and again.
            if self.generations.len() == GENERATIONS || spare < SMALLEST {
                return Admission::Full;
            }
            let mut table = Table::new(SMALLEST);
            table.put(print);
            self.generations.push(Generation {
                number,
                newest: stamp_ms,
                table,
            });
            return Admission::Fresh;
        };
        let generation = &mut self.generations[at];
        let admission = generation.table.admit(print, spare);
        if admission == Admission::Fresh {
            generation.newest = generation.newest.max(stamp_ms);
        }
        admission
    }

    /// Drops the generations whose stamps are all too old by now.
    fn drop_over(&mut self, now_ms: u64) {
        let oldest = now_ms.saturating_sub(TOLERANCE_MS) / GENERATION_MS;
        let forgotten = &mut self.forgotten;
        self.generations.retain(|one| {
            let is_over = one.number < oldest;
            if is_over {
                *forgotten = (*forgotten).max(Some(one.newest));
            }
            !is_over
        });
    }
}

/// Fingerprints in open addressing: a power of two of slots, of which at most seven in eight are used.
struct Table {
    slots: Box<[u64]>,
    used: usize,
}

impl Table {
    fn new(slots: usize) -> Self {
        Self {
            slots: vec![0; slots].into(),
            used: 0,
        }
    }

    fn admit(&mut self, print: u64, spare: usize) -> Admission {
        if self.slots[self.place(print)] == print {
            return Admission::Replayed;
        }
        if self.used >= self.slots.len() / 8 * 7 {
            let slots = self.slots.len() * 2;
            if spare + self.slots.len() < slots {
                return Admission::Full;
            }
            let old = std::mem::replace(self, Self::new(slots));
            for print in old.slots.into_iter().filter(|print| *print != 0) {
                self.put(print);
            }
        }
        self.put(print);
        Admission::Fresh
    }

    /// Puts in what is not there yet.
    fn put(&mut self, print: u64) {
        let place = self.place(print);
        self.slots[place] = print;
        self.used += 1;
    }

    /// Where the fingerprint is, or the empty slot where it belongs. It ends, since there is an empty one.
    fn place(&self, print: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut place = print as usize & mask;
        while self.slots[place] != 0 && self.slots[place] != print {
            place = (place + 1) & mask;
        }
        place
    }
}

/// How far a stamp may be from the server's time, to either side.
pub const TOLERANCE_MS: u64 = 30_000;

/// The stamps of one generation: as many as can be admitted at one time.
const GENERATION_MS: u64 = 2 * TOLERANCE_MS;

/// Two hold what can be admitted; the others are ahead of a clock that was set back.
const GENERATIONS: usize = 8;

const SHARDS: usize = 64;

/// Bytes of a slot.
const SLOT: usize = size_of::<u64>();

/// Slots of a table that has just begun.
const SMALLEST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    /// In the middle of a generation.
    const NOON: u64 = 30_000 * GENERATION_MS + 20_000;

    fn nonce(number: u64) -> Nonce {
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        nonce
    }

    #[test]
    fn a_nonce_is_admitted_once_within_the_whole_window() {
        // Stamps at every place of a generation, met at every time of the window.
        for shift in (0..GENERATION_MS).step_by(1_000) {
            let replay = Replay::new(1 << 20);
            let stamp = NOON + shift;
            let begin = stamp - TOLERANCE_MS;
            assert_eq!(replay.admit(&nonce(1), stamp, begin), Admission::Fresh);
            for now in (begin..=stamp + TOLERANCE_MS).step_by(500) {
                replay.sweep(now);
                assert_eq!(replay.admit(&nonce(1), stamp, now), Admission::Replayed);
            }
            assert_eq!(
                replay.admit(&nonce(2), stamp, stamp + TOLERANCE_MS),
                Admission::Fresh
            );
        }
    }

    #[test]
    fn stamps_out_of_the_window_are_stale_and_leave_nothing() {
        let replay = Replay::new(1 << 20);
        for (stamp, now) in [
            (NOON, NOON + TOLERANCE_MS + 1),
            (NOON + TOLERANCE_MS + 1, NOON),
            (0, NOON),
            (u64::MAX, NOON),
            (NOON, 0),
            (0, u64::MAX),
        ] {
            assert_eq!(replay.admit(&nonce(1), stamp, now), Admission::Stale);
        }
        assert_eq!(replay.memory(), 0);
        // The ends of time are times, too.
        for end in [0, u64::MAX] {
            assert_eq!(replay.admit(&nonce(1), end, end), Admission::Fresh);
            assert_eq!(replay.admit(&nonce(1), end, end), Admission::Replayed);
        }
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let bytes = 1 << 20;
        let replay = Replay::new(bytes);
        let mut fresh = 0;
        for number in 0..200_000 {
            match replay.admit(&nonce(number), NOON, NOON) {
                Admission::Fresh => fresh += 1,
                Admission::Full => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(replay.memory() <= bytes);
        assert!(fresh > bytes / SLOT / 4 * 3, "{fresh}");
        // What was refused is not remembered; what was admitted is, however full it is.
        let again = (0..200_000)
            .filter(|number| replay.admit(&nonce(*number), NOON, NOON) == Admission::Replayed);
        assert_eq!(again.count(), fresh);
        let later = NOON + 2 * GENERATION_MS;
        replay.sweep(later);
        assert_eq!(replay.memory(), 0);
        assert_eq!(replay.admit(&nonce(1), later, later), Admission::Fresh);
    }

    #[test]
    fn without_a_sweep_the_past_makes_room_as_well() {
        let replay = Replay::new(0);
        for round in 0..100 {
            let now = NOON + round * GENERATION_MS;
            let admitted =
                (0..500).map(|number| replay.admit(&nonce(round * 1000 + number), now, now));
            let fresh = admitted.filter(|one| *one == Admission::Fresh);
            assert!(fresh.count() > 400, "{round}");
        }
        assert!(replay.memory() <= SHARDS * SMALLEST * GENERATIONS * SLOT);
    }

    #[test]
    fn a_clock_set_forward_and_back_reopens_nothing() {
        let replay = Replay::new(1 << 20);
        assert_eq!(replay.admit(&nonce(1), NOON, NOON), Admission::Fresh);
        let tomorrow = NOON + DAY_MS;
        assert_eq!(
            replay.admit(&nonce(2), tomorrow, tomorrow),
            Admission::Fresh
        );
        replay.sweep(tomorrow);
        // Forgotten, but not admitted.
        assert_eq!(replay.admit(&nonce(1), NOON, NOON), Admission::Stale);
        // What is newer than all that was forgotten works on.
        assert_eq!(
            replay.admit(&nonce(3), NOON + 1, NOON + 1),
            Admission::Fresh
        );
        assert_eq!(
            replay.admit(&nonce(3), NOON + 1, NOON + 1),
            Admission::Replayed
        );
        // And the day after, its own are known still.
        replay.sweep(NOON);
        assert_eq!(
            replay.admit(&nonce(2), tomorrow, tomorrow),
            Admission::Replayed
        );
    }

    #[test]
    fn a_clock_set_back_reopens_nothing() {
        let replay = Replay::new(1 << 20);
        assert_eq!(replay.admit(&nonce(1), NOON, NOON), Admission::Fresh);
        let yesterday = NOON - DAY_MS;
        replay.sweep(yesterday);
        assert_eq!(replay.admit(&nonce(1), NOON, yesterday), Admission::Stale);
        assert_eq!(
            replay.admit(&nonce(2), yesterday, yesterday),
            Admission::Fresh
        );
        assert_eq!(replay.admit(&nonce(1), NOON, NOON), Admission::Replayed);
        assert_ne!(
            replay.admit(&nonce(2), yesterday, yesterday),
            Admission::Fresh
        );
    }

    #[test]
    fn a_clock_that_jumps_about_is_refused_at_last() {
        let replay = Replay::new(1 << 20);
        // Each further back than the last, so that all before lie ahead. One nonce, one shard.
        let back = |jump: u64| NOON - jump * DAY_MS;
        let admitted = (0..20).map(|jump| replay.admit(&nonce(1), back(jump), back(jump)));
        let admitted: Vec<Admission> = admitted.collect();
        let (fresh, full) = admitted.split_at(GENERATIONS);
        assert!(
            fresh.iter().all(|one| *one == Admission::Fresh),
            "{admitted:?}"
        );
        assert!(
            full.iter().all(|one| *one == Admission::Full),
            "{admitted:?}"
        );
    }

    #[test]
    fn all_cores_admit_a_nonce_once() {
        let replay = Replay::new(1 << 20);
        let count = || {
            (0..5_000)
                .filter(|number| replay.admit(&nonce(*number), NOON, NOON) == Admission::Fresh)
                .count()
        };
        let fresh: usize = std::thread::scope(|scope| {
            let cores: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            cores.into_iter().map(|core| core.join().unwrap()).sum()
        });
        assert_eq!(fresh, 5_000);
    }
}
