//! SOCKS5 through chains: connections by name and address, users, and the right code for what fails.

use std::net::{SocketAddr, TcpListener};

use crate::support::backend::{Backend, BlackHole, Refusing, echo};
use crate::support::bulk;
use crate::support::chain::address::NO_NAME;
use crate::support::chain::plan::{Plan, Row, access, access_address, dynamic, serve, via};
use crate::support::chain::socks::{self, Socks, reply};
use crate::support::peer::Peer;
use crate::support::server::Server;

/// A SOCKS5 listener in front of a row of hops.
fn server_of(row: &Row) -> (Server, SocketAddr) {
    let server = serve(&dynamic("socks5", &row.hops()));
    let at = access_address(&server, "socks5");
    (server, at)
}

#[test]
fn connections_by_address_and_by_name_arrive() {
    let four = Backend::echo();
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let six = Backend::serve_on(listener, |peer, _| echo(peer));
    let port = four.address.port();
    let allow = [
        four.address.to_string(),
        six.address.to_string(),
        format!("localhost:{port}"),
    ];
    for count in 1..=3 {
        let row = Row::new(count, &allow);
        let (server, at) = server_of(&row);
        for destination in [
            socks::at(four.address),
            socks::at(six.address),
            socks::named("localhost", port),
            socks::named("127.0.0.1", port),
        ] {
            let mut client = Socks::open(at);
            let peer = client.expect_connect(&destination);
            peer.send(b"hello").expect(b"hello").finish().expect_end();
        }
        server.stop();
        row.stop();
    }
}

#[test]
fn every_byte_arrives() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let (server, at) = server_of(&row);
    let mut client = Socks::open(at);
    let peer = client.expect_connect(&socks::at(backend.address));
    let mut up = peer.twin();
    let sending = std::thread::spawn(move || bulk::send(&mut up, 5, 8 << 20));
    assert!(bulk::receive(peer) == (8 << 20, sending.join().unwrap()));
    drop(client);
    server.expect_open(0);
    server.stop();
    row.stop();
}

#[test]
fn what_is_sent_all_at_once_and_byte_by_byte_is_understood() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let (server, at) = server_of(&row);
    let request = socks::request(socks::CONNECT, &socks::at(backend.address));
    let all = [&[5, 1, 0][..], &request, b"payload"].concat();
    for cut in 0..=all.len() {
        let mut client = Socks::connect(at);
        client.peer.send(&all[..cut]).settle();
        client.peer.send(&all[cut..]);
        assert_eq!(client.method(), socks::NO_AUTH);
        assert_eq!(client.reply().0, reply::SUCCEEDED);
        client.peer.expect(b"payload").finish().expect_end();
    }
    let mut client = Socks::connect(at);
    for byte in all {
        client.peer.send([byte]);
    }
    assert_eq!(client.method(), socks::NO_AUTH);
    assert_eq!(client.reply().0, reply::SUCCEEDED);
    client.peer.expect(b"payload").finish().expect_end();
    server.stop();
    row.stop();
}

#[test]
fn one_who_speaks_first_is_heard_behind_the_reply() {
    let backend = Backend::banner("welcome|");
    let row = Row::new(3, &[backend.address]);
    let (server, at) = server_of(&row);
    for _ in 0..20 {
        let mut client = Socks::open(at);
        let peer = client.expect_connect(&socks::at(backend.address));
        peer.expect("welcome|").finish().expect_end();
    }
    server.stop();
    row.stop();
}

#[test]
fn each_failure_has_its_code_at_each_hop() {
    let refusing = Refusing::new();
    let hole = BlackHole::new();
    let allow = [
        refusing.address.to_string(),
        hole.address.to_string(),
        "*:*".to_owned(),
    ];
    let told = [
        (socks::at(refusing.address), reply::REFUSED),
        (socks::at("127.0.0.1:1".parse().unwrap()), reply::FORBIDDEN),
        (socks::named("localhost", 1), reply::FORBIDDEN),
        (socks::named(NO_NAME, 80), reply::HOST_UNREACHABLE),
    ];
    let silent = [(socks::at(hole.address), reply::EXPIRED)];
    for count in 1..=3 {
        // A short timeout is for what says nothing alone: a look-up may take longer.
        let hasty = Row::with(count, &allow, |plan| plan.text("dial_timeout", "700ms"));
        let patient = Row::new(count, &allow);
        for (row, cases) in [(hasty, &silent[..]), (patient, &told[..])] {
            let (server, at) = server_of(&row);
            for (destination, code) in cases {
                Socks::open(at).expect_refusal(socks::CONNECT, destination, *code);
            }
            server.stop();
            row.stop();
        }
    }
}

#[test]
fn success_is_never_said_too_early() {
    let refusing = Refusing::new();
    let row = Row::new(3, &[refusing.address]);
    let (server, at) = server_of(&row);
    for _ in 0..50 {
        let there = socks::at(refusing.address);
        Socks::open(at).expect_refusal(socks::CONNECT, &there, reply::REFUSED);
    }
    server.stop();
    row.stop();
}

#[test]
fn a_hop_that_is_gone_or_has_another_key_is_a_failure() {
    let backend = Backend::echo();
    let row = Row::with(2, &[backend.address], Plan::on_a_lasting_port);
    let there = socks::at(backend.address);
    let mut hops = row.hops();
    hops[1].key = crate::support::chain::Key::number(50);
    let server = serve(&dynamic("socks5", &hops));
    let mut client = Socks::open(access_address(&server, "socks5"));
    assert_ne!(client.ask(socks::CONNECT, &there).0, reply::SUCCEEDED);
    client.peer.expect_closed();
    server.stop();
    let (server, at) = server_of(&row);
    let hops = row.hops();
    row.stop();
    assert_eq!(hops.len(), 2);
    let mut client = Socks::open(at);
    assert_ne!(client.ask(socks::CONNECT, &there).0, reply::SUCCEEDED);
    client.peer.expect_closed();
    server.stop();
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn unknown_commands_and_address_types_are_refused() {
    let backend = Backend::echo();
    let row = Row::new(1, &[backend.address]);
    let (server, at) = server_of(&row);
    let there = socks::at(backend.address);
    Socks::open(at).expect_refusal(socks::BIND, &there, reply::NO_COMMAND);
    for command in [0, 4, 255] {
        Socks::open(at).expect_refusal(command, &there, reply::NO_COMMAND);
    }
    for kind in [0, 2, 5, 255] {
        let mut strange = there.clone();
        strange[0] = kind;
        Socks::open(at).expect_refusal(socks::CONNECT, &strange, reply::NO_ADDRESS_TYPE);
    }
    assert_eq!(backend.accepted(), 0);
    server.stop();
    row.stop();
}

#[test]
fn port_0_and_a_host_of_no_bytes_are_refused() {
    let row = Row::new(1, &["127.0.0.1:*", "localhost:*"]);
    let (server, at) = server_of(&row);
    for destination in [
        socks::at("127.0.0.1:0".parse().unwrap()),
        socks::named("localhost", 0),
        socks::named("", 80),
    ] {
        let mut client = Socks::open(at);
        client
            .peer
            .send(socks::request(socks::CONNECT, &destination));
        let (bytes, _) = client.peer.rest();
        assert!(bytes.get(1) != Some(&reply::SUCCEEDED), "{bytes:02x?}");
    }
    server.stop();
    row.stop();
}

#[test]
fn other_versions_and_unknown_methods_are_refused() {
    let row = Row::new(1, &["127.0.0.1:1"]);
    let (server, at) = server_of(&row);
    for bytes in [
        &b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00"[..],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut peer = Peer::connect(at);
        peer.send(bytes);
        let (answer, _) = peer.rest();
        assert_ne!(answer.get(1), Some(&0), "{answer:02x?}");
    }
    for methods in [&[1_u8][..], &[0x80, 0x81], &[]] {
        let mut client = Socks::connect(at);
        client.offer(methods);
        let (answer, _) = client.peer.rest();
        // No acceptable method, where there is an answer at all.
        assert!(matches!(answer[..], [] | [5, 0xff]), "{answer:02x?}");
    }
    server.stop();
    row.stop();
}

fn with_users(row: &Row) -> (Server, SocketAddr) {
    let lines = [
        format!("via = {}", via(&row.hops())),
        "users = { ann = \"her password\", bob = \"his: password\" }".to_owned(),
    ];
    let server = serve(&access("socks5", "socks5", &lines));
    let at = access_address(&server, "socks5");
    (server, at)
}

#[test]
fn users_with_their_passwords_are_served() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let (server, at) = with_users(&row);
    for (user, password) in [("ann", "her password"), ("bob", "his: password")] {
        for methods in [&[socks::PASSWORD][..], &[socks::NO_AUTH, socks::PASSWORD]] {
            let mut client = Socks::connect(at);
            client.offer(methods);
            assert_eq!(client.method(), socks::PASSWORD);
            assert!(client.login(user, password));
            let peer = client.expect_connect(&socks::at(backend.address));
            peer.send(b"mine").expect(b"mine").finish().expect_end();
        }
    }
    server.stop();
    row.stop();
}

#[test]
fn others_are_not() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let (server, at) = with_users(&row);
    for (user, password) in [
        ("ann", "his: password"),
        ("ann", "her passwor"),
        ("ann", "her password "),
        ("ann", ""),
        ("", ""),
        ("Ann", "her password"),
        ("eve", "her password"),
    ] {
        let mut client = Socks::connect(at);
        client.offer(&[socks::PASSWORD]);
        assert_eq!(client.method(), socks::PASSWORD);
        // The request comes with it, as from one who does not wait.
        let request = socks::request(socks::CONNECT, &socks::at(backend.address));
        client
            .peer
            .send([socks::login(user, password), request].concat());
        let (answer, _) = client.peer.rest();
        // The end must not cut the refusal off, but a reset may.
        assert!(
            !matches!(answer[..], [1, 0, ..]),
            "{user:?} {password:?}: {answer:02x?}"
        );
    }
    let mut client = Socks::connect(at);
    client.offer(&[socks::NO_AUTH]);
    assert_eq!(client.method(), 0xff, "somebody without a name");
    client.peer.expect_closed();
    assert_eq!(backend.accepted(), 0);
    assert!(
        !server.log().contains("her password"),
        "a secret in the log"
    );
    server.stop();
    row.stop();
}

#[test]
fn a_wrong_password_is_answered() {
    let row = Row::new(1, &["127.0.0.1:1"]);
    let (server, at) = with_users(&row);
    let mut client = Socks::connect(at);
    client.offer(&[socks::PASSWORD]);
    assert_eq!(client.method(), socks::PASSWORD);
    assert!(!client.login("ann", "wrong"));
    client.peer.expect_closed();
    server.stop();
    row.stop();
}

#[test]
fn clients_that_leave_in_the_middle_leave_nothing_behind() {
    let hole = BlackHole::new();
    let row = Row::with(2, &[hole.address], |plan| plan.text("dial_timeout", "60s"));
    let (server, at) = server_of(&row);
    let request = socks::request(socks::CONNECT, &socks::at(hole.address));
    let all = [&[5, 1, 0][..], &request].concat();
    for cut in 0..=all.len() {
        let mut peer = Peer::connect(at);
        peer.send(&all[..cut]).settle();
        peer.reset();
    }
    server.expect_open(0);
    server.stop();
    row.stop();
}

#[test]
fn clients_that_end_and_then_reset_leave_nothing_behind() {
    let hole = BlackHole::new();
    let row = Row::with(2, &[hole.address], |plan| plan.text("dial_timeout", "60s"));
    let (server, at) = server_of(&row);
    for _ in 0..20 {
        let mut client = Socks::open(at);
        client
            .peer
            .send(socks::request(socks::CONNECT, &socks::at(hole.address)))
            .settle();
        client.peer.finish().settle();
        client.peer.reset();
    }
    server.expect_open(0);
    server.stop();
    row.stop();
}

#[test]
fn clients_that_close_with_something_on_its_way_to_them_leave_nothing_behind() {
    let hole = BlackHole::new();
    let row = Row::with(2, &[hole.address], |plan| plan.text("dial_timeout", "60s"));
    let (server, at) = server_of(&row);
    let request = socks::request(socks::CONNECT, &socks::at(hole.address));
    for _ in 0..50 {
        // The answer to the first three bytes finds nobody.
        let mut peer = Peer::connect(at);
        peer.send([&[5, 1, 0][..], &request].concat());
        drop(peer);
    }
    // All have been accepted when one that came after them is served.
    drop(Socks::open(at));
    server.expect_open(0);
    server.stop();
    row.stop();
}
