//! How near the server is to what it may use, in steps: a ladder on which new work is given up before
//! what is open suffers.
//!
//! ```text
//!            85 %            95 %
//!   Normal ───────> Pressed ───────> Full        of the descriptors; the buffer memory leads as far
//!          <───────         <───────             as Pressed
//!            75 %            85 %
//! ```
//!
//! For want of memory alone the server is never full: each connection has one block even then, and
//! whoever does not read what is sent to it must not shut the door for all others.
//!
//! The way back begins lower than the way up, so that one connection more or less does not change the
//! step. Each core tells what it uses when that has changed; the counts are the sums.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// What all cores use together, and the step that follows from it.
#[derive(Debug)]
pub struct Load {
    most: Usage,
    descriptors: AtomicUsize,
    memory: AtomicUsize,
    level: AtomicU8,
}

/// What is used, or may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Descriptors for connections, datagram sockets and pipes.
    pub descriptors: usize,
    /// Bytes of buffers and kernel pipes.
    pub memory: usize,
}

/// A step of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// There is enough.
    Normal,
    /// Strangers are turned away, and relays take no more pipes.
    Pressed,
    /// Nobody is taken in.
    Full,
}

impl Level {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pressed => "pressed",
            Self::Full => "full",
        }
    }

    fn of(number: u8) -> Self {
        match number {
            0 => Self::Normal,
            1 => Self::Pressed,
            _ => Self::Full,
        }
    }

    /// The step behind this one when so many percent are used of descriptors, and of memory.
    fn next(self, descriptors: usize, memory: usize) -> Self {
        let nearer = descriptors.max(memory);
        match self {
            _ if descriptors >= FULL => Self::Full,
            Self::Full if descriptors >= PRESSED => Self::Full,
            _ if nearer >= PRESSED => Self::Pressed,
            Self::Full | Self::Pressed if nearer >= RELIEVED => Self::Pressed,
            _ => Self::Normal,
        }
    }
}

impl Load {
    /// Nothing is used yet of `most`; of a kind of which there is 0, any number may be.
    pub fn new(most: Usage) -> Self {
        Self {
            most,
            descriptors: AtomicUsize::new(0),
            memory: AtomicUsize::new(0),
            level: AtomicU8::new(Level::Normal as u8),
        }
    }

    /// What may be used.
    pub fn most(&self) -> Usage {
        self.most
    }

    /// What is used.
    pub fn used(&self) -> Usage {
        Usage {
            descriptors: self.descriptors.load(Ordering::Relaxed),
            memory: self.memory.load(Ordering::Relaxed),
        }
    }

    /// The present step.
    pub fn level(&self) -> Level {
        Level::of(self.level.load(Ordering::Relaxed))
    }

    /// A core uses `now` and no longer `before`. When that changes the step, the new one is told, to
    /// one core only.
    pub fn shift(&self, before: Usage, now: Usage) -> Option<Level> {
        let change = |count: &AtomicUsize, before: usize, now: usize| {
            // It wraps round and back again: the sum is never below what one core has told.
            count.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        };
        change(&self.descriptors, before.descriptors, now.descriptors);
        change(&self.memory, before.memory, now.memory);
        let old = self.level.load(Ordering::Relaxed);
        let [descriptors, memory] = self.shares();
        let new = Level::of(old).next(descriptors, memory);
        if new as u8 == old {
            return None;
        }
        let changed =
            self.level
                .compare_exchange(old, new as u8, Ordering::Relaxed, Ordering::Relaxed);
        changed.is_ok().then_some(new)
    }

    /// How much is used of descriptors and of memory, in percent.
    fn shares(&self) -> [usize; 2] {
        let used = self.used();
        let percent = |used: usize, most: usize| match most {
            0 => 0,
            most => used.saturating_mul(100) / most,
        };
        [
            percent(used.descriptors, self.most.descriptors),
            percent(used.memory, self.most.memory),
        ]
    }
}

/// Percent at which the server is full.
const FULL: usize = 95;

/// Percent at which it is pressed, and no longer full.
const PRESSED: usize = 85;

/// Percent under which it is neither.
const RELIEVED: usize = 75;

#[cfg(test)]
mod tests {
    use super::*;

    fn of_descriptors(descriptors: usize) -> Usage {
        Usage {
            descriptors,
            memory: 0,
        }
    }

    #[test]
    fn steps_are_taken_at_marks_that_differ_by_the_way() {
        let load = Load::new(of_descriptors(200));
        let mut before = Usage::default();
        let mut now = |descriptors| {
            let told = load.shift(before, of_descriptors(descriptors));
            before = of_descriptors(descriptors);
            assert!(told.is_none_or(|told| told == load.level()));
            (told.is_some(), load.level())
        };
        use Level::{Full, Normal, Pressed};
        assert_eq!(now(169), (false, Normal));
        assert_eq!(now(170), (true, Pressed));
        assert_eq!(now(150), (false, Pressed));
        assert_eq!(now(149), (true, Normal));
        assert_eq!(now(190), (true, Full));
        assert_eq!(now(170), (false, Full));
        assert_eq!(now(169), (true, Pressed));
        assert_eq!(now(189), (false, Pressed));
        assert_eq!(now(200), (true, Full));
        assert_eq!(now(0), (true, Normal));
    }

    #[test]
    fn memory_presses_and_descriptors_fill_and_cores_are_summed() {
        let load = Load::new(Usage {
            descriptors: 100,
            memory: 1000,
        });
        let usage = |descriptors, memory| Usage {
            descriptors,
            memory,
        };
        assert_eq!(load.shift(Usage::default(), usage(10, 500)), None);
        let pressed = load.shift(Usage::default(), usage(10, 350));
        assert_eq!(pressed, Some(Level::Pressed));
        assert_eq!(load.used(), usage(20, 850));
        let told = load.shift(usage(10, 350), usage(10, 5000));
        assert_eq!((told, load.level()), (None, Level::Pressed));
        assert_eq!(load.shift(usage(10, 5000), usage(10, 350)), None);
        let full = load.shift(usage(10, 350), usage(86, 0));
        assert_eq!(full, Some(Level::Full));
        let normal = load.shift(usage(86, 0), usage(0, 0));
        assert_eq!(normal, Some(Level::Normal));
        assert_eq!(load.used(), usage(10, 500));
    }

    #[test]
    fn without_a_bound_there_is_no_pressure() {
        let load = Load::new(Usage::default());
        assert_eq!(load.shift(Usage::default(), of_descriptors(1 << 40)), None);
    }
}
