//! What a request and a response say, inside their seal.

use std::fmt;

use super::Address;
use crate::wire::{Reader, WireError, Writer};

/// What a client asks of one hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When the client made it, in milliseconds since 1970.
    pub stamp: u64,
    /// What else it wants.
    pub flags: Flags,
    /// The next hop, or the destination.
    pub address: Address,
}

/// What a client wants besides a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The hop dials nobody, answers ok and sends back what it gets.
    pub probe: bool,
    /// Payload follows the headers without waiting for the responses.
    pub early: bool,
    /// The payload is sealed under the hop's payload key.
    pub sealed: bool,
}

/// What one hop answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub code: Code,
    /// How long connecting took, in milliseconds; name lookup included.
    pub dial: u32,
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The hop is connected.
    Ok,
    /// The name has no address.
    Resolve,
    /// Nobody listens there.
    Refused,
    /// No way leads there.
    Unreachable,
    /// There was no answer in time.
    Timeout,
    /// The hop's rules forbid it.
    Forbidden,
    /// The hop has no room.
    Overloaded,
    /// The request is not understood.
    Protocol,
    /// The hop has failed.
    Internal,
}

impl Request {
    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.stamp.to_be_bytes());
        writer.u8(self.flags.byte());
        self.address.encode(writer);
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let stamp = u64::from_be_bytes(reader.array("stamp")?);
        let flags = Flags::of(reader.u8("flags")?)?;
        let address = Address::decode(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            stamp,
            flags,
            address,
        })
    }
}

impl Flags {
    fn byte(self) -> u8 {
        let set = |is_on, bit| if is_on { bit } else { 0 };
        set(self.probe, PROBE) | set(self.early, EARLY) | set(self.sealed, SEALED)
    }

    const fn of(byte: u8) -> Result<Self, WireError> {
        if byte & !(PROBE | EARLY | SEALED) != 0 {
            let (field, value) = ("flags", byte as u64);
            return Err(WireError::BadValue { field, value });
        }
        Ok(Self {
            probe: byte & PROBE != 0,
            early: byte & EARLY != 0,
            sealed: byte & SEALED != 0,
        })
    }
}

impl Response {
    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(self.code.byte());
        writer.bytes(&self.dial.to_be_bytes());
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let code = Code::of(reader.u8("code")?)?;
        let dial = u32::from_be_bytes(reader.array("dial")?);
        reader.finish()?;
        Ok(Self { code, dial })
    }
}

impl Code {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Resolve,
        Self::Refused,
        Self::Unreachable,
        Self::Timeout,
        Self::Forbidden,
        Self::Overloaded,
        Self::Protocol,
        Self::Internal,
    ];

    /// As it stands in a response.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Resolve => 1,
            Self::Refused => 2,
            Self::Unreachable => 3,
            Self::Timeout => 4,
            Self::Forbidden => 5,
            Self::Overloaded => 6,
            Self::Protocol => 7,
            Self::Internal => 8,
        }
    }

    fn of(byte: u8) -> Result<Self, WireError> {
        let (field, value) = ("code", byte.into());
        let known = Self::ALL.get(usize::from(byte));
        known.copied().ok_or(WireError::BadValue { field, value })
    }

    /// Its kind, in one word, for logs and counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Resolve => "resolve",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Forbidden => "forbidden",
            Self::Overloaded => "overloaded",
            Self::Protocol => "protocol",
            Self::Internal => "internal",
        }
    }

    /// What it means when the last hop says it, which connects to the destination.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ok => "connected",
            Self::Resolve => "destination name could not be resolved",
            Self::Refused => "destination refused the connection",
            Self::Unreachable => "destination is unreachable",
            Self::Timeout => "destination did not answer in time",
            Self::Forbidden => "destination is forbidden",
            Self::Overloaded => "overloaded",
            Self::Protocol => "did not understand the request",
            Self::Internal => "failed internally",
        }
    }

    /// What it means when a hop says it that connects to another hop.
    pub const fn text_of_inner(self) -> &'static str {
        match self {
            Self::Resolve => "next hop's name could not be resolved",
            Self::Refused => "next hop refused the connection",
            Self::Unreachable => "next hop is unreachable",
            Self::Timeout => "next hop did not answer in time",
            Self::Forbidden => "next hop's address is forbidden",
            Self::Ok | Self::Overloaded | Self::Protocol | Self::Internal => self.text(),
        }
    }
}

/// Its [`Code::text`].
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

const PROBE: u8 = 1;
const EARLY: u8 = 1 << 1;
const SEALED: u8 = 1 << 2;

/// Bytes of a response's body.
pub(super) const RESPONSE: usize = 1 + 4;

/// Bytes of the longest request's body.
pub(super) const MAX_REQUEST: usize = 8 + 1 + 1 + 1 + super::MAX_HOST + 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_flags_come_back_and_others_are_refused() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.byte()), number);
            assert_eq!(Code::of(code.byte()), Ok(code));
            assert!(!code.text().is_empty() && !code.text_of_inner().is_empty());
            assert!(!code.text_of_inner().contains("destination"));
        }
        for byte in Code::ALL.len() as u8..=u8::MAX {
            assert!(Code::of(byte).is_err());
        }
        for byte in 0..=u8::MAX {
            match Flags::of(byte) {
                Ok(flags) => assert_eq!(flags.byte(), byte),
                Err(_) => assert!(byte > 7),
            }
        }
    }

    #[test]
    fn bodies_end_where_their_fields_end() {
        let request = Request {
            stamp: 0x0102_0304_0506_0708,
            flags: Flags {
                early: true,
                ..Flags::default()
            },
            address: "1.2.3.4:5".parse().unwrap(),
        };
        let mut body = Vec::new();
        request.encode(&mut Writer::new(&mut body));
        assert_eq!(body, [1, 2, 3, 4, 5, 6, 7, 8, 2, 1, 1, 2, 3, 4, 0, 5]);
        assert_eq!(Request::decode(&body), Ok(request));
        for end in 0..body.len() {
            assert!(Request::decode(&body[..end]).is_err());
        }
        body.push(0);
        assert_eq!(
            Request::decode(&body),
            Err(WireError::Trailing { count: 1 })
        );
        let response = Response {
            code: Code::Timeout,
            dial: 5000,
        };
        let mut body = Vec::new();
        response.encode(&mut Writer::new(&mut body));
        assert_eq!(body, [4, 0, 0, 0x13, 0x88]);
        assert_eq!(Response::decode(&body), Ok(response));
        assert!(Response::decode(&body[..4]).is_err());
    }
}
