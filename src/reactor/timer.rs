//! A hierarchical timer wheel: arming, cancelling and expiring cost the same however many wait.
//!
//! ```text
//!   level 0   64 slots of 1 tick    |  a timer lies on the level of the highest bit group in
//!   level 1   64 slots of 64 ticks  |  which its tick differs from now; when the wheel's time
//!   ...                             |  enters its slot it falls to a lower level, at last to
//!   level 5   64^5 ticks a slot     |  level 0, where it fires
//! ```
//!
//! The wheel never reads a clock: its caller passes the turn's time. A timer fires at its tick or
//! later, never earlier. It holds as many timers as are armed; each owner arms a bounded number.

use std::time::{Duration, Instant};

use super::table::{Key, Table};

/// Marks the keys of a wheel.
pub enum TimerMark {}

/// The name of one armed timer; it goes stale when the timer fires or is cancelled.
pub type TimerKey = Key<TimerMark>;

/// Timers that carry a `T` each.
pub struct Wheel<T> {
    start: Instant,
    /// The first tick that has not been expired yet.
    tick: u64,
    armed: Table<Armed<T>, TimerMark>,
    levels: [Level; LEVELS],
}

struct Armed<T> {
    due: u64,
    level: u8,
    slot: u8,
    prev: Option<TimerKey>,
    next: Option<TimerKey>,
    value: T,
}

#[derive(Clone, Copy)]
struct Level {
    /// One bit for each slot that holds a timer.
    occupied: u64,
    heads: [Option<TimerKey>; SLOTS],
}

impl<T> Wheel<T> {
    /// An empty wheel whose time begins at `start`.
    pub fn new(start: Instant) -> Self {
        let empty = Level {
            occupied: 0,
            heads: [None; SLOTS],
        };
        Self {
            start,
            tick: 0,
            armed: Table::new(u32::MAX as usize),
            levels: [empty; LEVELS],
        }
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.armed.len()
    }

    /// True when no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }

    /// Arms a timer that fires when `after` has passed since `now`, rounded up to a tick.
    ///
    /// `None` only when four thousand million timers are armed already.
    pub fn arm(&mut self, now: Instant, after: Duration, value: T) -> Option<TimerKey> {
        let due = self
            .tick_of(now + after.min(HORIZON), true)
            .max(self.tick + 1);
        let armed = Armed {
            due,
            level: 0,
            slot: 0,
            prev: None,
            next: None,
            value,
        };
        let key = self.armed.insert(armed).ok()?;
        self.link(key, due);
        Some(key)
    }

    /// Disarms a timer and gives back what it carried; `None` when it has fired or was cancelled.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        self.unlink(key)?;
        self.armed.remove(key).map(|armed| armed.value)
    }

    /// When the loop must wake for the wheel's sake at the latest. It may be earlier than the
    /// first timer (a slot of a high level has to be unpacked), never later.
    pub fn next_deadline(&self) -> Option<Instant> {
        let tick = self.next_occupied()?;
        Some(self.start + Duration::from_micros(tick * TICK.as_micros() as u64))
    }

    /// Fires every timer that is due at `now`, with its key, in the order of their ticks; within one tick in
    /// no promised order.
    pub fn expire(&mut self, now: Instant, mut fire: impl FnMut(TimerKey, T)) {
        let until = self.tick_of(now, false);
        while let Some(tick) = self.next_occupied() {
            if tick > until {
                break;
            }
            self.tick = tick;
            self.cascade(tick);
            self.fire_slot((tick % SLOTS as u64) as usize, &mut fire);
        }
        self.tick = self.tick.max(until);
    }

    /// The next tick at which a slot fires or must be unpacked. Walks one word a level.
    fn next_occupied(&self) -> Option<u64> {
        let mut earliest: Option<u64> = None;
        for (number, level) in self.levels.iter().enumerate() {
            if level.occupied == 0 {
                continue;
            }
            let shift = BITS * number as u32;
            let here = (self.tick >> shift) % SLOTS as u64;
            // Rotated so that bit 0 is the present slot; a timer never lies behind it.
            let ahead = level.occupied.rotate_right(here as u32).trailing_zeros();
            let at = ((self.tick >> shift) + u64::from(ahead)) << shift;
            let at = at.max(self.tick);
            earliest = Some(earliest.map_or(at, |known| known.min(at)));
        }
        earliest
    }

    /// Unpacks the slots of the higher levels that begin at `tick`.
    fn cascade(&mut self, tick: u64) {
        for number in (1..LEVELS).rev() {
            let shift = BITS * number as u32;
            let slot = ((tick >> shift) % SLOTS as u64) as usize;
            let mut next = self.levels[number].heads[slot].take();
            self.levels[number].occupied &= !(1 << slot);
            while let Some(key) = next {
                let Some(armed) = self.armed.get(key) else {
                    break;
                };
                next = armed.next;
                let due = armed.due;
                self.link(key, due);
            }
        }
    }

    fn fire_slot(&mut self, slot: usize, fire: &mut impl FnMut(TimerKey, T)) {
        let mut next = self.levels[0].heads[slot].take();
        self.levels[0].occupied &= !(1 << slot);
        while let Some(key) = next {
            let Some(armed) = self.armed.remove(key) else {
                break;
            };
            next = armed.next;
            fire(key, armed.value);
        }
    }

    fn link(&mut self, key: TimerKey, due: u64) {
        let due = due.max(self.tick);
        let differing = 63 - ((due ^ self.tick) | 1).leading_zeros();
        let level = ((differing / BITS) as usize).min(LEVELS - 1);
        let slot = ((due >> (BITS * level as u32)) % SLOTS as u64) as usize;
        let head = self.levels[level].heads[slot].replace(key);
        self.levels[level].occupied |= 1 << slot;
        if let Some(head) = head
            && let Some(old) = self.armed.get_mut(head)
        {
            old.prev = Some(key);
        }
        if let Some(armed) = self.armed.get_mut(key) {
            armed.level = level as u8;
            armed.slot = slot as u8;
            armed.prev = None;
            armed.next = head;
        }
    }

    fn unlink(&mut self, key: TimerKey) -> Option<()> {
        let armed = self.armed.get(key)?;
        let (prev, next) = (armed.prev, armed.next);
        let (level, slot) = (usize::from(armed.level), usize::from(armed.slot));
        match prev {
            Some(prev) => self.armed.get_mut(prev)?.next = next,
            None => {
                self.levels[level].heads[slot] = next;
                if next.is_none() {
                    self.levels[level].occupied &= !(1 << slot);
                }
            }
        }
        if let Some(next) = next {
            self.armed.get_mut(next)?.prev = prev;
        }
        Some(())
    }

    fn tick_of(&self, at: Instant, up: bool) -> u64 {
        let past = at.saturating_duration_since(self.start).as_micros() as u64;
        let tick = TICK.as_micros() as u64;
        if up { past.div_ceil(tick) } else { past / tick }
    }
}

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 6;

/// The wheel's grain: deadlines here are tens of milliseconds and more.
const TICK: Duration = Duration::from_millis(4);

/// Longer waits are cut to this: three years fit into six levels of four milliseconds.
const HORIZON: Duration = Duration::from_secs(3 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel<u64>, now: Instant) -> Vec<u64> {
        let mut out = Vec::new();
        wheel.expire(now, |_, value| out.push(value));
        out
    }

    #[test]
    fn a_timer_fires_at_its_time_and_never_before() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        for millis in [0, 1, 4, 5, 255, 256, 257, 16_384, 70_000, 5_000_000] {
            wheel
                .arm(start, Duration::from_millis(millis), millis)
                .unwrap();
        }
        let mut seen = Vec::new();
        while let Some(deadline) = wheel.next_deadline() {
            for millis in fired(&mut wheel, deadline) {
                let due = start + Duration::from_millis(millis);
                assert!(deadline >= due, "{millis} ms fired early");
                assert!(deadline < due + TICK * 2, "{millis} ms fired late");
                seen.push(millis);
            }
        }
        seen[..3].sort_unstable();
        assert_eq!(seen, [0, 1, 4, 5, 255, 256, 257, 16_384, 70_000, 5_000_000]);
    }

    #[test]
    fn a_cancelled_timer_never_fires() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let keys: Vec<_> = (0..10)
            .map(|n| wheel.arm(start, Duration::from_millis(100), n).unwrap())
            .collect();
        for n in [0, 9, 4] {
            assert_eq!(wheel.cancel(keys[n]), Some(n as u64));
            assert_eq!(wheel.cancel(keys[n]), None);
        }
        let mut left = fired(&mut wheel, start + Duration::from_secs(1));
        left.sort_unstable();
        assert_eq!(left, [1, 2, 3, 5, 6, 7, 8]);
        assert!(wheel.is_empty());
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_leap_over_many_slots_fires_everything_on_the_way() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        for n in 0..2_000u64 {
            wheel.arm(start, Duration::from_millis(n * 37), n).unwrap();
        }
        let got = fired(&mut wheel, start + Duration::from_secs(3600));
        assert_eq!(got.len(), 2_000);
    }

    #[test]
    fn random_arming_agrees_with_a_sorted_list() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let mut model: Vec<(u64, u64, TimerKey)> = Vec::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut now = 0u64;
        for step in 0..20_000u64 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = start + TICK * now as u32;
            match seed % 4 {
                0 | 1 => {
                    let after = (seed >> 8) % [10, 100, 5_000, 300_000][(seed >> 4) as usize % 4];
                    let key = wheel.arm(at, TICK * after as u32, step).unwrap();
                    model.push((now + after.max(1), step, key));
                }
                2 if !model.is_empty() => {
                    let at = (seed >> 8) as usize % model.len();
                    let (_, value, key) = model.swap_remove(at);
                    assert_eq!(wheel.cancel(key), Some(value));
                }
                _ => {
                    now += (seed >> 8) % 200;
                    let mut got = fired(&mut wheel, start + TICK * now as u32);
                    let mut want: Vec<_> = Vec::new();
                    model.retain(|(due, value, _)| {
                        let keep = *due > now;
                        if !keep {
                            want.push(*value);
                        }
                        keep
                    });
                    got.sort_unstable();
                    want.sort_unstable();
                    assert_eq!(got, want, "at step {step}");
                }
            }
            assert_eq!(wheel.len(), model.len());
        }
    }
}
