//! The tunnel role from its client's side: the wire once more, raw clients and visitors, the real
//! program with a range of ports of its own, and `towpath expose` as a process. Nothing here is
//! shared with the product's codec.

pub mod bystander;
pub mod client;
pub mod frames;
pub mod host;
pub mod plan;
pub mod program;
pub mod proxy_header;
pub mod wire;

use std::net::{SocketAddr, TcpStream};

use super::DEADLINE;
use super::peer::Peer;
use client::{Client, Service};
use plan::Tunnel;
use wire::Visit;

/// A fresh visitor is closed without a byte, or so early that it never knew that it was connected.
pub fn expect_turned_away(public: SocketAddr) {
    if let Ok(stream) = TcpStream::connect_timeout(&public, DEADLINE) {
        Peer::new(stream).expect_closed();
    }
}

/// A visitor of a service of mode direct and its data connection.
pub struct Pair {
    pub visit: Visit,
    pub visitor: Peer,
    pub data: Peer,
}

impl Pair {
    /// A fresh visitor, served.
    pub fn open(client: &mut Client, service: &Service) -> Self {
        let visitor = Peer::connect(service.public);
        let visit = client.visit_of(&visitor);
        assert_eq!(visit.service, service.number);
        let data = client.attach(&visit);
        Self {
            visit,
            visitor,
            data,
        }
    }

    /// Bytes go both ways, and nothing else does.
    pub fn expect_passing(&mut self, payload: &[u8]) -> &mut Self {
        self.visitor.send(payload);
        self.data.expect(payload);
        self.data.send(payload);
        self.visitor.expect(payload);
        self
    }

    /// Ends both directions, the visitor's first.
    pub fn expect_finished(&mut self) {
        self.visitor.finish();
        self.data.expect_end();
        self.data.finish();
        self.visitor.expect_end();
    }
}

/// A client with one service and one visitor of it.
pub struct Visited {
    pub client: Client,
    pub service: Service,
    pub pair: Pair,
}

impl Visited {
    pub fn new(tunnel: &Tunnel, number: u8) -> Self {
        let (mut client, service) = tunnel.exposed(number);
        let pair = Pair::open(&mut client, &service);
        Self {
            client,
            service,
            pair,
        }
    }

    /// Another visitor is served as well.
    pub fn expect_serving(&mut self, payload: &[u8]) -> &mut Self {
        let mut pair = Pair::open(&mut self.client, &self.service);
        pair.expect_passing(payload).expect_finished();
        self
    }

    /// The visitor is served still.
    pub fn expect_passing(&mut self, payload: &[u8]) -> &mut Self {
        self.pair.expect_passing(payload);
        self
    }

    /// Ends the visitor, then the client.
    pub fn leave(mut self) {
        self.pair.expect_finished();
        self.client.leave();
    }
}
