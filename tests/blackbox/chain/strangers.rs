//! Who does not know the key gets nothing: not one byte, and not the end that would tell why.

use std::io::ErrorKind;

use crate::support::backend::Backend;
use crate::support::bulk::Numbers;
use crate::support::chain::client::Headers;
use crate::support::chain::plan::{Plan, Proxy};
use crate::support::chain::request::Request;
use crate::support::chain::seal::{HEAD, Seal, fresh_nonce};
use crate::support::chain::{Key, Transport, address};
use crate::support::peer::Peer;

/// A hop whose every stranger is served in silence, and an echo that it may dial.
fn hop() -> (Proxy, Backend) {
    let backend = Backend::echo();
    let proxy = Plan::allowing(Key::number(1), &[backend.address]).start();
    (proxy, backend)
}

/// A connection that has said this, and that the hop has heard out.
fn saying(proxy: &Proxy, bytes: &[u8]) -> Peer {
    let mut peer = Peer::connect(proxy.hop().address);
    peer.send(bytes).settle();
    peer
}

/// The same; it is open, and read from however much more comes, and no byte has come back. It is looked
/// at at once, as each is kept for a few seconds only.
fn kept(proxy: &Proxy, bytes: &[u8]) -> Peer {
    let mut peer = saying(proxy, bytes);
    for _ in 0..3 {
        peer.send([0x55; 1000]).settle();
    }
    peer.stream().set_nonblocking(true).unwrap();
    let got = peer.some(&mut [0; 100]);
    assert_eq!(got.unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.stream().set_nonblocking(false).unwrap();
    peer
}

/// All end at some time, none with a byte, and the hop serves those who know the key meanwhile.
fn expect_silence(proxy: Proxy, backend: &Backend, mut peers: Vec<Peer>) {
    let before = backend.accepted();
    proxy
        .headers(address::at(backend.address))
        .dial()
        .expect_echo(b"served");
    for peer in &mut peers {
        peer.expect_closed();
    }
    proxy
        .headers(address::at(backend.address))
        .dial()
        .expect_echo(b"served");
    assert_eq!(backend.accepted(), before + 2);
    drop(peers);
    proxy.stop();
}

fn request(proxy: &Proxy, backend: &Backend) -> Request {
    let headers = Headers::to(&[proxy.hop()], backend.address);
    headers.requests.into_iter().next().unwrap()
}

#[test]
fn a_wrong_key_gets_not_one_byte_and_is_kept() {
    let (proxy, backend) = hop();
    let mut peers: Vec<Peer> = Vec::new();
    for number in [2, 3, 255] {
        let mut request = request(&proxy, &backend);
        request.key = Key::number(number);
        peers.push(kept(&proxy, &request.frame()));
    }
    let mut request = request(&proxy, &backend);
    // The key of a hop without a key, which everybody knows.
    request.key = Key([0; 32]);
    peers.push(kept(&proxy, &request.frame()));
    assert_eq!(backend.accepted(), 0);
    expect_silence(proxy, &backend, peers);
}

#[test]
fn a_frame_with_any_byte_flipped_gets_no_answer() {
    let (proxy, backend) = hop();
    let mut peers = Vec::new();
    let length = request(&proxy, &backend).frame().len();
    for at in 0..length {
        let mut frame = request(&proxy, &backend).frame();
        frame[at] ^= 1 << (at % 8);
        // A length that grew waits for more, which is then wrong.
        let padded = [&frame[..], &[0; 512]].concat();
        peers.push(saying(&proxy, &padded));
    }
    assert_eq!(backend.accepted(), 0);
    expect_silence(proxy, &backend, peers);
}

#[test]
fn impossible_lengths_get_no_answer() {
    let (proxy, backend) = hop();
    let mut peers = Vec::new();
    for length in [0_u16, 1, 15, 16, 24, 513, 514, 0x7fff, 0xffff] {
        let mut frame = request(&proxy, &backend).frame();
        frame[HEAD - 2..HEAD].copy_from_slice(&length.to_be_bytes());
        frame.resize(HEAD + usize::from(length).max(64), 0);
        peers.push(saying(&proxy, &frame));
        // The head alone shows it already.
        peers.push(saying(&proxy, &frame[..HEAD]));
    }
    assert_eq!(backend.accepted(), 0);
    expect_silence(proxy, &backend, peers);
}

#[test]
fn a_frame_longer_than_any_gets_no_answer_though_its_seal_is_right() {
    let (proxy, backend) = hop();
    let seal = Seal::request(Key::number(1), Transport::Tcp);
    let mut plain = request(&proxy, &backend).plain();
    plain.resize(513 - 16, 0);
    let frame = seal.close(&fresh_nonce(), &plain);
    assert_eq!(frame.len(), HEAD + 513);
    let peer = saying(&proxy, &frame);
    assert_eq!(backend.accepted(), 0);
    expect_silence(proxy, &backend, vec![peer]);
}

#[test]
fn a_seal_of_something_else_gets_no_answer() {
    let (proxy, backend) = hop();
    let good = || request(&proxy, &backend);
    let right = Seal::request(Key::number(1), Transport::Tcp);
    let wrong = [
        Seal {
            transport: 1,
            ..right.clone()
        },
        Seal {
            transport: 2,
            ..right.clone()
        },
        Seal {
            direction: 1,
            ..right.clone()
        },
        Seal {
            direction: 1,
            bound: fresh_nonce().to_vec(),
            ..right.clone()
        },
        Seal {
            bound: fresh_nonce().to_vec(),
            ..right.clone()
        },
        Seal {
            label: b"towpath chain 2".to_vec(),
            ..right.clone()
        },
        Seal {
            label: b"towpath chain ".to_vec(),
            ..right.clone()
        },
        Seal {
            label: Vec::new(),
            ..right
        },
    ];
    let mut peers = Vec::new();
    for seal in wrong {
        let request = good();
        let frame = seal.close(&request.nonce, &request.plain());
        peers.push(saying(&proxy, &frame));
    }
    // A response to a request is none.
    let request = good();
    peers.push(saying(&proxy, &request.response(0)));
    peers.push(saying(&proxy, &request.response_of(&request.plain())));
    assert_eq!(backend.accepted(), 0);
    expect_silence(proxy, &backend, peers);
}

#[test]
fn the_second_hops_stranger_sees_the_first_hops_ok_alone() {
    let backend = Backend::echo();
    let row = crate::support::chain::plan::Row::new(2, &[backend.address]);
    let mut hops = row.hops();
    hops[1].key = Key::number(77);
    let mut chained = Headers::to(&hops, backend.address).dial();
    assert_eq!(chained.answer().code, 0);
    chained.peer.expect_closed();
    assert_eq!(backend.accepted(), 0);
    drop(chained);
    row.stop();
}

#[test]
fn strangers_beyond_the_cap_are_closed_without_a_byte() {
    let backend = Backend::echo();
    let plan = Plan::allowing(Key::number(1), &[backend.address]);
    let proxy = plan.line("max_silent", "4").workers(1).start();
    let mut numbers = Numbers::new(3);
    let mut peers = Vec::new();
    for _ in 0..40 {
        let mut peer = Peer::connect(proxy.hop().address);
        peer.try_send(&numbers.bytes(600));
        peers.push(peer);
    }
    expect_silence(proxy, &backend, peers);
}

#[test]
fn strangers_pay_for_nobody_elses_connection() {
    let (proxy, backend) = hop();
    let mut numbers = Numbers::new(9);
    let mut peers = Vec::new();
    for _ in 0..200 {
        let mut peer = Peer::connect(proxy.hop().address);
        peer.try_send(&numbers.bytes(100));
        peers.push(peer);
    }
    for _ in 0..50 {
        proxy
            .headers(address::at(backend.address))
            .dial()
            .expect_echo(b"served");
    }
    assert_eq!(backend.accepted(), 50);
    for peer in peers {
        peer.reset();
    }
    proxy.stop();
}
