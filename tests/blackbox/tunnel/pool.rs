//! Data connections that are opened ahead of visitors.

use crate::support::peer::Peer;
use crate::support::tunnel::Pair;
use crate::support::tunnel::client::{Client, Service, random};
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::wire::{Cursor, Ticket, Visit};

/// A server that wants connections ahead of visitors.
fn pooling(workers: usize) -> Tunnel {
    let plan = Plan::new(2).workers(workers).key("pool", "4");
    plan.start()
}

/// A client that has been asked for such a connection, after as many visitors as that takes.
fn asked(tunnel: &Tunnel, number: u8) -> (Client, Service, Ticket) {
    let (mut client, service) = tunnel.exposed(number);
    let ticket = next_ticket(&mut client, &service);
    (client, service, ticket)
}

/// The next ticket that the server hands out, after as many visitors as that takes.
fn next_ticket(client: &mut Client, service: &Service) -> Ticket {
    for _ in 0..MOST_VISITORS {
        client.expect_pong();
        if let Some(ticket) = client.tickets.pop_front() {
            return ticket;
        }
        Pair::open(client, service).expect_finished();
    }
    panic!("no ticket of the pool after {MOST_VISITORS} visitors");
}

const MOST_VISITORS: usize = 64;

/// What the server writes on a connection of the pool before the visitor's bytes.
fn assigned(data: &mut Peer, service: &Service, visitor: &Peer) -> [u8; 16] {
    let head = data.take(16 + 2 + 7);
    let mut cursor = Cursor(&head);
    let uuid = cursor.array();
    assert_eq!(cursor.u16(), service.number);
    assert_eq!(cursor.address(), visitor.local());
    uuid
}

/// How a visitor was announced.
enum Way {
    /// By the head on the connection that was opened ahead.
    Pool,
    /// As ever: the server did not know of that connection yet.
    Visit(Visit),
}

/// Waits for either: nothing else comes on a connection of the pool, and a visit is answered so that
/// its visitor does not stay.
fn announced(client: &mut Client, data: &Peer) -> Way {
    let stream = data.stream();
    let mut way = None;
    crate::support::until("the visitor is announced", || {
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        if matches!(peeked, Ok(1)) {
            way = Some(Way::Pool);
            return true;
        }
        client.expect_pong();
        way = client.seen_visit().map(Way::Visit);
        way.is_some()
    });
    way.unwrap()
}

#[test]
fn a_visitor_takes_a_connection_that_is_there() {
    for workers in [1, 2, 4] {
        let tunnel = pooling(workers);
        let (mut client, service, ticket) = asked(&tunnel, 1);
        let mut data = client.attach_with(&ticket, &[0; 16]);
        data.settle();
        let mut taken = false;
        for _ in 0..MOST_VISITORS {
            let mut visitor = Peer::connect(service.public);
            visitor.send(b"hello");
            match announced(&mut client, &data) {
                Way::Visit(visit) => drop(client.attach(&visit)),
                Way::Pool => {
                    assigned(&mut data, &service, &visitor);
                    data.expect(b"hello").send(b"welcome").finish();
                    visitor.expect(b"welcome").finish().expect_end();
                    data.expect_end();
                    taken = true;
                    break;
                }
            }
        }
        assert!(taken, "{workers} workers: nobody took it");
        // The ticket is used.
        client.attach_with(&ticket, &[0; 16]).expect_closed();
        client.expect_pong();
    }
}

#[test]
fn a_connection_of_the_pool_that_leaves_is_given_to_nobody() {
    let tunnel = pooling(1);
    let (mut client, service, ticket) = asked(&tunnel, 1);
    for resets in [false, true] {
        let ticket = if resets {
            next_ticket(&mut client, &service)
        } else {
            ticket
        };
        let data = client.attach_with(&ticket, &[0; 16]);
        data.settle();
        match resets {
            true => data.reset(),
            false => drop(data),
        }
        for _ in 0..5 {
            Pair::open(&mut client, &service).expect_finished();
        }
    }
}

#[test]
fn a_ticket_of_the_pool_names_nobody() {
    let tunnel = pooling(1);
    let (mut client, service, ticket) = asked(&tunnel, 1);
    client.attach_with(&ticket, &random()).expect_closed();
    client.attach_with(&ticket, &[0; 16]).expect_closed();
    client.attach_with(&random(), &[0; 16]).expect_closed();
    // And one of a visitor is none of the pool.
    let mut visitor = Peer::connect(service.public);
    let visit = client.visit();
    client.attach_with(&visit.ticket, &[0; 16]).expect_closed();
    visitor.send(b"x");
    drop(visitor);
    Pair::open(&mut client, &service).expect_passing(b"the next is served");
}

#[test]
fn the_pool_is_the_clients_own() {
    let tunnel = pooling(2);
    let (client, service, ticket) = asked(&tunnel, 1);
    let mut data = client.attach_with(&ticket, &[0; 16]);
    data.settle();
    let (mut other, others) = tunnel.exposed(2);
    for _ in 0..10 {
        // Announced to its own client by a visit: the other's connection is not for it.
        Pair::open(&mut other, &others).expect_finished();
    }
    // It goes with its client.
    client.leave();
    data.expect_closed();
    assert!(tunnel.ports.contains(&service.public.port()));
}

#[test]
fn no_more_tickets_are_handed_out_than_are_wanted() {
    let tunnel = pooling(1);
    let (mut client, service) = tunnel.exposed(1);
    for _ in 0..100 {
        Pair::open(&mut client, &service).expect_finished();
    }
    client.expect_pong();
    eprintln!("{} tickets of the pool", client.tickets.len());
    // Nobody has used one, so that no more than the pool's size can be useful at a time; some may
    // have been renewed since.
    assert!(client.tickets.len() <= 16, "{}", client.tickets.len());
    client.expect_quiet();
}
