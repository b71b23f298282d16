//! The node role: a public address for a node behind NAT, kept over reconnects and restarts.
//!
//! A node keeps one TCP connection to the server, its *main connection*, asks there for a public
//! address and keeps it alive. What others send to that address, its *visitors*, comes to it over the
//! main connection, frame by frame. The bytes are told in [`wire`].
//!
//! ```text
//!                 ProxyRequest        Leased            Listening
//!   Unregistered ─────────────> Asking ──────> Opening ───────────> Open: answered; visitors come
//!     │ 180 s, or too many        │ ^            │ the port is          │  └─ Keepalive, request:
//!     │ of them: Close            │ └────────────┘ another's            │     answered at once
//!     v                           v no port: Close                      v somebody newer asked
//!   Close                                                             Superseded: its visitors stay
//!
//!   Open, Superseded ── end of the connection, bad bytes, no keepalive ──> Close: all visitors with it
//! ```
//!
//! The port that a node has is decided by the control thread ([`crate::control::leases`]), for all
//! cores: whoever asks last has it, and who had it until then is told and stops listening. The
//! newer one may be faster; then its port is in use for a moment, and it tries again. The listener and
//! its visitors live on the core of the main connection, so a frame never leaves a core.
//!
//! The same address serves UDP (`datagrams.rs`): one session on each core for all nodes whose
//! datagrams come to it, with leases of their own and the same rules where they apply.
//!
//! # Memory
//!
//! * A visitor's, and a main connection's, unread bytes: 64 KiB, or 128 KiB for one that sends frames
//!   longer than that, out of the core's budget for reading.
//! * Longer frames: each takes its length out of `max_frame_memory`, from its first byte until the
//!   node has nearly taken it, and waits for it unread. They hold up no shorter ones but their
//!   sender's. The visitors of one node hold no more of it than they leave to others, and a
//!   connection that has registered no node gets 2 MiB.
//! * A main connection's queue: 64 KiB and the frame that crossed it for its visitors, who take turns;
//!   answers may add 64 KiB, then its requests are not read.
//! * One listener and one row in the registry for each registered node.
//!
//! # Decisions
//!
//! Where the specification is silent:
//!
//! * A frame must be whole `handshake_timeout` after its first byte, and a second later for each
//!   128 KiB that have come; a visitor that sends nothing for `idle_timeout` is closed. Time in which the
//!   server does not read it does not count.
//! * A node that takes no byte of what is queued for it for `keepalive_timeout` is gone.
//! * A connection has one identity; a request for another one ends it. One without a
//!   `connection_id` keeps the identity of its first request, for its address changes by the answer.
//! * A connection that is superseded and asks again is the newest again.
//! * A Keepalive for an identity that another connection has registered is answered, and refreshes
//!   nothing: who overhears a `connection_id` cannot keep a dead node registered.
//! * A frame on a main connection that is marked as compressed ends it: nothing that is for the
//!   server is that long.
//! * A request that is superseded before it is answered is closed, not answered. A superseded
//!   connection is closed at its next Keepalive once the newer one has gone, so that its node asks
//!   anew.
//! * With `allow_keys`, a `connection_id` is its key's own: another key that names it is another node.
//! * With `max_unregistered` connections of a core silent, the oldest is closed for a new one.
//! * By UDP, too, a node gets the same address however often and from wherever it asks, and a
//!   Disconnect from where it is ends it. A Keepalive from elsewhere is not answered, and nothing
//!   longer than the question is: who sent it may be somebody else. A node that already has the
//!   address that its datagrams come from gets that, and no lease.
//! * Another configuration holds for nodes that come from then on, and for all datagrams; a node that is
//!   registered keeps its address.
//! * A server that stops registers nobody; nodes without visitors are closed at once, the others
//!   when their last visitor has left or `drain_timeout` is over.

pub mod client;
mod config;
mod datagrams;
mod desk;
mod incoming;
mod registry;
mod session;
mod visitors;
pub mod wire;

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use self::config::Config;
use self::datagrams::Datagrams;
use self::desk::Desk;
use self::registry::Registry;
use self::session::NodeSession;
use self::wire::{Demand, Identity, Speaker, Transport, verify};
use crate::config::{Key, Settings};
use crate::control::leases::Pool;
use crate::session::{
    Cause, Close, Current, Ground, Listen, Protocol, Role, Seat, Service, Session,
    Transport as Kind, alike, same_role,
};

/// The protocol, for the list.
pub struct Node;

impl Protocol for Node {
    fn name(&self) -> &'static str {
        "node"
    }

    fn title(&self) -> &'static str {
        "Node role"
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
        // Even numbers are for streams, odd ones for datagrams.
        let terms = Arc::new(self.terms.clone());
        let both = |&address: &SocketAddr| {
            [Kind::Stream, Kind::Datagram].map(|transport| Listen {
                role: "node",
                name: None,
                address,
                transport,
                terms: Arc::clone(&terms),
            })
        };
        self.listen.iter().flat_map(both).collect()
    }

    fn show(&self, out: &mut String) {
        config::show(self, out);
    }

    fn pools(&self) -> Vec<Pool> {
        if self.listen.is_empty() {
            return Vec::new();
        }
        let pool = |name| Pool {
            name,
            ports: self.ports.clone(),
            lease: self.lease,
        };
        vec![pool(TCP_POOL), pool(UDP_POOL)]
    }

    fn service(&self, ground: &Ground) -> Arc<dyn Service> {
        Arc::new(NodeService {
            registry: Arc::default(),
            rules: Current::new(Rules::new(self, ground)),
        })
    }

    fn is_like(&self, other: &dyn Role) -> bool {
        alike(self, other)
    }
}

/// What holds for every node.
struct Rules {
    /// One for each main address and transport, in the order of the listeners.
    speakers: Vec<Speaker>,
    network: u32,
    public_ip: IpAddr,
    bind_ip: IpAddr,
    max_frame: u32,
    max_visitors: usize,
    max_unregistered: usize,
    max_frame_memory: usize,
    keepalive_timeout: Duration,
    handshake_timeout: Duration,
    idle_timeout: Duration,
    /// Empty where everybody is served.
    allowed: HashSet<[u8; 32]>,
}

impl Rules {
    fn new(config: &Config, ground: &Ground) -> Self {
        let speaker = |(number, at): (usize, &SocketAddr)| {
            let transport = [Transport::Tcp, Transport::Udp][number % 2];
            let public = SocketAddr::new(config.public_ip, at.port());
            Speaker::new(transport, config.network_id, public)
        };
        Self {
            speakers: ground.addresses.iter().enumerate().map(speaker).collect(),
            network: config.network_id,
            public_ip: config.public_ip,
            bind_ip: config.bind_ip,
            max_frame: config.max_frame,
            max_visitors: config.max_visitors,
            max_unregistered: config.max_unregistered,
            max_frame_memory: config.max_frame_memory,
            keepalive_timeout: config.keepalive_timeout,
            handshake_timeout: ground.limits.handshake_timeout,
            idle_timeout: ground.limits.idle_timeout,
            allowed: config.allow_keys.iter().copied().collect(),
        }
    }

    /// Whether the sender of a request or a Keepalive is served: where there is a list of keys, it
    /// must be on it and have signed.
    fn admit(&self, demand: &Demand<'_>) -> Result<(), Close> {
        if self.allowed.is_empty() {
            return Ok(());
        }
        let denied = |why| Err(Close::downstream(Cause::Denied(why)));
        if !self.allowed.contains(demand.net_key) {
            return denied("the key is not allowed");
        }
        match verify(demand) {
            Ok(()) => Ok(()),
            Err(wire::Untrusted::Unsigned) => denied("the message is not signed"),
            Err(wire::Untrusted::Forged) => denied("the signature is wrong"),
        }
    }

    /// Who a message is from; with a list of keys, one of them.
    fn identify(&self, demand: &Demand<'_>, transport: Transport) -> Identity {
        match self.allowed.is_empty() {
            true => Identity::of(demand, transport),
            false => Identity::of_key(demand, transport),
        }
    }
}

struct NodeService {
    rules: Current<Rules>,
    registry: Arc<Registry>,
}

impl Service for NodeService {
    fn seat(&self, _core: u8) -> Box<dyn Seat> {
        let desk = Desk::new(self.rules.value(), Arc::clone(&self.registry));
        Box::new(NodeSeat {
            rules: self.rules.clone(),
            desk: Rc::new(RefCell::new(desk)),
        })
    }

    fn renew(&self, role: &dyn Role, ground: &Ground) {
        if let Some(config) = same_role(role) {
            let former = self.rules.value();
            self.rules.set(Rules {
                max_frame: former.max_frame,
                max_frame_memory: former.max_frame_memory,
                ..Rules::new(config, ground)
            });
        }
    }
}

/// One core's part.
struct NodeSeat {
    rules: Current<Rules>,
    desk: Rc<RefCell<Desk>>,
}

impl Seat for NodeSeat {
    fn accept(&mut self, listener: usize) -> Box<dyn Session> {
        Box::new(NodeSession::new(Rc::clone(&self.desk), listener))
    }

    fn datagrams(&mut self, listener: usize) -> Option<Box<dyn Session>> {
        Some(Box::new(Datagrams::new(Rc::clone(&self.desk), listener)))
    }

    fn renew(&mut self) {
        self.desk.borrow_mut().rules = self.rules.value();
    }

    fn check(&self) {
        self.desk.borrow().check();
    }
}

/// Leases of addresses for TCP, in the store and in commands.
const TCP_POOL: &str = "node/tcp";

/// Leases of addresses for UDP, which are others.
const UDP_POOL: &str = "node/udp";
