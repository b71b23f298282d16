//! Nodes that speak by datagrams: registration, the same address everywhere, relaying as it is.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use crate::support::folder::Folder;
use crate::support::node::datagram::{UdpNode, packet, sender, socket};
use crate::support::node::message::{Message, Sender, frame, key, number, opcode};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::until;

fn node(proxy: &Proxy, number: u32) -> UdpNode {
    UdpNode::new(proxy.address, sender(number))
}

/// The node of this number with its address.
fn registered(proxy: &Proxy, number: u32) -> (UdpNode, SocketAddr) {
    let mut node = node(proxy, number);
    let public = node.request();
    assert!(proxy.ports.contains(&public.port()), "{public}");
    (node, public)
}

fn expect_reached(node: &UdpNode, public: SocketAddr, bytes: &[u8]) {
    socket().send_to(bytes, public).unwrap();
    node.expect(bytes);
}

#[test]
fn every_request_gets_the_same_address() {
    for workers in [1, 2, 4] {
        let proxy = Plan::new(8).workers(workers).start();
        let (mut node, public) = registered(&proxy, 1);
        for round in 0..10 {
            assert_eq!(node.request(), public);
            node.expect_keepalive();
            expect_reached(&node, public, &[round; 100]);
        }
        // From new sources, on whatever worker they land.
        for round in 0..20 {
            let (mut newer, again) = registered(&proxy, 1);
            assert_eq!(again, public);
            newer.expect_keepalive();
            expect_reached(&newer, public, &[round; 50]);
            node.expect_nothing_yet();
            node = newer;
        }
        let (_, other) = registered(&proxy, 2);
        assert_ne!(other, public);
    }
}

#[test]
fn any_datagram_is_passed_on_as_it_is() {
    let proxy = Proxy::new(4);
    let (mut one, one_public) = registered(&proxy, 1);
    let (mut two, _) = registered(&proxy, 2);
    let peer = socket();
    let mut bodies: Vec<Vec<u8>> = [1, 2, 3, 8, 500, 1400, 9000, 65_000, 65_507]
        .iter()
        .map(|&length| vec![length.to_string().as_bytes()[0]; length])
        .collect();
    bodies.push(b"raw junk".into());
    // What would be an order on the main port is none here.
    for code in [opcode::PROXY_REQUEST, opcode::KEEPALIVE, opcode::DISCONNECT] {
        bodies.push(packet(&Message::new(code, &sender(1)).encode()));
    }
    for body in &bodies {
        peer.send_to(body, one_public).unwrap();
        one.expect(body);
    }
    one.expect_keepalive();
    two.expect_keepalive();
    // The peer hears nothing.
    peer.set_nonblocking(true).unwrap();
    assert!(peer.recv_from(&mut [0; 10]).is_err());
}

#[test]
fn a_datagram_of_nothing_hurts_nobody() {
    let proxy = Proxy::new(2);
    let (mut one, public) = registered(&proxy, 1);
    one.send(b"").expect_nothing_yet();
    one.expect_keepalive();
    let peer = socket();
    peer.send_to(b"", public).unwrap();
    peer.send_to(b"behind it", public).unwrap();
    let mut got = one.receive();
    if got.is_empty() {
        got = one.receive();
    }
    assert_eq!(got, b"behind it");
}

#[test]
fn frames_of_many_peers_keep_their_order() {
    let proxy = Plan::new(2).workers(2).start();
    let (node, public) = registered(&proxy, 1);
    let peers: Vec<UdpSocket> = (0..8).map(|_| socket()).collect();
    let mut next = [0_u8; 8];
    // As many at a time as a socket surely holds.
    for round in 0..200_u8 {
        for (at, peer) in (0_u8..).zip(&peers) {
            peer.send_to(&[&[at, round][..], &[round; 300]].concat(), public)
                .unwrap();
        }
        for _ in &peers {
            let got = node.receive();
            let expected = &mut next[usize::from(got[0])];
            assert_eq!(got[1], *expected);
            assert_eq!(got[2..], [got[1]; 300]);
            *expected += 1;
        }
    }
}

#[test]
fn a_node_that_is_not_translated_needs_no_port() {
    let proxy = Proxy::new(1);
    for number in 1..5 {
        let mut open = node(&proxy, number);
        let own = open.socket.local_addr().unwrap();
        open.sender.address = format!("udp://{own}").into_bytes();
        assert_eq!(open.request(), own);
    }
    registered(&proxy, 9);
}

#[test]
fn the_network_is_not_checked() {
    let proxy = Proxy::new(1);
    let mut node = node(&proxy, 1);
    for network in [0, 1, u32::MAX] {
        let mut request = node.message(opcode::PROXY_REQUEST);
        request.network = network;
        node.send(&packet(&request.encode()));
        assert!(proxy.ports.contains(&node.answer().port()));
    }
}

#[test]
fn disconnect_closes_the_port_and_keeps_the_lease() {
    let proxy = Proxy::new(4);
    let (mut node, public) = registered(&proxy, 1);
    // Nobody else can do that.
    let stranger = socket();
    let message = Message::new(opcode::DISCONNECT, &sender(1)).encode();
    stranger.send_to(&packet(&message), proxy.address).unwrap();
    expect_reached(&node, public, b"still here");
    node.say(opcode::DISCONNECT);
    until("the port is closed", || UdpSocket::bind(public).is_ok());
    node.say(opcode::KEEPALIVE);
    assert_eq!(node.request(), public);
    expect_reached(&node, public, b"here again");
}

#[test]
fn silence_closes_the_port_and_keeps_the_lease() {
    let proxy = Plan::new(4).text("keepalive_timeout", "3s").start();
    let (mut node, public) = registered(&proxy, 1);
    until("the port is closed", || UdpSocket::bind(public).is_ok());
    assert_eq!(node.request(), public);
    expect_reached(&node, public, b"here again");
}

#[test]
fn every_node_has_its_address_after_a_restart() {
    let folder = Arc::new(Folder::new());
    let plan = Plan::fixed(8).folder(&folder);
    let mut proxy = plan.start();
    let mut nodes: Vec<_> = (0..6).map(|number| registered(&proxy, number)).collect();
    // Leases over TCP are others.
    let (tcp, tcp_public) = proxy.registered(1);
    drop(tcp);
    for round in 0..4 {
        match round % 2 {
            0 => proxy.server.kill(),
            _ => proxy.server.stop(),
        }
        proxy = plan.start();
        for (node, public) in &mut nodes {
            assert_eq!(node.request(), *public, "round {round}");
            expect_reached(node, *public, b"here");
        }
        assert_eq!(proxy.registered(1).1, tcp_public);
    }
    let publics: HashSet<_> = nodes.iter().map(|(_, public)| *public).collect();
    assert_eq!(publics.len(), 6);
}

#[test]
fn a_full_range_is_not_left() {
    let plan = Plan::new(3);
    let foreign = UdpSocket::bind(("127.0.0.1", *plan.ports().start())).unwrap();
    let proxy = plan.start();
    let mut nodes: Vec<_> = (0..2).map(|number| registered(&proxy, number)).collect();
    let late = {
        let mut late = node(&proxy, 5);
        for _ in 0..20 {
            late.say(opcode::PROXY_REQUEST);
        }
        late
    };
    for (node, public) in &mut nodes {
        assert_eq!(node.expect_keepalive().request(), *public);
    }
    late.expect_nothing_yet();
    drop(foreign);
}

#[test]
fn what_is_no_message_is_dropped() {
    let proxy = Plan::new(4).workers(1).start();
    let (mut node, public) = registered(&proxy, 1);
    let mut tcp = proxy.visited(1);
    let request = Message::new(opcode::PROXY_REQUEST, &sender(2));
    let body = request.encode();
    let no_sender = [number(7, 15), number(8, 1)].concat();
    let mut cases = vec![
        vec![0],
        vec![0, 0],
        vec![0xff, 0xff],
        [&[0xff, 0xff][..], &body].concat(),
        [&[0, 0][..], &body].concat(),
        packet(&no_sender),
        packet(&[0xff; 40]),
        frame(&body),
        body.clone(),
        vec![0xff; 65_507],
        packet(&[&body[..], &[0x38], &[0xff; 10]].concat()),
        packet(&[&body[..], &[0x0a], &[0x80; 9], &[1]].concat()),
        packet(&[&body[..], &[0, 1]].concat()),
        packet(&[&body[..], &[0xa3, 0x06].repeat(20_000)[..]].concat()),
        packet(&Message::new(0, &sender(2)).encode()),
    ];
    let mut nameless = request.clone();
    nameless.sender.address.clear();
    cases.push(packet(&nameless.encode()));
    // A length that says less or more than there is; a message that is cut in its sender.
    for length in [1, body.len() / 2, body.len() + 1] {
        let length = u16::try_from(length).unwrap().to_be_bytes();
        cases.push([&length[..], &body].concat());
    }
    for end in 1..140 {
        cases.push(packet(&body[..end.min(body.len() - 10)]));
    }
    let hostile = UdpNode::new(proxy.address, sender(2));
    for case in &cases {
        hostile.send(case);
        socket().send_to(case, public).unwrap();
        node.expect(case);
    }
    node.expect_keepalive();
    tcp.expect_passing(b"undisturbed");
    tcp.node.expect_keepalive();
    hostile.expect_nothing_yet();
}

#[test]
fn an_answer_is_no_longer_than_its_question() {
    let proxy = Plan::new(4).workers(1).start();
    let mut tiny = node(&proxy, 1);
    tiny.sender = Sender {
        net_key: b"k".into(),
        address: b"a".into(),
        ..Sender::default()
    };
    let request = packet(&tiny.message(opcode::PROXY_REQUEST).encode());
    for _ in 0..5 {
        tiny.send(&request);
    }
    let (mut other, _) = registered(&proxy, 2);
    other.expect_keepalive();
    tiny.socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2000];
    while let Ok((length, _)) = tiny.socket.recv_from(&mut buffer) {
        assert!(length <= request.len(), "{length} for {}", request.len());
    }
}

#[test]
fn listed_keys_hold_for_datagrams_too() {
    let hex: String = sender(1)
        .net_key
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let proxy = Plan::new(4)
        .workers(1)
        .key("allow_keys", &format!("[{hex:?}]"))
        .start();
    let signed = |code, by, of: &mut UdpNode| packet(&of.message(code).signed(&key(by)).encode());
    let mut stranger = node(&proxy, 2);
    let request = signed(opcode::PROXY_REQUEST, 2, &mut stranger);
    stranger.send(&request);
    let mut listed = node(&proxy, 1);
    listed.say(opcode::PROXY_REQUEST);
    let forged = signed(opcode::PROXY_REQUEST, 2, &mut listed);
    let request = signed(opcode::PROXY_REQUEST, 1, &mut listed);
    listed.send(&forged).send(&request);
    let public = listed.answer();
    let keepalive = signed(opcode::KEEPALIVE, 1, &mut listed);
    listed.send(&keepalive);
    listed.expect(&crate::support::node::datagram::keepalive_response(
        proxy.address,
    ));
    expect_reached(&listed, public, b"in");
    stranger.expect_nothing_yet();
}

/// What the recording has of one socket, byte for byte but for the addresses of now.
#[test]
fn the_recorded_datagrams_go_as_recorded_or_better() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/vectors/node/udp.json");
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let sent = |connection: usize, event: usize| {
        let hex = json["connections"][connection]["events"][event]["hex"].as_str();
        unhex(hex.unwrap())
    };
    let proxy = Proxy::new(4);
    let mut main = UdpNode::new(proxy.address, Sender::default());
    main.send(&sent(0, 0));
    let public = main.answer();
    // Row 6: the same address, where the recorded server is silent.
    main.send(&sent(0, 2));
    assert_eq!(main.answer(), public);
    main.send(&sent(0, 4));
    main.expect(&crate::support::node::datagram::keepalive_response(
        proxy.address,
    ));
    let peer = socket();
    for event in 0..2 {
        peer.send_to(&sent(1, event), public).unwrap();
        main.expect(&sent(1, event));
    }
    // Row 6: the same address, where the recorded server answers with none.
    let mut newer = UdpNode::new(proxy.address, Sender::default());
    newer.send(&sent(2, 0));
    assert_eq!(newer.answer(), public);
    let mut other = UdpNode::new(proxy.address, Sender::default());
    other.send(&sent(4, 0));
    let other_public = other.answer();
    assert_ne!(other_public, public);
    other.send(&sent(4, 2)).send(&sent(4, 3));
    assert_eq!(other.answer(), other_public);
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}
