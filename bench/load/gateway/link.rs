//! What both kinds of endpoint do with their socket: read frames out of the shared buffer, keep
//! the few bytes that are no whole head, send commands.

use std::io;

use super::wire::{Dialect, MOST_LEFT, Scan, Unit};
use crate::line::Line;
use crate::meter::corrupt;

/// The reading side of one endpoint.
pub struct Inbox {
    scan: Scan,
    /// What the last scan left, at most [`MOST_LEFT`] bytes.
    kept: Vec<u8>,
    filled: usize,
    at: usize,
}

impl Inbox {
    /// Nothing read yet.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            scan: Scan::new(dialect),
            kept: Vec::with_capacity(MOST_LEFT),
            filled: 0,
            at: 0,
        }
    }

    /// Reads once into the buffer, behind what was left; false is "not now". [`Self::next`] must
    /// then be called until it gives nothing.
    pub fn fill(&mut self, line: &mut Line, buffer: &mut [u8]) -> io::Result<bool> {
        let room = buffer.get_mut(self.kept.len()..).unwrap_or_default();
        match line.read(room)? {
            None => Ok(false),
            Some(0) => Err(ended()),
            Some(count) => {
                self.note_filled(count, buffer);
                Ok(true)
            }
        }
    }

    fn note_filled(&mut self, count: usize, buffer: &mut [u8]) {
        let (front, _) = buffer.split_at_mut(self.kept.len());
        front.copy_from_slice(&self.kept);
        self.filled = front.len() + count;
        self.at = 0;
    }

    /// What a socket would do, for tests: these bytes arrive.
    #[cfg(test)]
    pub fn fill_with(&mut self, bytes: &[u8], buffer: &mut [u8]) {
        let begin = self.kept.len();
        buffer[begin..begin + bytes.len()].copy_from_slice(bytes);
        self.note_filled(bytes.len(), buffer);
    }

    /// The next unit of what was filled in, and where the bytes it consumed begin and end.
    pub fn next(&mut self, buffer: &[u8]) -> io::Result<Option<(usize, usize, Unit)>> {
        let rest = buffer.get(self.at..self.filled).unwrap_or_default();
        match self.scan.next(rest).map_err(corrupt)? {
            Some((used, unit)) => {
                let begin = self.at;
                self.at += used;
                Ok(Some((begin, self.at, unit)))
            }
            None => {
                self.kept.clear();
                self.kept.extend_from_slice(rest);
                Ok(None)
            }
        }
    }
}

/// Bytes on their way out that were made, not passed on.
#[derive(Default)]
pub struct Outbox {
    /// What is to be sent.
    pub bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Sends what is there; true when nothing is left.
    pub fn flush(&mut self, line: &mut Line) -> io::Result<bool> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match line.write(rest)? {
                None => return Ok(false),
                Some(count) => self.sent += count,
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(true)
    }
}

fn ended() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the gateway closed a connection",
    )
}
