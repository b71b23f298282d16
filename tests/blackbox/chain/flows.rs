//! Flows: who is who, how many there may be, and when one ends.

use std::net::UdpSocket;

use crate::support::chain::client::Headers;
use crate::support::chain::datagram::Flow;
use crate::support::chain::destination::Datagrams;
use crate::support::chain::plan::{Plan, Proxy, Row};
use crate::support::chain::{Key, address, code};
use crate::support::kernel;
use crate::support::node::plan::free_ports;
use crate::support::until;

/// A backend that says nothing, and a hop of one worker with these keys that may send to it.
fn quiet(keys: &[(&str, &str)]) -> (Proxy, Datagrams) {
    let backend = Datagrams::silent();
    let mut plan = Plan::allowing(Key::number(1), &[backend.address]).workers(1);
    for (key, value) in keys {
        plan = plan.line(key, value);
    }
    (plan.start(), backend)
}

/// The port that the backend sees for what this flow sends.
fn port_of(flow: &mut Flow, backend: &Datagrams) -> u16 {
    flow.send(b"who am I");
    let (from, datagram) = backend.next();
    assert_eq!(datagram, b"who am I");
    backend.send(from, b"you");
    flow.expect(b"you");
    from.port()
}

#[test]
fn flows_of_many_clients_do_not_mix() {
    let echo = Datagrams::echo();
    for workers in [1, 2] {
        let row = Row::with(2, &[echo.address], |plan| plan.workers(workers));
        let mut flows: Vec<Flow> = (0..50).map(|_| row.flow(echo.address)).collect();
        for round in 0..10_u8 {
            for (flow, number) in flows.iter_mut().zip(0..) {
                flow.send(&[round, number]);
            }
            for (flow, number) in flows.iter().zip(0..) {
                flow.expect(&[round, number]);
            }
        }
        flows.iter().for_each(Flow::expect_nothing_yet);
        row.stop_with_flows();
    }
}

#[test]
fn a_flow_keeps_its_port_and_every_client_has_its_own() {
    let (proxy, backend) = quiet(&[]);
    let mut flows: Vec<Flow> = (0..20)
        .map(|_| proxy.flow(address::at(backend.address)))
        .collect();
    let ports: Vec<u16> = flows
        .iter_mut()
        .map(|flow| port_of(flow, &backend))
        .collect();
    let mut distinct = ports.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), flows.len());
    for _ in 0..3 {
        for (flow, port) in flows.iter_mut().zip(&ports) {
            assert_eq!(port_of(flow, &backend), *port);
        }
    }
    proxy.server.stop();
}

#[test]
fn whose_key_is_another_has_another_flow() {
    let backend = Datagrams::silent();
    let row = Row::new(2, &[backend.address]);
    let [first, second] = [row.proxies[0].hop(), row.proxies[1].hop()];
    let mut through_both = Flow::to(&[first, second.clone()], backend.address);
    let mut straight = Flow::to(&[second], backend.address);
    let one = port_of(&mut through_both, &backend);
    let other = port_of(&mut straight, &backend);
    assert_ne!(one, other);
    assert_eq!(port_of(&mut through_both, &backend), one);
    row.stop_with_flows();
}

#[test]
fn one_more_than_the_most_ends_the_one_that_was_idle_longest() {
    let (proxy, backend) = quiet(&[("max_flows", "2")]);
    let new = || proxy.flow(address::at(backend.address));
    let [mut a, mut b, mut c] = [new(), new(), new()];
    let first = port_of(&mut a, &backend);
    let second = port_of(&mut b, &backend);
    // Now the second is the one that was idle longest.
    assert_eq!(port_of(&mut a, &backend), first);
    let third = port_of(&mut c, &backend);
    assert_eq!(port_of(&mut a, &backend), first, "it was not idle longest");
    assert_eq!(port_of(&mut c, &backend), third);
    proxy.server.expect_open(2);
    // While this has its port no new flow can get the same by chance.
    let _held = UdpSocket::bind(("127.0.0.1", second));
    // What comes for the one that has ended reaches nobody.
    backend.send(([127, 0, 0, 1], second).into(), b"late");
    assert_ne!(port_of(&mut b, &backend), second, "it has ended");
    proxy.server.expect_open(2);
    proxy.server.stop();
}

#[test]
fn an_idle_flow_ends_and_comes_again() {
    // Long enough that it does not end between a datagram and its answer.
    let (proxy, backend) = quiet(&[("udp_idle_timeout", "\"4s\"")]);
    let mut flow = proxy.flow(address::at(backend.address));
    let before = port_of(&mut flow, &backend);
    let open = kernel::descriptors(proxy.server.process());
    until("the flow ends", || {
        kernel::descriptors(proxy.server.process()) < open
    });
    // While this has its port the next flow cannot get the same by chance.
    let _held = UdpSocket::bind(("127.0.0.1", before));
    flow.send(b"again");
    let (from, _) = backend.next();
    assert_ne!(from.port(), before);
    backend.send(from, b"welcome back");
    flow.expect(b"welcome back");
    proxy.stop();
}

#[test]
fn a_flow_that_is_used_does_not_end() {
    let (proxy, backend) = quiet(&[("udp_idle_timeout", "\"5s\"")]);
    let mut used = proxy.flow(address::at(backend.address));
    let mut idle = proxy.flow(address::at(backend.address));
    port_of(&mut idle, &backend);
    let port = port_of(&mut used, &backend);
    let open = kernel::descriptors(proxy.server.process());
    // For as long as the other one takes to end.
    until("an idle flow ends", || {
        assert_eq!(port_of(&mut used, &backend), port);
        kernel::descriptors(proxy.server.process()) < open
    });
    proxy.server.expect_open(1);
    proxy.server.stop();
}

#[test]
fn thousands_of_flows_are_bounded() {
    let echo = Datagrams::echo();
    let plan = Plan::allowing(Key::number(1), &[echo.address]).workers(1);
    let proxy = plan.line("max_flows", "64").start();
    let idle = kernel::descriptors(proxy.server.process());
    for _ in 0..2_000 {
        proxy
            .flow(address::at(echo.address))
            .expect_echo(b"one of many");
        let open = kernel::descriptors(proxy.server.process());
        assert!(open <= idle + 65, "{} flows", open - idle);
    }
    proxy.server.stop();
}

#[test]
fn datagrams_and_streams_share_the_port() {
    let echo = Datagrams::echo();
    let backend = crate::support::backend::Backend::echo();
    let row = Row::new(2, &[echo.address, backend.address]);
    let mut flow = row.flow(echo.address);
    for _ in 0..10 {
        flow.expect_echo(b"datagram");
        Headers::to(&row.hops(), backend.address)
            .dial()
            .expect_echo(b"stream");
    }
    row.stop_with_flows();
}

#[test]
fn a_late_error_is_told_to_the_flow_that_it_belongs_to() {
    // A port that nobody else gets when the backend is gone.
    let port = *free_ports(1).start();
    let backend = Datagrams::serve(([127, 0, 0, 1], port).into(), |_, _, _| {});
    let row = Row::new(1, &[backend.address]);
    let mut flow = row.flow(backend.address);
    port_of(&mut flow, &backend);
    drop(backend);
    // The port is now nobody's: the kernel says so when the next datagram comes.
    flow.send(b"anybody").expect_error(1, code::REFUSED);
    row.stop_with_flows();
}
