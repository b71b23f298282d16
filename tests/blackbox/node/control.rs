//! What a node may say on its main connection, and what is answered.

use std::net::SocketAddr;

use crate::support::node::Visited;
use crate::support::node::message::{
    self, Message, NETWORK, Sender, field, frame, frame_with, number, opcode,
};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::peer::Peer;

#[test]
fn a_keepalive_is_answered_only_where_the_node_is_registered() {
    let proxy = Proxy::new(2);
    let mut node = proxy.node(1);
    node.say(opcode::KEEPALIVE).say(opcode::KEEPALIVE);
    // The first answer is that to the request: its nonce is checked.
    let public = node.request();
    node.expect_keepalive();
    // It is the identity that is asked for, on whatever connection.
    let mut other = proxy.node(2);
    other.sender.connection_id = Sender::number(1).connection_id;
    other.expect_keepalive();
    node.leave();
    let mut sender = Sender::number(1);
    sender.address = format!("tcp://{public}").into_bytes();
    let mut late = proxy.node_of(sender);
    late.say(opcode::KEEPALIVE);
    assert_eq!(late.request(), public);
}

#[test]
fn every_other_message_is_ignored() {
    let proxy = Proxy::new(2);
    let mut visited = proxy.visited(1);
    let others = [
        1,
        3,
        4,
        9,
        10,
        11,
        12,
        13,
        14,
        16,
        17,
        18,
        20,
        21,
        1000,
        u32::MAX,
    ];
    let mut silent = proxy.node(2);
    for code in others {
        visited.node.say(code);
        visited.node.expect_quiet();
        visited.expect_passing(&code.to_be_bytes());
        silent.say(code);
    }
    // None of them was an error where nobody has registered, either.
    silent.request();
    // Disconnect (14) has released nothing.
    assert_eq!(visited.node.request(), visited.public);
}

#[test]
fn pipelined_messages_are_answered_in_order() {
    let proxy = Plan::new(2).workers(1).start();
    let mut node = proxy.node(1);
    let mut bytes = Vec::new();
    for round in 0..200 {
        let code = match round % 3 {
            0 => opcode::PROXY_REQUEST,
            1 => opcode::KEEPALIVE,
            _ => opcode::PING,
        };
        bytes.extend(node.message(code).frame());
    }
    let mut writer = node.peer().twin();
    let sending = std::thread::spawn(move || {
        writer.send(bytes);
    });
    let mut public = None;
    for round in 0..200 {
        match round % 3 {
            0 => {
                let again = node.answer();
                assert_eq!(*public.get_or_insert(again), again);
            }
            1 => {
                node.expect_keepalive_answer();
            }
            _ => {}
        }
    }
    sending.join().unwrap();
    node.expect_quiet();
}

#[test]
fn ten_thousand_requests_are_one_lease() {
    let proxy = Proxy::new(2);
    let mut visited = proxy.visited(1);
    let request = visited.node.message(opcode::PROXY_REQUEST).frame();
    let mut writer = visited.node.peer().twin();
    let sending = std::thread::spawn(move || {
        writer.send(request.repeat(10_000));
    });
    for _ in 0..10_000 {
        assert_eq!(visited.node.answer(), visited.public);
    }
    sending.join().unwrap();
    visited.expect_passing(b"still here");
    // The other port is free.
    assert_ne!(proxy.registered(2).1, visited.public);
}

#[test]
fn a_message_may_come_in_any_segments() {
    // A frame that comes byte by byte is not to be late.
    let plan = Plan::new(2).limit("handshake_timeout = \"60s\"");
    let proxy = plan.workers(1).start();
    let mut node = proxy.node(1);
    let public = node.request();
    let request = node.message(opcode::PROXY_REQUEST).frame();
    for at in 1..request.len() {
        node.peer().send(&request[..at]).settle();
        node.peer().send(&request[at..]);
        assert_eq!(node.answer(), public, "split at {at}");
    }
    for byte in &request {
        node.peer().send([*byte]).settle();
    }
    assert_eq!(node.answer(), public);
}

/// A request with another body is answered.
fn expect_answered(proxy: &Proxy, name: &str, bytes: &[u8]) -> SocketAddr {
    eprintln!("{name}");
    let mut node = proxy.node(1);
    node.send(bytes);
    let public = node.answer();
    node.sender = Sender::number(1);
    node.expect_keepalive();
    public
}

#[test]
fn what_a_message_may_have_besides_is_skipped() {
    let proxy = Proxy::new(2);
    let request = Message::new(opcode::PROXY_REQUEST, &Sender::number(1));
    let plain = request.encode();
    let with = |more: &[&[u8]]| frame(&[&more.concat()[..], &plain].concat());
    let after = |more: &[&[u8]]| frame(&[&plain[..], &more.concat()].concat());
    let garbage = request.clone().message(&[0xff; 40]).frame();
    let two_fields = request
        .clone()
        .message(&[field(1, b""), field(2, b"x")].concat());
    let sender_twice = [
        field(2, &field(2, b"tcp://somewhere")),
        field(2, &field(99, b"?")),
    ];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("the inner message is garbage", garbage),
        ("the inner message has two fields", two_fields.frame()),
        ("reply_flag", with(&[&number(6, 1)])),
        ("request_nonce", with(&[&number(4, u64::MAX)])),
        ("nonce", with(&[&number(5, u64::MAX)])),
        ("a signature", with(&[&field(3, &[1; 64])])),
        (
            "MessageID and need_ack",
            after(&[&field(9, b"abc"), &number(10, 1)]),
        ),
        ("unknown number", after(&[&number(200, 1)])),
        ("unknown bytes", after(&[&field(5000, &[9; 300])])),
        ("the highest field", after(&[&number((1 << 29) - 1, 7)])),
        ("unknown fixed64", after(&[&[0xa1, 0x06], &[1; 8]])),
        ("unknown fixed32", after(&[&[0xa5, 0x06], &[1; 4]])),
        ("opcode twice, the last counts", with(&[&number(7, 2)])),
        ("sender twice, merged", with(&[&sender_twice.concat()])),
        ("network twice, the last counts", with(&[&number(8, 3)])),
        (
            "a long varint for the opcode",
            after(&[&[0x38, 0x8f, 0x80, 0x80, 0x00]]),
        ),
        (
            "unknown fields of a megabyte",
            after(&[&field(77, &vec![3; 1 << 20])]),
        ),
        (
            "100 000 unknown fields",
            after(&[&number(77, 1).repeat(100_000)]),
        ),
    ];
    let public = expect_answered(&proxy, "plain", &frame(&plain));
    for (name, bytes) in cases {
        assert_eq!(expect_answered(&proxy, name, &bytes), public, "{name}");
    }
    // What is not "compressed" is not, whatever the algorithm would be.
    for compression in [0, 1, 2, 3, 4, 5, 255, 0x0202, 0xff02] {
        let bytes = frame_with(NETWORK, compression, &plain);
        let again = expect_answered(&proxy, &format!("{compression:#x}"), &bytes);
        assert_eq!(again, public);
    }
}

#[test]
fn an_origin_address_comes_back() {
    let proxy = Proxy::new(1);
    let mut node = proxy.node(1);
    let request = node.message(opcode::PROXY_REQUEST);
    node.send(request.message(&field(1, b"tcp://10.1.2.3:4")).frame());
    let got = Message::of_frame(&node.next_frame().unwrap());
    assert_eq!(got.opcode, opcode::PROXY_RESPONSE);
    let origin = field(1, b"tcp://10.1.2.3:4");
    assert!(got.message.starts_with(&origin), "{got:?}");
    // A long one is no reason to send much.
    let long = node
        .message(opcode::PROXY_REQUEST)
        .message(&field(1, &[b'x'; 100_000]));
    node.send(long.frame());
    let got = node.next_frame().unwrap();
    assert!(got.len() < 10_000, "{} bytes", got.len());
}

#[test]
fn control_messages_of_a_visitor_are_passed_on_and_not_answered() {
    let proxy = Proxy::new(4);
    let mut visited = proxy.visited(1);
    let (mut other, other_public) = proxy.registered(2);
    for sender in [Sender::number(1), Sender::number(2), Sender::number(3)] {
        for code in [opcode::PROXY_REQUEST, opcode::KEEPALIVE, opcode::DISCONNECT] {
            let bytes = Message::new(code, &sender).frame();
            visited.visitor.send(&bytes);
            visited.node.expect(&bytes);
        }
    }
    visited.node.expect_quiet();
    other.expect_quiet();
    assert_eq!(other.request(), other_public);
    visited.visitor.finish().expect_end();
}

#[test]
fn answers_come_between_the_visitors_frames() {
    let proxy = Proxy::new(1);
    let Visited {
        mut node, public, ..
    } = proxy.visited(1);
    let body = [b'v'; 3000];
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let mut peer = Peer::connect(public);
            let bytes = frame(&body).repeat(200);
            std::thread::spawn(move || {
                peer.send(bytes);
            })
        })
        .collect();
    let mut writer = node.peer().twin();
    let keepalive = node.message(opcode::KEEPALIVE).frame();
    let asking = std::thread::spawn(move || {
        writer.send(keepalive.repeat(500));
    });
    let (mut frames, mut answers) = (0, 0);
    while frames < 800 || answers < 500 {
        let got = node.next_frame().unwrap();
        match got.len() {
            3010 => frames += 1,
            _ => {
                answers += 1;
                // The first message was the answer to the request.
                let expected = message::keepalive_response(proxy.address, answers + 1);
                assert_eq!(got, expected);
            }
        }
    }
    for thread in visitors.into_iter().chain([asking]) {
        thread.join().unwrap();
    }
}
