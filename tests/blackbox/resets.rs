//! RST at every state of a connection: it is passed on where there is somebody to pass it on to,
//! it costs nobody else anything, and nothing stays behind.

use std::sync::mpsc::{Receiver, channel};

use crate::support::DEADLINE;
use crate::support::backend::{Backend, BlackHole};
use crate::support::frame::{self, DIALECTS, Dialect};
use crate::support::peer::End;
use crate::support::reference::Reference;
use crate::support::route::Route;
use crate::support::server::{Server, Setup};

/// A server with an echo, and a reference connection through it, around `act`.
fn beside_a_reference(rounds: usize, act: impl Fn(&Server)) {
    let echo = Backend::echo();
    let hole = BlackHole::new();
    let server = Setup::to(echo.address)
        .limit("handshake_timeout = \"60s\"")
        .limit("connect_timeout = \"60s\"")
        .route(Route::new("hole").host("x", hole.address))
        .start();
    let reference = Reference::start(server.open());
    for _ in 0..rounds {
        act(&server);
    }
    server.expect_open(2);
    reference.expect_undisturbed();
    server.expect_alive();
    server.stop();
}

#[test]
fn reset_right_after_the_connect() {
    beside_a_reference(200, |server| server.connect().reset());
}

#[test]
fn reset_inside_the_header() {
    beside_a_reference(50, |server| {
        for dialect in DIALECTS {
            let mut peer = server.connect();
            peer.send(&dialect.query(b"id", b"s")[..7]).settle();
            peer.reset();
        }
    });
}

#[test]
fn reset_inside_the_payload() {
    beside_a_reference(50, |server| {
        for dialect in DIALECTS {
            let mut peer = server.connect();
            peer.send(&dialect.query(b"id", b"s")[..40]).settle();
            peer.reset();
        }
    });
}

#[test]
fn reset_with_the_reply_unread() {
    beside_a_reference(50, |server| {
        for dialect in DIALECTS {
            let mut peer = server.connect();
            peer.send(dialect.update(b"id", b"s", b"v"));
            peer.reset();
        }
    });
}

#[test]
fn reset_while_waiting_for_a_key() {
    beside_a_reference(50, |server| {
        let mut peer = server.connect();
        peer.send(frame::query_wait(b"never", b"s", 60)).settle();
        peer.reset();
    });
}

#[test]
fn reset_while_the_backend_is_dialled() {
    beside_a_reference(50, |server| {
        for dialect in DIALECTS {
            let mut peer = server.connect();
            peer.send(dialect.traffic(b"hole", b"x", b"")).settle();
            peer.reset();
        }
    });
}

#[test]
fn reset_while_relaying() {
    beside_a_reference(100, |server| {
        let mut peer = server.open();
        peer.send(b"ping").expect(b"ping");
        peer.reset();
    });
}

#[test]
fn reset_after_the_own_end() {
    beside_a_reference(100, |server| {
        let mut peer = server.open();
        peer.send(b"ping").expect(b"ping").finish();
        peer.reset();
    });
}

/// A backend that waits for a word and tells how its connection ended.
fn witness() -> (Backend, Receiver<End>) {
    let (sender, ends) = channel();
    let backend = Backend::serve(move |mut peer, _| {
        peer.expect(b"hello").send(b"hello");
        let _ = sender.send(peer.rest().1);
    });
    (backend, ends)
}

/// A backend that answers a word and then resets.
fn resetting(after_end: bool) -> Backend {
    Backend::serve(move |mut peer, _| {
        peer.expect(b"hello").send(b"hello");
        if after_end {
            peer.rest();
        } else {
            // The client's second word says that it has read the first one.
            peer.expect(b"now");
        }
        peer.reset();
    })
}

#[test]
fn a_clients_reset_reaches_the_backend_as_a_reset() {
    let (backend, ends) = witness();
    let server = Setup::to(backend.address).start();
    for dialect in DIALECTS {
        for _ in 0..10 {
            let mut peer = server.relay(dialect, "svc", "x", "");
            peer.send(b"hello").expect(b"hello");
            peer.reset();
            assert_eq!(ends.recv_timeout(DEADLINE).unwrap(), End::Reset);
        }
    }
    server.stop();
}

#[test]
fn a_clients_fin_reaches_the_backend_as_a_fin() {
    let (backend, ends) = witness();
    let server = Setup::to(backend.address).start();
    let mut peer = server.relay(Dialect::Stock, "svc", "x", "");
    peer.send(b"hello").expect(b"hello").finish();
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap(), End::Fin);
    peer.expect_end();
    server.stop();
}

#[test]
fn a_backends_reset_reaches_the_client_as_a_reset() {
    let backend = resetting(false);
    let server = Setup::to(backend.address).start();
    for dialect in DIALECTS {
        for _ in 0..10 {
            let mut peer = server.relay(dialect, "svc", "x", "");
            peer.send(b"hello").expect(b"hello").send(b"now");
            peer.expect_reset();
        }
    }
    server.stop();
}

#[test]
fn a_backends_reset_reaches_a_client_that_has_ended_its_direction() {
    let backend = resetting(true);
    let server = Setup::to(backend.address).start();
    for _ in 0..10 {
        let mut peer = server.open();
        peer.send(b"hello").expect(b"hello").finish();
        peer.expect_reset();
    }
    server.stop();
}

/// A backend that says when it has seen the client's end, and then keeps silent.
fn speechless() -> (Backend, Receiver<End>) {
    let (sender, ends) = channel();
    let backend = Backend::serve(move |mut peer, _| {
        let first = peer.rest().1;
        let _ = sender.send(first);
        let gone = peer.stream();
        crate::support::until("the reset comes", || gone.take_error().unwrap().is_some());
        let _ = sender.send(End::Reset);
    });
    (backend, ends)
}

#[test]
fn a_reset_after_the_own_end_reaches_a_backend_that_says_nothing() {
    let (backend, ends) = speechless();
    for way in ["auto", "splice"] {
        let server = Setup::to(backend.address)
            .top("workers = 1")
            .top(&format!("relay = \"{way}\""))
            .start();
        for _ in 0..5 {
            let mut peer = server.open();
            peer.finish();
            assert_eq!(ends.recv_timeout(DEADLINE).unwrap(), End::Fin);
            peer.reset();
            assert_eq!(ends.recv_timeout(DEADLINE).unwrap(), End::Reset);
        }
        // A pair that was spliced leaves an empty pipe behind for the next one.
        server.expect_open(if way == "splice" { 2 } else { 0 });
        server.stop();
    }
}

#[test]
fn reset_while_draining_lets_the_drain_end() {
    let backend = Backend::echo();
    let mut server = Setup::to(backend.address)
        .limit("drain_timeout = \"60s\"")
        .start();
    let mut peer = server.open();
    peer.send(b"ping").expect(b"ping");
    server.signal("TERM");
    crate::support::until("the server refuses new clients", || {
        std::net::TcpStream::connect(server.address).is_err()
    });
    peer.send(b"ping").expect(b"ping");
    peer.reset();
    assert_eq!(server.ended(), Some(0), "{}", server.log());
}
