//! The worker's side of another configuration: it comes as one order and is taken over in one turn, so
//! that no connection ever sees a half of it.
//!
//! ```text
//!   seats renewed ──> new listeners open ──> removed ones close ──> who stays is told: Renewed
//!                                                                    who came by what is gone drains
//! ```
//!
//! What drains is bid farewell as in a drain of the whole server, and is ended `drain_timeout` later.
//! A listener that stays keeps its socket, and whoever waits in its queue; only its number changes.
//!
//! Bounds: a look at every session of the core, as in a drain; the names of listeners that are gone are
//! used again when no session bears them any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::residents::Residence;
use super::slot::Slot;
use super::{DRAINING, MOST_LISTENERS, Timer, Worker};
use crate::net::{Home, Kernel, ListenerKey, Network, SocketKey};
use crate::reactor::SessionKey;
use crate::session::{Event, Listen, Service};

/// Another configuration, as far as a worker has a part in it.
pub struct Renewal<N: Network = Kernel> {
    /// The services that have a part in it.
    pub services: Vec<Change<N>>,
    /// Who is to leave, by the numbers from before.
    pub leaving: Arc<Leaving>,
    /// How many connections the server may hold.
    pub connections: usize,
    /// For relays that begin from now on.
    pub idle_timeout: Duration,
    /// For drains that begin from now on.
    pub drain_timeout: Duration,
    /// The same.
    pub drain_spread: Duration,
}

/// What changes for one service.
pub struct Change<N: Network> {
    /// Its number; the next one that is free for a service that begins.
    pub service: usize,
    /// A service that begins, and what its sessions are called that come by no listener.
    pub begins: Option<(Arc<dyn Service>, &'static str)>,
    /// What becomes of each of its listeners, by the numbers from before: the new number, or nothing
    /// for one that closes. Empty for a service whose configuration is the same.
    pub listeners: Vec<Option<usize>>,
    /// Listeners that open.
    pub opened: Vec<Opening<N>>,
    /// The service has taken another configuration.
    pub is_renewed: bool,
}

/// A listener that opens.
pub struct Opening<N: Network> {
    /// Which of the service's listeners it is, by the new numbers.
    pub number: usize,
    /// What it is called and where it listens.
    pub listen: Listen,
    /// The core's own socket there.
    pub socket: Opened<N>,
}

/// A bound socket.
pub enum Opened<N: Network> {
    /// For connections.
    Stream(N::Listener),
    /// For datagrams.
    Datagram(N::Socket),
}

/// Who is to leave: those of whom one entry is true.
#[derive(Debug, Default)]
pub struct Leaving {
    /// Whoever came by one of these listeners: service and number.
    pub listeners: Vec<(usize, usize)>,
    /// Whoever goes by one of these routes of a service: its name and field.
    pub routes: Vec<(usize, String, String)>,
}

/// How a renewal went on one core.
#[derive(Debug, Default)]
pub struct Renewed {
    /// How many sessions leave, for each listener and then for each route of [`Leaving`].
    pub leaving: Vec<usize>,
    /// What could not be watched.
    pub failures: Vec<String>,
}

impl<N: Network> Worker<N> {
    /// How many sessions would leave.
    pub(super) fn count_leaving(&self, leaving: &Leaving) -> Vec<usize> {
        let mut counts = vec![0; leaving.listeners.len() + leaving.routes.len()];
        for (_, slot) in self.sessions.iter() {
            if let Some(at) = self.leaves(slot, leaving) {
                counts[at] += usize::from(!slot.seated && !slot.resides);
            }
        }
        counts
    }

    /// Takes a renewal over.
    pub(super) fn renew(&mut self, renewal: Renewal<N>) -> Renewed {
        if self.phase >= DRAINING {
            return Renewed::default();
        }
        let mut renewed = Renewed {
            leaving: self.count_leaving(&renewal.leaving),
            failures: Vec::new(),
        };
        let leave = |(key, slot): (_, &Slot)| self.leaves(slot, &renewal.leaving).map(|_| key);
        let leaving: Vec<SessionKey> = self.sessions.iter().filter_map(leave).collect();
        self.free_names();
        self.sessions.set_cap(renewal.connections + MOST_LISTENERS);
        self.links.set_cap(renewal.connections);
        self.setup.idle_timeout = renewal.idle_timeout;
        self.setup.drain_timeout = renewal.drain_timeout;
        self.setup.drain_spread = renewal.drain_spread;
        let mut closing = Closing::default();
        for change in renewal.services {
            let (service, is_renewed) = (change.service, change.is_renewed);
            self.change(change, &mut closing, &mut renewed.failures);
            if is_renewed {
                self.renew_residents(service);
                self.tell_renewed(service, &closing);
            }
        }
        // Behind those that opened, perhaps at the same address.
        for key in closing.listeners {
            self.drop_listener(key);
        }
        for key in leaving {
            self.bid_farewell(key);
            let within = self.setup.drain_timeout;
            self.wheel.arm(self.now, within, Timer::Oust(key));
        }
        for key in closing.sockets {
            self.retire_socket(key);
        }
        renewed
    }

    /// Which entry is true of a session.
    fn leaves(&self, slot: &Slot, leaving: &Leaving) -> Option<usize> {
        let name = self.names.get(usize::from(slot.listener))?;
        let service = name.service?;
        if let Some(number) = name.number {
            let came = |listener: &(usize, usize)| *listener == (service, number);
            if let Some(at) = leaving.listeners.iter().position(came) {
                return Some(at);
            }
        }
        let is_of_service = |(of, ..): &(usize, String, String)| *of == service;
        if !leaving.routes.iter().any(is_of_service) {
            return None;
        }
        let (name, field) = slot.session.as_ref()?.route()?;
        let goes = |(of, known, at): &(usize, String, String)| {
            (*of, known.as_str(), at.as_str()) == (service, name, field)
        };
        let route = leaving.routes.iter().position(goes)?;
        Some(leaving.listeners.len() + route)
    }

    fn change(&mut self, change: Change<N>, closing: &mut Closing, failures: &mut Vec<String>) {
        let service = change.service;
        if let Some((begun, role)) = change.begins {
            debug_assert_eq!(self.setup.seats.len(), service);
            self.setup.seats.push(begun.seat(self.setup.core));
            self.setup.roles.push(role);
        } else if change.is_renewed
            && let Some(seat) = self.setup.seats.get_mut(service)
        {
            seat.renew();
        }
        self.renumber(service, &change.listeners, closing);
        for opening in change.opened {
            let (listen, number) = (opening.listen, opening.number);
            let told = format!("{listen} on {}", listen.address);
            let opened = match opening.socket {
                Opened::Stream(socket) => self.listen(socket, listen, service, number),
                Opened::Datagram(socket) => self.listen_datagrams(socket, listen, service, number),
            };
            if let Err(error) = opened {
                failures.push(format!("{told}: {error}"));
            }
        }
    }

    /// Gives a service's listeners their new numbers, and notes those that have none any more.
    fn renumber(&mut self, service: usize, numbers: &[Option<usize>], closing: &mut Closing) {
        for key in self.listeners.keys() {
            if let Some(listener) = self.listeners.get_mut(key)
                && listener.owner.is_none()
                && listener.service == service
                && let Some(new) = numbers.get(listener.number)
            {
                match new {
                    Some(number) => listener.number = *number,
                    None => closing.listeners.push(key),
                }
            }
        }
        let homes = self.exchange.sockets.iter();
        let homes = homes.filter_map(|(key, socket)| Some((key, socket.home?)));
        let own = homes.filter(|(_, home)| home.service == service);
        for (key, home) in own.collect::<Vec<_>>() {
            match numbers.get(home.number) {
                Some(Some(number)) => {
                    let number = *number;
                    if let Some(socket) = self.exchange.sockets.get_mut(key) {
                        socket.home = Some(Home { number, ..home });
                    }
                }
                Some(None) => closing.sockets.push(key),
                None => {}
            }
        }
        for name in &mut self.names {
            if name.service == Some(service)
                && let Some(new) = name.number.and_then(|number| numbers.get(number))
            {
                name.number = *new;
                name.is_gone = new.is_none();
            }
        }
    }

    /// Frees the names of listeners that are gone and of whom no session is left.
    fn free_names(&mut self) {
        let used: HashSet<u16> = self
            .sessions
            .iter()
            .map(|(_, slot)| slot.listener)
            .collect();
        for (at, name) in self.names.iter_mut().enumerate() {
            let at = at as u16;
            if name.is_gone && !used.contains(&at) {
                name.is_gone = false;
                name.service = None;
                self.free_names.push(at);
            }
        }
    }

    /// Those that the seat has still stay; the others make room for those that it has now.
    fn renew_residents(&mut self, service: usize) {
        let mut stay = HashSet::new();
        let mut number = 0;
        while let Some(resident) = self.setup.seats[service].resident(number) {
            let is_it = |(at, one): &(usize, &Residence)| {
                !stay.contains(at)
                    && one.is_of(service)
                    && one.tenure == resident.tenure
                    && self.names[usize::from(one.name)].text == resident.name
            };
            let found = self.residents.iter().enumerate().find(is_it);
            match found.map(|(at, _)| at) {
                Some(at) => {
                    self.residents[at].number = Some(number);
                    stay.insert(at);
                }
                None => {
                    stay.insert(self.take_in(service, number, resident));
                }
            }
            number += 1;
        }
        for at in 0..self.residents.len() {
            if self.residents[at].is_of(service) && !stay.contains(&at) {
                self.move_out(at);
            }
        }
    }

    /// Tells those that stay.
    fn tell_renewed(&mut self, service: usize, closing: &Closing) {
        let residents = self.residents.iter().filter(|one| one.is_of(service));
        let residents: Vec<_> = residents.filter_map(|one| one.session).collect();
        for session in residents {
            self.deliver(session, Event::Renewed { listener: None });
        }
        let sockets = self.exchange.sockets.iter();
        let own = sockets.filter_map(|(key, socket)| {
            let home = socket.home.filter(|home| home.service == service)?;
            let stays = !closing.sockets.contains(&key);
            stays.then_some((socket.owner?, home.number))
        });
        for (session, number) in own.collect::<Vec<_>>() {
            let listener = Some(number);
            self.deliver(session, Event::Renewed { listener });
        }
    }
}

/// What closes when all that opens is open.
#[derive(Default)]
struct Closing {
    listeners: Vec<ListenerKey>,
    sockets: Vec<SocketKey>,
}

impl Renewed {
    /// Adds what another core says.
    pub fn add(&mut self, other: Renewed) {
        self.leaving
            .resize(self.leaving.len().max(other.leaving.len()), 0);
        for (sum, more) in self.leaving.iter_mut().zip(other.leaving) {
            *sum += more;
        }
        self.failures.extend(other.failures);
    }
}
