//! The server's side of the tunnel: from a client's connection to a visitor's relayed bytes.
//!
//! ```text
//!   tunnel port: Entrance ──C──> Control ── lease, listeners ──> Hall of each core (direct, TCP)
//!                   │               │  ^                     └─> Trunk (mux), Datagrams (UDP)
//!                   │               │  └─ Want ── Visitor <── Accepted ── Hall
//!                   │               └─ Visit ──> client          ^
//!                   └──D ticket ── handed over ──────────────────┘  relay(visitor, data)
//! ```
//!
//! Who comes to a public port is accepted on any core and is a session of its own there. It waits for
//! a data connection, which may come to another core and is handed to the visitor's. From then on the
//! engine moves the bytes of both.
//!
//! Frames of mode *mux* and datagrams stay on one core, that of the control connection: the port of
//! such a service is listened to there only, so no frame crosses between cores.

mod control;
mod datagrams;
mod desk;
mod entrance;
mod guest;
mod hall;
mod lobby;
mod pool;
mod service;
mod trunk;
mod visitor;
mod words;
mod wrongs;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use self::desk::Desk;
use self::entrance::Entrance;
use self::hall::Hall;
use self::lobby::Lobby;
use super::config::Config;
use super::wire::Token;
use crate::session::{Ground, Resident, Session};

/// What holds for every client.
struct Rules {
    token: Token,
    bind_ip: IpAddr,
    public_ip: IpAddr,
    lease: Duration,
    max_clients: usize,
    max_unproved: usize,
    max_services: usize,
    max_visitors: usize,
    max_waiting: usize,
    visitor_timeout: Duration,
    pool: usize,
    udp_idle_timeout: Duration,
    bandwidth_per_service: u64,
    handshake_timeout: Duration,
    drain_timeout: Duration,
    /// How long a visitor in frames may be silent.
    idle_timeout: Duration,
}

impl Rules {
    fn new(config: &Config, ground: &Ground) -> Self {
        let token = config
            .token
            .as_ref()
            .map_or(&[][..], |token| token.expose());
        Self {
            token: Token::new(token),
            bind_ip: config.bind_ip,
            public_ip: config.public_ip,
            lease: config.lease,
            max_clients: config.max_clients,
            max_unproved: config.max_unproved,
            max_services: config.max_services,
            max_visitors: config.max_visitors,
            max_waiting: config.max_waiting,
            visitor_timeout: config.visitor_timeout,
            pool: config.pool,
            udp_idle_timeout: config.udp_idle_timeout,
            bandwidth_per_service: config.bandwidth_per_service,
            handshake_timeout: ground.limits.handshake_timeout,
            drain_timeout: ground.limits.drain_timeout,
            idle_timeout: ground.limits.idle_timeout,
        }
    }

    /// Where a port listens, and what clients are told of it.
    fn addresses(&self, port: u16) -> [SocketAddr; 2] {
        [self.bind_ip, self.public_ip].map(|ip| SocketAddr::new(ip, port))
    }
}

/// The server's side at work, for all cores.
pub(super) struct Server {
    lobby: Arc<Lobby>,
}

impl Server {
    pub(super) fn new(config: &Config, ground: &Ground) -> Self {
        let rules = Rules::new(config, ground);
        let lobby = Arc::new(Lobby::new(rules, ground.cores, ground.connections));
        Self { lobby }
    }

    pub(super) fn renew(&self, config: &Config, ground: &Ground) {
        self.lobby.renew(Rules::new(config, ground));
    }

    pub(super) fn office(&self, core: u8) -> Office {
        let desk = Desk::new(Arc::clone(&self.lobby), core);
        Office(Rc::new(RefCell::new(desk)))
    }
}

/// One core's part of it.
pub(super) struct Office(Rc<RefCell<Desk>>);

impl Office {
    pub(super) fn accept(&self) -> Box<dyn Session> {
        Box::new(Entrance::new(Rc::clone(&self.0)))
    }

    pub(super) fn hall(&self) -> Resident {
        Resident {
            name: "tunnel".to_owned(),
            // It has the listeners of all services, whatever else changes.
            tenure: 0,
            session: Box::new(Hall::new(Rc::clone(&self.0))),
        }
    }

    pub(super) fn check(&self) {
        self.0.borrow().check();
    }
}
