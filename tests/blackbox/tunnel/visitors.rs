//! Visitors of a service of mode direct: each gets a data connection of its own, and every byte.

use std::thread;

use crate::support::bulk::{self, Numbers};
use crate::support::kernel;
use crate::support::peer::{End, Peer};
use crate::support::tunnel::bystander::Bystander;
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::wire::{closed, reason};
use crate::support::tunnel::{Pair, Visited, expect_turned_away};

#[test]
fn a_visitor_gets_a_connection_of_its_own() {
    for workers in [1, 2, 4] {
        let tunnel = Plan::new(1).workers(workers).start();
        let (mut client, service) = tunnel.exposed(1);
        for round in 0..20_u8 {
            let mut pair = Pair::open(&mut client, &service);
            // Either side may speak first.
            match round % 2 {
                0 => pair.expect_passing(&[round; 3000]),
                _ => {
                    pair.data.send(b"the service speaks first");
                    pair.visitor.expect(b"the service speaks first");
                    pair.expect_passing(&[round; 10])
                }
            };
            pair.expect_finished();
        }
        client.expect_quiet();
        client.leave();
        tunnel.stop();
    }
}

#[test]
fn what_is_sent_before_the_other_side_is_there_arrives() {
    let tunnel = Plan::new(1).workers(2).start();
    let (mut client, service) = tunnel.exposed(1);
    for length in [1, 100, 70_000, 300_000] {
        let early = Numbers::new(length as u64).bytes(length);
        let mut visitor = Peer::connect(service.public);
        let mut writer = visitor.twin();
        let sent = early.clone();
        let writing = thread::spawn(move || {
            writer.send(sent).finish();
        });
        let visit = client.visit();
        // So is what comes in one piece with the ticket.
        let mut data = Peer::connect(client.server);
        let ticket = crate::support::tunnel::wire::attach(&visit.ticket, &visit.uuid);
        data.send([&ticket[..], b"at once"].concat()).finish();
        visitor.expect(b"at once").expect_end();
        data.expect(&early).expect_end();
        writing.join().unwrap();
    }
    client.expect_quiet();
}

#[test]
fn both_directions_end_by_themselves() {
    const TOTAL: usize = 8 << 20;
    for workers in [1, 2] {
        let tunnel = Plan::new(1).workers(workers).start();
        let mut visited = tunnel.visited(1);
        for visitor_first in [true, false] {
            let Pair {
                mut visitor,
                mut data,
                ..
            } = Pair::open(&mut visited.client, &visited.service);
            let (first, second) = match visitor_first {
                true => (&mut visitor, &mut data),
                false => (&mut data, &mut visitor),
            };
            let mut ending = first.twin();
            let sending = thread::spawn(move || bulk::send(&mut ending, 1, TOTAL));
            assert_eq!(bulk::receive(second), (TOTAL, sending.join().unwrap()));
            // The other direction lives on after that.
            let mut answering = second.twin();
            let sending = thread::spawn(move || bulk::send(&mut answering, 2, TOTAL));
            assert_eq!(bulk::receive(first), (TOTAL, sending.join().unwrap()));
        }
        visited.leave();
        tunnel.stop();
    }
}

#[test]
fn a_reset_is_passed_on() {
    let tunnel = Plan::new(2).workers(2).start();
    let mut visited = tunnel.visited(1);
    for visitor_resets in [true, false] {
        let mut pair = Pair::open(&mut visited.client, &visited.service);
        pair.expect_passing(b"before");
        match visitor_resets {
            true => {
                pair.visitor.reset();
                pair.data.expect_reset();
            }
            false => {
                pair.data.reset();
                pair.visitor.expect_reset();
            }
        }
        visited.expect_passing(b"undisturbed");
    }
    visited.leave();
    tunnel.stop();
}

#[test]
fn two_hundred_visitors_at_once_are_served() {
    kernel::raise_own_descriptor_limit();
    for workers in [1, 4] {
        let tunnel = Plan::new(1).workers(workers).start();
        let (mut client, service) = tunnel.exposed(1);
        let mut visitors: Vec<Peer> = (0..200).map(|_| Peer::connect(service.public)).collect();
        let mut visits: Vec<_> = visitors.iter().map(|_| client.visit()).collect();
        visits.reverse();
        let mut datas: Vec<(Peer, _)> = visits
            .iter()
            .map(|visit| (client.attach(visit), visit.visitor))
            .collect();
        for (at, visitor) in visitors.iter_mut().enumerate() {
            visitor.send(format!("{} {at}", visitor.local())).finish();
        }
        for (data, visitor) in &mut datas {
            let (said, end) = data.rest();
            assert!(said.starts_with(format!("{visitor} ").as_bytes()), "a swap");
            assert_eq!(end, End::Fin);
            data.send(said).finish();
        }
        for (at, visitor) in visitors.iter_mut().enumerate() {
            let expected = format!("{} {at}", visitor.local());
            visitor.expect(expected).expect_end();
        }
        client.expect_quiet();
        drop((visitors, datas));
        client.leave();
        tunnel.stop();
    }
}

#[test]
fn a_visitor_that_waits_in_vain_is_closed() {
    // Long enough that the others are served.
    let tunnel = Plan::new(2).text("visitor_timeout", "3s").start();
    let bystanders = Bystander::start(&tunnel);
    let (mut client, service) = tunnel.exposed(1);
    let mut waiting: Vec<Peer> = (0..30).map(|_| Peer::connect(service.public)).collect();
    waiting[0].send(b"bytes that nobody takes");
    let visits: Vec<_> = waiting.iter().map(|_| client.visit()).collect();
    for visitor in &mut waiting {
        visitor.expect_closed();
    }
    for visit in &visits {
        assert_eq!(client.closed(&visit.uuid), reason::TIMEOUT);
        // Its ticket is void.
        client.attach(visit).expect_closed();
    }
    Pair::open(&mut client, &service).expect_passing(b"the next is served");
    client.expect_quiet();
    bystanders.expect_undisturbed();
    client.leave();
    drop(waiting);
    tunnel.stop();
}

#[test]
fn a_visitor_that_leaves_before_it_is_served_is_told_of() {
    let tunnel = Tunnel::new(1);
    let (mut client, service) = tunnel.exposed(1);
    for _ in 0..10 {
        let visitor = Peer::connect(service.public);
        let visit = client.visit();
        visitor.reset();
        let told = client.closed(&visit.uuid);
        assert!(
            [reason::VISITOR_LEFT, reason::RESET].contains(&told),
            "{told}"
        );
        client.attach(&visit).expect_closed();
    }
    Pair::open(&mut client, &service).expect_passing(b"the next is served");
}

#[test]
fn a_visitor_whose_service_cannot_be_reached_is_closed_at_once() {
    // The deadline is far away.
    let tunnel = Plan::new(1).text("visitor_timeout", "10m").start();
    let mut visited = tunnel.visited(1);
    for _ in 0..10 {
        let mut visitor = Peer::connect(visited.service.public);
        let visit = visited.client.visit();
        visited
            .client
            .send(closed(&visit.uuid, reason::UNREACHABLE));
        visitor.expect_closed();
        visited.client.attach(&visit).expect_closed();
    }
    visited
        .expect_passing(b"undisturbed")
        .expect_serving(b"next");
}

#[test]
fn only_so_many_visitors_wait() {
    let plan = Plan::new(2).workers(1).key("max_waiting", "4");
    let tunnel = plan.text("visitor_timeout", "10m").start();
    let mut visited = tunnel.visited(1);
    let mut waiting: Vec<(Peer, _)> = (0..4)
        .map(|_| {
            let visitor = Peer::connect(visited.service.public);
            (visitor, visited.client.visit())
        })
        .collect();
    for _ in 0..10 {
        expect_turned_away(visited.service.public);
    }
    visited.expect_passing(b"undisturbed");
    // A place that is free is anybody's.
    for _ in 0..4 {
        let (mut visitor, visit) = waiting.remove(0);
        let mut data = visited.client.attach(&visit);
        data.send(b"served");
        visitor.expect(b"served");
        waiting.push((
            Peer::connect(visited.service.public),
            visited.client.visit(),
        ));
    }
    visited.client.expect_quiet();
}

#[test]
fn a_service_has_so_many_visitors_and_no_more() {
    let tunnel = Plan::new(2).workers(1).key("max_visitors", "3").start();
    let mut visited = tunnel.visited(1);
    let mut places: Vec<Pair> = (0..2)
        .map(|_| Pair::open(&mut visited.client, &visited.service))
        .collect();
    for _ in 0..10 {
        expect_turned_away(visited.service.public);
        visited.expect_passing(b"undisturbed");
        places.remove(0).expect_finished();
        places.push(Pair::open(&mut visited.client, &visited.service));
    }
    // Another service's are its own.
    tunnel.visited(2).expect_passing(b"in");
}

#[test]
fn visitors_that_come_and_go_leave_nothing_behind() {
    let tunnel = Plan::new(1).workers(2).start();
    let Visited {
        mut client,
        service,
        mut pair,
    } = tunnel.visited(1);
    for round in 0..300 {
        let mut pair = Pair::open(&mut client, &service);
        match round % 4 {
            0 => drop(pair),
            1 => pair.visitor.reset(),
            2 => pair.data.reset(),
            _ => pair.expect_passing(b"ping").expect_finished(),
        }
    }
    pair.expect_passing(b"undisturbed").expect_finished();
    drop(pair);
    client.leave();
    tunnel.stop();
}
