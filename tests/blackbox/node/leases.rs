//! The range of ports: how it runs out, what is skipped in it, when a port is free again.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::folder::Folder;
use crate::support::node::plan::{Plan, Proxy};
use crate::support::node::{Node, Visited};
use crate::support::until;
use crate::support::window::paced;

/// Far from what an answer takes, and from every timeout that would close such a connection.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Fails unless each of these nodes is refused, and all but a few of them at once: what holds up a
/// busy machine for a moment holds up one.
fn expect_refused_at_once(proxy: &Proxy, numbers: Range<u32>) {
    let mut times: Vec<Duration> = numbers
        .map(|number| {
            let start = Instant::now();
            proxy.node(number).expect_refused();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[times.len() / 2] < AT_ONCE, "{times:?}");
}

#[test]
fn a_full_range_refuses_at_once_and_its_owners_keep_theirs() {
    let proxy = Proxy::new(3);
    let mut owners: Vec<Visited> = (0..3).map(|number| proxy.visited(number)).collect();
    expect_refused_at_once(&proxy, 10..30);
    for owner in &mut owners {
        owner.expect_passing(b"still mine");
        assert_eq!(owner.node.expect_keepalive().request(), owner.public);
    }
    // The lease holds while its owner is away.
    let away = owners.pop().unwrap();
    away.node.leave();
    proxy.node(10).expect_refused();
    assert_eq!(proxy.registered(2).1, away.public);
    // The log's thread may be behind.
    until("the log says why", || {
        proxy.server.log().contains("no_ports")
    });
}

#[test]
fn the_end_of_all_ports_is_the_end_of_the_range() {
    // There is one end for all: another process of tests may be here just now.
    let _turn = turn_at_the_end();
    let plan = Plan::new(2).text("ports", "65534-65535");
    let proxy = plan.start();
    let mut nodes: Vec<_> = (0..2).map(|number| proxy.node(number)).collect();
    let mut ports: Vec<u16> = nodes.iter_mut().map(|node| node.request().port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [65534, 65535]);
    for number in 2..6 {
        proxy.node(number).expect_refused();
    }
}

/// Waits until nobody else is at the end of all ports; it is the test's own while this is held.
fn turn_at_the_end() -> UdpSocket {
    let mut turn = None;
    until("nobody else has the last ports", || {
        // An address on which no server listens.
        turn = UdpSocket::bind("127.77.0.2:65535").ok();
        turn.is_some()
    });
    turn.unwrap()
}

/// Asks until there is an address for this node. Its lease does not run while the node is held.
fn served(proxy: &Proxy, number: u32) -> (Node, SocketAddr) {
    let mut served = None;
    until("a port is free", || {
        let mut node = proxy.node(number);
        node.say(crate::support::node::message::opcode::PROXY_REQUEST);
        served = node.try_answer().map(|public| (node, public));
        served.is_some()
    });
    served.unwrap()
}

#[test]
fn a_port_is_another_nodes_when_its_lease_has_ended() {
    let proxy = Plan::new(1).text("lease", "1s").start();
    for number in 0..3 {
        let (node, public) = proxy.registered(number);
        proxy.node(number + 1).expect_refused();
        node.leave();
        let (_next, again) = served(&proxy, number + 1);
        assert_eq!(again, public);
        // The former owner has no claim any more.
        proxy.node(number).expect_refused();
    }
}

#[test]
fn a_lease_does_not_end_while_its_node_is_there() {
    let proxy = Plan::new(1).text("lease", "1s").start();
    let mut visited = proxy.visited(1);
    let mut rounds = 0..12;
    paced(Duration::from_millis(250), || {
        proxy.node(2).expect_refused();
        visited.expect_passing(b"mine");
        rounds.next().is_some()
    });
    assert_eq!(visited.node.request(), visited.public);
}

#[test]
fn a_lease_goes_on_over_a_restart_and_ends_behind_it() {
    let folder = Arc::new(Folder::new());
    // Longer than a restart takes, however slow the machine.
    let plan = Plan::new(1).text("lease", "10s").folder(&folder);
    let proxy = plan.start();
    let (_node, public) = proxy.registered(1);
    proxy.server.kill();
    let proxy = plan.start();
    proxy.node(2).expect_refused();
    let (node, again) = proxy.registered(1);
    assert_eq!(again, public);
    node.leave();
    proxy.server.stop();
    let proxy = plan.start();
    proxy.node(2).expect_refused();
    let (_next, again) = served(&proxy, 2);
    assert_eq!(again, public);
    proxy.node(1).expect_refused();
}

fn hold(port: u16) -> TcpListener {
    TcpListener::bind(("127.0.0.1", port)).unwrap()
}

#[test]
fn a_foreign_programs_port_is_skipped() {
    let plan = Plan::new(5);
    let first = *plan.ports().start();
    let foreign: Vec<TcpListener> = [1, 2, 4].map(|at| hold(first + at)).into();
    let proxy = plan.start();
    let mut nodes: Vec<Visited> = (0..2).map(|number| proxy.visited(number)).collect();
    let mut ports: Vec<u16> = nodes.iter().map(|one| one.public.port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [first, first + 3]);
    expect_refused_at_once(&proxy, 5..8);
    for node in &mut nodes {
        node.expect_passing(b"still mine");
    }
    drop(foreign);
}

#[test]
fn a_node_whose_port_was_taken_by_a_foreign_program_gets_another() {
    let proxy = Proxy::new(2);
    let (node, public) = proxy.registered(1);
    node.leave();
    until("the port is free", || TcpListener::bind(public).is_ok());
    let _foreign = hold(public.port());
    let mut visited = proxy.visited(1);
    assert_ne!(visited.public, public);
    visited.expect_passing(b"here now");
    // And keeps it.
    visited.node.leave();
    assert_eq!(proxy.registered(1).1, visited.public);
}

#[test]
fn a_foreign_program_everywhere_costs_no_spin() {
    let plan = Plan::new(40);
    let _foreign: Vec<TcpListener> = plan.ports().map(hold).collect();
    let proxy = plan.start();
    expect_refused_at_once(&proxy, 0..5);
    crate::support::window::expect_calm(proxy.process(), 10);
}
