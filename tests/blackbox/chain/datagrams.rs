//! Datagrams through one, two and three hops: every size, every order, each with its responses.

use crate::support::bulk::Numbers;
use crate::support::chain::datagram::{Flow, Said};
use crate::support::chain::destination::{Datagrams, local};
use crate::support::chain::plan::{Plan, Row};
use crate::support::chain::request::{PROBE, RESPONSE};
use crate::support::chain::{Hop, Key, address};
use crate::support::node::plan::free_ports;

/// What a request for an IPv4 address takes: nonce, length, stamp, flags, address, tag.
const REQUEST: usize = 24 + 2 + 8 + 1 + 7 + 16;

/// The most that one datagram over IPv4 holds.
const MOST: usize = 65_507;

#[test]
fn every_size_comes_back_over_one_two_and_three_hops() {
    let echo = Datagrams::echo();
    for count in 1..=3 {
        let row = Row::new(count, &[echo.address]);
        let mut flow = row.flow(echo.address);
        let largest = MOST - usize::from(count) * REQUEST;
        let mut numbers = Numbers::new(count.into());
        for size in [0, 1, 2, 64, 1200, 1472, 9000, 40_000, largest - 1, largest] {
            flow.expect_echo(&numbers.bytes(size));
        }
        row.stop_with_flows();
    }
}

#[test]
fn an_answer_too_long_for_its_responses_is_dropped_and_not_cut() {
    let backend = Datagrams::serve(local(), |socket, datagram, from| {
        if datagram == b"too much" {
            socket.send_to(&[1; MOST], from).unwrap();
            socket.send_to(&[2; MOST - RESPONSE + 1], from).unwrap();
        }
        socket.send_to(b"fits", from).unwrap();
    });
    let row = Row::new(1, &[backend.address]);
    let mut flow = row.flow(backend.address);
    flow.send(b"too much").expect(b"fits");
    flow.send(b"again").expect(b"fits");
    row.stop_with_flows();
}

#[test]
fn the_longest_answer_that_fits_arrives_whole() {
    let backend = Datagrams::serve(local(), |socket, _, from| {
        socket.send_to(&[3; MOST - 2 * RESPONSE], from).unwrap();
    });
    let row = Row::new(2, &[backend.address]);
    row.flow(backend.address)
        .send(b"?")
        .expect(&[3; MOST - 2 * RESPONSE]);
    row.stop_with_flows();
}

#[test]
fn several_hops_may_be_in_one_process() {
    let echo = Datagrams::echo();
    let ports = free_ports(3);
    let listen: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    let allow = [&listen[..], &[echo.address.to_string()]].concat();
    for workers in [1, 2] {
        let plan = Plan::allowing(Key::number(1), &allow).list("listen", &listen);
        let proxy = plan.workers(workers).start();
        for count in 1..=3 {
            let mut flow = Flow::to(&proxy.hops[..count], echo.address);
            for round in 0..20 {
                flow.expect_echo(&[round; 300]);
            }
        }
        proxy.server.stop();
    }
}

#[test]
fn destinations_are_ipv4_ipv6_and_names() {
    let four = Datagrams::echo();
    let six = Datagrams::echo_at("[::1]:0".parse().unwrap());
    let named = format!("localhost:{}", four.address.port());
    let allow = [four.address.to_string(), six.address.to_string(), named];
    let row = Row::new(2, &allow);
    for destination in [
        address::at(four.address),
        address::at(six.address),
        address::named("127.0.0.1", four.address.port()),
    ] {
        let mut flow = Flow::new(&row.hops(), destination);
        flow.expect_echo(b"hello").expect_echo(b"again");
    }
    row.stop_with_flows();
}

#[test]
fn a_name_leads_a_flow_to_its_first_address() {
    let port = *free_ports(1).start();
    // Whichever family the name has first, somebody answers there.
    let text = |host: &str| format!("{host}:{port}").parse().unwrap();
    let _both = ["127.0.0.1", "[::1]"].map(|host| Datagrams::echo_at(text(host)));
    let row = Row::new(1, &[format!("localhost:{port}")]);
    let mut flow = Flow::new(&row.hops(), address::named("localhost", port));
    flow.expect_echo(b"by name").expect_echo(b"again");
    row.stop_with_flows();
}

#[test]
fn trains_of_equal_datagrams_arrive_whole_and_in_order() {
    let echo = Datagrams::echo();
    for (count, size) in [(1, 1200), (2, 1200), (3, 1100), (2, 7)] {
        let row = Row::new(count, &[echo.address]);
        let mut flow = row.flow(echo.address);
        for train in 0..20_u8 {
            let wagons: Vec<Vec<u8>> = (0..32_u8)
                .map(|wagon| [&[train, wagon][..], &vec![0xee; size - 2]].concat())
                .collect();
            // The last one is shorter, as the last one of a segmented send is.
            let last = vec![train; size / 2];
            for wagon in wagons.iter().chain([&last]) {
                flow.send(wagon);
            }
            for wagon in wagons.iter().chain([&last]) {
                flow.expect(wagon);
            }
        }
        row.stop_with_flows();
    }
}

#[test]
fn answers_without_a_question_of_their_own_arrive() {
    let backend = Datagrams::silent();
    let row = Row::new(2, &[backend.address]);
    let mut flow = row.flow(backend.address);
    flow.send(b"subscribe");
    let (from, datagram) = backend.next();
    assert_eq!(datagram, b"subscribe");
    flow.expect_nothing_yet();
    for round in 0..50_u8 {
        backend.send(from, &[round; 100]);
        flow.expect(&[round; 100]);
    }
    flow.send(b"more");
    assert_eq!(backend.next(), (from, b"more".to_vec()));
    row.stop_with_flows();
}

#[test]
fn empty_datagrams_are_datagrams() {
    let backend = Datagrams::silent();
    let row = Row::new(2, &[backend.address]);
    let mut flow = row.flow(backend.address);
    for _ in 0..50 {
        flow.send(b"");
        let (from, datagram) = backend.next();
        assert!(datagram.is_empty());
        backend.send(from, b"");
        flow.expect(b"");
    }
    row.stop_with_flows();
}

#[test]
fn a_probe_is_answered_by_the_last_hop_itself() {
    let backend = Datagrams::silent();
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        let mut flow = row.flow(backend.address);
        for payload in [&b"ping"[..], b"", &[5; 1200]] {
            let mut requests = flow.requests();
            requests.last_mut().unwrap().flags = PROBE;
            flow.send_as(requests, payload).expect(payload);
        }
        row.stop_with_flows();
    }
    assert_eq!(backend.received(), 0, "a probe goes to nobody");
}

#[test]
fn every_datagram_may_have_another_destination() {
    let [one, two] = [Datagrams::echo(), Datagrams::silent()];
    let row = Row::new(1, &[one.address, two.address]);
    let mut flow = row.flow(one.address);
    flow.expect_echo(b"to one");
    let mut requests = flow.requests();
    requests[0].address = address::at(two.address);
    flow.send_as(requests, b"to two");
    assert_eq!(two.next().1, b"to two");
    flow.expect_echo(b"to one again");
    assert_eq!(one.received(), 2);
    row.stop_with_flows();
}

#[test]
fn datagrams_through_a_loop_of_hops_end() {
    let echo = Datagrams::echo();
    let ports = free_ports(2);
    let hops: Vec<Hop> = ports
        .zip(1..)
        .map(|(port, number)| Hop {
            address: ([127, 0, 0, 1], port).into(),
            key: Key::number(number),
        })
        .collect();
    let start = |own: usize| {
        let allow = [hops[1 - own].address, echo.address];
        let plan = Plan::allowing(hops[own].key, &allow);
        plan.list("listen", &[hops[own].address]).start()
    };
    let proxies = [start(0), start(1)];
    let long: Vec<Hop> = hops.iter().cycle().take(16).cloned().collect();
    let mut flow = Flow::to(&long, echo.address);
    flow.expect_echo(b"around").expect_echo(b"and around");
    assert_eq!(echo.received(), 2);
    for proxy in proxies {
        proxy.server.stop();
    }
}

#[test]
fn payload_stands_behind_the_responses_only_when_all_say_ok() {
    let echo = Datagrams::echo();
    let row = Row::new(2, &["127.0.0.1:1"]);
    let mut flow = row.flow(echo.address);
    flow.send(b"secret");
    assert!(matches!(flow.receive(), Said::Failed(2, _)));
    assert_eq!(echo.received(), 0);
    row.stop_with_flows();
}
