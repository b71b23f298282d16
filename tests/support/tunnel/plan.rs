//! The real program with the tunnel role: its keys, its range of ports, its restart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Visited;
use super::client::{Client, Service, identity};
use super::wire::{Expose, TOKEN};
use crate::support::folder::Folder;
use crate::support::node::plan::free_ports;
use crate::support::peer::Peer;
use crate::support::server::{Server, Setup};

/// How a server with the tunnel role is to be started.
#[derive(Clone)]
pub struct Plan {
    setup: Setup,
    keys: BTreeMap<&'static str, String>,
    ports: RangeInclusive<u16>,
}

impl Plan {
    /// A server that lends this many ports and wants no connections ahead of visitors.
    pub fn new(width: u16) -> Self {
        let ports = free_ports(width);
        let plan = Self {
            setup: Setup::new(),
            keys: BTreeMap::new(),
            ports: ports.clone(),
        };
        plan.key("listen", "[\"127.0.0.1:0\"]")
            .text("token", TOKEN)
            .key("pool", "0")
            .text("ports", &format!("{}-{}", ports.start(), ports.end()))
    }

    /// One that is found at the same address again.
    pub fn fixed(width: u16) -> Self {
        let main = free_ports(1);
        Self::new(width).key("listen", &format!("[\"127.0.0.1:{}\"]", main.start()))
    }

    /// A key of `[tunnel]` with its value as it stands in the file.
    pub fn key(mut self, key: &'static str, value: &str) -> Self {
        self.keys.insert(key, value.into());
        self
    }

    /// A key of `[tunnel]` with a text.
    pub fn text(self, key: &'static str, value: &str) -> Self {
        self.key(key, &format!("{value:?}"))
    }

    /// A line of `[limits]`.
    pub fn limit(mut self, line: &str) -> Self {
        self.setup = self.setup.limit(line);
        self
    }

    pub fn workers(mut self, count: usize) -> Self {
        self.setup = self.setup.top(&format!("workers = {count}"));
        self
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.setup = self.setup.flag(flag);
        self
    }

    /// A command in front of the program.
    pub fn wrapper(mut self, words: &[&str]) -> Self {
        self.setup = self.setup.wrapper(words);
        self
    }

    /// Keeps its leases here, so that a later server finds them again.
    pub fn folder(mut self, folder: &Arc<Folder>) -> Self {
        self.setup = self.setup.folder(folder);
        self
    }

    pub fn ports(&self) -> RangeInclusive<u16> {
        self.ports.clone()
    }

    /// The `[tunnel]` table.
    pub fn table(&self) -> String {
        let lines = self
            .keys
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"));
        format!("[tunnel]\n{}", lines.collect::<String>())
    }

    /// Has a running server find this instead when it reads its configuration again.
    pub fn rewrite(&self, server: &Server) {
        server.rewrite(&self.setup.clone().tables(&self.table()));
    }

    pub fn start(&self) -> Tunnel {
        let server = self.setup.clone().tables(&self.table()).start();
        let address = server.addresses["tunnel"][0].as_str().unwrap();
        Tunnel {
            address: address.parse().unwrap(),
            ports: self.ports.clone(),
            server,
        }
    }
}

/// A running server with the tunnel role.
pub struct Tunnel {
    pub server: Server,
    /// Where clients connect.
    pub address: SocketAddr,
    /// What it lends.
    pub ports: RangeInclusive<u16>,
}

impl Tunnel {
    /// A server with nothing special about it.
    pub fn new(width: u16) -> Self {
        Plan::new(width).start()
    }

    /// A connection that says nothing.
    pub fn connect(&self) -> Peer {
        Peer::connect(self.address)
    }

    /// The client of this number, welcomed.
    pub fn client(&self, number: u8) -> Client {
        Client::connect(self.address, identity(number))
    }

    /// The client of this number with one service.
    pub fn exposed(&self, number: u8) -> (Client, Service) {
        let mut client = self.client(number);
        let service = client.expose(Expose::named("web"));
        assert!(self.ports.contains(&service.public.port()), "{service:?}");
        (client, service)
    }

    /// The client of this number with a service and a visitor.
    pub fn visited(&self, number: u8) -> Visited {
        Visited::new(self, number)
    }

    pub fn process(&self) -> u32 {
        self.server.process()
    }

    /// Fails unless a fresh client gets a port and a visitor of it is served; the port stays on loan.
    pub fn expect_alive(&self) {
        let mut visited = self.visited(ALIVE);
        visited.expect_passing(b"alive");
        visited.leave();
    }

    /// Fails unless it ends well when it is told to, with nobody connected.
    pub fn stop(self) {
        self.server.expect_open(0);
        self.server.stop();
    }
}

/// The client that only shows that the server works.
const ALIVE: u8 = 0xa1;
