//! Requests under the right key that say nothing sensible: an answer that says so, and nobody dialled.

use crate::support::backend::Backend;
use crate::support::chain::plan::{Plan, Proxy};
use crate::support::chain::request::Request;
use crate::support::chain::seal::fresh_nonce;
use crate::support::chain::{Key, Transport, address, code};
use crate::support::peer::End;

/// A name and what stands where the address should be.
fn bad_addresses(port: u16) -> Vec<(String, Vec<u8>)> {
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| cases.push((name.into(), bytes));
    let ip = [127, 0, 0, 1];
    let end = port.to_be_bytes();
    add("no address", vec![]);
    for kind in [0, 4, 5, 0x7f, 0xff] {
        add(&format!("type {kind}"), [&[kind][..], &ip, &end].concat());
    }
    add("an IPv4 address and no port", [&[1][..], &ip].concat());
    add("half an IPv4 address", vec![1, 127, 0]);
    add(
        "an IPv6 address of four bytes",
        [&[2][..], &ip, &end].concat(),
    );
    add("a host of no bytes", address::name(b"", port));
    add(
        "a name longer than the rest",
        vec![3, 200, b'a', b'b', 0, 80],
    );
    add("a name and no port", vec![3, 1, b'a']);
    add(
        "bytes behind the port",
        [&[1][..], &ip, &end, &[0]].concat(),
    );
    add("port 0", address::ip("127.0.0.1:0"));
    add("port 0 of a name", address::name(b"localhost", 0));
    add("port 0 of an IPv6 address", address::ip("[::1]:0"));
    add("a name with a zero", address::name(b"local\0host", port));
    add(
        "a name that is no text",
        address::name(b"\xff\xfe\xfd", port),
    );
    cases
}

fn hop() -> Proxy {
    let allow = ["127.0.0.0/8:*", "[::1]:*", "localhost:*", "*:*"];
    Plan::allowing(Key::number(1), &allow).start()
}

#[test]
fn addresses_that_are_none_are_told_of() {
    let backend = Backend::echo();
    let proxy = hop();
    for (name, bytes) in bad_addresses(backend.address.port()) {
        eprintln!("{name}");
        let mut chained = proxy.headers(bytes.clone()).dial();
        chained.expect_error(1, code::PROTOCOL);
        // Payload behind it is not taken for more of the address.
        let mut chained = proxy.headers(bytes).dial_with(&[1; 60_000]);
        chained.expect_error(1, code::PROTOCOL);
    }
    assert_eq!(backend.accepted(), 0);
    proxy
        .headers(address::at(backend.address))
        .dial()
        .expect_echo(b"alive");
    proxy.stop();
}

#[test]
fn requests_too_short_to_be_some_are_told_of() {
    let backend = Backend::echo();
    let proxy = hop();
    let hop = proxy.hop();
    for length in [0, 1, 7, 8, 9] {
        let mut request = Request::new(hop.key, Transport::Tcp, address::at(backend.address));
        request.nonce = fresh_nonce();
        let plain = request.plain()[..length].to_vec();
        let frame = request.seal().close(&request.nonce, &plain);
        let mut peer = crate::support::peer::Peer::connect(hop.address);
        peer.send(&frame);
        let (bytes, end) = peer.rest();
        // Where there is no stamp nobody knows whether it is new: then silence is right, too.
        if length >= 8 || !bytes.is_empty() {
            let answer = request.read(&bytes).expect("a sealed response");
            assert_eq!(
                (answer.code, end),
                (code::PROTOCOL, End::Fin),
                "{length} bytes"
            );
        }
    }
    assert_eq!(backend.accepted(), 0);
    proxy.stop();
}

#[test]
fn a_host_of_255_bytes_is_looked_up_and_not_found() {
    let backend = Backend::echo();
    let proxy = hop();
    let port = backend.address.port();
    for host in [vec![b'a'; 255], [&[b'.'; 254][..], b"a"].concat()] {
        let mut chained = proxy.headers(address::name(&host, port)).dial();
        let answer = chained.answer();
        // A name can be so long here, though none is so long elsewhere.
        assert!(
            matches!(answer.code, code::RESOLVE | code::PROTOCOL),
            "{answer:?}"
        );
        chained.peer.expect_end();
    }
    assert_eq!(backend.accepted(), 0);
    proxy.stop();
}

#[test]
fn flags_that_nobody_knows_harm_nothing() {
    let backend = Backend::echo();
    let proxy = hop();
    for flags in [2, 4, 0x80, 0xfe] {
        let headers = proxy.headers(address::at(backend.address));
        let mut chained = headers.with_last_flags(flags).dial();
        match chained.answer().code {
            code::OK => {
                chained.peer.send(b"x").expect(b"x").finish().expect_end();
            }
            // A hop may refuse what it does not know, but says so.
            other => assert_eq!(other, code::PROTOCOL, "flags {flags:#x}"),
        }
    }
    proxy.stop();
}

#[test]
fn datagrams_with_such_addresses_are_answered_likewise() {
    let backend = Backend::echo();
    let proxy = hop();
    for (name, bytes) in bad_addresses(backend.address.port()) {
        eprintln!("{name}");
        let mut flow = proxy.flow(bytes);
        flow.send(b"payload").expect_error(1, code::PROTOCOL);
    }
    proxy.server.stop();
}
