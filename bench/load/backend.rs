//! The relay's backend: each connection's first eight bytes say what it shall do, so that one
//! listener serves every mode, also several at once.
//!
//! ```text
//!   Greeting ──'s'──> Sink                 discards until the end
//!            ──'b'──> Both                 discards and sends without end
//!            ──'e'──> Echo                 gives every byte back
//!            ──'r'──> Request ──> Respond  reads the request, sends `size` bytes, closes
//!            ──'w'──> the same, but waits for the client's end before it closes
//! ```

use std::io;

use crate::client::Verdict;
use crate::line::Line;
use crate::meter::{Bench, corrupt};
use crate::pattern::BLOCK;

/// What a greeting asks a backend to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Discard.
    Sink,
    /// Discard and send.
    Both,
    /// Give back.
    Echo,
    /// Answer a request of [`REQUEST`] bytes with so many bytes, then close.
    Respond(u32),
    /// The same, and close after the client.
    Wait(u32),
}

impl Service {
    /// The eight bytes that ask for it.
    pub fn greeting(self) -> [u8; GREETING] {
        let (letter, size) = match self {
            Self::Sink => (b's', 0),
            Self::Both => (b'b', 0),
            Self::Echo => (b'e', 0),
            Self::Respond(size) => (b'r', size),
            Self::Wait(size) => (b'w', size),
        };
        let [a, b, c, d] = size.to_le_bytes();
        [letter, 0, 0, 0, a, b, c, d]
    }

    fn from_greeting(greeting: [u8; GREETING]) -> Option<Self> {
        let [letter, 0, 0, 0, a, b, c, d] = greeting else {
            return None;
        };
        match letter {
            b's' => Some(Self::Sink),
            b'b' => Some(Self::Both),
            b'e' => Some(Self::Echo),
            b'r' => Some(Self::Respond(u32::from_le_bytes([a, b, c, d]))),
            b'w' => Some(Self::Wait(u32::from_le_bytes([a, b, c, d]))),
            _ => None,
        }
    }
}

/// One accepted connection.
pub struct Guest {
    stage: Stage,
    sent: u64,
    received: u64,
}

enum Stage {
    Greeting { bytes: [u8; GREETING], have: usize },
    Sink,
    Both,
    Echo { pending: Vec<u8> },
    Request { left: usize, size: u32, waits: bool },
    Respond { size: u32, waits: bool },
}

impl Guest {
    /// One that has said nothing yet.
    pub fn new() -> Self {
        let bytes = [0; GREETING];
        Self {
            stage: Stage::Greeting { bytes, have: 0 },
            sent: 0,
            received: 0,
        }
    }

    /// Does what can be done now, within the turn's budget.
    pub fn advance(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        for _ in 0..BUDGET {
            let verdict = match &mut self.stage {
                Stage::Greeting { .. } => self.greeting(line)?,
                Stage::Sink => self.sink(line, bench)?,
                Stage::Both => self.both(line, bench)?,
                Stage::Echo { pending } => echo(pending, line, bench)?,
                Stage::Request { .. } => self.request(line, bench)?,
                Stage::Respond { size, waits } => {
                    let (size, waits) = (u64::from(*size), *waits);
                    self.respond(size, waits, line, bench)?
                }
            };
            if verdict != Verdict::Again {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Again)
    }

    fn greeting(&mut self, line: &mut Line) -> io::Result<Verdict> {
        let Stage::Greeting { bytes, have } = &mut self.stage else {
            return Ok(Verdict::Again);
        };
        let room = bytes.get_mut(*have..).unwrap_or_default();
        match line.read(room)? {
            None => return Ok(Verdict::Wait),
            Some(0) => return Ok(Verdict::Done),
            Some(count) => *have += count,
        }
        if *have < GREETING {
            return Ok(Verdict::Again);
        }
        let service = Service::from_greeting(*bytes)
            .ok_or_else(|| corrupt("the relay delivered a greeting that no client sends"))?;
        self.stage = match service {
            Service::Sink => Stage::Sink,
            Service::Both => Stage::Both,
            Service::Echo => Stage::Echo {
                pending: Vec::new(),
            },
            Service::Respond(size) | Service::Wait(size) => Stage::Request {
                left: REQUEST - GREETING,
                size,
                waits: matches!(service, Service::Wait(_)),
            },
        };
        Ok(Verdict::Again)
    }

    fn sink(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        match line.read(&mut bench.buffer)? {
            None => Ok(Verdict::Wait),
            Some(0) => Ok(Verdict::Done),
            Some(count) => {
                bench.verify(self.received, count)?;
                self.received += count as u64;
                bench.meter.received += count as u64;
                Ok(Verdict::Again)
            }
        }
    }

    fn both(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        let sunk = self.sink(line, bench)?;
        if sunk == Verdict::Done {
            return Ok(Verdict::Done);
        }
        match line.write(bench.pattern.at(self.sent, BLOCK))? {
            None => Ok(sunk),
            Some(count) => {
                self.sent += count as u64;
                Ok(Verdict::Again)
            }
        }
    }

    /// The request is read to its end before the answer: a socket closed with bytes unread would
    /// be reset, and the answer lost.
    fn request(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        let Stage::Request { left, size, waits } = &mut self.stage else {
            return Ok(Verdict::Again);
        };
        let room = bench.buffer.get_mut(..*left).unwrap_or_default();
        match line.read(room)? {
            None => return Ok(Verdict::Wait),
            Some(0) => return Ok(Verdict::Done),
            Some(count) => *left -= count,
        }
        if *left == 0 {
            self.stage = Stage::Respond {
                size: *size,
                waits: *waits,
            };
        }
        Ok(Verdict::Again)
    }

    fn respond(
        &mut self,
        size: u64,
        waits: bool,
        line: &mut Line,
        bench: &Bench<'_>,
    ) -> io::Result<Verdict> {
        let left = usize::try_from(size - self.sent).unwrap_or(BLOCK);
        let Some(count) = line.write(bench.pattern.at(self.sent, left))? else {
            return Ok(Verdict::Wait);
        };
        self.sent += count as u64;
        if self.sent < size {
            return Ok(Verdict::Again);
        }
        if waits {
            self.stage = Stage::Sink;
            return Ok(Verdict::Again);
        }
        Ok(Verdict::Done)
    }
}

/// What could not be given back at once is kept, and nothing is read until it has gone.
fn echo(pending: &mut Vec<u8>, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
    if !pending.is_empty() {
        let Some(count) = line.write(pending)? else {
            return Ok(Verdict::Wait);
        };
        pending.drain(..count);
        return Ok(Verdict::Again);
    }
    let count = match line.read(&mut bench.buffer)? {
        None => return Ok(Verdict::Wait),
        Some(0) => return Ok(Verdict::Done),
        Some(count) => count,
    };
    let bytes = bench.buffer.get(..count).unwrap_or_default();
    let written = line.write(bytes)?.unwrap_or(0);
    pending.extend_from_slice(bytes.get(written..).unwrap_or_default());
    Ok(Verdict::Again)
}

/// Steps that one connection may take before others have their turn.
const BUDGET: usize = 8;
/// Bytes of a greeting.
pub const GREETING: usize = 8;
/// Bytes of a request, its greeting included.
pub const REQUEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_back_as_what_it_was() {
        for service in [
            Service::Sink,
            Service::Both,
            Service::Echo,
            Service::Respond(70_000),
            Service::Wait(9),
        ] {
            assert_eq!(Service::from_greeting(service.greeting()), Some(service));
        }
        assert_eq!(Service::from_greeting(*b"GET / HT"), None);
        assert_eq!(Service::from_greeting(*b"s1234567"), None);
    }
}
