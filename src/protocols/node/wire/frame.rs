//! Frames and datagrams: the few bytes around a message.
//!
//! It does not look into the message, which on a leased port may be anything.

use prost::Message as _;

use super::Message;
use crate::wire::WireError;

/// The head of a TCP frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which network the frame belongs to.
    pub network: u32,
    /// Whether and how the body is compressed; see [`Head::is_compressed`].
    pub compression: u16,
    /// Bytes of the body.
    pub length: u32,
}

impl Head {
    /// The head at the front of `bytes`; `Ok(None)` while it may still become one. A wrong network is
    /// told by the first four bytes, before the rest is there. `max_frame` bounds the body, itself
    /// allowed.
    pub fn decode(bytes: &[u8], network: u32, max_frame: u32) -> Result<Option<Self>, WireError> {
        let Some((&found, _)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let found = u32::from_be_bytes(found);
        if found != network {
            return Err(bad_value("network id", found));
        }
        let Some((&[_, _, _, _, c0, c1, l0, l1, l2, l3], _)) = bytes.split_first_chunk::<HEAD>()
        else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length == 0 {
            return Err(bad_value("frame length", length));
        }
        if length > max_frame {
            return Err(WireError::TooLong {
                field: "frame",
                length: length.into(),
                most: max_frame.into(),
            });
        }
        Ok(Some(Self {
            network,
            compression: u16::from_be_bytes([c0, c1]),
            length,
        }))
    }

    /// The bytes of this head.
    pub fn encode(&self) -> [u8; HEAD] {
        let [n0, n1, n2, n3] = self.network.to_be_bytes();
        let [c0, c1] = self.compression.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        [n0, n1, n2, n3, c0, c1, l0, l1, l2, l3]
    }

    /// Bytes of the frame, head and body.
    pub fn frame_len(&self) -> usize {
        // A body is no longer than a u32 says, which is less than any memory's end.
        HEAD.saturating_add(usize::try_from(self.length).unwrap_or(usize::MAX))
    }

    /// Whether the body differs from the message's bytes. It does only where it is marked as
    /// compressed by gzip (2), zlib (3) or LZW (4): the programs in use write the other algorithms'
    /// bodies as they are.
    pub fn is_compressed(&self) -> bool {
        matches!(self.compression.to_be_bytes(), [1, 2..=4])
    }
}

/// Appends a whole frame with an uncompressed body. The head says "algorithm 1, off", as the programs
/// in use do. The message must be shorter than 4 GiB.
pub fn append_frame(out: &mut Vec<u8>, network: u32, message: &Message) {
    let head = Head {
        network,
        compression: UNCOMPRESSED,
        length: u32::try_from(message.encoded_len()).unwrap_or(u32::MAX),
    };
    out.extend_from_slice(&head.encode());
    message.encode_raw(out);
}

/// The message's bytes in a datagram. What follows them is an error, as is a length of 0.
pub fn decode_datagram(packet: &[u8]) -> Result<&[u8], WireError> {
    let Some((&length, message)) = packet.split_first_chunk::<DATAGRAM_HEAD>() else {
        return Err(WireError::Truncated {
            field: "datagram length",
            need: DATAGRAM_HEAD,
            have: packet.len(),
        });
    };
    let need = usize::from(u16::from_be_bytes(length));
    match message.len() {
        _ if need == 0 => Err(bad_value("datagram length", 0)),
        have if have < need => Err(WireError::Truncated {
            field: "datagram",
            need,
            have,
        }),
        have if have > need => Err(WireError::Trailing { count: have - need }),
        _ => Ok(message),
    }
}

/// Appends a whole datagram. A message of more than 65,535 bytes fits into none, and nothing is
/// written.
pub fn append_datagram(out: &mut Vec<u8>, message: &Message) -> Result<(), WireError> {
    let length = message.encoded_len();
    let Ok(head) = u16::try_from(length) else {
        return Err(WireError::TooLong {
            field: "datagram",
            length: length as u64,
            most: u16::MAX.into(),
        });
    };
    out.extend_from_slice(&head.to_be_bytes());
    message.encode_raw(out);
    Ok(())
}

fn bad_value(field: &'static str, value: u32) -> WireError {
    WireError::BadValue {
        field,
        value: value.into(),
    }
}

/// Bytes of a TCP frame before its body.
pub const HEAD: usize = 10;

/// Bytes of a datagram before its message.
pub const DATAGRAM_HEAD: usize = 2;

/// Algorithm 1, off: what the server in use writes.
const UNCOMPRESSED: u16 = 0x0001;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::node::wire::{MAX_FRAME, NETWORK_ID};

    const BYTES: [u8; HEAD] = [0x5d, 0x3a, 0xe6, 0x5a, 0x01, 0x02, 0, 0, 0x01, 0x31];

    fn decode(bytes: &[u8]) -> Result<Option<Head>, WireError> {
        Head::decode(bytes, NETWORK_ID, MAX_FRAME)
    }

    #[test]
    fn a_head_is_read_and_written_and_every_prefix_waits() {
        let head = Head {
            network: NETWORK_ID,
            compression: 0x0102,
            length: 305,
        };
        assert_eq!(decode(&BYTES), Ok(Some(head)));
        assert_eq!(decode(&[&BYTES[..], b"body"].concat()), Ok(Some(head)));
        assert_eq!(head.encode(), BYTES);
        assert_eq!(head.frame_len(), 315);
        for end in 0..HEAD {
            assert_eq!(decode(&BYTES[..end]), Ok(None));
        }
    }

    #[test]
    fn a_foreign_network_is_told_by_four_bytes() {
        let foreign = Err(WireError::BadValue {
            field: "network id",
            value: 0x4745_5420,
        });
        assert_eq!(decode(b"GET"), Ok(None));
        assert_eq!(decode(b"GET "), foreign);
        assert_eq!(decode(b"GET / HTTP/1.1"), foreign);
    }

    #[test]
    fn lengths_have_two_ends() {
        let of = |length: u32| {
            let mut bytes = BYTES;
            bytes[6..].copy_from_slice(&length.to_be_bytes());
            decode(&bytes).map(|head| head.unwrap().length)
        };
        assert_eq!(of(1), Ok(1));
        assert_eq!(of(MAX_FRAME), Ok(MAX_FRAME));
        assert!(matches!(of(0), Err(WireError::BadValue { value: 0, .. })));
        for length in [MAX_FRAME + 1, u32::MAX] {
            assert!(matches!(of(length), Err(WireError::TooLong { .. })));
        }
    }

    #[test]
    fn only_three_algorithms_change_a_body() {
        let is_compressed = |compression| {
            let (network, length) = (NETWORK_ID, 1);
            Head {
                network,
                compression,
                length,
            }
            .is_compressed()
        };
        for compression in [0, 1, 2, 0x0100, 0x0101, 0x0105, 0x0202, 0xff02] {
            assert!(!is_compressed(compression), "{compression:#06x}");
        }
        for compression in [0x0102, 0x0103, 0x0104] {
            assert!(is_compressed(compression), "{compression:#06x}");
        }
    }

    #[test]
    fn a_datagram_is_as_long_as_it_says() {
        assert_eq!(decode_datagram(&[0, 2, 7, 8]), Ok(&[7, 8][..]));
        assert_eq!(
            decode_datagram(&[0, 2, 7, 8, 9]),
            Err(WireError::Trailing { count: 1 })
        );
        for packet in [&[][..], &[0], &[0, 2], &[0, 2, 7], &[0xff, 0xff, 1]] {
            let refused = decode_datagram(packet);
            assert!(matches!(refused, Err(WireError::Truncated { .. })));
        }
        assert!(decode_datagram(&[0, 0]).is_err());
        assert!(decode_datagram(&[0, 0, 1]).is_err());
    }

    #[test]
    fn a_message_too_long_for_a_datagram_writes_nothing() {
        let of = |count| Message {
            message: vec![1; count],
            ..Message::default()
        };
        let mut out = Vec::new();
        assert!(append_datagram(&mut out, &of(65_532)).is_err());
        assert!(out.is_empty());
        assert_eq!(append_datagram(&mut out, &of(65_531)), Ok(()));
        assert_eq!(decode_datagram(&out).map(<[u8]>::len), Ok(65_535));
    }
}
