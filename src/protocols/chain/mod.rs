//! The chain role: listeners for processes that know nothing of chains.
//!
//! # What the document says
//!
//! An access server is an access point for processes that know nothing of the proxy protocol; the
//! chain behind it is defined beforehand. A chain of no hops leads straight to the destination, and
//! that is the only kind there is so far: `[[chain.access]]` with `via = []`.
//!
//! # Decisions
//!
//! * The destination is dialled as soon as a connection is accepted. What the client sends
//!   meanwhile waits in front of the relay, unread by this role; its end of stream is passed on
//!   when its turn comes; its reset ends the attempt.
//! * A destination that cannot be reached ends the client's connection by FIN, without a byte: in
//!   plain TCP there is nobody to tell why. The log tells.
//! * Destinations of one listener are used in turn; one that could not be reached is passed over
//!   for five seconds while there are others. Every address of a name is tried. At most three
//!   connect timeouts pass in all.
//! * All addresses of one listener share that turn, on each core by itself.
//! * A server that stops lets dialling and relaying sessions go on until they end, or until
//!   `drain_timeout`.
//!
//! # States
//!
//! ```text
//!   accept ─> Dialling ── connected ──> Relaying ─> end
//!                └─ nobody reached, client lost ──> end
//! ```

pub mod config;
pub mod policy;
mod session;
pub mod users;
pub mod wire;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use config::{Access, AccessProtocol, Config, Hop, Hops};

use crate::config::{Key, Settings};
use crate::control::resolver::Names;
use crate::session::{Ground, Listen, Protocol, Role, Seat, Service, Session, Transport};
use crate::upstream::Targets;

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
        Arc::new(ChainService {
            config: self.clone(),
            connect_timeout: ground.limits.connect_timeout,
            names: ground.names.clone(),
        })
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

    /// True for the one kind that is served so far.
    fn is_plain(&self) -> bool {
        let [chain] = &self.chains[..] else {
            return false;
        };
        self.protocol == AccessProtocol::Tcp && chain.hops.is_empty()
    }
}

struct ChainService {
    config: Config,
    connect_timeout: Duration,
    names: Names,
}

impl Service for ChainService {
    fn seat(&self, _core: u8) -> Box<dyn Seat> {
        let hops = self.config.listen.iter().flat_map(|_| [None, None]);
        let access = self.config.access.iter().flat_map(|access| {
            let targets = access.is_plain().then(|| {
                let targets = access.to.clone();
                Targets::new(targets, self.connect_timeout, self.names.clone())
            });
            std::iter::repeat_n(targets, access.listen.len())
        });
        Box::new(ChainSeat(hops.chain(access).collect()))
    }
}

/// The destinations of each listener, numbered as [`Role::listen`] lists them; none where the
/// listener is not served yet.
struct ChainSeat(Vec<Option<Rc<Targets>>>);

impl Seat for ChainSeat {
    fn accept(&mut self, listener: usize) -> Box<dyn Session> {
        match &self.0[listener] {
            Some(targets) => Box::new(session::AccessSession::new(Rc::clone(targets))),
            None => Box::new(session::Unserved),
        }
    }

    fn datagrams(&mut self, _listener: usize) -> Option<Box<dyn Session>> {
        Some(Box::new(session::Unserved))
    }
}
