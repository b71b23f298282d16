//! A server with every role on, and the address of each of its listeners for connections.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

use super::peer::Peer;
use super::server::{Server, Setup};

/// What the address file calls the listeners.
pub const ROLES: [&str; 7] = [
    "agent",
    "chain",
    "access",
    "node",
    "tunnel",
    "gateway-clients",
    "gateway-servers",
];

/// All roles on free ports; `lines` stand in the table of each. The access listener leads to
/// `backend`, and so does the route `svc`.
pub fn all(backend: SocketAddr, lines: &str) -> Setup {
    let free = "127.0.0.1:0";
    let tables = format!(
        "[chain]\nlisten = ['{free}']\n{lines}\n\
         [[chain.access]]\nname = 'db'\nlisten = '{free}'\nvia = []\nto = '{backend}'\n{lines}\n\
         [node]\nlisten = ['{free}']\n{lines}\n\
         [tunnel]\nlisten = ['{free}']\n{lines}\n\
         [gateway]\nclients = ['{free}']\nservers = ['{free}']\n{lines}\n"
    );
    Setup::to(backend)
        .agent(lines)
        .tables(&tables)
        .limit("handshake_timeout = \"60s\"")
}

/// Where a role listens.
pub fn address(server: &Server, role: &str) -> SocketAddr {
    let list = match role {
        "access" => &server.addresses["access"]["db"],
        role => &server.addresses[role],
    };
    list[0].as_str().unwrap().parse().unwrap()
}

/// Connects to a role.
pub fn connect(server: &Server, role: &str) -> Peer {
    Peer::connect(address(server, role))
}

/// Connects to a role from another address of this host.
pub fn connect_from(source: &str, server: &Server, role: &str) -> Peer {
    let source: IpAddr = source.parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&address(server, role).into()).unwrap();
    Peer::new(socket.into())
}
