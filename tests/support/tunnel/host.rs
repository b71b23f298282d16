//! A server of our own for `towpath expose`: it welcomes a client and answers its wishes as it is told.

use std::net::{SocketAddr, TcpListener, TcpStream};

use super::client::random;
use super::wire::{Challenge, TOKEN, frame, kind, server_proof, status};
use crate::support::peer::Peer;

/// Where clients come.
pub struct Host {
    listener: TcpListener,
    pub address: SocketAddr,
}

/// A client's control connection.
pub struct Hosted {
    peer: Peer,
}

impl Host {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// The next connection, whatever it is for.
    pub fn accept(&self) -> TcpStream {
        self.listener.accept().unwrap().0
    }

    /// The next connection, which is a client's control connection.
    pub fn welcome(&self) -> Hosted {
        let mut peer = Peer::new(self.accept());
        assert_eq!(peer.take(5), b"TWP1C");
        let challenge: Challenge = random();
        peer.send(challenge);
        let answer = peer.take(80);
        let nonce = answer[16..48].try_into().unwrap();
        peer.send([status::OK]);
        peer.send(server_proof(TOKEN, &nonce, &challenge));
        peer.send(frame(kind::WELCOME, &[1; 16]));
        Hosted { peer }
    }
}

impl Hosted {
    /// The number of the client's next request; pings are passed over.
    pub fn wish(&mut self) -> u32 {
        loop {
            let head = self.peer.take(5);
            let length = u32::from_le_bytes(head[1..].try_into().unwrap());
            let body = self.peer.take(length as usize);
            if head[0] == kind::EXPOSE {
                return u32::from_le_bytes(body[..4].try_into().unwrap());
            }
        }
    }

    pub fn refuse(&mut self, request: u32, code: u8) {
        let body = [&request.to_le_bytes()[..], &[code], b"no"].concat();
        self.peer.send(frame(kind::REFUSED, &body));
    }

    /// Gives the service a port of this host, by the number 1.
    pub fn expose(&mut self, request: u32, port: u16) {
        let body = [
            &request.to_le_bytes()[..],
            &1_u16.to_le_bytes(),
            &600_u32.to_le_bytes(),
            &1_u64.to_le_bytes(),
            &[4, 127, 0, 0, 1],
            &port.to_le_bytes(),
        ]
        .concat();
        self.peer.send(frame(kind::EXPOSED, &body));
    }
}
