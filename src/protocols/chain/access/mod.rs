//! Access listeners: for programs that know nothing of chains.
//!
//! One core's part of a listener is a [`Door`]. A connection is a session of `session.rs`, which reads
//! what a SOCKS5 or HTTP client asks for by `front.rs`; the datagrams of a `udp` listener are one session
//! for each core, `datagrams.rs`, and those of a SOCKS5 client belong to its connection,
//! `association.rs`. Where a listener has several chains, `prober.rs` tries them, on core 0.
//!
//! Bounds: what a client sends before it is connected waits in its connection, 64 KiB of it; a request
//! is at most 8 KiB; flows up to `max_flows` a core, [`MOST_ASSOCIATED`] for each SOCKS5 association.

mod association;
mod datagrams;
mod front;
mod leg;
mod prober;
mod routes;
mod session;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::datagrams::AccessDatagrams;
pub(super) use self::prober::Prober;
pub(super) use self::routes::Routes;
pub(super) use self::session::AccessSession;
use super::complaints::Complaints;
use super::config::{Access, AccessProtocol};
use super::hop::target_of;
use super::nonces::Nonces;
use super::passage::{Blame, Failed};
use super::wire::{Address, Nonce};
use crate::control::resolver::Names;
use crate::session::{Cx, Silence};
use crate::upstream::{Screen, Target, Targets};

/// One core's part of an access listener.
pub(super) struct Door {
    pub(super) name: Box<str>,
    /// Which door it is of all that there have been.
    pub(super) tenure: u64,
    pub(super) protocol: AccessProtocol,
    /// The chains, with what is known of them; the same for all cores.
    pub(super) routes: Arc<Routes>,
    access: Access,
    /// Where it listens, in the order of the configuration.
    bound: Vec<SocketAddr>,
    /// The destinations of the configuration, in its order.
    to: Vec<Address>,
    /// Whose turn it is of those, and which are passed over, for what is not dialled here.
    turns: Rc<Targets>,
    /// The destinations, for a connection by a chain without hops.
    straight: Rc<Targets>,
    /// The first hop of each chain that has one.
    firsts: Vec<Rc<Targets>>,
    pub(super) names: Names,
    /// What may be dialled for clients that name it, by a chain without hops.
    screen: Screen,
    nonces: RefCell<Nonces>,
    /// What is said of lost datagrams.
    complaints: Rc<Complaints>,
    pub(super) times: Times,
}

/// The door that the sessions of one core begin with at present.
pub(super) type PresentDoor = Rc<RefCell<Rc<Door>>>;

/// How long things may take at an access listener.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    /// A client's request.
    pub(super) handshake: Duration,
    /// A connection to one address.
    pub(super) connect: Duration,
    /// What one hop may need to answer.
    pub(super) hop: Duration,
    /// A relay through hops.
    pub(super) silence: Silence,
    pub(super) udp_idle: Duration,
}

impl Door {
    pub(super) fn new(
        access: Access,
        bound: Vec<SocketAddr>,
        routes: Arc<Routes>,
        names: Names,
        (screen, complaints): (Screen, Rc<Complaints>),
        times: Times,
    ) -> Self {
        let targets = |list: Vec<Target>| Targets::new(list, times.connect, names.clone());
        let firsts = routes.list.iter().map(|route| {
            let first = route.hops.first().map(|hop| hop.target.clone());
            targets(first.into_iter().collect())
        });
        Self {
            name: access.name.clone(),
            tenure: 0,
            protocol: access.protocol,
            to: access.to.iter().map(address_of).collect(),
            turns: targets(access.to.clone()),
            straight: targets(access.to.clone()),
            firsts: firsts.collect(),
            access,
            bound,
            routes,
            screen,
            nonces: RefCell::new(Nonces::new()),
            complaints,
            times,
            names,
        }
    }

    /// True when another made of this would be no other. What may be dialled matters only where clients
    /// say it, and not to a chain of hops.
    pub(super) fn is_like(
        &self,
        (access, bound, times): (&Access, &[SocketAddr], Times),
        routes: &Arc<Routes>,
        screen: &Screen,
    ) -> bool {
        self.access == *access
            && (self.bound.as_slice(), self.times) == (bound, times)
            && Arc::ptr_eq(&self.routes, routes)
            && (!access.dials_for_clients() || Rc::ptr_eq(&self.screen, screen))
    }

    /// Where a failure is a destination's, that is passed over for a while, if there is another.
    fn pass_over(&self, at: usize, route: usize, failed: Failed, cx: &mut Cx<'_>) {
        let route = &self.routes.list[route];
        if route.blame(failed) != Blame::Destination {
            return;
        }
        if self.turns.note_failed(at, cx.now) && self.to.len() > 1 {
            self.complaints.say("passed over", cx, |_| {
                let (name, to, told) = (&self.name, &self.to[at], route.tell(failed));
                format!("access {name} to={to} is passed over for now: {told}")
            });
        }
    }

    /// A chain is left out for now, if there is another.
    fn leave_out(&self, route: usize, failed: Failed) {
        if self.routes.note_broken(route) {
            let (name, told) = (&self.name, self.routes.list[route].tell(failed));
            let number = route + 1;
            log::warn!("access {name} chain {number} is left out for now: {told}");
        }
    }

    /// A dialling's targets for a chain: its first hop or, without one, the destination.
    fn targets(&self, route: usize, destination: &Address) -> Rc<Targets> {
        if !self.routes.list[route].hops.is_empty() {
            return Rc::clone(&self.firsts[route]);
        }
        if !self.protocol.is_proxy() {
            return Rc::clone(&self.straight);
        }
        let within = self.times.connect * 3;
        let (names, screen) = (self.names.clone(), Rc::clone(&self.screen));
        Targets::screened(target_of(destination), within, names, screen)
    }

    fn nonce(&self) -> Option<Nonce> {
        self.nonces.borrow_mut().next()
    }
}

/// Now, as requests are stamped.
fn stamp(cx: &Cx<'_>) -> u64 {
    u64::try_from(cx.unix_time().as_millis()).unwrap_or(u64::MAX)
}

/// A target as a header tells it.
pub(super) fn address_of(target: &Target) -> Address {
    match target.host.parse() {
        Ok(ip) => Address::Socket(SocketAddr::new(ip, target.port)),
        Err(_) => Address::Name {
            host: target.host.clone(),
            port: target.port,
        },
    }
}

/// Destinations that one SOCKS5 client's datagrams go to at a time; the one that was idle longest makes
/// room for another.
const MOST_ASSOCIATED: usize = 256;
