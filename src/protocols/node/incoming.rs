//! One connection's frames, cut out of its ring: those that fit there stay in it, a longer one is
//! gathered apart as its bytes come.
//!
//! It decides nothing about a frame but whether its head is one, and how long it may take to come.

use std::time::{Duration, Instant};

use super::Rules;
use super::desk::FrameMemory;
use super::wire::{HEAD, Head};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::session::Cx;
use crate::wire::WireError;

/// What is known of a connection between its reads.
#[derive(Default)]
pub(super) struct Incoming {
    /// When the frame that is coming began, or could be read again; none between frames.
    begun: Option<Instant>,
    /// More of it must be there by then.
    due: Option<Instant>,
    long: Option<Box<Long>>,
    /// Its ring may hold a frame of [`LONG`] bytes.
    roomy: bool,
}

/// A frame that does not fit into a ring.
struct Long {
    len: usize,
    /// Grows with what has come, and never past the length.
    bytes: Vec<u8>,
}

/// What stands behind a number of bytes in the ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole frame of so many bytes.
    Frame(usize),
    /// Nothing, or a part that more bytes will make whole.
    Part,
    /// A frame that is to be gathered apart; see [`Incoming::begin`].
    Long(usize),
}

impl Incoming {
    /// Looks at the frame behind the first `at` bytes.
    pub(super) fn next(
        &mut self,
        conn: ConnKey,
        at: usize,
        rx: &Ring,
        rules: &Rules,
        cx: &mut Cx<'_>,
    ) -> Result<Next, WireError> {
        let mut bytes = [0; HEAD];
        let head = match rx.head().get(at..at + HEAD) {
            Some(head) => head,
            None => {
                let have = rx.copy_to(at, &mut bytes);
                &bytes[..have]
            }
        };
        let Some(head) = Head::decode(head, rules.network, rules.max_frame)? else {
            return Ok(Next::Part);
        };
        let len = head.frame_len();
        if len > LONG {
            return Ok(Next::Long(len));
        }
        if len <= rx.len() - at {
            return Ok(Next::Frame(len));
        }
        if len > RING && !self.roomy {
            self.roomy = true;
            cx.hold(conn, LONG);
        }
        Ok(Next::Part)
    }

    /// Begins to gather a long frame, for which there is memory; it must be next in the ring.
    pub(super) fn begin(&mut self, len: usize) {
        let bytes = Vec::new();
        self.long = Some(Box::new(Long { len, bytes }));
    }

    /// Moves what the ring has of a long frame, all but its last byte: `None` when there is no long
    /// frame, else whether it is whole.
    ///
    /// The last byte stays until the frame is taken: a connection is offered again, and its end is
    /// told, by what is in its ring.
    pub(super) fn gather(&mut self, rx: &mut Ring) -> Option<bool> {
        let long = self.long.as_mut()?;
        let missing = long.len - long.bytes.len();
        if rx.len() >= missing || long.bytes.len() + rx.len() >= long.len / 2 {
            // Doubling from here on would go past the frame's end.
            long.bytes.reserve_exact(missing);
        }
        rx.take_into(missing - 1, &mut long.bytes);
        Some(long.bytes.len() + 1 == long.len && !rx.is_empty())
    }

    /// Takes the long frame out, which must be whole.
    pub(super) fn take(&mut self, rx: &mut Ring) -> Vec<u8> {
        let Some(mut long) = self.long.take() else {
            return Vec::new();
        };
        rx.take_into(1, &mut long.bytes);
        long.bytes
    }

    /// Notes how a read has left it: with a part of a frame or not, and whether a whole one was taken
    /// since the last. A part that came with or behind a whole frame has its time from now on.
    pub(super) fn note(&mut self, rx: &Ring, at_work: bool, now: Instant, rules: &Rules) {
        if !self.is_partial(rx) {
            return self.rest();
        }
        if at_work {
            self.begun = None;
        }
        let begun = *self.begun.get_or_insert(now);
        let come = self.long.as_ref().map_or(0, |long| long.bytes.len());
        self.due = Some(begun + rules.frame_time(come));
    }

    /// It is read no further for no fault of its own: its time stands still.
    pub(super) fn rest(&mut self) {
        self.begun = None;
        self.due = None;
    }

    /// When it must have sent more of its frame, if it has begun one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// True inside a frame.
    pub(super) fn is_partial(&self, rx: &Ring) -> bool {
        self.long.is_some() || !rx.is_empty()
    }

    /// Gives back what it holds, as its connection is gone: how many bytes.
    pub(super) fn drop_all(
        &mut self,
        conn: ConnKey,
        memory: &mut FrameMemory,
        cx: &mut Cx<'_>,
    ) -> usize {
        let held = self.long.take().map_or(0, |long| long.len);
        if held > 0 {
            memory.give(held, cx);
        }
        memory.forget(conn, cx);
        held
    }
}

impl Rules {
    /// How long after its first byte a frame may be in coming of which so many bytes have come.
    fn frame_time(&self, come: usize) -> Duration {
        self.handshake_timeout + Duration::from_secs((come / LEAST_RATE) as u64)
    }
}

/// What a connection's ring holds unless told otherwise; the engine's number, not more.
const RING: usize = 64 * 1024;

/// A longer frame is gathered apart. Most frames never are, so they are copied once.
pub(super) const LONG: usize = 128 * 1024;

/// A frame may take a second more for so many bytes of it.
const LEAST_RATE: usize = 128 * 1024;
