//! The secret that a hop and its clients share.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use subtle::ConstantTimeEq;

/// 32 bytes that nothing prints.
#[derive(Clone)]
pub struct Key([u8; KEY]);

/// Why a text is no key. It never says what the text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// There is something else in it than base64.
    NotBase64,
    /// It has this many bytes instead of 32.
    Length(usize),
}

impl Key {
    /// The key of a text in base64, with or without its padding and the line end of a file.
    pub fn from_base64(text: &str) -> Result<Key, KeyError> {
        let bytes = TEXT.decode(text.trim_end_matches(['\r', '\n']));
        let bytes = bytes.map_err(|_| KeyError::NotBase64)?;
        let length = KeyError::Length(bytes.len());
        bytes.try_into().map(Key).map_err(|_| length)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBase64 => f.write_str("it is not base64"),
            Self::Length(length) => write!(f, "it has {length} bytes"),
        }
    }
}

impl std::error::Error for KeyError {}

const KEY: usize = 32;

/// The usual alphabet; the padding may be there or not.
const TEXT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_with_or_without_padding_and_prints_nothing() {
        let text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let key = Key::from_base64(text).unwrap();
        assert_eq!(key.0[..3], [0, 1, 2]);
        assert_eq!(
            Key::from_base64(text.trim_end_matches('=')),
            Ok(key.clone())
        );
        assert_eq!(Key::from_base64(&format!("{text}\r\n")), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "(secret)");
    }

    #[test]
    fn what_is_no_key_is_told_without_showing_it() {
        for (text, want) in [
            ("", "it has 0 bytes"),
            ("AAAA", "it has 3 bytes"),
            ("hunter2!", "it is not base64"),
            ("a b", "it is not base64"),
        ] {
            assert_eq!(Key::from_base64(text).unwrap_err().to_string(), want);
        }
    }
}
