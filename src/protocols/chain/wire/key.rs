//! The secret that a client shares with one hop.
//!
//! How it is kept is the caller's; here it is bytes, or base64 as it stands in a file.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, DecodeSliceError};
use subtle::ConstantTimeEq;

/// A key of [`KEY`] bytes. It never shows itself, and comparing takes the same time for all.
#[derive(Clone)]
pub struct Key([u8; KEY]);

impl Key {
    /// The key of these bytes.
    pub const fn from_bytes(bytes: [u8; KEY]) -> Self {
        Self(bytes)
    }

    /// Reads base64 of [`KEY`] bytes. White space around it, such as a file's last line end, and
    /// missing padding do not matter.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        // A little longer than a key, so that a text that is somewhat too long is measured exactly.
        let mut bytes = [0; KEY * 2];
        match BASE64.decode_slice(text, &mut bytes) {
            Ok(KEY) => {}
            Ok(length) => return Err(KeyError::Length { length }),
            Err(DecodeSliceError::OutputSliceTooSmall) => return Err(KeyError::TooLong),
            Err(DecodeSliceError::DecodeError(error)) => return Err(KeyError::of(error)),
        }
        let mut key = [0; KEY];
        key.copy_from_slice(&bytes[..KEY]);
        Ok(Self(key))
    }

    /// As it stands in a file, without a line end.
    pub fn to_base64(&self) -> String {
        BASE64.encode(self.0)
    }

    pub(super) const fn bytes(&self) -> &[u8; KEY] {
        &self.0
    }
}

/// In a time that does not tell how many bytes are the same.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Key {}

/// Without the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Why a text is no key. It tells nothing of the text but its length and a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// There is nothing.
    Empty,
    /// A character is none of base64.
    Character {
        /// Which one, the first being 1.
        at: usize,
    },
    /// The text ends in the middle of a byte.
    Cut,
    /// It is base64 of another number of bytes.
    Length {
        /// How many.
        length: usize,
    },
    /// It is far longer than a key.
    TooLong,
}

impl KeyError {
    const fn of(error: DecodeError) -> Self {
        match error {
            DecodeError::InvalidByte(at, _) => Self::Character { at: at + 1 },
            DecodeError::InvalidLength(_)
            | DecodeError::InvalidLastSymbol(..)
            | DecodeError::InvalidPadding => Self::Cut,
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty; a key is {KEY} bytes in base64"),
            Self::Character { at } => write!(f, "its character {at} is not base64"),
            Self::Cut => f.write_str("its base64 is cut short or altered at its end"),
            Self::Length { length } => {
                let s = if *length == 1 { "" } else { "s" };
                write!(f, "it is base64 of {length} byte{s}; a key has {KEY}")
            }
            Self::TooLong => write!(f, "it is too long; a key is {KEY} bytes in base64"),
        }
    }
}

impl std::error::Error for KeyError {}

/// Bytes of a key.
pub const KEY: usize = 32;

/// Writes the padding, and does not care whether it is there.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_comes_back_with_and_without_padding() {
        let key = Key::from_bytes([0xfb; KEY]);
        let text = key.to_base64();
        assert_eq!(text.len(), 44);
        let bare = text.trim_end_matches('=');
        for text in [&text, bare, &format!("{text}\n"), &format!(" {bare}\r\n")] {
            assert_eq!(Key::from_base64(text).as_ref(), Ok(&key));
        }
        assert_eq!(format!("{key:?}"), "(secret)");
        assert_ne!(key, Key::from_bytes([0; KEY]));
    }

    #[test]
    fn what_is_no_key_is_told_precisely() {
        let good = Key::from_bytes([7; KEY]).to_base64();
        let told = |text: &str| Key::from_base64(text).unwrap_err().to_string();
        assert_eq!(told(" \n"), "it is empty; a key is 32 bytes in base64");
        assert_eq!(told("AQ=="), "it is base64 of 1 byte; a key has 32");
        let long = format!("{}AAAA", good.trim_end_matches('='));
        assert_eq!(told(&long[..44]), "it is base64 of 33 bytes; a key has 32");
        let short = told(&good[..42]);
        assert!(
            short.contains("cut short") || short.contains("31 bytes"),
            "{short}"
        );
        let broken = format!("{}!{}", &good[..9], &good[10..]);
        assert_eq!(told(&broken), "its character 10 is not base64");
        let two = format!("{good}\n{good}\n");
        let huge = "A".repeat(4000);
        for text in [two, huge] {
            assert_eq!(told(&text), "it is too long; a key is 32 bytes in base64");
        }
    }
}
