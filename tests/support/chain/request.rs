//! A request header and the response to it, field by field.

use std::time::{Duration, SystemTime};

use super::seal::{HEAD, Key, Nonce, Seal, Transport, fresh_nonce};

/// One hop's request.
#[derive(Clone, Debug)]
pub struct Request {
    pub key: Key,
    pub transport: Transport,
    pub nonce: Nonce,
    /// Unix milliseconds.
    pub stamp: u64,
    pub flags: u8,
    /// As in [`super::address`].
    pub address: Vec<u8>,
}

/// What a response says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    pub code: u8,
    /// How long the hop dialled.
    pub dial: Duration,
}

impl Request {
    /// One with a fresh nonce and the present time.
    pub fn new(key: Key, transport: Transport, address: Vec<u8>) -> Self {
        Self {
            key,
            transport,
            nonce: fresh_nonce(),
            stamp: now(),
            flags: 0,
            address,
        }
    }

    pub fn seal(&self) -> Seal {
        Seal::request(self.key, self.transport)
    }

    pub fn plain(&self) -> Vec<u8> {
        let stamp = self.stamp.to_be_bytes();
        [&stamp[..], &[self.flags], &self.address].concat()
    }

    pub fn frame(&self) -> Vec<u8> {
        self.seal().close(&self.nonce, &self.plain())
    }

    /// What a hop that knows the key answers.
    pub fn response(&self, code: u8) -> Vec<u8> {
        let plain = [&[code][..], &7_u32.to_be_bytes()].concat();
        self.response_of(&plain)
    }

    /// A response with anything in it.
    pub fn response_of(&self, plain: &[u8]) -> Vec<u8> {
        Seal::response(self.key, self.transport, &self.nonce).close(&fresh_nonce(), plain)
    }

    /// Reads a response; none where it is no answer to this request.
    pub fn read(&self, frame: &[u8]) -> Option<Answer> {
        let seal = Seal::response(self.key, self.transport, &self.nonce);
        let plain = seal.open(frame)?;
        assert_eq!(plain.len(), RESPONSE_PLAIN, "a response of {plain:02x?}");
        let millis = u32::from_be_bytes(plain[1..].try_into().unwrap());
        assert!(plain[0] <= MOST_CODE, "the code of {plain:02x?}");
        Some(Answer {
            code: plain[0],
            dial: Duration::from_millis(millis.into()),
        })
    }

    /// Reads a request of somebody else; none where it is not for this key.
    pub fn parse(key: Key, transport: Transport, frame: &[u8]) -> Option<Self> {
        let plain = Seal::request(key, transport).open(frame)?;
        Some(Self {
            key,
            transport,
            nonce: frame[..24].try_into().unwrap(),
            stamp: u64::from_be_bytes(plain.get(..8)?.try_into().unwrap()),
            flags: *plain.get(8)?,
            address: plain[9..].to_vec(),
        })
    }
}

/// The length of the frame whose head this is, head and all.
pub fn frame_length(head: &[u8]) -> usize {
    HEAD + usize::from(u16::from_be_bytes([head[HEAD - 2], head[HEAD - 1]]))
}

/// The present time as a stamp.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap().as_millis()).unwrap()
}

/// Wants an answer of the last hop itself.
pub const PROBE: u8 = 1;

/// Payload follows before the responses.
pub const EARLY: u8 = 2;

const RESPONSE_PLAIN: usize = 5;

/// A response frame, from nonce to tag.
pub const RESPONSE: usize = HEAD + RESPONSE_PLAIN + super::seal::TAG;

const MOST_CODE: u8 = 8;
