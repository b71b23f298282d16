//! Walks over a protobuf message's fields without a copy.
//!
//! It knows no message, only the encoding: keys, varints, lengths, and groups, which are skipped by a
//! loop with a bounded stack, so that nesting costs neither depth nor more than the bytes themselves.

use crate::wire::{Reader, WireError};

/// A field's number and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    pub(super) value: Value<'a>,
}

/// What a field holds, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A fixed number or a group. No message of this protocol has one; it was skipped.
    Other,
}

impl<'a> Field<'a> {
    /// The bytes of a field that must hold some.
    pub(super) fn bytes(&self, name: &'static str) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.mistyped(name)),
        }
    }

    /// The number of a field that must hold one.
    pub(super) fn varint(&self, name: &'static str) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.mistyped(name)),
        }
    }

    fn mistyped(&self, field: &'static str) -> WireError {
        let value = u64::from(self.number);
        WireError::BadValue { field, value }
    }
}

/// The fields of one message, in the order of the bytes.
pub(super) struct Fields<'a> {
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(bytes),
        }
    }

    /// The next field, `Ok(None)` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.reader.remaining() == 0 {
            return Ok(None);
        }
        let (number, kind) = self.key()?;
        let value = match kind {
            START_GROUP => {
                self.skip_group(number)?;
                Value::Other
            }
            _ => self.value(kind)?,
        };
        Ok(Some(Field { number, value }))
    }

    /// Skips to the end of the group that has just begun.
    fn skip_group(&mut self, number: u32) -> Result<(), WireError> {
        let mut open = [0; MAX_DEPTH];
        let mut depth = 0;
        let mut opening = Some(number);
        loop {
            if let Some(number) = opening.take() {
                let place = open.get_mut(depth).ok_or(WireError::TooLong {
                    field: "nesting of groups",
                    length: MAX_DEPTH as u64 + 1,
                    most: MAX_DEPTH as u64,
                })?;
                *place = number;
                depth += 1;
            }
            let (number, kind) = self.key()?;
            match kind {
                START_GROUP => opening = Some(number),
                END_GROUP => {
                    depth = depth.saturating_sub(1);
                    if open.get(depth) != Some(&number) {
                        return Err(WireError::BadValue {
                            field: "end of group",
                            value: number.into(),
                        });
                    }
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => drop(self.value(kind)?),
            }
        }
    }

    fn key(&mut self) -> Result<(u32, u32), WireError> {
        let key = self.varint("key")?;
        let bad = WireError::BadValue {
            field: "key",
            value: key,
        };
        let key = u32::try_from(key).map_err(|_| bad)?;
        match (key >> 3, key & 7) {
            (0, _) => Err(bad),
            split => Ok(split),
        }
    }

    fn value(&mut self, kind: u32) -> Result<Value<'a>, WireError> {
        match kind {
            VARINT => self.varint("varint").map(Value::Varint),
            FIXED64 => self.reader.bytes("fixed64", 8).map(|_| Value::Other),
            FIXED32 => self.reader.bytes("fixed32", 4).map(|_| Value::Other),
            LENGTH => {
                let length = self.varint("length")?;
                // What no memory could hold is longer than what is there.
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                self.reader.bytes("field", length).map(Value::Bytes)
            }
            _ => Err(WireError::BadValue {
                field: "wire type",
                value: kind.into(),
            }),
        }
    }

    /// At most ten bytes, and no bit beyond the 64th.
    fn varint(&mut self, field: &'static str) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.reader.u8(field)?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::TooLong {
            field,
            length: 11,
            most: 10,
        })
    }
}

/// Groups within groups; far more than any writer of this protocol has, which is none.
const MAX_DEPTH: usize = 100;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const START_GROUP: u32 = 3;
const END_GROUP: u32 = 4;
const FIXED32: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Field<'_>>, WireError> {
        let mut fields = Fields::new(bytes);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    fn field(number: u32, value: Value<'_>) -> Field<'_> {
        Field { number, value }
    }

    #[test]
    fn every_wire_type_is_walked_over() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: varint 150
            0x12, 0x02, 7, 8, // 2: two bytes
            0x19, 1, 2, 3, 4, 5, 6, 7, 8, // 3: fixed64
            0x25, 1, 2, 3, 4, // 4: fixed32
            0x2b, 0x33, 0x08, 0x01, 0x34, 0x2c, // 5: a group with a group 6 in it
            0x3a, 0x00, // 7: no bytes
        ];
        assert_eq!(
            all(&bytes).unwrap(),
            [
                field(1, Value::Varint(150)),
                field(2, Value::Bytes(&[7, 8])),
                field(3, Value::Other),
                field(4, Value::Other),
                field(5, Value::Other),
                field(7, Value::Bytes(&[])),
            ]
        );
        let ends = [0, 3, 7, 16, 21, 27];
        for end in 0..bytes.len() {
            assert_eq!(all(&bytes[..end]).is_ok(), ends.contains(&end), "{end}");
        }
    }

    #[test]
    fn a_varint_has_ten_bytes_and_64_bits() {
        let of = |last: &[u8]| {
            let bytes = [&[0x08], &[0xff; 9][..], last].concat();
            let mut fields = Fields::new(&bytes);
            fields.next().map(|field| field.unwrap().varint("number"))
        };
        assert_eq!(of(&[0x01]), Ok(Ok(u64::MAX)));
        assert_eq!(of(&[0x00]), Ok(Ok(u64::MAX >> 1)));
        for last in [&[0x02][..], &[0x7f], &[0x81, 0x00], &[0xff, 0xff, 0x01]] {
            assert!(matches!(of(last), Err(WireError::TooLong { .. })));
        }
    }

    #[test]
    fn keys_lengths_and_ends_that_cannot_be_are_refused() {
        for bytes in [
            &[0x00, 0x01][..],                     // field 0
            &[0x0e],                               // wire type 6
            &[0x0f],                               // wire type 7
            &[0x0c],                               // the end of no group
            &[0x0b, 0x14],                         // the end of another
            &[0x80, 0x80, 0x80, 0x80, 0x10, 0x01], // a key over 32 bits
            &[
                0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01,
            ], // 2^63 bytes
            &[0x0a, 0x02, 0x00],
        ] {
            assert!(all(bytes).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn groups_nest_to_a_bound() {
        let nested = |depth: usize| {
            let bytes = [vec![0x0b; depth], vec![0x0c; depth]].concat();
            all(&bytes).map(|found| found.len())
        };
        assert_eq!(nested(MAX_DEPTH), Ok(1));
        let refused = Err(WireError::TooLong {
            field: "nesting of groups",
            length: 101,
            most: 100,
        });
        assert_eq!(nested(MAX_DEPTH + 1), refused);
        assert_eq!(nested(100_000), refused);
    }
}
