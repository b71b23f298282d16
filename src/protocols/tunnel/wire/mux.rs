//! Frames of many visitors on one connection, and the grants against them.
//!
//! It does not know which uuids there are, and counts nothing: that is the session's table and
//! [`super::Receiving`].

use std::net::SocketAddr;

use super::{TICKET, Ticket, Transport, UUID, Uuid, address};
use crate::wire::{Reader, WireError, Writer};

/// What stands in front of every frame. Whoever passes payload on piece by piece reads this, and the
/// payload as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MuxHead {
    /// Whose frame it is.
    pub uuid: Uuid,
    /// What its length field says.
    pub mark: Mark,
}

/// What the length field of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// So many raw bytes follow; 0 only for an empty datagram.
    Data(u32),
    /// This direction is finished. Never with datagrams.
    End,
    /// Both directions have ended.
    Reset,
    /// A [`Visitor`] follows.
    Open,
    /// What else the server has of this visitor's stream comes on a data connection, for which a ticket
    /// follows. Never with datagrams.
    Move,
    /// The client's answer: what else it has of the stream comes there, too.
    Moved,
    /// Or this: there is no such connection, and all goes on as before.
    Stay,
}

impl MuxHead {
    /// The head at the front of `bytes`; `Ok(None)` while it may still become one. With datagrams a
    /// length of 0 is one of them, with streams it is the end.
    pub fn decode(bytes: &[u8], transport: Transport) -> Result<Option<Self>, WireError> {
        let Some(bytes) = bytes.first_chunk::<MUX_HEAD>() else {
            return Ok(None);
        };
        let mut reader = Reader::new(bytes);
        let uuid = Uuid::from_bytes(reader.array("uuid")?);
        let (most, is_stream) = match transport {
            Transport::Tcp => (MAX_RAW, true),
            Transport::Udp => (MAX_DATAGRAM, false),
        };
        let mark = match reader.u32_le("rawlen")? {
            0 if is_stream => Mark::End,
            RESET => Mark::Reset,
            OPEN => Mark::Open,
            MOVE if is_stream => Mark::Move,
            MOVED if is_stream => Mark::Moved,
            STAY if is_stream => Mark::Stay,
            length if length as usize > most => {
                return Err(WireError::TooLong {
                    field: "raw",
                    length: length.into(),
                    most: most as u64,
                });
            }
            length => Mark::Data(length),
        };
        Ok(Some(Self { uuid, mark }))
    }

    /// The bytes of this head.
    pub fn encode(&self) -> [u8; MUX_HEAD] {
        let rawlen = match self.mark {
            Mark::Data(length) => length,
            Mark::End => 0,
            Mark::Reset => RESET,
            Mark::Open => OPEN,
            Mark::Move => MOVE,
            Mark::Moved => MOVED,
            Mark::Stay => STAY,
        };
        numbered(self.uuid, rawlen)
    }
}

/// Who a visitor is, and which service it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The service's number, as its Exposed told it.
    pub service: u16,
    /// The visitor's own address.
    pub address: SocketAddr,
}

impl Visitor {
    /// The visitor at the front of `bytes` and how many of them it takes; `Ok(None)` is "not yet".
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some(&family) = bytes.get(SERVICE) else {
            return Ok(None);
        };
        // A family that there is not is refused by the address's reader.
        let len = SERVICE + address::len(family).unwrap_or(1);
        let Some(bytes) = bytes.get(..len) else {
            return Ok(None);
        };
        let mut reader = Reader::new(bytes);
        let visitor = Self {
            service: reader.u16_le("service")?,
            address: address::read(&mut reader)?,
        };
        Ok(Some((visitor, len)))
    }

    /// Appends the visitor.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.u16_le(self.service);
        address::write(&mut writer, self.address);
    }

    /// The head that the server writes on a connection of the pool before the visitor's bytes.
    pub fn encode_assigned(&self, uuid: Uuid, out: &mut Vec<u8>) {
        out.extend_from_slice(uuid.as_bytes());
        self.encode(out);
    }

    /// Reads that head; `Ok(None)` is "not yet".
    pub fn decode_assigned(bytes: &[u8]) -> Result<Option<(Uuid, Self, usize)>, WireError> {
        let Some((uuid, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let uuid = Uuid::from_bytes(*uuid);
        let visitor = Self::decode(rest)?;
        Ok(visitor.map(|(visitor, len)| (uuid, visitor, UUID + len)))
    }
}

/// A whole frame, its payload borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Whose frame it is.
    pub uuid: Uuid,
    /// What it says.
    pub body: Body<'a>,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// There is a new visitor.
    Open(Visitor),
    /// Bytes of its stream, or one datagram of it.
    Data(&'a [u8]),
    /// This direction is finished.
    End,
    /// Both directions have ended.
    Reset,
    /// The server's part of the stream goes on on a data connection with this ticket.
    Move(Ticket),
    /// So does the client's.
    Moved,
    /// Neither does.
    Stay,
}

impl<'a> Frame<'a> {
    /// The frame at the front of `bytes` and how many of them it takes; `Ok(None)` until all of it is
    /// there. What its head has wrong is told by the head alone.
    pub fn decode(
        bytes: &'a [u8],
        transport: Transport,
    ) -> Result<Option<(Self, usize)>, WireError> {
        let Some(MuxHead { uuid, mark }) = MuxHead::decode(bytes, transport)? else {
            return Ok(None);
        };
        let rest = bytes.get(MUX_HEAD..).unwrap_or_default();
        let (body, len) = match mark {
            Mark::End => (Body::End, 0),
            Mark::Reset => (Body::Reset, 0),
            Mark::Open => match Visitor::decode(rest)? {
                Some((visitor, len)) => (Body::Open(visitor), len),
                None => return Ok(None),
            },
            Mark::Moved => (Body::Moved, 0),
            Mark::Stay => (Body::Stay, 0),
            Mark::Move => match rest.first_chunk::<TICKET>() {
                Some(ticket) => (Body::Move(Ticket::new(*ticket)), TICKET),
                None => return Ok(None),
            },
            Mark::Data(length) => match rest.get(..length as usize) {
                Some(raw) => (Body::Data(raw), raw.len()),
                None => return Ok(None),
            },
        };
        Ok(Some((Self { uuid, body }, MUX_HEAD + len)))
    }

    /// Appends the frame. Its data is no longer than a frame holds: [`append_stream`] splits a stream
    /// that is, and what is longer than a datagram is none. Of longer data nothing is written.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (mark, raw) = match &self.body {
            Body::Open(_) => (Mark::Open, &[][..]),
            Body::Move(ticket) => (Mark::Move, &ticket.as_bytes()[..]),
            Body::Moved => (Mark::Moved, &[][..]),
            Body::Stay => (Mark::Stay, &[][..]),
            Body::Data(raw) if raw.len() > MAX_RAW => return,
            Body::Data(raw) => (Mark::Data(raw.len() as u32), *raw),
            Body::End => (Mark::End, &[][..]),
            Body::Reset => (Mark::Reset, &[][..]),
        };
        let uuid = self.uuid;
        out.extend_from_slice(&MuxHead { uuid, mark }.encode());
        out.extend_from_slice(raw);
        if let Body::Open(visitor) = self.body {
            visitor.encode(out);
        }
    }
}

/// Appends a stream's bytes in as many frames as it takes; none at all for no bytes, since an empty
/// frame would be the stream's end.
pub fn append_stream(out: &mut Vec<u8>, uuid: Uuid, raw: &[u8]) {
    for raw in raw.chunks(MAX_RAW) {
        let body = Body::Data(raw);
        Frame { uuid, body }.encode(out);
    }
}

/// Credit given back, against the stream that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose stream may go on.
    pub uuid: Uuid,
    /// By how many bytes more.
    pub bytes: u32,
}

impl Grant {
    /// The grant at the front of `bytes`; `Ok(None)` is "not yet". A grant of nothing is refused: it
    /// would cost its reader work and say nothing.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let Some(bytes) = bytes.first_chunk::<GRANT>() else {
            return Ok(None);
        };
        let mut reader = Reader::new(bytes);
        let uuid = Uuid::from_bytes(reader.array("uuid")?);
        match reader.u32_le("grant")? {
            0 => Err(WireError::BadValue {
                field: "grant",
                value: 0,
            }),
            bytes => Ok(Some(Self { uuid, bytes })),
        }
    }

    /// The bytes of this grant.
    pub fn encode(&self) -> [u8; GRANT] {
        numbered(self.uuid, self.bytes)
    }
}

fn numbered(uuid: Uuid, number: u32) -> [u8; UUID + 4] {
    let mut bytes = [0; UUID + 4];
    let (name, rest) = bytes.split_at_mut(UUID);
    name.copy_from_slice(uuid.as_bytes());
    rest.copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Bytes of a frame before its payload.
pub const MUX_HEAD: usize = UUID + 4;

/// Bytes of a [`Grant`].
pub const GRANT: usize = UUID + 4;

/// The most raw bytes of a stream in one frame; the sender splits what is longer.
pub const MAX_RAW: usize = 64 << 10;

/// The longest datagram that UDP over IPv4 carries.
pub const MAX_DATAGRAM: usize = 65_507;

const SERVICE: usize = 2;

const RESET: u32 = u32::MAX;

const OPEN: u32 = u32::MAX - 1;

const MOVE: u32 = u32::MAX - 2;

const MOVED: u32 = u32::MAX - 3;

const STAY: u32 = u32::MAX - 4;

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Uuid = Uuid::from_bytes(*b"0123456789abcdef");

    fn head(rawlen: u32, transport: Transport) -> Result<Mark, WireError> {
        let bytes = numbered(WHO, rawlen);
        let head = MuxHead::decode(&bytes, transport).map(Option::unwrap);
        head.map(|head| {
            assert_eq!((head.uuid, head.encode()), (WHO, bytes));
            head.mark
        })
    }

    #[test]
    fn a_length_is_judged_at_its_limits() {
        let stream = |rawlen| head(rawlen, Transport::Tcp);
        let datagram = |rawlen| head(rawlen, Transport::Udp);
        assert_eq!(stream(0), Ok(Mark::End));
        assert_eq!(datagram(0), Ok(Mark::Data(0)));
        assert_eq!(stream(65_536), Ok(Mark::Data(65_536)));
        assert_eq!(datagram(65_507), Ok(Mark::Data(65_507)));
        for transport in [Transport::Tcp, Transport::Udp] {
            assert_eq!(head(u32::MAX, transport), Ok(Mark::Reset));
            assert_eq!(head(u32::MAX - 1, transport), Ok(Mark::Open));
            for long in [65_537, 1 << 31, u32::MAX - 5] {
                let refused = head(long, transport);
                assert!(matches!(refused, Err(WireError::TooLong { .. })), "{long}");
            }
        }
        assert_eq!(stream(u32::MAX - 2), Ok(Mark::Move));
        assert_eq!(stream(u32::MAX - 3), Ok(Mark::Moved));
        assert_eq!(stream(u32::MAX - 4), Ok(Mark::Stay));
        for none in [u32::MAX - 2, u32::MAX - 3, u32::MAX - 4] {
            assert!(datagram(none).is_err());
        }
        assert!(datagram(65_508).is_err());
    }

    #[test]
    fn a_stream_is_split_where_a_frame_ends() {
        let raw: Vec<u8> = (0..150_000_u32).map(|at| at as u8).collect();
        let mut out = Vec::new();
        append_stream(&mut out, WHO, &raw);
        let mut rest = &out[..];
        let (mut lengths, mut joined) = (Vec::new(), Vec::new());
        while let Some((frame, len)) = Frame::decode(rest, Transport::Tcp).unwrap() {
            let Body::Data(raw) = frame.body else {
                panic!("{frame:?}");
            };
            lengths.push(raw.len());
            joined.extend_from_slice(raw);
            rest = &rest[len..];
        }
        assert_eq!(lengths, [65_536, 65_536, 18_928]);
        assert_eq!((joined, rest.len()), (raw, 0));
        out.clear();
        append_stream(&mut out, WHO, &[]);
        let uuid = WHO;
        let body = Body::Data(&[0; MAX_RAW + 1]);
        Frame { uuid, body }.encode(&mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn a_grant_of_nothing_is_refused() {
        let uuid = WHO;
        let grant = Grant { uuid, bytes: 7 };
        assert_eq!(Grant::decode(&grant.encode()), Ok(Some(grant)));
        assert_eq!(Grant::decode(&grant.encode()[..19]), Ok(None));
        assert!(Grant::decode(&Grant { uuid, bytes: 0 }.encode()).is_err());
    }

    #[test]
    fn a_family_that_there_is_not_is_refused_at_its_byte() {
        assert_eq!(Visitor::decode(&[1, 0]), Ok(None));
        assert!(Visitor::decode(&[1, 0, 5]).is_err());
    }
}
