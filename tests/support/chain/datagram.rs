//! A raw client over UDP: every datagram with headers of its own, every answer opened under whichever
//! of them it is bound to.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use super::request::{RESPONSE, Request};
use super::{Hop, Transport, address, code};
use crate::support::DEADLINE;
use crate::support::peer::text;

/// One flow: a socket, hops, a destination.
pub struct Flow {
    pub socket: UdpSocket,
    hops: Vec<Hop>,
    destination: Vec<u8>,
    /// What each hop was asked so far; a response may be bound to any of it.
    asked: Vec<Vec<Request>>,
}

/// What an answer says: payload, or which hop failed, counted from 1, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    Payload(Vec<u8>),
    Failed(usize, u8),
}

impl Flow {
    pub fn new(hops: &[Hop], destination: Vec<u8>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self {
            socket,
            hops: hops.to_vec(),
            destination,
            asked: vec![Vec::new(); hops.len()],
        }
    }

    pub fn to(hops: &[Hop], destination: SocketAddr) -> Self {
        Self::new(hops, address::at(destination))
    }

    /// The next datagram's headers.
    pub fn requests(&self) -> Vec<Request> {
        let next = self.hops.iter().skip(1);
        let next = next.map(|hop| address::at(hop.address));
        let addresses = next.chain([self.destination.clone()]);
        let request = |(hop, address): (&Hop, _)| Request::new(hop.key, Transport::Udp, address);
        let requests = self.hops.iter().zip(addresses).map(request).collect();
        match self.asked[0].is_empty() {
            true => Self::anchor(requests),
            false => requests,
        }
    }

    /// Sends these headers and this payload as one datagram, and expects answers to them.
    pub fn send_as(&mut self, requests: Vec<Request>, payload: &[u8]) -> &mut Self {
        let mut datagram: Vec<u8> = requests.iter().flat_map(Request::frame).collect();
        datagram.extend(payload);
        for (asked, request) in self.asked.iter_mut().zip(requests) {
            asked.push(request);
        }
        self.send_raw(&datagram)
    }

    pub fn send(&mut self, payload: &[u8]) -> &mut Self {
        let requests = self.requests();
        self.send_as(requests, payload)
    }

    /// A hop that has a flow of this very address already, from somebody who had its port before,
    /// binds its responses anew to a nonce that begins like this.
    fn anchor(mut requests: Vec<Request>) -> Vec<Request> {
        for request in &mut requests {
            request.nonce[0] &= 3;
        }
        requests
    }

    /// Any bytes to the first hop.
    pub fn send_raw(&mut self, datagram: &[u8]) -> &mut Self {
        let first = self.hops[0].address;
        let sent = self.socket.send_to(datagram, first).unwrap();
        assert_eq!(sent, datagram.len());
        self
    }

    /// The next answer's bytes; it must come from the first hop.
    pub fn receive_raw(&self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 16];
        let got = self.socket.recv_from(&mut buffer);
        let (length, from) = got.unwrap_or_else(|error| panic!("no datagram: {error}"));
        assert_eq!(from, self.hops[0].address, "where it comes from");
        buffer.truncate(length);
        buffer
    }

    pub fn receive(&self) -> Said {
        let datagram = self.receive_raw();
        let mut rest = &datagram[..];
        for (index, asked) in self.asked.iter().enumerate() {
            let hop = index + 1;
            let frame = rest.get(..RESPONSE);
            let frame = frame.unwrap_or_else(|| panic!("no response of hop {hop}: {}", text(rest)));
            let mut newest_first = asked.iter().rev();
            let answer = newest_first.find_map(|request| request.read(frame));
            let answer = answer.unwrap_or_else(|| panic!("not hop {hop}'s: {}", text(rest)));
            rest = &rest[RESPONSE..];
            if answer.code != code::OK {
                assert!(rest.is_empty(), "behind an error: {}", text(rest));
                return Said::Failed(hop, answer.code);
            }
        }
        Said::Payload(rest.to_vec())
    }

    pub fn expect(&self, payload: &[u8]) -> &Self {
        match self.receive() {
            Said::Payload(got) => assert!(got == payload, "{} instead", text(&got)),
            said => panic!("{said:?}"),
        }
        self
    }

    pub fn expect_error(&self, hop: usize, code: u8) -> &Self {
        assert_eq!(self.receive(), Said::Failed(hop, code));
        self
    }

    /// Sends and gets it back.
    pub fn expect_echo(&mut self, payload: &[u8]) -> &mut Self {
        self.send(payload).expect(payload);
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
