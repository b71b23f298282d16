//! The eight bytes before every payload.

use crate::wire::WireError;

/// The head of a frame: what its length field says, and whose payload follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes behind the length field: the connection id's four and the payload's.
    pub length: u32,
    /// The virtual connection; 0 for a command.
    pub conn: u32,
}

impl Head {
    /// The head of a message or a command of `payload` bytes; `None` where their length does not fit
    /// the field.
    pub fn new(conn: u32, payload: usize) -> Option<Self> {
        let length = payload.checked_add(CONN_ID)?;
        let length = u32::try_from(length).ok()?;
        Some(Self { length, conn })
    }

    /// Reads a head. The length is judged as [`length()`] judges it.
    pub fn decode(bytes: &[u8; HEAD], max_packet: u32) -> Result<Self, WireError> {
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
        Ok(Self {
            length: length(&[l0, l1, l2, l3], max_packet)?,
            conn: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }

    /// The bytes of it.
    pub fn encode(self) -> [u8; HEAD] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [c0, c1, c2, c3] = self.conn.to_le_bytes();
        [l0, l1, l2, l3, c0, c1, c2, c3]
    }

    /// Whether the payload is a command.
    pub const fn is_command(self) -> bool {
        self.conn == 0
    }

    /// Bytes of the payload.
    pub const fn payload_len(self) -> usize {
        (self.length as usize).saturating_sub(CONN_ID)
    }

    /// Bytes of the whole frame, its head included.
    pub const fn frame_len(self) -> usize {
        HEAD.saturating_add(self.payload_len())
    }
}

/// Judges a frame's length as soon as its four bytes are there: it must leave room for a connection
/// id and be `max_packet` at most, itself allowed.
pub fn length(bytes: &[u8; LENGTH], max_packet: u32) -> Result<u32, WireError> {
    let length = u32::from_le_bytes(*bytes);
    if (length as usize) < CONN_ID {
        return Err(WireError::Truncated {
            field: "connection id",
            need: CONN_ID,
            have: length as usize,
        });
    }
    if length > max_packet {
        return Err(WireError::TooLong {
            field: "packet",
            length: u64::from(length),
            most: u64::from(max_packet),
        });
    }
    Ok(length)
}

/// Bytes of a head.
pub const HEAD: usize = LENGTH + CONN_ID;

/// Bytes of a connection id, the least that a length counts.
pub const CONN_ID: usize = 4;

/// What the programs in use let a length be at most; a payload is four bytes shorter.
pub const MAX_PACKET: u32 = 512 * 1024;

/// Bytes of the length field.
pub(super) const LENGTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_as_they_were_written() {
        // length 9, connection 1, as before "Hello"
        let bytes = [9, 0, 0, 0, 1, 0, 0, 0];
        let head = Head::decode(&bytes, MAX_PACKET).unwrap();
        assert_eq!(head, Head { length: 9, conn: 1 });
        assert_eq!(Head::new(1, 5), Some(head));
        assert_eq!(head.encode(), bytes);
        assert_eq!((head.payload_len(), head.frame_len()), (5, 13));
        assert!(!head.is_command());
        let bytes = [5, 0, 0, 0, 0, 0, 0, 0];
        assert!(Head::decode(&bytes, MAX_PACKET).unwrap().is_command());
        let wide = Head {
            length: 0x0403_0201,
            conn: 0x0807_0605,
        };
        assert_eq!(wide.encode(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Head::decode(&wide.encode(), u32::MAX), Ok(wide));
    }

    #[test]
    fn a_length_is_judged_at_its_limits() {
        let judge = |value: u32| length(&value.to_le_bytes(), MAX_PACKET);
        assert_eq!(judge(4), Ok(4));
        assert_eq!(judge(MAX_PACKET), Ok(MAX_PACKET));
        for short in 0..4 {
            let error = judge(short).unwrap_err();
            let want = format!("connection id needs 4 bytes but {short} are there");
            assert_eq!(error.to_string(), want);
        }
        assert_eq!(
            judge(MAX_PACKET + 1).unwrap_err().to_string(),
            "packet is 524289 bytes long, over the limit of 524288"
        );
        assert!(judge(u32::MAX).is_err());
        let mut bytes = [0xff; HEAD];
        assert!(Head::decode(&bytes, MAX_PACKET).is_err());
        bytes[..4].copy_from_slice(&[3, 0, 0, 0]);
        assert!(Head::decode(&bytes, MAX_PACKET).is_err());
    }

    #[test]
    fn a_payload_that_no_length_can_tell_has_no_head() {
        assert_eq!(Head::new(1, usize::MAX), None);
        assert_eq!(Head::new(1, u32::MAX as usize - 3), None);
        let largest = Head::new(1, u32::MAX as usize - 4).unwrap();
        assert_eq!(largest.length, u32::MAX);
        assert_eq!(Head::new(1, 0).map(Head::frame_len), Some(HEAD));
    }
}
