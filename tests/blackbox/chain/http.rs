//! HTTP CONNECT through chains: what is sent behind the head, users, and the status of what fails.

use std::net::SocketAddr;

use crate::support::backend::{Backend, BlackHole, Refusing};
use crate::support::bulk;
use crate::support::chain::address::NO_NAME;
use crate::support::chain::http::{ask, connect, credentials, read_head, request, tunnel};
use crate::support::chain::plan::{Row, access, access_address, dynamic, serve, via};
use crate::support::peer::Peer;
use crate::support::server::Server;

/// An HTTP listener in front of a row of hops.
fn server_of(row: &Row) -> (Server, SocketAddr) {
    let server = serve(&dynamic("http", &row.hops()));
    let at = access_address(&server, "http");
    (server, at)
}

#[test]
fn connections_arrive_over_one_two_and_three_hops() {
    let backend = Backend::echo();
    let port = backend.address.port();
    let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
    let six = Backend::serve_on(listener, |peer, _| crate::support::backend::echo(peer));
    let allow = [
        backend.address.to_string(),
        six.address.to_string(),
        format!("localhost:{port}"),
    ];
    for count in 1..=3 {
        let row = Row::new(count, &allow);
        let (server, at) = server_of(&row);
        let named = format!("localhost:{port}");
        for authority in [backend.address.to_string(), six.address.to_string(), named] {
            let mut peer = tunnel(at, &authority);
            peer.send(b"hello").expect(b"hello").finish().expect_end();
        }
        let mut peer = tunnel(at, &backend.address.to_string());
        let mut up = peer.twin();
        let sending = std::thread::spawn(move || bulk::send(&mut up, 5, 4 << 20));
        assert!(bulk::receive(&mut peer) == (4 << 20, sending.join().unwrap()));
        drop(peer);
        server.expect_open(0);
        server.stop();
        row.stop();
    }
}

#[test]
fn what_is_sent_right_behind_the_head_is_delivered() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let (server, at) = server_of(&row);
    let authority = backend.address.to_string();
    for size in [1, 1000, 60_000] {
        let payload = bulk::Numbers::new(4).bytes(size);
        let mut peer = Peer::connect(at);
        peer.send([connect(&authority, &[]), payload.clone()].concat());
        assert_eq!(read_head(&mut peer).status, 200);
        peer.finish();
        assert!(peer.rest().0 == payload, "{size} bytes");
    }
    server.stop();
    row.stop();
}

#[test]
fn heads_cut_anywhere_are_understood() {
    let backend = Backend::echo();
    let row = Row::new(1, &[backend.address]);
    let (server, at) = server_of(&row);
    let authority = backend.address.to_string();
    let all = [&connect(&authority, &["User-Agent: test"])[..], b"x"].concat();
    for cut in 0..=all.len() {
        let mut peer = Peer::connect(at);
        peer.send(&all[..cut]).settle();
        peer.send(&all[cut..]);
        assert_eq!(read_head(&mut peer).status, 200);
        peer.expect(b"x").finish().expect_end();
    }
    server.stop();
    row.stop();
}

#[test]
fn one_who_speaks_first_is_heard_behind_the_head() {
    let backend = Backend::banner("welcome|");
    let row = Row::new(3, &[backend.address]);
    let (server, at) = server_of(&row);
    for _ in 0..20 {
        tunnel(at, &backend.address.to_string())
            .expect("welcome|")
            .finish()
            .expect_end();
    }
    server.stop();
    row.stop();
}

#[test]
fn each_failure_has_its_status_at_each_hop() {
    let refusing = Refusing::new();
    let hole = BlackHole::new();
    let allow = [
        refusing.address.to_string(),
        hole.address.to_string(),
        "*:*".to_owned(),
    ];
    let told = [
        (refusing.address.to_string(), 502),
        ("127.0.0.1:1".to_owned(), 403),
        ("localhost:1".to_owned(), 403),
        (format!("{NO_NAME}:80"), 502),
    ];
    let silent = [(hole.address.to_string(), 504)];
    for count in 1..=3 {
        // A short timeout is for what says nothing alone: a look-up may take longer.
        let hasty = Row::with(count, &allow, |plan| plan.text("dial_timeout", "700ms"));
        let patient = Row::new(count, &allow);
        for (row, cases) in [(hasty, &silent[..]), (patient, &told[..])] {
            let (server, at) = server_of(&row);
            for (authority, status) in cases {
                for _ in 0..3 {
                    let (head, mut peer) = ask(at, &connect(authority, &[]));
                    assert_eq!(head.status, *status, "{authority}");
                    peer.try_finish();
                    peer.rest();
                }
            }
            server.stop();
            row.stop();
        }
    }
}

#[test]
fn what_is_no_connect_is_refused() {
    let backend = Backend::echo();
    let row = Row::new(1, &[backend.address]);
    let (server, at) = server_of(&row);
    let authority = backend.address.to_string();
    for method in ["GET", "POST", "OPTIONS", "PRI", "connect"] {
        let target = format!("http://{authority}/");
        let (head, _) = ask(at, &request(method, &target, &authority, &[]));
        // HTTP's methods differ by case.
        assert!(matches!(head.status, 405 | 400), "{method}: {head:?}");
        if method == "GET" {
            assert_eq!(head.status, 405);
        }
    }
    for target in [
        "/",
        "",
        "localhost",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:http",
        ":80",
        "[::1:80",
        "http://localhost:80/",
        "user@localhost:80",
    ] {
        let (head, _) = ask(at, &request("CONNECT", target, "x", &[]));
        assert_eq!(head.status, 400, "{target:?}");
    }
    assert_eq!(backend.accepted(), 0);
    server.stop();
    row.stop();
}

#[test]
fn what_is_no_http_is_refused_or_closed() {
    let row = Row::new(1, &["127.0.0.1:1"]);
    let (server, at) = server_of(&row);
    let long = [b"CONNECT a:1 HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 200_000]].concat();
    for bytes in [
        b"\x05\x01\x00\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_vec(),
        b"CONNECT\r\n\r\n".to_vec(),
        b"CONNECT a:1\r\n\r\n".to_vec(),
        b"CONNECT a:1 HTTP/9.9\r\n\r\n".to_vec(),
        b"CONNECT a:1 HTTP/1.1\r\nno colon\r\n\r\n".to_vec(),
        b"CONNECT a:1 HTTP/1.1\r\nA: b\r\n\tfolded\r\n\r\n".to_vec(),
        long,
    ] {
        let mut peer = Peer::connect(at);
        peer.try_send(&bytes);
        peer.try_finish();
        let (answer, _) = peer.rest();
        let refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 4");
        assert!(refused, "{}", crate::support::peer::text(&answer));
    }
    let line = "downstream: protocol error: the head is no HTTP/1 request";
    crate::support::until("the log says so", || server.log().contains(line));
    server.stop();
    row.stop();
}

#[test]
fn users_are_asked_for_and_believed_with_their_password_alone() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let lines = [
        format!("via = {}", via(&row.hops())),
        "users = { ann = \"her: password\" }".to_owned(),
    ];
    let server = serve(&access("http", "http", &lines));
    let at = access_address(&server, "http");
    let authority = backend.address.to_string();
    let wrong = [
        credentials("ann", "her"),
        credentials("ann", ""),
        credentials("eve", "her: password"),
        "Proxy-Authorization: Bearer abc".to_owned(),
        "Proxy-Authorization: Basic !!!".to_owned(),
        "Proxy-Authorization: Basic".to_owned(),
        credentials("ann", "her: password").replace("Proxy-", ""),
    ];
    let heads = wrong.iter().map(|line| connect(&authority, &[line]));
    for head in heads.chain([connect(&authority, &[])]) {
        let (answer, _) = ask(at, &head);
        assert_eq!(answer.status, 407, "{}", crate::support::peer::text(&head));
        let asked = answer
            .field("proxy-authenticate")
            .expect("how to say who one is");
        assert!(asked.starts_with("Basic"), "{asked}");
    }
    assert_eq!(backend.accepted(), 0);
    let right = credentials("ann", "her: password");
    let lower = right.replace("Proxy-Authorization: Basic", "proxy-authorization: basic");
    for line in [&right, &lower] {
        let (answer, mut peer) = ask(at, &connect(&authority, &[line]));
        assert_eq!(answer.status, 200, "{line}");
        peer.send(b"x").expect(b"x").finish().expect_end();
    }
    assert!(
        !server.log().contains("her: password"),
        "a secret in the log"
    );
    server.stop();
    row.stop();
}

#[test]
fn credentials_are_not_passed_on() {
    let backend = Backend::echo();
    let row = Row::new(1, &[backend.address]);
    let (server, at) = server_of(&row);
    let line = credentials("ann", "secret");
    let (answer, mut peer) = ask(at, &connect(&backend.address.to_string(), &[&line]));
    assert_eq!(answer.status, 200);
    peer.send(b"only this").finish();
    assert_eq!(peer.rest().0, b"only this");
    server.stop();
    row.stop();
}
