//! Broken frames by the hundred thousand: the codec never panics, never takes more than it was given,
//! and says the same however the bytes arrive.

use towpath::protocols::agent::wire::{
    AgentRequest, Dialect, MAX_PAYLOAD, Request, decode, decode_reply, encode_request, needed,
};

use crate::random::Random;
use crate::vectors;

fn seeds() -> Vec<Vec<u8>> {
    let folders = ["agent/document", "agent/early", "agent/stock"];
    let mut seeds: Vec<Vec<u8>> = folders
        .into_iter()
        .flat_map(vectors::files)
        .flat_map(|name| vectors::clients(&name))
        .flat_map(|recorded| [recorded.sent, recorded.received])
        .filter(|bytes| (13..400).contains(&bytes.len()))
        .collect();
    // Masks under which a frame's dialect is open until its payload is there.
    for mask in [[0; 4], [5, 0, 0, 0], [6, 0, 0, 0]] {
        for dialect in [Dialect::Document, Dialect::Stock] {
            let query = AgentRequest::Query {
                id: b"dev1",
                section: b"s",
                wait: 0,
            };
            let mut out = Vec::new();
            encode_request(&mut out, dialect, mask, &Request::Agent(query));
            seeds.push(out);
        }
    }
    seeds
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            // A length field goes wild: all of it, or up to its sign.
            4 => {
                let end = bytes.len().min(at + 8);
                let wild = [u64::MAX, 1 << 63, u64::MAX - 3, 0][random.below(4)].to_le_bytes();
                bytes[at..end].copy_from_slice(&wild[..end - at]);
            }
            _ => {
                let tail = bytes[at..].to_vec();
                bytes.extend(tail);
            }
        }
    }
}

/// Makes the checksum right again at the length that the header claims, so that a mutation reaches
/// the fields behind it.
fn repair(bytes: &mut [u8], header: usize) {
    if bytes.len() < header {
        return;
    }
    let length = u32::from_le_bytes(bytes[9..13].try_into().unwrap()) as usize;
    let mask: [u8; 4] = bytes[5..9].try_into().unwrap();
    let payload = bytes[header..].iter().take(length);
    bytes[2] = payload
        .enumerate()
        .fold(0, |sum, (at, byte)| sum ^ byte ^ mask[at % 4]);
}

#[test]
fn a_hundred_thousand_broken_streams_do_no_harm() {
    let seeds = seeds();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut taken, mut refused, mut open) = (0_u32, 0_u32, 0_u32);
    let mut scratch = Vec::new();
    for case in 0..100_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        mutate(&mut bytes, &mut random);
        match random.below(3) {
            0 => repair(&mut bytes, 17),
            1 => repair(&mut bytes, 13),
            _ => {}
        }
        // Exactly as large as the input: a read behind its end would be seen.
        let input: Box<[u8]> = bytes.into();
        match decode(&input, MAX_PAYLOAD, &mut scratch) {
            Ok(Some(frame)) => {
                assert!(frame.consumed <= input.len(), "case {case}");
                taken += 1;
            }
            Ok(None) => {
                let need = needed(&input);
                assert!(
                    need > input.len() && need <= MAX_PAYLOAD + 17,
                    "case {case}"
                );
                open += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
        for dialect in [Dialect::Document, Dialect::Stock] {
            if let Ok(Some(answer)) = decode_reply(&input, dialect, MAX_PAYLOAD, &mut scratch) {
                assert!(answer.consumed <= input.len(), "case {case}");
                let _ = (answer.record(), answer.host());
            }
        }
        assert!(
            scratch.capacity() <= 4096,
            "case {case}: {} bytes",
            scratch.capacity()
        );
    }
    // All three ends are reached often, or the mutation is blind.
    assert!(
        taken > 5_000 && refused > 5_000 && open > 5_000,
        "{taken} {refused} {open}"
    );
}

#[test]
fn what_a_stream_says_does_not_depend_on_how_it_arrives() {
    let seeds = seeds();
    let mut random = Random(42);
    for case in 0..3_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        mutate(&mut bytes, &mut random);
        repair(&mut bytes, [13, 17][random.below(2)]);
        let (mut at_once, mut bit_by_bit) = (Vec::new(), Vec::new());
        let whole = decode(&bytes, MAX_PAYLOAD, &mut at_once);
        let verdict = (1..=bytes.len())
            .find(|&end| decode(&bytes[..end], MAX_PAYLOAD, &mut bit_by_bit) != Ok(None));
        let first = verdict.map(|end| decode(&bytes[..end], MAX_PAYLOAD, &mut bit_by_bit));
        assert_eq!(
            first.unwrap_or(Ok(None)),
            whole,
            "case {case}: {bytes:02x?}"
        );
    }
}
