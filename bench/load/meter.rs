//! What one run counts, and what clients and backends share while they do: the pattern, the one
//! read buffer, the plan.

use std::io;
use std::time::Instant;

use towpath::protocols::chain::nonces::Nonces;

use crate::args::{Mode, Operation, Plan};
use crate::histogram::Histogram;
use crate::pattern::{BLOCK, Pattern};

/// Counts of the measured window.
pub struct Meter {
    /// Bulk bytes that clients wrote.
    pub sent: u64,
    /// Bulk bytes that arrived, at backends and clients together.
    pub received: u64,
    /// Round trips, connections or store operations that were completed.
    pub operations: u64,
    /// Connections that ended otherwise than they should.
    pub errors: u64,
    /// How long the operations took.
    pub latency: Histogram,
}

impl Meter {
    fn new() -> Self {
        Self {
            sent: 0,
            received: 0,
            operations: 0,
            errors: 0,
            latency: Histogram::new(),
        }
    }

    /// One operation that began at `since` is complete; returns the present time.
    pub fn complete(&mut self, since: Instant) -> Instant {
        let now = Instant::now();
        self.operations += 1;
        self.latency.record(now - since);
        now
    }
}

/// What all connections of a run work with.
pub struct Bench<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// What is sent.
    pub pattern: Pattern,
    /// Where everything is read to; nothing stays in it between two calls.
    pub buffer: Vec<u8>,
    /// What store updates write.
    pub value: Vec<u8>,
    /// For the headers of chains.
    pub nonces: Nonces,
    /// The counts since the window began, or before it since the start.
    pub meter: Meter,
    begun: u64,
    stored: usize,
    arrived: Vec<bool>,
    arrivals: usize,
}

impl<'a> Bench<'a> {
    /// For a run that has not begun.
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            pattern: Pattern::new(),
            buffer: vec![0; BLOCK],
            value: (0..plan.size.min(BLOCK * 2)).map(|at| at as u8).collect(),
            nonces: Nonces::new(),
            meter: Meter::new(),
            begun: 0,
            stored: 0,
            arrived: vec![false; plan.conns],
            arrivals: 0,
        }
    }

    /// The client of this lane has shown that its way works.
    pub fn arrive(&mut self, lane: usize) {
        if let Some(arrived) = self.arrived.get_mut(lane)
            && !*arrived
        {
            *arrived = true;
            self.arrivals += 1;
        }
    }

    /// How many lanes work.
    pub fn arrivals(&self) -> usize {
        self.arrivals
    }

    /// True when every lane works and every key to be queried is stored.
    pub fn is_ready(&self) -> bool {
        self.arrivals >= self.plan.conns && (!self.needs_keys() || self.is_seeded())
    }

    /// Forgets what was counted so far: the window begins.
    pub fn begin_window(&mut self) {
        self.meter = Meter::new();
    }

    /// The next store operation: its key's number, and whether it writes. Until every key is
    /// stored all operations write.
    pub fn next_operation(&mut self, operation: Operation) -> (u64, bool) {
        let number = self.begun;
        self.begun += 1;
        let writes = match operation {
            Operation::Update => true,
            Operation::Query => !self.is_seeded(),
            Operation::Mixed => !self.is_seeded() || number.is_multiple_of(QUERIES_PER_UPDATE + 1),
        };
        (number % self.plan.keys as u64, writes)
    }

    /// An update was acknowledged.
    pub fn note_stored(&mut self) {
        self.stored = self.stored.saturating_add(1);
    }

    /// Checks the first `count` bytes of the buffer, when the plan asks for it.
    pub fn verify(&self, offset: u64, count: usize) -> io::Result<()> {
        let bytes = self.buffer.get(..count).unwrap_or_default();
        if self.plan.verify && !self.pattern.holds(offset, bytes) {
            return Err(corrupt(&format!(
                "the {count} bytes from offset {offset} are not those that were sent"
            )));
        }
        Ok(())
    }

    /// Updates still under way when the count is reached are at most one for each client.
    fn is_seeded(&self) -> bool {
        self.stored >= self.plan.keys + self.plan.conns
    }

    fn needs_keys(&self) -> bool {
        matches!(
            self.plan.mode,
            Mode::Store(Operation::Query | Operation::Mixed)
        )
    }
}

/// Wrong bytes: the one failure that ends a run at once.
pub fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const QUERIES_PER_UPDATE: u64 = 9;
