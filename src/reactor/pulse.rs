//! A loop's pulse: how its watchdog sees that it still goes round.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often a loop has gone round. Its own thread beats, any other may look.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// The loop has gone round once more. Only its own thread may call this.
    pub fn beat(&self) {
        let count = self.0.load(Ordering::Relaxed);
        self.0.store((count + 1) % ENDED, Ordering::Relaxed);
    }

    /// The loop has ended in good order, and will not beat again.
    pub fn end(&self) {
        self.0.store(ENDED, Ordering::Relaxed);
    }

    /// What the pulse shows now, to compare with what it shows later.
    pub fn look(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether the loop has gone round since `seen`, or has nothing left to do.
    pub fn has_moved(&self, seen: u64) -> bool {
        let now = self.look();
        now != seen || now == ENDED
    }
}

const ENDED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_moves_by_its_beats_and_by_its_end() {
        let pulse = Pulse::default();
        let seen = pulse.look();
        assert!(!pulse.has_moved(seen));
        pulse.beat();
        assert!(pulse.has_moved(seen));
        let seen = pulse.look();
        assert!(!pulse.has_moved(seen));
        pulse.end();
        assert!(pulse.has_moved(seen) && pulse.has_moved(pulse.look()));
    }
}
