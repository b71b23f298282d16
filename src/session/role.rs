//! The contract between a protocol and the house: from its configuration to its part on each core.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use super::Session;
use crate::config::{Entry, Key, Limits, Settings, Terms};
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
pub trait Role: Any + Send + Sync + fmt::Debug {
    /// Where it listens; nowhere when it is off.
    fn listen(&self) -> Vec<Listen>;

    /// False when it is off: nothing of it is started then.
    fn is_on(&self) -> bool {
        !self.listen().is_empty()
    }

    /// What it would do, in lines for an operator.
    fn show(&self, out: &mut String);

    /// Where it leads, for an operator to see.
    fn routes(&self) -> Vec<RouteRow> {
        Vec::new()
    }

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

    /// True when nothing would be different with the other one in its place.
    fn is_like(&self, other: &dyn Role) -> bool {
        let _ = other;
        false
    }

    /// The same role with another entry in the place of those that [`Role::routes`] calls `name`, or
    /// with none; what is wrong with the entry is left in `settings`. `None` where the role's routes
    /// are not to be changed so.
    fn reroute(
        &self,
        name: &str,
        entry: Option<&Entry>,
        settings: &mut Settings,
    ) -> Option<Box<dyn Role>> {
        let _ = (name, entry, settings);
        None
    }
}

/// For [`Role::is_like`]: equal, and of one type.
pub fn alike<T: Role + PartialEq>(one: &T, other: &dyn Role) -> bool {
    same_role::<T>(other).is_some_and(|other| one == other)
}

/// A role as the type that its protocol knows; `None` when it is of another protocol.
pub fn same_role<T: Role>(role: &dyn Role) -> Option<&T> {
    let role: &dyn Any = role;
    role.downcast_ref()
}

/// One entry of where a role leads: never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRow {
    /// The role.
    pub role: &'static str,
    /// What the entry is called.
    pub name: String,
    /// What chooses among the entries of that name; empty where nothing does.
    pub field: String,
    /// Where it leads: hosts that are used in turn.
    pub to: Vec<String>,
    /// A client must show a token; a fingerprint tells it from another.
    pub guarded: Option<u64>,
    /// What else is set for it, by its key, in words.
    pub settings: Vec<(&'static str, String)>,
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
    /// Where the server listens, all roles together. When that changes, [`Service::renew`] tells.
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
    /// Who may come, how many and how fast: the same for all listeners of a role, but for those with
    /// a name, which have their own.
    pub terms: Arc<Terms>,
}

impl Listen {
    /// True when it is the same listener, whatever else is said of it.
    pub fn is_place_of(&self, other: &Listen) -> bool {
        (self.role, &self.name, self.address, self.transport)
            == (other.role, &other.name, other.address, other.transport)
    }

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

    /// Takes another configuration of its own role, for what comes from now on; the seats take it
    /// over by [`Seat::renew`], each in its time. Keys that are fixed stay as they were at the start.
    fn renew(&self, role: &dyn Role, ground: &Ground) {
        let _ = (role, ground);
    }
}

/// What a service holds at present for its seats: set by one thread, read by the seats of all cores.
pub struct Current<T>(Arc<RwLock<Arc<T>>>);

impl<T> Current<T> {
    /// With its first value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// The value that was set last.
    pub fn value(&self) -> Arc<T> {
        Arc::clone(&self.0.read())
    }

    /// Puts another in its place; whoever has the former one keeps it.
    pub fn set(&self, value: T) {
        *self.0.write() = Arc::new(value);
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A session that is there from the start.
pub struct Resident {
    /// What its log lines begin with, as those of others do with the name of their listener.
    pub name: String,
    /// When a seat is renewed, the resident that is there stays if the seat still has one of its name
    /// and tenure; else it is told that it stops, and the other begins.
    pub tenure: u64,
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

    /// Takes over what [`Service::renew`] has brought: listeners have the numbers of the new
    /// [`Role::listen`] from here on. Sessions that are open keep what they began with, as far as
    /// their role does not say otherwise.
    fn renew(&mut self) {}

    /// Sweeps over what its sessions share for contradictions; for tests, as it costs time.
    fn check(&self) {}
}
