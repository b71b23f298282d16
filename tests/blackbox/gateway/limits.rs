//! How many connections a client may have, and that a place that was free once is free again.

use crate::support::gateway::bystander::Bystander;
use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::{DIALECTS, Dialect, Gateway, Got, PAIRS, Plan};
use crate::support::peer::Peer;
use crate::support::{kernel, until};

const ID: u32 = 31;

/// Dials as often as the client may, each accepted; the next one is refused.
fn fill(client: &mut Endpoint, places: usize) -> Vec<u32> {
    let conns = (0..places).map(|_| client.dial(ID)).collect();
    client.expect_refused(ID).expect_refused(ID);
    conns
}

#[test]
fn the_seventeenth_dial_is_refused_until_a_place_is_free() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut server = gateway.server(ID);
        let mut client = gateway.client(of_client);
        let conns = fill(&mut client, 16);
        for conn in &conns {
            assert_eq!(server.joined().0, *conn);
        }
        // Another client has places of its own.
        let mut other = gateway.client(of_client);
        other.dial(ID);
        server.joined();
        for (number, conn) in conns.into_iter().enumerate() {
            // Whoever closes, the place is free for those who hear of it.
            match number % 2 {
                0 => client.close(conn),
                _ => server.close(conn),
            };
            client.expect(Got::Close(conn));
            server.expect(Got::Close(conn));
            let again = client.dial(ID);
            assert_eq!(server.joined().0, again);
            client.expect_refused(ID);
        }
        server.expect_quiet();
    }
}

#[test]
fn a_servers_dial_is_not_limited_but_counts() {
    for (of_client, of_server) in PAIRS {
        let gateway = Plan::new(of_server)
            .key("max_conns_per_client", "4")
            .start();
        let mut pair = gateway.pair(of_client, ID);
        for _ in 0..3 {
            pair.dial(ID);
        }
        pair.client.expect_refused(ID);
        let mut conns = Vec::new();
        for _ in 0..20 {
            let conn = pair.server.dial(pair.client_id);
            assert_eq!(pair.client.joined(), (conn, ID));
            conns.push(conn);
        }
        let first = pair.conn;
        pair.client.close(first).expect(Got::Close(first));
        pair.server.expect(Got::Close(first));
        pair.client.expect_refused(ID);
        for conn in conns {
            pair.server.close(conn).expect(Got::Close(conn));
            pair.client.expect(Got::Close(conn));
        }
        pair.dial(ID);
        pair.client.expect_refused(ID);
    }
}

#[test]
fn a_limit_holds_over_several_servers_and_pipelined_dials() {
    for of_server in DIALECTS {
        let gateway = Gateway::new(of_server);
        let _servers = [gateway.server(ID), gateway.server(ID + 1)];
        let mut client = gateway.client(Dialect::Fastway);
        let dials = (0..40).map(|number| client.dialect.dial(0, ID + number % 2));
        client.send(dials.collect::<Vec<_>>().concat());
        let mut accepted = Vec::new();
        let mut refused = 0;
        for _ in 0..40 {
            match client.got() {
                Got::Accept { conn, .. } => accepted.push(conn),
                Got::Refuse(_) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((accepted.len(), refused), (16, 24));
        for conn in &accepted {
            client.close(*conn);
        }
        client.expect_closes(&accepted);
        fill(&mut client, 16);
    }
}

/// Dials until one answer comes; what else comes is news of connections that went with their server.
fn dial_once(client: &mut Endpoint, open: &mut Vec<u32>) {
    let conn = match client.dialect {
        Dialect::Document => {
            client.send(client.dialect.new_id());
            loop {
                match client.got() {
                    Got::Open(conn) => break conn,
                    Got::Close(conn) => forget(open, conn),
                    other => panic!("{other:?}"),
                }
            }
        }
        Dialect::Fastway => 0,
    };
    client.send(client.dialect.dial(conn, ID));
    loop {
        match client.got() {
            Got::Accept { conn, .. } => return open.push(conn),
            Got::Refuse(_) => return,
            Got::Close(conn) => forget(open, conn),
            other => panic!("{other:?}"),
        }
    }
}

fn forget(open: &mut Vec<u32>, conn: u32) {
    let at = open.iter().position(|one| *one == conn);
    open.swap_remove(at.unwrap_or_else(|| panic!("a second Close of {conn}")));
}

#[test]
fn places_are_free_again_after_a_hundred_restarts_of_the_server() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut client = gateway.known_client(of_client);
        let alone = gateway.descriptors();
        let mut open = Vec::new();
        for number in 0..100 {
            let mut server = gateway.hasty_server(ID);
            for round in 0..16 {
                dial_once(&mut client, &mut open);
                if round == 3 + number % 8 {
                    // It goes in the middle of the dials, in one way or the other.
                    match number % 2 {
                        0 => server.peer().try_finish(),
                        _ => std::mem::replace(&mut server, gateway.hasty_server(ID)).reset(),
                    }
                }
            }
        }
        // One that has answered its challenge and left may come in behind its successors.
        gateway.expect_descriptors(alone);
        until("no server is left and every connection has gone", || {
            dial_once(&mut client, &mut open);
            open.is_empty()
        });
        client.expect_quiet();
        let mut server = gateway.server(ID);
        for conn in fill(&mut client, 16) {
            assert_eq!(server.joined().0, conn);
        }
    }
}

#[test]
fn running_out_of_descriptors_disturbs_nobody_and_passes() {
    let gateway = Gateway::new(Dialect::Fastway);
    let reference = Bystander::start(&gateway, Dialect::Document);
    let mut pair = gateway.pair(Dialect::Document, ID);
    let before = gateway.descriptors();
    let most = before + 30;
    kernel::set_limit(gateway.process(), &format!("--nofile={most}:{most}"));
    let held: Vec<_> = (0..200)
        .map(|number| Peer::connect([gateway.clients, gateway.servers][number % 2]))
        .collect();
    reference.expect_going_on();
    pair.expect_echo();
    drop(held);
    // The two bystanders and this pair are all that is left.
    gateway.expect_descriptors(before);
    gateway.expect_alive();
    pair.expect_echo();
    reference.expect_undisturbed();
}
