//! SOCKS5's UDP ASSOCIATE through chains.

use std::net::SocketAddr;

use crate::support::chain::destination::{Datagrams, Unreceptive};
use crate::support::chain::plan::{Row, access, access_address, dynamic, serve, via};
use crate::support::chain::socks::{self, Association, Socks, reply};
use crate::support::server::Server;

/// A SOCKS5 listener in front of a row of hops.
fn server_of(row: &Row) -> (Server, SocketAddr) {
    let server = serve(&dynamic("socks5", &row.hops()));
    let at = access_address(&server, "socks5");
    (server, at)
}

#[test]
fn datagrams_go_to_two_destinations_and_come_back_from_them() {
    let [one, two] = [Datagrams::echo(), Datagrams::echo()];
    for count in 1..=3 {
        let row = Row::new(count, &[one.address, two.address]);
        let (server, at) = server_of(&row);
        let association = Association::new(at);
        for round in 0..10_u8 {
            association.expect_echo(one.address, &[round; 100]);
            association.expect_echo(two.address, &[round + 1; 1200]);
        }
        for size in [0, 1, 9000, 40_000] {
            association.expect_echo(one.address, &vec![6; size]);
        }
        server.stop();
        row.stop_with_flows();
    }
}

#[test]
fn zero_hops_lead_straight_there_within_the_policy() {
    let echo = Datagrams::echo();
    let tables = format!(
        "[chain]\nallow = [\"{}\"]\n{}",
        echo.address,
        access("socks5", "socks5", &["via = []".to_owned()])
    );
    let server = serve(&tables);
    let association = Association::new(access_address(&server, "socks5"));
    association.expect_echo(echo.address, b"straight");
    server.stop();
}

#[test]
fn a_destination_by_name_answers() {
    let echo = Datagrams::echo();
    let port = echo.address.port();
    let row = Row::new(2, &[echo.address]);
    let (server, at) = server_of(&row);
    let association = Association::new(at);
    for _ in 0..3 {
        association.send(0, &socks::named("127.0.0.1", port), b"by name");
        let (from, payload) = association.receive();
        assert_eq!((from, &payload[..]), (echo.address, &b"by name"[..]));
    }
    server.stop();
    row.stop_with_flows();
}

#[test]
fn two_associations_do_not_mix() {
    let echo = Datagrams::echo();
    let row = Row::new(2, &[echo.address]);
    let (server, at) = server_of(&row);
    let associations: Vec<Association> = (0..20).map(|_| Association::new(at)).collect();
    for round in 0..5_u8 {
        for (association, number) in associations.iter().zip(0..) {
            association.send(0, &socks::at(echo.address), &[round, number]);
        }
        for (association, number) in associations.iter().zip(0..) {
            let expected = (echo.address, vec![round, number]);
            assert_eq!(association.receive(), expected);
        }
    }
    server.stop();
    row.stop_with_flows();
}

#[test]
fn fragments_and_what_is_malformed_are_dropped() {
    let echo = Datagrams::echo();
    let row = Row::new(1, &[echo.address]);
    let (server, at) = server_of(&row);
    let association = Association::new(at);
    let there = socks::at(echo.address);
    for fragment in [1, 2, 127, 128, 255] {
        association.send(fragment, &there, b"a part");
    }
    let whole = socks::wrapped(0, &there, b"");
    for cut in 0..whole.len() {
        association
            .socket
            .send_to(&whole[..cut], association.relay)
            .unwrap();
    }
    let mut strange = whole.clone();
    strange[3] = 9;
    association
        .socket
        .send_to(&strange, association.relay)
        .unwrap();
    // What comes back first is what was sent last.
    association.expect_echo(echo.address, b"whole");
    assert_eq!(echo.received(), 1);
    server.stop();
    row.stop_with_flows();
}

#[test]
fn a_stranger_cannot_use_an_association() {
    let echo = Datagrams::echo();
    let row = Row::new(1, &[echo.address]);
    let (server, at) = server_of(&row);
    let association = Association::new(at);
    association.expect_echo(echo.address, b"mine");
    // Another port, then another address of this machine.
    for bind in ["127.0.0.1:0", "127.0.0.2:0"] {
        let other = std::net::UdpSocket::bind(bind).unwrap();
        let datagram = socks::wrapped(0, &socks::at(echo.address), b"not mine");
        other.send_to(&datagram, association.relay).unwrap();
        association.expect_echo(echo.address, b"still mine");
        other.set_nonblocking(true).unwrap();
        assert!(other.recv_from(&mut [0; 100]).is_err());
    }
    assert_eq!(echo.received(), 3);
    server.stop();
    row.stop_with_flows();
}

#[test]
fn an_association_ends_with_its_connection() {
    let echo = Datagrams::echo();
    let row = Row::new(1, &[echo.address]);
    let (server, at) = server_of(&row);
    for how in 0..3 {
        let association = Association::new(at);
        association.expect_echo(echo.address, b"alive");
        let Association {
            mut control,
            socket,
            relay,
        } = association;
        match how {
            0 => drop(control),
            1 => control.peer.reset(),
            _ => {
                control.peer.finish();
                control.peer.expect_closed();
            }
        }
        server.expect_open(0);
        let before = echo.received();
        let datagram = socks::wrapped(0, &socks::at(echo.address), b"late");
        let _ = socket.send_to(&datagram, relay);
        // A new one works, and nothing of the old one has come through before.
        Association::new(at).expect_echo(echo.address, b"new");
        assert_eq!(echo.received(), before + 1);
        server.expect_open(0);
    }
    server.stop();
    row.stop_with_flows();
}

#[test]
fn a_destination_that_fails_ends_no_association() {
    let echo = Datagrams::echo();
    let refusing = Unreceptive::new();
    let row = Row::new(2, &[echo.address, refusing.address]);
    let (server, at) = server_of(&row);
    let association = Association::new(at);
    for destination in [
        socks::at(refusing.address),
        socks::at("127.0.0.1:1".parse().unwrap()),
        socks::named(crate::support::chain::address::NO_NAME, 53),
    ] {
        association.send(0, &destination, b"lost");
        association.expect_echo(echo.address, b"still here");
    }
    server.stop();
    row.stop_with_flows();
}

#[test]
fn an_association_needs_the_user_too() {
    let row = Row::new(1, &["127.0.0.1:1"]);
    let lines = [
        format!("via = {}", via(&row.hops())),
        "users = { ann = \"secret\" }".to_owned(),
    ];
    let server = serve(&access("socks5", "socks5", &lines));
    let at = access_address(&server, "socks5");
    let mut client = Socks::connect(at);
    client.offer(&[socks::NO_AUTH]);
    assert_eq!(client.method(), 0xff);
    let mut client = Socks::connect(at);
    client.offer(&[socks::PASSWORD]);
    assert_eq!(client.method(), socks::PASSWORD);
    assert!(client.login("ann", "secret"));
    let any = socks::at("0.0.0.0:0".parse().unwrap());
    assert_eq!(client.ask(socks::ASSOCIATE, &any).0, reply::SUCCEEDED);
    server.stop();
    row.stop();
}
