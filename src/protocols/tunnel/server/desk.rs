//! What the sessions of one core share: who has proved nothing yet, and how many wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lobby::Lobby;
use crate::reactor::Handle;

/// One core's part.
pub(super) struct Desk {
    pub(super) lobby: Arc<Lobby>,
    pub(super) core: u8,
    /// Control connections.
    pub(super) clients: usize,
    /// Visitors that wait for a data connection.
    pub(super) waiting: usize,
    /// Connections that have proved nothing, the oldest first. Bound: `max_unproved`.
    unproved: BTreeMap<u64, Handle>,
    arrivals: u64,
}

impl Desk {
    pub(super) fn new(lobby: Arc<Lobby>, core: u8) -> Self {
        Self {
            lobby,
            core,
            clients: 0,
            waiting: 0,
            unproved: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// A connection comes: its place in the order, and who must go for it. The oldest goes, not the
    /// newest, so that silent ones keep nobody out.
    pub(super) fn arrive(&mut self, handle: Handle) -> (u64, Option<Handle>) {
        let full = self.unproved.len() >= self.lobby.rules().max_unproved;
        let oldest = match full {
            true => self.unproved.pop_first().map(|(_, handle)| handle),
            false => None,
        };
        self.arrivals += 1;
        self.unproved.insert(self.arrivals, handle);
        (self.arrivals, oldest)
    }

    /// It has proved itself, or gone.
    pub(super) fn settle(&mut self, place: u64) {
        self.unproved.remove(&place);
    }

    /// Sweeps for contradictions; for tests.
    pub(super) fn check(&self) {
        let rules = self.lobby.rules();
        assert!(self.unproved.len() <= rules.max_unproved);
        assert!(self.clients <= rules.max_clients);
        assert!(self.waiting <= rules.max_waiting);
    }
}
