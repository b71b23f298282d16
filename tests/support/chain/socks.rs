//! A SOCKS5 client, byte by byte as RFC 1928 and RFC 1929 have it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::support::DEADLINE;
use crate::support::peer::{Peer, text};

/// One connection to a SOCKS5 listener.
pub struct Socks {
    pub peer: Peer,
}

pub const CONNECT: u8 = 1;
pub const BIND: u8 = 2;
pub const ASSOCIATE: u8 = 3;

pub const NO_AUTH: u8 = 0;
pub const PASSWORD: u8 = 2;

/// What a reply says.
pub mod reply {
    pub const SUCCEEDED: u8 = 0;
    pub const FORBIDDEN: u8 = 2;
    pub const HOST_UNREACHABLE: u8 = 4;
    pub const REFUSED: u8 = 5;
    pub const EXPIRED: u8 = 6;
    pub const NO_COMMAND: u8 = 7;
    pub const NO_ADDRESS_TYPE: u8 = 8;
}

impl Socks {
    /// Connects and agrees that nobody says who they are.
    pub fn open(listener: SocketAddr) -> Self {
        let mut socks = Self::connect(listener);
        socks.offer(&[NO_AUTH]);
        assert_eq!(socks.method(), NO_AUTH);
        socks
    }

    pub fn connect(listener: SocketAddr) -> Self {
        Self {
            peer: Peer::connect(listener),
        }
    }

    /// The methods that this client knows.
    pub fn offer(&mut self, methods: &[u8]) {
        let count = u8::try_from(methods.len()).unwrap();
        self.peer.send([&[5, count][..], methods].concat());
    }

    /// The method that was chosen.
    pub fn method(&mut self) -> u8 {
        let answer = self.peer.take(2);
        assert_eq!(answer[0], 5, "{answer:02x?}");
        answer[1]
    }

    /// Says who it is; true when that is believed.
    pub fn login(&mut self, user: &str, password: &str) -> bool {
        self.peer.send(login(user, password));
        let answer = self.peer.take(2);
        assert_eq!(answer[0], 1, "{answer:02x?}");
        answer[1] == 0
    }

    /// Asks and reads the reply: its code, and the address that is bound.
    pub fn ask(&mut self, command: u8, address: &[u8]) -> (u8, SocketAddr) {
        self.peer.send(request(command, address));
        self.reply()
    }

    pub fn reply(&mut self) -> (u8, SocketAddr) {
        let head = self.peer.take(4);
        assert_eq!((head[0], head[2]), (5, 0), "{head:02x?}");
        let ip: IpAddr = match head[3] {
            1 => <[u8; 4]>::try_from(self.peer.take(4)).unwrap().into(),
            4 => <[u8; 16]>::try_from(self.peer.take(16)).unwrap().into(),
            _ => panic!("the address type of {head:02x?}"),
        };
        let port = self.peer.take(2);
        let port = u16::from_be_bytes([port[0], port[1]]);
        (head[1], (ip, port).into())
    }

    /// Asks for a connection that there must be.
    pub fn expect_connect(&mut self, address: &[u8]) -> &mut Peer {
        let (code, _) = self.ask(CONNECT, address);
        assert_eq!(code, reply::SUCCEEDED);
        &mut self.peer
    }

    /// Asks for something that is refused with this code; then the connection ends.
    pub fn expect_refusal(&mut self, command: u8, address: &[u8], code: u8) {
        assert_eq!(self.ask(command, address).0, code);
        self.peer.expect_closed();
    }
}

pub fn login(user: &str, password: &str) -> Vec<u8> {
    let field = |text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        [&[length][..], text.as_bytes()].concat()
    };
    [vec![1], field(user), field(password)].concat()
}

pub fn request(command: u8, address: &[u8]) -> Vec<u8> {
    [&[5, command, 0][..], address].concat()
}

/// An IP address and a port, as SOCKS has them.
pub fn at(address: SocketAddr) -> Vec<u8> {
    let (kind, host) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (4, ip.octets().to_vec()),
    };
    [&[kind][..], &host, &address.port().to_be_bytes()].concat()
}

/// A host by its name.
pub fn named(host: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(host.len()).unwrap();
    [&[3, length][..], host.as_bytes(), &port.to_be_bytes()].concat()
}

/// The datagrams of an association.
pub struct Association {
    /// Holds it; never spoken on again.
    pub control: Socks,
    pub socket: UdpSocket,
    pub relay: SocketAddr,
}

impl Association {
    pub fn new(listener: SocketAddr) -> Self {
        let mut control = Socks::open(listener);
        let any = at("0.0.0.0:0".parse().unwrap());
        let (code, relay) = control.ask(ASSOCIATE, &any);
        assert_eq!(code, reply::SUCCEEDED);
        assert_ne!(relay.port(), 0, "{relay}");
        assert!(relay.ip().is_loopback(), "{relay} is no place to send to");
        Self {
            control,
            socket: socket(),
            relay,
        }
    }

    pub fn send(&self, fragment: u8, address: &[u8], payload: &[u8]) {
        let datagram = wrapped(fragment, address, payload);
        self.socket.send_to(&datagram, self.relay).unwrap();
    }

    /// The next datagram: who it is from, and what.
    pub fn receive(&self) -> (SocketAddr, Vec<u8>) {
        let mut buffer = vec![0; 1 << 16];
        let got = self.socket.recv_from(&mut buffer);
        let (length, from) = got.unwrap_or_else(|error| panic!("no datagram: {error}"));
        assert_eq!(from, self.relay, "where it comes from");
        unwrapped(&buffer[..length])
    }

    /// Sends to this address and gets the same back from there.
    pub fn expect_echo(&self, to: SocketAddr, payload: &[u8]) {
        self.send(0, &at(to), payload);
        let (from, got) = self.receive();
        assert_eq!((from, text(&got)), (to, text(payload)));
    }
}

pub fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

pub fn wrapped(fragment: u8, address: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[0, 0, fragment][..], address, payload].concat()
}

fn unwrapped(datagram: &[u8]) -> (SocketAddr, Vec<u8>) {
    assert_eq!(datagram[..3], [0, 0, 0], "{}", text(datagram));
    let (ip, rest): (IpAddr, _) = match datagram[3] {
        1 => (
            <[u8; 4]>::try_from(&datagram[4..8]).unwrap().into(),
            &datagram[8..],
        ),
        4 => (
            <[u8; 16]>::try_from(&datagram[4..20]).unwrap().into(),
            &datagram[20..],
        ),
        _ => panic!("the address type of {}", text(datagram)),
    };
    let port = u16::from_be_bytes([rest[0], rest[1]]);
    ((ip, port).into(), rest[2..].to_vec())
}
