//! The gateway: virtual connections between clients and authenticated servers, over the TCP
//! connections that each of them has to the gateway.
//!
//! A client, or a server that has proved its key, is an *endpoint*: one TCP connection. An endpoint
//! dials another of the other kind by its id and gets a *virtual connection*; its messages are
//! frames marked with the connection's id and are passed on unchanged. The bytes of both dialects
//! are told in [`wire`].
//!
//! ```text
//!   client: Accepted ──────────────────────────────┐
//!   server: Accepted ──> Asked ──(20 bytes, ok)────┴──> Entered ──> frames* ──> Close
//!                          └─ wrong, late: Close          │  └─ held: the receiver has no room, or
//!                                                         │     a dial is answered on another core
//!                                                         └─ leave: one Close per connection to
//!                                                            each other end
//! ```
//!
//! Each core has a *hall* of its endpoints and of the connections between them (`hall.rs`); frames
//! between two of its endpoints go from ring to ring (`frames.rs`). Frames to another core go by
//! letter in batches, and only as much as the other end has granted (`far.rs`). Who can be dialled
//! is known to all cores (`directory.rs`, `ids.rs`).
//!
//! # Memory
//!
//! * An endpoint's unread bytes: 64 KiB or one frame, out of the core's budget for reading; a sender
//!   whose receiver has no room is not read. When the budget is used up for a second, endpoints
//!   that hold most of it are closed, one each tenth of a second, until others can be read.
//! * A server's queue: 64 KiB and the frame that crossed it, its clients taking turns; commands may
//!   add 64 KiB; endpoints of other cores may add 32 KiB each and the frame that crossed that. The
//!   system's own queue before it is kept to about 64 KiB that are not sent yet.
//! * All clients' queues of one core: `max_queue_memory`, and 64 KiB for each client beyond it.
//!
//! # Decisions
//!
//! Where the specification is silent:
//!
//! * A client that has not spoken yet and is dialled is spoken to as its dialler speaks, and is
//!   taken to speak that from then on.
//! * An endpoint whose dial is answered on another core is not read until the answer is there: so
//!   answers keep the order of the dials.
//! * Of the ids that New asked for, an endpoint keeps the last 1,024; older ones lapse.
//! * One Close for each unknown id and read, so a batch is what came by one read, 64 KiB at most.
//! * A client that does not read is not dialled while it has no room: its dialler is refused.
//! * Close for a connection of others is counted, not logged, and not answered.
//! * A server that stops lets connections go on, joins no new ones, closes endpoints that have
//!   none left, and all of them at the end of `drain_timeout`.
//! * Another configuration holds at once for all endpoints of a core, those that are there among them;
//!   a key for who comes from then on. Endpoints of a listener that is removed end as they do when the
//!   server stops, the others do not notice.
//! * Frames that wait behind a receiver without room when their sender resets its connection are
//!   lost with it; when it ends the connection in order, they are delivered first.

pub mod client;
mod config;
mod directory;
mod far;
mod frames;
mod hall;
mod ids;
mod scatter;
mod session;
pub mod wire;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

pub use self::config::Config;
use self::directory::{Directory, Kind};
use self::hall::Hall;
use self::session::GatewaySession;
use self::wire::{CHALLENGE, Dialect};
use crate::config::{Key, Settings};
use crate::session::{
    Cause, Close, Current, Ground, Listen, Protocol, Role, Seat, Service, Session, Transport,
    alike, same_role,
};

/// The protocol, for the list.
pub struct Gateway;

impl Protocol for Gateway {
    fn name(&self) -> &'static str {
        "gateway"
    }

    fn title(&self) -> &'static str {
        "Gateway role"
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
        let terms = &Arc::new(self.terms.clone());
        let listen = |role| {
            move |&address: &SocketAddr| Listen {
                role,
                name: None,
                address,
                transport: Transport::Stream,
                terms: Arc::clone(terms),
            }
        };
        let clients = self.clients.iter().map(listen("gateway-clients"));
        let servers = self.servers.iter().map(listen("gateway-servers"));
        clients.chain(servers).collect()
    }

    fn show(&self, out: &mut String) {
        config::show(self, out);
    }

    fn service(&self, ground: &Ground) -> Arc<dyn Service> {
        let rules = Rules::new(self, ground);
        let keys = [(); 2].map(|()| rules.seed());
        Arc::new(GatewayService {
            rules: Current::new(rules),
            directory: Arc::new(Directory::new(keys)),
        })
    }

    fn is_like(&self, other: &dyn Role) -> bool {
        alike(self, other)
    }
}

/// What holds for every endpoint.
struct Rules {
    /// How many of the listeners are for clients; those come first.
    clients: usize,
    dialect: Option<Dialect>,
    server_dialect: Dialect,
    key: Box<[u8]>,
    max_packet: u32,
    max_conns_per_client: usize,
    client_idle_timeout: Duration,
    server_idle_timeout: Duration,
    slow_receiver_timeout: Duration,
    handshake_timeout: Duration,
    max_queue_memory: usize,
    random: SystemRandom,
}

impl Rules {
    fn new(config: &Config, ground: &Ground) -> Self {
        let key = config.auth_key.as_ref();
        Self {
            clients: config.clients.len(),
            dialect: config.dialect,
            server_dialect: config.server_dialect,
            key: key.map_or_else(Box::default, |key| key.expose().into()),
            max_packet: config.max_packet,
            max_conns_per_client: config.max_conns_per_client,
            client_idle_timeout: config.client_idle_timeout,
            server_idle_timeout: config.server_idle_timeout,
            slow_receiver_timeout: config.slow_receiver_timeout,
            handshake_timeout: ground.limits.handshake_timeout,
            max_queue_memory: config.max_queue_memory,
            random: SystemRandom::new(),
        }
    }

    /// What a server is asked to prove its key with. It must not be foreseeable, so without
    /// randomness nobody is let in.
    fn challenge(&self) -> Result<[u8; CHALLENGE], Close> {
        let mut challenge = [0; CHALLENGE];
        match self.random.fill(&mut challenge) {
            Ok(()) => Ok(challenge),
            Err(_) => Err(Close::own(Cause::Overload("random bytes"))),
        }
    }

    /// Hides how ids follow each other; without randomness it hides less.
    fn seed(&self) -> u64 {
        let mut bytes = [1; 8];
        let _ = self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

struct GatewayService {
    rules: Current<Rules>,
    directory: Arc<Directory>,
}

impl Service for GatewayService {
    fn seat(&self, _core: u8) -> Box<dyn Seat> {
        let (rules, directory) = (self.rules.value(), Arc::clone(&self.directory));
        let seed = rules.seed();
        let hall = Hall::new(rules, directory, seed);
        Box::new(GatewaySeat {
            rules: self.rules.clone(),
            hall: Rc::new(RefCell::new(hall)),
        })
    }

    fn renew(&self, role: &dyn Role, ground: &Ground) {
        if let Some(config) = same_role(role) {
            self.rules.set(Rules::new(config, ground));
        }
    }
}

/// One core's part.
struct GatewaySeat {
    rules: Current<Rules>,
    hall: Rc<RefCell<Hall>>,
}

impl Seat for GatewaySeat {
    fn accept(&mut self, listener: usize) -> Box<dyn Session> {
        let kind = match listener < self.hall.borrow().rules.clients {
            true => Kind::Client,
            false => Kind::Server,
        };
        Box::new(GatewaySession::new(Rc::clone(&self.hall), kind))
    }

    fn renew(&mut self) {
        self.hall.borrow_mut().rules = self.rules.value();
    }

    fn check(&self) {
        self.hall.borrow().check();
    }
}
