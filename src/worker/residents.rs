//! The worker's side of residents: sessions that are there from the start, and again soon after they
//! have ended.

use std::time::Duration;

use super::slot::Slot;
use super::{DRAINING, Pending, Timer, Worker};
use crate::net::Network;
use crate::reactor::SessionKey;
use crate::session::Session;

/// One of them.
pub(super) struct Residence {
    service: usize,
    number: usize,
    /// Which of the worker's names is its own.
    name: u16,
    session: Option<SessionKey>,
}

impl<N: Network> Worker<N> {
    /// Begins the residents of all services.
    pub fn reside(&mut self) {
        for service in 0..self.setup.seats.len() {
            let mut number = 0;
            while let Some(resident) = self.setup.seats[service].resident(number) {
                let role = self.setup.roles.get(service).copied().unwrap_or("");
                let name = self.christen(resident.name, role);
                self.residents.push(Residence {
                    service,
                    number,
                    name,
                    session: None,
                });
                let at = self.residents.len() - 1;
                self.move_in(at, resident.session);
                number += 1;
            }
        }
    }

    /// A resident has ended some time ago.
    pub(super) fn reside_again(&mut self, at: usize) {
        let Some(Residence {
            service, number, ..
        }) = self.residents.get(at)
        else {
            return;
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
