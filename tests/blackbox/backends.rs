//! Backends that refuse, hang, fall silent, close, speak first, or have no address; and lists of
//! them.

use std::net::{Ipv6Addr, TcpListener};
use std::sync::mpsc::channel;
use std::time::Instant;

use crate::support::DEADLINE;
use crate::support::backend::{Backend, BlackHole, Refusing, echo};
use crate::support::bulk::Numbers;
use crate::support::frame::{DIALECTS, Dialect};
use crate::support::peer::End;
use crate::support::reference::Reference;
use crate::support::route::Route;
use crate::support::server::{Server, Setup};

/// Every dialect is closed without a byte when it asks for `svc`.
fn expect_closed(server: &Server) {
    for dialect in DIALECTS {
        let mut peer = server.connect();
        peer.send(dialect.traffic(b"svc", b"x", b""));
        peer.expect_closed();
    }
    server.expect_alive();
}

#[test]
fn a_refused_backend_closes_the_client_without_a_byte() {
    let refusing = Refusing::new();
    let server = Setup::to(refusing.address).start();
    for _ in 0..20 {
        expect_closed(&server);
    }
    server.expect_open(0);
}

#[test]
fn a_backend_that_never_answers_closes_the_client_within_the_connect_timeout() {
    let hole = BlackHole::new();
    let server = Setup::to(hole.address)
        .limit("connect_timeout = \"500ms\"")
        .start();
    let start = Instant::now();
    let mut peer = server.connect();
    peer.send(Dialect::Stock.traffic(b"svc", b"x", b""))
        .expect_closed();
    assert!(start.elapsed().as_millis() >= 400, "{:?}", start.elapsed());
    assert!(start.elapsed() < DEADLINE);
    expect_closed(&server);
}

#[test]
fn a_name_without_an_address_closes_the_client_and_disturbs_nobody() {
    let backend = Backend::echo();
    let server = Setup::new()
        .route(Route::new("svc").named("x", "no-such-host.invalid", 80))
        .route(Route::new("good").host("x", backend.address))
        .start();
    let reference = Reference::start(server.relay(Dialect::Stock, "good", "x", ""));
    for _ in 0..10 {
        expect_closed(&server);
    }
    reference.expect_undisturbed();
}

#[test]
fn a_name_with_an_address_is_dialled() {
    let backend = Backend::echo();
    let port = backend.address.port();
    let server = Setup::new()
        .route(Route::new("svc").named("x", "localhost", port))
        .start();
    for _ in 0..5 {
        let mut peer = server.relay(Dialect::Stock, "svc", "x", "");
        peer.send(b"by name")
            .expect(b"by name")
            .finish()
            .expect_end();
    }
}

#[test]
fn a_backend_is_reached_by_ipv6() {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        eprintln!("this machine has no IPv6 loopback");
        return;
    };
    let backend = Backend::serve_on(listener, |peer, _| echo(peer));
    let server = Setup::to(backend.address).start();
    server
        .open()
        .send(b"six")
        .expect(b"six")
        .finish()
        .expect_end();
}

#[test]
fn the_next_of_a_list_is_tried_whatever_ails_the_first() {
    let backend = Backend::echo();
    let refusing = Refusing::new();
    let hole = BlackHole::new();
    let port = backend.address.port();
    let good = backend.address;
    let lists = [
        Route::new("svc").hosts("x", &[refusing.address, good]),
        Route::new("svc").hosts("x", &[hole.address, good]),
        Route::new("svc").hosts("x", &[refusing.address, hole.address, good]),
        Route::new("svc")
            .named("x", "no-such-host.invalid", 80)
            .named("x", "127.0.0.1", port),
    ];
    for list in lists {
        let server = Setup::new()
            .limit("connect_timeout = \"300ms\"")
            .route(list.clone())
            .start();
        for dialect in DIALECTS {
            for _ in 0..5 {
                let mut peer = server.relay(dialect, "svc", "x", "");
                peer.send(b"through")
                    .expect(b"through")
                    .finish()
                    .expect_end();
            }
        }
        server.stop();
    }
}

#[test]
fn a_list_of_which_none_answers_closes_the_client() {
    let [one, two] = [Refusing::new(), Refusing::new()];
    let hole = BlackHole::new();
    let list = Route::new("svc").hosts("x", &[one.address, hole.address, two.address]);
    let server = Setup::new()
        .limit("connect_timeout = \"300ms\"")
        .route(list)
        .start();
    expect_closed(&server);
    // Again: a backend that is skipped for a while must not make a hang of its list.
    expect_closed(&server);
}

#[test]
fn a_list_is_used_in_turn() {
    let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let list = Route::new("svc").hosts("x", &addresses);
    let server = Setup::new().top("workers = 1").route(list).start();
    for _ in 0..30 {
        let mut peer = server.relay(Dialect::Stock, "svc", "x", "");
        peer.send(b"turn").expect(b"turn").finish().expect_end();
    }
    assert_eq!(backends.each_ref().map(Backend::accepted), [10, 10, 10]);
}

#[test]
fn a_backend_that_failed_is_skipped_for_a_while() {
    let refusing = Refusing::new();
    let good = Backend::echo();
    let list = Route::new("svc").hosts("x", &[refusing.address, good.address]);
    let server = Setup::new().top("workers = 1").route(list).start();
    let visit = || {
        let mut peer = server.relay(Dialect::Stock, "svc", "x", "");
        peer.send(b"turn").expect(b"turn").finish().expect_end();
    };
    // One of two in a row starts at the refusing one and finds it out.
    visit();
    visit();
    // It opens now, but within the while nobody asks it.
    let risen = Backend::serve_on(refusing.open(), |peer, _| echo(peer));
    visit();
    visit();
    assert_eq!((good.accepted(), risen.accepted()), (4, 0));
}

#[test]
fn a_silent_backend_keeps_the_relay_open_until_the_client_goes() {
    let backend = Backend::silent();
    let server = Setup::to(backend.address).start();
    let mut peers: Vec<_> = (0..10).map(|_| server.open()).collect();
    for peer in &mut peers {
        peer.send(b"anybody there?");
    }
    server.expect_alive();
    server.expect_open(20);
    drop(peers);
    server.expect_open(0);
}

#[test]
fn a_backend_that_closes_at_once_ends_the_client_after_the_greeting() {
    let backend = Backend::closes();
    let server = Setup::to(backend.address).start();
    for _ in 0..20 {
        let mut peer = server.open();
        peer.expect_closed();
    }
    // A client that has already sent something may see RST, as the backend's kernel decides.
    for _ in 0..20 {
        let mut peer = server.connect();
        peer.send([Dialect::Stock.traffic(b"svc", b"x", b""), b"early".to_vec()].concat());
        let (bytes, end) = peer.rest();
        assert!(
            bytes == b"ok" || (bytes.is_empty() && end == End::Reset),
            "{bytes:?} {end:?}"
        );
    }
    server.expect_alive();
}

#[test]
fn a_backend_that_speaks_first_is_heard_behind_the_greeting() {
    let backend = Backend::banner("220 ready\r\n");
    let server = Setup::to(backend.address).start();
    for dialect in DIALECTS {
        let mut peer = server.relay(dialect, "svc", "x", "");
        peer.expect(b"220 ready\r\n")
            .send(b"QUIT")
            .expect(b"QUIT")
            .finish()
            .expect_end();
    }
}

#[test]
fn a_backend_that_closes_with_a_last_word_is_heard_to_the_end() {
    let word = vec![b'w'; 100_000];
    let last = word.clone();
    let backend = Backend::serve(move |mut peer, _| {
        peer.try_send(&last);
    });
    let server = Setup::to(backend.address).start();
    for dialect in DIALECTS {
        let mut peer = server.relay(dialect, "svc", "x", "");
        let (bytes, end) = peer.rest();
        assert!(bytes == word, "{} of {} bytes", bytes.len(), word.len());
        assert_eq!(end, End::Fin);
    }
}

#[test]
fn nothing_is_sent_to_the_backend_but_the_clients_own_bytes() {
    let (sender, heard) = channel();
    let backend = Backend::serve(move |mut peer, _| sender.send(peer.rest()).unwrap());
    let server = Setup::to(backend.address).start();
    for dialect in DIALECTS {
        let mut peer = server.connect();
        peer.send(dialect.traffic(b"svc", b"x", b"")).finish();
        peer.expect(dialect.greeting()).expect_end();
        assert_eq!(
            heard.recv_timeout(DEADLINE).unwrap(),
            (Vec::new(), End::Fin)
        );
    }
}

#[test]
fn what_a_client_sends_and_ends_while_the_backend_is_dialled_is_not_lost() {
    let question = Numbers::new(11).bytes(1_000_000);
    let expected = question.clone();
    let backend = Backend::serve(move |mut peer, _| {
        let (bytes, end) = peer.rest();
        assert!(
            bytes == expected && end == End::Fin,
            "{} bytes, {end:?}",
            bytes.len()
        );
        peer.send(b"all there");
    });
    let hole = BlackHole::new();
    // The first address takes its whole time, in which the client has said everything.
    let list = Route::new("svc").hosts("x", &[hole.address, backend.address]);
    let server = Setup::new()
        .limit("connect_timeout = \"500ms\"")
        .route(list)
        .start();
    for dialect in DIALECTS {
        let mut peer = server.connect();
        let mut twin = peer.twin();
        let bytes = [&dialect.traffic(b"svc", b"x", b""), &question[..]].concat();
        let sending = std::thread::spawn(move || {
            twin.send(bytes).finish();
        });
        peer.expect(dialect.greeting())
            .expect(b"all there")
            .expect_end();
        sending.join().unwrap();
    }
}
