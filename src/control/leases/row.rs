//! A lease as it lies in the store, and what is left of it after a restart.
//!
//! ```text
//! row   u8 flags: 1 held, 2 pinned | u16 LE port | u64 LE epoch | u64 LE remaining in ms
//! ```
//!
//! The store knows when the row was written; no clock is read here.

use std::time::Duration;

/// What is kept of a lease, beside its pool and owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) port: u16,
    pub(super) epoch: u64,
    pub(super) pinned: bool,
    /// How long it still runs; `None` while it is held.
    pub(super) remaining: Option<Duration>,
}

impl Row {
    pub(super) fn encode(&self) -> [u8; LENGTH] {
        let flags = u8::from(self.remaining.is_none()) * HELD + u8::from(self.pinned) * PINNED;
        let remaining = self.remaining.unwrap_or_default().as_millis() as u64;
        let mut bytes = [flags; LENGTH];
        bytes[1..3].copy_from_slice(&self.port.to_le_bytes());
        bytes[3..11].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[11..].copy_from_slice(&remaining.to_le_bytes());
        bytes
    }

    /// `None` for anything that [`Row::encode`] did not make.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&flags, rest) = bytes.split_first()?;
        let (port, rest) = rest.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let remaining = Duration::from_millis(u64::from_le_bytes(rest.try_into().ok()?));
        (flags <= HELD | PINNED).then_some(Self {
            port: u16::from_le_bytes(*port),
            epoch: u64::from_le_bytes(*epoch),
            pinned: flags & PINNED != 0,
            remaining: (flags & HELD == 0).then_some(remaining),
        })
    }

    /// How long the lease runs after a restart, `elapsed` seconds of the wall clock after the row
    /// was written.
    ///
    /// A lease that was held at the end of the last process is left now. For the others the wall
    /// clock is all there is, and it may have been set by a day in between: so a restart takes
    /// half of what remained at most, and nothing when the clock went back. A jump loses no
    /// lease then, and no number of restarts keeps one for ever.
    pub(super) fn remaining_after(&self, elapsed: i64, lease: Duration) -> Duration {
        let Some(remaining) = self.remaining else {
            return lease;
        };
        let remaining = remaining.min(lease);
        let elapsed = Duration::from_secs(elapsed.max(0) as u64);
        remaining - elapsed.min(remaining / 2)
    }
}

const HELD: u8 = 1;
const PINNED: u8 = 2;
pub(super) const LENGTH: usize = 1 + 2 + 8 + 8;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn left(remaining: Duration) -> Row {
        Row {
            port: 20_001,
            epoch: 0x0102_0304_0506_0708,
            pinned: false,
            remaining: Some(remaining),
        }
    }

    #[test]
    fn rows_have_these_bytes_and_come_back() {
        let row = left(Duration::from_millis(0x0a0b));
        let bytes = [
            0, 0x21, 0x4e, 8, 7, 6, 5, 4, 3, 2, 1, 0x0b, 0x0a, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(row.encode(), bytes);
        let held = Row {
            remaining: None,
            pinned: true,
            ..row
        };
        assert_eq!(held.encode()[0], 3);
        for row in [row, held] {
            assert_eq!(Row::decode(&row.encode()), Some(row));
        }
    }

    #[test]
    fn what_is_no_row_is_none() {
        let bytes = left(HOUR).encode();
        for length in 0..LENGTH {
            assert_eq!(Row::decode(&bytes[..length]), None, "{length} bytes");
        }
        assert_eq!(Row::decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(Row::decode(&[&[4], &bytes[1..]].concat()), None);
    }

    #[test]
    fn a_restart_takes_the_time_that_passed_and_a_jump_half_at_most() {
        let day = 24 * 3600;
        for (elapsed, remaining) in [
            (0, HOUR),
            (600, HOUR - Duration::from_secs(600)),
            (day, HOUR / 2),
            (i64::MAX, HOUR / 2),
            (-day, HOUR),
            (i64::MIN, HOUR),
        ] {
            let after = left(HOUR).remaining_after(elapsed, 3 * HOUR);
            assert_eq!(after, remaining, "{elapsed} s");
        }
        // A lease that was shortened in the configuration is cut to it.
        assert_eq!(left(3 * HOUR).remaining_after(0, HOUR), HOUR);
        let mut remaining = HOUR;
        for _ in 0..32 {
            remaining = left(remaining).remaining_after(day, HOUR);
        }
        assert!(remaining < Duration::from_millis(1), "it does not live on");
    }

    #[test]
    fn a_held_lease_begins_to_run_at_the_restart() {
        let held = Row {
            remaining: None,
            ..left(HOUR)
        };
        assert_eq!(held.remaining_after(24 * 3600, HOUR), HOUR);
    }
}
