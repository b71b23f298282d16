//! Broken messages by the hundred thousand: the codec never panics, and the server's borrowed view of
//! a message says what the full decoder says.

use prost::Message as _;
use towpath::protocols::node::wire::{
    Demand, HEAD, Head, Identity, MAX_FRAME, Message, NETWORK_ID, Transport, control_message,
    decode_datagram, verify,
};

use crate::random::Random;
use crate::vectors;

fn seeds() -> Vec<Vec<u8>> {
    let seeds = vectors::files("node")
        .into_iter()
        .flat_map(|name| vectors::lines(&name))
        .filter(|line| line.bytes.len() > HEAD)
        .map(|line| line.bytes);
    seeds.collect()
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            // A varint without an end.
            4 => drop(bytes.splice(at..at, vec![0xff; random.below(12)])),
            // The message's own keys, at any place and of any wire type.
            5 => bytes.insert(at, (random.below(11) << 3 | random.below(8)) as u8),
            _ => {
                let tail = bytes[at..].to_vec();
                bytes.extend(tail);
            }
        }
    }
}

/// What the demands are, told by the full decoder.
fn demanded(message: &Message) -> Option<Demand<'_>> {
    let sender = message.sender.as_ref()?;
    let net_key = sender.net_key.as_deref()?;
    let passes = message.opcode != 0 && !sender.address.is_empty() && message.net_id == NETWORK_ID;
    passes.then_some(Demand {
        opcode: message.opcode,
        message: &message.message,
        net_key,
        address: &sender.address,
        id: &sender.id,
        connection_id: &sender.connection_id,
        signature: &message.signature,
        nonce: message.message_nonce,
    })
}

#[test]
fn two_decoders_agree_on_a_hundred_thousand_broken_messages() {
    let seeds = seeds();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut taken, mut unfit, mut broken) = (0_u32, 0_u32, 0_u32);
    for case in 0..100_000 {
        let mut bytes = seeds[random.below(seeds.len())][HEAD..].to_vec();
        mutate(&mut bytes, &mut random);
        // Exactly as large as the input: a read behind its end would be seen.
        let input: Box<[u8]> = bytes.into();
        let judged = control_message(&input, Some(NETWORK_ID));
        let decoded = Message::decode(&input[..]);
        let told = decoded.as_ref().ok().and_then(demanded);
        assert_eq!(judged.ok(), told, "case {case}: {judged:?} {input:02x?}");
        match (judged, decoded) {
            (Ok(demand), _) => {
                let _ = (verify(&demand), Identity::of(&demand, Transport::Tcp));
                taken += 1;
            }
            (Err(_), Ok(_)) => unfit += 1,
            (Err(_), Err(_)) => broken += 1,
        }
    }
    // All three ends are reached often, or the mutation is blind.
    assert!(
        taken > 5_000 && unfit > 1_000 && broken > 5_000,
        "{taken} {unfit} {broken}"
    );
}

#[test]
fn broken_heads_and_datagrams_do_no_harm() {
    let seeds = seeds();
    let mut random = Random(42);
    for case in 0..100_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        bytes.truncate(HEAD + random.below(20));
        mutate(&mut bytes, &mut random);
        let input: Box<[u8]> = bytes.into();
        match Head::decode(&input, NETWORK_ID, MAX_FRAME) {
            Ok(Some(head)) => assert_eq!(head.encode(), input[..HEAD], "case {case}"),
            Ok(None) => assert!(input.len() < HEAD, "case {case}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        if let Ok(message) = decode_datagram(&input) {
            assert_eq!(message.len() + 2, input.len(), "case {case}");
        }
    }
}

#[test]
fn a_message_cut_anywhere_is_judged_as_the_full_decoder_has_it() {
    for bytes in seeds() {
        let body = &bytes[HEAD..];
        for end in 0..=body.len() {
            let cut = &body[..end];
            let judged = control_message(cut, Some(NETWORK_ID)).ok();
            let decoded = Message::decode(cut).ok();
            assert_eq!(judged, decoded.as_ref().and_then(demanded));
        }
    }
}

#[test]
fn bombs_cost_no_more_than_their_bytes() {
    let good = seeds()
        .into_iter()
        .find(|bytes| control_message(&bytes[HEAD..], Some(NETWORK_ID)).is_ok())
        .unwrap();
    let with = |bomb: &[u8]| [&good[HEAD..], bomb].concat();
    let unknown = [&[0xfa, 0x01, 0x80, 0x80, 0x40][..], &vec![7; 1 << 20]].concat();
    let small = [0xf8, 0x01, 0x00].repeat((1 << 20) / 3);
    let senders = [0x12, 0x02, 0x22, 0x00].repeat(1 << 18);
    // Each message, and whether it passes.
    let bombs = [
        (with(&[0x0b; 100_000]), false),
        (
            with(&[vec![0x0b; 100_000], vec![0x0c; 100_000]].concat()),
            false,
        ),
        (with(&[0x12, 0x7f]), false),
        (with(&[&[0x0a][..], &[0xff; 9], &[0x01]].concat()), false),
        (with(&unknown), true),
        (with(&small), true),
        (with(&senders), true),
    ];
    for (message, passes) in bombs {
        let began = ticks();
        let judged = control_message(&message, Some(NETWORK_ID));
        assert_eq!(judged.is_ok(), passes, "{judged:?}");
        // A megabyte in 10 ms is the aim. The time of others on a busy machine does not count.
        assert!(ticks() - began < 200);
    }
}

/// Processor time of this thread, in ticks of 10 ms.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    // The name in parentheses may hold spaces, so the fields are counted from behind it.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let times = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>());
    times.sum::<Result<u64, _>>().unwrap()
}
