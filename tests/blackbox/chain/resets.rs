//! RST at every state of a chain: passed on where there is somebody, and nothing stays behind.

use std::sync::mpsc::{Receiver, channel};

use crate::support::DEADLINE;
use crate::support::backend::{Backend, BlackHole};
use crate::support::bystander::Rounds;
use crate::support::chain::client::Chained;
use crate::support::chain::plan::Row;
use crate::support::chain::{address, code};
use crate::support::peer::{End, Peer};

/// A row of two hops with a bystander through it, around `act`.
fn beside_a_bystander(rounds: usize, act: impl Fn(&Row, &Backend)) {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let mut bystander = row.headers(backend.address).dial();
    bystander.expect_ok();
    let round = |chained: &mut Chained, byte| {
        chained.peer.send([byte; 64]).expect([byte; 64]);
    };
    let rounds_of_others = Rounds::start(bystander, round, |mut chained| {
        chained.peer.finish().expect_end();
    });
    for _ in 0..rounds {
        act(&row, &backend);
    }
    for proxy in &row.proxies {
        proxy.server.expect_open(2);
    }
    rounds_of_others.expect_undisturbed();
    row.stop();
}

#[test]
fn reset_right_after_the_connect() {
    beside_a_bystander(200, |row, _| Peer::connect(row.hops()[0].address).reset());
}

#[test]
fn reset_inside_the_header() {
    beside_a_bystander(50, |row, backend| {
        let headers = row.headers(backend.address);
        for cut in [1, 25, 26, 57] {
            let mut chained = headers.connect();
            chained.peer.send(&headers.bytes()[..cut]).settle();
            chained.peer.reset();
        }
    });
}

#[test]
fn reset_inside_the_second_hops_header() {
    beside_a_bystander(50, |row, backend| {
        let headers = row.headers(backend.address);
        let mut chained = headers.connect();
        chained.peer.send(&headers.bytes()[..80]);
        assert_eq!(chained.answer().code, code::OK);
        chained.peer.reset();
    });
}

#[test]
fn reset_with_the_responses_unread() {
    beside_a_bystander(100, |row, backend| {
        row.headers(backend.address).dial_with(b"x").peer.reset();
    });
}

#[test]
fn reset_in_silence() {
    beside_a_bystander(50, |row, _| {
        let mut peer = Peer::connect(row.hops()[0].address);
        peer.send([9; 200]).settle();
        peer.reset();
    });
}

#[test]
fn reset_after_an_error() {
    beside_a_bystander(50, |row, _| {
        let mut chained = row.headers_to(address::ip("127.0.0.1:9")).dial();
        chained.expect_code(2, code::FORBIDDEN);
        chained.peer.reset();
    });
}

#[test]
fn reset_while_relaying_and_after_the_own_end() {
    beside_a_bystander(50, |row, backend| {
        let mut chained = row.headers(backend.address).dial();
        chained.expect_ok().send(b"ping").expect(b"ping");
        chained.peer.reset();
        let mut chained = row.headers(backend.address).dial();
        chained.expect_ok().send(b"ping").expect(b"ping").finish();
        chained.peer.reset();
    });
}

#[test]
fn reset_while_a_hop_dials() {
    let hole = BlackHole::new();
    let row = Row::with(2, &[hole.address], |plan| plan.text("dial_timeout", "60s"));
    for _ in 0..50 {
        let mut chained = row.headers(hole.address).dial();
        assert_eq!(chained.answer().code, code::OK);
        chained.peer.reset();
    }
    row.stop();
}

#[test]
fn reset_after_the_own_end_while_a_hop_dials() {
    let hole = BlackHole::new();
    let row = Row::with(2, &[hole.address], |plan| plan.text("dial_timeout", "60s"));
    for _ in 0..20 {
        let mut chained = row.headers(hole.address).dial();
        assert_eq!(chained.answer().code, code::OK);
        chained.peer.finish().settle();
        chained.peer.reset();
    }
    row.stop();
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

#[test]
fn a_clients_reset_reaches_the_destination_as_a_reset() {
    let (backend, ends) = witness();
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        for _ in 0..10 {
            let mut chained = row.headers(backend.address).dial();
            chained.expect_ok().send(b"hello").expect(b"hello");
            chained.peer.reset();
            assert_eq!(ends.recv_timeout(DEADLINE).unwrap(), End::Reset);
        }
        row.stop();
    }
}

#[test]
fn a_clients_fin_reaches_the_destination_as_a_fin() {
    let (backend, ends) = witness();
    let row = Row::new(3, &[backend.address]);
    let mut chained = row.headers(backend.address).dial();
    chained.expect_ok().send(b"hello").expect(b"hello").finish();
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap(), End::Fin);
    chained.peer.expect_end();
    drop(chained);
    row.stop();
}

#[test]
fn a_destinations_reset_reaches_the_client_as_a_reset() {
    let backend = Backend::serve(|mut peer, _| {
        // The second word says that the first answer was read.
        peer.expect(b"hello").send(b"hello").expect(b"now");
        peer.reset();
    });
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        for _ in 0..10 {
            let mut chained = row.headers(backend.address).dial();
            chained
                .expect_ok()
                .send(b"hello")
                .expect(b"hello")
                .send(b"now")
                .expect_reset();
        }
        row.stop();
    }
}
