//! Keepalives, silence, and who is closed for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::kernel;
use crate::support::node::Node;
use crate::support::node::bystander::Bystander;
use crate::support::node::message::{Message, NETWORK, Sender, frame, head, opcode};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::peer::Peer;
use crate::support::window::paced;

#[test]
fn a_node_without_keepalives_is_gone_and_its_lease_is_not() {
    let proxy = Plan::new(2).text("keepalive_timeout", "3s").start();
    // Before the last that is heard of it, or a pause of this test would count as the server's haste.
    let start = Instant::now();
    let mut visited = proxy.visited(1);
    visited.node.expect_closed();
    assert!(start.elapsed() >= Duration::from_secs(2), "closed at once");
    visited.visitor.expect_closed();
    assert!(std::net::TcpStream::connect(visited.public).is_err());
    assert_eq!(proxy.registered(1).1, visited.public);
}

#[test]
fn a_node_that_keeps_alive_stays() {
    let proxy = Plan::new(3).text("keepalive_timeout", "4s").start();
    let mut by_keepalive = proxy.visited(1);
    let mut by_request = proxy.visited(2);
    let mut rounds = 0..20;
    paced(Duration::from_millis(400), || {
        by_keepalive.node.expect_keepalive();
        assert_eq!(by_request.node.request(), by_request.public);
        rounds.next().is_some()
    });
    by_keepalive.expect_passing(b"still here");
    by_request.expect_passing(b"still here");
}

#[test]
fn relayed_frames_are_no_keepalives() {
    let proxy = Plan::new(2).text("keepalive_timeout", "3s").start();
    let start = Instant::now();
    let mut visited = proxy.visited(1);
    let mut writer = visited.visitor.twin();
    let mut busy = visited.node.peer().twin();
    let other = visited.node.message(1000).frame();
    let talking = std::thread::spawn(move || {
        paced(Duration::from_millis(100), || {
            // Nor is anything else that the node says.
            writer.try_send(&frame(b"tick")) && busy.try_send(&other)
        });
    });
    while visited.node.next_frame().is_some() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it goes on for ever"
        );
    }
    talking.join().unwrap();
    assert!(start.elapsed() >= Duration::from_secs(2), "closed at once");
}

#[test]
fn somebody_elses_keepalives_keep_nobody_registered() {
    // Whoever overhears a connection_id could keep a dead node's port from ever being free.
    let proxy = Plan::new(2).text("keepalive_timeout", "3s").start();
    let mut visited = proxy.visited(1);
    let start = Instant::now();
    let (address, mut sender) = (proxy.address, Sender::number(2));
    sender.connection_id = visited.node.sender.connection_id.clone();
    let stopping = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopping);
    let talking = std::thread::spawn(move || {
        let mut other = Node::connect(address, sender.clone());
        paced(Duration::from_millis(200), || {
            let keepalive = other.message(opcode::KEEPALIVE).frame();
            if !other.peer().try_send(&keepalive) {
                // Its own time is over: it begins anew.
                other = Node::connect(address, sender.clone());
            }
            !stop.load(Ordering::SeqCst) && start.elapsed() < Duration::from_secs(20)
        });
    });
    visited.node.expect_closed();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "after {took:?}");
    stopping.store(true, Ordering::SeqCst);
    talking.join().unwrap();
}

#[test]
fn a_silent_connection_is_not_closed_early() {
    let plan = Plan::new(1).text("keepalive_timeout", "4s");
    let proxy = plan.limit("handshake_timeout = \"500ms\"").start();
    let start = Instant::now();
    let mut silent = proxy.connect();
    silent.expect_closed();
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(2), "closed after {took:?}");
}

#[test]
fn silent_connections_keep_no_node_out() {
    kernel::raise_own_descriptor_limit();
    let plan = Plan::new(4).workers(1).key("max_unregistered", "50");
    let proxy = plan.start();
    let mut visited = proxy.visited(1);
    let mut silent: Vec<Peer> = (0..300).map(|_| proxy.connect()).collect();
    // The oldest go for the newer ones.
    silent.drain(..200).for_each(|mut peer| {
        peer.expect_closed();
    });
    let (mut late, _) = proxy.registered(2);
    late.expect_quiet();
    visited.node.expect_quiet();
    visited.expect_passing(b"undisturbed");
    drop(silent);
    late.leave();
    proxy.expect_alive_of(visited);
}

/// Sends a byte in every 100 ms; how long that went on.
fn drip(mut peer: Peer, mut bytes: impl Iterator<Item = u8>) -> Duration {
    let start = Instant::now();
    paced(Duration::from_millis(100), || {
        let more = bytes.next().is_some_and(|byte| peer.try_send(&[byte]));
        more && start.elapsed() < Duration::from_secs(20)
    });
    start.elapsed()
}

#[test]
fn a_frame_that_never_ends_ends_its_connection() {
    let plan = Plan::new(3).limit("handshake_timeout = \"1s\"");
    let proxy = plan.start();
    let reference = Bystander::start(&proxy);
    let visited = proxy.visited(1);
    let (mut registered, _) = proxy.registered(2);
    let endless = || {
        let start = head(NETWORK, 2, 10_000).into_iter();
        start.chain(std::iter::repeat(0))
    };
    let connections = [
        proxy.connect(),
        Peer::connect(visited.public),
        registered.peer().twin(),
    ];
    let dripping: Vec<_> = connections
        .into_iter()
        .map(|peer| std::thread::spawn(move || drip(peer, endless())))
        .collect();
    for thread in dripping {
        let took = thread.join().unwrap();
        assert!(took < Duration::from_secs(20), "it goes on for ever");
        assert!(took >= Duration::from_millis(500), "after {took:?}");
    }
    registered.expect_closed();
    reference.expect_undisturbed();
    proxy.expect_alive_of(visited);
}

#[test]
fn a_long_frame_has_its_time() {
    let proxy = Plan::new(1).limit("handshake_timeout = \"2s\"").start();
    let mut visited = proxy.visited(1);
    let bytes = frame(&vec![5; 2_000_000]);
    let mut writer = visited.visitor.twin();
    let sent = bytes.clone();
    let sending = std::thread::spawn(move || {
        // Three seconds and more.
        let mut parts = sent.chunks(sent.len() / 32);
        paced(Duration::from_millis(100), || {
            parts.next().is_some_and(|part| writer.try_send(part))
        });
    });
    visited.node.expect(&bytes);
    sending.join().unwrap();
    visited.node.expect_quiet();
}

#[test]
fn a_visitor_that_pauses_stays_and_one_that_is_idle_goes() {
    let plan = Plan::new(1).limit("handshake_timeout = \"500ms\"");
    let proxy = plan.limit("idle_timeout = \"5s\"").start();
    let mut visited = proxy.visited(1);
    let mut idle = Peer::connect(visited.public);
    let start = Instant::now();
    let mut rounds = 0..7;
    paced(Duration::from_secs(1), || {
        visited.expect_passing(b"after a pause");
        visited.node.expect_keepalive();
        rounds.next().is_some()
    });
    idle.expect_closed();
    assert!(start.elapsed() >= Duration::from_secs(5));
    visited.expect_passing(b"still here");
}

#[test]
fn running_out_of_descriptors_disturbs_nobody_and_passes() {
    let proxy = Proxy::new(4);
    let reference = Bystander::start(&proxy);
    let mut visited = proxy.visited(1);
    let most = kernel::descriptors(proxy.process()) + 30;
    kernel::set_limit(proxy.process(), &format!("--nofile={most}:{most}"));
    let held: Vec<Peer> = (0..200)
        .map(|number| Peer::connect([proxy.address, visited.public][number % 2]))
        .collect();
    reference.expect_going_on();
    visited.expect_passing(b"still here");
    visited.node.expect_keepalive();
    drop(held);
    crate::support::until("a node is served again", || {
        let mut node = proxy.node(2);
        node.peer().try_send(&node_request());
        let is_served = node.next_frame().is_some();
        node.peer().try_finish();
        is_served
    });
    visited.expect_passing(b"still here");
    reference.expect_undisturbed();
    proxy.expect_alive_of(visited);
}

fn node_request() -> Vec<u8> {
    Message::new(opcode::PROXY_REQUEST, &Sender::number(2)).frame()
}
