//! What the sessions of one core share: who has proved nothing yet, who proves wrongly, how many wait.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lobby::Lobby;
use crate::reactor::Handle;
use crate::relay::Flows;

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
    /// Wrong proofs of the present minute, by address.
    wrong: Flows<IpAddr, Wrong>,
}

struct Wrong {
    since: Instant,
    count: u32,
}

/// What is done about an address that has proved wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It is answered at once.
    Usual,
    /// It is answered a little later.
    Little,
    /// It is not listened to.
    None,
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
            wrong: Flows::new(MOST_WRONG),
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

    /// What an address has earned by its wrong proofs.
    pub(super) fn patience(&mut self, from: IpAddr, now: Instant) -> Patience {
        let place = self.wrong.find(&from);
        let Some((_, wrong)) = place.and_then(|place| self.wrong.get_mut(place)) else {
            return Patience::Usual;
        };
        match wrong.count {
            _ if now.saturating_duration_since(wrong.since) >= MINUTE => Patience::Usual,
            ..FEW => Patience::Usual,
            FEW..MANY => Patience::Little,
            _ => Patience::None,
        }
    }

    /// An address has given a wrong proof.
    pub(super) fn note_wrong(&mut self, from: IpAddr, now: Instant) {
        let fresh = Wrong {
            since: now,
            count: 1,
        };
        match self.wrong.find(&from) {
            None => drop(self.wrong.insert(from, fresh, now)),
            Some(place) => {
                if let Some((_, wrong)) = self.wrong.touch(place, now) {
                    match now.saturating_duration_since(wrong.since) < MINUTE {
                        true => wrong.count = wrong.count.saturating_add(1),
                        false => *wrong = fresh,
                    }
                }
            }
        }
    }

    /// Sweeps for contradictions; for tests.
    pub(super) fn check(&self) {
        let rules = self.lobby.rules();
        assert!(self.unproved.len() <= rules.max_unproved);
        assert!(self.clients <= rules.max_clients);
        assert!(self.waiting <= rules.max_waiting);
    }
}

/// Addresses that are remembered for wrong proofs; the one that was so longest ago leaves.
const MOST_WRONG: usize = 4096;

/// Wrong proofs of one address within a minute from which on it is answered late.
const FEW: u32 = 10;

/// And from which on it is not listened to until the minute is over.
const MANY: u32 = 1000;

const MINUTE: Duration = Duration::from_secs(60);
