//! The payload's own key: whoever is between the client and the last hop sees nothing of it, changes
//! nothing of it, and cannot cut it short.

use std::sync::Arc;
use std::sync::mpsc::channel;

use crate::support::DEADLINE;
use crate::support::backend::{Backend, echo};
use crate::support::bulk;
use crate::support::chain::fake::{FakeHop, Witness, socket_address};
use crate::support::chain::plan::{Plan, Proxy, Row, access, access_address, serve, via};
use crate::support::chain::program::{Keys, run_words, words};
use crate::support::chain::request::{RESPONSE, frame_length};
use crate::support::chain::seal::HEAD;
use crate::support::chain::{Hop, Key, code};
use crate::support::command::Finished;
use crate::support::peer::{End, Peer};
use crate::support::server::Server;

/// What client and last hop share.
fn shared() -> Key {
    Key::number(200)
}

/// A last hop that opens what was sealed under the shared key.
fn last(backend: &Backend) -> Proxy {
    let plan = Plan::allowing(Key::number(9), &[backend.address]);
    plan.text("payload_key", &shared().text()).start()
}

/// An access server through these hops with this payload key.
fn server_of(hops: &[Hop], key: Key, backend: &Backend) -> Server {
    let lines = [
        format!("via = {}", via(hops)),
        format!("to = \"{}\"", backend.address),
        format!("payload_key = {:?}", key.text()),
    ];
    serve(&access("db", "tcp", &lines))
}

/// Hops that know nothing of the key in front of the last one.
fn behind(count: u8, last: &Proxy) -> (Row, Vec<Hop>) {
    let row = match count {
        0 => Row {
            proxies: Vec::new(),
        },
        _ => Row::new(count, &[last.hop().address]),
    };
    let hops = [row.hops(), vec![last.hop()]].concat();
    (row, hops)
}

#[test]
fn every_byte_arrives_over_one_two_and_three_hops() {
    let backend = Backend::echo();
    let last = last(&backend);
    for count in 0..3 {
        let (row, hops) = behind(count, &last);
        let server = server_of(&hops, shared(), &backend);
        for total in [1, 16 * 1024, 16 * 1024 + 1, 8 << 20] {
            let mut peer = Peer::connect(access_address(&server, "db"));
            let mut up = peer.twin();
            let sending = std::thread::spawn(move || bulk::send(&mut up, 5, total));
            assert!(bulk::receive(&mut peer) == (total, sending.join().unwrap()));
        }
        server.expect_open(0);
        server.stop();
        row.stop();
    }
    last.stop();
}

#[test]
fn an_end_without_a_byte_arrives() {
    let backend = Backend::echo();
    let last = last(&backend);
    for count in 0..3 {
        let (row, hops) = behind(count, &last);
        let server = server_of(&hops, shared(), &backend);
        for _ in 0..10 {
            Peer::connect(access_address(&server, "db"))
                .finish()
                .expect_end();
        }
        server.stop();
        row.stop();
    }
    last.stop();
}

#[test]
fn ends_are_passed_on_each_by_itself() {
    let (sender, results) = channel();
    let backend = Backend::serve(move |mut peer, number| {
        if number % 2 == 0 {
            sender.send(bulk::receive(&mut peer)).unwrap();
            bulk::send(&mut peer, 2, 100_000);
        } else {
            bulk::send(&mut peer, 2, 100_000);
            sender.send(bulk::receive(&mut peer)).unwrap();
        }
    });
    let last = last(&backend);
    let (row, hops) = behind(1, &last);
    let server = server_of(&hops, shared(), &backend);
    for round in 0..4 {
        let mut peer = Peer::connect(access_address(&server, "db"));
        if round % 2 == 0 {
            let hash = bulk::send(&mut peer, 1, 100_000);
            assert!(results.recv_timeout(DEADLINE).unwrap() == (100_000, hash));
            assert_eq!(bulk::receive(&mut peer).0, 100_000);
        } else {
            assert_eq!(bulk::receive(&mut peer).0, 100_000);
            let hash = bulk::send(&mut peer, 1, 100_000);
            assert!(results.recv_timeout(DEADLINE).unwrap() == (100_000, hash));
        }
    }
    server.stop();
    row.stop();
    last.stop();
}

#[test]
fn small_words_pass_without_waiting_for_more() {
    let backend = Backend::banner("welcome|");
    let last = last(&backend);
    let (row, hops) = behind(2, &last);
    let server = server_of(&hops, shared(), &backend);
    let mut peer = Peer::connect(access_address(&server, "db"));
    peer.expect("welcome|");
    for round in 0..100_u8 {
        peer.send([round]).expect([round]);
    }
    peer.finish().expect_end();
    drop(peer);
    server.stop();
    row.stop();
    last.stop();
}

#[test]
fn a_hop_between_sees_nothing_of_it() {
    let backend = Backend::echo();
    let last = last(&backend);
    let (hop, witness): (FakeHop, Arc<Witness>) = FakeHop::honest(Key::number(1));
    let server = server_of(&[hop.hop.clone(), last.hop()], shared(), &backend);
    let secret = b"a secret of the client that is long enough to be told from chance";
    for _ in 0..2 {
        let mut peer = Peer::connect(access_address(&server, "db"));
        peer.send(secret).expect(secret).finish().expect_end();
    }
    let (up, down) = witness.relayed();
    for seen in [up, down] {
        assert!(seen.len() > 2 * secret.len());
        let shows = seen.windows(12).any(|part| part == &secret[..12]);
        assert!(!shows, "the hop between could read it");
    }
    server.stop();
    last.stop();
}

#[test]
fn with_a_wrong_key_not_one_byte_arrives() {
    let (sender, results) = channel();
    let backend = Backend::serve(move |mut peer, _| {
        peer.try_send(b"for the right one");
        let _ = sender.send(peer.rest().0);
    });
    let last = last(&backend);
    let (row, hops) = behind(1, &last);
    let server = server_of(&hops, Key::number(201), &backend);
    for _ in 0..5 {
        let mut peer = Peer::connect(access_address(&server, "db"));
        peer.try_send(b"payload under another key");
        peer.try_finish();
        assert!(peer.rest().0.is_empty(), "something came back");
        assert!(
            results.recv_timeout(DEADLINE).unwrap().is_empty(),
            "something went"
        );
    }
    server.stop();
    row.stop();
    last.stop();
}

/// A hop in front of the last one that changes what comes down behind the responses.
fn meddler(change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> FakeHop {
    FakeHop::new(Key::number(1), move |mut peer, request, _| {
        let to = socket_address(&request.address).unwrap();
        let mut next = Peer::connect(to);
        peer.try_send(&request.response(code::OK));
        let (mut from, mut onward) = (peer.twin(), next.twin());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(more @ 1..) = from.some(&mut buffer) {
                    onward.try_send(&buffer[..more]);
                }
                onward.try_finish();
            });
            let response = next.take(RESPONSE);
            let (mut down, _) = next.rest();
            change(&mut down);
            peer.try_send(&response);
            peer.try_send(&down);
            peer.try_finish();
        });
    })
}

/// `towpath chain` with the payload key through a meddler to one who says `banner` and ends.
fn through(meddler: &FakeHop, last: &Proxy, backend: &Backend) -> Finished {
    let hops = [meddler.hop.clone(), last.hop()];
    let keys = Keys::of(&hops);
    let file = keys.file("payload", &shared().text());
    let to = backend.address.to_string();
    run_words(
        &words(&to, &hops, &keys, &["--payload-key-file", &file]),
        b"",
    )
}

#[test]
fn the_command_has_the_key_too_and_notices_a_stream_cut_short() {
    let backend = Backend::serve(|mut peer, _| {
        bulk::send(&mut peer, 4, 100_000);
        echo(peer);
    });
    let last = last(&backend);
    let whole = through(&meddler(|_| {}), &last, &backend).expect(0);
    assert_eq!(whole.output.len(), 100_000);
    let sealed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let length = Arc::clone(&sealed);
    let measuring = meddler(move |down| {
        length.store(down.len(), std::sync::atomic::Ordering::SeqCst);
    });
    through(&measuring, &last, &backend).expect(0);
    let length = sealed.load(std::sync::atomic::Ordering::SeqCst);
    // Nothing at all, a part, all but the last bytes, all but the record that says the end.
    for keep in [0, 10, 50_000, length - 1, length - 18, length - 19] {
        let cutter = meddler(move |down| down.truncate(keep));
        let finished = through(&cutter, &last, &backend).expect(1);
        assert!(whole.output.starts_with(&finished.output), "cut at {keep}");
        assert!(!finished.error.is_empty());
    }
    last.stop();
}

#[test]
fn a_changed_byte_ends_the_stream_before_it() {
    let backend = Backend::serve(|mut peer, _| {
        bulk::send(&mut peer, 4, 100_000);
        echo(peer);
    });
    let last = last(&backend);
    let whole = through(&meddler(|_| {}), &last, &backend).expect(0).output;
    for at in [0, 1, 2, 20, 16_000, 16_500, 70_000] {
        let finished = through(&meddler(move |down| down[at] ^= 4), &last, &backend).expect(1);
        assert!(whole.starts_with(&finished.output), "changed at {at}");
        assert!(finished.output.len() <= at, "changed at {at}");
    }
    // A record left out, doubled, or moved: the first one and whatever it is followed by.
    let first = |down: &[u8]| 2 + usize::from(u16::from_be_bytes([down[0], down[1]]));
    let changes: [fn(&mut Vec<u8>, usize); 2] = [
        |down, length| drop(down.drain(..length)),
        |down, length| {
            let again = down[..length].to_vec();
            down.splice(length..length, again);
        },
    ];
    for change in changes {
        let meddler = meddler(move |down| {
            let length = first(down);
            change(down, length);
        });
        let finished = through(&meddler, &last, &backend).expect(1);
        assert!(whole.starts_with(&finished.output));
    }
    last.stop();
}

#[test]
fn a_stream_cut_short_on_its_way_up_reaches_the_destination_as_no_good_end() {
    let (sender, ends) = channel();
    let backend = Backend::serve(move |mut peer, _| {
        let _ = sender.send(peer.rest());
    });
    let last = last(&backend);
    // It passes the headers and the first payload on, and then ends as if the client had.
    let cutter = FakeHop::new(Key::number(1), |mut peer, request, _| {
        let mut next = Peer::connect(socket_address(&request.address).unwrap());
        peer.try_send(&request.response(code::OK));
        let mut header = peer.take(HEAD);
        let length = frame_length(&header);
        header.extend(peer.take(length - HEAD));
        next.send(&header);
        let response = next.take(RESPONSE);
        peer.try_send(&response);
        let mut buffer = vec![0; 1 << 16];
        let more = peer.some(&mut buffer).unwrap();
        next.send(&buffer[..more]);
        next.try_finish();
        next.rest();
    });
    let server = server_of(&[cutter.hop.clone(), last.hop()], shared(), &backend);
    let mut peer = Peer::connect(access_address(&server, "db"));
    peer.send(b"only the beginning");
    let (bytes, end) = ends.recv_timeout(DEADLINE).unwrap();
    assert_eq!(end, End::Reset, "a good end of a bad stream");
    assert!(b"only the beginning".starts_with(&bytes[..]));
    drop(peer);
    server.stop();
    last.stop();
}
