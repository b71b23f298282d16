//! The gateway role from its endpoints' side: the wire of both dialects once more, raw endpoints,
//! and the real program with both of its ports. Nothing here is shared with the product's codec.

pub mod bystander;
pub mod echo;
pub mod endpoint;
pub mod md5;
pub mod recording;
pub mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use super::peer::{Peer, text};
use super::server::{Server, Setup};
use super::window::standing_still;
use super::{kernel, until};
use endpoint::Endpoint;

/// Which numbers the commands have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Of the document: New, Open, Dial, Refuse, Accept, Close, Ping.
    Document,
    /// Of the libraries in use: Dial, Accept, Connect, Refuse, Close, Ping.
    Fastway,
}

pub const DIALECTS: [Dialect; 2] = [Dialect::Document, Dialect::Fastway];

/// The dialects of a client and of the server that it dials.
pub const PAIRS: [(Dialect, Dialect); 4] = [
    (Dialect::Document, Dialect::Document),
    (Dialect::Document, Dialect::Fastway),
    (Dialect::Fastway, Dialect::Document),
    (Dialect::Fastway, Dialect::Fastway),
];

/// The greatest Length that is allowed by default.
pub const MOST: usize = 524_288;

/// The greatest payload of such a frame.
pub const MOST_PAYLOAD: usize = MOST - 4;

/// The key of every gateway here that is not told otherwise.
pub const KEY: &str = "test key";

/// What an endpoint gets from the gateway.
#[derive(Clone, PartialEq, Eq)]
pub enum Got {
    Open(u32),
    Accept {
        conn: u32,
        remote: u32,
    },
    Connect {
        conn: u32,
        remote: u32,
    },
    /// The connection id in the document's dialect, the id that was dialled in the other.
    Refuse(u32),
    Close(u32),
    Ping,
    Data(u32, Vec<u8>),
}

impl fmt::Debug for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(conn) => write!(f, "Open {conn}"),
            Self::Accept { conn, remote } => write!(f, "Accept {conn}, remote {remote}"),
            Self::Connect { conn, remote } => write!(f, "Connect {conn}, remote {remote}"),
            Self::Refuse(id) => write!(f, "Refuse {id}"),
            Self::Close(conn) => write!(f, "Close {conn}"),
            Self::Ping => write!(f, "Ping"),
            Self::Data(conn, payload) => {
                write!(f, "{} bytes on {conn}: {}", payload.len(), text(payload))
            }
        }
    }
}

impl Dialect {
    /// As the configuration and the commands spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Fastway => "fastway",
        }
    }

    /// Asks for a connection id; the document's dialect only.
    pub fn new_id(self) -> Vec<u8> {
        assert_eq!(self, Self::Document);
        command(0, &[])
    }

    /// Joins to `remote`; only the document's dialect names the connection.
    pub fn dial(self, conn: u32, remote: u32) -> Vec<u8> {
        match self {
            Self::Document => command(2, &[conn, remote]),
            Self::Fastway => command(0, &[remote]),
        }
    }

    pub fn close(self, conn: u32) -> Vec<u8> {
        match self {
            Self::Document => command(5, &[conn]),
            Self::Fastway => command(4, &[conn]),
        }
    }

    pub fn ping(self) -> Vec<u8> {
        match self {
            Self::Document => command(6, &[]),
            Self::Fastway => command(5, &[]),
        }
    }

    /// Understands one whole frame of the gateway; fails on any other.
    pub fn decode(self, frame: &[u8]) -> Got {
        let conn = word(frame, 4);
        if conn != 0 {
            return Got::Data(conn, frame[8..].to_vec());
        }
        let arguments: Vec<u32> = (9..frame.len())
            .step_by(4)
            .map(|at| word(frame, at))
            .collect();
        match (self, frame[8], arguments.as_slice()) {
            (Self::Document, 1, &[conn]) => Got::Open(conn),
            (Self::Document, 3, &[conn]) => Got::Refuse(conn),
            (Self::Document, 4, &[conn, remote]) => Got::Accept { conn, remote },
            (Self::Document, 5, &[conn]) => Got::Close(conn),
            (Self::Document, 6, &[]) => Got::Ping,
            (Self::Fastway, 1, &[conn, remote]) => Got::Accept { conn, remote },
            (Self::Fastway, 2, &[conn, remote]) => Got::Connect { conn, remote },
            (Self::Fastway, 3, &[remote]) => Got::Refuse(remote),
            (Self::Fastway, 4, &[conn]) => Got::Close(conn),
            (Self::Fastway, 5, &[]) => Got::Ping,
            _ => panic!("{self:?}: no frame that a gateway sends: {frame:02x?}"),
        }
    }
}

/// A command with any number.
pub fn command(number: u8, arguments: &[u32]) -> Vec<u8> {
    let arguments = arguments.iter().flat_map(|argument| argument.to_le_bytes());
    let payload: Vec<u8> = [number].into_iter().chain(arguments).collect();
    data(0, &payload)
}

/// One frame on a virtual connection.
pub fn data(conn: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 4).unwrap();
    [&length.to_le_bytes()[..], &conn.to_le_bytes(), payload].concat()
}

/// What a server sends back for its challenge.
pub fn answer(challenge: &[u8], key: &str, id: u32) -> Vec<u8> {
    let proof = md5::digest(&[challenge, key.as_bytes()].concat());
    [&proof[..], &id.to_le_bytes()].concat()
}

/// The number at `at`, which must be there whole.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// How a gateway is to be started. Silence for five minutes is allowed unless a test says
/// otherwise, so that no ping comes between.
#[derive(Clone)]
pub struct Plan {
    setup: Setup,
    dialect: Dialect,
    auth_key: String,
    keys: BTreeMap<&'static str, String>,
}

impl Plan {
    /// A gateway whose servers speak `dialect` and whose clients are told apart.
    pub fn new(dialect: Dialect) -> Self {
        let plan = Self {
            setup: Setup::new(),
            dialect,
            auth_key: KEY.into(),
            keys: BTreeMap::new(),
        };
        plan.text("server_dialect", dialect.name())
            .text("auth_key", KEY)
            .text("client_idle_timeout", "5m")
            .text("server_idle_timeout", "5m")
            .key("clients", "[\"127.0.0.1:0\"]")
            .key("servers", "[\"127.0.0.1:0\"]")
    }

    /// A key of `[gateway]` with its value as it stands in the file.
    pub fn key(mut self, key: &'static str, value: &str) -> Self {
        self.keys.insert(key, value.into());
        self
    }

    /// A key of `[gateway]` with a text.
    pub fn text(self, key: &'static str, value: &str) -> Self {
        self.key(key, &format!("{value:?}"))
    }

    pub fn auth_key(mut self, key: &str) -> Self {
        self.auth_key = key.into();
        self.text("auth_key", key)
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

    /// The `[gateway]` table.
    pub fn table(&self) -> String {
        let lines = self
            .keys
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"));
        format!("[gateway]\n{}", lines.collect::<String>())
    }

    /// Has a running server find this instead when it reads its configuration again.
    pub fn rewrite(&self, server: &Server) {
        server.rewrite(&self.setup.clone().tables(&self.table()));
    }

    pub fn start(&self) -> Gateway {
        let server = self.setup.clone().tables(&self.table()).start();
        let bound = |name: &str| server.addresses[name][0].as_str().unwrap().parse().unwrap();
        Gateway {
            clients: bound("gateway-clients"),
            servers: bound("gateway-servers"),
            dialect: self.dialect,
            key: self.auth_key.clone(),
            server,
        }
    }
}

/// A running gateway.
pub struct Gateway {
    pub server: Server,
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where servers connect.
    pub servers: SocketAddr,
    dialect: Dialect,
    key: String,
}

impl Gateway {
    /// A gateway with nothing special about it.
    pub fn new(dialect: Dialect) -> Self {
        Plan::new(dialect).start()
    }

    /// A client that has said nothing yet.
    pub fn client(&self, dialect: Dialect) -> Endpoint {
        Endpoint::new(Peer::connect(self.clients), dialect)
    }

    /// A client whose dialect the gateway knows.
    pub fn known_client(&self, dialect: Dialect) -> Endpoint {
        let mut client = self.client(dialect);
        client.expect_quiet();
        client
    }

    /// A connection to the servers' port, and its challenge.
    pub fn knock(&self) -> (Peer, Vec<u8>) {
        let mut peer = Peer::connect(self.servers);
        let challenge = peer.take(8);
        (peer, challenge)
    }

    /// A server that has answered its challenge; whether the gateway took it is not known yet.
    pub fn hasty_server(&self, id: u32) -> Endpoint {
        let (mut peer, challenge) = self.knock();
        peer.send(answer(&challenge, &self.key, id));
        Endpoint::new(peer, self.dialect)
    }

    /// A server that can be dialled: the gateway has answered what came behind its handshake.
    pub fn server(&self, id: u32) -> Endpoint {
        let mut server = self.hasty_server(id);
        server.expect_quiet();
        server
    }

    /// A client of `dialect`, the server `id`, and a connection between them.
    pub fn pair(&self, dialect: Dialect, id: u32) -> Pair {
        let mut server = self.server(id);
        let mut client = self.client(dialect);
        let conn = client.dial(id);
        let (joined, client_id) = server.joined();
        assert_eq!(joined, conn);
        Pair {
            client,
            server,
            conn,
            client_id,
        }
    }

    pub fn process(&self) -> u32 {
        self.server.process()
    }

    /// How many descriptors it has, once nobody comes or goes any more.
    pub fn descriptors(&self) -> usize {
        let now = || kernel::descriptors(self.process());
        standing_still("descriptors", now)
    }

    /// Waits until it has no more descriptors than these: whoever has left is gone for it, too.
    pub fn expect_descriptors(&self, most: usize) {
        until("those who have left are gone", || {
            kernel::descriptors(self.process()) <= most
        });
    }

    /// Fails unless a fresh client and a fresh server can still be joined.
    pub fn expect_alive(&self) {
        for dialect in DIALECTS {
            self.pair(dialect, ALIVE).expect_echo();
        }
    }

    /// Fails unless it ends well when it is told to, with nobody connected.
    pub fn stop(self) {
        self.server.expect_open(0);
        self.server.stop();
    }
}

/// Two endpoints and a connection that the client dialled.
pub struct Pair {
    pub client: Endpoint,
    pub server: Endpoint,
    pub conn: u32,
    pub client_id: u32,
}

impl Pair {
    /// Another connection of the same two.
    pub fn dial(&mut self, id: u32) -> u32 {
        let conn = self.client.dial(id);
        assert_eq!(self.server.joined(), (conn, self.client_id));
        conn
    }

    /// Sends a message there and another one back; nothing else may come in between.
    pub fn expect_echo(&mut self) {
        let conn = self.conn;
        self.client.data(conn, b"there");
        self.server.expect(Got::Data(conn, b"there".into()));
        self.server.data(conn, b"and back");
        self.client.expect(Got::Data(conn, b"and back".into()));
    }

    /// Closes the connection from the client's end; each end hears of it once.
    pub fn expect_close(&mut self) {
        self.client.close(self.conn);
        self.client.expect(Got::Close(self.conn));
        self.server.expect(Got::Close(self.conn));
        self.client.expect_quiet();
        self.server.expect_quiet();
    }
}

/// The id of the server that only shows that the gateway works.
const ALIVE: u32 = 0xa11e_a11e;
