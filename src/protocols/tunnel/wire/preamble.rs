//! The first bytes of every connection, and all that a data connection needs to say.

use super::{TICKET, Ticket, UUID, Uuid};
use crate::wire::WireError;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Control frames, both ways.
    Control,
    /// One visitor's raw bytes, or the datagrams of a service.
    Data,
    /// Frames of many visitors, from the client to the server.
    Send,
    /// Frames of many visitors, from the server to the client.
    Receive,
}

impl Kind {
    /// The kind of this byte.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'C' => Some(Self::Control),
            b'D' => Some(Self::Data),
            b'S' => Some(Self::Send),
            b'R' => Some(Self::Receive),
            _ => None,
        }
    }

    /// The byte of this kind.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Control => b'C',
            Self::Data => b'D',
            Self::Send => b'S',
            Self::Receive => b'R',
        }
    }

    /// What a client writes first.
    pub const fn preamble(self) -> [u8; PREAMBLE] {
        let [a, b, c, d] = MAGIC;
        [a, b, c, d, self.byte()]
    }
}

/// Who has come, by the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A client of this version, for this.
    Known(Kind),
    /// A client of another version, `2` to `9`: it can be told so, and nothing else is known of it.
    Foreign(u8),
}

impl Hello {
    /// Reads the front of `bytes`; `Ok(None)` while it may still become a preamble. Another protocol
    /// is told by its first wrong byte.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let wrong = |field, byte: u8| WireError::BadValue {
            field,
            value: byte.into(),
        };
        let [family @ .., version] = MAGIC;
        let strange = bytes
            .iter()
            .zip(family)
            .find(|(have, want)| **have != *want);
        if let Some((&byte, _)) = strange {
            return Err(wrong("magic", byte));
        }
        match bytes.get(family.len()..).unwrap_or_default() {
            [] => Ok(None),
            [have @ b'2'..=b'9', ..] => Ok(Some(Self::Foreign(*have))),
            [have, ..] if *have != version => Err(wrong("version", *have)),
            [_] => Ok(None),
            [_, kind, ..] => match Kind::from_byte(*kind) {
                Some(kind) => Ok(Some(Self::Known(kind))),
                None => Err(wrong("connection kind", *kind)),
            },
        }
    }
}

/// All that the client of a data connection says behind the preamble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// What admits it.
    pub ticket: Ticket,
    /// What the ticket was handed out for; [`Uuid::NONE`] for the pool.
    pub uuid: Uuid,
}

impl Attach {
    /// What stands behind the preamble; `None` is "not yet". Any bytes are a ticket, though hardly a
    /// valid one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (ticket, rest) = bytes.split_first_chunk()?;
        Some(Self {
            ticket: Ticket::new(*ticket),
            uuid: Uuid::from_bytes(*rest.first_chunk()?),
        })
    }

    /// The first bytes of a data connection, the preamble among them.
    pub fn encode(&self) -> [u8; PREAMBLE + ATTACH] {
        let mut bytes = [0; PREAMBLE + ATTACH];
        let (preamble, rest) = bytes.split_at_mut(PREAMBLE);
        let (ticket, uuid) = rest.split_at_mut(TICKET);
        preamble.copy_from_slice(&Kind::Data.preamble());
        ticket.copy_from_slice(self.ticket.as_bytes());
        uuid.copy_from_slice(self.uuid.as_bytes());
        bytes
    }
}

/// What every connection begins with; the last byte is the version.
pub const MAGIC: [u8; 4] = *b"TWP1";

/// Bytes of a preamble, the magic and the kind.
pub const PREAMBLE: usize = MAGIC.len() + 1;

/// Bytes of an [`Attach`] behind the preamble.
pub const ATTACH: usize = TICKET + UUID;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_preamble_and_every_prefix_waits() {
        for kind in [Kind::Control, Kind::Data, Kind::Send, Kind::Receive] {
            let bytes = kind.preamble();
            assert_eq!(Hello::decode(&bytes), Ok(Some(Hello::Known(kind))));
            assert_eq!(Kind::from_byte(kind.byte()), Some(kind));
            for end in 0..PREAMBLE {
                assert_eq!(Hello::decode(&bytes[..end]), Ok(None));
            }
        }
    }

    #[test]
    fn another_protocol_is_told_by_its_first_wrong_byte() {
        for (bytes, field, value) in [
            (&b"G"[..], "magic", b'G'),
            (b"TX", "magic", b'X'),
            (b"SSH-2.0", "magic", b'S'),
            (b"TWP0", "version", b'0'),
            (b"TWPX", "version", b'X'),
            (b"TWP1X", "connection kind", b'X'),
        ] {
            let value = value.into();
            let error = WireError::BadValue { field, value };
            assert_eq!(Hello::decode(bytes), Err(error));
        }
        assert_eq!(Hello::decode(b"TWP2"), Ok(Some(Hello::Foreign(b'2'))));
    }
}
