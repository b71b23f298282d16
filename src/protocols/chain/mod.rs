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
//! * Access, several destinations: they are used in turn; one that could not be reached, by the last hop or
//!   from here, is passed over for five seconds, by flows of datagrams that are under way, too. Where early
//!   data have left, the client that meets the failure is not led to another: it may have arrived.
//! * A datagram that a hop or a destination has refused breaks a chain only where a hop does not reach the
//!   next one. What shows no key is no reason to leave anybody.
//! * SOCKS5 UDP: datagrams are taken from the address that the first one came from, and must come from the
//!   IP address of the association's connection. Answers from a destination that was named are told as
//!   from 0.0.0.0, with its port. The association ends with its connection.
//! * A chain without hops relays under the server's `idle_timeout`, others under the role's.
//! * Another configuration holds for connections, flows and probes that begin from then on; the keys for
//!   every datagram to a hop, each of which is a request. What is known of chains that are still there,
//!   and the requests that were seen, stay known.
//! * A server that stops lets connections that are dialling or relaying go on until they end, or until
//!   `drain_timeout`; flows of datagrams end at once.

mod access;
pub mod client;
mod complaints;
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

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

pub use config::{Access, AccessProtocol, Config, Hop, Hops};

use self::access::{AccessDatagrams, AccessSession, Door, PresentDoor, Prober, Routes, Times};
use self::hop::{Hop as OwnHop, HopDatagrams, HopSession, PresentHop};
use self::policy::Policy;
use self::replay::Replay;
use crate::config::{Key, Settings};
use crate::control::resolver::Names;
use crate::net::Throttle;
use crate::session::{
    Current, Ground, Listen, Protocol, Resident, Role, Seat, Service, Session, Silence, Transport,
    alike, same_role,
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
        let terms = Arc::new(self.terms.clone());
        let both = |&address: &SocketAddr| {
            [Transport::Stream, Transport::Datagram].map(|transport| Listen {
                role: "chain",
                name: None,
                address,
                transport,
                terms: Arc::clone(&terms),
            })
        };
        let access = self.access.iter().flat_map(Access::listeners);
        self.listen.iter().flat_map(both).chain(access).collect()
    }

    fn show(&self, out: &mut String) {
        config::show(self, out);
    }

    fn service(&self, ground: &Ground) -> Arc<dyn Service> {
        Arc::new(ChainService {
            terms: Current::new(Terms::new(self, ground, None)),
            names: ground.names.clone(),
        })
    }

    fn is_like(&self, other: &dyn Role) -> bool {
        alike(self, other)
    }
}

impl Access {
    /// One for each of its addresses, in their order.
    fn listeners(&self) -> impl Iterator<Item = Listen> {
        let transport = match self.protocol {
            AccessProtocol::Udp => Transport::Datagram,
            _ => Transport::Stream,
        };
        let terms = Arc::new(self.terms.clone());
        self.listen.iter().map(move |&address| Listen {
            role: "access",
            name: Some(self.name.clone()),
            address,
            transport,
            terms: Arc::clone(&terms),
        })
    }
}

struct ChainService {
    terms: Current<Terms>,
    names: Names,
}

/// What may change while the server runs.
struct Terms {
    config: Config,
    hop: Arc<hop::Rules>,
    /// The chains of each access listener.
    routes: Vec<Arc<Routes>>,
    /// Where the role listens, numbered as [`Role::listen`] lists it.
    addresses: Vec<SocketAddr>,
    times: Times,
}

impl Terms {
    /// What is as it was in the former ones is the same thing, so that what is known of it stays.
    fn new(config: &Config, ground: &Ground, former: Option<&Terms>) -> Self {
        let known = |access: &Access| {
            let former = former?;
            let mut pairs = former.config.access.iter().zip(&former.routes);
            pairs.find(|(one, _)| one.name == access.name)
        };
        let routes = |access: &Access| {
            let known = known(access);
            let throttle = known.and_then(|(_, routes)| routes.throttle.as_ref());
            let throttle = Throttle::kept(throttle, access.bandwidth);
            match known {
                Some((one, routes))
                    if one.chains == access.chains && one.bandwidth == access.bandwidth =>
                {
                    Arc::clone(routes)
                }
                _ => Arc::new(Routes::new(&access.chains, throttle)),
            }
        };
        Self {
            hop: hop_rules(config, ground, former.map(|former| &former.hop)),
            routes: config.access.iter().map(routes).collect(),
            addresses: ground.addresses.clone(),
            times: Times {
                handshake: ground.limits.handshake_timeout,
                connect: ground.limits.connect_timeout,
                hop: config.dial_timeout,
                silence: config.silence(),
                udp_idle: config.udp_idle_timeout,
            },
            config: config.clone(),
        }
    }

    /// What listens where.
    fn places(&self) -> Vec<Place> {
        let both = self.config.listen.iter().flat_map(|_| [Place::Hop; 2]);
        let access = self.config.access.iter().enumerate();
        let access = access.flat_map(|(door, access)| {
            (0..access.listen.len()).map(move |at| Place::Door(door, at))
        });
        both.chain(access).collect()
    }
}

fn hop_rules(
    config: &Config,
    ground: &Ground,
    former: Option<&Arc<hop::Rules>>,
) -> Arc<hop::Rules> {
    let local = sys::interface_addresses().unwrap_or_default();
    let local = local.into_iter().map(|(_, ip)| ip).collect();
    let (allow, deny) = (config.allow.clone(), config.deny.clone());
    let replay = match former {
        Some(former) => Arc::clone(&former.replay),
        None => Arc::new(Replay::new(config.replay_memory as usize)),
    };
    let rules = hop::Rules {
        key: config.key.clone().unwrap_or(config::PUBLIC_KEY),
        payload_key: config.payload_key.clone(),
        policy: Policy::new(allow, deny, ground.own.to_vec(), local),
        replay,
        header_timeout: config.header_timeout,
        dial_timeout: config.dial_timeout,
        silence: config.silence(),
        udp_idle_timeout: config.udp_idle_timeout,
        max_flows: former.map_or(config.max_flows, |former| former.max_flows),
        max_silent: config.max_silent,
        throttle: Throttle::kept(
            former.and_then(|former| former.throttle.as_ref()),
            config.bandwidth,
        ),
    };
    match former {
        Some(former) if former.is_like(&rules) => Arc::clone(former),
        _ => Arc::new(rules),
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
        let terms = self.terms.value();
        let hop = OwnHop::new(Arc::clone(&terms.hop), self.names.clone());
        let mut seat = ChainSeat {
            terms: self.terms.clone(),
            places: terms.places(),
            is_first: core == 0,
            hop: Rc::new(RefCell::new(hop)),
            doors: Vec::new(),
            made: 0,
        };
        seat.make_doors(&terms);
        Box::new(seat)
    }

    fn renew(&self, role: &dyn Role, ground: &Ground) {
        if let Some(config) = same_role(role) {
            let former = self.terms.value();
            self.terms.set(Terms::new(config, ground, Some(&former)));
        }
    }
}

/// One core's part of the role.
struct ChainSeat {
    terms: Current<Terms>,
    /// What listens where, numbered as [`Role::listen`] lists it.
    places: Vec<Place>,
    is_first: bool,
    hop: PresentHop,
    doors: Vec<PresentDoor>,
    /// How many doors there have been.
    made: u64,
}

impl ChainSeat {
    /// The doors, one for each access listener: the same where nothing about it has changed.
    fn make_doors(&mut self, terms: &Terms) {
        let hop = Rc::clone(&self.hop.borrow());
        let mut bound = terms.addresses.iter().skip(2 * terms.config.listen.len());
        let mut doors = Vec::new();
        for (access, routes) in terms.config.access.iter().zip(&terms.routes) {
            let bound: Vec<_> = bound.by_ref().take(access.listen.len()).copied().collect();
            let former = self
                .doors
                .iter()
                .find(|door| door.borrow().name == access.name);
            let is_there = former.is_some_and(|door| {
                let same = (access, bound.as_slice(), terms.times);
                door.borrow().is_like(same, routes, &hop.screen)
            });
            let door = || {
                let (routes, names) = (Arc::clone(routes), hop.names.clone());
                let shared = (Rc::clone(&hop.screen), Rc::clone(&hop.complaints));
                let mut door = Door::new(access.clone(), bound, routes, names, shared, terms.times);
                door.tenure = self.made;
                Rc::new(door)
            };
            doors.push(match former {
                Some(former) if is_there => Rc::clone(former),
                Some(former) => {
                    former.replace(door());
                    Rc::clone(former)
                }
                None => Rc::new(RefCell::new(door())),
            });
            self.made += 1;
        }
        self.doors = doors;
    }

    fn door(&self, at: usize) -> Rc<Door> {
        Rc::clone(&self.doors[at].borrow())
    }
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
            Place::Hop => Box::new(HopSession::new(Rc::clone(&self.hop.borrow()))),
            Place::Door(door, at) => Box::new(AccessSession::new(self.door(door), at)),
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
        let doors = self.doors.iter().map(|door| Rc::clone(&door.borrow()));
        let mut doors = doors.filter(|door| door.routes.list.len() > 1);
        let door = doors.nth(number).filter(|_| self.is_first)?;
        Some(Resident {
            name: format!("access {} probe", door.name),
            tenure: door.tenure,
            session: Box::new(Prober::new(door)),
        })
    }

    fn renew(&mut self) {
        let terms = self.terms.value();
        let hop = Rc::clone(&self.hop.borrow());
        if !Arc::ptr_eq(&hop.rules, &terms.hop) {
            self.hop.replace(hop.with(Arc::clone(&terms.hop)));
        }
        self.places = terms.places();
        self.make_doors(&terms);
    }
}
