//! How much of one visitor's stream may be under way: both ends of one direction.
//!
//! ```text
//!   sender                              receiver
//!   Sending: left ──── bytes ────────> Receiving: promised ─> unread ─> owed
//!            ^                                       ^                   │
//!            └──────────────── grant ────────────────┴───────────────────┘
//! ```
//!
//! What the sender may still send, what is under way, what the receiver has not passed on and what it
//! has not granted back are together [`WINDOW`] at any time. The receiver owes less than [`STEP`], so
//! a sender whose bytes have all been passed on can always send again.

use std::fmt;

/// The sender's end of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    left: u32,
}

impl Default for Sending {
    fn default() -> Self {
        Self::new()
    }
}

impl Sending {
    /// A stream's begin.
    pub const fn new() -> Self {
        Self { left: WINDOW }
    }

    /// How many bytes may be sent now.
    pub const fn left(&self) -> usize {
        self.left as usize
    }

    /// Takes up to `wanted` bytes of credit and says how many; so many must be sent.
    pub fn take(&mut self, wanted: usize) -> usize {
        let taken = wanted.min(self.left());
        self.left -= taken as u32;
        taken
    }

    /// The peer has passed bytes on. A peer that grants more than it was sent breaks the rules, as its
    /// window would grow without end.
    pub fn granted(&mut self, bytes: u32) -> Result<(), Overdrawn> {
        match self.left.checked_add(bytes) {
            Some(left) if left <= WINDOW => {
                self.left = left;
                Ok(())
            }
            _ => Err(Overdrawn {
                by: bytes.saturating_sub(WINDOW - self.left),
            }),
        }
    }
}

/// The receiver's end of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiving {
    /// What the peer may still send.
    promised: u32,
    /// What has come and was not passed on.
    unread: u32,
}

impl Default for Receiving {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiving {
    /// A stream's begin.
    pub const fn new() -> Self {
        Self {
            promised: WINDOW,
            unread: 0,
        }
    }

    /// Bytes have come. A peer that sends more than it may breaks the rules; nothing is counted then.
    pub fn arrived(&mut self, bytes: u32) -> Result<(), Overdrawn> {
        match self.promised.checked_sub(bytes) {
            Some(left) => {
                self.promised = left;
                self.unread += bytes;
                Ok(())
            }
            None => Err(Overdrawn {
                by: bytes - self.promised,
            }),
        }
    }

    /// Bytes have been passed on. What is to be granted now, if it is worth a frame; the call counts
    /// it as granted. More bytes than have come are not passed on, and not counted.
    pub fn drained(&mut self, bytes: u32) -> Option<u32> {
        self.unread = self.unread.saturating_sub(bytes);
        let owed = self.owed();
        if owed < STEP {
            return None;
        }
        self.promised += owed;
        Some(owed)
    }

    /// What has come and was not passed on; at most [`WINDOW`].
    pub const fn unread(&self) -> usize {
        self.unread as usize
    }

    const fn owed(&self) -> u32 {
        WINDOW - self.promised - self.unread
    }
}

/// A peer has sent, or granted, more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdrawn {
    /// By how many bytes.
    pub by: u32,
}

impl fmt::Display for Overdrawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credit is overdrawn by {} bytes", self.by)
    }
}

impl std::error::Error for Overdrawn {}

/// What may be under way in each direction of each visitor.
pub const WINDOW: u32 = 256 << 10;

/// From how many bytes on a grant is worth a frame.
pub const STEP: u32 = WINDOW / 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_takes_what_is_left_and_no_more() {
        let mut sending = Sending::new();
        assert_eq!(sending.take(100_000), 100_000);
        assert_eq!(sending.take(1 << 30), 162_144);
        assert_eq!((sending.left(), sending.take(1)), (0, 0));
        assert_eq!(sending.granted(WINDOW), Ok(()));
        assert_eq!(sending.granted(1), Err(Overdrawn { by: 1 }));
        assert_eq!(sending.take(5), 5);
        assert_eq!(
            sending.granted(u32::MAX),
            Err(Overdrawn { by: u32::MAX - 5 })
        );
        assert_eq!(sending.left(), WINDOW as usize - 5);
    }

    #[test]
    fn a_receiver_grants_in_steps_and_takes_no_more_than_it_promised() {
        let mut receiving = Receiving::new();
        assert_eq!(receiving.arrived(WINDOW), Ok(()));
        assert_eq!(receiving.arrived(1), Err(Overdrawn { by: 1 }));
        assert_eq!(receiving.drained(STEP - 1), None);
        assert_eq!(receiving.arrived(1), Err(Overdrawn { by: 1 }));
        assert_eq!(receiving.drained(1), Some(STEP));
        assert_eq!(receiving.unread(), (WINDOW - STEP) as usize);
        assert_eq!(receiving.arrived(STEP + 1), Err(Overdrawn { by: 1 }));
        assert_eq!(receiving.arrived(STEP), Ok(()));
        assert_eq!(receiving.drained(WINDOW), Some(WINDOW));
        assert_eq!(receiving, Receiving::new());
        // What did not come cannot be passed on.
        assert_eq!(receiving.drained(u32::MAX), None);
        assert_eq!(receiving, Receiving::new());
    }
}
