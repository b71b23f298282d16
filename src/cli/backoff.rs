//! How long a client waits before it tries again: longer each time, and never in step with others.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// Pauses with full jitter: each is drawn evenly from nothing up to a ceiling that doubles.
///
/// Clients that lost the same server at the same moment spread over the whole ceiling when they come
/// back, so that the server is not met by all of them at once.
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Pauses of at most `first`, then twice that, up to `most`.
    pub(super) fn new(first: Duration, most: Duration) -> Backoff {
        Backoff {
            first,
            most,
            ceiling: first,
        }
    }

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling.min(self.most);
        self.ceiling = (ceiling * 2).min(self.most);
        // The system's seed of hash maps is random enough to keep clients out of step.
        let draw = RandomState::new().hash_one(ceiling) >> 32;
        ceiling.mul_f64(draw as f64 / f64::from(u32::MAX))
    }

    /// It worked: the next pause is a short one again.
    pub(super) fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_below_a_ceiling_that_doubles() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, most);
        for _ in 0..2 {
            for ceiling in [100, 200, 400, 800, 1000, 1000] {
                assert_eq!(backoff.ceiling, Duration::from_millis(ceiling));
                assert!(backoff.next() <= Duration::from_millis(ceiling));
            }
            backoff.reset();
        }
    }

    #[test]
    fn pauses_differ() {
        let second = Duration::from_secs(1);
        let drawn: Vec<Duration> = (0..20)
            .map(|_| Backoff::new(second, second).next())
            .collect();
        let (least, most) = (drawn.iter().min(), drawn.iter().max());
        assert_ne!(least, most);
    }
}
