//! Clients that take and give nothing: slow ones, silent ones, too many of them.

use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::frame::Dialect;
use crate::support::kernel;
use crate::support::peer::Peer;
use crate::support::reference::Reference;
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::window::{expect_calm, paced, standing_still};

const WIDE: Dialect = Dialect::Stock;

fn hasty(backend: &Backend) -> Server {
    Setup::to(backend.address)
        .limit("handshake_timeout = \"1s\"")
        .start()
}

/// Fails unless the peer, connected at `start`, is closed by the timeout: not by half of it, and
/// at some time. How long after it depends on the machine's other work.
fn expect_timed_out(peer: &mut Peer, start: Instant) {
    peer.expect_closed();
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn two_hundred_silent_clients_are_closed_at_the_handshake_timeout() {
    kernel::raise_own_descriptor_limit();
    let backend = Backend::echo();
    let server = hasty(&backend);
    let reference = Reference::start(server.open());
    let mut silent: Vec<_> = (0..200)
        .map(|_| {
            let start = Instant::now();
            (server.connect(), start)
        })
        .collect();
    for (peer, start) in &mut silent {
        expect_timed_out(peer, *start);
    }
    server.expect_open(2);
    reference.expect_undisturbed();
    server.stop();
}

#[test]
fn two_hundred_trickling_clients_are_closed_at_the_handshake_timeout() {
    kernel::raise_own_descriptor_limit();
    let backend = Backend::echo();
    let server = hasty(&backend);
    let reference = Reference::start(server.open());
    // A good frame, a byte now and then: each byte is progress, the whole would take a minute.
    let frame = WIDE.update(b"id", b"s", &[b'v'; 1000]);
    let mut peers: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let start = Instant::now();
    let mut frame = frame.into_iter();
    paced(Duration::from_millis(60), || {
        let byte = frame.next().expect("clients are closed while they trickle");
        let sends = peers.iter_mut().map(|peer| peer.try_send(&[byte]));
        sends.filter(|sent| *sent).count() > 0
    });
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    for peer in &mut peers {
        // The write after the close has met RST, so the end reads as one or the other.
        peer.expect_closed();
    }
    server.expect_open(2);
    reference.expect_undisturbed();
    server.stop();
}

#[test]
fn a_frame_that_stops_inside_its_payload_is_closed_at_the_handshake_timeout() {
    let backend = Backend::echo();
    let server = hasty(&backend);
    for dialect in crate::support::frame::DIALECTS {
        let frame = dialect.update(b"id", b"s", b"value");
        for length in [1, 5, dialect.header(), frame.len() - 1] {
            let start = Instant::now();
            let mut peer = server.connect();
            peer.send(&frame[..length]);
            expect_timed_out(&mut peer, start);
        }
    }
}

#[test]
fn the_next_frame_of_a_connection_has_the_same_time_as_its_first() {
    let backend = Backend::echo();
    let server = hasty(&backend);
    let narrow = Dialect::Document;
    let query = narrow.query(b"id", b"s");
    let mut peer = server.connect();
    peer.ask(narrow, &query).expect_missing(narrow);
    let start = Instant::now();
    peer.send(&query[..20]);
    expect_timed_out(&mut peer, start);
}

#[test]
fn a_connection_that_falls_silent_between_frames_ends_at_the_idle_timeout() {
    let limits = ["handshake_timeout = \"60s\"", "idle_timeout = \"1s\""];
    let setup = limits
        .iter()
        .fold(Setup::new(), |setup, limit| setup.limit(limit));
    let server = setup.start();
    let narrow = Dialect::Document;
    let mut peer = server.connect();
    let start = Instant::now();
    peer.ask(narrow, &narrow.query(b"id", b"s"))
        .expect_missing(narrow);
    expect_timed_out(&mut peer, start);
}

#[test]
fn a_client_that_asks_much_and_reads_nothing_costs_little() {
    let server = Setup::new().start();
    let narrow = Dialect::Document;
    let value = vec![b'v'; 400_000];
    server.store(b"large", b"s", &value);
    let before = kernel::resident_bytes(server.process());
    let mut peer = server.connect();
    peer.send(narrow.query(b"large", b"s").repeat(200));
    // The server is done with what it will do when an other client has been served thrice over.
    for _ in 0..3 {
        server.expect_alive();
    }
    let after = standing_still("the memory stands still", || {
        kernel::resident_bytes(server.process())
    });
    let growth = after.saturating_sub(before);
    assert!(
        growth < 16 * 1024 * 1024,
        "{growth} bytes for 80 MB of replies"
    );
    for _ in 0..200 {
        assert!(peer.reply(narrow).record(narrow).1 == value);
    }
    peer.finish().expect_end();
}

#[test]
fn the_handshake_timeout_leaves_relays_and_waits_alone() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address)
        .limit("handshake_timeout = \"2s\"")
        .start();
    let mut relay = server.open();
    let mut waiter = server.connect();
    waiter.send(crate::support::frame::query_wait(b"id", b"s", 4));
    waiter.reply(WIDE).expect_missing(WIDE);
    relay
        .send(b"still here")
        .expect(b"still here")
        .finish()
        .expect_end();
}

/// Clients that hold a place each: the server has taken their first byte.
fn holders(server: &Server, count: usize) -> Vec<Peer> {
    let mut held: Vec<_> = (0..count).map(|_| server.connect()).collect();
    for peer in &mut held {
        peer.send(b"h").settle();
    }
    held
}

/// One worker: two may race for the last place, and the loser's client is turned away.
fn capped(backend: &Backend, key: &str) -> Server {
    Setup::to(backend.address)
        .top("workers = 1")
        .limit(&format!("{key} = 10"))
        .limit("handshake_timeout = \"60s\"")
        .start()
}

#[test]
fn clients_above_the_cap_wait_for_room_and_are_served_then() {
    let backend = Backend::echo();
    let server = capped(&backend, "max_connections");
    let held = holders(&server, 10);
    let mut queued: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for peer in &mut queued {
        peer.send(WIDE.sniff());
    }
    server.expect_open(10);
    for peer in held {
        peer.reset();
    }
    for peer in &mut queued {
        assert_eq!(peer.reply(WIDE).command, b"sniff");
        peer.expect_end();
    }
    server.expect_open(0);
    server.stop();
}

#[test]
fn a_client_that_does_not_read_its_last_reply_keeps_its_place() {
    let server = Setup::new()
        .top("workers = 1")
        .limit("max_connections = 4")
        .start();
    let base = kernel::descriptors(server.process());
    server.store(b"large", b"s", &vec![b'v'; 500_000]);
    // However much the kernel takes of the replies, the last bytes of one of these sessions wait in
    // the server when it has ended.
    let mut held = Vec::new();
    for count in 1..=40 {
        let mut peer = server.connect();
        let few = WIDE.query(b"large", b"s").repeat(count % 10 + 1);
        peer.send(few).finish();
        held.push(peer);
    }
    // Each of the four may have all of its descriptors open, and nobody else.
    let mut looks = 0;
    paced(Duration::from_millis(10), || {
        let open = kernel::descriptors(server.process());
        assert!(open <= base + 4, "{open} descriptors");
        looks += 1;
        looks < 50
    });
    drop(held);
    server.expect_open(0);
    server.stop();
}

#[test]
fn clients_of_one_address_above_its_cap_are_closed_and_room_is_reused() {
    let backend = Backend::echo();
    let server = capped(&backend, "max_connections_per_ip");
    let held = holders(&server, 10);
    for _ in 0..20 {
        server.connect().expect_closed();
    }
    for peer in held {
        peer.reset();
    }
    server.expect_open(0);
    server.expect_alive();
    server.stop();
}

/// Leaves the running server room for 30 more descriptors; its own count of what it may open was
/// made before, so that only the kernel's refusal stops it.
fn starve(server: &Server) {
    let most = kernel::descriptors(server.process()) + 30;
    kernel::set_limit(server.process(), &format!("--nofile={most}:{most}"));
}

#[test]
fn running_out_of_descriptors_costs_no_processor_time_and_passes() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address)
        .top("workers = 2")
        .limit("handshake_timeout = \"60s\"")
        .start();
    let mut relay = server.open();
    relay.send(b"before").expect(b"before");
    starve(&server);
    let start = Instant::now();
    let clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let complaints = || {
        let log = server.log();
        log.lines().filter(|line| line.contains("WARN")).count()
    };
    until("the log tells what is wrong", || complaints() >= 1);
    expect_calm(server.process(), 99);
    relay.send(b"during").expect(b"during");
    let complaints = complaints();
    let seconds = start.elapsed().as_secs_f64();
    // Five a second from each of the two cores.
    assert!(
        complaints as f64 <= 10.0 * (seconds + 1.0),
        "{complaints} lines in {seconds} s"
    );
    drop(clients);
    let left = Instant::now();
    server.expect_served_again();
    eprintln!("served {:?} after the clients left", left.elapsed());
    // Rests are of half a second at most. Nothing here is waited for that takes as long as this.
    assert!(
        left.elapsed() < Duration::from_secs(15),
        "{:?}",
        left.elapsed()
    );
    server.expect_open(2);
    relay.send(b"after").expect(b"after").finish().expect_end();
    server.stop();
}

#[test]
fn running_out_of_descriptors_while_dialling_closes_those_clients_only() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).start();
    let mut relay = server.open();
    starve(&server);
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let mut peer = server.connect();
            peer.try_send(&WIDE.traffic(b"svc", b"x", b""));
            peer
        })
        .collect();
    relay.send(b"during").expect(b"during");
    drop(clients);
    server.expect_served_again();
    // A route needs two descriptors: those of the clients that left are all free from here on.
    server.expect_open(2);
    server
        .open()
        .send(b"ping")
        .expect(b"ping")
        .finish()
        .expect_end();
    server.expect_open(2);
    relay.send(b"after").expect(b"after").finish().expect_end();
    server.stop();
}

#[test]
fn a_server_that_may_open_little_serves_as_many_as_fit() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address)
        .wrapper(&["prlimit", "--nofile=64:64", "--"])
        .start();
    let clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    drop(clients);
    // While they are still being forgotten, somebody may be turned away.
    server.expect_served_again();
    server.expect_open(0);
    server
        .open()
        .send(b"ping")
        .expect(b"ping")
        .finish()
        .expect_end();
    server.expect_open(0);
    server.stop();
}
