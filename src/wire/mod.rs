//! Reading and writing of numbers and byte runs, total on any input.
//!
//! It is not a protocol: it knows neither frames nor dialects, and it sees no socket, no clock and
//! no log. The codecs under `protocols` are made of it.

pub mod proxy;

use std::fmt;

/// Takes fields off the front of a byte slice; every call says what the field is, so that an error
/// can name it. A failed call takes nothing.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The next `count` bytes. The count may come from a peer: nothing is allocated for it.
    pub fn bytes(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], WireError> {
        match self.bytes.split_at_checked(count) {
            Some((taken, left)) => {
                self.bytes = left;
                Ok(taken)
            }
            None => Err(WireError::Truncated {
                field,
                need: count,
                have: self.bytes.len(),
            }),
        }
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// The end of the last field: what is left over is an error.
    pub fn finish(self) -> Result<(), WireError> {
        match self.bytes.len() {
            0 => Ok(()),
            count => Err(WireError::Trailing { count }),
        }
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.array(field).map(u8::from_le_bytes)
    }

    /// Two bytes, the low one first.
    pub fn u16_le(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.array(field).map(u16::from_le_bytes)
    }

    /// Four bytes, the low one first.
    pub fn u32_le(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Eight bytes, the low one first.
    pub fn u64_le(&mut self, field: &'static str) -> Result<u64, WireError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Four bytes, the low one first, signed.
    pub fn i32_le(&mut self, field: &'static str) -> Result<i32, WireError> {
        self.array(field).map(i32::from_le_bytes)
    }

    /// Eight bytes, the low one first, signed.
    pub fn i64_le(&mut self, field: &'static str) -> Result<i64, WireError> {
        self.array(field).map(i64::from_le_bytes)
    }

    /// The next `N` bytes by value.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        match self.bytes.split_first_chunk() {
            Some((taken, left)) => {
                self.bytes = left;
                Ok(*taken)
            }
            None => Err(WireError::Truncated {
                field,
                need: N,
                have: self.bytes.len(),
            }),
        }
    }
}

/// Appends fields to a vector that the caller owns and reuses.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends behind what is in `out` already.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Where the next byte goes, counted from the start of the vector.
    pub fn position(&self) -> usize {
        self.out.len()
    }

    /// What was written from `position` on, to patch a length or to mask it. Empty when `position`
    /// lies behind the end.
    pub fn since(&mut self, position: usize) -> &mut [u8] {
        self.out.get_mut(position..).unwrap_or_default()
    }

    /// Appends the bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Two bytes, the low one first.
    pub fn u16_le(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Four bytes, the low one first.
    pub fn u32_le(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Eight bytes, the low one first.
    pub fn u64_le(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Four bytes, the low one first, signed.
    pub fn i32_le(&mut self, value: i32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Eight bytes, the low one first, signed.
    pub fn i64_le(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }
}

/// What is wrong with a peer's bytes: the field and the numbers, never the bytes themselves, since
/// they may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// A field ends behind the bytes that are there.
    Truncated {
        /// The field's name.
        field: &'static str,
        /// How many bytes it takes.
        need: usize,
        /// How many are left for it.
        have: usize,
    },
    /// A length is over a limit of ours.
    TooLong {
        /// The field's name.
        field: &'static str,
        /// The length that the peer wrote.
        length: u64,
        /// The limit, itself allowed.
        most: u64,
    },
    /// A field holds a value that the protocol does not know.
    BadValue {
        /// The field's name.
        field: &'static str,
        /// The value, widened; a negative one as its two's complement at the field's width.
        value: u64,
    },
    /// A field that the protocol demands is not there, or empty.
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// Bytes follow the last field where none may.
    Trailing {
        /// How many.
        count: usize,
    },
    /// The bytes and their checksum do not belong together.
    BadChecksum {
        /// What the bytes add up to.
        want: u8,
        /// What the sender wrote.
        have: u8,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { field, need, have } => {
                write!(f, "{field} needs {need} bytes but {have} are there")
            }
            Self::TooLong {
                field,
                length,
                most,
            } => write!(
                f,
                "{field} is {length} bytes long, over the limit of {most}"
            ),
            Self::BadValue { field, value } => write!(f, "{field} has the unknown value {value}"),
            Self::Missing { field } => write!(f, "{field} is missing"),
            Self::Trailing { count } => write!(f, "{count} bytes follow the last field"),
            Self::BadChecksum { want, have } => {
                write!(f, "checksum is {have:#04x} but the bytes make {want:#04x}")
            }
        }
    }
}

impl std::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_written() {
        let mut out = vec![0xaa];
        let mut writer = Writer::new(&mut out);
        writer.u8(1);
        writer.u16_le(0x6668);
        writer.u32_le(u32::MAX - 1);
        writer.u64_le(u64::MAX - 2);
        writer.i32_le(-3);
        writer.i64_le(i64::MIN);
        writer.bytes(b"end");
        assert_eq!(out[..4], [0xaa, 1, 0x68, 0x66]);

        let mut reader = Reader::new(&out[1..]);
        assert_eq!(reader.u8("a"), Ok(1));
        assert_eq!(reader.u16_le("b"), Ok(0x6668));
        assert_eq!(reader.u32_le("c"), Ok(u32::MAX - 1));
        assert_eq!(reader.u64_le("d"), Ok(u64::MAX - 2));
        assert_eq!(reader.i32_le("e"), Ok(-3));
        assert_eq!(reader.i64_le("f"), Ok(i64::MIN));
        assert_eq!(reader.remaining(), 3);
        assert_eq!(
            reader.clone().finish(),
            Err(WireError::Trailing { count: 3 })
        );
        assert_eq!(reader.rest(), b"end");
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_field_that_does_not_fit_takes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        let error = WireError::Truncated {
            field: "count",
            need: 4,
            have: 3,
        };
        assert_eq!(reader.u32_le("count"), Err(error));
        assert_eq!(error.to_string(), "count needs 4 bytes but 3 are there");
        assert!(reader.bytes("all", usize::MAX).is_err());
        assert_eq!(reader.bytes("all", 3), Ok(&[1, 2, 3][..]));
        assert_eq!(reader.bytes("none", 0), Ok(&[][..]));
    }

    #[test]
    fn what_was_written_can_be_patched() {
        let mut out = b"ab".to_vec();
        let mut writer = Writer::new(&mut out);
        let at = writer.position();
        writer.u16_le(0);
        writer.since(at)[1] = 7;
        assert!(writer.since(99).is_empty());
        assert_eq!(out, [b'a', b'b', 0, 7]);
    }
}
