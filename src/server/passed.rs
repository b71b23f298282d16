//! Sockets that are older than this process: a service manager has passed them at its start, from a
//! socket unit or from the store in which an earlier process of this server had put them; or an older
//! process that drains has handed them over.
//!
//! ```text
//!   socket unit ───┐                    ┌─ to the listener with this address, and with this name
//!                  ├── LISTEN_FDS ──┬───┤  where the name is that of a listener
//!   store ─────────┘                │   └─ nobody's: closed, with a line in the log
//!   older process ──── `handover` ──┘
//! ```
//!
//! A name of a listener is `agent`, or `access.db` where a role has listeners by name. In the store
//! each core's socket is there, under the listener's name with the core's number: `agent-0`. Any
//! other name, such as the socket unit's own, says nothing. A listener whose configured port is 0
//! has no address to go by, and takes the sockets of its name on its IP address.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::supervisor::Supervisor;
use crate::net::{self, Adoptable};
use crate::session::{Listen, Transport};
use crate::sys;

/// What was passed and has no listener yet.
pub(super) struct Passed {
    waiting: RefCell<Vec<Descriptor>>,
    /// The names of all listeners.
    labels: Vec<String>,
}

/// One passed descriptor.
struct Descriptor {
    /// Its number at the start.
    number: RawFd,
    name: String,
    nature: Adoptable,
    socket: OwnedFd,
}

/// A passed socket that has its listener.
pub(super) struct Claimed {
    pub(super) socket: OwnedFd,
    /// It comes from the store; else a socket unit keeps it.
    pub(super) is_stored: bool,
}

impl Passed {
    /// What this process was given, to be called before it opens anything.
    pub(super) fn take(services: &[Vec<Listen>]) -> Self {
        let given = sys::passed_descriptors().unwrap_or_else(|error| {
            log::warn!("the descriptors passed at the start are of no use: {error}");
            Vec::new()
        });
        Self::of(given, services)
    }

    /// These descriptors, for the listeners of these services.
    pub(super) fn of(given: Vec<(OwnedFd, String)>, services: &[Vec<Listen>]) -> Self {
        let of_socket = |(socket, name): (OwnedFd, String)| Descriptor {
            number: socket.as_raw_fd(),
            name,
            nature: net::inspect(socket.as_fd()),
            socket,
        };
        Self {
            waiting: RefCell::new(given.into_iter().map(of_socket).collect()),
            labels: services.iter().flatten().map(label).collect(),
        }
    }

    /// The sockets of a listener, in the order of their cores, and where they are bound.
    pub(super) fn claim(&self, listen: &Listen) -> Option<(SocketAddr, Vec<Claimed>)> {
        let label = label(listen);
        let mut at = None;
        let mut waiting = self.waiting.borrow_mut();
        let fits = |one: &mut Descriptor| {
            let Some(bound) = one.address(listen.transport) else {
                return false;
            };
            let named = self.meaning(&one.name);
            let is_by_name = named.is_some_and(|(name, _)| name == label);
            let wanted: SocketAddr = at.unwrap_or(listen.address);
            let is_there =
                bound == wanted || (is_by_name && wanted.port() == 0 && bound.ip() == wanted.ip());
            let fits = is_there && (is_by_name || named.is_none());
            if fits {
                // All sockets of one listener have one address.
                at = Some(bound);
            }
            fits
        };
        let mut own: Vec<Descriptor> = waiting.extract_if(.., fits).collect();
        let core = |one: &Descriptor| self.meaning(&one.name).and_then(|(_, core)| core);
        own.sort_by_key(|one| (core(one).unwrap_or(usize::MAX), one.number));
        let claimed = own.into_iter().map(|one| Claimed {
            is_stored: core(&one).is_some(),
            socket: one.socket,
        });
        Some((at?, claimed.collect()))
    }

    /// Closes what is nobody's, and has the store forget it: a socket that nobody serves would keep
    /// its share of the clients waiting for ever.
    pub(super) fn close_rest(&self, supervisor: &Supervisor) {
        for one in self.waiting.take() {
            log::warn!("{one}; it is closed");
            supervisor.forget(&one.name);
        }
    }

    /// Which listener a name means, and which core of it.
    fn meaning<'a>(&self, name: &'a str) -> Option<(&'a str, Option<usize>)> {
        let is_known = |name: &str| self.labels.iter().any(|label| label == name);
        if is_known(name) {
            return Some((name, None));
        }
        let (label, core) = name.rsplit_once('-')?;
        let core = core.parse().ok()?;
        is_known(label).then_some((label, Some(core)))
    }
}

impl Descriptor {
    /// Where it is bound, if it is for that transport.
    fn address(&self, transport: Transport) -> Option<SocketAddr> {
        match (self.nature, transport) {
            (Adoptable::Listener(at), Transport::Stream)
            | (Adoptable::Datagrams(at), Transport::Datagram) => Some(at),
            _ => None,
        }
    }
}

/// What the log says of a descriptor that has no use.
impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, name) = (self.number, &self.name);
        write!(f, "passed descriptor {number} named {name} ")?;
        match self.nature {
            Adoptable::Listener(at) => write!(f, "is of no configured listener: it is at {at}"),
            Adoptable::Datagrams(at) => write!(
                f,
                "is of no configured listener: it is for datagrams at {at}"
            ),
            Adoptable::Neither => f.write_str("is no listening TCP socket and no UDP socket"),
        }
    }
}

/// What a service manager calls a listener: `agent`, or `access.db`. A name may not have every
/// character there, nor any length.
pub(super) fn label(listen: &Listen) -> String {
    name_of(&listen.to_string())
}

/// The same, of what the log calls the listener: `access db`.
pub(super) fn name_of(listener: &str) -> String {
    let whole = listener.replacen(' ', ".", 1);
    let allowed = |c: char| c.is_ascii_graphic() && c != ':';
    let plain = |c: char| if allowed(c) { c } else { '_' };
    whole.chars().take(LONGEST).map(plain).collect()
}

/// The admin address's key in the address file, its word in the log, and the name of its sockets.
pub(super) const ADMIN: &str = "admin";

/// Room is left below the 255 that a name may have, for the number of a core.
const LONGEST: usize = 240;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn listen(name: Option<&str>, address: SocketAddr, transport: Transport) -> Listen {
        Listen {
            role: if name.is_some() { "access" } else { "agent" },
            name: name.map(Box::from),
            address,
            transport,
            terms: std::sync::Arc::default(),
        }
    }

    fn opened() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    fn given(sockets: Vec<(impl Into<OwnedFd>, &str)>) -> Vec<(OwnedFd, String)> {
        let own = |(socket, name): (_, &str)| (Into::into(socket), name.to_owned());
        sockets.into_iter().map(own).collect()
    }

    fn numbers(claimed: Option<(SocketAddr, Vec<Claimed>)>) -> Vec<(RawFd, bool)> {
        let claimed = claimed.map(|(_, claimed)| claimed).unwrap_or_default();
        let number = |one: &Claimed| (one.socket.as_raw_fd(), one.is_stored);
        claimed.iter().map(number).collect()
    }

    #[test]
    fn an_address_is_enough_and_another_listeners_name_is_too_much() {
        let ((plain, here), (wrong, there)) = (opened(), opened());
        let number = plain.as_raw_fd();
        let db = listen(Some("db"), here, Transport::Stream);
        let agent = listen(None, there, Transport::Stream);
        let services = [vec![db.clone(), agent.clone()]];
        let sockets = given(vec![(plain, "towpath.socket"), (wrong, "access.db")]);
        let passed = Passed::of(sockets, &services);
        assert_eq!(numbers(passed.claim(&agent)), []);
        assert_eq!(numbers(passed.claim(&db)), [(number, false)]);
        assert_eq!(numbers(passed.claim(&db)), [], "once");
        let rest = passed.waiting.borrow()[0].to_string();
        let want = format!("named access.db is of no configured listener: it is at {there}");
        assert!(rest.ends_with(&want), "{rest}");
        passed.close_rest(&Supervisor::none());
        assert!(passed.waiting.borrow().is_empty());
    }

    #[test]
    fn sockets_of_the_store_come_in_the_order_of_their_cores() {
        let (first, at) = opened();
        let second = first.try_clone().unwrap();
        let want = [(first.as_raw_fd(), true), (second.as_raw_fd(), true)];
        let agent = listen(None, at, Transport::Stream);
        let sockets = given(vec![(second, "agent-1"), (first, "agent-0")]);
        let passed = Passed::of(sockets, &[vec![agent.clone()]]);
        assert_eq!(numbers(passed.claim(&agent)), want);
    }

    #[test]
    fn a_name_finds_the_listener_that_has_no_port_yet() {
        let (socket, at) = opened();
        let anywhere = listen(None, "127.0.0.1:0".parse().unwrap(), Transport::Stream);
        let passed = Passed::of(given(vec![(socket, "agent")]), &[vec![anywhere.clone()]]);
        let elsewhere = listen(None, "127.0.0.2:0".parse().unwrap(), Transport::Stream);
        assert!(passed.claim(&elsewhere).is_none());
        assert_eq!(passed.claim(&anywhere).unwrap().0, at);
        let passed = Passed::of(given(vec![(opened().0, "x")]), &[vec![anywhere.clone()]]);
        assert!(
            passed.claim(&anywhere).is_none(),
            "a name that says nothing"
        );
    }

    #[test]
    fn streams_and_datagrams_are_told_apart() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (at, number) = (socket.local_addr().unwrap(), socket.as_raw_fd());
        let stream = listen(None, at, Transport::Stream);
        let datagram = listen(None, at, Transport::Datagram);
        let services = [vec![stream.clone(), datagram.clone()]];
        let passed = Passed::of(given(vec![(socket, "agent-0")]), &services);
        assert!(passed.claim(&stream).is_none());
        assert_eq!(numbers(passed.claim(&datagram)), [(number, true)]);
    }

    #[test]
    fn a_label_is_a_name_that_a_service_manager_takes() {
        let at = "127.0.0.1:1".parse().unwrap();
        let odd = listen(Some("d b:ü-7"), at, Transport::Stream);
        assert_eq!(label(&odd), "access.d_b__-7");
        let passed = Passed::of(Vec::new(), &[vec![odd]]);
        let (name, stored) = ("access.d_b__-7", "access.d_b__-7-3");
        assert_eq!(passed.meaning(name), Some((name, None)));
        assert_eq!(passed.meaning(stored), Some((name, Some(3))));
        assert_eq!(passed.meaning("access.d_b_"), None);
    }
}
