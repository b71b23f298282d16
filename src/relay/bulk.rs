//! The part of a direction that moves bytes through a kernel pipe.

use std::io;

use super::{Direction, Means, Mode, Pumped, Step};
use crate::config::Way;
use crate::net::{Conn, Network, Stream};

impl<P> Direction<P> {
    /// Has a pipe to fill; false when there is none to be had.
    pub(super) fn borrow_pipe<N>(&mut self, means: &mut Means<'_, N>) -> bool
    where
        N: Network,
        N::Stream: Stream<Pipe = P>,
    {
        if self.loan.is_none() {
            let network = &mut *means.network;
            let loan = means.pipes.take(|capacity| network.pipe(capacity));
            self.loan = loan.map(Box::new);
        }
        self.loan.is_some()
    }

    /// Splices what the source has into the pipe, at most so many bytes.
    pub(super) fn fill_pipe<S>(
        &mut self,
        source: &mut Conn<S>,
        target: &mut Conn<S>,
        most: usize,
    ) -> Step
    where
        S: Stream<Pipe = P>,
    {
        let Some(loan) = &mut self.loan else {
            return Step::Stop(Pumped::Waiting);
        };
        if loan.pending > 0 && !target.can_write {
            return Step::Stop(Pumped::Waiting);
        }
        match source.stream.splice_in(&mut loan.pipe, most.min(FILL)) {
            Ok(0) => {
                source.note_read(0, FILL);
                Step::Took(0)
            }
            Ok(count) => {
                loan.pending += count;
                Step::Took(count)
            }
            // With bytes in the pipe this may say that the pipe is full: then they leave first,
            // and the next try tells. With none it says that the source is dry.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && loan.pending > 0 => {
                Step::Took(0)
            }
            Err(error) => match source.note_read_error(error) {
                Ok(count) => Step::Took(count),
                Err(error) => Step::Stop(Pumped::SourceBroke(error.kind())),
            },
        }
    }

    /// Splices what the pipe holds to the target, once the ring before it is empty.
    pub(super) fn write_pipe<S>(&mut self, target: &mut Conn<S>) -> io::Result<()>
    where
        S: Stream<Pipe = P>,
    {
        let Some(loan) = &mut self.loan else {
            return Ok(());
        };
        while loan.pending > 0 && target.can_write && target.tx.is_empty() {
            match target.stream.splice_out(&mut loan.pipe, loan.pending, true) {
                Ok(count) => {
                    loan.pending -= count;
                    self.moved += count as u64;
                    self.held_back = true;
                    // A short splice has met a full socket; the next one would only say so.
                    target.can_write = loan.pending == 0;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => target.can_write = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends a visit that brought `took` bytes: nothing stays held back, an empty pipe goes back,
    /// and a direction that brings little is interactive again.
    pub(super) fn settle<N>(
        &mut self,
        target: &mut Conn<N::Stream>,
        means: &mut Means<'_, N>,
        took: usize,
    ) where
        N: Network,
        N::Stream: Stream<Pipe = P>,
    {
        if self.loan.as_ref().is_some_and(|loan| loan.pending > 0) {
            return; // The target's writability continues it.
        }
        if self.held_back {
            self.held_back = false;
            target.stream.push();
        }
        self.release(means.pipes);
        if let (Mode::Bulk { small }, Way::Auto) = (self.mode, means.way) {
            self.mode = match took {
                0 => self.mode,
                took if took >= LITTLE => Mode::Bulk { small: 0 },
                _ if small + 1 >= PATIENCE => Mode::Copy { blocks: 1 },
                _ => Mode::Bulk { small: small + 1 },
            };
        }
    }
}

/// The most that one splice asks for: the largest pipe there is.
const FILL: usize = 1 << 20;

/// A visit that brought less than this would have been cheaper as a copy.
const LITTLE: usize = 32 * 1024;

/// So many such visits in a row make a direction interactive.
const PATIENCE: u8 = 4;
