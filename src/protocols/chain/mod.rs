//! The chain role: forward proxies that stack hop by hop.
//!
//! # What the document says
//!
//! A *proxy server*, here a *hop*, answers for one part of the way only: for the stream or the datagram
//! that came to it and the address that its own header names, so that hops stack into a chain. A *proxy
//! client* defines the chain, and can change it without any hop being reconfigured. An *access server* is
//! an access point for programs that know nothing of all this; its chain is defined beforehand.
//!
//! 1. The client writes the request headers of all hops to the stream.
//! 2. Each hop consumes its own and writes a response: the ok or the error of this hop.
//! 3. The client consumes all responses.
//! 4. If there is no error, payload flows both ways.
//!
//! Each datagram is treated as a stream: it carries all headers, and what comes back all responses.
//!
//! ```text
//!   access / client ──[h1][h2][h3]──> hop 1 ──[h2][h3]──> hop 2 ──[h3]──> hop 3 ──> destination
//!                   <─[r1][r2][r3]──        <─[r2][r3]──        <─[r3]──       <── payload
//! ```
//!
//! The bytes are told in [`wire`]. A hop is `hop/`, access listeners are `access/`; the blocking client
//! is `client/`. A hop that opens no payload is blind: once it has answered, the relay engine moves the
//! bytes, by splice where they are many.
//!
//! # Decisions
//!
//! Where the specification is silent:
//!
//! * A hop without `key` listens on loopback only, and speaks under a key that everybody knows, 32 zero
//!   bytes; a client without a key for a hop on loopback uses that, too.
//! * Over TCP, too, a header that is stale or was seen before is treated as one without the key: the
//!   connection is read and dropped, without a byte, for a random 5 to 15 s. At most `max_silent` of a
//!   core are kept so; one more is closed at once.
//! * A header that is under the key and malformed, or that wants a payload key that the hop has not, is
//!   answered by `protocol`.
//! * The payload key is told by a flag in the last header, so that a hop that has one can stand in the
//!   middle of another chain.
//! * Whoever is refused has `told` ends: the response leaves, then FIN, and what still comes is dropped for
//!   two seconds, however much it is, so that no reset eats the words.
//! * `allow` and `deny` are asked about every address of a name; those that may not be dialled are left
//!   out, and if none is left the answer is `forbidden`. The hop's own listeners, and this server's other
//!   ones, are opened only by a rule with exactly their address and port. `localhost` in a rule stands
//!   for the loopback addresses.
//! * A probe's connection ends after `header_timeout`.
//! * The dial time in a response over UDP is 0.
//! * A datagram's flow is bound to one request as [`wire::binding`] says. One that fails to open under the
//!   payload key is answered by `protocol`.
//! * Access: a client that half-closes before it is connected is not given up; its end is passed on when its
//!   turn comes. Early data is what the client has sent by the time at which the first hop is connected.
//! * Access, several chains: one that is broken (a hop that cannot be reached, is silent, or fails by
//!   itself) is left out at once, and another is tried for the same client, as long as none of its bytes has
//!   left. A chain is tried every `probe_interval`, by TCP; it counts again when all its hops answer. What
//!   probes are lost on gets a smaller share. When all are broken, all are tried. A flow of datagrams
//!   leaves a broken chain with its client's next datagram, as long as there is another.
//! * Access, several destinations: they are used in turn; one that the last hop cannot reach is passed over
//!   for this client.
//! * SOCKS5 UDP: datagrams are taken from the address that the first one came from, and must come from the
//!   IP address of the association's connection. Answers from a destination that was named are told as
//!   from 0.0.0.0, with its port. The association ends with its connection.
//! * A chain without hops relays under the server's `idle_timeout`, others under the role's.
//! * A server that stops lets connections that are dialling or relaying go on until they end, or until
//!   `drain_timeout`; flows of datagrams end at once.

mod access;
pub mod client;
pub mod config;
mod hop;
pub mod nonces;
mod outlet;
mod passage;
pub mod policy;
pub mod replay;
mod sealing;
pub mod users;
pub mod wire;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

pub use config::{Access, AccessProtocol, Config, Hop, Hops};

use self::access::{AccessDatagrams, AccessSession, Door, Prober, Routes, Times};
use self::hop::{Hop as OwnHop, HopDatagrams, HopSession};
use self::policy::Policy;
use self::replay::Replay;
use crate::config::{Key, Limits, Settings};
use crate::control::resolver::Names;
use crate::session::{
    Ground, Listen, Protocol, Resident, Role, Seat, Service, Session, Silence, Transport,
};
use crate::sys;

/// The protocol, for the list.
pub struct Chain;

impl Protocol for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn title(&self) -> &'static str {
        "Chain role"
    }

    fn keys(&self) -> &'static [Key] {
        config::KEYS
    }

    fn read(&self, settings: &mut Settings) -> Box<dyn Role> {
        Box::new(Config::read(settings))
    }
}

impl Role for Config {
    fn listen(&self) -> Vec<Listen> {
        // The hop's come first: even numbers are for streams, odd ones for datagrams.
        let both = |&address: &SocketAddr| {
            [Transport::Stream, Transport::Datagram].map(|transport| Listen {
                role: "chain",
                name: None,
                address,
                transport,
            })
        };
        let access = self.access.iter().flat_map(Access::listeners);
        self.listen.iter().flat_map(both).chain(access).collect()
    }

    fn show(&self, out: &mut String) {
        config::show(self, out);
    }

    fn service(&self, ground: &Ground) -> Arc<dyn Service> {
        Arc::new(ChainService::new(self, ground))
    }
}

impl Access {
    /// One for each of its addresses, in their order.
    fn listeners(&self) -> impl Iterator<Item = Listen> {
        let transport = match self.protocol {
            AccessProtocol::Udp => Transport::Datagram,
            _ => Transport::Stream,
        };
        self.listen.iter().map(move |&address| Listen {
            role: "access",
            name: Some(self.name.clone()),
            address,
            transport,
        })
    }
}

struct ChainService {
    config: Config,
    hop: Arc<hop::Rules>,
    /// The chains of each access listener.
    routes: Vec<Arc<Routes>>,
    /// Where the role listens, numbered as [`Role::listen`] lists it.
    addresses: Vec<SocketAddr>,
    limits: Limits,
    names: Names,
}

impl ChainService {
    fn new(config: &Config, ground: &Ground) -> Self {
        let local = sys::interface_addresses().unwrap_or_default();
        let local = local.into_iter().map(|(_, ip)| ip).collect();
        let (allow, deny) = (config.allow.clone(), config.deny.clone());
        let routes = config.access.iter();
        Self {
            hop: Arc::new(hop::Rules {
                key: config.key.clone().unwrap_or(config::PUBLIC_KEY),
                payload_key: config.payload_key.clone(),
                policy: Policy::new(allow, deny, ground.own.to_vec(), local),
                replay: Replay::new(config.replay_memory as usize),
                header_timeout: config.header_timeout,
                dial_timeout: config.dial_timeout,
                silence: config.silence(),
                udp_idle_timeout: config.udp_idle_timeout,
                max_flows: config.max_flows,
                max_silent: config.max_silent,
            }),
            routes: routes
                .map(|access| Arc::new(Routes::new(&access.chains)))
                .collect(),
            addresses: ground.addresses.clone(),
            limits: ground.limits.clone(),
            names: ground.names.clone(),
            config: config.clone(),
        }
    }

    /// One core's doors, one for each access listener.
    fn doors(&self, hop: &Rc<OwnHop>) -> Vec<Rc<Door>> {
        let mut bound = self.addresses.iter().skip(2 * self.config.listen.len());
        let times = Times {
            handshake: self.limits.handshake_timeout,
            connect: self.limits.connect_timeout,
            hop: self.config.dial_timeout,
            silence: self.config.silence(),
            udp_idle: self.config.udp_idle_timeout,
        };
        let access = self.config.access.iter().zip(&self.routes);
        let door = |(access, routes): (&Access, &Arc<Routes>)| {
            let bound = bound.by_ref().take(access.listen.len()).copied().collect();
            let (routes, names) = (Arc::clone(routes), self.names.clone());
            let screen = Rc::clone(&hop.screen);
            Door::new(access.clone(), bound, routes, names, screen, times)
        };
        access.map(door).collect()
    }
}

impl Config {
    fn silence(&self) -> Silence {
        Silence {
            idle: self.idle_timeout,
            half_closed: self.half_closed_timeout.min(self.idle_timeout),
        }
    }
}

impl Service for ChainService {
    fn seat(&self, core: u8) -> Box<dyn Seat> {
        let hop = OwnHop::new(Arc::clone(&self.hop), self.names.clone());
        let doors = self.doors(&hop);
        let both = self.config.listen.iter().flat_map(|_| [Place::Hop; 2]);
        let access = self.config.access.iter().enumerate();
        let access = access.flat_map(|(door, access)| {
            (0..access.listen.len()).map(move |at| Place::Door(door, at))
        });
        Box::new(ChainSeat {
            places: both.chain(access).collect(),
            is_first: core == 0,
            hop,
            doors,
        })
    }
}

/// One core's part of the role.
struct ChainSeat {
    /// What listens where, numbered as [`Role::listen`] lists it.
    places: Vec<Place>,
    is_first: bool,
    hop: Rc<OwnHop>,
    doors: Vec<Rc<Door>>,
}

#[derive(Clone, Copy)]
enum Place {
    Hop,
    /// Which access listener, and which of its addresses.
    Door(usize, usize),
}

impl Seat for ChainSeat {
    fn accept(&mut self, listener: usize) -> Box<dyn Session> {
        match self.places[listener] {
            Place::Hop => Box::new(HopSession::new(Rc::clone(&self.hop))),
            Place::Door(door, at) => Box::new(AccessSession::new(Rc::clone(&self.doors[door]), at)),
        }
    }

    fn datagrams(&mut self, listener: usize) -> Option<Box<dyn Session>> {
        match self.places.get(listener)? {
            Place::Hop => Some(Box::new(HopDatagrams::new(Rc::clone(&self.hop)))),
            Place::Door(door, _) => Some(Box::new(AccessDatagrams::new(Rc::clone(
                &self.doors[*door],
            )))),
        }
    }

    fn resident(&mut self, number: usize) -> Option<Resident> {
        let several = |door: &&Rc<Door>| door.routes.list.len() > 1;
        let mut doors = self.doors.iter().filter(several);
        let door = doors.nth(number).filter(|_| self.is_first)?;
        Some(Resident {
            name: format!("access {} probe", door.name),
            session: Box::new(Prober::new(Rc::clone(door))),
        })
    }
}
