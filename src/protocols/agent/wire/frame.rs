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

#[cfg(test)]
mod tests {
    use super::super::{AgentRequest, Dialect, MAX_PAYLOAD, Request, encode_request};
    use super::*;

    const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

    /// The worked example: update dev1/status = "hello".
    const UPDATE: &str = "68660b0100112233444500000000000000172233441122334464525725654733441122184411\
        22334411223744112233441122572167133544112233441122403070564637142233441122334479475f287e22334411";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn update() -> Request<'static> {
        Request::Agent(AgentRequest::Update {
            id: b"dev1",
            section: b"status",
            data: b"hello",
            op: 0,
        })
    }

    fn encoded(dialect: Dialect, mask: [u8; 4], request: &Request<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_request(&mut out, dialect, mask, request);
        out
    }

    fn refusal(input: &[u8]) -> WireError {
        decode(input, MAX_PAYLOAD, &mut Vec::new()).unwrap_err()
    }

    /// Decodes and checks that no shorter input was enough, and that longer input changes nothing.
    fn assert_decodes(bytes: &[u8], dialect: Dialect, request: &Request<'_>) {
        let mut scratch = Vec::new();
        for end in 0..bytes.len() {
            let early = decode(&bytes[..end], MAX_PAYLOAD, &mut scratch);
            assert_eq!(early, Ok(None), "{end} bytes of {}", bytes.len());
            assert!(needed(&bytes[..end]) > end);
        }
        let mut followed = bytes.to_vec();
        followed.extend_from_slice(b"GET / HTTP/1.0\r\n\r\n");
        for input in [bytes, &followed] {
            let frame = decode(input, MAX_PAYLOAD, &mut scratch).unwrap().unwrap();
            assert_eq!(frame.dialect, dialect);
            assert_eq!(frame.consumed, bytes.len());
            assert_eq!(frame.request, *request);
        }
    }

    #[test]
    fn the_worked_example_reads_and_writes() {
        let bytes = hex(UPDATE);
        assert_decodes(&bytes, Dialect::Stock, &update());
        assert_eq!(encoded(Dialect::Stock, MASK, &update()), bytes);
    }

    #[test]
    fn dialects_are_told_apart_under_every_mask_that_could_mislead() {
        let traffic = |leading_operation| Request::Traffic {
            service: b"test_http",
            field: b"github",
            token: b"test_http_token",
            leading_operation,
        };
        let query = |wait| {
            Request::Agent(AgentRequest::Query {
                id: b"dev1",
                section: b"status",
                wait,
            })
        };
        let empty = Request::Traffic {
            service: b"",
            field: b"",
            token: b"",
            leading_operation: true,
        };
        let requests = [
            update(),
            query(0),
            query(7),
            Request::Agent(AgentRequest::Sniff),
            Request::Agent(AgentRequest::Auth { token: b"secret" }),
            Request::Agent(AgentRequest::Unknown { command: b"" }),
            traffic(true),
            traffic(false),
            empty,
        ];
        for first in [0_u32, 4, 5, 6, 9, 0x4433_2211, u32::MAX] {
            for dialect in [Dialect::Document, Dialect::Stock] {
                for request in &requests {
                    let bytes = encoded(dialect, first.to_le_bytes(), request);
                    assert_decodes(&bytes, dialect, request);
                }
            }
        }
    }

    #[test]
    fn a_wrong_start_is_refused_at_its_first_wrong_byte() {
        assert_eq!(
            refusal(b"G"),
            WireError::BadValue {
                field: "magic",
                value: 0x47
            }
        );
        assert!(matches!(refusal(&[0x68, 0x68]), WireError::BadValue { .. }));
        assert_eq!(
            refusal(&[0x68, 0x66, 0, 2]),
            WireError::BadValue {
                field: "version",
                value: 2
            }
        );
        let mut old = hex(UPDATE);
        old[3] = 0;
        assert_decodes(&old, Dialect::Stock, &update());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_any_payload() {
        let header = |length: u64| {
            let mut bytes = hex(UPDATE)[..9].to_vec();
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes
        };
        let mut scratch = Vec::new();
        let limit = header(MAX_PAYLOAD as u64);
        assert_eq!(decode(&limit, MAX_PAYLOAD, &mut scratch), Ok(None));
        assert_eq!(needed(&limit), MAX_PAYLOAD + 17);
        for length in [524_289, 1 << 31, u64::from(u32::MAX), u64::MAX] {
            let most = MAX_PAYLOAD as u64;
            let length_low = length & u64::from(u32::MAX);
            let error = WireError::TooLong {
                field: "payload",
                length: length_low,
                most,
            };
            assert_eq!(refusal(&header(length)[..13]), error);
        }
        // As a stock length over the limit by far, as a document's frame of an impossible cmd.
        let far = refusal(&header((1 << 40) + 100));
        assert!(matches!(far, WireError::Truncated { field: "cmd", .. }));
        for length in 0..12 {
            assert!(matches!(
                refusal(&header(length)[..13]),
                WireError::Truncated { .. }
            ));
        }
        assert_eq!(scratch.capacity(), 0);
    }

    #[test]
    fn the_largest_payload_passes_and_is_touched_once_when_it_is_whole() {
        // Around the data: the fields that are neither id nor section nor data, and a key of two.
        for (dialect, around) in [(Dialect::Document, 30 + 2), (Dialect::Stock, 54 + 2)] {
            let data = vec![0xa5; MAX_PAYLOAD - around];
            let request = Request::Agent(AgentRequest::Update {
                id: b"a",
                section: b"b",
                data: &data,
                op: 0,
            });
            // The second mask leaves the dialect open until the document's frame could be whole.
            for mask in [MASK, [6, 0, 0, 0]] {
                let bytes = encoded(dialect, mask, &request);
                assert_eq!(bytes.len(), dialect.header_len() + MAX_PAYLOAD);
                let mut scratch = Vec::new();
                for end in 0..MAX_PAYLOAD + 13 {
                    let early = decode(&bytes[..end], MAX_PAYLOAD, &mut scratch);
                    assert!(matches!(early, Ok(None)));
                }
                // Work on a part of the payload would show here, and would make arrival in small
                // pieces quadratic.
                assert_eq!(scratch.capacity(), 0);
                let frame = decode(&bytes, MAX_PAYLOAD, &mut scratch).unwrap().unwrap();
                assert!(frame.dialect == dialect && frame.request == request);
            }
        }
    }

    #[test]
    fn checksum_and_op_are_judged_when_the_payload_is_there() {
        let mut bytes = hex(UPDATE);
        bytes[2] ^= 1;
        let last = bytes.len() - 1;
        assert_eq!(
            decode(&bytes[..last], MAX_PAYLOAD, &mut Vec::new()),
            Ok(None)
        );
        let error = WireError::BadChecksum {
            want: 0x0b,
            have: 0x0a,
        };
        assert_eq!(refusal(&bytes), error);

        let mut bytes = hex(UPDATE);
        bytes[4] = 2;
        assert_eq!(
            decode(&bytes[..last], MAX_PAYLOAD, &mut Vec::new()),
            Ok(None)
        );
        let error = WireError::BadValue {
            field: "op",
            value: 2,
        };
        assert_eq!(refusal(&bytes), error);
    }

    #[test]
    fn the_checksum_is_over_the_bytes_before_masking() {
        let mut bytes = hex(UPDATE);
        let masked_sum = checksum(&bytes[17..]);
        assert_ne!(masked_sum, bytes[2]);
        bytes[2] = masked_sum;
        assert!(matches!(refusal(&bytes), WireError::BadChecksum { .. }));
    }

    #[test]
    fn masks_apply_by_position_at_every_length() {
        for length in 0..40 {
            let plain: Vec<u8> = (0..length).collect();
            let mut masked = plain.clone();
            apply_mask(&mut masked, MASK);
            for (at, (masked, plain)) in masked.iter().zip(&plain).enumerate() {
                assert_eq!(*masked, plain ^ MASK[at % 4]);
            }
        }
    }
}
