//! Queries that wait for their key.

use std::time::{Duration, Instant};

use crate::support::frame::{self, AGENT, Dialect};
use crate::support::peer::Peer;
use crate::support::server::{Server, Setup};

const WIDE: Dialect = Dialect::Stock;

/// A client whose query with a wait the server has taken: the reply to the frame in front of it
/// is here, and both came in one segment.
fn waiting(server: &Server, id: &[u8], seconds: i32) -> Peer {
    let mut peer = server.connect();
    peer.send([WIDE.sniff(), frame::query_wait(id, b"s", seconds)].concat());
    assert_eq!(peer.reply(WIDE).command, b"sniff");
    peer.settle();
    peer
}

#[test]
fn a_waiting_query_is_woken_by_the_update() {
    let server = Setup::new().start();
    // The deadline of every read is far below the wait, so only the update can end it.
    let mut peer = waiting(&server, b"late", 60);
    server.store(b"late", b"s", b"v");
    let reply = peer.reply(WIDE);
    assert_eq!(
        (reply.code, reply.record(WIDE).1.as_slice()),
        (0, &b"v"[..])
    );
    peer.expect_end();
}

#[test]
fn one_update_wakes_every_client_that_waits_for_its_key_and_no_other() {
    let server = Setup::new().start();
    let mut waiters: Vec<Peer> = (0..64).map(|_| waiting(&server, b"wanted", 60)).collect();
    let mut other = waiting(&server, b"other", 60);
    server.store(b"wanted", b"another section", b"x");
    server.store(b"wanted", b"s", b"v");
    for peer in &mut waiters {
        assert_eq!(peer.reply(WIDE).record(WIDE).1, b"v");
        peer.expect_end();
    }
    // The other client's first reply is that of its own key.
    server.store(b"other", b"s", b"its own");
    assert_eq!(other.reply(WIDE).record(WIDE).1, b"its own");
}

#[test]
fn removing_what_is_not_there_does_not_wake() {
    let server = Setup::new().start();
    let mut peer = waiting(&server, b"id", 60);
    server
        .connect()
        .ask(WIDE, &frame::remove(b"id", b"s"))
        .expect_done(b"update");
    server.store(b"id", b"s", b"v");
    assert_eq!(peer.reply(WIDE).record(WIDE).1, b"v");
}

#[test]
fn a_key_that_is_there_is_answered_at_once_and_a_negative_wait_is_none() {
    let server = Setup::new().start();
    server.store(b"id", b"s", b"v");
    let mut peer = server.connect();
    let reply = peer.ask(WIDE, &frame::query_wait(b"id", b"s", 60));
    assert_eq!(reply.record(WIDE).1, b"v");
    for seconds in [0, -1, i32::MIN] {
        let mut peer = server.connect();
        let reply = peer.ask(WIDE, &frame::query_wait(b"missing", b"s", seconds));
        reply.expect_missing(WIDE);
    }
}

#[test]
fn a_wait_in_vain_ends_with_not_existed_and_not_before() {
    let server = Setup::new().start();
    let start = Instant::now();
    let mut peer = server.connect();
    peer.ask(WIDE, &frame::query_wait(b"missing", b"s", 1))
        .expect_missing(WIDE);
    assert!(
        start.elapsed() >= Duration::from_millis(950),
        "{:?}",
        start.elapsed()
    );
    peer.expect_end();
}

#[test]
fn the_wait_is_capped() {
    let server = Setup::new().agent("max_wait = \"1s\"").start();
    let mut peer = server.connect();
    peer.ask(WIDE, &frame::query_wait(b"missing", b"s", i32::MAX))
        .expect_missing(WIDE);
}

#[test]
fn a_half_closed_client_still_gets_what_it_waits_for() {
    let server = Setup::new().start();
    let mut peer = waiting(&server, b"id", 60);
    peer.finish().settle();
    server.store(b"id", b"s", b"v");
    assert_eq!(peer.reply(WIDE).record(WIDE).1, b"v");
    peer.expect_end();
}

#[test]
fn frames_behind_a_waiting_query_are_served_after_it() {
    let server = Setup::new().start();
    let mut peer = server.connect();
    let wait = frame::query_wait(b"id", b"s", 60);
    peer.send([WIDE.sniff(), wait, WIDE.sniff()].concat());
    assert_eq!(peer.reply(WIDE).command, b"sniff");
    server.store(b"id", b"s", b"v");
    assert_eq!(peer.reply(WIDE).record(WIDE).1, b"v");
    assert_eq!(peer.reply(WIDE).command, b"sniff");
    peer.expect_end();
}

#[test]
fn clients_that_go_away_while_they_wait_leave_nothing_behind() {
    let server = Setup::new().start();
    let waiters: Vec<Peer> = (0..50).map(|_| waiting(&server, b"never", 60)).collect();
    for peer in waiters {
        peer.reset();
    }
    server.expect_open(0);
    server.store(b"never", b"s", b"v");
    server.expect_alive();
    server.stop();
}

#[test]
fn a_document_query_does_not_wait() {
    let server = Setup::new().start();
    let narrow = Dialect::Document;
    let key = [narrow.binary(b"missing"), narrow.binary(b"s")].concat();
    let query = narrow.frame(AGENT, &narrow.command(b"query", &key));
    server.connect().ask(narrow, &query).expect_missing(narrow);
}
