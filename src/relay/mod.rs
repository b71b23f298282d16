//! Relayed pairs: bytes that no longer touch protocol code.
//!
//! A [`Link`] is two [`Direction`]s, and one pump serves both: which way the bytes go is an
//! argument. A link has ended when both its directions have; half-close needs nothing else.
//!
//! ```text
//!            read                     write
//!   source ────────> target.tx ring ────────> target        interactive: copied
//!   source ────────> kernel pipe ───────────> target        bulk: spliced
//!     │ end of stream      │ empty                            v
//!     └────────────────────┴──> FIN to the target           Ended
//! ```
//!
//! Bytes are read straight into the target's ring and written from there at once, so an idle pair
//! holds no memory for bytes, and a slow target stops the reading of its source when its ring is
//! full: then TCP stalls the sender.
//!
//! # Copy or splice
//!
//! Below some 64 KiB in flight a copy is cheaper than two splices, above it the other way round;
//! so each direction goes by what its reads bring. It begins copying, one block a read, more after
//! a full one. Two full reads in a row make it bulk; a few visits in a row that brought little make
//! it interactive again. Splicing needs an empty ring, so the order of bytes is kept: what the ring
//! holds leaves first. A direction holds a pipe only while bytes lie in it, and copies on while
//! there is no pipe to be had.

mod bulk;
mod flows;

use std::io;
use std::time::{Duration, Instant};

pub use flows::{Flows, Place};

use crate::buffer::{BLOCK, Loan, Pipes, Pool};
use crate::config::Way;
use crate::net::{Conn, ConnKey, Network, Stream};
use crate::reactor::{SessionKey, TimerKey};

/// Two connections whose bytes are passed to each other.
pub struct Link<P> {
    /// Both ends; direction `d` goes from `conns[d]` to `conns[1 - d]`.
    pub conns: [ConnKey; 2],
    /// The session that hears how it went.
    pub session: SessionKey,
    /// The two ways.
    pub directions: [Direction<P>; 2],
    /// Which end could be written to no more, and why.
    pub broken: Option<(u8, io::ErrorKind)>,
    /// The dialled end is under the system's watch.
    pub lasts: bool,
    /// When a byte last moved.
    pub active: Instant,
    /// The idle timeout.
    pub timer: Option<TimerKey>,
    /// How long it may be silent, if not as long as the server's relays may.
    pub silence: Option<Box<Silence>>,
}

/// How long a link may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// While both ends may send.
    pub idle: Duration,
    /// Once one of them has ended its stream; no longer than `idle`.
    pub half_closed: Duration,
}

/// One way of a link.
pub struct Direction<P> {
    /// Bytes written to the target.
    pub moved: u64,
    /// The end was passed on: nothing will ever move here again.
    pub ended: bool,
    mode: Mode,
    /// The pipe that holds bytes for the target.
    loan: Option<Box<Loan<P>>>,
    /// The last splice told the target that more would follow.
    held_back: bool,
}

/// How a direction's bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Through the ring; so many blocks are asked for by the next read.
    Copy { blocks: u8 },
    /// Through a pipe; so many visits in a row have brought little.
    Bulk { small: u8 },
}

/// What a pump works with: one worker's memory and its network.
pub struct Means<'a, N: Network> {
    /// Blocks for copying.
    pub pool: &'a mut Pool,
    /// Pipes for splicing.
    pub pipes: &'a mut Pipes<<N::Stream as Stream>::Pipe>,
    /// Where new pipes come from.
    pub network: &'a mut N,
    /// How bytes are to be moved.
    pub way: Way,
    /// The other direction of the pair has ended.
    pub last_way: bool,
    /// How many bytes the source's pace allows, if it has one.
    pub ration: Option<usize>,
    /// How many bytes the pump has taken.
    pub taken: usize,
}

/// Why a pump stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pumped {
    /// The source is dry, or the target full: an event will tell when to go on.
    Waiting,
    /// The turn's byte budget is used up, and there may be more.
    Budget,
    /// The ration is used up, and there may be more.
    Paced,
    /// The buffer pool is used up; blocks must come back first.
    Starved,
    /// The direction has ended: the end of the stream was passed on.
    Ended,
    /// The source broke.
    SourceBroke(io::ErrorKind),
    /// The target broke: nothing can be written to it any more.
    TargetBroke(io::ErrorKind),
}

/// What a step of the pump says to the loop around it.
enum Step {
    /// So many bytes came: go on.
    Took(usize),
    /// Stop for this visit.
    Stop(Pumped),
}

impl<P> Link<P> {
    /// How long it may be silent, where the server's relays may be so for `usual`.
    pub fn patience(&self, usual: Duration) -> Duration {
        let own = self.silence.as_ref();
        own.map_or(usual, |silence| silence.idle)
    }
}

impl<P> Direction<P> {
    /// A direction in which nothing has moved yet.
    pub fn new(way: Way) -> Self {
        let mode = match way {
            Way::Splice => Mode::Bulk { small: 0 },
            Way::Auto | Way::Copy => Mode::Copy { blocks: 1 },
        };
        Self {
            moved: 0,
            ended: false,
            mode,
            loan: None,
            held_back: false,
        }
    }

    /// Moves bytes from `source` to `target` until one of them makes it wait, the direction has
    /// ended, or `budget` bytes have come, or as many as the ration allows.
    pub fn pump<N>(
        &mut self,
        source: &mut Conn<N::Stream>,
        target: &mut Conn<N::Stream>,
        means: &mut Means<'_, N>,
        budget: usize,
    ) -> Pumped
    where
        N: Network,
        N::Stream: Stream<Pipe = P>,
    {
        if self.ended {
            return Pumped::Waiting;
        }
        // What the session left unread comes first.
        target.tx.append(&mut source.rx, means.pool);
        let (mut left, spent) = match means.ration {
            Some(ration) if ration <= budget => (ration, Pumped::Paced),
            _ => (budget, Pumped::Budget),
        };
        let pumped = loop {
            if let Err(error) = self.write(target, means) {
                break Pumped::TargetBroke(error.kind());
            }
            if source.ended {
                break self.pass_end_on(target, means);
            }
            if !source.can_read {
                break Pumped::Waiting;
            }
            if left == 0 {
                break spent;
            }
            match self.read(source, target, means, left) {
                Step::Took(count) => {
                    left = left.saturating_sub(count.max(1));
                    means.taken += count;
                }
                Step::Stop(pumped) => break pumped,
            }
        };
        // Used up, the budget means that the next turn goes on right here: what is held back leaves
        // with what follows.
        if pumped != Pumped::Budget {
            let took = means.taken;
            self.settle(target, means, took);
        }
        pumped
    }

    /// True while bytes lie in its pipe.
    pub fn holds_bytes(&self) -> bool {
        self.loan.as_ref().is_some_and(|loan| loan.pending > 0)
    }

    /// Gives back what the direction holds; for a pair that has ended.
    pub fn release(&mut self, pipes: &mut Pipes<P>) {
        if let Some(loan) = self.loan.take() {
            pipes.give_back(*loan);
        }
    }

    /// Writes what the ring holds, then what the pipe holds.
    fn write<N>(&mut self, target: &mut Conn<N::Stream>, means: &mut Means<'_, N>) -> io::Result<()>
    where
        N: Network,
        N::Stream: Stream<Pipe = P>,
    {
        self.moved += target.flush(means.pool)? as u64;
        self.write_pipe(target)
    }

    /// Takes bytes from the source, by a copy or through a pipe; about as many as are `left` of a
    /// ration, if there is one.
    fn read<N>(
        &mut self,
        source: &mut Conn<N::Stream>,
        target: &mut Conn<N::Stream>,
        means: &mut Means<'_, N>,
        left: usize,
    ) -> Step
    where
        N: Network,
        N::Stream: Stream<Pipe = P>,
    {
        let blocks = match self.mode {
            Mode::Copy { blocks } => blocks,
            Mode::Bulk { .. } => BULK_BLOCKS,
        };
        // Without a ration, more than the budget may come at once: that costs the others nothing.
        let (most, blocks) = match means.ration {
            Some(_) => (left, blocks.min((left / BLOCK).clamp(1, 255) as u8)),
            None => (usize::MAX, blocks),
        };
        let splices = matches!(self.mode, Mode::Bulk { .. }) && target.tx.is_empty();
        if splices && self.borrow_pipe(means) {
            return self.fill_pipe(source, target, most);
        }
        self.copy(source, target, means, blocks)
    }

    /// One read from the source into the target's ring.
    fn copy<N>(
        &mut self,
        source: &mut Conn<N::Stream>,
        target: &mut Conn<N::Stream>,
        means: &mut Means<'_, N>,
        blocks: u8,
    ) -> Step
    where
        N: Network,
        N::Stream: Stream<Pipe = P>,
    {
        // The ring lies before the pipe: it takes nothing while bytes wait behind it.
        if target.tx.len() >= HOLD || self.loan.as_ref().is_some_and(|loan| loan.pending > 0) {
            return Step::Stop(Pumped::Waiting);
        }
        let stream = &mut source.stream;
        let read = target.tx.fill(means.pool, usize::from(blocks), |slices| {
            stream.read(slices)
        });
        match read {
            None => Step::Stop(Pumped::Starved),
            Some(Ok(filled)) => {
                source.note_read(filled.count, filled.room);
                self.judge_copy(filled.count == filled.room, blocks, means);
                Step::Took(filled.count)
            }
            Some(Err(error)) => match source.note_read_error(error) {
                Ok(count) => Step::Took(count),
                Err(error) => Step::Stop(Pumped::SourceBroke(error.kind())),
            },
        }
    }

    /// After a read of that many blocks that came back full or not: how to go on.
    fn judge_copy<N: Network>(&mut self, full: bool, blocks: u8, means: &Means<'_, N>) {
        let Mode::Copy { .. } = self.mode else {
            return;
        };
        let splices = means.way != Way::Copy && !means.pipes.is_off();
        self.mode = match full {
            true if blocks > 1 && splices => Mode::Bulk { small: 0 },
            true => Mode::Copy {
                blocks: (blocks * 2).min(BULK_BLOCKS),
            },
            false => Mode::Copy {
                blocks: (blocks / 2).max(1),
            },
        };
    }

    /// Passes the end of the stream on when nothing is left before it.
    fn pass_end_on<N>(&mut self, target: &mut Conn<N::Stream>, means: &mut Means<'_, N>) -> Pumped
    where
        N: Network,
        N::Stream: Stream<Pipe = P>,
    {
        if self.loan.as_ref().is_some_and(|loan| loan.pending > 0) {
            return Pumped::Waiting;
        }
        if means.last_way && target.tx.is_empty() {
            // Nothing moves back any more either: closing, which comes next, says the same.
            self.ended = true;
            return Pumped::Ended;
        }
        target.shut_wanted = true;
        match target.flush(means.pool) {
            Ok(_) if target.shut => {
                self.ended = true;
                Pumped::Ended
            }
            Ok(_) => Pumped::Waiting,
            Err(error) => Pumped::TargetBroke(error.kind()),
        }
    }
}

/// How many unwritten bytes a direction holds in the ring before it stops reading; one read may
/// come on top.
pub const HOLD: usize = 4 * BLOCK;

/// The largest read when bulk has to be copied: 256 KiB. Larger ones cost more in cache than they
/// save in calls.
const BULK_BLOCKS: u8 = 16;
