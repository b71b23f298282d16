//! What all ends of a run share: the plan, the one read buffer, the ways with what is under way on
//! them, the counts.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::plan::{Load, Plan};
use super::way::Way;
use super::wire::{Identity, Mark};
use crate::histogram::Histogram;
use crate::meter::corrupt;
use crate::pattern::{BLOCK, Pattern};

/// Counts of the measured window.
pub struct Tally {
    /// Frames that have come to a main connection.
    pub frames: u64,
    /// Round trips, or nodes that were given an address.
    pub operations: u64,
    /// Nodes that were given none.
    pub errors: u64,
    /// How long the operations took, where that is the question.
    pub latency: Histogram,
}

impl Tally {
    /// Nothing counted.
    pub fn new() -> Self {
        Self {
            frames: 0,
            operations: 0,
            errors: 0,
            latency: Histogram::new(),
        }
    }

    /// One operation more.
    pub fn complete(&mut self, took: Duration) {
        self.operations += 1;
        self.latency.record(took);
    }
}

/// What the ends of a run work with.
pub struct Run<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// What frames are filled with.
    pub pattern: Pattern,
    /// Where everything is read to; nothing stays in it between two calls.
    pub buffer: Vec<u8>,
    /// The counts since the window began, or before it since the start.
    pub tally: Tally,
    /// The public addresses that homes were given, by their index.
    pub addresses: Vec<Option<SocketAddr>>,
    /// How many homes have theirs.
    pub settled: usize,
    /// The connections to public addresses, by their index.
    pub ways: Vec<Way>,
    /// Ways that have brought a frame home.
    pub proven: usize,
    /// Ways that were given permits and may not know it yet.
    pub woken: Vec<usize>,
    is_talking: bool,
    salt: u64,
    identities: u64,
}

impl<'a> Run<'a> {
    /// For a run that has not begun. `salt` makes its identities its own.
    pub fn new(plan: &'a Plan, salt: u64) -> Self {
        Self {
            plan,
            pattern: Pattern::new(),
            buffer: vec![0; 2 * BLOCK],
            tally: Tally::new(),
            addresses: vec![None; plan.homes()],
            settled: 0,
            ways: Vec::with_capacity(plan.ways()),
            proven: 0,
            woken: Vec::new(),
            is_talking: false,
            salt,
            identities: 0,
        }
    }

    /// The ProxyRequest of a node that the server has not seen before.
    pub fn next_request(&mut self) -> Vec<u8> {
        self.identities += 1;
        Identity::new(self.salt, self.identities).request()
    }

    /// A home was given its public address.
    pub fn settle(&mut self, home: usize, public: SocketAddr) -> io::Result<()> {
        if self.addresses.contains(&Some(public)) {
            return Err(corrupt("an address was given to two nodes"));
        }
        if let Some(address) = self.addresses.get_mut(home) {
            self.settled += usize::from(address.replace(public).is_none());
        }
        Ok(())
    }

    /// The next way, with a first frame to show that it works; gives the address that it goes to.
    pub fn open_way(&mut self) -> io::Result<SocketAddr> {
        let index = self.ways.len();
        let home = |way| {
            self.addresses
                .get(self.plan.home_of(way))
                .copied()
                .flatten()
        };
        let Some(public) = home(index) else {
            return Err(io::Error::other("a node has no address yet"));
        };
        // Who has a public address says so, for that is where the answer goes.
        let own = match self.plan.load {
            Load::PingPong => home(self.plan.way_back(index)),
            Load::Stream | Load::Register | Load::Idle => None,
        };
        let way = Way::new(index, own, self)?;
        self.ways.push(way);
        self.permit(index, 1);
        Ok(public)
    }

    /// All that may be under way from the start is.
    pub fn begin_talking(&mut self) {
        self.is_talking = true;
        if self.plan.load == Load::Idle {
            return;
        }
        for way in 0..self.plan.peers {
            self.permit(way, self.plan.permits());
        }
    }

    /// A letter with this mark begins at a home: it must be the next one of a way that leads there.
    pub fn expect(&self, home: usize, mark: Mark) -> io::Result<usize> {
        let index = mark.way as usize;
        match self.ways.get(index) {
            Some(way) if self.plan.home_of(index) == home => match way.is_next(mark.number) {
                true => Ok(index),
                false => Err(corrupt("a frame was lost, doubled or overtaken")),
            },
            _ => Err(corrupt("a frame came to a node that it was not sent to")),
        }
    }

    /// The letter is whole: what follows from it may be sent.
    pub fn arrive(&mut self, index: usize) -> io::Result<()> {
        let Some(way) = self.ways.get_mut(index) else {
            return Ok(());
        };
        let is_first = way.take_arrival()?;
        self.tally.frames += 1;
        self.proven += usize::from(is_first);
        if !self.is_talking {
            return Ok(());
        }
        match self.plan.load {
            Load::Stream => self.permit(index, 1),
            Load::PingPong => {
                let back = self.plan.way_back(index);
                if let Some(way) = self.ways.get(back).filter(|_| back < index) {
                    self.tally.complete(way.since().elapsed());
                }
                self.permit(back, 1);
            }
            Load::Register | Load::Idle => {}
        }
        Ok(())
    }

    /// A node that asked since then has its address.
    pub fn note_answer(&mut self, since: Instant) {
        self.tally.complete(since.elapsed());
    }

    fn permit(&mut self, index: usize, frames: usize) {
        if let Some(way) = self.ways.get_mut(index)
            && way.permit(frames)
        {
            self.woken.push(index);
        }
    }
}
