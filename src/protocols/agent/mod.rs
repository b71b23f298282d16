//! The agent role: a store of records and a traffic proxy on one port.
//!
//! # What the document says
//!
//! Two services share one frame format (see [`wire`] for its fields): `update` and `query` of
//! records under an id and a section, and a traffic request that finds a service by name, checks
//! its token, finds a host by field (else by the field `default`), connects, and relays until both
//! sides have closed. Whatever cannot be served closes the connection without a byte.
//!
//! # Decisions
//!
//! * Both dialects are spoken on one port, told apart frame by frame; a reply goes out in the
//!   dialect of its request.
//! * Frames on one connection are served in order. A stock client that has sent nothing more when
//!   its reply is ready is answered and closed, as such clients expect; every other connection
//!   stays open until the client closes, or is silent for the idle timeout.
//! * A client that has shut its sending side still gets its answer, also of a query that waits.
//! * A query's wait is cut to `max_wait` and ended by the update itself. When the server stops, a
//!   waiting query is closed, not answered: nobody knows whether the record would have come.
//! * With a token set, `update` without a good `auth` before it on the same connection is answered
//!   by code 1; the connection lives on, and queries are free. Tokens are compared as digests, in
//!   constant time, and an unknown service costs the same comparison as a wrong token.
//! * A value that would not fit into a reply of its own dialect is refused when it is stored; one
//!   stored in the other dialect that does not fit by a few bytes is answered by code 1.
//! * A new frame may begin while an answer is on its way out, but no request is served while more
//!   than [`UNSENT`] bytes of answers wait for a client that does not read.
//! * `sniff` from a loopback address answers with an address of `eth0`, else of the first other
//!   interface that is up, as found when the server started.
//! * Another configuration holds from a connection's next frame on; a relay goes on as it began, and an
//!   agent that has shown its token need not show another. Relays of a route that is removed, by its name
//!   and field, drain: they are ended `drain_timeout` later.
//! * A service's hosts for one field are used in turn; one that could not be reached is passed over
//!   for five seconds while there are others. At most three connect timeouts pass in all.
//!
//! # States
//!
//! ```text
//!               ┌────────────────────────── reply ──────────────────────────┐
//!               v                                                           │
//!   accept ─> Reading ─── update ──────────> Storing ── on disk, refused ───┤
//!               │  ├───── query, missing ──> Waiting ── set, time over ─────┤
//!               │  └───── query, sniff, auth ───────────────────────────────┘
//!               └── traffic ─> Dialling ─ connected ─> Relaying ─> end
//! ```

pub mod client;
pub mod config;
mod routes;
mod session;
pub mod wire;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use config::Config;
pub use session::UNSENT;

use self::routes::{Routes, Token};
use crate::config::{Entry, Key, Settings};
use crate::control::resolver::Names;
use crate::net::Throttle;
use crate::session::{
    Current, Ground, Listen, Protocol, Role, RouteRow, Seat, Service, Session, Transport, alike,
    same_role,
};
use crate::store::{self, Memory};
use crate::sys;

/// The protocol, for the list.
pub struct Agent;

impl Protocol for Agent {
    fn name(&self) -> &'static str {
        NAME
    }

    fn title(&self) -> &'static str {
        "Agent role"
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
        let terms = Arc::new(self.terms.clone());
        let listen = |&address: &SocketAddr| Listen {
            role: NAME,
            name: None,
            address,
            transport: Transport::Stream,
            terms: Arc::clone(&terms),
        };
        self.listen.iter().map(listen).collect()
    }

    fn show(&self, out: &mut String) {
        config::show(self, out);
    }

    fn routes(&self) -> Vec<RouteRow> {
        config::route_rows(self)
    }

    fn store(&self) -> Option<store::Limits> {
        (!self.listen.is_empty()).then_some(self.store)
    }

    fn service(&self, ground: &Ground) -> Arc<dyn Service> {
        Arc::new(AgentService {
            terms: Current::new(Terms::new(self, ground, None)),
            memory: ground.memory.clone(),
            names: ground.names.clone(),
            own_address: own_address(),
        })
    }

    fn is_like(&self, other: &dyn Role) -> bool {
        alike(self, other)
    }

    fn reroute(
        &self,
        name: &str,
        entry: Option<&Entry>,
        settings: &mut Settings,
    ) -> Option<Box<dyn Role>> {
        Some(Box::new(config::reroute(self, name, entry, settings)))
    }
}

struct AgentService {
    terms: Current<Terms>,
    memory: Memory,
    names: Names,
    own_address: IpAddr,
}

/// What may change while the server runs.
struct Terms {
    config: Config,
    /// Of each route.
    throttles: Vec<Option<Arc<Throttle>>>,
    timeouts: Timeouts,
    connect_timeout: Duration,
}

impl Terms {
    /// A route that is limited as it was in the former ones goes on with the same bytes.
    fn new(config: &Config, ground: &Ground, former: Option<&Terms>) -> Self {
        let throttle = |route: &config::Route| {
            let known = former.and_then(|former| {
                let mut pairs = former.config.routes.iter().zip(&former.throttles);
                pairs.find(|(one, _)| one.name == route.name)
            });
            Throttle::kept(known.and_then(|(_, one)| one.as_ref()), route.bandwidth)
        };
        Self {
            throttles: config.routes.iter().map(throttle).collect(),
            config: config.clone(),
            timeouts: Timeouts {
                handshake: ground.limits.handshake_timeout,
                idle: ground.limits.idle_timeout,
            },
            connect_timeout: ground.limits.connect_timeout,
        }
    }
}

/// The server's deadlines, as far as a session needs them.
#[derive(Clone, Copy, Debug)]
struct Timeouts {
    /// From the first byte of a frame, or the accept, to the frame's last byte.
    handshake: Duration,
    /// Silence between frames.
    idle: Duration,
}

impl Service for AgentService {
    fn seat(&self, _core: u8) -> Box<dyn Seat> {
        let desk = Desk::new(
            &self.terms.value(),
            self.memory.clone(),
            &self.names,
            self.own_address,
        );
        Box::new(AgentSeat {
            terms: self.terms.clone(),
            names: self.names.clone(),
            desk: Rc::new(RefCell::new(Rc::new(desk))),
        })
    }

    fn renew(&self, role: &dyn Role, ground: &Ground) {
        if let Some(config) = same_role(role) {
            let former = self.terms.value();
            self.terms.set(Terms::new(config, ground, Some(&former)));
        }
    }
}

struct AgentSeat {
    terms: Current<Terms>,
    names: Names,
    desk: PresentDesk,
}

/// The desk that the sessions of one core share at present.
type PresentDesk = Rc<RefCell<Rc<Desk>>>;

impl Seat for AgentSeat {
    fn accept(&mut self, _listener: usize) -> Box<dyn Session> {
        Box::new(session::AgentSession::new(Rc::clone(&self.desk)))
    }

    fn renew(&mut self) {
        let mut desk = self.desk.borrow_mut();
        let (memory, own_address) = (desk.memory.clone(), desk.own_address);
        *desk = Rc::new(Desk::new(
            &self.terms.value(),
            memory,
            &self.names,
            own_address,
        ));
    }
}

/// What the sessions of one core share.
struct Desk {
    timeouts: Timeouts,
    max_payload: usize,
    max_wait: Duration,
    token: Token,
    routes: Routes,
    memory: Memory,
    own_address: IpAddr,
    /// The unmasked payload of the frame that is being served.
    payload: RefCell<Vec<u8>>,
    /// The reply that is being made.
    reply: RefCell<Vec<u8>>,
}

impl Desk {
    fn new(terms: &Terms, memory: Memory, names: &Names, own_address: IpAddr) -> Self {
        let config = &terms.config;
        Self {
            timeouts: terms.timeouts,
            max_payload: config.max_payload,
            max_wait: config.max_wait,
            token: Token::of(config.token.as_ref()),
            routes: Routes::new(
                &config.routes,
                &terms.throttles,
                terms.connect_timeout,
                names,
            ),
            memory,
            own_address,
            payload: RefCell::default(),
            reply: RefCell::default(),
        }
    }
}

/// What a client on this host is told when it asks for its address.
fn own_address() -> IpAddr {
    let found = sys::interface_addresses().unwrap_or_default();
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(_) => false,
    };
    let mut others = found.iter().filter(|(_, ip)| usable(ip));
    let eth0 = others.clone().find(|(name, _)| name == "eth0");
    eth0.or_else(|| others.next())
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |(_, ip)| *ip)
}

/// Its table in the configuration, its key in the address file, its word in the log.
const NAME: &str = "agent";
