//! The worker's side of residents: sessions that are there from the start, and again soon after they
//! have ended.

use std::time::Duration;

use super::slot::Slot;
use super::{DRAINING, Pending, Timer, Worker};
use crate::net::Network;
use crate::reactor::SessionKey;
use crate::session::{Resident, Session};

/// One of them.
pub(super) struct Residence {
    service: usize,
    /// Which of the service's; none when it has moved out, and its place may be another's.
    pub(super) number: Option<usize>,
    /// Which of the worker's names is its own.
    pub(super) name: u16,
    pub(super) tenure: u64,
    pub(super) session: Option<SessionKey>,
}

impl Residence {
    /// True for a resident that this service has.
    pub(super) fn is_of(&self, service: usize) -> bool {
        self.service == service && self.number.is_some()
    }
}

impl<N: Network> Worker<N> {
    /// Begins the residents of all services.
    pub fn reside(&mut self) {
        for service in 0..self.setup.seats.len() {
            let mut number = 0;
            while let Some(resident) = self.setup.seats[service].resident(number) {
                self.take_in(service, number, resident);
                number += 1;
            }
        }
    }

    /// Begins a resident, in a place that is free or a new one; which.
    pub(super) fn take_in(&mut self, service: usize, number: usize, resident: Resident) -> usize {
        let role = self.setup.roles.get(service).copied().unwrap_or("");
        let residence = Residence {
            service,
            number: Some(number),
            name: self.christen(resident.name, role, (service, None)),
            tenure: resident.tenure,
            session: None,
        };
        let is_free = |one: &Residence| one.number.is_none() && one.session.is_none();
        let at = match self.residents.iter().position(is_free) {
            Some(at) => {
                self.residents[at] = residence;
                at
            }
            None => {
                self.residents.push(residence);
                self.residents.len() - 1
            }
        };
        self.move_in(at, resident.session);
        at
    }

    /// Has a resident leave for good.
    pub(super) fn move_out(&mut self, at: usize) {
        let one = &mut self.residents[at];
        one.number = None;
        self.names[usize::from(one.name)].is_gone = true;
        if let Some(session) = one.session {
            self.bid_farewell(session);
            let within = self.setup.drain_timeout;
            self.wheel.arm(self.now, within, Timer::Oust(session));
        }
    }

    /// A resident has ended some time ago.
    pub(super) fn reside_again(&mut self, at: usize) {
        let Some(Residence {
            service,
            number: Some(number),
            session: None,
            ..
        }) = self.residents.get(at)
        else {
            return; // It has moved out, and another may live there.
        };
        let seat = self.setup.seats.get_mut(*service);
        if self.phase < DRAINING
            && let Some(resident) = seat.and_then(|seat| seat.resident(*number))
        {
            self.move_in(at, resident.session);
        }
    }

    fn move_in(&mut self, at: usize, session: Box<dyn Session>) {
        let Some(residence) = self.residents.get(at) else {
            return;
        };
        let name = residence.name;
        let role = self.role_of(name);
        let mut slot = Slot::new(session, name, role, self.now);
        slot.resides = true;
        let session = self.sessions.insert(slot).ok();
        if let Some(session) = session {
            self.count_begun(role);
            self.pending.push_back(Pending::Opened(session));
        }
        if let Some(residence) = self.residents.get_mut(at) {
            residence.session = session;
        }
    }

    /// A resident has ended.
    pub(super) fn miss_resident(&mut self, session: SessionKey) {
        let ended = |one: &Residence| one.session == Some(session);
        let Some(at) = self.residents.iter().position(ended) else {
            return;
        };
        self.residents[at].session = None;
        if self.phase < DRAINING {
            self.wheel.arm(self.now, AGAIN, Timer::Reside(at));
        }
    }

    /// How many there are now. Nobody waits for them when the server stops.
    pub(super) fn residing(&self) -> usize {
        let there = self.residents.iter().filter(|one| one.session.is_some());
        there.count()
    }
}

/// How soon a resident that has ended is asked for again.
const AGAIN: Duration = Duration::from_millis(10);
