//! Relayed pairs: bytes that no longer touch protocol code.
//!
//! A [`Link`] is two [`Direction`]s, and one pump serves both: which way the bytes go is an
//! argument. A link has ended when both its directions have; half-close needs nothing else.
//!
//! ```text
//!            read                     write
//!   source ────────> target.tx ring ────────> target        Open
//!     │ end of stream      │ empty                            v
//!     └────────────────────┴──> FIN to the target           Ended
//! ```
//!
//! Bytes are read straight into the target's ring and written from there at once, so an idle pair
//! holds no memory for bytes, and a slow target stops the reading of its source when its ring is
//! full: then TCP stalls the sender.

use std::io;
use std::time::Instant;

use crate::buffer::{BLOCK, Pool};
use crate::net::{Conn, ConnKey, Stream};
use crate::reactor::{SessionKey, TimerKey};

/// Two connections whose bytes are passed to each other.
pub struct Link {
    /// Both ends; direction `d` goes from `conns[d]` to `conns[1 - d]`.
    pub conns: [ConnKey; 2],
    /// The session that hears how it went.
    pub session: SessionKey,
    /// The two ways.
    pub directions: [Direction; 2],
    /// Which end could be written to no more, and why.
    pub broken: Option<(usize, io::ErrorKind)>,
    /// When a byte last moved.
    pub active: Instant,
    /// The idle timeout.
    pub timer: Option<TimerKey>,
}

/// One way of a link.
#[derive(Default)]
pub struct Direction {
    /// Bytes written to the target.
    pub moved: u64,
    /// The end was passed on: nothing will ever move here again.
    pub ended: bool,
    /// How many blocks the next read asks for, less one: it grows while reads come back full.
    appetite: u8,
}

/// Why a pump stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pumped {
    /// The source is dry, or the target full: an event will tell when to go on.
    Waiting,
    /// The turn's byte budget is used up, and there may be more.
    Budget,
    /// The buffer pool is used up; blocks must come back first.
    Starved,
    /// The direction has ended: the end of the stream was passed on.
    Ended,
    /// The source broke.
    SourceBroke(io::ErrorKind),
    /// The target broke: nothing can be written to it any more.
    TargetBroke(io::ErrorKind),
}

/// Moves bytes from `source` to `target` until one of them makes it wait, it has ended, or
/// `budget` bytes have moved.
pub fn pump<S: Stream>(
    direction: &mut Direction,
    source: &mut Conn<S>,
    target: &mut Conn<S>,
    pool: &mut Pool,
    budget: usize,
) -> Pumped {
    if direction.ended {
        return Pumped::Waiting;
    }
    // What the session left unread comes first.
    target.tx.append(&mut source.rx, pool);
    let mut left = budget;
    loop {
        match target.flush(pool) {
            Ok(written) => direction.moved += written as u64,
            Err(error) => return Pumped::TargetBroke(error.kind()),
        }
        if source.ended {
            target.shut_wanted = true;
            return match target.flush(pool) {
                Ok(_) if target.shut => {
                    direction.ended = true;
                    Pumped::Ended
                }
                Ok(_) => Pumped::Waiting,
                Err(error) => Pumped::TargetBroke(error.kind()),
            };
        }
        if !source.can_read || target.tx.len() >= HOLD {
            return Pumped::Waiting;
        }
        if left == 0 {
            return Pumped::Budget;
        }
        match direction.read(source, target, pool) {
            None => return Pumped::Starved,
            Some(Ok(count)) => left = left.saturating_sub(count.max(1)),
            Some(Err(error)) => return Pumped::SourceBroke(error.kind()),
        }
    }
}

impl Direction {
    /// One read from the source into the target's ring.
    fn read<S: Stream>(
        &mut self,
        source: &mut Conn<S>,
        target: &mut Conn<S>,
        pool: &mut Pool,
    ) -> Option<io::Result<usize>> {
        let blocks = usize::from(self.appetite) + 1;
        let stream = &mut source.stream;
        let outcome = target.tx.fill(pool, blocks, |slices| stream.read(slices))?;
        Some(match outcome {
            Ok(filled) => {
                self.appetite = if filled.count == filled.room {
                    (self.appetite * 2 + 1).min(MOST_APPETITE)
                } else {
                    filled.count.div_ceil(BLOCK).saturating_sub(1) as u8
                };
                source.note_read(filled.count, filled.room);
                Ok(filled.count)
            }
            Err(error) => source.note_read_error(error),
        })
    }
}

/// How many unwritten bytes a direction holds before it stops reading.
pub const HOLD: usize = 4 * BLOCK;

/// A read covers at most sixteen blocks, 256 KiB: larger reads cost more in cache than they save
/// in calls.
const MOST_APPETITE: u8 = 15;
