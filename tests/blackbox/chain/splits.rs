//! Headers that come in pieces: byte by byte, cut at every offset, all at once.

use crate::support::backend::Backend;
use crate::support::chain::code;
use crate::support::chain::plan::Row;
use crate::support::peer::{End, text};

#[test]
fn headers_byte_by_byte_are_understood() {
    let backend = Backend::echo();
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        let headers = row.headers(backend.address);
        let mut chained = headers.connect();
        for byte in headers.bytes() {
            chained.peer.send([byte]);
        }
        chained.expect_echo(b"slowly");
        row.stop();
    }
}

#[test]
fn headers_cut_anywhere_are_understood() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let length = row.headers(backend.address).bytes().len();
    for cut in 1..length + 6 {
        let headers = row.headers(backend.address);
        let bytes = [&headers.bytes()[..], b"payload"].concat();
        let mut chained = headers.connect();
        chained.peer.send(&bytes[..cut]).settle();
        chained.peer.send(&bytes[cut..]);
        let peer = chained.expect_ok();
        peer.finish();
        let (bytes, end) = peer.rest();
        assert_eq!(
            (text(&bytes).as_str(), end),
            ("payload", End::Fin),
            "cut at {cut}"
        );
    }
    row.stop();
}

#[test]
fn each_header_in_a_write_of_its_own_is_understood() {
    let backend = Backend::echo();
    let row = Row::new(3, &[backend.address]);
    let headers = row.headers(backend.address);
    let mut chained = headers.connect();
    for (number, request) in headers.requests.iter().enumerate() {
        chained.peer.send(request.frame());
        let answer = chained.answer();
        assert_eq!(answer.code, code::OK, "of hop {}", number + 1);
    }
    chained.expect_echo(b"in turn");
    row.stop();
}

#[test]
fn headers_and_the_end_in_one_segment_are_understood() {
    let backend = Backend::banner("bye");
    let row = Row::new(3, &[backend.address]);
    for _ in 0..20 {
        let mut chained = row.headers(backend.address).dial_with(b"x");
        chained.peer.finish();
        chained.expect_ok().expect("byex").expect_end();
    }
    row.stop();
}

#[test]
fn a_header_cut_off_gets_no_answer() {
    let backend = Backend::echo();
    let row = Row::new(1, &[backend.address]);
    let mut peers = Vec::new();
    for cut in 0..row.headers(backend.address).bytes().len() {
        let headers = row.headers(backend.address);
        let mut chained = headers.connect();
        chained.peer.send(&headers.bytes()[..cut]).finish();
        peers.push(chained.peer);
    }
    for mut peer in peers {
        peer.expect_closed();
    }
    assert_eq!(backend.accepted(), 0);
    row.headers(backend.address).dial().expect_echo(b"alive");
    row.stop();
}
