//! The frame around a payload: header, mask, checksum, and telling the two dialects apart.
//!
//! It is not the payload's fields, which are `request` and `reply`.
//!
//! ```text
//!  bytes   0 ..... 4 ..... 13 ................ 17 ........ 13+L ............ 17+L
//!          magic,  op,     L is known:         next four   the document's    the stock frame
//!          version mask    over the limit or   bytes say:  frame is whole    is whole
//!                          under the least                   |                 |
//!                          possible: refused   not zero -----+--> Document     |
//!                                              zero, mask is a |               |
//!                                              possible first  +- sound and ---+--> Document
//!                                              field: either   |  exact        |
//!                                                              +- not ---------+--> Stock
//!                                              zero otherwise -----------------+--> Stock
//! ```
//!
//! Bytes 13 to 16 are the high half of a stock length, zero in every legal frame, or the first four
//! payload bytes of a document frame, zero only when the mask equals the first field.

use super::fields::Fields;
use super::request::Request;
use super::{Dialect, HEADER_START, MAGIC, OP_AGENT, OP_TRAFFIC, VERSION};
use crate::wire::{Reader, WireError, Writer};

/// One whole request off the front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// In which dialect it came, and its reply goes.
    pub dialect: Dialect,
    /// How many bytes of the stream it took; what follows is the next frame or relayed bytes.
    pub consumed: usize,
    /// What it asks.
    pub request: Request<'a>,
}

/// Reads the request at the front of `input`, the bytes of a stream so far.
///
/// `Ok(None)` means "not yet": call again when more bytes are there. Until the frame is whole a call
/// costs the same whatever its length, so byte-by-byte arrival stays cheap. An error comes with the
/// first byte that makes every continuation wrong, except that checksum, op and fields are judged
/// when the payload is there. `scratch` takes the unmasked payload, once all of it has come; it
/// never grows on the word of a length.
pub fn decode<'s>(
    input: &[u8],
    max_payload: usize,
    scratch: &'s mut Vec<u8>,
) -> Result<Option<Frame<'s>>, WireError> {
    let Some(header) = Header::read(input, max_payload)? else {
        return Ok(None);
    };
    let dialect = match header.widths {
        Widths::Certain(dialect) => dialect,
        Widths::Either => match header.payload(Dialect::Document, input) {
            None => return Ok(None),
            Some(masked) if header.is_exact_document(masked, scratch) => Dialect::Document,
            Some(_) => Dialect::Stock,
        },
    };
    let Some(masked) = header.payload(dialect, input) else {
        return Ok(None);
    };
    header.unmask(masked, scratch)?;
    Ok(Some(Frame {
        dialect,
        consumed: dialect.header_len() + masked.len(),
        request: Request::read(header.op, dialect, scratch)?,
    }))
}

/// How many bytes, from the start of the frame, the next decision needs after [`decode`] said
/// `Ok(None)` to the same `input`.
///
/// A caller may hold this much room, and need not hold more. It never exceeds the stock header and
/// the `max_payload` that `decode` was called with.
pub fn needed(input: &[u8]) -> usize {
    let whole_header = Dialect::Stock.header_len();
    let Ok(Some(header)) = Header::read(input, usize::MAX) else {
        return whole_header;
    };
    let document = Dialect::Document.header_len() + header.length;
    match header.widths {
        Widths::Certain(dialect) => dialect.header_len() + header.length,
        Widths::Either if input.len() < document => document,
        Widths::Either => whole_header + header.length,
    }
}

/// A header whose length and dialect are read as far as they can be without the payload.
struct Header {
    checksum: u8,
    op: u8,
    mask: [u8; 4],
    length: usize,
    widths: Widths,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Widths {
    Certain(Dialect),
    Either,
}

impl Header {
    /// `None` until all the bytes that tell the dialects apart are there.
    fn read(input: &[u8], max_payload: usize) -> Result<Option<Self>, WireError> {
        check_start(input)?;
        if input.len() < Dialect::Document.header_len() {
            return Ok(None);
        }
        let (checksum, op, mask, mut reader) = read_start(input)?;
        // A length's low half lies in the same place in both dialects, and bounds both.
        let length = reader.u32_le("length")? as usize;
        check_length(length, max_payload)?;
        if reader.remaining() < 4 {
            return Ok(None);
        }
        let masked_first: [u8; 4] = reader.array("length")?;
        let is_zero = masked_first == [0; 4];
        let first = u32::from_le_bytes(masked_first) ^ u32::from_le_bytes(mask);
        let widths = match (is_zero, check_first_field(op, first as usize, length)) {
            (true, Ok(())) => Widths::Either,
            (true, Err(_)) => Widths::Certain(Dialect::Stock),
            (false, Ok(())) => Widths::Certain(Dialect::Document),
            // No document frame begins so, and as the high half of a stock length it is over any
            // limit: refused here instead of after a payload that may never come.
            (false, Err(error)) => return Err(error),
        };
        Ok(Some(Self {
            checksum,
            op,
            mask,
            length,
            widths,
        }))
    }

    /// The masked payload, when all of it is in `input`.
    fn payload<'i>(&self, dialect: Dialect, input: &'i [u8]) -> Option<&'i [u8]> {
        input.get(dialect.header_len()..)?.get(..self.length)
    }

    /// The second opinion on a frame of [`Widths::Either`]. It is asked for at most five lengths of
    /// `input` (13+L to 17+L), so that repeated calls stay linear.
    fn is_exact_document(&self, masked: &[u8], scratch: &mut Vec<u8>) -> bool {
        self.unmask(masked, scratch).is_ok()
            && Request::is_exact(self.op, Dialect::Document, scratch)
    }

    /// Fills `scratch` with the payload as it was before masking.
    fn unmask(&self, masked: &[u8], scratch: &mut Vec<u8>) -> Result<(), WireError> {
        scratch.clear();
        scratch.extend_from_slice(masked);
        apply_mask(scratch, self.mask);
        match checksum(scratch) {
            want if want == self.checksum => Ok(()),
            want => Err(WireError::BadChecksum {
                want,
                have: self.checksum,
            }),
        }
    }
}

/// The fields before the length: checksum, op, mask, and the reader behind them.
type Start<'i> = (u8, u8, [u8; 4], Reader<'i>);

fn read_start(input: &[u8]) -> Result<Start<'_>, WireError> {
    let mut reader = Reader::new(input);
    reader.u16_le("magic")?;
    let checksum = reader.u8("checksum")?;
    reader.u8("version")?;
    let op = reader.u8("op")?;
    let mask = reader.array("mask")?;
    Ok((checksum, op, mask, reader))
}

/// Refuses a stream of another protocol at its first wrong byte.
fn check_start(input: &[u8]) -> Result<(), WireError> {
    for (&have, want) in input.iter().zip(MAGIC) {
        check_value("magic", u64::from(have), have == want)?;
    }
    match input.get(3) {
        Some(&version) => check_value("version", u64::from(version), version <= VERSION),
        None => Ok(()),
    }
}

fn check_value(field: &'static str, value: u64, is_known: bool) -> Result<(), WireError> {
    if is_known {
        Ok(())
    } else {
        Err(WireError::BadValue { field, value })
    }
}

fn check_length(length: usize, max_payload: usize) -> Result<(), WireError> {
    if length > max_payload {
        return Err(WireError::TooLong {
            field: "payload",
            length: length as u64,
            most: max_payload as u64,
        });
    }
    if length < SHORTEST_PAYLOAD {
        return Err(WireError::Truncated {
            field: "payload",
            need: SHORTEST_PAYLOAD,
            have: length,
        });
    }
    Ok(())
}

/// Whether a document payload of `length` bytes may begin with this number: the length of cmd or of
/// service, or the leading operation. A frame of unknown op may begin with anything.
fn check_first_field(op: u8, first: usize, length: usize) -> Result<(), WireError> {
    let field = match op {
        OP_AGENT => "cmd",
        OP_TRAFFIC => "service",
        _ => return Ok(()),
    };
    let have = length.saturating_sub(SHORTEST_PAYLOAD);
    if first <= have {
        return Ok(());
    }
    Err(WireError::Truncated {
        field,
        need: first,
        have,
    })
}

/// Appends a frame whose payload `body` writes.
pub(super) fn encode(
    out: &mut Vec<u8>,
    dialect: Dialect,
    mask: [u8; 4],
    op: u8,
    body: impl FnOnce(&mut Fields<'_>),
) {
    let start = out.len();
    let mut writer = Writer::new(out);
    writer.bytes(&MAGIC);
    writer.u8(0);
    writer.u8(VERSION);
    writer.u8(op);
    writer.bytes(&mask);
    let mut fields = Fields::new(writer, dialect);
    fields.nested(body);
    let mut writer = fields.into_writer();
    let payload = writer.since(start + dialect.header_len());
    let sum = checksum(payload);
    apply_mask(payload, mask);
    if let Some(slot) = writer.since(start + CHECKSUM_AT).first_mut() {
        *slot = sum;
    }
}

/// Reads the header of a reply, whose dialect is that of the request. `None` as in [`decode`]; else
/// the op and how many bytes the frame took, with the payload in `scratch`.
pub(super) fn decode_plain(
    input: &[u8],
    dialect: Dialect,
    max_payload: usize,
    scratch: &mut Vec<u8>,
) -> Result<Option<(u8, usize)>, WireError> {
    check_start(input)?;
    if input.len() < dialect.header_len() {
        return Ok(None);
    }
    let (checksum, op, mask, mut reader) = read_start(input)?;
    let length = match dialect {
        Dialect::Document => u64::from(reader.u32_le("length")?),
        Dialect::Stock => reader.u64_le("length")?,
    };
    // A length over what the machine can address is over the limit as well.
    check_length(usize::try_from(length).unwrap_or(usize::MAX), max_payload)?;
    let header = Header {
        checksum,
        op,
        mask,
        length: length as usize,
        widths: Widths::Certain(dialect),
    };
    let Some(masked) = header.payload(dialect, input) else {
        return Ok(None);
    };
    header.unmask(masked, scratch)?;
    Ok(Some((op, dialect.header_len() + masked.len())))
}

/// XOR of all bytes.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

/// Masks or unmasks in place. Eight bytes at a time: the mask's period divides it.
fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= mask;
    }
}

/// Where a frame's checksum lies.
const CHECKSUM_AT: usize = 2;

/// The least a payload can be in any dialect: three empty 32-bit fields.
const SHORTEST_PAYLOAD: usize = 12;

// The offsets of the diagram above, which the dialects' telling apart rests on.
const _: () = assert!(
    HEADER_START == 9 && Dialect::Document.header_len() == 13 && Dialect::Stock.header_len() == 17
);
