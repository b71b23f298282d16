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
//! * An endpoint's unread bytes: one frame of `max_packet`, out of the core's budget for reading; a
//!   sender whose receiver has no room is not read.
//! * A server's queue: 64 KiB and the frame that crossed it, its clients taking turns; commands may
//!   add 64 KiB; endpoints of other cores may add 64 KiB each.
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
//! * Close for a connection of others is counted, not logged, and not answered.
//! * A server that stops lets connections go on, joins no new ones, closes endpoints that have
//!   none left, and all of them at the end of `drain_timeout`.
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
    Cause, Close, Ground, Listen, Protocol, Role, Seat, Service, Session, Transport,
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
        let listen = |role| {
            move |&address: &SocketAddr| Listen {
                role,
                name: None,
                address,
                transport: Transport::Stream,
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
        let random = SystemRandom::new();
        let rules = Rules {
            dialect: self.dialect,
            server_dialect: self.server_dialect,
            key: self
                .auth_key
                .as_ref()
                .map_or_else(Box::default, |key| key.expose().into()),
            max_packet: self.max_packet,
            max_conns_per_client: self.max_conns_per_client,
            client_idle_timeout: self.client_idle_timeout,
            server_idle_timeout: self.server_idle_timeout,
            slow_receiver_timeout: self.slow_receiver_timeout,
            handshake_timeout: ground.limits.handshake_timeout,
            max_queue_memory: self.max_queue_memory,
            random,
        };
        let keys = [(); 2].map(|()| rules.seed());
        Arc::new(GatewayService {
            clients: self.clients.len(),
            rules: Arc::new(rules),
            directory: Arc::new(Directory::new(keys)),
        })
    }
}

/// What holds for every endpoint.
struct Rules {
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
    clients: usize,
    rules: Arc<Rules>,
    directory: Arc<Directory>,
}

impl Service for GatewayService {
    fn seat(&self, _core: u8) -> Box<dyn Seat> {
        let (rules, directory) = (Arc::clone(&self.rules), Arc::clone(&self.directory));
        let seed = self.rules.seed();
        let hall = Hall::new(rules, directory, seed);
        Box::new(GatewaySeat {
            clients: self.clients,
            hall: Rc::new(RefCell::new(hall)),
        })
    }
}

/// One core's part.
struct GatewaySeat {
    /// How many of the listeners are for clients; those come first.
    clients: usize,
    hall: Rc<RefCell<Hall>>,
}

impl Seat for GatewaySeat {
    fn accept(&mut self, listener: usize) -> Box<dyn Session> {
        let kind = match listener < self.clients {
            true => Kind::Client,
            false => Kind::Server,
        };
        Box::new(GatewaySession::new(Rc::clone(&self.hall), kind))
    }

    fn check(&self) {
        self.hall.borrow().check();
    }
}
