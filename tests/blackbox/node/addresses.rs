//! Which address a node gets: its own again over reconnects and restarts, and never another's.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::folder::Folder;
use crate::support::node::Node;
use crate::support::node::message::{Sender, opcode};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::peer::Peer;
use crate::support::until;

#[test]
fn repeated_requests_get_the_same_address_and_disturb_no_visitor() {
    let proxy = Proxy::new(4);
    let mut visited = proxy.visited(1);
    for round in 0..5 {
        assert_eq!(visited.node.request(), visited.public);
        visited.expect_passing(&[round]);
        let mut another = Peer::connect(visited.public);
        another.send(crate::support::node::message::frame(b"new"));
        visited
            .node
            .expect(&crate::support::node::message::frame(b"new"));
    }
    visited.node.expect_quiet();
}

#[test]
fn every_node_gets_an_address_of_its_own() {
    let proxy = Proxy::new(64);
    let nodes: Vec<(Node, SocketAddr)> = (0..64).map(|number| proxy.registered(number)).collect();
    let addresses: HashSet<SocketAddr> = nodes.iter().map(|(_, public)| *public).collect();
    assert_eq!(addresses.len(), 64);
}

#[test]
fn a_reconnect_within_the_lease_gets_the_same_address() {
    let proxy = Proxy::new(8);
    let mut nodes: Vec<_> = (0..6)
        .map(|number| Some(proxy.registered(number)))
        .collect();
    for round in 0..4 {
        for number in [3, 0, 5, 1, 4, 2] {
            let (node, public) = nodes[number].take().unwrap();
            match round % 3 {
                0 => node.leave(),
                1 => node.reset(),
                // It comes back before the server can have seen that it went.
                _ => drop(node),
            }
            let again = proxy.registered(u32::try_from(number).unwrap());
            assert_eq!(again.1, public, "node {number}");
            nodes[number] = Some(again);
        }
    }
    // And nobody got one that was free for a moment.
    let addresses: HashSet<_> = nodes.iter().flatten().map(|(_, public)| *public).collect();
    assert_eq!(addresses.len(), 6);
}

#[test]
fn the_address_hangs_on_the_connection_id_alone() {
    let proxy = Proxy::new(4);
    let (node, public) = proxy.registered(1);
    node.leave();
    let mut sender = Sender::number(2);
    sender.connection_id = Sender::number(1).connection_id;
    assert_eq!(proxy.node_of(sender).request(), public);
    let mut sender = Sender::number(1);
    sender.connection_id = b"another".into();
    assert_ne!(proxy.node_of(sender).request(), public);
}

/// Fails unless a visitor reaches each of these.
fn expect_reached(nodes: &mut [(Node, SocketAddr)]) {
    for (node, public) in nodes {
        let bytes = crate::support::node::message::frame(public.to_string().as_bytes());
        Peer::connect(*public).send(&bytes);
        node.expect(&bytes);
    }
}

#[test]
fn every_node_has_its_address_after_restarts_of_the_server() {
    let folder = Arc::new(Folder::new());
    let plan = Plan::fixed(16).folder(&folder);
    let mut proxy = plan.start();
    let mut nodes: Vec<_> = (0..12).map(|number| proxy.registered(number)).collect();
    let mut addresses: Vec<SocketAddr> = nodes.iter().map(|(_, public)| *public).collect();
    for round in 0..6 {
        expect_reached(&mut nodes);
        // Some are there when it ends, some have left before.
        nodes.drain(..6).for_each(|(node, _)| node.leave());
        match round % 2 {
            0 => proxy.server.kill(),
            _ => proxy.server.stop(),
        }
        for (mut node, _) in nodes.drain(..) {
            node.skip_to_end();
        }
        // At once, at the same main address, with the last connections still in TIME_WAIT.
        proxy = plan.start();
        // One who is new gets none of theirs, though it comes first.
        let (new, public) = proxy.registered(100 + round % 2);
        assert!(!addresses.contains(&public), "{public}");
        new.leave();
        let mut numbers: Vec<u32> = (0..12).collect();
        if round % 3 == 0 {
            numbers.reverse();
        }
        nodes = numbers
            .iter()
            .map(|&number| proxy.registered(number))
            .collect();
        let mut again: Vec<SocketAddr> = nodes.iter().map(|(_, public)| *public).collect();
        if round % 3 == 0 {
            again.reverse();
        }
        assert_eq!(again, addresses, "round {round}");
        addresses = again;
    }
}

#[test]
fn a_kill_right_behind_the_answer_forgets_nothing() {
    let folder = Arc::new(Folder::new());
    let plan = Plan::new(16).folder(&folder);
    let mut known: Vec<SocketAddr> = Vec::new();
    for number in 0..6 {
        let proxy = plan.start();
        let (node, public) = proxy.registered(number);
        assert!(!known.contains(&public), "{public} for two nodes");
        known.push(public);
        proxy.server.kill();
        drop(node);
    }
    let proxy = plan.start();
    for (number, public) in (0..6).zip(known) {
        assert_eq!(proxy.registered(number).1, public);
    }
}

#[test]
fn nodes_without_a_connection_id_do_not_share() {
    let proxy = Proxy::new(8);
    let of = |key: u32, address: &str| {
        let mut sender = Sender::number(key).without_connection_id();
        sender.address = address.into();
        sender
    };
    let senders = [
        of(1, "tcp://10.0.0.1:1"),
        of(2, "tcp://10.0.0.1:1"),
        of(1, "tcp://10.0.0.1:2"),
        Sender::number(1),
    ];
    let mut nodes = Vec::new();
    for sender in &senders {
        let mut node = proxy.node_of(sender.clone());
        let public = node.request();
        // Its address is now the one that it was given, as carrier does it.
        assert_eq!(node.expect_keepalive().request(), public);
        nodes.push((node, public));
    }
    let addresses: HashSet<_> = nodes.iter().map(|(_, public)| *public).collect();
    assert_eq!(addresses.len(), senders.len());
    expect_reached(&mut nodes);
    nodes.into_iter().for_each(|(node, _)| node.leave());
    let again: HashSet<_> = senders
        .iter()
        .map(|sender| proxy.node_of(sender.clone()).request())
        .collect();
    assert_eq!(again, addresses);
}

#[test]
fn a_connection_has_one_identity() {
    let proxy = Proxy::new(4);
    let mut visited = proxy.visited(1);
    let (mut other, other_public) = proxy.registered(2);
    // It cannot have the other's address, and has no longer its own.
    visited.node.sender = Sender::number(2);
    visited.node.expect_refused();
    visited.visitor.expect_closed();
    other.expect_quiet();
    assert_eq!(other.request(), other_public);
    assert_eq!(proxy.registered(1).1, visited.public);
}

#[test]
fn a_request_is_answered_wherever_its_connection_ends_then() {
    let proxy = Proxy::new(2);
    for _ in 0..50 {
        // Asks and leaves at once: nothing of it stays but the lease.
        let mut node = proxy.node(1);
        node.say(opcode::PROXY_REQUEST);
        node.leave();
    }
    for _ in 0..50 {
        let mut node = proxy.node(1);
        node.say(opcode::PROXY_REQUEST);
        node.reset();
    }
    // Those that were reset may still be read behind this one, and be the newest then.
    let mut public = None;
    until("it is served", || {
        let mut node = proxy.node(1);
        node.say(opcode::PROXY_REQUEST);
        public = node.try_answer();
        node.leave();
        public.is_some()
    });
    proxy.server.expect_open(0);
    assert_eq!(Some(proxy.registered(1).1), public);
}
