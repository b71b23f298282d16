//! What the cores share: tickets, who serves whose frames, whose epoch is void, how many visitors,
//! who has proved wrongly.
//!
//! Locks are held for one look-up or one insert, and no two at a time. Bounds: tickets as their table
//! says; one place for each service in mode *mux* or for UDP over it; as many owners as there are ports
//! for both transports; one hall for each core.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};

use super::super::tickets::{Purpose, Tickets};
use super::super::wire::{ClientId, Place, Ticket, Uuid};
use super::Rules;
use super::words::enter;
use super::wrongs::Wrongs;
use crate::reactor::Handle;
use crate::relay::Flows;
use crate::session::Current;

/// What the cores share.
pub(super) struct Lobby {
    rules: Current<Rules>,
    pub(super) tickets: Tickets,
    pub(super) wrongs: Wrongs,
    random: SystemRandom,
    /// The hall of each core, as far as it is there.
    halls: Mutex<Vec<Option<Handle>>>,
    /// Who takes the connections for frames of a service.
    places: Mutex<HashMap<Place, (ClientId, Handle)>>,
    lines: Mutex<Flows<Box<[u8]>, u64>>,
    visitors: AtomicUsize,
    /// Visitors of all services. They leave room for as many data connections and some more.
    most_visitors: usize,
}

impl Lobby {
    pub(super) fn new(rules: Rules, cores: usize, connections: usize) -> Self {
        let per_client = 2 * (rules.max_waiting + rules.max_services * rules.pool);
        Self {
            tickets: Tickets::new(MOST_TICKETS, per_client.min(MOST_TICKETS)),
            wrongs: Wrongs::new(),
            rules: Current::new(rules),
            random: SystemRandom::new(),
            halls: Mutex::new(vec![None; cores]),
            places: Mutex::default(),
            lines: Mutex::new(Flows::new(MOST_OWNERS)),
            visitors: AtomicUsize::new(0),
            most_visitors: (connections.saturating_mul(2) / 5).max(1),
        }
    }

    /// What holds at present.
    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.value()
    }

    /// Has other rules hold, for what comes from now on. Those that are fixed stay.
    pub(super) fn renew(&self, rules: Rules) {
        let lease = self.rules().lease;
        self.rules.set(Rules { lease, ..rules });
    }

    /// Random bytes for secrets; none where the system gives none.
    pub(super) fn random<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).ok().map(|()| bytes)
    }

    /// A new name of something on this core.
    pub(super) fn uuid(&self, core: u8) -> Option<Uuid> {
        Some(Uuid::new(self.random()?, core))
    }

    /// A ticket for a data connection; none where there is no room for one.
    pub(super) fn ticket(&self, purpose: Purpose, now: Instant) -> Option<Ticket> {
        let ticket = Ticket::new(self.random()?);
        let issued = self.tickets.issue(ticket, purpose, now);
        issued.ok().map(|()| ticket)
    }

    /// A core's hall is there.
    pub(super) fn enter_hall(&self, hall: Handle) {
        if let Some(place) = self.halls.lock().get_mut(usize::from(hall.core)) {
            *place = Some(hall);
        }
    }

    /// This core's hall, and those of the others.
    pub(super) fn halls(&self, core: u8) -> (Option<Handle>, Vec<Handle>) {
        let halls: Vec<_> = self.halls.lock().iter().flatten().copied().collect();
        let own = halls.iter().find(|hall| hall.core == core).copied();
        let others = halls.into_iter().filter(|hall| hall.core != core);
        (own, others.collect())
    }

    /// Who serves the frames of a service from now on.
    pub(super) fn enter_place(&self, place: Place, client: ClientId, to: Handle) {
        self.places.lock().insert(place, (client, to));
    }

    pub(super) fn leave_place(&self, place: &Place) {
        self.places.lock().remove(place);
    }

    /// Who serves the frames of a client's service.
    pub(super) fn place(&self, place: &Place, client: &ClientId) -> Option<Handle> {
        let places = self.places.lock();
        let (owner, to) = places.get(place)?;
        (owner == client).then_some(*to)
    }

    /// Whether a client that had a service under `epoch` has lost it to a newer one for good.
    ///
    /// What a reconnecting client says is that its own connection was the last of its line; a client
    /// that starts afresh begins a line. So an answer that was lost on the way makes nobody void, and
    /// after a restart of the server, when nothing is known here, the newest line soon prevails.
    pub(super) fn is_void(&self, owner: &[u8], epoch: u64) -> bool {
        let mut lines = self.lines.lock();
        let place = lines.find(&Box::from(owner));
        let begun = place.and_then(|place| lines.get_mut(place));
        epoch != 0 && begun.is_some_and(|(_, begun)| epoch < *begun)
    }

    /// A lease was granted to a client that said it had `former`, or 0, before.
    pub(super) fn note_line(&self, owner: &[u8], former: u64, granted: u64, now: Instant) {
        let begun = if former == 0 { granted } else { former };
        let owner: Box<[u8]> = owner.into();
        let mut lines = self.lines.lock();
        match lines.find(&owner) {
            Some(place) => {
                if let Some((_, known)) = lines.touch(place, now) {
                    *known = begun.max(*known);
                }
            }
            None => {
                lines.insert(owner, begun, now);
            }
        }
    }

    /// Takes a visitor's place among all; false when there is none.
    pub(super) fn enter(&self) -> bool {
        enter(&self.visitors, self.most_visitors)
    }

    pub(super) fn leave(&self) {
        self.visitors.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tickets of all clients.
const MOST_TICKETS: usize = 1 << 20;

/// Ports for streams and for datagrams.
const MOST_OWNERS: usize = 2 << 16;
