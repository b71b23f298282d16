//! The tunnel's bytes, written once more from the tables that tell of them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ring::hmac;

/// The token of every server here that is not told otherwise.
pub const TOKEN: &str = "a token of the tests, long enough";

pub type Uuid = [u8; 16];
pub type Ticket = [u8; 32];
pub type Challenge = [u8; 32];

/// How the server answers a handshake.
pub mod status {
    pub const OK: u8 = 0;
    pub const WRONG_TOKEN: u8 = 1;
    pub const BAD_VERSION: u8 = 2;
    pub const OVERLOADED: u8 = 4;
    pub const UNKNOWN_PLACE: u8 = 6;
}

/// Why a service is not exposed.
pub mod refusal {
    pub const NO_PORTS: u8 = 1;
    pub const PORT_TAKEN: u8 = 2;
    pub const PORT_NOT_ALLOWED: u8 = 3;
    pub const BAD_NAME: u8 = 4;
    pub const TOO_MANY_SERVICES: u8 = 5;
    pub const OVERLOADED: u8 = 6;
    pub const SUPERSEDED: u8 = 7;
    pub const UNSUPPORTED: u8 = 9;
    pub const ALREADY_EXPOSED: u8 = 11;
    pub const RELEASED: u8 = 12;
}

/// Why a visitor's connection has ended, or never began.
pub mod reason {
    pub const VISITOR_LEFT: u8 = 2;
    pub const UNREACHABLE: u8 = 3;
    pub const TIMEOUT: u8 = 4;
    pub const RESET: u8 = 7;
}

/// The types of control frames.
pub mod kind {
    pub const EXPOSE: u8 = 1;
    pub const EXPOSED: u8 = 2;
    pub const REFUSED: u8 = 3;
    pub const VISIT: u8 = 4;
    pub const POOL_WANTED: u8 = 5;
    pub const CLOSED: u8 = 6;
    pub const WITHDRAW: u8 = 7;
    pub const SUPERSEDED: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
    pub const DRAIN: u8 = 11;
    pub const WELCOME: u8 = 12;
}

/// Where the wanted port cannot be had, another one will do.
pub const ANY_PORT_WILL_DO: u32 = 1;

fn sign(token: &str, parts: &[&[u8]]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    hmac::sign(&key, &parts.concat()).as_ref().to_vec()
}

/// What a client sends back for its challenge.
pub fn answer(
    token: &str,
    kind: u8,
    challenge: &Challenge,
    nonce: &[u8; 32],
    client: &[u8; 16],
    place: &[u8],
) -> Vec<u8> {
    let signed = [
        b"towpath tunnel 1",
        &[kind][..],
        challenge,
        nonce,
        client,
        place,
    ];
    let proof = sign(token, &signed);
    [&client[..], nonce, &proof, place].concat()
}

/// How the server proves that it knows the token.
pub fn server_proof(token: &str, nonce: &[u8; 32], challenge: &Challenge) -> Vec<u8> {
    sign(token, &[b"towpath tunnel 1 server", nonce, challenge])
}

/// What a control connection gets from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Exposed {
        request: u32,
        service: u16,
        lease_seconds: u32,
        epoch: u64,
        public: SocketAddr,
    },
    Refused {
        request: u32,
        code: u8,
        text: String,
    },
    Visit(Visit),
    PoolWanted(Vec<Ticket>),
    Closed {
        uuid: Uuid,
        reason: u8,
    },
    Withdraw(u16),
    Superseded {
        service: u16,
        epoch: u64,
        text: String,
    },
    Ping(u64),
    Pong(u64),
    Drain(u32),
    Welcome(Uuid),
}

/// A visitor that waits for a data connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Visit {
    pub uuid: Uuid,
    pub service: u16,
    pub ticket: Ticket,
    pub visitor: SocketAddr,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Visit of {} to {}", self.visitor, self.service)
    }
}

impl Got {
    /// Understands one frame of the server; fails on any other, and on a byte too many.
    pub fn read(kind: u8, body: &[u8]) -> Self {
        let mut cursor = Cursor(body);
        let got = match kind {
            kind::EXPOSED => Self::Exposed {
                request: cursor.u32(),
                service: cursor.u16(),
                lease_seconds: cursor.u32(),
                epoch: cursor.u64(),
                public: cursor.address(),
            },
            kind::REFUSED => Self::Refused {
                request: cursor.u32(),
                code: cursor.u8(),
                text: cursor.text(),
            },
            kind::VISIT => Self::Visit(Visit {
                uuid: cursor.array(),
                service: cursor.u16(),
                ticket: cursor.array(),
                visitor: cursor.address(),
            }),
            kind::POOL_WANTED => {
                let count = cursor.u16();
                Self::PoolWanted((0..count).map(|_| cursor.array()).collect())
            }
            kind::CLOSED => Self::Closed {
                uuid: cursor.array(),
                reason: cursor.u8(),
            },
            kind::WITHDRAW => Self::Withdraw(cursor.u16()),
            kind::SUPERSEDED => Self::Superseded {
                service: cursor.u16(),
                epoch: cursor.u64(),
                text: cursor.text(),
            },
            kind::PING => Self::Ping(cursor.u64()),
            kind::PONG => Self::Pong(cursor.u64()),
            kind::DRAIN => Self::Drain(cursor.u32()),
            kind::WELCOME => Self::Welcome(cursor.array()),
            _ => panic!("no frame that a server sends: {kind}, {body:02x?}"),
        };
        assert!(cursor.0.is_empty(), "behind {got:?}: {:02x?}", cursor.0);
        got
    }
}

/// A wish for a public port.
#[derive(Clone, Debug)]
pub struct Expose {
    pub request: u32,
    pub transport: u8,
    pub mode: u8,
    pub port: u16,
    pub options: u32,
    pub epoch: u64,
    pub name: Vec<u8>,
}

pub const TCP: u8 = 1;
pub const UDP: u8 = 2;
pub const DIRECT: u8 = 1;
pub const MUX: u8 = 2;

impl Expose {
    /// Any port for streams, in mode direct.
    pub fn named(name: &str) -> Self {
        Self {
            request: 0,
            transport: TCP,
            mode: DIRECT,
            port: 0,
            options: 0,
            epoch: 0,
            name: name.into(),
        }
    }

    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    pub fn options(mut self, options: u32) -> Self {
        self.options = options;
        self
    }

    pub fn epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }

    pub fn mux(mut self) -> Self {
        self.mode = MUX;
        self
    }

    pub fn udp(mut self) -> Self {
        self.transport = UDP;
        self
    }

    pub fn body(&self) -> Vec<u8> {
        let length = u8::try_from(self.name.len()).unwrap();
        [
            &self.request.to_le_bytes()[..],
            &[self.transport, self.mode],
            &self.port.to_le_bytes(),
            &self.options.to_le_bytes(),
            &self.epoch.to_le_bytes(),
            &[length],
            &self.name,
        ]
        .concat()
    }

    pub fn frame(&self) -> Vec<u8> {
        frame(kind::EXPOSE, &self.body())
    }
}

/// A control frame of any type.
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&[kind], &length.to_le_bytes()[..], body].concat()
}

pub fn ping(number: u64) -> Vec<u8> {
    frame(kind::PING, &number.to_le_bytes())
}

pub fn closed(uuid: &Uuid, reason: u8) -> Vec<u8> {
    frame(kind::CLOSED, &[&uuid[..], &[reason]].concat())
}

pub fn withdraw(service: u16) -> Vec<u8> {
    frame(kind::WITHDRAW, &service.to_le_bytes())
}

/// All that a data connection says before the visitor's bytes.
pub fn attach(ticket: &Ticket, uuid: &Uuid) -> Vec<u8> {
    [&b"TWP1D"[..], ticket, uuid].concat()
}

/// Numbers and names off the front of bytes that must hold them.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        assert!(
            self.0.len() >= count,
            "{count} bytes wanted: {:02x?}",
            self.0
        );
        let (front, rest) = self.0.split_at(count);
        self.0 = rest;
        front
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap()
    }

    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub fn address(&mut self) -> SocketAddr {
        let ip = match self.u8() {
            4 => IpAddr::from(self.array::<4>()),
            6 => IpAddr::from(self.array::<16>()),
            family => panic!("family {family}"),
        };
        SocketAddr::new(ip, self.u16())
    }

    fn text(&mut self) -> String {
        let rest = self.take(self.0.len());
        String::from_utf8(rest.to_vec()).unwrap()
    }
}
