//! The server endpoint: proves its key, then gives every message back or counts it.
//!
//! ```text
//!   Challenge ──8 bytes read──> Serve    the proof is sent; the gateway says nothing to it
//! ```
//!
//! What it gives back are the very bytes that were read, cut only where commands lie between them:
//! a message that is echoed is neither parsed beyond its head nor copied.

use std::io::{self, IoSlice};
use std::ops::Range;

use super::link::{Inbox, Outbox};
use super::state::{Run, SERVER_ID};
use super::wire::{self, CHALLENGE, Command, Dialect, Unit};
use crate::client::Verdict;
use crate::line::Line;
use crate::meter::corrupt;

/// The one server of a run.
pub struct Server {
    stage: Stage,
    inbox: Inbox,
    /// The proof, then what could not be given back at once; nothing is read until it has gone.
    outbox: Outbox,
}

enum Stage {
    Challenge(Vec<u8>),
    Serve,
}

impl Server {
    /// One that has just begun to connect.
    pub fn new(run: &Run<'_>) -> Self {
        Self {
            stage: Stage::Challenge(Vec::new()),
            inbox: Inbox::new(run.plan.dialect),
            outbox: Outbox::default(),
        }
    }

    /// Does what can be done now, within the turn's budget.
    pub fn advance(&mut self, line: &mut Line, run: &mut Run<'_>) -> io::Result<Verdict> {
        for _ in 0..BUDGET {
            if !self.outbox.flush(line)? {
                return Ok(Verdict::Wait);
            }
            let verdict = match &mut self.stage {
                Stage::Challenge(have) => match challenge(have, line)? {
                    None => Verdict::Wait,
                    Some(challenge) => {
                        self.stage = Stage::Serve;
                        self.outbox.bytes = wire::answer(challenge, &run.plan.key, SERVER_ID);
                        Verdict::Again
                    }
                },
                Stage::Serve => {
                    let mut buffer = std::mem::take(&mut run.buffer);
                    let outcome = self.serve(&mut buffer, line, run);
                    run.buffer = buffer;
                    outcome?
                }
            };
            if verdict != Verdict::Again {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Again)
    }

    fn serve(
        &mut self,
        buffer: &mut [u8],
        line: &mut Line,
        run: &mut Run<'_>,
    ) -> io::Result<Verdict> {
        if !self.inbox.fill(line, buffer)? {
            return Ok(Verdict::Wait);
        }
        let back = self.sort_out(buffer, run)?;
        self.give_back(buffer, &back, line)?;
        Ok(Verdict::Again)
    }

    /// Takes note of all that was filled in; gives the ranges that go back.
    fn sort_out(&mut self, buffer: &[u8], run: &mut Run<'_>) -> io::Result<Vec<Range<usize>>> {
        let mut back: Vec<Range<usize>> = Vec::new();
        while let Some((begin, end, unit)) = self.inbox.next(buffer)? {
            let bytes = buffer.get(begin..end).unwrap_or_default();
            if !self.take(unit, bytes, run)? {
                continue;
            }
            match back.last_mut() {
                Some(last) if last.end == begin => last.end = end,
                _ => back.push(begin..end),
            }
        }
        Ok(back)
    }

    /// Takes note of a unit; true when it is to be given back.
    fn take(&self, unit: Unit, bytes: &[u8], run: &mut Run<'_>) -> io::Result<bool> {
        match unit {
            Unit::Part { .. } if run.plan.load.is_echoed() => {
                run.note_part_at_server(unit);
                Ok(true)
            }
            Unit::Part { .. } => {
                run.note_part_at_server(unit);
                run.deliver(unit, bytes)?;
                Ok(false)
            }
            // The answer to a Ping is the same Ping, where the gateway is the one who asks.
            Unit::Command(Command::Ping) => Ok(run.plan.dialect == Dialect::Document),
            Unit::Command(Command::Accept(_) | Command::Connect | Command::Close(_)) => Ok(false),
            Unit::Command(command) => Err(corrupt(&format!("the server was told {command:?}"))),
        }
    }

    fn give_back(
        &mut self,
        buffer: &[u8],
        back: &[Range<usize>],
        line: &mut Line,
    ) -> io::Result<()> {
        let bytes = |range: &Range<usize>| buffer.get(range.clone()).unwrap_or_default();
        let slices: Vec<IoSlice<'_>> = back
            .iter()
            .map(|range| IoSlice::new(bytes(range)))
            .collect();
        if slices.is_empty() {
            return Ok(());
        }
        let mut gone = line.write_vectored(&slices)?.unwrap_or(0);
        for slice in &slices {
            let here = gone.min(slice.len());
            gone -= here;
            let rest = slice.get(here..).unwrap_or_default();
            self.outbox.bytes.extend_from_slice(rest);
        }
        Ok(())
    }
}

/// Reads no byte more than the challenge.
fn challenge(have: &mut Vec<u8>, line: &mut Line) -> io::Result<Option<[u8; CHALLENGE]>> {
    let mut room = [0; CHALLENGE];
    while let Some(room) = room.get_mut(have.len()..).filter(|room| !room.is_empty()) {
        match line.read(room)? {
            None => return Ok(None),
            Some(0) => return Err(corrupt("the gateway closed instead of challenging")),
            Some(count) => have.extend_from_slice(room.get(..count).unwrap_or_default()),
        }
    }
    Ok(have.first_chunk().copied())
}

/// Reads that the server may do before others have their turn.
const BUDGET: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;

    #[test]
    fn messages_go_back_and_commands_do_not() {
        let connect = [13, 0, 0, 0, 0, 0, 0, 0, 2, 7, 0, 0, 0, 1, 0, 0, 0];
        let close = [9, 0, 0, 0, 0, 0, 0, 0, 4, 7, 0, 0, 0];
        let message = [&wire::head(7, 5)[..], b"hello"].concat();
        let stream = [&connect[..], &message, &message, &close, &message].concat();
        let plan = plan("stream -s 5").unwrap();
        for piece in 1..=stream.len() {
            let mut run = Run::new(&plan);
            let mut server = Server::new(&run);
            let mut buffer = vec![0; 256];
            let mut back = Vec::new();
            for bytes in stream.chunks(piece) {
                server.inbox.fill_with(bytes, &mut buffer);
                for range in server.sort_out(&buffer, &mut run).unwrap() {
                    back.extend_from_slice(&buffer[range]);
                }
            }
            assert_eq!(back, message.repeat(3), "pieces of {piece}");
            assert_eq!(run.tally.messages, 3);
        }
    }

    #[test]
    fn only_the_document_wants_its_ping_back() {
        for (dialect, ping) in [("fastway", 5), ("document", 6)] {
            let plan = plan(&format!("count --dialect {dialect}")).unwrap();
            let mut run = Run::new(&plan);
            let mut server = Server::new(&run);
            let mut buffer = vec![0; 64];
            server
                .inbox
                .fill_with(&[5, 0, 0, 0, 0, 0, 0, 0, ping], &mut buffer);
            let back = server.sort_out(&buffer, &mut run).unwrap();
            assert_eq!(back.len(), usize::from(dialect == "document"));
        }
    }
}
