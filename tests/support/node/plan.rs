//! The real program with the node role: its keys, its range of ports, its restart.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use super::message::Sender;
use super::{Node, Visited};
use crate::support::folder::Folder;
use crate::support::peer::Peer;
use crate::support::server::{Server, Setup};

/// How a server with the node role is to be started.
#[derive(Clone)]
pub struct Plan {
    setup: Setup,
    keys: BTreeMap<&'static str, String>,
    ports: RangeInclusive<u16>,
}

impl Plan {
    /// A server that lends this many ports.
    pub fn new(width: u16) -> Self {
        let ports = free_ports(width);
        let plan = Self {
            setup: Setup::new(),
            keys: BTreeMap::new(),
            ports: ports.clone(),
        };
        plan.key("listen", "[\"127.0.0.1:0\"]")
            .text("ports", &format!("{}-{}", ports.start(), ports.end()))
    }

    /// One that is found at the same address again.
    pub fn fixed(width: u16) -> Self {
        let main = free_ports(1);
        Self::new(width).key("listen", &format!("[\"127.0.0.1:{}\"]", main.start()))
    }

    /// A key of `[node]` with its value as it stands in the file.
    pub fn key(mut self, key: &'static str, value: &str) -> Self {
        self.keys.insert(key, value.into());
        self
    }

    /// A key of `[node]` with a text.
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

    /// Keeps its leases here, so that a later server finds them again.
    pub fn folder(mut self, folder: &Arc<Folder>) -> Self {
        self.setup = self.setup.folder(folder);
        self
    }

    pub fn ports(&self) -> RangeInclusive<u16> {
        self.ports.clone()
    }

    /// The `[node]` table.
    pub fn table(&self) -> String {
        let lines = self
            .keys
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"));
        format!("[node]\n{}", lines.collect::<String>())
    }

    /// Has a running server find this instead when it reads its configuration again.
    pub fn rewrite(&self, server: &Server) {
        server.rewrite(&self.setup.clone().tables(&self.table()));
    }

    pub fn start(&self) -> Proxy {
        let server = self.setup.clone().tables(&self.table()).start();
        let address = server.addresses["node"][0].as_str().unwrap();
        Proxy {
            address: address.parse().unwrap(),
            ports: self.ports.clone(),
            server,
        }
    }
}

/// A running server with the node role.
pub struct Proxy {
    pub server: Server,
    /// Where nodes connect.
    pub address: SocketAddr,
    /// What it lends.
    pub ports: RangeInclusive<u16>,
}

impl Proxy {
    /// A server with nothing special about it.
    pub fn new(width: u16) -> Self {
        Plan::new(width).start()
    }

    /// A connection that says nothing.
    pub fn connect(&self) -> Peer {
        Peer::connect(self.address)
    }

    /// The node of this number, connected.
    pub fn node(&self, number: u32) -> Node {
        self.node_of(Sender::number(number))
    }

    pub fn node_of(&self, sender: Sender) -> Node {
        Node::connect(self.address, sender)
    }

    /// The node of this number with its address.
    pub fn registered(&self, number: u32) -> (Node, SocketAddr) {
        let mut node = self.node(number);
        let public = node.request();
        assert!(self.ports.contains(&public.port()), "{public}");
        (node, public)
    }

    /// The node of this number with a visitor.
    pub fn visited(&self, number: u32) -> Visited {
        Visited::new(self, number)
    }

    pub fn process(&self) -> u32 {
        self.server.process()
    }

    /// Fails unless a fresh node gets an address and what is sent there; the address stays on loan.
    pub fn expect_alive(&self) {
        let mut visited = self.visited(ALIVE);
        visited.expect_passing(b"alive");
        visited.node.leave();
    }

    /// Fails unless this node has noticed nothing, and the server ends well when it and its visitor
    /// have gone.
    pub fn expect_alive_of(self, mut visited: Visited) {
        visited.node.expect_quiet();
        visited.expect_passing(b"alive");
        visited.node.leave();
        visited.visitor.expect_closed();
        drop(visited.visitor);
        self.stop();
    }

    /// Fails unless it ends well when it is told to, with nobody connected.
    pub fn stop(self) {
        self.server.expect_open(0);
        self.server.stop();
    }
}

/// The node that only shows that the server works.
const ALIVE: u32 = 0xa11e;

/// That many ports in a row that nobody has, below those that the kernel gives out by itself. No two
/// tests of this process get the same, until all have been given out once.
pub fn free_ports(width: u16) -> RangeInclusive<u16> {
    let mut given = GIVEN.lock().unwrap();
    for _ in 0..HIGHEST - LOWEST {
        // Processes of tests that run at the same time begin at different places.
        let own = || LOWEST + u16::try_from(std::process::id() % 89).unwrap() * 110;
        let mut first = given.next.unwrap_or_else(own);
        if first + width > HIGHEST {
            first = LOWEST;
        }
        given.next = Some(first + width);
        let ports = first..=first + (width - 1);
        if given.claims(&ports) && ports.clone().all(is_free) {
            return ports;
        }
    }
    panic!("no {width} free ports in a row");
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
}

/// What this process has given out.
struct Given {
    /// Where the next ports begin.
    next: Option<u16>,
    /// The blocks of ports that are this process's until it ends, whichever of them are open just
    /// now: a server that is started anew comes back to its ports.
    blocks: BTreeMap<u16, UdpSocket>,
}

impl Given {
    /// True when all of these ports are this process's.
    fn claims(&mut self, ports: &RangeInclusive<u16>) -> bool {
        (ports.start() / BLOCK..=ports.end() / BLOCK).all(|block| self.has(block))
    }

    fn has(&mut self, block: u16) -> bool {
        if self.blocks.contains_key(&block) {
            return true;
        }
        // An address on which no server listens.
        let Ok(claim) = UdpSocket::bind(("127.77.0.1", CLAIMS + block)) else {
            return false;
        };
        self.blocks.insert(block, claim);
        true
    }
}

static GIVEN: Mutex<Given> = Mutex::new(Given {
    next: None,
    blocks: BTreeMap::new(),
});

/// Ports that are claimed together.
const BLOCK: u16 = 100;

/// Where the sockets begin by which processes claim blocks.
const CLAIMS: u16 = 9_000;

const LOWEST: u16 = 10_000;
const HIGHEST: u16 = 20_000;
