//! A connection to a public address: whole frames go in, nothing comes out.
//!
//! Its frames are made once, as a volley that is sent over and over; one call writes as much of it
//! as may be under way.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Instant;

use super::run::Run;
use super::wire::{self, Mark, ORIGIN};
use crate::line::Line;
use crate::meter::corrupt;
use crate::pattern::BLOCK;

/// The sending end of a way, and what is known of its far end.
pub struct Way {
    /// Whole frames, numbered from 0.
    volley: Vec<u8>,
    frame: usize,
    /// Where in the volley the next byte to be written is.
    at: usize,
    /// Bytes that may be written.
    owed: usize,
    /// Frames that may have been sent and have not come home.
    under_way: usize,
    /// The number of the frame that comes home next.
    next: usize,
    is_proven: bool,
    since: Instant,
}

impl Way {
    /// The way of this index; `own` is the sender's public address, if it has one.
    pub fn new(index: usize, own: Option<SocketAddr>, run: &Run<'_>) -> io::Result<Self> {
        let plan = run.plan;
        let sender = own.map_or(ORIGIN.into(), |own| format!("tcp://{own}"));
        let frames = (VOLLEY / plan.frame()).min(plan.permits()).max(1);
        let mut volley = Vec::with_capacity(frames * plan.frame());
        for number in 0..frames {
            let mark = Mark {
                way: index as u32,
                number: number as u32,
            };
            let letter = wire::letter(mark, &sender, plan.size, &run.pattern);
            let letter = letter.ok_or_else(|| io::Error::other("--size leaves no room"))?;
            volley.extend_from_slice(&letter);
        }
        Ok(Self {
            volley,
            frame: plan.frame(),
            at: 0,
            owed: 0,
            under_way: 0,
            next: 0,
            is_proven: false,
            since: Instant::now(),
        })
    }

    /// So many frames more may be under way; true when there was nothing to write before.
    pub fn permit(&mut self, frames: usize) -> bool {
        let is_woken = self.owed == 0;
        self.owed += frames * self.frame;
        self.under_way += frames;
        is_woken
    }

    /// When the last byte was written.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The frame of this number is the one that must come home next.
    pub fn is_next(&self, number: u32) -> bool {
        self.next == number as usize
    }

    /// Bytes of the frame that is coming home, from its byte `at` on, are those that were sent.
    pub fn holds(&self, at: usize, bytes: &[u8]) -> bool {
        let begin = self.next * self.frame + at;
        self.volley.get(begin..begin + bytes.len()) == Some(bytes)
    }

    /// The frame is home; true when it was the first one ever.
    pub fn take_arrival(&mut self) -> io::Result<bool> {
        match self.under_way.checked_sub(1) {
            Some(rest) => self.under_way = rest,
            None => return Err(corrupt("a frame came twice")),
        }
        self.next = (self.next + 1) % (self.volley.len() / self.frame);
        Ok(!std::mem::replace(&mut self.is_proven, true))
    }

    /// Writes what may be written. Nothing is ever said on such a connection but its end, and that
    /// must not come.
    pub fn advance(&mut self, line: &mut Line) -> io::Result<()> {
        match line.read(&mut [0; 64])? {
            None => {}
            Some(0) => return Err(closed("a peer's connection")),
            Some(_) => return Err(corrupt("something was sent to a peer")),
        }
        while self.owed > 0 {
            let now = Instant::now();
            match line.write_vectored(&self.batch())? {
                None => break,
                Some(count) => self.note_written(count, now),
            }
        }
        Ok(())
    }

    /// The volley from where it stopped, as often as one call may be worth.
    fn batch(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(2 + BLOCK / self.volley.len());
        let mut left = self.owed.min(BLOCK.max(self.frame));
        let mut at = self.at;
        while left > 0 {
            let rest = self.volley.get(at..).unwrap_or_default();
            let piece = rest.get(..left).unwrap_or(rest);
            slices.push(IoSlice::new(piece));
            left -= piece.len();
            at = 0;
        }
        slices
    }

    fn note_written(&mut self, count: usize, now: Instant) {
        self.at = (self.at + count) % self.volley.len();
        self.owed = self.owed.saturating_sub(count);
        self.since = now;
    }
}

/// A connection has ended that should not.
pub fn closed(what: &str) -> io::Error {
    let text = format!("the server closed {what}");
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

/// Bytes of a volley of short frames: it stays in the cache, whatever else goes through it.
const VOLLEY: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;

    #[test]
    fn volleys_written_in_bits_of_any_size_are_one_row_of_whole_frames() {
        let plan = plan("stream -s 64 --ahead 222").unwrap();
        let run = Run::new(&plan, 1);
        for most in [1, 73, 74, 75, 200, 999] {
            let mut way = Way::new(0, None, &run).unwrap();
            assert_eq!(way.volley.len(), 3 * 74);
            assert!(way.permit(7) && !way.permit(1));
            let mut stream = Vec::new();
            while way.owed > 0 {
                let batch = way.batch();
                let bytes: Vec<u8> = batch.iter().flat_map(|s| s.iter().copied()).collect();
                let count = bytes.len().min(most);
                stream.extend_from_slice(&bytes[..count]);
                way.note_written(count, Instant::now());
            }
            assert_eq!(stream.len(), 8 * 74);
            for (index, frame) in stream.chunks(74).enumerate() {
                let (_, mark) = wire::mark(frame.first_chunk().unwrap()).unwrap();
                assert_eq!(mark.number as usize, index % 3, "{most} bytes at once");
            }
        }
    }

    #[test]
    fn a_frame_longer_than_a_volley_is_one() {
        let plan = plan("stream -s 262144").unwrap();
        let way = Way::new(0, None, &Run::new(&plan, 1)).unwrap();
        assert_eq!(way.volley.len(), plan.frame());
    }
}
