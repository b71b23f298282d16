//! A hop that cannot go on says so: the right code from the right hop, and then FIN.

use crate::support::backend::{Backend, BlackHole, Refusing};
use crate::support::chain::client::Headers;
use crate::support::chain::plan::{Plan, Row};
use crate::support::chain::{Key, address, code};

/// Rows of one to three hops, and at each of their hops an address that leads nowhere.
fn at_each_hop(row_of: impl Fn(u8) -> Row, bad: &[u8], expected: u8) {
    for count in 1..=3 {
        let row = row_of(count);
        for hop in 1..=usize::from(count) {
            let headers = headers(&row, hop, bad);
            headers.dial().expect_error(hop, expected);
            let headers = self::headers(&row, hop, bad);
            headers.dial_with(&[7; 60_000]).expect_error(hop, expected);
        }
        row.stop();
    }
}

fn headers(row: &Row, hop: usize, bad: &[u8]) -> Headers {
    row.headers_to(bad.to_vec()).with_address(hop, bad.to_vec())
}

#[test]
fn a_refusing_destination_is_told_of() {
    let refusing = Refusing::new();
    let bad = address::at(refusing.address);
    let row_of = |count| Row::new(count, &[refusing.address]);
    at_each_hop(row_of, &bad, code::REFUSED);
}

#[test]
fn a_destination_that_never_answers_is_told_of() {
    let hole = BlackHole::new();
    let bad = address::at(hole.address);
    let impatient = |plan: Plan| plan.text("dial_timeout", "500ms");
    let row_of = |count| Row::with(count, &[hole.address], impatient);
    at_each_hop(row_of, &bad, code::TIMEOUT);
}

#[test]
fn a_name_that_is_none_is_told_of() {
    let bad = address::named(address::NO_NAME, 80);
    at_each_hop(|count| Row::new(count, &["*:*"]), &bad, code::RESOLVE);
}

#[test]
fn a_forbidden_destination_is_told_of_and_not_dialled() {
    let backend = Backend::echo();
    let bad = address::at(backend.address);
    let row_of = |count| Row::new(count, &["8.8.8.8:53"]);
    at_each_hop(row_of, &bad, code::FORBIDDEN);
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn the_second_of_three_is_heard_in_a_hundred_of_a_hundred_tries() {
    let refusing = Refusing::new();
    let row = Row::new(3, &[refusing.address]);
    let bad = address::at(refusing.address);
    for round in 0..100 {
        let payload = match round % 2 {
            0 => vec![],
            _ => vec![3; 60_000],
        };
        headers(&row, 2, &bad)
            .dial_with(&payload)
            .expect_error(2, code::REFUSED);
    }
    row.stop();
}

#[test]
fn an_error_reaches_a_client_that_has_ended_its_direction() {
    let refusing = Refusing::new();
    let row = Row::new(3, &[refusing.address]);
    let bad = address::at(refusing.address);
    for hop in 1..=3 {
        for _ in 0..20 {
            let mut chained = headers(&row, hop, &bad).dial_with(b"last words");
            chained.peer.finish();
            chained.expect_error(hop, code::REFUSED);
        }
    }
    row.stop();
}

#[test]
fn a_client_that_sends_on_after_an_error_has_heard_it() {
    let refusing = Refusing::new();
    let row = Row::new(1, &[refusing.address]);
    let mut chained = row.headers(refusing.address).dial();
    chained.expect_code(1, code::REFUSED);
    // However much comes, it is not kept; the connection ends.
    while chained.peer.try_send(&[0; 16 * 1024]) {}
    drop(chained);
    row.stop();
}

#[test]
fn a_next_hop_that_is_gone_is_the_error_of_the_hop_before() {
    let backend = Backend::echo();
    let mut row = Row::with(3, &[backend.address], Plan::on_a_lasting_port);
    let hops = row.hops();
    row.proxies.remove(1).server.kill();
    for _ in 0..10 {
        let mut chained = Headers::to(&hops, backend.address).dial();
        chained.expect_error(1, code::REFUSED);
    }
    row.stop();
}

#[test]
fn a_next_hop_that_dies_ends_the_connection() {
    let backend = Backend::echo();
    let mut row = Row::new(3, &[backend.address]);
    let mut chained = row.headers(backend.address).dial();
    chained.expect_ok().send(b"ping").expect(b"ping");
    row.proxies.remove(1).server.kill();
    chained.peer.expect_closed();
    drop(chained);
    row.stop();
}

#[test]
fn many_dials_time_out_at_once() {
    let hole = BlackHole::new();
    let plan = Plan::allowing(Key::number(1), &[hole.address]);
    let proxy = plan.text("dial_timeout", "300ms").start();
    let headers = || proxy.headers(address::at(hole.address));
    let mut waiting: Vec<_> = (0..20).map(|_| headers().dial()).collect();
    for chained in &mut waiting {
        chained.expect_error(1, code::TIMEOUT);
    }
    drop(waiting);
    proxy.stop();
}
