//! The fields of a payload, whose lengths are as wide as the dialect has them.
//!
//! It is not the order of the fields, which `request` and `reply` know.

use super::Dialect;
use crate::wire::{Reader, WireError, Writer};

/// Writes the fields of a payload in one dialect.
pub(super) struct Fields<'a> {
    writer: Writer<'a>,
    dialect: Dialect,
}

impl<'a> Fields<'a> {
    /// Appends behind what `writer` has written.
    pub(super) fn new(writer: Writer<'a>, dialect: Dialect) -> Self {
        Self { writer, dialect }
    }

    /// Where they went, to patch what lies before them.
    pub(super) fn into_writer(self) -> Writer<'a> {
        self.writer
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.writer.u32_le(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.writer.i32_le(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.writer.i64_le(value);
    }

    pub(super) fn binary(&mut self, bytes: &[u8]) {
        self.nested(|fields| fields.writer.bytes(bytes));
    }

    /// A Binary whose bytes `body` writes: its length is patched in afterwards.
    pub(super) fn nested(&mut self, body: impl FnOnce(&mut Self)) {
        let width = self.dialect.length_len();
        let at = self.writer.position();
        self.writer.bytes(&[0; 8][..width]);
        body(self);
        let length = self.writer.position() - at - width;
        assert!(
            length <= u32::MAX as usize,
            "a value of {length} bytes has no length in the document's dialect"
        );
        let bytes = (length as u64).to_le_bytes();
        let slots = self.writer.since(at).iter_mut().take(width);
        for (slot, byte) in slots.zip(bytes) {
            *slot = byte;
        }
    }
}

/// Reads the fields of a payload in one dialect.
pub(super) struct FieldReader<'a> {
    reader: Reader<'a>,
    dialect: Dialect,
}

impl<'a> FieldReader<'a> {
    pub(super) fn new(payload: &'a [u8], dialect: Dialect) -> Self {
        Self {
            reader: Reader::new(payload),
            dialect,
        }
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, WireError> {
        self.reader.i32_le(field)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, WireError> {
        self.reader.i64_le(field)
    }

    pub(super) fn binary(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let length = match self.dialect {
            Dialect::Document => u64::from(self.reader.u32_le(field)?),
            Dialect::Stock => self.reader.u64_le(field)?,
        };
        self.reader
            .bytes(field, usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A last field that older peers leave out: 0 when nothing is left. The document has no such
    /// field at all, so there only exactly four bytes are taken for one, and others are an
    /// extension. A stock peer that sends a part of it is cut short.
    pub(super) fn last_or_zero(&mut self, field: &'static str) -> Result<i32, WireError> {
        match (self.dialect, self.reader.remaining()) {
            (_, 0) => Ok(0),
            (Dialect::Document, left) if left != 4 => Ok(0),
            _ => self.reader.i32_le(field),
        }
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), WireError> {
        self.reader.finish()
    }
}
