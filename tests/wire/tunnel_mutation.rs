//! Broken tunnel frames by the hundred thousand: the codecs never panic, and what they take they write
//! again as the same bytes. And streams under credit: never overdrawn, never stuck.

use std::collections::VecDeque;

use towpath::protocols::tunnel::wire::{
    Answer, Attach, Control, Frame, Grant, HEAD, Hello, Kind, MAX_BODY, MUX_HEAD, MuxHead,
    Receiving, Reply, Sending, Token, Transport, Visitor, WINDOW,
};

use crate::random::Random;
use crate::tunnel_samples::{CHALLENGE, TOKEN, answers, controls, frames};

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            // Another type.
            4 => bytes[0] = random.below(14) as u8,
            // Another low byte of a control frame's length.
            5 if bytes.len() > 1 => bytes[1] = random.next() as u8,
            5 => {}
            _ => bytes.extend(vec![random.next() as u8; random.below(12)]),
        }
    }
}

/// The inputs of a run: exactly as large as their bytes, so that a read behind the end would be seen.
fn inputs(seeds: Vec<Vec<u8>>, seed: u64) -> impl Iterator<Item = Box<[u8]>> {
    let mut random = Random(seed);
    (0..100_000).map(move |_| {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        mutate(&mut bytes, &mut random);
        bytes.into()
    })
}

#[test]
fn a_hundred_thousand_broken_control_frames_do_no_harm() {
    let seeds = controls().into_iter().map(|(_, bytes)| bytes).collect();
    let (mut taken, mut waiting, mut refused) = (0_u32, 0_u32, 0_u32);
    for (case, input) in inputs(seeds, 0x9e37_79b9_7f4a_7c15).enumerate() {
        match Control::decode(&input) {
            Ok(Some((frame, len))) => {
                let mut written = Vec::new();
                frame.encode(&mut written);
                assert_eq!(written, input[..len], "case {case}: {frame:?}");
                assert!(len <= HEAD + MAX_BODY);
                for end in [0, HEAD - 1, HEAD, len - 1] {
                    assert_eq!(Control::decode(&input[..end]), Ok(None), "case {case}");
                }
                taken += 1;
            }
            Ok(None) => waiting += 1,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    // All ends are reached often, or the mutation is blind.
    assert!(
        taken > 20_000 && waiting > 5_000 && refused > 20_000,
        "{taken} {waiting} {refused}"
    );
}

#[test]
fn a_hundred_thousand_broken_frames_of_visitors_do_no_harm() {
    let seeds = frames().into_iter().map(|(_, bytes)| bytes).collect();
    let (mut taken, mut waiting, mut refused) = (0_u32, 0_u32, 0_u32);
    for (case, input) in inputs(seeds, 42).enumerate() {
        for transport in [Transport::Tcp, Transport::Udp] {
            match Frame::decode(&input, transport) {
                Ok(Some((frame, len))) => {
                    let mut written = Vec::new();
                    frame.encode(&mut written);
                    assert_eq!(written, input[..len], "case {case}: {frame:?}");
                    for end in [0, MUX_HEAD - 1, len - 1] {
                        let read = Frame::decode(&input[..end], transport);
                        assert_eq!(read, Ok(None), "case {case}");
                    }
                    taken += 1;
                }
                Ok(None) => waiting += 1,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
            }
            if let Ok(Some(head)) = MuxHead::decode(&input, transport) {
                assert_eq!(head.encode()[..], input[..MUX_HEAD], "case {case}");
            }
        }
        if let Ok(Some((uuid, visitor, len))) = Visitor::decode_assigned(&input) {
            let mut written = Vec::new();
            visitor.encode_assigned(uuid, &mut written);
            assert_eq!(written, input[..len], "case {case}");
        }
        if let Ok(Some(grant)) = Grant::decode(&input) {
            assert_eq!(grant.encode()[..], input[..20], "case {case}");
        }
    }
    assert!(
        taken > 50_000 && waiting > 5_000 && refused > 5_000,
        "{taken} {waiting} {refused}"
    );
}

#[test]
fn broken_handshakes_do_no_harm_and_none_passes() {
    let token = Token::new(TOKEN);
    let good: Vec<Vec<u8>> = answers().into_iter().map(|(_, bytes)| bytes).collect();
    for (case, input) in inputs(good.clone(), 7).enumerate() {
        let _ = (Hello::decode(&input), Attach::decode(&input));
        if let Some(reply) = Reply::decode(&input) {
            assert_eq!(reply.encode()[..], input[..33], "case {case}");
        }
        for kind in [Kind::Control, Kind::Send, Kind::Receive] {
            let Ok(Some(answer)) = Answer::decode(kind, &input) else {
                continue;
            };
            let mut written = Vec::new();
            answer.encode(&mut written);
            assert_eq!(written, input[..written.len()], "case {case}");
            // A proof is checked now and then only: that costs a digest.
            if case.is_multiple_of(16) && answer.is_proved(&token, &CHALLENGE) {
                assert!(good.contains(&written), "case {case}");
            }
        }
    }
}

/// One direction of one visitor: bytes under way, and grants under way.
#[derive(Default)]
struct Stream {
    sending: Sending,
    receiving: Receiving,
    forth: VecDeque<u32>,
    back: VecDeque<u32>,
    sent: usize,
    passed: usize,
}

impl Stream {
    fn step(&mut self, random: &mut Random) {
        match random.below(4) {
            0 => {
                let taken = self.sending.take(random.below(100_000));
                self.sent += taken;
                self.forth.extend((taken > 0).then_some(taken as u32));
            }
            1 => {
                if let Some(bytes) = self.forth.pop_front() {
                    self.receiving.arrived(bytes).unwrap();
                }
            }
            2 => {
                let wanted = random.below(80_000).min(self.receiving.unread());
                self.drain(wanted);
            }
            _ => {
                if let Some(bytes) = self.back.pop_front() {
                    self.sending.granted(bytes).unwrap();
                }
            }
        }
        self.check();
    }

    fn drain(&mut self, bytes: usize) {
        self.passed += bytes;
        self.back.extend(self.receiving.drained(bytes as u32));
    }

    /// Never more than a window is anywhere between the two ends.
    fn check(&self) {
        let under_way: u32 = self.forth.iter().sum();
        let held = under_way as usize + self.receiving.unread();
        assert!(held <= WINDOW as usize);
        assert!(self.sending.left() + held <= WINDOW as usize);
        assert_eq!(self.sent - self.passed, held);
        assert!(self.back.iter().all(|bytes| *bytes >= WINDOW / 4));
    }

    /// All that is under way arrives, and all that has come is passed on.
    fn settle(&mut self) {
        while let Some(bytes) = self.forth.pop_front() {
            self.receiving.arrived(bytes).unwrap();
        }
        self.drain(self.receiving.unread());
        while let Some(bytes) = self.back.pop_front() {
            self.sending.granted(bytes).unwrap();
        }
        self.check();
    }
}

#[test]
fn credit_is_never_overdrawn_and_never_stuck() {
    for seed in 1..=200 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut stream = Stream::default();
        for _ in 0..20 {
            for _ in 0..100 {
                stream.step(&mut random);
            }
            stream.settle();
            // Less than a step may be owed; the rest can be sent again.
            let least = WINDOW as usize * 3 / 4;
            assert!(stream.sending.left() > least, "seed {seed}");
        }
        assert_eq!(stream.sent, stream.passed);
        assert!(stream.sent > WINDOW as usize, "seed {seed}");
    }
}

#[test]
fn a_peer_that_overdraws_is_found_out_at_once() {
    for seed in 1..=100 {
        let mut random = Random(seed * 77);
        let mut stream = Stream::default();
        for _ in 0..200 {
            stream.step(&mut random);
        }
        let under_way: u32 = stream.forth.iter().sum();
        let owed: u32 = stream.back.iter().sum();
        let mut receiving = stream.receiving;
        // As much as it may, and one byte more.
        let allowed = under_way + stream.sending.left() as u32 + owed;
        assert!(receiving.arrived(allowed + 1).is_err());
        assert_eq!(receiving, stream.receiving);
        receiving.arrived(allowed).unwrap();
        let mut sending = stream.sending;
        let used = WINDOW - sending.left() as u32;
        assert!(sending.granted(used + 1).is_err());
        assert_eq!(sending, stream.sending);
        sending.granted(used).unwrap();
    }
}
