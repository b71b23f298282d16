//! The frame around every header: authenticated before anything in it is believed.

use std::fmt;

use chacha20::{R20, hchacha};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce as ShortNonce, Tag, UnboundKey};

use super::header::{MAX_REQUEST, RESPONSE};
use super::{Direction, Key, NONCE, Nonce, Request, Response, Transport};
use crate::wire::{WireError, Writer};

/// Appends the frame of a request.
pub fn seal_request(
    out: &mut Vec<u8>,
    key: &Key,
    transport: Transport,
    nonce: &Nonce,
    request: &Request,
) {
    let label = Label::request(transport);
    seal_frame(out, key, label, nonce, |writer| request.encode(writer));
}

/// Appends the frame of the response to the request that had `request_nonce`.
pub fn seal_response(
    out: &mut Vec<u8>,
    key: &Key,
    transport: Transport,
    nonce: &Nonce,
    request_nonce: &Nonce,
    response: &Response,
) {
    let label = Label::response(transport, request_nonce);
    seal_frame(out, key, label, nonce, |writer| response.encode(writer));
}

/// How long the frame is that `bytes` begin with; none as long as its first [`HEAD`] bytes are not
/// there. It is believed before it is authenticated, and is at most [`HEAD`] and [`MAX_LENGTH`].
pub fn frame_len(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let Some(head) = bytes.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let length = u16::from_be_bytes([head[NONCE], head[NONCE + 1]]);
    let field = "frame length";
    match usize::from(length) {
        0..LEAST_LENGTH => {
            let value = length.into();
            Err(WireError::BadValue { field, value })
        }
        length @ ..=MAX_LENGTH => Ok(Some(HEAD + length)),
        _ => Err(WireError::TooLong {
            field,
            length: length.into(),
            most: MAX_LENGTH as u64,
        }),
    }
}

/// Opens a request's frame, as long as [`frame_len`] has it.
pub fn open_request(
    key: &Key,
    transport: Transport,
    frame: &[u8],
) -> Result<(Nonce, Request), Unsealed> {
    open_frame(key, Label::request(transport), frame, Request::decode)
}

/// Opens the frame of a response, as long as [`frame_len`] has it, to the request that had
/// `request_nonce`.
pub fn open_response(
    key: &Key,
    transport: Transport,
    frame: &[u8],
    request_nonce: &Nonce,
) -> Result<(Nonce, Response), Unsealed> {
    let label = Label::response(transport, request_nonce);
    open_frame(key, label, frame, Response::decode)
}

fn seal_frame(
    out: &mut Vec<u8>,
    key: &Key,
    mut label: Label,
    nonce: &Nonce,
    body: impl FnOnce(&mut Writer<'_>),
) {
    let start = out.len();
    let mut writer = Writer::new(out);
    writer.bytes(nonce);
    writer.bytes(&[0; 2]);
    body(&mut writer);
    let length = writer.position() - start - HEAD + TAG;
    // A body of ours is a small part of this.
    let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    writer.since(start + NONCE)[..2].copy_from_slice(&length);
    let aad = label.finish(length);
    let tag = seal_in_place(key, nonce, aad, writer.since(start + HEAD));
    writer.bytes(&tag);
}

fn open_frame<T>(
    key: &Key,
    mut label: Label,
    frame: &[u8],
    decode: fn(&[u8]) -> Result<T, WireError>,
) -> Result<(Nonce, T), Unsealed> {
    let fits = frame_len(frame) == Ok(Some(frame.len()));
    let (Some((nonce, rest)), true) = (frame.split_first_chunk::<NONCE>(), fits) else {
        return Err(Unsealed::Forged);
    };
    let Some((length, sealed)) = rest.split_first_chunk::<2>() else {
        return Err(Unsealed::Forged);
    };
    let Some((ciphertext, tag)) = sealed.split_last_chunk::<TAG>() else {
        return Err(Unsealed::Forged);
    };
    let mut body = [0; MAX_LENGTH];
    let body = &mut body[..ciphertext.len()];
    body.copy_from_slice(ciphertext);
    if !open_in_place(key, nonce, label.finish(*length), body, tag) {
        return Err(Unsealed::Forged);
    }
    match decode(body) {
        Ok(decoded) => Ok((*nonce, decoded)),
        Err(error) => Err(Unsealed::Malformed {
            nonce: *nonce,
            error,
        }),
    }
}

/// What a frame's tag covers besides its body.
struct Label {
    bytes: [u8; TITLE.len() + 4 + NONCE],
    length: usize,
}

impl Label {
    fn request(transport: Transport) -> Self {
        let mut bytes = [0; TITLE.len() + 4 + NONCE];
        bytes[..TITLE.len()].copy_from_slice(TITLE);
        bytes[TITLE.len()] = Direction::Request.byte();
        bytes[TITLE.len() + 1] = transport.byte();
        let length = TITLE.len() + 4;
        Self { bytes, length }
    }

    fn response(transport: Transport, request_nonce: &Nonce) -> Self {
        let mut label = Self::request(transport);
        label.bytes[TITLE.len()] = Direction::Response.byte();
        label.bytes[label.length..].copy_from_slice(request_nonce);
        label.length += NONCE;
        label
    }

    /// Puts the frame's length in.
    fn finish(&mut self, length: [u8; 2]) -> &[u8] {
        self.bytes[TITLE.len() + 2..TITLE.len() + 4].copy_from_slice(&length);
        &self.bytes[..self.length]
    }
}

/// Encrypts in place and gives the tag: XChaCha20-Poly1305.
pub(super) fn seal_in_place(key: &Key, nonce: &Nonce, aad: &[u8], text: &mut [u8]) -> [u8; TAG] {
    let sealed = extended(key, nonce).and_then(|(key, nonce)| {
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
        tag.ok()?.as_ref().try_into().ok()
    });
    if let Some(tag) = sealed {
        return tag;
    }
    // For 256 GiB and more only. Nothing leaves in the clear, and the other side refuses the tag.
    text.fill(0);
    [0; TAG]
}

/// Decrypts in place, if the tag is right; else the bytes are of no more use.
pub(super) fn open_in_place(
    key: &Key,
    nonce: &Nonce,
    aad: &[u8],
    text: &mut [u8],
    tag: &[u8; TAG],
) -> bool {
    let Some(((key, nonce), tag)) = extended(key, nonce).zip(Tag::try_from(&tag[..]).ok()) else {
        return false;
    };
    let opened = key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text, 0..);
    opened.is_ok()
}

/// What makes ChaCha20-Poly1305 XChaCha20-Poly1305: a key of its own for the first 16 bytes of the nonce,
/// and the others behind four zero bytes. `ring` is several times as fast for some dozens of bytes as
/// crates that have the whole of it.
fn extended(key: &Key, nonce: &Nonce) -> Option<(LessSafeKey, ShortNonce)> {
    let (first, rest) = nonce.split_first_chunk::<16>()?;
    let derived = hchacha::<R20>(key.bytes().into(), first.into());
    let key = UnboundKey::new(&CHACHA20_POLY1305, &derived).ok()?;
    let mut short = [0; 12];
    short[4..].copy_from_slice(rest);
    let nonce = ShortNonce::assume_unique_for_key(short);
    Some((LessSafeKey::new(key), nonce))
}

/// Why a frame was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsealed {
    /// The tag is wrong: who made it has not the key, or meant it for another hop, transport,
    /// direction or request. Who has not the key gets no answer.
    Forged,
    /// Who has the key made it, and what it says is malformed.
    Malformed {
        /// The frame's nonce, which the answer is bound to.
        nonce: Nonce,
        /// What is wrong.
        error: WireError,
    },
}

impl fmt::Display for Unsealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forged => f.write_str("the header is not sealed under the key"),
            Self::Malformed { error, .. } => write!(f, "the header is malformed: {error}"),
        }
    }
}

impl std::error::Error for Unsealed {}

/// The first bytes of what every frame's tag covers; they are the version, too.
const TITLE: &[u8; 15] = b"towpath chain 1";

/// Bytes of a frame before its body: the nonce and the length.
pub const HEAD: usize = NONCE + 2;

/// Bytes of a tag.
pub const TAG: usize = 16;

/// The most that a frame's length may say.
pub const MAX_LENGTH: usize = 512;

/// The smallest body is a response's.
const LEAST_LENGTH: usize = RESPONSE + TAG;

const _: () = assert!(MAX_REQUEST + TAG <= MAX_LENGTH);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::chain::wire::tests::{PLAINTEXT, unhex};

    #[test]
    fn the_published_example_of_xchacha20_poly1305_holds() {
        // draft-irtf-cfrg-xchacha-03, A.3.1.
        let key: [u8; 32] = std::array::from_fn(|at| 0x80 + at as u8);
        let key = Key::from_bytes(key);
        let nonce: Nonce = std::array::from_fn(|at| 0x40 + at as u8);
        let aad = unhex("50515253c0c1c2c3c4c5c6c7");
        let want = unhex(
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb\
             731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452\
             2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
             21f9664c97637da9768812f615c68b13b52e",
        );
        let mut text = PLAINTEXT.to_vec();
        let tag = seal_in_place(&key, &nonce, &aad, &mut text);
        assert_eq!(text, want);
        assert_eq!(tag[..], unhex("c0875924c1c7987947deafd8780acf49"));
        assert!(!open_in_place(
            &key,
            &nonce,
            &aad[1..],
            &mut want.clone(),
            &tag
        ));
        assert!(open_in_place(&key, &nonce, &aad, &mut text, &tag));
        assert_eq!(text, PLAINTEXT);
    }

    #[test]
    fn a_length_is_bounded_on_both_sides() {
        let mut head = [0; HEAD];
        assert_eq!(frame_len(&head[..HEAD - 1]), Ok(None));
        for length in 0..=u16::MAX {
            head[NONCE..].copy_from_slice(&length.to_be_bytes());
            let known = frame_len(&head);
            match usize::from(length) {
                0..21 => assert!(matches!(known, Err(WireError::BadValue { .. }))),
                length @ 21..=512 => assert_eq!(known, Ok(Some(26 + length))),
                _ => assert!(matches!(known, Err(WireError::TooLong { .. }))),
            }
        }
    }

    #[test]
    fn what_the_key_seals_and_the_codec_does_not_know_is_malformed() {
        let (key, nonce) = (Key::from_bytes([1; 32]), [2; NONCE]);
        let seal = |body: &[u8]| {
            let mut out = Vec::new();
            let label = Label::request(Transport::Tcp);
            seal_frame(&mut out, &key, label, &nonce, |writer| writer.bytes(body));
            out
        };
        let good = [0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 1, 2, 3, 4, 0, 5];
        let flags = [&good[..8], &[8], &good[9..]].concat();
        let trailing = [&good[..], &[0]].concat();
        assert!(open_request(&key, Transport::Tcp, &seal(&good)).is_ok());
        for body in [&flags, &trailing, &good[..15].to_vec()] {
            let opened = open_request(&key, Transport::Tcp, &seal(body));
            assert!(matches!(opened, Err(Unsealed::Malformed { nonce: n, .. }) if n == nonce));
        }
    }
}
