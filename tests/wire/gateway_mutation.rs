//! Broken gateway frames by the hundred thousand: the codec never panics, and what it takes it writes
//! again as the same bytes.

use towpath::protocols::gateway::wire::{Command, Dialect, HEAD, Head, MAX_PACKET};

use crate::gateway_record::Scenario;
use crate::random::Random;

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Scenario::all()
        .into_iter()
        .flat_map(|scenario| scenario.connections)
        .flat_map(|connection| connection.units)
        .map(|unit| unit.bytes)
        .filter(|bytes| (9..40).contains(&bytes.len()))
        .collect();
    seeds.sort();
    seeds.dedup();
    seeds
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            // Another type of command.
            4 if bytes.len() > HEAD => bytes[HEAD] = random.below(9) as u8,
            4 => {}
            _ => bytes.extend(vec![random.next() as u8; random.below(12)]),
        }
    }
}

#[test]
fn a_hundred_thousand_broken_frames_do_no_harm() {
    let seeds = seeds();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut taken, mut refused, mut bad_heads) = (0_u32, 0_u32, 0_u32);
    for case in 0..100_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        mutate(&mut bytes, &mut random);
        // Exactly as large as the input: a read behind its end would be seen.
        let input: Box<[u8]> = bytes.into();
        let Some((head, payload)) = input.split_first_chunk::<HEAD>() else {
            continue;
        };
        match Head::decode(head, MAX_PACKET) {
            Ok(head) => {
                assert!(head.frame_len() <= MAX_PACKET as usize + 4, "case {case}");
                assert_eq!(head.frame_len(), head.payload_len() + HEAD, "case {case}");
                let _ = Dialect::detect(head.length, payload);
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                bad_heads += 1;
            }
        }
        for dialect in [Dialect::Document, Dialect::Fastway] {
            match dialect.decode(payload) {
                Ok(command) => {
                    check(dialect, command, payload, case);
                    taken += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    // All ends are reached often, or the mutation is blind.
    assert!(
        taken > 20_000 && refused > 20_000 && bad_heads > 5_000,
        "{taken} {refused} {bad_heads}"
    );
}

/// What was read is in the payload's front, all of it and in its order.
fn check(dialect: Dialect, command: Command, payload: &[u8], case: usize) {
    let frame = dialect.frame(command);
    let written = &frame.as_ref()[HEAD..];
    assert!(payload.starts_with(written), "case {case}: {command:?}");
    assert_eq!(dialect.decode(written), Ok(command), "case {case}");
    for end in 0..written.len() {
        assert!(dialect.decode(&written[..end]).is_err(), "case {case}");
    }
}
