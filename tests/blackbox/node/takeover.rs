//! Several main connections of one node: the newest has the port, and the end of an older one
//! changes nothing.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::bulk::Numbers;
use crate::support::node::message::{frame, opcode};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::node::{Node, Visited};
use crate::support::peer::Peer;
use crate::support::until;

/// A fresh visitor's frame reaches this node.
fn expect_serving(node: &mut Node, public: SocketAddr, payload: &[u8]) {
    let bytes = frame(payload);
    Peer::connect(public).send(&bytes);
    node.expect(&bytes);
}

/// The ways in which an older connection may end.
fn end(mut old: Node, way: usize) {
    match way % 4 {
        0 => old.leave(),
        1 => old.reset(),
        2 => {
            // It may have been closed for a newer one.
            old.peer().try_send(&[0xff; 10]);
            old.skip_to_end();
        }
        _ => drop(old),
    }
}

fn takeovers(workers: usize) {
    let proxy = Plan::new(2).workers(workers).start();
    let mut times = Vec::new();
    for round in 0..24 {
        let mut old = proxy.visited(1);
        let start = Instant::now();
        let (mut new, public) = proxy.registered(1);
        assert_eq!(public, old.public);
        expect_serving(&mut new, public, b"to the newest");
        times.push(start.elapsed());
        // The older one keeps its visitors, and nothing else.
        old.expect_passing(b"to the older");
        new.expect_quiet();
        let mut visitor = old.visitor;
        match round % 2 {
            0 => {
                end(old.node, round / 2);
                visitor.expect_closed();
            }
            _ => {
                // The visitor first.
                visitor.finish().expect_end();
                end(old.node, round / 2);
            }
        }
        new.expect_quiet();
        expect_serving(&mut new, public, b"still to the newest");
        assert_eq!(new.request(), public);
        new.leave();
    }
    times.sort_unstable();
    eprintln!(
        "{workers} workers: median {:?}, worst {:?}",
        times[12], times[23]
    );
    assert!(times[12] < Duration::from_secs(1), "{times:?}");
    proxy.stop();
}

#[test]
fn the_newest_has_the_port_on_one_worker() {
    takeovers(1);
}

#[test]
fn the_newest_has_the_port_on_two_workers() {
    takeovers(2);
}

#[test]
fn the_newest_has_the_port_on_four_workers() {
    takeovers(4);
}

#[test]
fn a_row_of_takeovers_leaves_the_last_one_served() {
    for workers in [1, 2, 4] {
        let proxy = Plan::new(1).workers(workers).start();
        let mut nodes: Vec<(Node, _)> = (0..40).map(|_| proxy.registered(1)).collect();
        let (mut last, public) = nodes.pop().unwrap();
        for (way, (mut node, older)) in nodes.into_iter().enumerate() {
            assert_eq!(older, public);
            // Known as a node, though not the newest: its Keepalive is answered.
            node.expect_quiet();
            end(node, way);
            if way % 8 == 0 {
                expect_serving(&mut last, public, &[1; 100]);
            }
        }
        last.expect_quiet();
        expect_serving(&mut last, public, b"the last");
        last.leave();
        proxy.stop();
    }
}

#[test]
fn an_older_connection_that_asks_again_is_the_newest() {
    for workers in [1, 4] {
        let proxy = Plan::new(1).workers(workers).start();
        let (mut one, public) = proxy.registered(1);
        let (mut two, _) = proxy.registered(1);
        for _ in 0..10 {
            assert_eq!(one.request(), public);
            expect_serving(&mut one, public, b"one");
            assert_eq!(two.request(), public);
            expect_serving(&mut two, public, b"two");
        }
        one.leave();
        expect_serving(&mut two, public, b"two is left");
        two.leave();
        proxy.stop();
    }
}

#[test]
fn when_the_newest_goes_an_older_one_is_served_or_closed() {
    // It does not know that it has lost its address; were it left as it is, nobody would ever reach
    // this node again, for it connects anew only when its connection ends.
    for workers in [1, 4] {
        let proxy = Plan::new(1).workers(workers).start();
        let (mut old, public) = proxy.registered(1);
        let (new, _) = proxy.registered(1);
        new.leave();
        let keepalive = old.message(opcode::KEEPALIVE).frame();
        let bytes = frame(b"is somebody there?");
        until("the node is served again, or closed", || {
            old.peer().try_send(&keepalive);
            if let Ok(stream) = TcpStream::connect(public) {
                Peer::new(stream).send(&bytes);
                // Behind the answers to its Keepalives, where there are any.
                while old.next_frame().is_some_and(|got| got != bytes) {}
                return true;
            }
            has_ended(old.peer())
        });
    }
}

/// True when the other side has closed.
fn has_ended(peer: &Peer) -> bool {
    peer.stream().set_nonblocking(true).unwrap();
    let ended = match peer.stream().peek(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    peer.stream().set_nonblocking(false).unwrap();
    ended
}

/// Connections of one node that ask at the same time; those that were answered.
fn at_the_same_time(proxy: &Proxy, count: usize) -> Vec<(Node, SocketAddr)> {
    let mut nodes: Vec<Node> = (0..count).map(|_| proxy.node(1)).collect();
    for node in &mut nodes {
        node.say(opcode::PROXY_REQUEST);
    }
    let answered = nodes.into_iter().filter_map(|mut node| {
        let public = node.try_answer()?;
        Some((node, public))
    });
    answered.collect()
}

#[test]
fn of_many_that_ask_at_once_exactly_one_is_served() {
    for workers in [1, 2, 4] {
        let proxy = Plan::new(1).workers(workers).start();
        for round in 0..10 {
            let mut answered = at_the_same_time(&proxy, 12);
            assert!(!answered.is_empty(), "nobody was answered");
            let public = answered[0].1;
            let bytes = frame(&[round; 33]);
            let mut visitor = Peer::connect(public);
            visitor.send(&bytes).settle();
            let mut served = 0;
            for (node, own) in &mut answered {
                assert_eq!(*own, public);
                node.say(opcode::KEEPALIVE);
                let first = node.next_frame().unwrap();
                served += usize::from(first == bytes);
            }
            assert_eq!(served, 1, "round {round}, {workers} workers");
        }
    }
}

/// Comes as one of three nodes, is visited where it is answered, and goes in one way or another.
fn come_and_go(proxy: &Proxy, seed: u64, rounds: usize) {
    let mut numbers = Numbers::new(seed);
    for _ in 0..rounds {
        let mut node = proxy.node(u32::try_from(numbers.below(3)).unwrap());
        node.say(opcode::PROXY_REQUEST);
        if numbers.below(4) == 0 {
            // Before it is answered.
            end(node, numbers.below(4));
            continue;
        }
        let Some(public) = node.try_answer() else {
            continue;
        };
        // Whoever is the newest by now hears of it.
        if let Ok(stream) = TcpStream::connect(public) {
            Peer::new(stream).try_send(&frame(&[1; 300]));
        }
        end(node, numbers.below(4));
    }
}

#[test]
fn a_storm_of_takeovers_leaves_nothing_and_everybody_served() {
    for workers in [1, 2, 4] {
        let proxy = Arc::new(Plan::new(3).workers(workers).start());
        let threads: Vec<_> = (0..6)
            .map(|seed| {
                let proxy = Arc::clone(&proxy);
                std::thread::spawn(move || come_and_go(&proxy, seed, 60))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let proxy = Arc::into_inner(proxy).unwrap();
        proxy.server.expect_open(0);
        for number in 0..3 {
            let mut visited = proxy.visited(number);
            visited.expect_passing(b"after the storm");
            visited.node.leave();
        }
        proxy.stop();
    }
}

#[test]
fn a_node_that_does_not_read_is_taken_over_all_the_same() {
    for workers in [1, 2, 4] {
        let proxy = Plan::new(1).workers(workers).start();
        let Visited {
            node: old,
            public,
            visitor,
        } = proxy.visited(1);
        let mut writer = visitor.twin();
        let flood = std::thread::spawn(move || {
            let bytes = frame(&[7; 60_000]);
            // Until the node's end; some megabytes that nobody takes.
            while writer.try_send(&bytes) {}
        });
        until_stuck(&visitor, public);
        let start = Instant::now();
        let (mut new, again) = proxy.registered(1);
        assert_eq!(again, public);
        expect_serving(&mut new, public, b"to the newest");
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        old.reset();
        flood.join().unwrap();
        new.expect_quiet();
        expect_serving(&mut new, public, b"still to the newest");
        new.leave();
        drop(visitor);
        proxy.stop();
    }
}

/// Waits until nobody takes what a visitor sends.
fn until_stuck(visitor: &Peer, public: SocketAddr) {
    let waiting = || crate::support::kernel::bytes_under_way(public, visitor.local());
    until("the flood is stuck", || {
        crate::support::window::standing_still("the flood", waiting) > 0
    });
}
