//! A node's main connection: it asks for its address, then takes what was sent there.
//!
//! ```text
//!   Ask ──ProxyResponse──> Take    frames of several ways, whole, one after the other
//! ```

use std::io;

use super::ask::Ask;
use super::run::Run;
use super::way::closed;
use super::wire::{self, LEAD};
use crate::client::Verdict;
use crate::line::Line;
use crate::meter::corrupt;

/// The home of one public address.
pub struct Home {
    index: usize,
    stage: Stage,
}

enum Stage {
    Ask(Ask),
    Take(Scan),
}

impl Home {
    /// One that has just begun to connect.
    pub fn new(index: usize, request: Vec<u8>) -> Self {
        Self {
            index,
            stage: Stage::Ask(Ask::new(request)),
        }
    }

    /// Does what can be done now, within the turn's budget.
    pub fn advance(&mut self, line: &mut Line, run: &mut Run<'_>) -> io::Result<Verdict> {
        if let Stage::Ask(ask) = &mut self.stage {
            let Some(public) = ask.advance(line)? else {
                return Ok(Verdict::Wait);
            };
            run.settle(self.index, public)?;
            self.stage = Stage::Take(Scan::default());
        }
        let Stage::Take(scan) = &mut self.stage else {
            return Ok(Verdict::Wait);
        };
        let mut buffer = std::mem::take(&mut run.buffer);
        let outcome = scan.advance(self.index, line, &mut buffer, run);
        run.buffer = buffer;
        outcome
    }
}

/// Takes a stream of letters apart. Of a letter it keeps nothing but a beginning that does not tell
/// yet which one it is.
#[derive(Default)]
struct Scan {
    /// Less than [`LEAD`] bytes.
    kept: Vec<u8>,
    way: usize,
    at: usize,
    left: usize,
}

impl Scan {
    fn advance(
        &mut self,
        home: usize,
        line: &mut Line,
        buffer: &mut [u8],
        run: &mut Run<'_>,
    ) -> io::Result<Verdict> {
        for _ in 0..BUDGET {
            let (front, room) = buffer.split_at_mut(self.kept.len());
            let count = match line.read(room)? {
                None => return Ok(Verdict::Wait),
                Some(0) => return Err(closed("a node's connection")),
                Some(count) => count,
            };
            front.copy_from_slice(&self.kept);
            let filled = front.len() + count;
            self.take(home, buffer.get(..filled).unwrap_or_default(), run)?;
        }
        Ok(Verdict::Again)
    }

    /// `bytes` are those that were kept and what came behind them.
    fn take(&mut self, home: usize, mut bytes: &[u8], run: &mut Run<'_>) -> io::Result<()> {
        loop {
            if self.left == 0 {
                let Some(lead) = bytes.first_chunk::<LEAD>() else {
                    break;
                };
                let (size, mark) = wire::mark(lead).map_err(corrupt)?;
                if size != run.plan.size {
                    return Err(corrupt("a frame has another length than was sent"));
                }
                self.way = run.expect(home, mark)?;
                (self.at, self.left) = (0, run.plan.frame());
            }
            let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.pass(part, run)?;
            bytes = rest;
            if bytes.is_empty() {
                break;
            }
        }
        self.kept.clear();
        self.kept.extend_from_slice(bytes);
        Ok(())
    }

    fn pass(&mut self, part: &[u8], run: &mut Run<'_>) -> io::Result<()> {
        if run.plan.verify
            && let Some(way) = run.ways.get(self.way)
            && !way.holds(self.at, part)
        {
            return Err(corrupt("a frame is not the one that was sent"));
        }
        self.at += part.len();
        self.left -= part.len();
        match self.left {
            0 => run.arrive(self.way),
            _ => Ok(()),
        }
    }
}

/// Reads that one home may do before others have their turn.
const BUDGET: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::super::wire::{Mark, ORIGIN, letter};
    use super::*;

    const LINE: &str = "stream -s 64 --peers 3 --nodes 2 --ahead 444 --verify";

    /// A run whose three ways have so many frames under way each; ways 0 and 2 lead to home 0.
    fn run(plan: &crate::node::Plan, frames: usize) -> Run<'_> {
        let mut run = Run::new(plan, 1);
        for home in 0..2 {
            let public = format!("127.0.0.1:{}", 9 + home).parse().unwrap();
            run.settle(home, public).unwrap();
        }
        for _ in 0..3 {
            run.open_way().unwrap();
        }
        for way in &mut run.ways {
            way.permit(frames - 1);
        }
        run
    }

    fn frame(way: u32, number: u32, run: &Run<'_>) -> Vec<u8> {
        letter(Mark { way, number }, ORIGIN, 64, &run.pattern).unwrap()
    }

    /// What a main connection would do with the stream, read in such pieces.
    fn taken(stream: &[u8], piece: usize, run: &mut Run<'_>) -> io::Result<u64> {
        let mut scan = Scan::default();
        for bytes in stream.chunks(piece) {
            let bytes = [&scan.kept[..], bytes].concat();
            scan.take(0, &bytes, run)?;
            assert!(scan.kept.len() < LEAD);
        }
        Ok(run.tally.frames)
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_frames() {
        let plan = plan(LINE).unwrap();
        for piece in 1..300 {
            let mut run = run(&plan, 2);
            let frames = [(0, 0), (2, 0), (2, 1), (0, 1)].map(|(way, n)| frame(way, n, &run));
            let count = taken(&frames.concat(), piece, &mut run).unwrap();
            assert_eq!((count, run.proven), (4, 2), "pieces of {piece}");
        }
    }

    #[test]
    fn a_damaged_a_doubled_a_lost_and_a_strange_frame_are_told() {
        let plan = plan(LINE).unwrap();
        let fresh = || run(&plan, 2);
        let wrong = |frames: &[(u32, u32)], spoil: fn(&mut Vec<u8>)| {
            let mut run = fresh();
            let frames = frames.iter().map(|&(way, number)| frame(way, number, &run));
            let mut stream: Vec<u8> = frames.flatten().collect();
            spoil(&mut stream);
            taken(&stream, 999, &mut run).is_err()
        };
        assert!(!wrong(&[(0, 0), (0, 1)], |_| {}));
        assert!(wrong(&[(0, 0)], |s| s[40] ^= 1), "damaged");
        assert!(wrong(&[(0, 0), (0, 0)], |_| {}), "doubled");
        assert!(wrong(&[(0, 1)], |_| {}), "lost");
        assert!(wrong(&[(0, 0), (0, 1), (0, 0)], |_| {}), "sent twice");
        assert!(wrong(&[(1, 0)], |_| {}), "another node's");
        assert!(wrong(&[(3, 0)], |_| {}), "of no way");
        assert!(wrong(&[(0, 0)], |s| s[9] += 1), "longer");
    }

    #[test]
    fn a_frame_at_home_is_a_permit_for_the_next() {
        let plan = plan(LINE).unwrap();
        let mut run = run(&plan, 1);
        let frames = [0, 2].map(|way| frame(way, 0, &run)).concat();
        run.woken.clear();
        taken(&frames, 999, &mut run).unwrap();
        assert!(run.woken.is_empty(), "nobody sends before all ways work");
        assert_eq!(run.proven, 2);
    }
}
