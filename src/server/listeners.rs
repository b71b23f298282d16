//! Listening sockets: bound once for each core before any thread starts, and announced.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use mio::net::TcpListener;
use serde_json::{Map, Value};

use super::StartError;
use crate::net::{self, SocketOptions};
use crate::session::Listen;

/// One address of one role, listened on by every core.
pub(super) struct Bound {
    service: usize,
    number: usize,
    /// With the port that was bound.
    listen: Listen,
    /// One for each core, until it takes it.
    sockets: Vec<Cell<Option<TcpListener>>>,
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
    pub(super) socket: TcpListener,
}

impl Bound {
    /// A core's own socket; it can be taken once.
    pub(super) fn share(&self, core: usize) -> Option<Share> {
        Some(Share {
            service: self.service,
            number: self.number,
            listen: self.listen.clone(),
            socket: self.sockets.get(core)?.take()?,
        })
    }
}

/// Listens on every address of every service once for each core.
pub(super) fn bind_all(
    services: &[Vec<Listen>],
    cores: usize,
    options: SocketOptions,
) -> Result<Vec<Bound>, StartError> {
    let mut bound = Vec::new();
    for (service, listens) in services.iter().enumerate() {
        for (number, listen) in listens.iter().enumerate() {
            let listened = bind_cores(listen, cores, options);
            let (listen, sockets) =
                listened.map_err(|error| StartError::Listen(listen.clone(), error))?;
            bound.push(Bound {
                service,
                number,
                listen,
                sockets: sockets.into_iter().map(|s| Cell::new(Some(s))).collect(),
            });
        }
    }
    Ok(bound)
}

/// Where a service listens, in the order of its listeners.
pub(super) fn addresses(bound: &[Bound], service: usize) -> Vec<SocketAddr> {
    let own = bound.iter().filter(|at| at.service == service);
    own.map(|at| at.listen.address).collect()
}

/// One listening socket for each core on the same address; port 0 becomes one chosen port.
fn bind_cores(
    listen: &Listen,
    cores: usize,
    options: SocketOptions,
) -> io::Result<(Listen, Vec<TcpListener>)> {
    // Sockets that share an address would also share it with another server of the same user, who
    // would then get a part of the connections. A socket that does not share finds that out.
    let probe = net::probe(listen.address)?;
    let chosen = Listen {
        address: probe.local_addr()?,
        ..listen.clone()
    };
    drop(probe);
    let sockets = (0..cores)
        .map(|_| net::bind(chosen.address, options))
        .collect::<io::Result<Vec<_>>>()?;
    Ok((chosen, sockets))
}

/// Says where the server listens, in the log and in the address file.
pub(super) fn announce(bound: &[Bound], file: Option<&Path>) -> Result<(), StartError> {
    let mut roles: Map<String, Value> = Map::new();
    for Bound { listen, .. } in bound {
        log::info!("{listen} listening on {}", listen.address);
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
    let Some(path) = file else { return Ok(()) };
    let failed = |error| StartError::AddressFile(path.to_owned(), error);
    // Renamed into place, so that whoever waits for the file never reads half of it.
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, format!("{}\n", Value::Object(roles))).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)
}

/// Appends to a list, which begins with its first entry.
fn push(list: &mut Value, entry: Value) {
    match list {
        Value::Array(entries) => entries.push(entry),
        _ => *list = Value::Array(vec![entry]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(role: &'static str, name: Option<&str>, address: &str) -> Bound {
        Bound {
            service: 0,
            number: 0,
            listen: Listen {
                role,
                name: name.map(Box::from),
                address: address.parse().unwrap(),
            },
            sockets: Vec::new(),
        }
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
        let options = SocketOptions {
            user_timeout: std::time::Duration::from_secs(60),
            keepalive: std::time::Duration::from_secs(60),
        };
        let listen = Listen {
            role: "agent",
            name: None,
            address: "127.0.0.1:0".parse().unwrap(),
        };
        let (chosen, sockets) = bind_cores(&listen, 3, options).unwrap();
        assert_eq!(sockets.len(), 3);
        let busy = bind_cores(&chosen, 3, options).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::AddrInUse);
    }
}
