//! The sealed frame, from the specification: XChaCha20-Poly1305 put together from HChaCha20 written
//! here and a ChaCha20-Poly1305 that the product does not use for its headers.
//!
//! ```text
//! nonce 24 | length u16 of what follows | ciphertext | tag 16
//! ```

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce as ShortNonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// A hop's secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The key of this number; none of them is all zeros.
    pub fn number(number: u8) -> Self {
        let mut bytes = [number; 32];
        bytes[0] = 0xa5;
        Self(bytes)
    }

    /// In base64, as a file and the configuration hold it.
    pub fn text(&self) -> String {
        base64(&self.0)
    }
}

/// What a request is known by to its response.
pub type Nonce = [u8; NONCE];

/// A nonce that nobody has used.
pub fn fresh_nonce() -> Nonce {
    let mut nonce = [0; NONCE];
    SystemRandom::new().fill(&mut nonce).unwrap();
    nonce
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Tcp,
    Udp,
}

/// What a frame is sealed under; every part may be a wrong one.
#[derive(Clone, Debug)]
pub struct Seal {
    pub key: Key,
    pub label: Vec<u8>,
    pub direction: u8,
    pub transport: u8,
    /// The request that a response is bound to.
    pub bound: Vec<u8>,
}

impl Seal {
    pub fn request(key: Key, transport: Transport) -> Self {
        Self {
            key,
            label: LABEL.to_vec(),
            direction: 0,
            transport: match transport {
                Transport::Tcp => 0,
                Transport::Udp => 1,
            },
            bound: Vec::new(),
        }
    }

    pub fn response(key: Key, transport: Transport, to: &Nonce) -> Self {
        Self {
            direction: 1,
            bound: to.to_vec(),
            ..Self::request(key, transport)
        }
    }

    /// The whole frame.
    pub fn close(&self, nonce: &Nonce, plain: &[u8]) -> Vec<u8> {
        let length = u16::try_from(plain.len() + TAG).unwrap().to_be_bytes();
        let sealed = encrypt(&self.key, nonce, &self.data(length), plain);
        [&nonce[..], &length, &sealed].concat()
    }

    /// What is in a frame; none where it was not sealed like this.
    pub fn open(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let nonce: Nonce = frame.get(..NONCE)?.try_into().ok()?;
        let length: [u8; 2] = frame.get(NONCE..HEAD)?.try_into().ok()?;
        let mut sealed = frame[HEAD..].to_vec();
        if sealed.len() != usize::from(u16::from_be_bytes(length)) {
            return None;
        }
        let (key, short) = subkey(&self.key, &nonce);
        let data = Aad::from(self.data(length));
        let plain = key.open_in_place(short, data, &mut sealed).ok()?;
        Some(plain.to_vec())
    }

    fn data(&self, length: [u8; 2]) -> Vec<u8> {
        let mut data = self.label.clone();
        data.extend([self.direction, self.transport]);
        data.extend(length);
        data.extend(&self.bound);
        data
    }
}

/// XChaCha20-Poly1305: the ciphertext and its tag.
pub fn encrypt(key: &Key, nonce: &Nonce, data: &[u8], plain: &[u8]) -> Vec<u8> {
    let (key, short) = subkey(key, nonce);
    let mut sealed = plain.to_vec();
    key.seal_in_place_append_tag(short, Aad::from(data), &mut sealed)
        .unwrap();
    sealed
}

fn subkey(key: &Key, nonce: &Nonce) -> (LessSafeKey, ShortNonce) {
    let (first, last) = nonce.split_at(16);
    let subkey = hchacha20(&key.0, first.try_into().unwrap());
    let mut short = [0; 12];
    short[4..].copy_from_slice(last);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &subkey).unwrap();
    (
        LessSafeKey::new(key),
        ShortNonce::assume_unique_for_key(short),
    )
}

/// Twenty rounds over constants, key and nonce; the first and the last row are the result. See
/// draft-irtf-cfrg-xchacha-03, section 2.2.
pub fn hchacha20(key: &[u8; 32], nonce: &[u8; 16]) -> [u8; 32] {
    let bytes = [&b"expand 32-byte k"[..], key, nonce].concat();
    let mut state = [0_u32; 16];
    for (word, four) in state.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes(four.try_into().unwrap());
    }
    for _ in 0..10 {
        for column in 0..4 {
            quarter(&mut state, [column, column + 4, column + 8, column + 12]);
        }
        for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
            quarter(&mut state, [a, b, c, d]);
        }
    }
    let rows = state[..4].iter().chain(&state[12..]);
    let bytes: Vec<u8> = rows.flat_map(|word| word.to_le_bytes()).collect();
    bytes.try_into().unwrap()
}

fn quarter(state: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    for (left, right) in [(16, 12), (8, 7)] {
        state[a] = state[a].wrapping_add(state[b]);
        state[d] = (state[d] ^ state[a]).rotate_left(left);
        state[c] = state[c].wrapping_add(state[d]);
        state[b] = (state[b] ^ state[c]).rotate_left(right);
    }
}

/// The standard alphabet, padded.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes(group);
        for place in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap();
            let is_pad = place > three.len();
            text.push(if is_pad { '=' } else { LETTERS[index].into() });
        }
    }
    text
}

/// What the seal's version is told by.
pub const LABEL: &[u8] = b"towpath chain 1";

pub const NONCE: usize = 24;
pub const TAG: usize = 16;

/// Nonce and length.
pub const HEAD: usize = NONCE + 2;
