//! The same thing many times over: nothing is kept of what has ended.

use crate::support::kernel;
use crate::support::node::message::{frame, opcode};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::peer::Peer;
use crate::support::until;
use crate::support::window::standing_still;

/// What many rounds may leave in memory: buffers at their greatest, never something per node.
const SLACK: u64 = 6 << 20;

fn resident(proxy: &Proxy) -> u64 {
    standing_still("memory", || kernel::resident_bytes(proxy.process()) >> 20) << 20
}

/// Nodes of these numbers come, have visitors, and go, in all ways.
fn come_and_go(proxy: &Proxy, numbers: std::ops::Range<u32>) {
    let mut nodes = Vec::new();
    for number in numbers {
        let mut node = proxy.node(number);
        node.say(opcode::PROXY_REQUEST);
        nodes.push(node);
    }
    let mut visitors = Vec::new();
    for node in &mut nodes {
        let public = node.answer();
        let mut visitor = Peer::connect(public);
        visitor.send(frame(&[3; 700]));
        node.expect(&frame(&[3; 700]));
        visitors.push((visitor, Peer::connect(public)));
    }
    for (number, (node, (mut visitor, other))) in nodes.into_iter().zip(visitors).enumerate() {
        match number % 4 {
            0 => node.leave(),
            1 => node.reset(),
            2 => {
                visitor.finish().expect_end();
                node.leave();
            }
            _ => {
                other.reset();
                visitor.reset();
                node.reset();
            }
        }
    }
}

#[test]
fn a_thousand_nodes_that_came_and_went_leave_nothing() {
    const RANGE: u16 = 500;
    kernel::raise_own_descriptor_limit();
    let proxy = Plan::new(RANGE).workers(2).start();
    let round = |proxy: &Proxy| {
        for batch in 0..5 {
            come_and_go(proxy, batch * 100..(batch + 1) * 100);
        }
        proxy.server.expect_open(0);
    };
    round(&proxy);
    let before = resident(&proxy);
    for _ in 0..2 {
        round(&proxy);
    }
    let after = resident(&proxy);
    eprintln!("resident: {before} bytes before, {after} after");
    assert!(
        after < before + SLACK,
        "{before} bytes before, {after} after"
    );
    proxy.stop();
}

/// Asks until there is an address for this node, has a visitor, and goes.
fn come_when_there_is_room(proxy: &Proxy, number: u32) {
    until("a lease ends", || {
        let mut node = proxy.node(number);
        node.say(opcode::PROXY_REQUEST);
        let Some(public) = node.try_answer() else {
            return false;
        };
        let mut visitor = Peer::connect(public);
        visitor.send(frame(b"hello"));
        node.expect(&frame(b"hello"));
        node.leave();
        visitor.expect_closed();
        true
    });
}

#[test]
fn a_thousand_leases_that_ended_leave_nothing() {
    // New nodes each time: their leases end a second behind them.
    let proxy = Plan::new(100).text("lease", "1s").start();
    let mut sizes = Vec::new();
    for round in 0..10 {
        (round * 100..(round + 1) * 100).for_each(|number| come_when_there_is_room(&proxy, number));
        sizes.push(resident(&proxy));
    }
    eprintln!("resident bytes: {sizes:?}");
    assert!(sizes[9] < sizes[1] + SLACK, "{sizes:?}");
    proxy.stop();
}
