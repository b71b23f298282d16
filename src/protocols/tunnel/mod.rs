//! The tunnel role: a public port for a service inside, behind NAT.
//!
//! A client keeps one control connection to the server and asks there for a port for each of its
//! services. Every visitor of such a port gets a connection of its own between server and client, and
//! one between client and service; or, in the mode *mux*, a share of two connections that all visitors
//! of the service travel on. The bytes are told in [`wire`].
//!
//! The server's side is in `server`, the client's in [`client`]: both are sessions on the same loop.
//!
//! # Decisions
//!
//! Where the specification is silent:
//!
//! * The server's first control frame, Welcome, tells a session id. It is as random as a visitor's uuid,
//!   and the connections of mode *mux* name it: among clients of one token nobody else knows it.
//! * A client that reconnects says the epoch that it had a service under, and one that starts says
//!   none. So a newer client always wins, and one that was frozen meanwhile never comes back.
//! * An operator who releases a lease ends the service by Refused, which names its request once more; the
//!   client may ask anew on the same connection. Superseded is told for a take-over only.
//! * A service for TCP in mode *direct*: each visitor waits for the data connection that a Visit asks
//!   for, or takes one of the pool. The pool is the client's, not the service's.
//! * A service for UDP in mode *direct*: the first visitor's Visit asks for one data connection, on
//!   which frames go both ways. Its uuid names that connection; visitors are announced by the frames.
//! * In mode *mux* there is no Visit. Each service has its own two connections, which the client opens
//!   when it has been told the port; until both are there visitors wait as in mode *direct*.
//! * A client may allow moves (an option of Expose; `towpath expose` does, without `--mux` and
//!   `--direct`): a visitor begins in the frames of mode *mux*, which spares most of them a connection,
//!   and one that carries 128 KiB within a second goes on by a data connection of its own, whose bytes
//!   nobody looks at; where the client cannot open one, it stays. How the streams change over without the
//!   loss of a byte is told in `mux`. Such a service, as any of mode *mux*, is listened to on the core of
//!   its control connection only.
//! * A visitor in frames that is silent for the server's `idle_timeout` is reset.
//! * Credit is granted against the stream, and datagrams have none.
//! * Another configuration holds for clients and visitors that come from then on, its limits at once; a
//!   service that is exposed keeps its port. Of `[[tunnel.expose]]` only the entries that differ begin anew.
//! * A ticket that was shown is used, even where it was shown for another uuid.

pub mod client;
pub mod config;
mod frames;
pub mod identity;
mod mux;
mod packets;
mod server;
pub mod tickets;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use self::client::{Agency, Tell};
pub use self::config::Config;
use self::config::Expose;
use self::server::{Office, Server};
use self::wire::{ClientId, Name, Refusal};
use crate::config::{Key, Settings};
use crate::control::leases::{NoPort, Pool};
use crate::session::{
    Current, Ground, Listen, Protocol, Resident, Role, Seat, Service, Session, Transport, alike,
    same_role,
};

/// The protocol, for the list.
pub struct Tunnel;

impl Protocol for Tunnel {
    fn name(&self) -> &'static str {
        "tunnel"
    }

    fn title(&self) -> &'static str {
        "Tunnel role"
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
        let listen = |&address| Listen {
            role: "tunnel",
            name: None,
            address,
            transport: Transport::Stream,
            terms: Arc::clone(&terms),
        };
        self.listen.iter().map(listen).collect()
    }

    fn is_on(&self) -> bool {
        !self.listen.is_empty() || !self.expose.is_empty()
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
        Arc::new(TunnelService {
            server: (!self.listen.is_empty()).then(|| Server::new(self, ground)),
            agency: Current::new(Agency::new(&self.expose, ground, true, into_the_log)),
        })
    }

    fn is_like(&self, other: &dyn Role) -> bool {
        alike(self, other)
    }
}

/// What happens to a server's own clients is for its log.
fn into_the_log(expose: &Expose) -> Tell {
    let server = expose.server.to_string();
    Arc::new(move |event| client::log(&server, &event))
}

struct TunnelService {
    server: Option<Server>,
    agency: Current<Agency>,
}

impl Service for TunnelService {
    fn seat(&self, core: u8) -> Box<dyn Seat> {
        Box::new(TunnelSeat {
            core,
            office: self.server.as_ref().map(|server| server.office(core)),
            agency: self.agency.clone(),
        })
    }

    fn renew(&self, role: &dyn Role, ground: &Ground) {
        let Some(config) = same_role::<Config>(role) else {
            return;
        };
        if let Some(server) = &self.server {
            server.renew(config, ground);
        }
        let former = self.agency.value();
        let agency = Agency::new(&config.expose, ground, true, into_the_log);
        self.agency.set(agency.behind(&former));
    }
}

/// One core's part.
struct TunnelSeat {
    core: u8,
    office: Option<Office>,
    agency: Current<Agency>,
}

impl Seat for TunnelSeat {
    fn accept(&mut self, _listener: usize) -> Box<dyn Session> {
        match &self.office {
            Some(office) => office.accept(),
            None => client::nothing(),
        }
    }

    fn resident(&mut self, number: usize) -> Option<Resident> {
        let before = usize::from(self.office.is_some());
        match &self.office {
            Some(office) if number == 0 => Some(office.hall()),
            _ => self.agency.value().resident(self.core, number - before),
        }
    }

    fn check(&self) {
        if let Some(office) = &self.office {
            office.check();
        }
    }
}

/// Leases of ports for TCP, in the store and in commands.
const TCP_POOL: &str = "tunnel/tcp";

/// Leases of ports for UDP, which are others.
const UDP_POOL: &str = "tunnel/udp";

/// Whose lease a service's port is: an identity and a name, so that two names of one identity are two,
/// from however many processes.
pub fn owner(client: &ClientId, name: &Name) -> Vec<u8> {
    [client.as_bytes(), name.as_str().as_bytes()].concat()
}

/// What a client is told when there is no port for its service.
pub fn refusal(no_port: &NoPort) -> Refusal {
    match no_port {
        NoPort::Full => Refusal::NoPorts,
        NoPort::Taken => Refusal::PortTaken,
        NoPort::Outside => Refusal::PortNotAllowed,
        NoPort::LongOwner => Refusal::BadName,
        NoPort::Superseded => Refusal::Superseded,
        NoPort::NotStored(_) => Refusal::NotStored,
    }
}

/// How often each side of a control connection pings the other.
pub const PING: Duration = Duration::from_secs(15);

/// After how many pings without any frame the other side is dead.
pub const MISSED: u32 = 3;

#[cfg(test)]
mod tests {
    use super::wire::LONGEST_NAME;
    use super::*;
    use crate::control::leases::MAX_OWNER;

    #[test]
    fn an_owner_is_short_enough_for_a_lease_and_differs_by_both_parts() {
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let of = |client, text: &str| owner(&ClientId::new([client; 16]), &name(text));
        assert!(of(1, &"x".repeat(LONGEST_NAME)).len() <= MAX_OWNER);
        assert_eq!(of(1, "a"), of(1, "a"));
        assert_ne!(of(1, "a"), of(1, "b"));
        assert_ne!(of(1, "a"), of(2, "a"));
    }

    #[test]
    fn every_want_of_a_port_has_its_code() {
        for (no_port, word) in [
            (NoPort::Full, "no_ports"),
            (NoPort::Taken, "port_taken"),
            (NoPort::Outside, "port_not_allowed"),
            (NoPort::LongOwner, "bad_name"),
            (NoPort::Superseded, "superseded"),
            (NoPort::NotStored("disk".into()), "not_stored"),
        ] {
            assert_eq!(refusal(&no_port).word(), word);
        }
    }
}
