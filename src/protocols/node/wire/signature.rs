//! Hashes and signatures of messages.
//!
//! Who is allowed is the session's list; here is only whether a message was made by the owner of the
//! key that it names. A signature covers neither opcode nor network nor nonce, so a message that was
//! overheard can be sent again: it proves that the key's owner once made these bytes.

use std::fmt;

use blake2::{Blake2b256, Digest};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::Demand;

/// Whether the signature is there and is that of the sender's `net_key`.
pub fn verify(demand: &Demand<'_>) -> Result<(), Untrusted> {
    if demand.signature.is_empty() {
        return Err(Untrusted::Unsigned);
    }
    let digest = signed_digest(demand.address, demand.id, demand.message);
    UnparsedPublicKey::new(&ED25519, demand.net_key)
        .verify(&digest, demand.signature)
        .map_err(|_| Untrusted::Forged)
}

/// What is signed: BLAKE2b-256 of the address and the id, each behind its length in four bytes, the
/// low one first, and of the inner message.
pub fn signed_digest(address: &[u8], id: &[u8], message: &[u8]) -> [u8; 32] {
    // Both came in a frame, whose length is a u32; a longer one would match no signature.
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes();
    let (address_length, id_length) = (length(address), length(id));
    hash(&[&address_length, address, &id_length, id, message])
}

/// BLAKE2b-256 of the parts, one behind the other.
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2b256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

/// Why a message is not believed to be its sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// It has no signature.
    Unsigned,
    /// Its signature is not one by its `net_key` over its bytes.
    Forged,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsigned => "the message is not signed",
            Self::Forged => "the signature is not the sender's",
        })
    }
}

impl std::error::Error for Untrusted {}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    #[test]
    fn a_signature_holds_for_its_bytes_only() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        let signature = pair.sign(&signed_digest(b"address", b"id", b"message"));
        let good = Demand {
            net_key: pair.public_key().as_ref(),
            address: b"address",
            id: b"id",
            message: b"message",
            signature: signature.as_ref(),
            ..Demand::default()
        };
        assert_eq!(verify(&good), Ok(()));
        // The bytes move from one field to the next, the whole stays the same.
        let shifted = Demand {
            address: b"addressi",
            id: b"d",
            ..good
        };
        let short = Demand {
            signature: &signature.as_ref()[..63],
            ..good
        };
        let other_key = Demand {
            net_key: other.public_key().as_ref(),
            ..good
        };
        let no_key = Demand {
            net_key: b"",
            ..good
        };
        let other_message = Demand {
            message: b"massage",
            ..good
        };
        for forged in [shifted, short, other_key, no_key, other_message] {
            assert_eq!(verify(&forged), Err(Untrusted::Forged));
        }
        let unsigned = Demand {
            signature: b"",
            ..good
        };
        assert_eq!(verify(&unsigned), Err(Untrusted::Unsigned));
    }
}
