//! The same thing many times over: nothing is kept of what has ended.

use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::{Dialect, Gateway, Got, PAIRS, Plan};
use crate::support::kernel;
use crate::support::window::standing_still;

const ID: u32 = 71;

/// How many connections one round opens and closes.
const BATCH: usize = 256;

/// What many rounds may leave in memory: buffers at their greatest, never something per round.
const SLACK: u64 = 8 << 20;

fn resident(gateway: &Gateway) -> u64 {
    standing_still("memory", || kernel::resident_bytes(gateway.process()) >> 20) << 20
}

/// Opens and closes a batch of connections, all requests of a kind in one write.
fn round(client: &mut Endpoint, server: &mut Endpoint) {
    let dialect = client.dialect;
    let mut conns = vec![0; BATCH];
    if dialect == Dialect::Document {
        client.send(dialect.new_id().repeat(BATCH));
        for conn in &mut conns {
            let Got::Open(opened) = client.got() else {
                panic!("no Open");
            };
            *conn = opened;
        }
    }
    let dials = conns.iter().flat_map(|conn| dialect.dial(*conn, ID));
    client.send(dials.collect::<Vec<u8>>());
    for conn in &mut conns {
        let Got::Accept { conn: joined, .. } = client.got() else {
            panic!("not accepted");
        };
        assert_eq!(server.joined().0, joined);
        *conn = joined;
    }
    let closes = conns.iter().flat_map(|conn| dialect.close(*conn));
    client.send(closes.collect::<Vec<u8>>());
    for conn in conns {
        client.expect(Got::Close(conn));
        server.expect(Got::Close(conn));
    }
}

#[test]
fn opening_and_closing_65_536_connections_leaves_nothing() {
    for (of_client, of_server) in PAIRS {
        let rounds = match of_client == of_server {
            true => 65_536 / BATCH,
            false => 8192 / BATCH,
        };
        let gateway = Plan::new(of_server)
            .key("max_conns_per_client", &BATCH.to_string())
            .start();
        let mut server = gateway.server(ID);
        let mut client = gateway.client(of_client);
        for _ in 0..8 {
            round(&mut client, &mut server);
        }
        let before = (kernel::descriptors(gateway.process()), resident(&gateway));
        for _ in 0..rounds {
            round(&mut client, &mut server);
        }
        client.expect_quiet();
        server.expect_quiet();
        let after = (kernel::descriptors(gateway.process()), resident(&gateway));
        eprintln!("{of_client:?} and {of_server:?}: {before:?}, then {after:?}");
        assert_eq!(before.0, after.0, "descriptors");
        assert!(after.1 < before.1 + SLACK, "{} then {}", before.1, after.1);
        drop((client, server));
        gateway.stop();
    }
}

/// A pair of which one goes first, in one way or the other.
fn come_and_go(gateway: &Gateway, of_client: Dialect, number: u32) {
    let mut pair = gateway.pair(of_client, ID + number % 7);
    pair.expect_echo();
    match number % 4 {
        0 => pair.client.leave(),
        1 => pair.client.reset(),
        2 => pair.server.leave(),
        _ => pair.server.reset(),
    }
}

#[test]
fn two_thousand_clients_and_servers_that_come_and_go_leave_nothing() {
    for (of_client, of_server) in [PAIRS[0], PAIRS[3]] {
        let gateway = Gateway::new(of_server);
        let mut before = 0;
        for number in 0..2000 {
            come_and_go(&gateway, of_client, number);
            if number == 300 {
                gateway.server.expect_open(0);
                before = resident(&gateway);
            }
        }
        gateway.server.expect_open(0);
        let after = resident(&gateway);
        eprintln!("{of_client:?} and {of_server:?}: {before}, then {after}");
        assert!(after < before + SLACK, "{before} then {after}");
        gateway.stop();
    }
}
