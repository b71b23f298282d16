//! The node role from its nodes' side: the wire once more, raw nodes and visitors, and the real
//! program with a range of ports of its own. Nothing here is shared with the product's codec.

pub mod bystander;
pub mod datagram;
pub mod message;
pub mod plan;
pub mod program;
pub mod recording;

use std::io::ErrorKind;
use std::net::SocketAddr;

use super::peer::{End, Peer, text};
use message::{Message, Sender, frame, opcode};
use plan::Proxy;

/// A node's main connection, read frame by frame.
pub struct Node {
    peer: Peer,
    pub sender: Sender,
    /// The server's own address, as it is to name itself.
    server: SocketAddr,
    /// How many messages it has made.
    made: u64,
    /// How many messages of its own the server has sent.
    answers: u64,
    /// What has come and was not taken; the part before `taken` was.
    inbox: Vec<u8>,
    taken: usize,
    chunk: Vec<u8>,
}

impl Node {
    /// A connection to a server's main address that has said nothing yet.
    pub fn connect(server: SocketAddr, sender: Sender) -> Self {
        Self {
            peer: Peer::connect(server),
            sender,
            server,
            made: 0,
            answers: 0,
            inbox: Vec::new(),
            taken: 0,
            chunk: vec![0; CHUNK],
        }
    }

    /// The connection, for what is not a frame.
    pub fn peer(&mut self) -> &mut Peer {
        &mut self.peer
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.peer.send(bytes);
        self
    }

    /// The next message of this node, with its next nonce.
    pub fn message(&mut self, opcode: u32) -> Message {
        self.made += 1;
        Message::new(opcode, &self.sender).nonce(self.made)
    }

    /// Sends a message and does not wait.
    pub fn say(&mut self, opcode: u32) -> &mut Self {
        let message = self.message(opcode);
        self.send(message.frame())
    }

    /// Asks for an address; the answer is checked to the byte.
    pub fn request(&mut self) -> SocketAddr {
        self.say(opcode::PROXY_REQUEST).answer()
    }

    /// Reads the answer to a request: the address in it.
    pub fn answer(&mut self) -> SocketAddr {
        self.try_answer()
            .expect("the connection ended instead of an address")
    }

    /// The same; none when the connection is closed instead.
    pub fn try_answer(&mut self) -> Option<SocketAddr> {
        let got = self.next_frame()?;
        let message = Message::of_frame(&got);
        assert_eq!(message.opcode, opcode::PROXY_RESPONSE, "{message:?}");
        let public = message.proxy_address();
        let public: SocketAddr = public.parse().unwrap_or_else(|_| panic!("{public:?}"));
        self.answers += 1;
        let expected = message::response(self.server, self.answers, public);
        assert_eq!(text(&got), text(&expected), "the answer to a request");
        // What carrier does from now on.
        self.sender.address = format!("tcp://{public}").into_bytes();
        Some(public)
    }

    /// Asks for an address, and is closed without an answer.
    pub fn expect_refused(&mut self) {
        let message = self.message(opcode::PROXY_REQUEST);
        self.peer.try_send(&message.frame());
        assert_eq!(self.try_answer(), None, "an address instead of the end");
    }

    /// Sends a Keepalive and reads its answer; nothing else may come before.
    pub fn expect_keepalive(&mut self) -> &mut Self {
        self.say(opcode::KEEPALIVE).expect_keepalive_answer()
    }

    pub fn expect_keepalive_answer(&mut self) -> &mut Self {
        self.answers += 1;
        let expected = message::keepalive_response(self.server, self.answers);
        self.expect(&expected)
    }

    /// Nothing has come that was not taken: the answer to a Keepalive is the next.
    pub fn expect_quiet(&mut self) -> &mut Self {
        self.expect_keepalive()
    }

    /// Reads exactly this frame.
    pub fn expect(&mut self, expected: &[u8]) -> &mut Self {
        let got = self.next_frame();
        let got = got.expect("the connection ended instead of a frame");
        assert!(
            got == expected,
            "{} instead of {}",
            text(&got),
            text(expected)
        );
        self
    }

    /// True when a whole frame has come already.
    pub fn has_frame(&self) -> bool {
        let inbox = &self.inbox[self.taken..];
        inbox.len() >= message::HEAD && inbox.len() >= message::length(inbox)
    }

    /// The next frame's bytes, header and all; none at the end. A reset may cut a frame, an end of
    /// stream must not.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        while !self.has_frame() {
            match self.fill() {
                None => {}
                Some(End::Reset) => return None,
                Some(End::Fin) => {
                    let rest = &self.inbox[self.taken..];
                    assert!(rest.is_empty(), "ended inside a frame: {}", text(rest));
                    return None;
                }
            }
        }
        let inbox = &self.inbox[self.taken..];
        let got = inbox[..message::length(inbox)].to_vec();
        assert_eq!(got[..4], message::NETWORK.to_be_bytes(), "{}", text(&got));
        self.taken += got.len();
        Some(got)
    }

    /// Reads once; tells how the connection ended where it did.
    fn fill(&mut self) -> Option<End> {
        self.inbox.drain(..self.taken);
        self.taken = 0;
        match self.peer.some(&mut self.chunk) {
            Ok(0) => Some(End::Fin),
            Ok(more) => {
                self.inbox.extend_from_slice(&self.chunk[..more]);
                None
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(End::Reset),
            Err(error) => panic!("{error} after {}", text(&self.inbox)),
        }
    }

    /// The server closes this connection and sends nothing more.
    pub fn expect_closed(&mut self) {
        if let Some(more) = self.next_frame() {
            panic!("{} instead of the end", text(&more));
        }
    }

    /// Reads up to the end, whatever still comes.
    pub fn skip_to_end(&mut self) {
        while self.next_frame().is_some() {}
    }

    /// Leaves with FIN and waits until the server has seen it.
    pub fn leave(mut self) {
        self.peer.try_finish();
        self.skip_to_end();
    }

    /// Leaves with RST.
    pub fn reset(self) {
        self.peer.reset();
    }
}

/// A registered node, its public address and a visitor there.
pub struct Visited {
    pub node: Node,
    pub public: SocketAddr,
    pub visitor: Peer,
}

impl Visited {
    pub fn new(proxy: &Proxy, number: u32) -> Self {
        let (node, public) = proxy.registered(number);
        let visitor = Peer::connect(public);
        let mut visited = Self {
            node,
            public,
            visitor,
        };
        visited.expect_passing(b"hello");
        visited
    }

    /// A frame of the visitor reaches the node, as the next and as it is.
    pub fn expect_passing(&mut self, payload: &[u8]) {
        let bytes = frame(payload);
        self.visitor.send(&bytes);
        self.node.expect(&bytes);
    }
}

const CHUNK: usize = 64 * 1024;
