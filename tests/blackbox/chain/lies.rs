//! The real clients against hops that lie: a response is believed only from who was asked, to what was
//! asked, and in its turn.

use std::sync::{Arc, Mutex};

use crate::support::backend::{Backend, echo};
use crate::support::chain::fake::FakeHop;
use crate::support::chain::plan::{Row, access_address, dynamic, fixed, serve};
use crate::support::chain::program::{Listening, run};
use crate::support::chain::request::Request;
use crate::support::chain::seal::{HEAD, Seal, fresh_nonce};
use crate::support::chain::socks::{self, Socks, reply};
use crate::support::chain::{Hop, Key, code};
use crate::support::peer::Peer;

/// Where a liar says that it connected to; nobody is there.
const SOMEWHERE: &str = "127.0.0.1:1";

/// What a hop sends instead of its response.
type Lie = fn(&Request) -> Vec<u8>;

/// Fails unless no client believes it: neither the command, nor an access listener.
fn expect_disbelieved(name: &str, lie: Lie) {
    eprintln!("{name}");
    let hop = FakeHop::new(Key::number(1), move |mut peer, request, _| {
        peer.try_send(&lie(&request));
        peer.try_send(b"payload that nobody may see");
        // All that comes behind the headers would be the client's payload.
        peer.try_finish();
        let (behind, _) = peer.rest();
        assert!(behind.is_empty(), "payload for a liar");
    });
    let hops = [hop.hop.clone()];
    let finished = run(SOMEWHERE, &hops, &[], b"secret").expect(1);
    assert!(finished.output.is_empty(), "{name}");
    let line = format!("hop 1 ({}): ", hops[0].address);
    assert!(finished.error.contains(&line), "{name}: {}", finished.error);
    let server = serve(&(fixed("tcp", &hops, SOMEWHERE) + &dynamic("socks5", &hops)));
    let mut peer = Peer::connect(access_address(&server, "tcp"));
    // The lie may have been seen through already.
    peer.try_send(b"secret");
    let (bytes, _) = peer.rest();
    assert!(bytes.is_empty(), "{name}");
    let mut client = Socks::open(access_address(&server, "socks5"));
    let there = socks::at(SOMEWHERE.parse().unwrap());
    assert_ne!(
        client.ask(socks::CONNECT, &there).0,
        reply::SUCCEEDED,
        "{name}"
    );
    client.peer.expect_closed();
    server.stop();
}

#[test]
fn what_is_no_response_is_not_believed() {
    let lies: [(&str, Lie); 14] = [
        ("the request itself", Request::frame),
        ("a request's seal around a response", |request| {
            request.seal().close(&fresh_nonce(), &[0, 0, 0, 0, 7])
        }),
        ("under another key", |request| {
            let other = Request {
                key: Key::number(2),
                ..request.clone()
            };
            other.response(code::OK)
        }),
        ("to another request", |request| {
            let other = Request {
                nonce: fresh_nonce(),
                ..request.clone()
            };
            other.response(code::OK)
        }),
        ("bound to nothing", |request| {
            let seal = Seal::response(request.key, request.transport, &request.nonce);
            let unbound = Seal {
                bound: Vec::new(),
                ..seal
            };
            unbound.close(&fresh_nonce(), &[0, 0, 0, 0, 7])
        }),
        ("for datagrams", |request| {
            let other = Request {
                transport: crate::support::chain::Transport::Udp,
                ..request.clone()
            };
            other.response(code::OK)
        }),
        ("a flipped code", |request| {
            let mut frame = request.response(code::REFUSED);
            frame[HEAD] ^= code::REFUSED;
            frame
        }),
        ("a flipped tag", |request| {
            let mut frame = request.response(code::OK);
            *frame.last_mut().unwrap() ^= 1;
            frame
        }),
        ("too short inside", |request| request.response_of(&[0])),
        ("too long inside", |request| request.response_of(&[0; 6])),
        ("an unknown code", |request| request.response(200)),
        ("a length of 0", |_| vec![0; HEAD + 64]),
        ("a length of 65535", |_| vec![0xff; 70_000]),
        ("half a response", |request| {
            request.response(code::OK)[..30].to_vec()
        }),
    ];
    for (name, lie) in lies {
        expect_disbelieved(name, lie);
    }
}

#[test]
fn responses_swapped_between_two_connections_are_not_believed() {
    // The first waits for the second; then each gets the other's.
    let first: Arc<Mutex<Option<(Peer, Request)>>> = Arc::default();
    let hop = FakeHop::new(Key::number(1), move |mut peer, request, _| {
        // Looking and leaving word is one step: two that come at once must not both be the first.
        let mut waiting = first.lock().unwrap();
        let Some((mut other, other_request)) = waiting.take() else {
            *waiting = Some((peer, request));
            return;
        };
        drop(waiting);
        other.try_send(&request.response(code::OK));
        peer.try_send(&other_request.response(code::OK));
        for mut peer in [other, peer] {
            peer.try_send(b"somebody else's payload");
            peer.try_finish();
            assert!(peer.rest().0.is_empty(), "payload for the wrong one");
        }
    });
    for _ in 0..5 {
        let listening = Listening::start(SOMEWHERE, std::slice::from_ref(&hop.hop), &[]);
        let mut peers = [(); 2].map(|()| Peer::connect(listening.address));
        for peer in &mut peers {
            peer.try_send(b"mine");
        }
        for peer in &mut peers {
            assert!(peer.rest().0.is_empty());
        }
    }
}

#[test]
fn responses_of_two_hops_in_the_wrong_order_are_not_believed() {
    let second = Key::number(2);
    let hop = FakeHop::new(Key::number(1), move |mut peer, request, _| {
        let next = crate::support::chain::fake::read_request(&mut peer, second).unwrap();
        peer.try_send(&[next.response(code::OK), request.response(code::OK)].concat());
        peer.try_finish();
        assert!(peer.rest().0.is_empty());
    });
    let hops = [
        hop.hop.clone(),
        Hop {
            address: SOMEWHERE.parse().unwrap(),
            key: second,
        },
    ];
    let finished = run(SOMEWHERE, &hops, &[], b"secret").expect(1);
    assert!(finished.output.is_empty());
    let line = format!("hop 1 ({}): ", hops[0].address);
    assert!(finished.error.contains(&line), "{}", finished.error);
}

#[test]
fn a_first_hop_cannot_say_ok_for_the_second() {
    let hop = FakeHop::new(Key::number(1), |mut peer, request, _| {
        let ok = || request.response(code::OK);
        peer.try_send(&[ok(), ok(), b"payload".to_vec()].concat());
        peer.try_finish();
        peer.rest();
    });
    let hops = [
        hop.hop.clone(),
        Hop {
            address: SOMEWHERE.parse().unwrap(),
            key: Key::number(2),
        },
    ];
    let finished = run(SOMEWHERE, &hops, &[], b"secret").expect(1);
    assert!(finished.output.is_empty());
    let line = format!("hop 2 ({SOMEWHERE}): ");
    assert!(finished.error.contains(&line), "{}", finished.error);
}

#[test]
fn a_hop_that_closes_without_a_word_is_named() {
    for keep in [false, true] {
        let hop = FakeHop::new(Key::number(1), move |peer, _, _| {
            if !keep {
                peer.reset();
            }
        });
        let hops = [hop.hop.clone()];
        let finished = run(SOMEWHERE, &hops, &[], b"").expect(1);
        let line = format!("hop 1 ({}): ", hops[0].address);
        assert!(finished.error.contains(&line), "{}", finished.error);
    }
}

#[test]
fn a_second_hop_that_closes_without_a_word_is_named() {
    let hop = FakeHop::new(Key::number(2), |_, _, _| {});
    let row = Row::new(1, &[hop.hop.address]);
    let hops = [row.hops().remove(0), hop.hop.clone()];
    let finished = run(SOMEWHERE, &hops, &[], b"").expect(1);
    let line = format!("hop 2 ({}): ", hops[1].address);
    assert!(finished.error.contains(&line), "{}", finished.error);
    row.stop();
}

#[test]
fn all_headers_leave_at_once_and_say_what_they_should() {
    let (sender, seen) = std::sync::mpsc::channel();
    let keys = [Key::number(1), Key::number(2), Key::number(3)];
    let hop = FakeHop::new(keys[0], move |mut peer, first, _| {
        // The rest is there without an answer to the first.
        let rest = keys[1..]
            .iter()
            .map(|key| crate::support::chain::fake::read_request(&mut peer, *key).unwrap());
        let requests: Vec<Request> = [first].into_iter().chain(rest).collect();
        for request in &requests {
            peer.try_send(&request.response(code::OK));
        }
        sender.send(requests).unwrap();
        echo(peer);
    });
    let rest = ["127.0.0.1:11", "127.0.0.1:12"].map(|at| at.parse().unwrap());
    let addresses = [hop.hop.address, rest[0], rest[1]];
    let hops = [0, 1, 2].map(|index| Hop {
        address: addresses[index],
        key: keys[index],
    });
    let mut nonces = std::collections::HashSet::new();
    for destination in ["db.example:5432", "10.1.1.1:80", "[2001:db8::1]:443"] {
        let finished = run(destination, &hops, &[], b"through").expect(0);
        assert_eq!(finished.output, b"through");
        let requests = seen.recv_timeout(crate::support::DEADLINE).unwrap();
        let last = match destination {
            "db.example:5432" => crate::support::chain::address::named("db.example", 5432),
            other => crate::support::chain::address::ip(other),
        };
        let expected = [
            crate::support::chain::address::at(rest[0]),
            crate::support::chain::address::at(rest[1]),
            last,
        ];
        let now = crate::support::chain::request::now();
        for (request, address) in requests.iter().zip(expected) {
            assert_eq!(request.address, address);
            assert!(now.abs_diff(request.stamp) < 30_000, "{}", request.stamp);
            assert_eq!(request.flags, 0);
            assert!(nonces.insert(request.nonce), "a nonce twice");
        }
    }
}

#[test]
fn an_honest_hop_of_the_tests_own_is_believed() {
    let backend = Backend::echo();
    let (hop, witness) = FakeHop::honest(Key::number(1));
    let row = Row::new(2, &[backend.address]);
    let hops = [&[hop.hop.clone()][..], &row.hops()].concat();
    let finished = run(&backend.address.to_string(), &hops, &[], b"hello").expect(0);
    assert_eq!(finished.output, b"hello");
    assert_eq!(witness.requests().len(), 1);
    // What it passed on were sealed headers, and then the payload as it is.
    assert!(witness.relayed().0.ends_with(b"hello"));
    row.stop();
}
