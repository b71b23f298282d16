//! What the sessions of one core share: the rules, the memory for long frames, and the order in
//! which unregistered connections came.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Rules;
use super::registry::Registry;
use crate::net::ConnKey;
use crate::reactor::Handle;
use crate::session::Cx;

/// One core's part of the role.
pub(super) struct Desk {
    pub(super) rules: Arc<Rules>,
    pub(super) registry: Arc<Registry>,
    pub(super) memory: FrameMemory,
    /// Where a frame is put side by side to be read; empty between calls.
    pub(super) scratch: Vec<u8>,
    /// The oldest first. Bound: `max_unregistered`.
    unregistered: BTreeMap<u64, Handle>,
    arrivals: u64,
}

impl Desk {
    pub(super) fn new(rules: Arc<Rules>, registry: Arc<Registry>) -> Self {
        Self {
            memory: FrameMemory::new(rules.max_frame_memory),
            rules,
            registry,
            scratch: Vec::new(),
            unregistered: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// A connection comes: its place in the order, and who must go for it.
    ///
    /// The oldest goes, not the newest: silent ones are of no use to anybody, and whoever opens many
    /// of them keeps no node from registering.
    pub(super) fn arrive(&mut self, handle: Handle) -> (u64, Option<Handle>) {
        let full = self.unregistered.len() >= self.rules.max_unregistered;
        let oldest = match full {
            true => self.unregistered.pop_first().map(|(_, handle)| handle),
            false => None,
        };
        self.arrivals += 1;
        self.unregistered.insert(self.arrivals, handle);
        (self.arrivals, oldest)
    }

    /// It has registered, or gone.
    pub(super) fn settle(&mut self, place: u64) {
        self.unregistered.remove(&place);
    }

    /// Sweeps for contradictions; for tests.
    pub(super) fn check(&self) {
        assert!(self.unregistered.len() <= self.rules.max_unregistered);
        assert!(self.memory.left <= self.rules.max_frame_memory);
    }
}

/// Memory for frames that do not fit into a ring: each takes its whole length before its first byte,
/// so that none waits half read for the end of another.
pub(super) struct FrameMemory {
    left: usize,
    /// Who waits for how much, in the order in which they asked. Bound: one for each connection.
    waiting: VecDeque<(ConnKey, usize)>,
}

impl FrameMemory {
    fn new(bytes: usize) -> Self {
        Self {
            left: bytes,
            waiting: VecDeque::new(),
        }
    }

    /// Takes memory for a frame of a node that holds `held` of it already; else the connection stands
    /// in line, and is resumed when it may ask again.
    ///
    /// A node may hold as much as it leaves to others, so that one whose frames pile up takes half of
    /// the memory at most, and there is always some for the next.
    pub(super) fn take(&mut self, conn: ConnKey, bytes: usize, held: usize) -> bool {
        let taken = held + bytes <= self.left;
        match taken {
            true => self.left -= bytes,
            false if self.waiting.iter().any(|(waiting, _)| *waiting == conn) => {}
            false => self.waiting.push_back((conn, bytes)),
        }
        taken
    }

    /// Gives memory back, and has those go on for whom there is enough now.
    pub(super) fn give(&mut self, bytes: usize, cx: &mut Cx<'_>) {
        self.left += bytes;
        self.call(cx);
    }

    /// A connection that may stand in line is gone.
    pub(super) fn forget(&mut self, conn: ConnKey, cx: &mut Cx<'_>) {
        self.waiting.retain(|(waiting, _)| *waiting != conn);
        self.call(cx);
    }

    fn call(&mut self, cx: &mut Cx<'_>) {
        let mut left = self.left;
        while let Some(&(conn, bytes)) = self.waiting.front()
            && bytes <= left
        {
            left -= bytes;
            self.waiting.pop_front();
            cx.resume(conn);
        }
    }
}
