//! Access listeners with a fixed destination, behind none to three hops, for streams and datagrams.

use std::net::SocketAddr;

use crate::support::backend::{Backend, BlackHole, Refusing};
use crate::support::bulk;
use crate::support::chain::destination::{Datagrams, Unreceptive};
use crate::support::chain::fake::FakeHop;
use crate::support::chain::plan::{Row, access, access_address, fixed, serve, via};
use crate::support::chain::request::EARLY;
use crate::support::chain::socks::socket;
use crate::support::chain::{Hop, Key, code};
use crate::support::peer::{End, Peer, text};
use crate::support::server::{Server, Setup};

fn dial(server: &Server, name: &str) -> Peer {
    Peer::connect(access_address(server, name))
}

fn expect_echo(peer: &mut Peer, payload: &[u8]) {
    peer.send(payload).finish();
    let (bytes, end) = peer.rest();
    assert_eq!((text(&bytes), end), (text(payload), End::Fin));
}

/// Rows of none to three hops.
fn rows<T: ToString>(allow: &[T]) -> Vec<Row> {
    let none = Row {
        proxies: Vec::new(),
    };
    let some = (1..=3).map(|count| Row::new(count, allow));
    [none].into_iter().chain(some).collect()
}

#[test]
fn streams_arrive_over_none_to_three_hops() {
    let backend = Backend::echo();
    for row in rows(&[backend.address]) {
        let server = serve(&fixed("tcp", &row.hops(), backend.address));
        for _ in 0..10 {
            expect_echo(&mut dial(&server, "tcp"), b"hello");
        }
        let mut peer = dial(&server, "tcp");
        let mut up = peer.twin();
        let sending = std::thread::spawn(move || bulk::send(&mut up, 5, 8 << 20));
        assert!(bulk::receive(&mut peer) == (8 << 20, sending.join().unwrap()));
        drop(peer);
        server.expect_open(0);
        server.stop();
        row.stop();
    }
}

#[test]
fn one_who_speaks_first_is_heard() {
    let backend = Backend::banner("welcome|");
    for row in rows(&[backend.address]) {
        let server = serve(&fixed("tcp", &row.hops(), backend.address));
        dial(&server, "tcp")
            .expect("welcome|")
            .send(b"x")
            .expect(b"x")
            .finish()
            .expect_end();
        server.stop();
        row.stop();
    }
}

#[test]
fn the_last_hop_looks_the_destination_up() {
    let backend = Backend::echo();
    let port = backend.address.port();
    let row = Row::new(2, &[format!("localhost:{port}")]);
    let tables = fixed("tcp", &row.hops(), format!("localhost:{port}"));
    let server = serve(&tables);
    expect_echo(&mut dial(&server, "tcp"), b"by name");
    server.stop();
    row.stop();
}

#[test]
fn a_list_of_destinations_is_gone_through_in_turn() {
    let backends = [Backend::banner("one"), Backend::banner("two")];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let row = Row::new(2, &addresses);
    let lines = [
        format!("via = {}", via(&row.hops())),
        format!("to = [\"{}\", \"{}\"]", addresses[0], addresses[1]),
    ];
    let server = serve(&access("db", "tcp", &lines));
    for _ in 0..20 {
        let mut peer = dial(&server, "db");
        peer.take(3);
        peer.finish().expect_end();
    }
    assert!(backends.iter().all(|backend| backend.accepted() > 0));
    server.stop();
    row.stop();
}

#[test]
fn a_chain_that_fails_ends_the_connection_with_nothing() {
    let refusing = Refusing::new();
    let hole = BlackHole::new();
    let allow = [refusing.address, hole.address];
    let row = Row::with(3, &allow, |plan| plan.text("dial_timeout", "500ms"));
    let forbidden: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let mut strange = row.hops();
    strange[1].key = Key::number(99);
    for (hops, to) in [
        (row.hops(), refusing.address),
        (row.hops(), hole.address),
        (row.hops(), forbidden),
        (strange, refusing.address),
    ] {
        let server = serve(&fixed("tcp", &hops, to));
        let mut peers: Vec<Peer> = (0..5).map(|_| dial(&server, "tcp")).collect();
        for peer in &mut peers {
            peer.expect_end();
        }
        drop(peers);
        server.expect_open(0);
        server.stop();
    }
    row.stop();
}

#[test]
fn the_log_names_the_hop_that_failed() {
    let refusing = Refusing::new();
    let row = Row::new(3, &[refusing.address]);
    let server = serve(&fixed("tcp", &row.hops(), refusing.address));
    dial(&server, "tcp").expect_end();
    let third = row.hops()[2].address;
    let line = format!("hop=3 at={third} code=refused");
    crate::support::until("the log tells of it", || server.log().contains(&line));
    server.stop();
    row.stop();
}

#[test]
fn without_early_data_nothing_is_sent_before_all_have_answered() {
    let (sender, heard) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let hop = FakeHop::new(Key::number(1), move |mut peer, request, _| {
        gone.lock().unwrap().recv().unwrap();
        // All that came so far is in the kernel by now.
        peer.stream().set_nonblocking(true).unwrap();
        let early = peer.some(&mut [0; 100]).unwrap_or(0);
        peer.stream().set_nonblocking(false).unwrap();
        sender.send((request.flags, early)).unwrap();
        peer.try_send(&request.response(code::OK));
        crate::support::backend::echo(peer);
    });
    let server = serve(&fixed("tcp", std::slice::from_ref(&hop.hop), "127.0.0.1:1"));
    let mut peer = dial(&server, "tcp");
    peer.send(b"not yet");
    go.send(()).unwrap();
    let (flags, early) = heard.recv_timeout(crate::support::DEADLINE).unwrap();
    assert_eq!((flags & EARLY, early), (0, 0));
    peer.expect(b"not yet").finish().expect_end();
    server.stop();
}

#[test]
fn early_data_leaves_with_the_headers() {
    // The hop is connected to only when the client has said something.
    let hole = BlackHole::new();
    let key = Key::number(1);
    let hop = Hop {
        address: hole.address,
        key,
    };
    let lines = [
        format!("via = {}", via(std::slice::from_ref(&hop))),
        "to = \"127.0.0.1:1\"".to_owned(),
        "early_data = true".to_owned(),
    ];
    let server = Setup::new()
        .limit("connect_timeout = \"60s\"")
        .tables(&access("db", "tcp", &lines))
        .start();
    let mut peer = dial(&server, "db");
    peer.send(b"early").settle();
    let _hop = FakeHop::on(hole.open(), key, |mut peer, request, _| {
        assert_eq!(
            request.flags & EARLY,
            EARLY,
            "the header says that payload follows"
        );
        // Nothing is answered before the payload is there.
        let payload = peer.take(5);
        peer.try_send(&request.response(code::OK));
        peer.try_send(&payload);
        crate::support::backend::echo(peer);
    });
    peer.expect(b"early").finish().expect_end();
    server.stop();
}

#[test]
fn early_data_arrives_through_real_hops_whether_it_comes_or_not() {
    let backend = Backend::banner("hi");
    let row = Row::new(3, &[backend.address]);
    let lines = [
        format!("via = {}", via(&row.hops())),
        format!("to = \"{}\"", backend.address),
        "early_data = true".to_owned(),
    ];
    let server = serve(&access("db", "tcp", &lines));
    dial(&server, "db")
        .send(b"early")
        .expect("hiearly")
        .finish()
        .expect_end();
    // One that waits for the other side gets through as well.
    dial(&server, "db")
        .expect("hi")
        .send(b"late")
        .expect(b"late")
        .finish()
        .expect_end();
    server.stop();
    row.stop();
}

#[test]
fn a_hop_on_the_access_servers_own_process_works() {
    let backend = Backend::echo();
    let port = *crate::support::node::plan::free_ports(1).start();
    let hop = Hop {
        address: ([127, 0, 0, 1], port).into(),
        key: Key::number(1),
    };
    let plan = crate::support::chain::plan::Plan::allowing(hop.key, &[backend.address]);
    let tables = fixed("tcp", std::slice::from_ref(&hop), backend.address);
    let proxy = plan.list("listen", &[hop.address]).tables(&tables).start();
    expect_echo(&mut dial(&proxy.server, "tcp"), b"myself");
    proxy.stop();
}

#[test]
fn datagrams_arrive_over_none_to_three_hops() {
    let echo = Datagrams::echo();
    for row in rows(&[echo.address]) {
        let server = serve(&fixed("udp", &row.hops(), echo.address));
        let at = access_address(&server, "udp");
        let sockets = [socket(), socket(), socket()];
        let mut buffer = vec![0; 1 << 16];
        for size in [0, 1, 100, 1200, 40_000, 65_000] {
            for (socket, byte) in sockets.iter().zip(1..) {
                socket.send_to(&vec![byte; size], at).unwrap();
            }
            for (socket, byte) in sockets.iter().zip(1..) {
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!((length, from), (size, at));
                assert!(buffer[..length].iter().all(|got| *got == byte));
            }
        }
        server.stop();
        row.stop_with_flows();
    }
}

#[test]
fn trains_of_datagrams_arrive_whole() {
    let echo = Datagrams::echo();
    let row = Row::new(2, &[echo.address]);
    let server = serve(&fixed("udp", &row.hops(), echo.address));
    let (socket, at) = (socket(), access_address(&server, "udp"));
    let mut buffer = vec![0; 1 << 16];
    for train in 0..40_u8 {
        for wagon in 0..32_u8 {
            let mut datagram = vec![train; 1200];
            datagram[0] = wagon;
            socket.send_to(&datagram, at).unwrap();
        }
        for wagon in 0..32_u8 {
            let (length, _) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((length, buffer[0], buffer[1]), (1200, wagon, train));
        }
    }
    server.stop();
    row.stop_with_flows();
}

#[test]
fn an_error_datagram_kills_no_flow_and_reaches_no_client() {
    let refusing = Unreceptive::new();
    let echo = Datagrams::echo();
    let row = Row::new(2, &[refusing.address, echo.address]);
    let tables = fixed("udp", &row.hops(), refusing.address)
        + &access(
            "good",
            "udp",
            &[
                format!("via = {}", via(&row.hops())),
                format!("to = \"{}\"", echo.address),
            ],
        );
    let server = Setup::new()
        .flag("--log")
        .flag("debug")
        .tables(&tables)
        .start();
    let socket = socket();
    for _ in 0..5 {
        socket
            .send_to(b"lost", access_address(&server, "udp"))
            .unwrap();
    }
    let good = access_address(&server, "good");
    for _ in 0..5 {
        socket.send_to(b"found", good).unwrap();
        let (length, from) = socket.recv_from(&mut [0; 100]).unwrap();
        assert_eq!((length, from), (5, good), "the first that comes is this");
    }
    let second = row.hops()[1].address;
    let line = format!("hop 2 ({second}): destination refused");
    crate::support::until("the log tells of it", || server.log().contains(&line));
    server.stop();
    row.stop_with_flows();
}
