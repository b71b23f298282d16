//! What admits a data connection: the right ticket for the right visitor, once. All else is closed,
//! and the visitor does not notice.

use std::collections::HashSet;

use crate::support::peer::Peer;
use crate::support::tunnel::client::{Client, Service, random};
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::wire::{Ticket, Uuid, Visit, attach};
use crate::support::tunnel::{Pair, Visited};

/// A visitor that waits, and its visit.
fn waiting(client: &mut Client, service: &Service) -> (Peer, Visit) {
    (Peer::connect(service.public), client.visit())
}

/// The visitor is served by its own ticket.
fn expect_served(client: &Client, mut visitor: Peer, visit: &Visit) {
    let mut data = client.attach(visit);
    visitor.send(b"in spite of all");
    data.expect(b"in spite of all").send(b"served");
    visitor.expect(b"served");
}

#[test]
fn tickets_and_names_are_never_the_same() {
    let tunnel = Tunnel::new(1);
    let (mut client, service) = tunnel.exposed(1);
    let (mut uuids, mut tickets) = (HashSet::new(), HashSet::new());
    for _ in 0..200 {
        let (visitor, visit) = waiting(&mut client, &service);
        assert!(uuids.insert(visit.uuid) && tickets.insert(visit.ticket));
        assert_ne!(visit.uuid, [0; 16], "that is the pool's");
        drop(visitor);
    }
}

#[test]
fn a_guessed_ticket_is_closed() {
    for workers in [1, 2] {
        let tunnel = Plan::new(1).workers(workers).start();
        let (mut client, service) = tunnel.exposed(1);
        for whose in 0..3 {
            // A visitor for each, as none of them waits for long.
            let (visitor, visit) = waiting(&mut client, &service);
            let near = |at: usize| {
                let mut ticket = visit.ticket;
                ticket[at] ^= 1;
                ticket
            };
            let mut guesses: Vec<Ticket> = (0..32).map(near).collect();
            guesses.extend([[0; 32], [0xff; 32]]);
            guesses.extend((0..30).map(|_| random()));
            for guess in guesses {
                let uuid = match whose {
                    0 => visit.uuid,
                    1 => [0; 16],
                    _ => random(),
                };
                let mut guessing = client.attach_with(&guess, &uuid);
                guessing.try_send(b"bytes behind it");
                guessing.expect_closed();
            }
            expect_served(&client, visitor, &visit);
        }
        client.expect_quiet();
    }
}

#[test]
fn a_ticket_is_used_once() {
    for workers in [1, 4] {
        let tunnel = Plan::new(1).workers(workers).start();
        let Visited {
            mut client,
            service,
            mut pair,
        } = tunnel.visited(1);
        // Connections that come at the same time may be read in any order.
        pair.expect_passing(b"the first has it");
        for _ in 0..20 {
            let mut second = client.attach(&pair.visit);
            second.try_send(b"me, too");
            second.expect_closed();
            pair.expect_passing(b"undisturbed");
        }
        // Not for another visitor either, and not when its own is gone.
        let (visitor, visit) = waiting(&mut client, &service);
        let used = pair.visit.ticket;
        client.attach_with(&used, &visit.uuid).expect_closed();
        pair.expect_finished();
        client.attach(&pair.visit).expect_closed();
        expect_served(&client, visitor, &visit);
        client.expect_quiet();
    }
}

#[test]
fn a_ticket_is_for_its_own_visitor() {
    // Long enough that those are served who are to be.
    let plan = Plan::new(1).text("visitor_timeout", "3s");
    let tunnel = plan.start();
    let (mut client, service) = tunnel.exposed(1);
    let mut wrong: Vec<Uuid> = vec![[0; 16], [0xff; 16], random()];
    let (other_visitor, other) = waiting(&mut client, &service);
    wrong.push(other.uuid);
    expect_served(&client, other_visitor, &other);
    for uuid in wrong {
        let (mut visitor, visit) = waiting(&mut client, &service);
        client.attach_with(&visit.ticket, &uuid).expect_closed();
        // It is used now: nobody learns by trying whose it was.
        client.attach(&visit).expect_closed();
        visitor.expect_closed();
    }
    // Two that are swapped serve nobody.
    let (mut one, first) = waiting(&mut client, &service);
    let (mut two, second) = waiting(&mut client, &service);
    client
        .attach_with(&first.ticket, &second.uuid)
        .expect_closed();
    client
        .attach_with(&second.ticket, &first.uuid)
        .expect_closed();
    one.expect_closed();
    two.expect_closed();
    Pair::open(&mut client, &service).expect_passing(b"the next is served");
}

#[test]
fn a_ticket_admits_whoever_shows_it_and_no_other_clients_visitor() {
    let tunnel = Tunnel::new(2);
    let (mut client, service) = tunnel.exposed(1);
    let (mut other, others) = tunnel.exposed(2);
    let (visitor, visit) = waiting(&mut client, &service);
    let (others_visitor, others_visit) = waiting(&mut other, &others);
    other.attach_with(&random(), &visit.uuid).expect_closed();
    expect_served(&client, visitor, &visit);
    expect_served(&other, others_visitor, &others_visit);
}

#[test]
fn a_ticket_that_has_expired_is_closed() {
    // A visitor may wait for longer than a ticket lives; one that is closed in the end tells that
    // the time is over.
    let tunnel = Plan::new(1).text("visitor_timeout", "11s").start();
    let (mut client, service) = tunnel.exposed(1);
    let (mut visitor, visit) = waiting(&mut client, &service);
    visitor.expect_closed();
    client.attach(&visit).expect_closed();
    Pair::open(&mut client, &service).expect_passing(b"the next is served");
}

#[test]
fn a_data_connection_that_is_cut_anywhere_harms_nobody() {
    let tunnel = Plan::new(1).workers(2).start();
    let (mut client, service) = tunnel.exposed(1);
    for at in 0..DATA_HEAD {
        // A visitor for each, as none of them waits for long.
        let (visitor, visit) = waiting(&mut client, &service);
        let whole = attach(&visit.ticket, &visit.uuid);
        assert_eq!(whole.len(), DATA_HEAD);
        for resets in [false, true] {
            let mut peer = tunnel.connect();
            peer.send(&whole[..at]).settle();
            match resets {
                true => peer.reset(),
                false => {
                    peer.finish().expect_closed();
                }
            }
        }
        expect_served(&client, visitor, &visit);
    }
    client.expect_quiet();
    client.leave();
    tunnel.stop();
}

/// What a data connection says at first: its kind, the ticket, the visitor's name.
const DATA_HEAD: usize = 5 + 32 + 16;

#[test]
fn a_data_connection_may_come_in_any_segments() {
    let plan = Plan::new(1).workers(1);
    let tunnel = plan.limit("handshake_timeout = \"60s\"").start();
    let (mut client, service) = tunnel.exposed(1);
    for at in (1..53).step_by(2) {
        let (mut visitor, visit) = waiting(&mut client, &service);
        let whole = attach(&visit.ticket, &visit.uuid);
        let mut data = tunnel.connect();
        data.send(&whole[..at]).settle();
        data.send([&whole[at..], b"first"].concat());
        visitor.expect(b"first").send(b"second");
        data.expect(b"second");
    }
    let (mut visitor, visit) = waiting(&mut client, &service);
    let mut data = tunnel.connect();
    for byte in attach(&visit.ticket, &visit.uuid) {
        data.send([byte]).settle();
    }
    visitor.send(b"byte by byte");
    data.expect(b"byte by byte");
}

#[test]
fn a_data_connection_without_a_client_is_closed() {
    let tunnel = Tunnel::new(1);
    let (mut client, service) = tunnel.exposed(1);
    let (mut visitor, visit) = waiting(&mut client, &service);
    client.leave();
    // Whoever waited is turned away, and the ticket goes with it.
    visitor.expect_closed();
    let mut peer = tunnel.connect();
    peer.send(attach(&visit.ticket, &visit.uuid));
    peer.expect_closed();
    drop((visitor, peer));
    tunnel.stop();
}
