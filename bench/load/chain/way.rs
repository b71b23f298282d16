//! The way through the hops: the headers that ask for it, and the answers.

use std::io;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use towpath::protocols::chain::nonces::Nonces;
use towpath::protocols::chain::wire::{
    Address, Code, Flags, Key, Nonce, RESPONSE_FRAME, Request, Side, Transport, open_response,
    records, seal_request,
};

use super::Seals;
use crate::line::Line;

/// A chain of hops that all have the same key, and where it leads.
pub struct Way {
    /// Whom each hop connects to: the next one, and the last one the destination.
    next: Vec<Address>,
    /// The key of every hop.
    pub key: Key,
    /// The last hop's, for payload that is sealed.
    pub payload_key: Option<Key>,
}

impl Way {
    /// By the hops behind the first one, to the destination.
    pub fn new(
        further: &[SocketAddr],
        destination: SocketAddr,
        key: Key,
        payload_key: Option<Key>,
    ) -> Self {
        let next = further.iter().chain([&destination]);
        Self {
            next: next.map(|address| Address::Socket(*address)).collect(),
            key,
            payload_key,
        }
    }

    /// How many hops there are.
    pub fn hops(&self) -> usize {
        self.next.len()
    }

    /// Appends the headers of all hops, whose nonces `nonce` gives; it gives none where the system has
    /// no random bytes.
    pub fn seal(
        &self,
        out: &mut Vec<u8>,
        transport: Transport,
        stamp: u64,
        mut nonce: impl FnMut() -> Option<Nonce>,
    ) -> io::Result<Vec<Nonce>> {
        let mut asked = Vec::with_capacity(self.hops());
        for (at, address) in self.next.iter().enumerate() {
            let nonce = nonce().ok_or_else(|| io::Error::other("no random bytes"))?;
            let request = Request {
                stamp,
                flags: Flags {
                    sealed: at + 1 == self.hops() && self.payload_key.is_some(),
                    ..Flags::default()
                },
                address: address.clone(),
            };
            seal_request(out, &self.key, transport, &nonce, &request);
            asked.push(nonce);
        }
        Ok(asked)
    }

    /// The headers of a connection, and what is to come for them.
    pub fn begin(&self, nonces: &mut Nonces) -> io::Result<(Vec<u8>, Answers)> {
        let mut out = Vec::new();
        let asked = self.seal(&mut out, Transport::Tcp, unix_ms(), || nonces.next())?;
        let frames = Vec::with_capacity(asked.len() * RESPONSE_FRAME);
        Ok((out, Answers { asked, frames }))
    }
}

/// The answers of the hops to one connection.
pub struct Answers {
    asked: Vec<Nonce>,
    frames: Vec<u8>,
}

impl Answers {
    /// Reads them, and nothing behind them. `None` is "not now"; in the end come the payload's seals,
    /// if it is to be sealed.
    pub fn read(&mut self, line: &mut Line, way: &Way) -> io::Result<Option<Option<Seals>>> {
        let whole = self.asked.len() * RESPONSE_FRAME;
        let mut block = [0; MOST_HOPS * RESPONSE_FRAME];
        while self.frames.len() < whole {
            let room = block.get_mut(..whole - self.frames.len());
            match line.read(room.unwrap_or_default())? {
                None => return Ok(None),
                Some(0) => return Err(self.failure(way)),
                Some(count) => {
                    let came = block.get(..count).unwrap_or_default();
                    self.frames.extend_from_slice(came);
                }
            }
        }
        let mut last = None;
        for (frame, asked) in self.frames.chunks(RESPONSE_FRAME).zip(&self.asked) {
            match open_response(&way.key, Transport::Tcp, frame, asked) {
                Ok((nonce, response)) if response.code == Code::Ok => last = Some((asked, nonce)),
                _ => return Err(self.failure(way)),
            }
        }
        let key = way.payload_key.as_ref().zip(last);
        let seals = key.map(|(key, (asked, nonce))| records(key, Side::Client, asked, &nonce));
        Ok(Some(seals.map(Seals::new)))
    }

    /// What the hops have said before the end came.
    fn failure(&self, way: &Way) -> io::Error {
        let frames = self.frames.chunks_exact(RESPONSE_FRAME).zip(&self.asked);
        for (at, (frame, asked)) in frames.enumerate() {
            let told = match open_response(&way.key, Transport::Tcp, frame, asked) {
                Ok((_, response)) if response.code == Code::Ok => continue,
                Ok((_, response)) => response.code.text(),
                Err(_) => "its answer is not under the key",
            };
            return io::Error::other(format!("hop {}: {told}", at + 1));
        }
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the chain was closed without an answer",
        )
    }
}

/// Milliseconds since 1970, for a request's stamp.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// More are refused by the command line.
pub const MOST_HOPS: usize = 16;
