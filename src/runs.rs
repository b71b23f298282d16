//! Passing on whole frames: consecutive ones for the same receiver travel as one run of bytes.
//!
//! A part for sessions that forward frames from ring to ring. It knows no frame's layout, only
//! lengths; the session says what is a frame, and for whom.
//!
//! ```text
//!   ring:  [frame][frame][frame][frame of another][half a fra
//!          └────── run ────────┘ passed on with one copy
//! ```
//!
//! A run begins when the receiver has room and ends when it is used up, so whoever sends much takes
//! turns with the others: each adds at most what is left of the receiver's share, and the frame that
//! crosses it.

use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::session::Cx;

/// Whole frames at the front of a ring, all for one receiver.
#[derive(Debug)]
pub struct Run<T> {
    to: Option<T>,
    len: usize,
    room: usize,
}

impl<T> Default for Run<T> {
    fn default() -> Self {
        let (to, len, room) = (None, 0, 0);
        Self { to, len, room }
    }
}

impl<T: PartialEq> Run<T> {
    /// How many bytes it has; the next frame begins behind them.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when it has no frame.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when a frame for `to` may be added.
    pub fn is_open_to(&self, to: &T) -> bool {
        self.to.as_ref() == Some(to) && self.room > 0
    }

    /// Begins a run; the former one must have been taken.
    pub fn open(&mut self, to: T, room: usize) {
        (self.to, self.len, self.room) = (Some(to), 0, room);
    }

    /// Adds a frame; true when the run must be passed on before another.
    pub fn add(&mut self, len: usize) -> bool {
        self.len += len;
        self.room = self.room.saturating_sub(len);
        self.room == 0
    }

    /// Ends it: for whom how many bytes are to be taken from the ring.
    pub fn take(&mut self) -> Option<(T, usize)> {
        let len = std::mem::take(&mut self.len);
        Some((self.to.take()?, len))
    }
}

/// How many bytes more may be queued on `to`, of `most`. With none left, `from` is read no further
/// until half a quantum is free, and stands in line with the others.
pub fn room(from: ConnKey, to: ConnKey, most: usize, cx: &mut Cx<'_>) -> Option<usize> {
    let queued = cx.unsent(to);
    if queued < most {
        return Some(most - queued);
    }
    cx.await_room(from, to, most - QUANTUM / 2);
    None
}

/// The bytes at an offset of a ring, if there are so many.
pub fn peek<const N: usize>(rx: &Ring, at: usize) -> Option<[u8; N]> {
    if let Some(bytes) = rx.head().get(at..).and_then(<[u8]>::first_chunk) {
        return Some(*bytes);
    }
    let mut bytes = [0; N];
    (rx.copy_to(at, &mut bytes) == N).then_some(bytes)
}

/// What a receiver that many send to has queued before they take turns; `most` of [`room`] is no
/// less.
pub const QUANTUM: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_for_one_receiver_and_ends_with_its_room() {
        let mut run = Run::default();
        assert!(!run.is_open_to(&1));
        assert_eq!(run.take(), None);
        run.open(1, 10);
        assert!(run.is_open_to(&1) && !run.is_open_to(&2) && run.is_empty());
        assert!(!run.add(9));
        assert!(run.add(9), "the frame that crosses the mark is the last");
        assert!(!run.is_open_to(&1));
        assert_eq!(run.take(), Some((1, 18)));
        assert_eq!((run.take(), run.len()), (None, 0));
    }
}
