//! Listening sockets: bound once for each core before a worker has them, and announced.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use mio::net::TcpListener;
use serde_json::{Map, Value};

use super::StartError;
use super::passed::{Claimed, Passed, label};
use super::supervisor::Supervisor;
use crate::net::{self, KernelSocket, SocketOptions};
use crate::session::{Listen, Transport};

/// One address of one role, listened on by every core.
pub(super) struct Bound {
    service: usize,
    number: usize,
    /// As the configuration names it.
    asked: Listen,
    /// With the port that was bound.
    listen: Listen,
    /// Those of each core, until it takes them: one, but for sockets that were passed.
    sockets: Vec<RefCell<Vec<Placed>>>,
}

/// A socket in its place.
struct Placed {
    opened: Opened,
    /// The service manager's store shall have it, so that it outlives this process.
    is_kept: bool,
}

/// A socket that is bound to a listener's address.
pub(super) enum Opened {
    /// For connections.
    Stream(TcpListener),
    /// For datagrams.
    Datagram(KernelSocket),
}

impl Opened {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Opened::Stream(socket) => socket.as_fd(),
            Opened::Datagram(socket) => socket.as_fd(),
        }
    }
}

/// One core's socket of a [`Bound`].
pub(super) struct Share {
    /// Which service it belongs to.
    pub(super) service: usize,
    /// Which of the service's listeners it is.
    pub(super) number: usize,
    /// What it is called and where it listens.
    pub(super) listen: Listen,
    /// The socket.
    pub(super) socket: Opened,
}

impl Bound {
    /// Whose it is, by the number that it was bound for.
    pub(super) fn service(&self) -> usize {
        self.service
    }

    /// Which of those it is.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// As it was asked for.
    pub(super) fn asked(&self) -> &Listen {
        &self.asked
    }

    /// What it is called and where it listens.
    pub(super) fn listen(&self) -> &Listen {
        &self.listen
    }

    /// A core's own sockets; they can be taken once.
    pub(super) fn share(&self, core: usize) -> Vec<Share> {
        let placed = self.sockets.get(core).map(RefCell::take);
        let share = |placed: Placed| Share {
            service: self.service,
            number: self.number,
            listen: self.listen.clone(),
            socket: placed.opened,
        };
        placed.into_iter().flatten().map(share).collect()
    }
}

/// Has the service manager keep the sockets, each under its listener's name and its core's number.
/// Where it has no room for all, it has some of every listener.
pub(super) fn keep(bound: &[Bound], cores: usize, supervisor: &Supervisor) {
    for core in 0..cores {
        for at in bound {
            let Some(placed) = at.sockets.get(core) else {
                continue;
            };
            let name = format!("{}-{core}", label(&at.listen));
            let placed = placed.borrow();
            let kept = placed.iter().filter(|placed| placed.is_kept);
            supervisor.keep(
                &name,
                &at.listen,
                kept.map(|placed| placed.opened.descriptor()),
            );
        }
    }
}

/// Listens on every address of every service once for each core, by sockets that were passed where
/// there are some.
pub(super) fn bind_all(
    services: &[Vec<Listen>],
    cores: usize,
    options: SocketOptions,
    passed: &Passed,
) -> Result<Vec<Bound>, StartError> {
    let open = |listen: &Listen| match passed.claim(listen) {
        Some((at, claimed)) => adopt_cores(listen, at, claimed, cores, options),
        None => bind_cores(listen, cores, options, true),
    };
    let mut bound = Vec::new();
    for (service, listens) in services.iter().enumerate() {
        let numbered = listens.iter().cloned().enumerate().collect::<Vec<_>>();
        bind_service(service, &numbered, open, &mut bound)?;
    }
    Ok(bound)
}

/// Listens on further addresses, which have the numbers that they are to have; `closing` will be closed
/// when they are open, and may be where one of them is to be.
pub(super) fn bind_more(
    services: &[Vec<(usize, Listen)>],
    cores: usize,
    options: SocketOptions,
    closing: &[Listen],
) -> Result<Vec<Bound>, StartError> {
    let open = |listen: &Listen| {
        let is_ours = closing.iter().any(|own| meets(own, listen));
        bind_cores(listen, cores, options, !is_ours)
    };
    let mut bound = Vec::new();
    for (service, listens) in services.iter().enumerate() {
        bind_service(service, listens, open, &mut bound)?;
    }
    Ok(bound)
}

/// True when the two cannot be open at a time, but for sockets that share an address.
fn meets(one: &Listen, other: &Listen) -> bool {
    let (a, b) = (one.address, other.address);
    let is_wide = a.ip().is_unspecified() || b.ip().is_unspecified();
    one.transport == other.transport && a.port() == b.port() && (a.ip() == b.ip() || is_wide)
}

fn bind_service(
    service: usize,
    listens: &[(usize, Listen)],
    open: impl Fn(&Listen) -> io::Result<(Listen, Vec<Vec<Placed>>)>,
    bound: &mut Vec<Bound>,
) -> Result<(), StartError> {
    let mut at = 0;
    while let Some((_, listen)) = listens.get(at) {
        let next = listens.get(at + 1);
        let both = next.is_some_and(|(_, next)| listen.shares_with(next));
        let part = &listens[at..=at + usize::from(both)];
        let group: Vec<Listen> = part.iter().map(|(_, listen)| listen.clone()).collect();
        let opened = bind_group(&group, &open)?;
        for ((number, asked), (listen, sockets)) in part.iter().zip(opened) {
            bound.push(Bound {
                service,
                number: *number,
                asked: asked.clone(),
                listen,
                sockets: sockets.into_iter().map(RefCell::new).collect(),
            });
        }
        at += part.len();
    }
    Ok(())
}

/// Where a service listens, in the order of its listeners.
pub(super) fn addresses(bound: &[Bound], service: usize) -> Vec<SocketAddr> {
    let own = bound.iter().filter(|at| at.service == service);
    own.map(|at| at.listen.address).collect()
}

/// What a service calls its listeners in the address file.
pub(super) fn roles(bound: &[Bound], service: usize) -> Vec<&'static str> {
    let own = bound.iter().filter(|at| at.service == service);
    own.map(|at| at.listen.role).collect()
}

/// Binds listens of one address to one port. Where any free port will do, one that is free for the
/// first may be taken for the second: then another is tried, [`PORTS`] of them at most.
fn bind_group<T>(
    group: &[Listen],
    bind: impl Fn(&Listen) -> io::Result<(Listen, T)>,
) -> Result<Vec<(Listen, T)>, StartError> {
    // Held until the end, so that the system does not offer the same port again.
    let mut passed_over = Vec::new();
    loop {
        let mut done: Vec<(Listen, T)> = Vec::new();
        let failure = group.iter().find_map(|listen| {
            let mut wanted = listen.clone();
            if let Some((first, _)) = done.first() {
                wanted.address = first.address;
            }
            match bind(&wanted) {
                Ok(one) => {
                    done.push(one);
                    None
                }
                Err(error) => Some((wanted, error)),
            }
        });
        let Some((listen, error)) = failure else {
            return Ok(done);
        };
        let was_offered = listen.address.port() != 0 && group[0].address.port() == 0;
        let is_taken = error.kind() == io::ErrorKind::AddrInUse;
        if !was_offered || !is_taken || passed_over.len() == PORTS {
            return Err(StartError::Listen(listen, error));
        }
        passed_over.push(done);
    }
}

/// One listening socket for each core on the same address; port 0 becomes one chosen port.
fn bind_cores(
    listen: &Listen,
    cores: usize,
    options: SocketOptions,
    is_probed: bool,
) -> io::Result<(Listen, Vec<Vec<Placed>>)> {
    // Sockets that share an address would also share it with another server of the same user, who
    // would then get a part of the connections. A socket that does not share finds that out.
    let mut address = listen.address;
    if is_probed {
        match listen.transport {
            // The system chooses a port for connections that nobody has: the first socket takes it at
            // once, and the others join.
            Transport::Stream if address.port() == 0 => {}
            Transport::Stream => drop(net::probe(address)?),
            // For datagrams it may choose one that can be shared.
            Transport::Datagram => address = net::probe_datagrams(address)?.address()?,
        }
    }
    let mut sockets = Vec::with_capacity(cores);
    for _ in 0..cores {
        let opened = match listen.transport {
            Transport::Stream => {
                let socket = net::bind(address, options)?;
                address = socket.local_addr()?;
                Opened::Stream(socket)
            }
            Transport::Datagram => {
                let socket = net::bind_datagrams(address)?;
                address = socket.address()?;
                Opened::Datagram(socket)
            }
        };
        let is_kept = true;
        sockets.push(vec![Placed { opened, is_kept }]);
    }
    let chosen = Listen {
        address,
        ..listen.clone()
    };
    Ok((chosen, sockets))
}

/// Gives sockets that were passed to the cores in turn: every one of them has a core, as the system
/// gives each its share of the clients. A core that gets none shares a listening socket with
/// another: both are told of a client, and whoever accepts first has it. Datagrams cannot be shared
/// so, as those of one sender would go to several sessions; a core without a socket for them has
/// none.
fn adopt_cores(
    listen: &Listen,
    address: SocketAddr,
    claimed: Vec<Claimed>,
    cores: usize,
    options: SocketOptions,
) -> io::Result<(Listen, Vec<Vec<Placed>>)> {
    let count = claimed.len();
    log::info!("{listen} takes {count} passed sockets at {address}");
    let mut claimed = claimed;
    if listen.transport == Transport::Stream {
        for core in count..cores {
            claimed.push(Claimed {
                socket: claimed[core % count].socket.try_clone()?,
                // Whose copy it is, keeps it.
                is_stored: false,
            });
        }
    }
    let mut sockets: Vec<Vec<Placed>> = (0..cores).map(|_| Vec::new()).collect();
    for (number, one) in claimed.into_iter().enumerate() {
        let opened = match listen.transport {
            Transport::Stream => Opened::Stream(net::adopt(one.socket, options)?),
            Transport::Datagram => Opened::Datagram(net::adopt_datagrams(one.socket)?),
        };
        let is_kept = one.is_stored;
        sockets[number % cores].push(Placed { opened, is_kept });
    }
    let chosen = Listen {
        address,
        ..listen.clone()
    };
    Ok((chosen, sockets))
}

/// How many ports that turn out to be taken are passed over.
const PORTS: usize = 16;

/// Says where the server listens, in the log and in the address file.
pub(super) fn announce(listens: &[Listen], file: Option<&Path>) -> Result<(), StartError> {
    say(listens);
    file.map_or(Ok(()), |file| write(listens, file))
}

/// One line in the log for each.
pub(super) fn say<'a>(listens: impl IntoIterator<Item = &'a Listen>) {
    for listen in listens {
        let purpose = listen.transport.purpose();
        log::info!("{listen} listening on {}{purpose}", listen.address);
    }
}

/// Writes the address file. There an address is listed once, though it may be one for connections and
/// one for datagrams.
pub(super) fn write(listens: &[Listen], path: &Path) -> Result<(), StartError> {
    let mut roles: Map<String, Value> = Map::new();
    for listen in listens {
        let entry = roles.entry(listen.role).or_insert(Value::Null);
        let address = listen.address.to_string().into();
        match &listen.name {
            None => push(entry, address),
            Some(name) => {
                if !entry.is_object() {
                    *entry = Value::Object(Map::new());
                }
                if let Value::Object(names) = entry {
                    push(names.entry(&**name).or_insert(Value::Null), address);
                }
            }
        }
    }
    let failed = |error| StartError::AddressFile(path.to_owned(), error);
    // Renamed into place, so that whoever waits for the file never reads half of it.
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, format!("{}\n", Value::Object(roles))).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)
}

/// Appends to a list what is not in it; the list begins with its first entry.
fn push(list: &mut Value, entry: Value) {
    match list {
        Value::Array(entries) if entries.contains(&entry) => {}
        // An address for streams and datagrams is one.
        Value::Array(entries) if entries.last() == Some(&entry) => {}
        Value::Array(entries) => entries.push(entry),
        _ => *list = Value::Array(vec![entry]),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::OwnedFd;

    use super::*;

    const OPTIONS: SocketOptions = SocketOptions {
        user_timeout: std::time::Duration::from_secs(60),
        keepalive: std::time::Duration::from_secs(60),
    };

    fn listen(transport: Transport) -> Listen {
        Listen {
            role: "agent",
            name: None,
            address: "127.0.0.1:0".parse().unwrap(),
            transport,
            terms: std::sync::Arc::default(),
        }
    }

    fn bound(role: &'static str, name: Option<&str>, address: &str) -> Listen {
        Listen {
            role,
            name: name.map(Box::from),
            address: address.parse().unwrap(),
            transport: Transport::Stream,
            terms: std::sync::Arc::default(),
        }
    }

    fn nothing() -> Passed {
        Passed::of(Vec::new(), &[])
    }

    /// Sockets as the store has them, named for `names`, all at one address.
    fn stored(transport: Transport, names: &[&str]) -> (Listen, Vec<(OwnedFd, String)>) {
        let (chosen, sockets) = bind_cores(&listen(transport), names.len(), OPTIONS, true).unwrap();
        let own = |(placed, name): (Placed, &&str)| {
            let socket = placed.opened.descriptor().try_clone_to_owned().unwrap();
            (socket, (*name).to_owned())
        };
        let sockets = sockets.into_iter().flatten().zip(names).map(own).collect();
        (chosen, sockets)
    }

    /// How many sockets each of `cores` has of the passed ones, and how many of them are kept.
    fn adopted(transport: Transport, names: &[&str], cores: usize) -> Vec<(usize, usize)> {
        let (listen, sockets) = stored(transport, names);
        let services = [vec![listen.clone()]];
        let passed = Passed::of(sockets, &services);
        let bound = bind_all(&services, cores, OPTIONS, &passed).unwrap();
        assert_eq!(bound[0].listen.address, listen.address);
        let count = |sockets: &RefCell<Vec<Placed>>| {
            let sockets = sockets.borrow();
            let kept = sockets.iter().filter(|placed| placed.is_kept);
            (sockets.len(), kept.count())
        };
        bound[0].sockets.iter().map(count).collect()
    }

    #[test]
    fn every_core_has_a_passed_socket_and_every_passed_socket_a_core() {
        let stream = Transport::Stream;
        let three = ["agent-0", "agent-1", "agent-2"];
        assert_eq!(adopted(stream, &three, 3), [(1, 1); 3]);
        assert_eq!(adopted(stream, &three, 2), [(2, 2), (1, 1)]);
        assert_eq!(adopted(stream, &three[..1], 2), [(1, 1), (1, 0)]);
        assert_eq!(adopted(stream, &["agent"], 2), [(1, 0), (1, 0)]);
        let datagram = Transport::Datagram;
        assert_eq!(adopted(datagram, &three, 2), [(2, 2), (1, 1)]);
        assert_eq!(adopted(datagram, &["agent"], 2), [(1, 0), (0, 0)]);
    }

    #[test]
    fn the_address_file_lists_roles_and_named_listeners() {
        let directory =
            std::env::temp_dir().join(format!("towpath-announce-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("addresses.json");
        let all = [
            bound("agent", None, "127.0.0.1:1"),
            bound("agent", None, "[::1]:2"),
            bound("agent", None, "127.0.0.1:1"),
            bound("access", Some("db"), "127.0.0.1:3"),
            bound("access", Some("web"), "127.0.0.1:4"),
        ];
        announce(&all, Some(&path)).unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let want = serde_json::json!({
            "agent": ["127.0.0.1:1", "[::1]:2"],
            "access": { "db": ["127.0.0.1:3"], "web": ["127.0.0.1:4"] },
        });
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), want);
    }

    #[test]
    fn a_busy_address_is_refused_although_sockets_share_theirs() {
        for transport in [Transport::Stream, Transport::Datagram] {
            let (chosen, sockets) = bind_cores(&listen(transport), 3, OPTIONS, true).unwrap();
            assert_eq!(sockets.len(), 3);
            let busy = bind_cores(&chosen, 3, OPTIONS, true).err().unwrap();
            assert_eq!(busy.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn connections_and_datagrams_share_a_free_port() {
        let (stream, datagram) = (listen(Transport::Stream), listen(Transport::Datagram));
        let services = [
            vec![stream.clone(), datagram.clone(), datagram],
            vec![stream],
        ];
        let bound = bind_all(&services, 2, OPTIONS, &nothing()).unwrap();
        let places: Vec<_> = bound.iter().map(|at| (at.service, at.number)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0)]);
        let ports: Vec<_> = bound.iter().map(|at| at.listen.address.port()).collect();
        assert_eq!(ports[0], ports[1]);
        assert!(ports[0] != ports[2] && ports[0] != ports[3] && !ports.contains(&0));
        let kinds: Vec<_> = bound.iter().map(|at| at.listen.transport).collect();
        assert_eq!(kinds[1], Transport::Datagram);
        let share = bound[1].share(1);
        assert!(matches!(
            share[..],
            [Share {
                socket: Opened::Datagram(_),
                ..
            }]
        ));
        assert!(bound[1].share(1).is_empty(), "taken once");
    }

    #[test]
    fn a_port_that_only_one_of_two_may_have_is_passed_over() {
        let group = [listen(Transport::Stream), listen(Transport::Datagram)];
        let (offered, open) = (Cell::new(100), Cell::new(103));
        let bind = |listen: &Listen| {
            let mut bound = listen.clone();
            match listen.transport {
                Transport::Stream => bound.address.set_port(offered.replace(offered.get() + 1)),
                Transport::Datagram if listen.address.port() < open.get() => {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                Transport::Datagram => {}
            }
            Ok((bound, ()))
        };
        let bound = bind_group(&group, bind).unwrap();
        let ports: Vec<_> = bound.iter().map(|(at, ())| at.address.port()).collect();
        assert_eq!(ports, [103, 103]);
        open.set(u16::MAX);
        let before = offered.get();
        assert!(bind_group(&group, bind).is_err(), "not for ever");
        assert_eq!(usize::from(offered.get() - before), PORTS + 1);
    }

    #[test]
    fn a_port_taken_for_datagrams_is_told_when_it_was_asked_for() {
        let told = || {
            let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut both = vec![listen(Transport::Stream), listen(Transport::Datagram)];
            for listen in &mut both {
                listen.address = taken.local_addr().unwrap();
            }
            let Err(StartError::Listen(at, error)) = bind_all(&[both], 1, OPTIONS, &nothing())
            else {
                panic!("it is taken");
            };
            // Somebody else may have the port of that number for connections.
            (at.transport == Transport::Datagram).then_some((at, error))
        };
        let (at, error) = (0..20).find_map(|_| told()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let said = StartError::Listen(at, error).to_string();
        assert!(said.contains(" for datagrams: "), "{said}");
    }
}
