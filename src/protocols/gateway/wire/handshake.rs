//! How a server proves that it knows the key.
//!
//! MD5 is what the peers speak; nothing else in the program may lean on it.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// What a server that knows the key answers to the challenge. A key may be empty.
pub fn proof(challenge: &[u8; CHALLENGE], key: &[u8]) -> [u8; PROOF] {
    let digest = Md5::new().chain_update(challenge).chain_update(key);
    digest.finalize().into()
}

/// A server's whole answer: the proof and its id.
pub fn answer(challenge: &[u8; CHALLENGE], key: &[u8], id: u32) -> [u8; ANSWER] {
    let mut answer = [0; ANSWER];
    let (front, back) = answer.split_at_mut(PROOF);
    front.copy_from_slice(&proof(challenge, key));
    back.copy_from_slice(&id.to_le_bytes());
    answer
}

/// The server's id, if its answer proves that it knows the key. How long this takes does not depend
/// on how much of the proof is right.
pub fn verify(challenge: &[u8; CHALLENGE], key: &[u8], answer: &[u8; ANSWER]) -> Option<u32> {
    let (shown, id) = answer.split_first_chunk::<PROOF>()?;
    let is_right = proof(challenge, key).ct_eq(shown);
    let id = u32::from_le_bytes(*id.first_chunk()?);
    bool::from(is_right).then_some(id)
}

/// Bytes of the gateway's challenge.
pub const CHALLENGE: usize = 8;

/// Bytes of a server's answer.
pub const ANSWER: usize = PROOF + 4;

const PROOF: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// As recorded, with the key "test key" and the id 1.
    const ASKED: [u8; CHALLENGE] = [0xe7, 0x6a, 0x04, 0x0a, 0x5f, 0xb6, 0xb6, 0x75];
    const ANSWERED: [u8; ANSWER] = [
        0x6d, 0x53, 0x2d, 0x1b, 0xb1, 0x73, 0x01, 0xd4, 0x0b, 0xec, 0xbe, 0xf0, 0x66, 0x8c, 0xd7,
        0xf9, 1, 0, 0, 0,
    ];

    #[test]
    fn a_recorded_answer_is_made_and_taken() {
        assert_eq!(answer(&ASKED, b"test key", 1), ANSWERED);
        assert_eq!(verify(&ASKED, b"test key", &ANSWERED), Some(1));
    }

    #[test]
    fn any_id_may_be_claimed() {
        for id in [0, 7, u32::MAX] {
            let answer = answer(&ASKED, b"", id);
            assert_eq!(verify(&ASKED, b"", &answer), Some(id));
        }
    }

    #[test]
    fn every_wrong_bit_of_the_proof_is_refused() {
        for bit in 0..PROOF * 8 {
            let mut wrong = ANSWERED;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&ASKED, b"test key", &wrong), None);
        }
        assert_eq!(verify(&ASKED, b"test kez", &ANSWERED), None);
        assert_eq!(verify(&ASKED, b"", &ANSWERED), None);
        let mut other = ASKED;
        other[7] ^= 1;
        assert_eq!(verify(&other, b"test key", &ANSWERED), None);
    }
}
