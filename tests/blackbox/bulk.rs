//! Bulk through a plain access listener in every way of moving it: each byte arrives both ways at
//! once under readers that stall, each side may end first, and no tail waits for what never comes.
//!
//! `TOWPATH_BULK_MIB=1024 cargo test --release --test blackbox bulk::` moves 1 GiB each way; the
//! tests' own default is 64 MiB.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};

use crate::support::DEADLINE;
use crate::support::backend::Backend;
use crate::support::bulk::{self, Hash, Numbers};
use crate::support::peer::Peer;
use crate::support::server::{Server, Setup};
use crate::support::window::paced;

const MEBIBYTE: usize = 1024 * 1024;

/// What the side that ends last still says after the other's end: more than any pipe, and odd.
const LAST_WORDS: usize = 3 * MEBIBYTE + 17;

/// A server whose one listener leads to the backend, moving bytes in this way.
fn serve(way: &str, backend: &Backend) -> Server {
    let listener = "[[chain.access]]\nname = \"bulk\"\nlisten = \"127.0.0.1:0\"\n";
    let setup = Setup::new().flag("--agent").flag("off");
    let setup = setup.flag("--relay").flag(way);
    let to = format!("to = \"{}\"\n", backend.address);
    setup.tables(&(listener.to_owned() + &to)).start()
}

/// What one side sent, and what came.
type Exchanged = ((usize, Hash), (usize, Hash));

/// Sends and receives at once. The side that does not end first speaks on behind the other's end.
fn exchange(peer: Peer, seed: u64, total: usize, ends_first: bool) -> Exchanged {
    let (mut reader, mut writer) = (peer.twin(), peer);
    let (tell, ended) = channel();
    let sending = thread::spawn(move || {
        let mut hash = Context::new(&SHA256);
        bulk::pour(&mut writer, seed, total, &mut hash);
        let mut sent = total;
        if !ends_first {
            // Nothing comes when the reader has failed; its own panic says why.
            let _ = ended.recv();
            bulk::pour(&mut writer, seed + 1, LAST_WORDS, &mut hash);
            sent += LAST_WORDS;
        }
        writer.finish();
        (sent, hash.finish().as_ref().to_vec())
    });
    let mut numbers = Numbers::new(seed);
    let came = bulk::receive_with(&mut reader, || {
        if numbers.below(100) == 0 {
            stall(numbers.below(20));
        }
    });
    let _ = tell.send(());
    (sending.join().unwrap(), came)
}

/// Lets about so many milliseconds pass without reading: long enough for every buffer on the way to
/// fill up.
fn stall(millis: usize) {
    let mut left = millis;
    paced(Duration::from_millis(1), || {
        left = left.saturating_sub(1);
        left > 0
    });
}

fn each_way_at_once(way: &str) {
    let mebibytes = std::env::var("TOWPATH_BULK_MIB").map_or(64, |text| text.parse().unwrap());
    let total = mebibytes * MEBIBYTE;
    let (sender, results) = channel();
    let backend = Backend::serve(move |peer, number| {
        let exchanged = exchange(peer, 20, total, number % 2 == 1);
        sender.send(exchanged).unwrap();
    });
    let server = serve(way, &backend);
    for client_ends_first in [true, false] {
        let start = Instant::now();
        let (up, down) = exchange(server.access("bulk"), 10, total, client_ends_first);
        let (sent, came) = results.recv_timeout(DEADLINE).unwrap();
        assert!(came == up, "{way}: {} of {} bytes up", came.0, up.0);
        assert!(down == sent, "{way}: {} of {} bytes down", down.0, sent.0);
        eprintln!(
            "{way}: {mebibytes} MiB each way, {} first, {:?}",
            if client_ends_first {
                "client"
            } else {
                "backend"
            },
            start.elapsed()
        );
    }
    server.expect_open(0);
    server.stop();
}

#[test]
fn copied_bytes_arrive_each_way_at_once() {
    each_way_at_once("copy");
}

#[test]
fn spliced_bytes_arrive_each_way_at_once() {
    each_way_at_once("splice");
}

#[test]
fn bytes_that_go_either_way_arrive_each_way_at_once() {
    each_way_at_once("auto");
}

/// Odd sizes, and one less and one more than what blocks, rings, buffers and pipes hold.
fn tails() -> Vec<usize> {
    let marks = [16 << 10, 48 << 10, 64 << 10, 128 << 10, 256 << 10];
    let marks = marks.into_iter().chain([512 << 10, 1 << 20]);
    let around = marks.flat_map(|mark| mark - 1..=mark + 1);
    [1, 2, 100, 1459].into_iter().chain(around).collect()
}

/// Enough for a direction to become bulk.
const BULK: usize = 2 * MEBIBYTE;

/// The pieces that each side sends in turn, with nothing behind any of them: bulk that ends in a
/// tail, then that tail by itself.
fn pieces(seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let sizes = tails().into_iter().flat_map(|tail| [BULK + tail, tail]);
    sizes.map(move |size| Numbers::new(seed + size as u64).bytes(size))
}

/// Reads one piece. There is a deadline on each read, so a tail that waits for more fails here.
fn expect_piece(peer: &mut Peer, piece: &[u8], whose: &str) {
    let came = peer.take(piece.len());
    assert!(came == piece, "{whose} piece of {} differs", piece.len());
}

#[test]
fn no_tail_waits_for_bytes_that_never_come() {
    for way in ["copy", "splice", "auto"] {
        let backend = Backend::serve(|mut peer, _| {
            for (up, down) in pieces(1).zip(pieces(2)) {
                expect_piece(&mut peer, &up, "the client's");
                peer.send(down);
            }
            peer.expect_end();
        });
        let server = serve(way, &backend);
        let mut peer = server.access("bulk");
        for (up, down) in pieces(1).zip(pieces(2)) {
            peer.send(up);
            expect_piece(&mut peer, &down, "the backend's");
        }
        peer.finish().expect_end();
        server.stop();
    }
}
