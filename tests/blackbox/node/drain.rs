//! The end of the server: what is open is finished, nobody new comes.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::kernel;
use crate::support::node::message::frame;
use crate::support::node::plan::Plan;
use crate::support::until;
use crate::support::window::standing_still;

#[test]
fn a_drain_lets_visitors_finish() {
    for workers in [1, 4] {
        let mut proxy = Plan::new(8).workers(workers).start();
        let mut visited: Vec<_> = (0..3).map(|number| proxy.visited(number)).collect();
        let (mut idle, _) = proxy.registered(10);
        let mut silent = proxy.connect();
        proxy.server.signal("TERM");
        // Who has nobody there is let go at once.
        idle.expect_closed();
        silent.expect_closed();
        until("nobody new comes", || {
            TcpStream::connect(proxy.address).is_err()
        });
        for one in &mut visited {
            for number in 0..20 {
                one.expect_passing(&[number; 500]);
            }
            one.node.expect_keepalive();
        }
        assert!(proxy.server.is_running());
        for mut one in visited {
            one.visitor.finish().expect_end();
            one.node.expect_closed();
        }
        assert_eq!(proxy.server.ended(), Some(0));
    }
}

#[test]
fn a_drain_has_an_end() {
    let mut proxy = Plan::new(2).limit("drain_timeout = \"1s\"").start();
    let mut visited = proxy.visited(1);
    let start = Instant::now();
    proxy.server.signal("TERM");
    visited.node.expect_closed();
    visited.visitor.expect_closed();
    assert!(start.elapsed() >= Duration::from_millis(500), "at once");
    assert_eq!(proxy.server.ended(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut proxy = Plan::new(2).start();
    let mut visited = proxy.visited(1);
    proxy.server.signal("TERM");
    until("nobody new comes", || {
        TcpStream::connect(proxy.address).is_err()
    });
    visited.expect_passing(b"still here");
    proxy.server.signal("TERM");
    visited.node.expect_closed();
    visited.visitor.expect_closed();
    assert!(proxy.server.ended().is_some());
}

#[test]
fn a_drain_takes_nobody_over() {
    let mut proxy = Plan::new(2).start();
    let mut visited = proxy.visited(1);
    let mut late = proxy.node(1);
    late.say(crate::support::node::message::opcode::PING);
    proxy.server.signal("TERM");
    late.expect_closed();
    visited.expect_passing(b"still here");
    visited.visitor.finish().expect_end();
    visited.node.expect_closed();
    assert_eq!(proxy.server.ended(), Some(0));
}

#[test]
fn a_node_that_does_not_read_holds_up_no_drain() {
    let mut proxy = Plan::new(2).limit("drain_timeout = \"1s\"").start();
    let visited = proxy.visited(1);
    let mut writer = visited.visitor.twin();
    let flood = std::thread::spawn(move || {
        let bytes = frame(&[4; 50_000]);
        while writer.try_send(&bytes) {}
    });
    let (public, visitor) = (visited.public, visited.visitor.local());
    standing_still("the flood", || kernel::bytes_under_way(public, visitor));
    proxy.server.signal("TERM");
    assert_eq!(proxy.server.ended(), Some(0));
    flood.join().unwrap();
}
