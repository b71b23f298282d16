//! A node that speaks by datagrams, and its peers.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use super::message::{Message, Sender, field, key, number, opcode, server_sender};
use crate::support::DEADLINE;
use crate::support::peer::text;

/// The network of every message here.
pub use super::message::NETWORK;

/// A datagram around a message.
pub fn packet(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [&length.to_be_bytes()[..], body].concat()
}

/// A socket of the test's own, with a deadline.
pub fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// The node of this number as carrier makes it for datagrams.
pub fn sender(of: u32) -> Sender {
    Sender::of_key(&key(of), &format!("udp://10.0.0.1:{of}"))
}

/// What the server answers to a request that gets `public`.
pub fn response(server: SocketAddr, public: SocketAddr) -> Vec<u8> {
    let inner = field(2, public.to_string().as_bytes());
    of_server(server, field(1, &inner), opcode::PROXY_RESPONSE)
}

/// What the server answers to a Keepalive.
pub fn keepalive_response(server: SocketAddr) -> Vec<u8> {
    of_server(server, Vec::new(), opcode::KEEPALIVE_RESPONSE)
}

fn of_server(server: SocketAddr, inner: Vec<u8>, opcode: u32) -> Vec<u8> {
    let body = [
        inner,
        field(2, &server_sender("udp", server)),
        number(7, opcode.into()),
        number(8, NETWORK.into()),
    ];
    packet(&body.concat())
}

/// A node by its socket.
pub struct UdpNode {
    pub socket: UdpSocket,
    pub sender: Sender,
    server: SocketAddr,
    made: u64,
}

impl UdpNode {
    pub fn new(server: SocketAddr, sender: Sender) -> Self {
        Self {
            socket: socket(),
            sender,
            server,
            made: 0,
        }
    }

    pub fn send(&self, bytes: &[u8]) -> &Self {
        self.socket.send_to(bytes, self.server).unwrap();
        self
    }

    pub fn message(&mut self, opcode: u32) -> Message {
        self.made += 1;
        Message::new(opcode, &self.sender).nonce(self.made)
    }

    pub fn say(&mut self, opcode: u32) -> &mut Self {
        let message = self.message(opcode);
        self.send(&packet(&message.encode()));
        self
    }

    /// The next datagram; it must come from the main port.
    pub fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 16];
        let got = self.socket.recv_from(&mut buffer);
        let (length, from) = got.unwrap_or_else(|error| panic!("no datagram: {error}"));
        assert_eq!(from, self.server, "where it comes from");
        buffer.truncate(length);
        buffer
    }

    pub fn expect(&self, expected: &[u8]) -> &Self {
        let got = self.receive();
        assert!(
            got == expected,
            "{} instead of {}",
            text(&got),
            text(expected)
        );
        self
    }

    /// Asks for an address; the answer is checked to the byte.
    pub fn request(&mut self) -> SocketAddr {
        self.say(opcode::PROXY_REQUEST).answer()
    }

    pub fn answer(&mut self) -> SocketAddr {
        let got = self.receive();
        // As a frame, its header is eight bytes longer.
        let message = Message::of_frame(&[&[0; 8][..], &got].concat());
        assert_eq!(message.opcode, opcode::PROXY_RESPONSE, "{message:?}");
        let public = message.proxy_address();
        let public = public.parse().unwrap_or_else(|_| panic!("{public:?}"));
        assert_eq!(text(&got), text(&response(self.server, public)));
        public
    }

    /// The answer to a Keepalive is the next that comes.
    pub fn expect_keepalive(&mut self) -> &mut Self {
        self.say(opcode::KEEPALIVE);
        self.expect(&keepalive_response(self.server));
        self
    }

    /// Nothing has come so far.
    pub fn expect_nothing_yet(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let got = self.socket.recv_from(&mut [0; 2000]);
        assert_eq!(got.unwrap_err().kind(), ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false).unwrap();
    }
}
