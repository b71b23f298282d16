//! Relayed bytes: every one arrives, once, in order; each direction ends by itself; a reader that
//! stops holds up its own relay only.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::bulk::{self, Hash, Numbers};
use crate::support::frame::{DIALECTS, Dialect};
use crate::support::peer::{End, Peer};
use crate::support::reference::Reference;
use crate::support::route::Route;
use crate::support::server::Setup;
use crate::support::window::{paced, standing_still};
use crate::support::{DEADLINE, kernel, until};

const MEBIBYTE: usize = 1024 * 1024;

/// Sends and receives at once over one connection: the hash of what went, and what came.
fn exchange(peer: Peer, seed: u64, total: usize) -> (Hash, (usize, Hash)) {
    let mut reader = peer.twin();
    let mut writer = peer;
    let sending = thread::spawn(move || bulk::send(&mut writer, seed, total));
    let came = bulk::receive(&mut reader);
    (sending.join().unwrap(), came)
}

/// A backend that never stops sending, and how many bytes it got rid of so far.
fn flood() -> (Backend, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let backend = Backend::serve(move |peer, _| {
        use std::io::Write;
        let block = [b'f'; 16 * 1024];
        // Longer than any test, so that a full window does not end the flood.
        peer.stream().set_write_timeout(None).unwrap();
        while let Ok(more @ 1..) = peer.stream().write(&block) {
            count.fetch_add(more as u64, Ordering::SeqCst);
        }
    });
    (backend, sent)
}

#[test]
fn sixty_four_mebibytes_go_each_way_at_once_beside_a_slow_reader() {
    let total = 64 * MEBIBYTE;
    let (sender, results) = channel();
    let sink = Backend::serve(move |peer, _| sender.send(exchange(peer, 2, total)).unwrap());
    let (flood, _) = flood();
    let echo = Backend::echo();
    let server = Setup::new()
        .route(Route::new("bulk").host("x", sink.address))
        .route(Route::new("flood").host("x", flood.address))
        .route(Route::new("svc").host("x", echo.address))
        .start();
    // The slow reader takes a little now and then, and never catches up.
    let mut slow = server.relay(Dialect::Stock, "flood", "x", "");
    let reference = Reference::start(server.open());
    let client = server.relay(Dialect::Stock, "bulk", "x", "");
    let bulk = thread::spawn(move || exchange(client, 1, total));
    paced(Duration::from_millis(20), || {
        slow.take(1024);
        !bulk.is_finished()
    });
    let (up, came_down) = bulk.join().unwrap();
    let (down, came_up) = results.recv_timeout(DEADLINE).unwrap();
    assert!(
        came_up == (total, up),
        "what the client sent is not what the backend got"
    );
    assert!(
        came_down == (total, down),
        "what the backend sent is not what the client got"
    );
    reference.expect_undisturbed();
    drop(slow);
    server.stop();
}

#[test]
fn a_reader_that_stops_holds_up_its_sender_and_not_the_memory() {
    let (flood, sent) = flood();
    let server = Setup::to(flood.address).start();
    server.expect_alive();
    let before = kernel::resident_bytes(server.process());
    let stopped: Vec<Peer> = (0..20).map(|_| server.open()).collect();
    // The flood stands still once every buffer on the way is full.
    until("the flood runs", || sent.load(Ordering::SeqCst) > 0);
    standing_still("the flood stands still", || sent.load(Ordering::SeqCst));
    let growth = kernel::resident_bytes(server.process()).saturating_sub(before);
    assert!(
        growth < 20 * MEBIBYTE as u64,
        "{growth} bytes for {} relays",
        stopped.len()
    );
    server.expect_alive();
}

#[test]
fn a_client_that_ends_first_still_gets_the_whole_answer() {
    let question = Numbers::new(3).bytes(100_000);
    let answer = Numbers::new(4).bytes(100_000);
    let (expected, reply) = (question.clone(), answer.clone());
    // The backend answers only when it has seen the client's end.
    let backend = Backend::serve(move |mut peer, _| {
        let (bytes, end) = peer.rest();
        assert!(bytes == expected && end == End::Fin);
        peer.send(&reply);
    });
    let server = Setup::to(backend.address).start();
    for dialect in DIALECTS {
        let mut peer = server.relay(dialect, "svc", "x", "");
        peer.send(&question).finish();
        let (bytes, end) = peer.rest();
        assert!(
            bytes == answer && end == End::Fin,
            "{} bytes, {end:?}",
            bytes.len()
        );
    }
}

#[test]
fn a_backend_that_ends_first_still_gets_the_whole_request() {
    let first = Numbers::new(5).bytes(100_000);
    let second = Numbers::new(6).bytes(100_000);
    let greeting = first.clone();
    let (sender, heard) = channel();
    let backend = Backend::serve(move |mut peer, _| {
        peer.send(&greeting).finish();
        sender.send(peer.rest()).unwrap();
    });
    let server = Setup::to(backend.address).start();
    for dialect in DIALECTS {
        let mut peer = server.relay(dialect, "svc", "x", "");
        let (bytes, end) = peer.rest();
        assert!(bytes == first && end == End::Fin);
        // The client speaks only after it has seen the backend's end.
        peer.send(&second).finish();
        let (bytes, end) = heard.recv_timeout(DEADLINE).unwrap();
        assert!(
            bytes == second && end == End::Fin,
            "{} bytes, {end:?}",
            bytes.len()
        );
    }
}

#[test]
fn bytes_behind_the_request_are_relayed_first() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).start();
    let early = Numbers::new(7).bytes(300_000);
    for dialect in DIALECTS {
        for length in [1, 21, 4096, early.len()] {
            let mut peer = server.connect();
            let request = dialect.traffic(b"svc", b"x", b"");
            let mut twin = peer.twin();
            let bytes = [&request, &early[..length]].concat();
            let sending = thread::spawn(move || {
                twin.send(bytes).send(b"late").finish();
            });
            peer.expect(dialect.greeting());
            assert!(
                peer.take(length) == early[..length],
                "{dialect:?}, {length} bytes"
            );
            peer.expect(b"late").expect_end();
            sending.join().unwrap();
        }
    }
}

#[test]
fn a_traffic_request_behind_agent_frames_relays() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).start();
    for dialect in DIALECTS {
        let mut peer = server.connect();
        let frames = [
            dialect.update(b"id", b"s", b"v"),
            dialect.query(b"id", b"s"),
            dialect.traffic(b"svc", b"x", b""),
            b"raw".to_vec(),
        ];
        peer.send(frames.concat());
        peer.reply(dialect).expect_done(b"update");
        assert_eq!(peer.reply(dialect).record(dialect).1, b"v");
        peer.expect(dialect.greeting())
            .expect(b"raw")
            .finish()
            .expect_end();
    }
}

#[test]
fn what_looks_like_a_frame_is_relayed_as_it_is() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).start();
    let looks = [
        Dialect::Stock.sniff(),
        Dialect::Stock.traffic(b"svc", b"x", b""),
    ]
    .concat();
    let mut peer = server.open();
    peer.send(&looks).expect(&looks).finish().expect_end();
}

#[test]
fn a_request_that_arrives_byte_by_byte_relays() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).start();
    for dialect in DIALECTS {
        let request = dialect.traffic(b"svc", b"x", b"");
        for at in 1..request.len() {
            let mut peer = server.connect();
            peer.send(&request[..at]).settle();
            peer.send(&request[at..]).send(b"ping");
            peer.expect(dialect.greeting()).expect(b"ping");
            peer.finish().expect_end();
        }
    }
}

#[test]
fn single_bytes_pass_to_and_fro_without_delay() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).start();
    let mut peer = server.open();
    let round = |number: u32| {
        let byte = [number.to_le_bytes()[0]];
        let start = std::time::Instant::now();
        peer.send(byte).expect(byte);
        start.elapsed()
    };
    let mut times: Vec<_> = (0..500).map(round).collect();
    times.sort();
    // With Nagle and delayed acknowledgement in the way, each takes 40 ms and more; on a busy machine
    // most may, but not all.
    let quick = times[times.len() / 4];
    assert!(quick < Duration::from_millis(20), "{quick:?}");
}

#[test]
fn a_quiet_relay_ends_at_the_idle_timeout_and_a_busy_one_does_not() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address)
        .limit("idle_timeout = \"3s\"")
        .start();
    let reference = Reference::start(server.open());
    let mut quiet = server.open();
    quiet.send(b"last word").expect(b"last word");
    let start = std::time::Instant::now();
    let mut buffer = [0; 16];
    match quiet.some(&mut buffer) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
    assert!(
        start.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        start.elapsed()
    );
    reference.expect_undisturbed();
}

#[test]
fn little_buffer_memory_slows_relays_but_starves_none() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address)
        .limit("max_buffer_memory = \"1M\"")
        .start();
    let clients: Vec<_> = (0..50)
        .map(|seed| {
            let peer = server.open();
            thread::spawn(move || exchange(peer, seed, MEBIBYTE))
        })
        .collect();
    for client in clients {
        let (sent, came) = client.join().unwrap();
        assert!(came == (MEBIBYTE, sent), "the echo is not what was sent");
    }
    server.expect_alive();
    server.expect_open(0);
    server.stop();
}
