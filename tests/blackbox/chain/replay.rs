//! A request counts once, and only now: what was recorded, what is late and what is early dial nobody.

use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::chain::plan::{Plan, Proxy, Row};
use crate::support::chain::request::{PROBE, Request, now};
use crate::support::chain::{Key, Transport, address, code};
use crate::support::peer::Peer;
use crate::support::until;

/// A hop of one worker: what it has read it dials before it serves anybody who comes later.
fn hop(backend: &Backend) -> Proxy {
    let plan = Plan::allowing(Key::number(1), &[backend.address]);
    plan.workers(1).start()
}

/// Sends these bytes as somebody else would who recorded them, and waits until they were heard.
fn replay(proxy: &Proxy, bytes: &[u8]) -> Peer {
    let mut peer = Peer::connect(proxy.hop().address);
    peer.send(bytes).settle();
    peer
}

/// What was dialled so far, when everything that the hop was asked has had its effect.
fn dialled(proxy: &Proxy, backend: &Backend) -> usize {
    for _ in 0..4 {
        proxy
            .headers(address::at(backend.address))
            .dial()
            .expect_echo(b"after");
    }
    backend.accepted() - 4
}

#[test]
fn a_recorded_request_dials_nobody_again() {
    let backend = Backend::echo();
    for workers in [1, 2] {
        let plan = Plan::allowing(Key::number(1), &[backend.address]);
        let proxy = plan.workers(workers).start();
        let headers = proxy.headers(address::at(backend.address));
        let before = backend.accepted();
        let recorded = [&headers.bytes()[..], b"transfer 100"].concat();
        headers
            .dial_with(b"transfer 100")
            .expect_ok()
            .expect(b"transfer 100");
        let again: Vec<Peer> = (0..16).map(|_| replay(&proxy, &recorded)).collect();
        assert_eq!(dialled(&proxy, &backend) - before, 1, "{workers} workers");
        for peer in again {
            peer.reset();
        }
        proxy.stop();
    }
}

#[test]
fn a_recorded_chain_dials_nobody_again() {
    let backend = Backend::echo();
    let row = Row::new(3, &[backend.address]);
    let headers = row.headers(backend.address);
    headers.dial().expect_echo(b"once");
    // Whoever sits between two hops has the later headers only.
    for hop in 0..3 {
        let rest = headers.requests[hop..].iter().flat_map(Request::frame);
        let mut peer = replay(&row.proxies[hop], &rest.collect::<Vec<u8>>());
        peer.try_finish();
        let (bytes, _) = peer.rest();
        assert!(
            headers.requests[hop]
                .read(&bytes)
                .is_none_or(|said| said.code != code::OK)
        );
    }
    assert_eq!(backend.accepted(), 1);
    row.stop();
}

#[test]
fn a_request_for_udp_is_none_for_tcp_and_one_for_one_hop_none_for_another() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let [first, second] = [0, 1].map(|index| &row.proxies[index]);
    let to = address::at(backend.address);
    let udp = Request::new(first.hop().key, Transport::Udp, to.clone());
    let other = Request::new(second.hop().key, Transport::Tcp, to);
    let peers = [replay(first, &udp.frame()), replay(first, &other.frame())];
    row.headers(backend.address).dial().expect_echo(b"alive");
    assert_eq!(backend.accepted(), 1);
    peers.into_iter().for_each(Peer::reset);
    row.stop();
}

/// What became of a request whose stamp was this far off while the hop read it: whether it was served.
/// What took so long that the stamp was no longer sure is tried again.
fn served_with(proxy: &Proxy, backend: &Backend, off: i64) -> bool {
    loop {
        let start = Instant::now();
        let mut headers = proxy.headers(address::at(backend.address));
        headers.requests[0].stamp = now().checked_add_signed(off).unwrap();
        let before = backend.accepted();
        let chained = headers.dial();
        chained.peer.settle();
        let in_time = start.elapsed() < SURE;
        let served = dialled(proxy, backend) > before;
        chained.peer.reset();
        if in_time {
            return served;
        }
        eprintln!("slow, again");
    }
}

const SURE: Duration = Duration::from_millis(800);

#[test]
fn stamps_count_within_thirty_seconds_and_no_longer() {
    let backend = Backend::echo();
    let proxy = hop(&backend);
    for (off, expected) in [
        (-31_000, false),
        (-29_000, true),
        (0, true),
        (29_000, true),
        (31_000, false),
        (-3_600_000, false),
        (3_600_000, false),
    ] {
        let served = served_with(&proxy, &backend, off);
        assert_eq!(served, expected, "{off} ms off");
    }
    for stamp in [0, 1, u64::MAX, u64::MAX / 2, i64::MAX as u64] {
        let mut headers = proxy.headers(address::at(backend.address));
        headers.requests[0].stamp = stamp;
        let before = backend.accepted();
        let chained = headers.dial();
        chained.peer.settle();
        assert_eq!(dialled(&proxy, &backend), before, "stamp {stamp}");
        chained.peer.reset();
    }
    proxy.stop();
}

#[test]
fn a_hop_that_can_remember_no_more_tells_those_who_know_the_key() {
    let backend = Backend::echo();
    let plan = Plan::allowing(Key::number(1), &[backend.address]);
    let proxy = plan.line("replay_memory", "\"64K\"").workers(1).start();
    let mut flow = proxy.flow(address::at(backend.address));
    // A probe for each nonce. Each of the 64 parts of 64 KiB holds at most 112 fingerprints and the nonces
    // fall on the parts at random, so that one more than 64 times 112 is too much in any case; the bound
    // is higher, since a slow machine forgets the first ones meanwhile.
    let mut told = None;
    for round in 0..100_000 {
        let mut requests = flow.requests();
        requests[0].flags = PROBE;
        flow.send_as(requests, b"?");
        match flow.receive() {
            crate::support::chain::datagram::Said::Payload(_) => {}
            said => {
                told = Some((round, said));
                break;
            }
        }
    }
    let (round, said) = told.expect("it remembers more than its memory holds");
    eprintln!("full after {round}");
    let overloaded = crate::support::chain::datagram::Said::Failed(1, code::OVERLOADED);
    assert_eq!(said, overloaded);
    // Not every part of the memory is full already; a stream meets one that is before long.
    until("a stream is told, too", || {
        let mut chained = proxy.headers(address::at(backend.address)).dial();
        match chained.answer().code {
            code::OK => false,
            other => {
                assert_eq!(other, code::OVERLOADED);
                chained.peer.expect_end();
                true
            }
        }
    });
    proxy.server.stop();
}
