//! One promise of the node role after the other, with the clock played by the test.

use std::net::SocketAddr;
use std::time::Duration;

use ring::signature::{Ed25519KeyPair, KeyPair};
use towpath::protocols::node::Config;
use towpath::protocols::node::wire::{
    NETWORK_ID, append_datagram, append_frame, control_message, decode_datagram, opcode,
    signed_digest,
};

use super::super::house::{HANDSHAKE, House, Shape};
use super::{KEEPALIVE, LEASE, MARK, frame, house, local, message, received, unframed};

/// Nobody yet.
fn quiet(change: impl FnOnce(&mut Config)) -> House {
    let house = house(1, Shape::default(), change);
    house.world.borrow_mut().send_room = 1 << 20;
    house
}

/// A main connection that has sent this.
fn connect(house: &mut House, bytes: &[u8]) -> usize {
    let socket = house.world.borrow_mut().connect();
    send(house, socket, bytes);
    socket
}

fn send(house: &mut House, socket: usize, bytes: &[u8]) {
    house.world.borrow_mut().send(socket, bytes);
    house.settle();
}

/// A main connection of a node that has its address, and that.
fn register(house: &mut House, node: usize) -> (usize, u16) {
    let main = connect(house, &message(node, opcode::PROXY_REQUEST));
    let port = received(&house.world.borrow().sockets[main].received).port;
    (main, port.expect("no address"))
}

fn visit(house: &mut House, port: u16, bytes: &[u8]) -> usize {
    let visitor = house.world.borrow_mut().visit(local(port)).unwrap();
    send(house, visitor, bytes);
    visitor
}

fn is_closed(house: &House, socket: usize) -> bool {
    let world = house.world.borrow();
    world.sockets[socket].closed || world.sockets[socket].shut
}

fn wait(house: &mut House, time: Duration) {
    let until = house.now + time;
    house.wait(until);
    house.settle();
}

const MOMENT: Duration = Duration::from_millis(500);

#[test]
fn a_frame_that_does_not_come_to_its_end_ends_who_sent_it() {
    let mut house = quiet(|_| {});
    let (main, port) = register(&mut house, 0);
    let part = &frame(&[MARK; 50])[..30];
    let (slow, idle) = (visit(&mut house, port, part), visit(&mut house, port, b""));
    let slow_main = connect(&mut house, &message(2, opcode::PING)[..20]);
    // A long one has more time, as it needs more.
    let long = visit(&mut house, port, &frame(&[MARK; 290_000])[..200_000]);
    wait(&mut house, HANDSHAKE - MOMENT);
    assert!(!is_closed(&house, slow) && !is_closed(&house, slow_main));
    wait(&mut house, MOMENT * 2);
    assert!(is_closed(&house, slow) && is_closed(&house, slow_main));
    assert!(!is_closed(&house, long));
    wait(&mut house, Duration::from_secs(3));
    assert!(is_closed(&house, long));
    assert!(!is_closed(&house, main) && !is_closed(&house, idle));
    send(&mut house, idle, &frame(&[MARK; 50]));
    let got = received(&house.world.borrow().sockets[main].received);
    assert_eq!(got.passed, [vec![MARK; 50]]);
}

#[test]
fn a_registration_lasts_as_long_as_its_keepalives() {
    let mut house = quiet(|_| {});
    let (main, port) = register(&mut house, 0);
    let visitor = visit(&mut house, port, b"");
    for _ in 0..3 {
        wait(&mut house, KEEPALIVE - MOMENT);
        // What visitors send does not count, nor what the node says besides.
        send(&mut house, visitor, &frame(&[MARK]));
        send(&mut house, main, &message(0, opcode::PING));
        send(&mut house, main, &message(0, opcode::KEEPALIVE));
    }
    wait(&mut house, KEEPALIVE - MOMENT);
    send(&mut house, main, &message(0, opcode::BYTES));
    // Nor what others send in its name, though that is answered.
    let other = connect(&mut house, &message(0, opcode::KEEPALIVE));
    let answers = received(&house.world.borrow().sockets[other].received);
    assert_eq!(answers.keepalives, 1);
    assert!(!is_closed(&house, main) && !is_closed(&house, visitor));
    wait(&mut house, MOMENT * 2);
    assert!(is_closed(&house, main) && is_closed(&house, visitor));
    assert!(house.world.borrow_mut().visit(local(port)).is_none());
    send(&mut house, other, &message(0, opcode::KEEPALIVE));
    let answers = received(&house.world.borrow().sockets[other].received);
    assert_eq!(answers.keepalives, 1, "nobody is registered");
    // It comes back to its address, also long after.
    wait(&mut house, LEASE - MOMENT);
    assert_eq!(register(&mut house, 0).1, port);
}

#[test]
fn silent_connections_stay_for_a_while_and_the_oldest_makes_room() {
    let mut house = quiet(|config| config.max_unregistered = 3);
    let silent: Vec<usize> = (0..3).map(|_| connect(&mut house, b"")).collect();
    // Those who have an address are not among them.
    let (main, _) = register(&mut house, 0);
    assert!(is_closed(&house, silent[0]));
    connect(&mut house, b"");
    assert!(!is_closed(&house, silent[1]), "there was room");
    connect(&mut house, b"");
    assert!(is_closed(&house, silent[1]));
    wait(&mut house, KEEPALIVE - MOMENT);
    send(&mut house, main, &message(0, opcode::KEEPALIVE));
    assert!(!is_closed(&house, silent[2]));
    wait(&mut house, MOMENT * 2);
    assert!(is_closed(&house, silent[2]) && !is_closed(&house, main));
}

#[test]
fn where_keys_are_listed_only_their_signatures_are_served() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
    let mut house = quiet(|config| config.allow_keys = vec![key]);
    let signed = |seed: u8, opcode: u32, forged: bool| {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let mut message = unframed(0, opcode);
        let sender = message.sender.as_mut().unwrap();
        sender.net_key = Some(pair.public_key().as_ref().to_vec());
        let digest = signed_digest(&sender.address, &sender.id, &message.message);
        message.signature = pair.sign(&digest).as_ref().to_vec();
        message.signature[7] ^= u8::from(forged);
        let mut out = Vec::new();
        append_frame(&mut out, NETWORK_ID, &message);
        out
    };
    for refused in [
        message(0, opcode::PROXY_REQUEST),
        signed(6, opcode::PROXY_REQUEST, false),
        signed(5, opcode::PROXY_REQUEST, true),
        message(0, opcode::KEEPALIVE),
    ] {
        let main = connect(&mut house, &refused);
        assert!(is_closed(&house, main));
        assert_eq!(house.world.borrow().sockets[main].emitted(), 0);
    }
    let main = connect(&mut house, &signed(5, opcode::PROXY_REQUEST, false));
    send(&mut house, main, &signed(5, opcode::KEEPALIVE, false));
    let got = received(&house.world.borrow().sockets[main].received);
    assert_eq!((got.answers, got.keepalives), (1, 1));
}

#[test]
fn without_a_port_a_request_is_closed_unanswered_and_a_lease_that_ends_frees_one() {
    let mut house = quiet(|config| config.ports = 20_000..=20_001);
    let (first, port) = register(&mut house, 0);
    register(&mut house, 2);
    let refused = connect(&mut house, &message(4, opcode::PROXY_REQUEST));
    assert!(is_closed(&house, refused));
    assert_eq!(house.world.borrow().sockets[refused].emitted(), 0);
    house.world.borrow_mut().end(first);
    house.settle();
    wait(&mut house, LEASE - MOMENT);
    let refused = connect(&mut house, &message(4, opcode::PROXY_REQUEST));
    assert!(is_closed(&house, refused), "it is remembered");
    wait(&mut house, MOMENT * 2);
    assert_eq!(register(&mut house, 4).1, port);
}

#[test]
fn an_older_connection_keeps_its_visitors_and_its_end_changes_nothing() {
    let mut house = quiet(|_| {});
    let (old, port) = register(&mut house, 0);
    let before = visit(&mut house, port, &frame(&[MARK, 1]));
    let (new, again) = register(&mut house, 0);
    assert_eq!(again, port);
    let after = visit(&mut house, port, &frame(&[MARK, 2]));
    send(&mut house, before, &frame(&[MARK, 3]));
    let passed = |house: &House, main: usize| -> Vec<u8> {
        let got = received(&house.world.borrow().sockets[main].received);
        got.passed.iter().map(|body| body[1]).collect()
    };
    assert_eq!(passed(&house, old), [1, 3]);
    assert_eq!(passed(&house, new), [2]);
    house.world.borrow_mut().end(old);
    house.settle();
    assert!(is_closed(&house, before) && !is_closed(&house, after));
    let late = visit(&mut house, port, &frame(&[MARK, 4]));
    assert_eq!(passed(&house, new), [2, 4]);
    assert!(!is_closed(&house, late));
}

#[test]
fn a_stopping_server_lets_nodes_with_visitors_go_on() {
    let mut house = quiet(|_| {});
    let (idle, _) = register(&mut house, 0);
    let (busy, port) = register(&mut house, 2);
    let visitor = visit(&mut house, port, b"");
    house.phase.drain();
    house.settle();
    assert!(is_closed(&house, idle) && !is_closed(&house, busy));
    send(&mut house, visitor, &frame(&[MARK, 1]));
    send(&mut house, busy, &message(2, opcode::KEEPALIVE));
    let got = received(&house.world.borrow().sockets[busy].received);
    assert_eq!((got.passed.len(), got.keepalives), (1, 1));
    house.world.borrow_mut().end(visitor);
    house.settle();
    assert!(is_closed(&house, busy));
    wait(&mut house, Duration::from_secs(3));
    assert!(house.worker.is_done());
}

/// A datagram of a node.
fn packet(node: usize, opcode: u32) -> Vec<u8> {
    let mut out = Vec::new();
    // As long as nodes in use make them.
    let mut message = unframed(node, opcode);
    message.message_id = vec![7; 64];
    append_datagram(&mut out, &message).unwrap();
    out
}

/// Sends from `peer`, and tells what came back to whom.
fn throw(
    house: &mut House,
    peer: SocketAddr,
    to: SocketAddr,
    bytes: &[u8],
) -> Vec<(SocketAddr, Vec<u8>)> {
    let before = sent(house).len();
    house.world.borrow_mut().throw(peer, to, bytes);
    house.world.borrow_mut().land(1);
    house.settle();
    sent(house).split_off(before)
}

/// All that has left by the main port.
fn sent(house: &House) -> Vec<(SocketAddr, Vec<u8>)> {
    let world = house.world.borrow();
    let sent = world.air.ports[0].sent.iter();
    sent.map(|datagram| (datagram.peer, datagram.payload.clone()))
        .collect()
}

#[test]
fn datagrams_of_visitors_go_where_their_node_asked_from_last() {
    let mut house = quiet(|_| {});
    house.listen_datagrams().unwrap();
    house.settle();
    let main: SocketAddr = "10.0.0.1:7200".parse().unwrap();
    let [home, away, stranger]: [SocketAddr; 3] =
        ["10.3.0.1:1", "10.3.0.2:2", "10.3.0.3:3"].map(|text| text.parse().unwrap());
    let port_of = |(_, answer): &(SocketAddr, Vec<u8>)| {
        let said = control_message(decode_datagram(answer).unwrap(), None).unwrap();
        assert_eq!(said.opcode, opcode::PROXY_RESPONSE);
        let text = String::from_utf8(said.message[2..].to_vec()).unwrap();
        text.strip_prefix("192.0.2.1:")
            .unwrap()
            .parse::<u16>()
            .unwrap()
    };
    for node in [0, 1] {
        let request = packet(node, opcode::PROXY_REQUEST);
        let answer = throw(&mut house, home, main, &request);
        assert_eq!((answer.len(), answer[0].0), (1, home));
        assert_eq!(
            throw(&mut house, home, main, &request),
            answer,
            "asked again"
        );
        let public = SocketAddr::new([10, 0, 0, 1].into(), port_of(&answer[0]));
        let passed = throw(&mut house, stranger, public, b"anything");
        assert_eq!(passed, [(home, b"anything".to_vec())]);
        // A stranger neither keeps it alive nor ends it.
        for opcode in [opcode::KEEPALIVE, opcode::DISCONNECT] {
            let strange = throw(&mut house, stranger, main, &packet(0, opcode));
            assert_eq!(strange, []);
        }
        if node == 0 {
            let moved = throw(&mut house, away, main, &request);
            assert_eq!(port_of(&moved[0]), port_of(&answer[0]));
            let passed = throw(&mut house, stranger, public, b"");
            assert_eq!(passed, [(away, Vec::new())]);
            throw(&mut house, away, main, &packet(0, opcode::DISCONNECT));
            assert_eq!(throw(&mut house, stranger, public, b"late"), []);
            continue;
        }
        wait(&mut house, KEEPALIVE - MOMENT);
        let alive = throw(&mut house, home, main, &packet(1, opcode::KEEPALIVE));
        assert_eq!(alive.len(), 1);
        wait(&mut house, KEEPALIVE - MOMENT);
        assert_eq!(throw(&mut house, stranger, public, b"in time").len(), 1);
        wait(&mut house, KEEPALIVE / 8);
        assert_eq!(throw(&mut house, stranger, public, b"late"), []);
        assert_eq!(
            throw(&mut house, home, main, &request),
            answer,
            "remembered"
        );
    }
    for wrong in [
        &b""[..],
        b"\0",
        b"\xff\xff",
        &packet(0, opcode::KEEPALIVE)[..60],
    ] {
        assert_eq!(throw(&mut house, home, main, wrong), []);
    }
}
