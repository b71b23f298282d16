//! The contract between a protocol and the house: from its configuration to its part on each core.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::Session;
use crate::config::{Key, Limits, Settings};
use crate::control::leases::Pool;
use crate::control::resolver::Names;
use crate::store::{self, Memory};

/// A protocol that the server can speak: one entry of the list in `protocols`.
pub trait Protocol: Sync {
    /// Its table in the configuration.
    fn name(&self) -> &'static str;

    /// The heading of its flags in the help text.
    fn title(&self) -> &'static str;

    /// The keys of its table.
    fn keys(&self) -> &'static [Key];

    /// Reads its part of the configuration; mistakes are left in `settings`.
    fn read(&self, settings: &mut Settings) -> Box<dyn Role>;
}

/// A protocol with its configuration, before anything is opened.
pub trait Role: Send + Sync + fmt::Debug {
    /// Where it listens; nowhere when it is off.
    fn listen(&self) -> Vec<Listen>;

    /// False when it is off: nothing of it is started then.
    fn is_on(&self) -> bool {
        !self.listen().is_empty()
    }

    /// What it would do, in lines for an operator.
    fn show(&self, out: &mut String);

    /// What it asks of the agent store, if it has a use for it.
    fn store(&self) -> Option<store::Limits> {
        None
    }

    /// The ports that it lends; none when it is off. The names of pools are unique in a server.
    fn pools(&self) -> Vec<Pool> {
        Vec::new()
    }

    /// The role at work, on what the server has opened for all of them.
    fn service(&self, ground: &Ground) -> Arc<dyn Service>;
}

/// What all roles stand on.
pub struct Ground {
    /// The agent store's records.
    pub memory: Memory,
    /// The resolver's answers.
    pub names: Names,
    /// The server's limits.
    pub limits: Limits,
    /// Where the role listens, in the order of [`Role::listen`]; port 0 has become the one that
    /// was bound.
    pub addresses: Vec<SocketAddr>,
    /// Where the server listens, all roles together.
    pub own: Arc<[SocketAddr]>,
    /// How many cores there are.
    pub cores: usize,
    /// How many connections the server may hold.
    pub connections: usize,
    /// The folder of what the server keeps.
    pub data_dir: PathBuf,
}

/// One address that a role listens on, for connections or for datagrams.
///
/// An entry for datagrams right behind the entry for streams with the same address shares its port:
/// where port 0 is asked for, both get the same free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What the address file and the log call it.
    pub role: &'static str,
    /// Its own name, where a role has listeners by name.
    pub name: Option<Box<str>>,
    /// Where; port 0 is any free one.
    pub address: SocketAddr,
    /// What comes there.
    pub transport: Transport,
}

impl Listen {
    /// True when `next`, which stands behind it, has its port.
    pub fn shares_with(&self, next: &Listen) -> bool {
        let transports = (self.transport, next.transport);
        transports == (Transport::Stream, Transport::Datagram)
            && (self.role, &self.name, self.address) == (next.role, &next.name, next.address)
    }
}

/// What comes to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP connections, a session for each.
    Stream,
    /// UDP datagrams, one session on each core for all that come there.
    Datagram,
}

impl Transport {
    /// What a message about an address says behind it; the usual goes without saying.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Stream => "",
            Self::Datagram => " for datagrams",
        }
    }
}

/// `agent`, or `access db` where listeners have names.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.role)?;
        match &self.name {
            Some(name) => write!(f, " {name}"),
            None => Ok(()),
        }
    }
}

/// A role at work: made once, with a seat on each core.
pub trait Service: Send + Sync {
    /// Its part on one core.
    fn seat(&self, core: u8) -> Box<dyn Seat>;
}

/// A session that is there from the start.
pub struct Resident {
    /// What its log lines begin with, as those of others do with the name of their listener.
    pub name: String,
    /// The session.
    pub session: Box<dyn Session>,
}

/// One core's part of a service.
pub trait Seat {
    /// A session for a connection that the listener of that number in [`Role::listen`] accepted.
    fn accept(&mut self, listener: usize) -> Box<dyn Session>;

    /// The session for all datagrams that this core's socket of that listener takes, made when the
    /// server starts; `None` when there is no such listener. It should end only when it is told
    /// [`Event::Stopping`](super::Event::Stopping), after which it is given no more time than other
    /// sessions take; one that fails before is replaced, and so are its flows.
    fn datagrams(&mut self, listener: usize) -> Option<Box<dyn Session>> {
        let _ = listener;
        None
    }

    /// A session that is there from the start, without a connection that came to it, by its number
    /// from 0 on; `None` when there is none of that number. It hears [`Event::Opened`] first. Should
    /// it end before the server stops, it is asked for again, at most a hundred times a second.
    ///
    /// [`Event::Opened`]: super::Event::Opened
    fn resident(&mut self, number: usize) -> Option<Resident> {
        let _ = number;
        None
    }

    /// Sweeps over what its sessions share for contradictions; for tests, as it costs time.
    fn check(&self) {}
}
