//! A raw client over TCP: its headers in one write, its responses read one by one.

use std::net::SocketAddr;

use super::request::{Answer, RESPONSE, Request};
use super::{Hop, Transport, address, code};
use crate::support::peer::{End, Peer, text};

/// The headers of one connection, in the order of their hops.
#[derive(Clone, Debug)]
pub struct Headers {
    pub first: SocketAddr,
    pub requests: Vec<Request>,
}

impl Headers {
    /// Through these hops to a destination, which is an address as in [`super::address`].
    pub fn new(hops: &[Hop], destination: Vec<u8>) -> Self {
        let next = hops.iter().skip(1).map(|hop| address::at(hop.address));
        let addresses = next.chain([destination]);
        let request = |(hop, address): (&Hop, _)| Request::new(hop.key, Transport::Tcp, address);
        Self {
            first: hops[0].address,
            requests: hops.iter().zip(addresses).map(request).collect(),
        }
    }

    pub fn to(hops: &[Hop], destination: SocketAddr) -> Self {
        Self::new(hops, address::at(destination))
    }

    /// The same with another address for the hop of this index, counted from 1.
    pub fn with_address(mut self, hop: usize, address: Vec<u8>) -> Self {
        self.requests[hop - 1].address = address;
        self
    }

    /// The same with flags in the last header.
    pub fn with_last_flags(mut self, flags: u8) -> Self {
        if let Some(last) = self.requests.last_mut() {
            last.flags = flags;
        }
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let frames = self.requests.iter().flat_map(Request::frame);
        frames.collect()
    }

    /// Connects and sends everything in one write.
    pub fn dial(&self) -> Chained {
        self.dial_with(b"")
    }

    /// The same with payload behind the headers.
    pub fn dial_with(&self, payload: &[u8]) -> Chained {
        let mut chained = self.connect();
        chained.peer.send([&self.bytes(), payload].concat());
        chained
    }

    /// Connects and says nothing.
    pub fn connect(&self) -> Chained {
        Chained {
            peer: Peer::connect(self.first),
            requests: self.requests.clone(),
            answered: 0,
        }
    }
}

/// A connection whose responses are being read.
pub struct Chained {
    pub peer: Peer,
    requests: Vec<Request>,
    answered: usize,
}

impl Chained {
    /// The next response. It must be the next hop's, and bound to what that hop was asked.
    pub fn answer(&mut self) -> Answer {
        let frame = self.peer.take(RESPONSE);
        let request = &self.requests[self.answered];
        self.answered += 1;
        request
            .read(&frame)
            .unwrap_or_else(|| panic!("no response of hop {}: {frame:02x?}", self.answered))
    }

    /// Whether the next hop says ok; where it says nothing the connection is over.
    pub fn is_ok(&mut self) -> bool {
        let mut frame = vec![0; RESPONSE];
        let mut have = 0;
        while have < frame.len() {
            match self.peer.some(&mut frame[have..]) {
                Ok(more @ 1..) => have += more,
                _ => return false,
            }
        }
        let request = &self.requests[self.answered];
        self.answered += 1;
        let answer = request.read(&frame);
        answer.is_some_and(|answer| answer.code == code::OK)
    }

    /// Every hop that is left says ok; what follows is payload.
    pub fn expect_ok(&mut self) -> &mut Peer {
        while self.answered < self.requests.len() {
            let answer = self.answer();
            assert_eq!(answer.code, code::OK, "of hop {}", self.answered);
        }
        &mut self.peer
    }

    /// The hops before this one say ok, this one says why not, and the connection ends by FIN.
    pub fn expect_error(&mut self, hop: usize, code: u8) {
        self.expect_code(hop, code);
        let (rest, end) = self.peer.rest();
        assert_eq!(
            (text(&rest).as_str(), end),
            ("", End::Fin),
            "after the error"
        );
    }

    /// The same, however the connection goes on.
    pub fn expect_code(&mut self, hop: usize, code: u8) {
        for before in 1..hop {
            assert_eq!(self.answer().code, code::OK, "of hop {before}");
        }
        assert_eq!(self.answer().code, code, "of hop {hop}");
    }

    /// All say ok, and the bytes come back from an echo, and then its end.
    pub fn expect_echo(&mut self, payload: &[u8]) {
        let peer = self.expect_ok();
        peer.send(payload).finish();
        let (bytes, end) = peer.rest();
        assert_eq!((text(&bytes), end), (text(payload), End::Fin));
    }
}
