//! What visitors send to a node's address: whole, as it is, in order, and nothing back.

use std::collections::HashMap;

use crate::support::bulk::Numbers;
use crate::support::kernel;
use crate::support::node::Visited;
use crate::support::node::message::{HEAD, Message, NETWORK, Sender, frame, frame_with, head};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::peer::Peer;

const M16: usize = 16 << 20;

#[test]
fn frames_of_every_length_arrive_as_they_are() {
    let proxy = Proxy::new(1);
    let mut visited = proxy.visited(1);
    let mut numbers = Numbers::new(7);
    let lengths = [
        1,
        2,
        9,
        10,
        11,
        1023,
        1024,
        4096,
        16_374,
        16_384,
        32_768,
        65_525,
        65_526,
        65_527,
        65_536,
        65_537,
        131_061,
        131_062,
        131_063,
        131_072,
        131_073,
        200_000,
        262_144,
        1_000_000,
        1 << 20,
        M16 - 1,
        M16,
        3,
    ];
    for length in lengths {
        eprintln!("{length} bytes");
        let bytes = frame(&numbers.bytes(length)[..length]);
        let mut writer = visited.visitor.twin();
        let sent = bytes.clone();
        let sending = std::thread::spawn(move || {
            writer.send(sent);
        });
        visited.node.expect(&bytes);
        sending.join().unwrap();
    }
    visited.node.expect_quiet();
}

#[test]
fn only_the_header_is_looked_at() {
    let proxy = Proxy::new(1);
    let mut visited = proxy.visited(1);
    let mut wrong_network = Message::new(1000, &Sender::number(3));
    wrong_network.network = 7;
    let no_sender = [0x38, 0x0f, 0x40, 0xda, 0xcc, 0xeb, 0xe9, 0x05];
    let bodies = [
        b"not a message at all".to_vec(),
        vec![0xff; 100],
        vec![0; 100],
        wrong_network.encode(),
        no_sender.to_vec(),
        // A header inside a body.
        frame(b"inner"),
    ];
    for body in &bodies {
        // Algorithms that exist and that do not, "compressed" and not.
        for compression in [
            0, 1, 2, 3, 4, 5, 0x0100, 0x0101, 0x0102, 0x0103, 0x0104, 0x01ff, 0xffff,
        ] {
            let bytes = frame_with(NETWORK, compression, body);
            visited.visitor.send(&bytes);
            visited.node.expect(&bytes);
        }
    }
    visited.node.expect_quiet();
}

#[test]
fn a_bad_frame_ends_its_visitor_and_nothing_else() {
    let proxy = Proxy::new(2);
    let mut visited = proxy.visited(1);
    let (mut other, _) = proxy.registered(2);
    let too_long = u32::try_from(M16).unwrap() + 1;
    let bad = [
        ("another network", frame_with(NETWORK + 1, 2, b"body")),
        ("network 0", frame_with(0, 2, b"body")),
        ("length 0", frame_with(NETWORK, 2, b"")),
        ("one byte too long", head(NETWORK, 2, too_long)),
        ("length 2^31", head(NETWORK, 2, 1 << 31)),
        ("length 2^32 - 1", head(NETWORK, 2, u32::MAX)),
    ];
    for (name, bytes) in &bad {
        // At once, behind a good frame, and byte by byte.
        for way in 0..3 {
            eprintln!("{name}, {way}");
            let mut peer = Peer::connect(visited.public);
            let good = frame(name.as_bytes());
            match way {
                0 => {
                    peer.send(bytes);
                }
                1 => {
                    peer.send([&good[..], bytes].concat());
                    visited.node.expect(&good);
                }
                _ => {
                    let _ = bytes.iter().all(|byte| peer.try_send(&[*byte]));
                }
            }
            peer.expect_closed();
            visited.expect_passing(b"undisturbed");
        }
    }
    visited.node.expect_quiet();
    other.expect_quiet();
}

#[test]
fn a_frame_that_is_cut_is_dropped() {
    let proxy = Proxy::new(1);
    let mut visited = proxy.visited(1);
    for length in [1, 50, 70_000, 1_000_000] {
        let bytes = frame(&vec![5; length]);
        for at in [1, 4, 9, HEAD, HEAD + length / 2, HEAD + length - 1] {
            for resets in [false, true] {
                let mut peer = Peer::connect(visited.public);
                peer.send(frame(b"whole")).send(&bytes[..at]).settle();
                visited.node.expect(&frame(b"whole"));
                match resets {
                    true => peer.reset(),
                    false => {
                        peer.finish().expect_end();
                    }
                }
            }
        }
    }
    visited.expect_passing(b"nothing of them came");
    visited.node.expect_quiet();
}

#[test]
fn the_longest_frame_is_configured() {
    let proxy = Plan::new(1).text("max_frame", "2K").start();
    let mut visited = proxy.visited(1);
    visited.expect_passing(&[1; 2048]);
    let mut peer = Peer::connect(visited.public);
    // The header says enough.
    peer.send(head(NETWORK, 2, 2049));
    peer.expect_closed();
    visited.expect_passing(&[2; 2048]);
    // The node's own messages, too.
    visited.node.send(head(NETWORK, 2, 2049)).expect_closed();
    visited.visitor.expect_closed();
}

#[test]
fn frames_may_come_in_any_segments() {
    // A frame that comes byte by byte is not to be late.
    let plan = Plan::new(1).limit("handshake_timeout = \"60s\"");
    let proxy = plan.workers(1).start();
    let mut visited = proxy.visited(1);
    let bytes = [frame(b"first"), frame(b"s"), frame(&[3; 40])].concat();
    let whole = |visited: &mut Visited| {
        visited.node.expect(&frame(b"first"));
        visited.node.expect(&frame(b"s"));
        visited.node.expect(&frame(&[3; 40]));
    };
    for at in 1..bytes.len() {
        visited.visitor.send(&bytes[..at]).settle();
        visited.visitor.send(&bytes[at..]);
        whole(&mut visited);
    }
    for byte in &bytes {
        visited.visitor.send([*byte]).settle();
    }
    whole(&mut visited);
    visited.node.expect_quiet();
}

/// Every frame of a visitor: who, which, and bytes that follow from both.
fn tagged(visitor: u32, number: u32, numbers: &mut Numbers) -> Vec<u8> {
    let length = 8 + numbers.below(20_000);
    let mut body = vec![(visitor ^ number).to_le_bytes()[0]; length];
    body[..4].copy_from_slice(&visitor.to_be_bytes());
    body[4..8].copy_from_slice(&number.to_be_bytes());
    frame(&body)
}

fn crowd(workers: usize) {
    const VISITORS: u32 = 40;
    const FRAMES: u32 = 60;
    let proxy = Plan::new(3).workers(workers).start();
    let (mut node, public) = proxy.registered(1);
    let (mut other, _) = proxy.registered(2);
    let visitors: Vec<_> = (0..VISITORS)
        .map(|visitor| {
            std::thread::spawn(move || {
                let mut numbers = Numbers::new(visitor.into());
                let mut peer = Peer::connect(public);
                for number in 0..FRAMES {
                    peer.send(tagged(visitor, number, &mut numbers));
                }
                peer.finish().expect_end();
            })
        })
        .collect();
    let mut seen: HashMap<u32, (u32, Numbers)> = HashMap::new();
    for _ in 0..VISITORS * FRAMES {
        let got = node.next_frame().unwrap();
        let visitor = u32::from_be_bytes(got[HEAD..HEAD + 4].try_into().unwrap());
        let entry = seen.entry(visitor);
        let (number, numbers) = entry.or_insert_with(|| (0, Numbers::new(visitor.into())));
        let expected = tagged(visitor, *number, numbers);
        assert!(got == expected, "visitor {visitor}, frame {number}");
        *number += 1;
    }
    for visitor in visitors {
        visitor.join().unwrap();
    }
    node.expect_quiet();
    other.expect_quiet();
    node.leave();
    other.leave();
    proxy.stop();
}

#[test]
fn frames_of_many_visitors_arrive_whole_and_in_order() {
    for workers in [1, 2, 4] {
        crowd(workers);
    }
}

#[test]
fn visitors_are_closed_when_their_node_goes() {
    for way in 0..3 {
        for workers in [1, 4] {
            let proxy = Plan::new(2).workers(workers).start();
            let mut visited = proxy.visited(1);
            let mut others: Vec<Peer> = (0..20).map(|_| Peer::connect(visited.public)).collect();
            // One in the middle of a frame.
            others[0].send(&frame(b"part")[..12]).settle();
            let mut bystander = proxy.visited(2);
            match way {
                0 => visited.node.leave(),
                1 => visited.node.reset(),
                _ => {
                    visited.node.send([0; 10]).expect_closed();
                }
            }
            visited.visitor.expect_closed();
            others.iter_mut().for_each(|peer| {
                peer.expect_closed();
            });
            let gone = std::net::TcpStream::connect(visited.public);
            assert!(gone.is_err(), "the port is still open");
            bystander.expect_passing(b"undisturbed");
        }
    }
}

#[test]
fn a_visitor_that_only_listens_gets_nothing() {
    let proxy = Proxy::new(1);
    let mut visited = proxy.visited(1);
    for number in 0..20 {
        visited.expect_passing(&[number]);
        visited.node.expect_keepalive();
        visited.node.request();
        // What the node says is for nobody.
        visited.node.say(1000);
    }
    visited.visitor.finish().expect_end();
    visited.node.expect_quiet();
}

#[test]
fn a_visitor_may_send_as_soon_as_the_address_is_known() {
    let proxy = Plan::new(40).workers(4).start();
    for number in 0..40 {
        let (mut node, public) = proxy.registered(number);
        let mut peer = Peer::connect(public);
        peer.send(frame(b"at once")).finish();
        node.expect(&frame(b"at once"));
        peer.expect_end();
    }
}

#[test]
fn a_node_has_so_many_visitors_and_no_more() {
    let plan = Plan::new(2).workers(1).key("max_visitors", "4");
    let proxy = plan.start();
    let mut visited = proxy.visited(1);
    let mut places: Vec<Peer> = (0..3).map(|_| Peer::connect(visited.public)).collect();
    for place in &mut places {
        place.send(frame(b"in"));
        visited.node.expect(&frame(b"in"));
    }
    for round in 0..10 {
        let mut late = Peer::connect(visited.public);
        late.try_send(&frame(b"out"));
        late.expect_closed();
        visited.expect_passing(b"undisturbed");
        // A place that is free is anybody's.
        places.remove(0).finish().expect_end();
        let mut next = Peer::connect(visited.public);
        next.send(frame(&[round]));
        visited.node.expect(&frame(&[round]));
        places.push(next);
    }
    // Another node's are its own.
    proxy.visited(2).expect_passing(b"in");
}

#[test]
fn five_hundred_visitors_are_heard() {
    kernel::raise_own_descriptor_limit();
    let proxy = Plan::new(1).workers(2).start();
    let (mut node, public) = proxy.registered(1);
    let mut visitors: Vec<Peer> = (0..500).map(|_| Peer::connect(public)).collect();
    for round in 0..3_u8 {
        for visitor in &mut visitors {
            visitor.send(frame(&[round; 64]));
        }
        for _ in &visitors {
            node.expect(&frame(&[round; 64]));
        }
    }
    node.expect_quiet();
    node.leave();
    visitors.iter_mut().for_each(|visitor| {
        visitor.expect_closed();
    });
    drop(visitors);
    proxy.stop();
}
