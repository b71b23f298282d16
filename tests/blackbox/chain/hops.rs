//! Streams through one, two and three hops: every byte both ways, ends, and what says ok when.

use std::net::TcpListener;
use std::sync::mpsc::channel;

use crate::support::DEADLINE;
use crate::support::backend::{Backend, BlackHole};
use crate::support::bulk;
use crate::support::chain::client::Headers;
use crate::support::chain::plan::{Plan, Row};
use crate::support::chain::request::PROBE;
use crate::support::chain::{Hop, Key, address, code};
use crate::support::node::plan::free_ports;
use crate::support::peer::End;

/// Sends this much each way at once, and compares both by their hashes.
fn expect_both_ways(headers: &Headers, total: usize) {
    let mut chained = headers.dial();
    let peer = chained.expect_ok();
    let mut up = peer.twin();
    let sending = std::thread::spawn(move || bulk::send(&mut up, 1, total));
    let (count, hash) = bulk::receive(peer);
    assert_eq!(count, total);
    assert!(hash == sending.join().unwrap(), "other bytes came back");
}

#[test]
fn every_byte_arrives_both_ways_over_one_two_and_three_hops() {
    let backend = Backend::echo();
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        for total in [0, 1, 70_000, 12 << 20] {
            expect_both_ways(&row.headers(backend.address), total);
        }
        row.stop();
    }
}

#[test]
fn many_chains_at_once_do_not_mix() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    std::thread::scope(|scope| {
        for number in 0..32_u8 {
            let headers = row.headers(backend.address);
            scope.spawn(move || {
                for round in 0..8 {
                    headers_again(&headers)
                        .dial()
                        .expect_echo(&vec![number; 1000 + round]);
                }
            });
        }
    });
    row.stop();
}

/// The same way with headers that nobody has seen and that are not old yet.
fn headers_again(headers: &Headers) -> Headers {
    let mut again = headers.clone();
    for request in &mut again.requests {
        request.nonce = crate::support::chain::seal::fresh_nonce();
        request.stamp = crate::support::chain::request::now();
    }
    again
}

#[test]
fn several_hops_may_be_in_one_process_where_each_is_allowed_by_its_address() {
    let backend = Backend::echo();
    let ports = free_ports(3);
    let listen: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    let allow = [&listen[..], &[backend.address.to_string()]].concat();
    for workers in [1, 2] {
        let plan = Plan::allowing(Key::number(1), &allow).list("listen", &listen);
        let proxy = plan.workers(workers).start();
        assert_eq!(proxy.hops.len(), 3);
        for count in 1..=3 {
            expect_both_ways(&Headers::to(&proxy.hops[..count], backend.address), 1 << 20);
        }
        proxy.stop();
    }
}

#[test]
fn destinations_are_ipv4_ipv6_and_names() {
    let four = Backend::echo();
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let six = Backend::serve_on(listener, |peer, _| crate::support::backend::echo(peer));
    let named = format!("localhost:{}", four.address.port());
    let allow = [four.address.to_string(), six.address.to_string(), named];
    let row = Row::new(2, &allow);
    for destination in [
        address::at(four.address),
        address::at(six.address),
        address::named("localhost", four.address.port()),
        address::named("127.0.0.1", four.address.port()),
    ] {
        row.headers_to(destination).dial().expect_echo(b"hello");
    }
    row.stop();
}

#[test]
fn a_hop_may_be_named_by_its_name() {
    let backend = Backend::echo();
    let row = Row::new(1, &[backend.address]);
    let last = row.hops().remove(0);
    let allow = format!("localhost:{}", last.address.port());
    let first = Plan::allowing(Key::number(9), &[allow]).start();
    let next = address::named("localhost", last.address.port());
    let headers = Headers::to(&[first.hop(), last], backend.address).with_address(1, next);
    headers.dial().expect_echo(b"by name");
    first.stop();
    row.stop();
}

#[test]
fn a_dial_time_is_told() {
    let backend = Backend::echo();
    let row = Row::new(1, &[backend.address]);
    let mut chained = row.headers(backend.address).dial();
    assert!(chained.answer().dial < DEADLINE);
    drop(chained);
    row.stop();
}

#[test]
fn responses_come_in_order_before_the_word_of_one_who_speaks_first() {
    let backend = Backend::banner("welcome|");
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        for _ in 0..20 {
            let mut chained = row.headers(backend.address).dial();
            chained
                .expect_ok()
                .expect("welcome|")
                .send(b"hi")
                .expect(b"hi")
                .finish()
                .expect_end();
        }
        row.stop();
    }
}

#[test]
fn the_first_hop_says_ok_before_the_second_has_dialled() {
    let hole = BlackHole::new();
    let row = Row::with(2, &[hole.address], |plan| plan.text("dial_timeout", "60s"));
    let mut chained = row.headers(hole.address).dial();
    // The second never says anything: its destination does not answer.
    assert_eq!(chained.answer().code, code::OK);
    chained.peer.reset();
    row.stop();
}

#[test]
fn payload_in_the_same_write_as_the_headers_arrives() {
    let backend = Backend::echo();
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        let payload = bulk::Numbers::new(7).bytes(50_000);
        let mut chained = row.headers(backend.address).dial_with(&payload);
        let peer = chained.expect_ok();
        peer.finish();
        let (bytes, end) = peer.rest();
        assert!(bytes == payload && end == End::Fin);
        row.stop();
    }
}

#[test]
fn the_clients_end_is_passed_on_and_the_answer_still_comes() {
    let (sender, results) = channel();
    let backend = Backend::serve(move |mut peer, _| {
        sender.send(bulk::receive(&mut peer)).unwrap();
        bulk::send(&mut peer, 2, 100_000);
    });
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        let mut chained = row.headers(backend.address).dial();
        let peer = chained.expect_ok();
        let hash = bulk::send(peer, 1, 100_000);
        assert!(results.recv_timeout(DEADLINE).unwrap() == (100_000, hash));
        assert_eq!(bulk::receive(peer).0, 100_000);
        drop(chained);
        row.stop();
    }
}

#[test]
fn the_destinations_end_is_passed_on_and_the_rest_still_goes() {
    let (sender, results) = channel();
    let backend = Backend::serve(move |mut peer, _| {
        bulk::send(&mut peer, 2, 100_000);
        sender.send(bulk::receive(&mut peer)).unwrap();
    });
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        let mut chained = row.headers(backend.address).dial();
        let peer = chained.expect_ok();
        assert_eq!(bulk::receive(peer).0, 100_000);
        let hash = bulk::send(peer, 1, 100_000);
        assert!(results.recv_timeout(DEADLINE).unwrap() == (100_000, hash));
        drop(chained);
        row.stop();
    }
}

#[test]
fn a_destination_that_closes_at_once_was_reached() {
    let backend = Backend::closes();
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        for _ in 0..20 {
            row.headers(backend.address).dial().expect_ok().expect_end();
        }
        row.stop();
    }
}

#[test]
fn a_slow_reader_stops_the_sender_and_loses_nothing() {
    let (sender, results) = channel();
    let (go, gone) = channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let backend = Backend::serve(move |mut peer, _| {
        gone.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        sender.send(bulk::receive(&mut peer)).unwrap();
    });
    let row = Row::new(2, &[backend.address]);
    let mut chained = row.headers(backend.address).dial();
    let peer = chained.expect_ok();
    let mut up = peer.twin();
    let sending = std::thread::spawn(move || bulk::send(&mut up, 3, 32 << 20));
    go.send(()).unwrap();
    assert!(results.recv_timeout(DEADLINE).unwrap() == (32 << 20, sending.join().unwrap()));
    drop(chained);
    row.stop();
}

#[test]
fn a_probe_is_answered_by_the_last_hop_itself() {
    let backend = Backend::echo();
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        let probe = row.headers(backend.address).with_last_flags(PROBE);
        probe.dial().expect_echo(b"is anybody there");
        row.stop();
    }
    assert_eq!(backend.accepted(), 0, "a probe dials nobody");
}

#[test]
fn sixty_four_hops_are_passed_by_each_ones_own_work() {
    let backend = Backend::echo();
    let ports = free_ports(2);
    let hops: Vec<Hop> = ports
        .zip(1..)
        .map(|(port, number)| Hop {
            address: ([127, 0, 0, 1], port).into(),
            key: Key::number(number),
        })
        .collect();
    let start = |own: usize| {
        let allow = [hops[1 - own].address, backend.address];
        Plan::allowing(hops[own].key, &allow)
            .list("listen", &[hops[own].address])
            .start()
    };
    let proxies = [start(0), start(1)];
    // There and back again; it ends, since each pass eats a header.
    let long: Vec<Hop> = hops.iter().cycle().take(64).cloned().collect();
    for _ in 0..3 {
        Headers::to(&long, backend.address)
            .dial()
            .expect_echo(b"around and around");
    }
    let mut chained = Headers::to(&long, backend.address).dial();
    chained.expect_ok();
    chained.peer.reset();
    for proxy in proxies {
        proxy.stop();
    }
}
