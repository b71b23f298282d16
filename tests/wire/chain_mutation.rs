//! Broken frames by the hundred thousand: the codec never panics, and nothing that was altered is
//! believed, whatever the bytes say of their length.

use towpath::protocols::chain::wire::{
    Address, Code, Direction, Flags, HEAD, Key, MAX_LENGTH, MAX_RECORD, MAX_REQUEST_FRAME, Nonce,
    Opened, RESPONSE_FRAME, Request, Response, Side, Transport, frame_len, open_datagram,
    open_request, open_response, record_len, records, seal_datagram, seal_request, seal_response,
};

use crate::random::Random;

const KEY: Key = Key::from_bytes([1; 32]);
const REQUEST_NONCE: Nonce = [2; 24];
const RESPONSE_NONCE: Nonce = [3; 24];

fn nonce(random: &mut Random) -> Nonce {
    std::array::from_fn(|_| random.next() as u8)
}

fn transport(random: &mut Random) -> Transport {
    match random.below(2) {
        0 => Transport::Tcp,
        _ => Transport::Udp,
    }
}

fn address(random: &mut Random) -> Address {
    let port = 1 + random.below(65535);
    let text = match random.below(4) {
        0 => format!("{}.0.{}.1:{port}", random.below(256), random.below(256)),
        1 => format!("[2001:db8::{:x}]:{port}", random.below(65536)),
        2 => format!("{}:{port}", "a".repeat(1 + random.below(255))),
        _ => format!("hop-{}.example_:{port}", random.below(1000)),
    };
    text.parse().unwrap()
}

fn request(random: &mut Random) -> Request {
    let mut flag = || random.below(2) == 0;
    let flags = Flags {
        probe: flag(),
        early: flag(),
        sealed: flag(),
    };
    Request {
        stamp: random.next(),
        flags,
        address: address(random),
    }
}

fn response(random: &mut Random) -> Response {
    Response {
        code: Code::ALL[random.below(Code::ALL.len())],
        dial: random.next() as u32,
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            // The length.
            4 if bytes.len() >= HEAD => bytes[24 + random.below(2)] = random.next() as u8,
            _ => {
                let tail = bytes[at..].to_vec();
                bytes.extend(tail);
            }
        }
    }
}

#[test]
fn headers_come_back_whatever_they_say() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..10_000 {
        let (transport, nonce) = (transport(&mut random), nonce(&mut random));
        let request = request(&mut random);
        let mut frame = Vec::new();
        seal_request(&mut frame, &KEY, transport, &nonce, &request);
        assert!(frame.len() <= MAX_REQUEST_FRAME);
        assert_eq!(frame_len(&frame), Ok(Some(frame.len())));
        assert_eq!(open_request(&KEY, transport, &frame), Ok((nonce, request)));
        let response = response(&mut random);
        let mut frame = Vec::new();
        seal_response(
            &mut frame,
            &KEY,
            transport,
            &RESPONSE_NONCE,
            &nonce,
            &response,
        );
        assert_eq!(frame.len(), RESPONSE_FRAME);
        let opened = open_response(&KEY, transport, &frame, &nonce);
        assert_eq!(opened, Ok((RESPONSE_NONCE, response)));
    }
}

#[test]
fn a_hundred_thousand_broken_frames_do_no_harm() {
    let mut random = Random(42);
    let (mut whole, mut parts, mut wrong) = (0_u32, 0_u32, 0_u32);
    for case in 0..100_000 {
        let transport = transport(&mut random);
        let mut frame = Vec::new();
        let nonce = nonce(&mut random);
        match random.below(2) {
            0 => seal_request(&mut frame, &KEY, transport, &nonce, &request(&mut random)),
            _ => {
                let response = response(&mut random);
                seal_response(
                    &mut frame,
                    &KEY,
                    transport,
                    &nonce,
                    &REQUEST_NONCE,
                    &response,
                );
            }
        }
        let sound = frame.clone();
        mutate(&mut frame, &mut random);
        // Exactly as large as the input: a read behind its end would be seen.
        let input: Box<[u8]> = frame.into();
        match frame_len(&input) {
            Ok(None) => assert!(input.len() < HEAD, "case {case}"),
            Ok(Some(length)) => {
                assert!(length <= HEAD + MAX_LENGTH, "case {case}");
                let Some(cut) = input.get(..length) else {
                    parts += 1;
                    continue;
                };
                let request = open_request(&KEY, transport, cut).is_ok();
                let response = open_response(&KEY, transport, cut, &REQUEST_NONCE).is_ok();
                assert_eq!(request || response, cut == &sound[..], "case {case}");
                whole += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                wrong += 1;
            }
        }
    }
    // All ends are reached often, or the mutation is blind.
    assert!(
        whole > 5_000 && parts > 5_000 && wrong > 5_000,
        "{whole} {parts} {wrong}"
    );
}

#[test]
fn broken_records_and_datagrams_do_no_harm() {
    let mut random = Random(7);
    let (mut taken, mut refused) = (0_u32, 0_u32);
    for case in 0..30_000 {
        let payload: Vec<u8> = (0..random.below(200))
            .map(|_| random.next() as u8)
            .collect();
        let pair = |side| records(&KEY, side, &REQUEST_NONCE, &RESPONSE_NONCE);
        let mut sound = Vec::new();
        let (mut sealer, _) = pair(Side::Hop);
        sealer.seal(&mut sound, &payload);
        sealer.close(&mut sound);
        let mut wire = sound.clone();
        mutate(&mut wire, &mut random);
        let (_, mut opener) = pair(Side::Client);
        let mut back = Vec::new();
        let mut at = 0;
        while let Ok(Some(length)) = record_len(&wire[at..]) {
            assert!(length <= 2 + MAX_RECORD + 16);
            let Some(record) = wire.get_mut(at..at + length) else {
                break;
            };
            match opener.open(record) {
                Ok(Opened::Payload(part)) => back.extend_from_slice(part),
                Ok(Opened::Close) => break,
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
            at += length;
        }
        // Whatever was taken is the beginning of what was sent; the end is the end of all of it.
        assert!(payload.starts_with(&back), "case {case}");
        assert!(!opener.is_closed() || back == payload, "case {case}");
        taken += u32::from(!back.is_empty());

        let mut wire = Vec::new();
        let direction = Direction::Response;
        seal_datagram(
            &mut wire,
            &KEY,
            direction,
            &REQUEST_NONCE,
            &nonce(&mut random),
            &payload,
        );
        let sound = wire.clone();
        mutate(&mut wire, &mut random);
        let mut back = Vec::new();
        let opened = open_datagram(&mut back, &KEY, direction, &REQUEST_NONCE, &wire);
        assert_eq!(opened.is_ok(), wire == sound, "case {case}");
        assert!(opened.is_ok() || back.is_empty(), "case {case}");
    }
    assert!(taken > 1_000 && refused > 5_000, "{taken} {refused}");
}
