//! The payload's seal between the client and the last hop: records on a stream, and datagrams.
//!
//! A direction of a stream counts its records, so that one left out, repeated or moved is noticed, and
//! says its end, so that a stream cut short is.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce as ShortNonce, UnboundKey};
use ring::hmac;

use super::sealed::{open_in_place, seal_in_place};
use super::{Direction, Key, NONCE, Nonce, TAG};
use crate::wire::{WireError, Writer};

/// Who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The last hop.
    Hop,
}

/// Both directions of a stream whose last hop's headers had these nonces: what `side` sends, and what it
/// receives.
pub fn records(
    payload_key: &Key,
    side: Side,
    request_nonce: &Nonce,
    response_nonce: &Nonce,
) -> (Sealer, Opener) {
    let key = |direction| Counting::new(payload_key, direction, request_nonce, response_nonce);
    let (out, back) = match side {
        Side::Client => (Direction::Request, Direction::Response),
        Side::Hop => (Direction::Response, Direction::Request),
    };
    let sealer = Sealer {
        key: key(out),
        is_closed: false,
    };
    let opener = Opener {
        key: key(back),
        is_closed: false,
    };
    (sealer, opener)
}

/// Makes the records of one direction.
pub struct Sealer {
    key: Counting,
    is_closed: bool,
}

impl Sealer {
    /// Appends the records of `payload`, of at most [`MAX_RECORD`] each. No payload makes no record.
    /// After [`Sealer::close`], nothing does.
    pub fn seal(&mut self, out: &mut Vec<u8>, payload: &[u8]) {
        if self.is_closed {
            return;
        }
        out.reserve(sealed_len(payload.len()));
        for part in payload.chunks(MAX_RECORD) {
            self.append(out, part);
        }
    }

    /// Appends the record that says the direction's end.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if !self.is_closed {
            self.append(out, &[]);
            self.is_closed = true;
        }
    }

    fn append(&mut self, out: &mut Vec<u8>, part: &[u8]) {
        let start = out.len();
        let length = u16::try_from(part.len() + TAG)
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        let mut writer = Writer::new(out);
        writer.bytes(&length);
        writer.bytes(part);
        let tag = self.key.seal(length, writer.since(start + RECORD_HEAD));
        writer.bytes(&tag);
    }
}

/// How many bytes [`Sealer::seal`] appends for a payload of `length`.
fn sealed_len(length: usize) -> usize {
    length + length.div_ceil(MAX_RECORD) * (RECORD_HEAD + TAG)
}

/// How long the record is that `bytes` begin with; none as long as its first [`RECORD_HEAD`] bytes are
/// not there. It is believed before it is authenticated, and is bounded.
pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let Some(&length) = bytes.first_chunk::<RECORD_HEAD>() else {
        return Ok(None);
    };
    let length = u16::from_be_bytes(length);
    let field = "record length";
    match usize::from(length) {
        0..TAG => {
            let value = length.into();
            Err(WireError::BadValue { field, value })
        }
        length if length <= MAX_RECORD + TAG => Ok(Some(RECORD_HEAD + length)),
        _ => Err(WireError::TooLong {
            field,
            length: length.into(),
            most: (MAX_RECORD + TAG) as u64,
        }),
    }
}

/// Opens the records of one direction, in their order.
pub struct Opener {
    key: Counting,
    is_closed: bool,
}

impl Opener {
    /// Opens the next record in place, as long as [`record_len`] has it. After an error the direction is
    /// of no more use: no record fits any more.
    pub fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, Spoilt> {
        if self.is_closed {
            return Err(Spoilt::Behind);
        }
        let fits = record_len(record) == Ok(Some(record.len()));
        let (Some((length, sealed)), true) = (record.split_first_chunk_mut(), fits) else {
            return Err(Spoilt::Forged);
        };
        let payload = self.key.open(*length, sealed).ok_or(Spoilt::Forged)?;
        if payload.is_empty() {
            self.is_closed = true;
            return Ok(Opened::Close);
        }
        Ok(Opened::Payload(payload))
    }

    /// Whether the other side has said its end: a stream that ends before was cut short.
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }
}

/// What was in a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// Payload, of at least one byte.
    Payload(&'a [u8]),
    /// The direction's end.
    Close,
}

/// Why a record or a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoilt {
    /// Its tag is wrong: it was altered, or stands in another's place, or the payload keys differ.
    Forged,
    /// It follows the direction's end.
    Behind,
}

impl fmt::Display for Spoilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forged => "the payload is not sealed under the payload key, or was altered",
            Self::Behind => "payload follows the record that ends it",
        })
    }
}

impl std::error::Error for Spoilt {}

/// Without the secret.
impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}

/// Without the secret.
impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}

/// A direction's key and the number of its next record.
struct Counting {
    /// None where the library refuses the key's length, which is always right: nothing opens then.
    key: Option<LessSafeKey>,
    next: u64,
}

impl Counting {
    fn new(
        payload_key: &Key,
        direction: Direction,
        request_nonce: &Nonce,
        response_nonce: &Nonce,
    ) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, payload_key.bytes());
        let mut context = hmac::Context::with_key(&master);
        context.update(TITLE);
        context.update(&[direction.byte()]);
        context.update(request_nonce);
        context.update(response_nonce);
        let derived = context.sign();
        let key = UnboundKey::new(&CHACHA20_POLY1305, derived.as_ref()).ok();
        Self {
            key: key.map(LessSafeKey::new),
            next: 0,
        }
    }

    /// The next record's nonce. A direction would need some thousand years for the last of them.
    fn nonce(&mut self) -> ShortNonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.next.to_be_bytes());
        self.next = self.next.wrapping_add(1);
        ShortNonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, length: [u8; 2], text: &mut [u8]) -> [u8; TAG] {
        let nonce = self.nonce();
        let sealed = self.key.as_ref().and_then(|key| {
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from(length), text);
            tag.ok()?.as_ref().try_into().ok()
        });
        if sealed.is_none() {
            // Never in the clear, whatever happens.
            text.fill(0);
        }
        sealed.unwrap_or_default()
    }

    fn open<'a>(&mut self, length: [u8; 2], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let nonce = self.nonce();
        let opened = self
            .key
            .as_ref()?
            .open_in_place(nonce, Aad::from(length), sealed);
        opened.ok().map(|payload| &*payload)
    }
}

/// Appends a sealed datagram. `header_nonce` is that of the last hop's request from the client, that of
/// its response in the other direction.
pub fn seal_datagram(
    out: &mut Vec<u8>,
    payload_key: &Key,
    direction: Direction,
    header_nonce: &Nonce,
    nonce: &Nonce,
    payload: &[u8],
) {
    let start = out.len();
    out.reserve(payload.len() + DATAGRAM_OVERHEAD);
    let mut writer = Writer::new(out);
    writer.bytes(nonce);
    writer.bytes(payload);
    let label = label(direction, header_nonce);
    let tag = seal_in_place(payload_key, nonce, &label, writer.since(start + NONCE));
    writer.bytes(&tag);
}

/// Opens a sealed datagram and appends its payload.
pub fn open_datagram(
    out: &mut Vec<u8>,
    payload_key: &Key,
    direction: Direction,
    header_nonce: &Nonce,
    datagram: &[u8],
) -> Result<(), Spoilt> {
    let parts = datagram.split_first_chunk::<NONCE>();
    let parts = parts.and_then(|(nonce, rest)| Some((nonce, rest.split_last_chunk::<TAG>()?)));
    let Some((nonce, (ciphertext, tag))) = parts else {
        return Err(Spoilt::Forged);
    };
    let start = out.len();
    out.extend_from_slice(ciphertext);
    let label = label(direction, header_nonce);
    if open_in_place(payload_key, nonce, &label, &mut out[start..], tag) {
        return Ok(());
    }
    out.truncate(start);
    Err(Spoilt::Forged)
}

fn label(direction: Direction, header_nonce: &Nonce) -> [u8; TITLE.len() + 1 + NONCE] {
    let mut label = [0; TITLE.len() + 1 + NONCE];
    label[..TITLE.len()].copy_from_slice(TITLE);
    label[TITLE.len()] = direction.byte();
    label[TITLE.len() + 1..].copy_from_slice(header_nonce);
    label
}

/// What keeps the payload's seals apart from the headers', and from another version's.
const TITLE: &[u8; 23] = b"towpath chain 1 payload";

/// Bytes of a record before its payload.
pub const RECORD_HEAD: usize = 2;

/// The most payload in a record.
pub const MAX_RECORD: usize = 16 << 10;

/// By how much a sealed datagram is longer than its payload.
pub const DATAGRAM_OVERHEAD: usize = NONCE + TAG;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::chain::wire::tests::{PLAINTEXT, unhex};

    fn pair() -> (Sealer, Opener) {
        let (request, response) = ([2; NONCE], [3; NONCE]);
        let key = Key::from_bytes([1; 32]);
        let (sealer, _) = records(&key, Side::Client, &request, &response);
        let (_, opener) = records(&key, Side::Hop, &request, &response);
        (sealer, opener)
    }

    #[test]
    fn the_published_example_of_chacha20_poly1305_holds() {
        // RFC 8439, 2.8.2. Its nonce counts nothing, so that only the cipher is asked here.
        let key = unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
        let nonce = unhex("070000004041424344454647").try_into().unwrap();
        let nonce = ShortNonce::assume_unique_for_key(nonce);
        let aad = Aad::from(unhex("50515253c0c1c2c3c4c5c6c7"));
        let mut text = PLAINTEXT.to_vec();
        let tag = key
            .seal_in_place_separate_tag(nonce, aad, &mut text)
            .unwrap();
        let want = unhex(
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6\
             3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36\
             92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
             3ff4def08e4b7a9de576d26586cec64b6116",
        );
        assert_eq!(text, want);
        assert_eq!(tag.as_ref(), unhex("1ae10b594f09e26a7e902ecbd0600691"));
    }

    #[test]
    fn a_payload_of_any_length_comes_back_and_its_end_is_told() {
        for length in [1, 2, MAX_RECORD - 1, MAX_RECORD, MAX_RECORD + 1, 100_000] {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let (mut sealer, mut opener) = pair();
            let mut wire = Vec::new();
            sealer.seal(&mut wire, &[]);
            assert!(wire.is_empty());
            sealer.seal(&mut wire, &payload);
            assert_eq!(wire.len(), sealed_len(length));
            sealer.close(&mut wire);
            let whole = wire.len();
            sealer.close(&mut wire);
            sealer.seal(&mut wire, &payload);
            assert_eq!(wire.len(), whole);
            let mut back = Vec::new();
            let mut rest = &mut wire[..];
            while let Some(length) = record_len(rest).unwrap() {
                let (record, behind) = rest.split_at_mut(length);
                assert!(!opener.is_closed());
                match opener.open(record).unwrap() {
                    Opened::Payload(part) => back.extend_from_slice(part),
                    Opened::Close => assert!(behind.is_empty()),
                }
                rest = behind;
            }
            assert!(opener.is_closed());
            assert_eq!(back, payload);
            assert_eq!(opener.open(&mut [0; 18]), Err(Spoilt::Behind));
        }
    }

    #[test]
    fn records_hold_in_their_place_only() {
        let (mut sealer, mut opener) = pair();
        let mut wire = Vec::new();
        sealer.seal(&mut wire, b"one");
        sealer.seal(&mut wire, b"two");
        let length = record_len(&wire).unwrap().unwrap();
        // The second in the first's place.
        assert_eq!(
            opener.open(&mut wire[length..].to_vec()),
            Err(Spoilt::Forged)
        );
        // And no other fits any more.
        assert_eq!(
            opener.open(&mut wire[..length].to_vec()),
            Err(Spoilt::Forged)
        );
        let (_, mut opener) = pair();
        let mut first = wire[..length].to_vec();
        assert_eq!(opener.open(&mut first.clone()), Ok(Opened::Payload(b"one")));
        // Repeated.
        assert_eq!(opener.open(&mut first), Err(Spoilt::Forged));
        // Sent back to who made it.
        let key = Key::from_bytes([1; 32]);
        let (_, mut mirror) = records(&key, Side::Client, &[2; NONCE], &[3; NONCE]);
        assert_eq!(
            mirror.open(&mut wire[..length].to_vec()),
            Err(Spoilt::Forged)
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (mut sealer, _) = pair();
        let mut wire = Vec::new();
        sealer.seal(&mut wire, b"abc");
        for bit in 0..wire.len() * 8 {
            let mut broken = wire.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(pair().1.open(&mut broken).is_err());
        }
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(record_len(&[0]), Ok(None));
        for length in 0..=u16::MAX {
            let known = record_len(&length.to_be_bytes());
            match usize::from(length) {
                length @ 16..=16_400 => assert_eq!(known, Ok(Some(2 + length))),
                _ => assert!(known.is_err()),
            }
        }
    }

    #[test]
    fn a_datagram_holds_for_its_direction_and_header_only() {
        let (key, other) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
        let (header, nonce) = ([3; NONCE], [4; NONCE]);
        for payload in [&b""[..], b"payload", &[7; 65_000]] {
            let mut wire = vec![9];
            seal_datagram(
                &mut wire,
                &key,
                Direction::Request,
                &header,
                &nonce,
                payload,
            );
            assert_eq!(wire.len(), 1 + payload.len() + DATAGRAM_OVERHEAD);
            let wire = &wire[1..];
            let mut out = vec![8];
            let mut open = |key, direction, header: &Nonce, wire: &[u8]| {
                out.truncate(1);
                open_datagram(&mut out, key, direction, header, wire).map(|()| out[1..].to_vec())
            };
            let request = Direction::Request;
            assert_eq!(open(&key, request, &header, wire).unwrap(), payload);
            assert!(open(&other, request, &header, wire).is_err());
            assert!(open(&key, Direction::Response, &header, wire).is_err());
            assert!(open(&key, request, &nonce, wire).is_err());
            for end in 0..wire.len().min(100) {
                assert!(open(&key, request, &header, &wire[..end]).is_err());
            }
            assert_eq!(out, [8]);
        }
    }
}
