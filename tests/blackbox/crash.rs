//! Power cuts: the server is killed in the middle of updates, again and again, and whatever it
//! had acknowledged is there and whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::support::bulk::Numbers;
use crate::support::folder::Folder;
use crate::support::frame::Dialect;
use crate::support::peer::Peer;
use crate::support::server::{Server, Setup};
use crate::support::until;

const ROUNDS: u64 = 20;
const WRITERS: u8 = 4;
const KEYS: u64 = 12;
const NARROW: Dialect = Dialect::Document;

/// What a writer knows of one key: the last version that was acknowledged, and the last one that
/// was sent.
#[derive(Clone, Copy, Default)]
struct Known {
    acknowledged: u64,
    sent: u64,
}

/// One writer's keys by their number.
type Book = BTreeMap<u64, Known>;

/// A value that tells its version, and any damage: its length and every byte follow from it.
fn value(writer: u8, key: u64, version: u64) -> Vec<u8> {
    let seed = version * 1000 + key * 10 + u64::from(writer);
    let length = 8 + usize::try_from(seed * 37 % 3000).unwrap();
    [
        version.to_le_bytes().to_vec(),
        Numbers::new(seed).bytes(length),
    ]
    .concat()
}

fn id(writer: u8) -> [u8; 1] {
    [writer]
}

/// Updates until the server is gone; a few frames are under way at any time.
fn write(server: &Server, writer: u8, mut book: Book, total: Arc<AtomicUsize>) -> JoinHandle<Book> {
    // Here and not in the thread, which may begin when the server is gone already.
    let mut peer = server.connect();
    thread::spawn(move || {
        let mut version = book.values().map(|known| known.sent).max().unwrap_or(0);
        loop {
            let mut sent = Vec::new();
            for _ in 0..3 {
                version += 1;
                let key = version % KEYS;
                let data = value(writer, key, version);
                book.entry(key).or_default().sent = version;
                let frame = NARROW.update(&id(writer), &key.to_le_bytes(), &data);
                if !peer.try_send(&frame) {
                    return book;
                }
                sent.push((key, version));
            }
            for (key, version) in sent {
                if !is_acknowledged(&mut peer) {
                    return book;
                }
                book.entry(key).or_default().acknowledged = version;
                total.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
}

/// Reads one reply; false when the connection ended instead.
fn is_acknowledged(peer: &mut Peer) -> bool {
    let length = NARROW.header() + NARROW.command(b"update", b"").len() + 4;
    let mut reply = vec![0; length];
    let mut have = 0;
    while have < length {
        match peer.some(&mut reply[have..]) {
            Ok(more @ 1..) => have += more,
            _ => return false,
        }
    }
    // The length of this reply is the success's alone: a refusal has a message.
    assert_eq!(
        reply[9..13],
        NARROW.length((length - NARROW.header()) as u64)
    );
    true
}

/// Fails unless every acknowledged version, or one that was sent after it, is stored and whole.
fn check(server: &Server, writer: u8, book: &mut Book) {
    let mut peer = server.connect();
    for (key, known) in book {
        let query = NARROW.query(&id(writer), &key.to_le_bytes());
        let reply = peer.ask(NARROW, &query);
        if reply.code != 0 {
            assert_eq!(known.acknowledged, 0, "writer {writer}, key {key}: lost");
            continue;
        }
        let (_, data) = reply.record(NARROW);
        let version = u64::from_le_bytes(data[..8].try_into().unwrap());
        assert!(
            data == value(writer, *key, version),
            "writer {writer}, key {key}: damaged"
        );
        let allowed = known.acknowledged..=known.sent;
        assert!(
            allowed.contains(&version),
            "writer {writer}, key {key}: {version}, {allowed:?}"
        );
        // From now on this is what a later round must find.
        known.acknowledged = version;
    }
}

#[test]
fn twenty_kills_during_updates_lose_and_damage_nothing_acknowledged() {
    let folder = Arc::new(Folder::new());
    let setup = Setup::new().folder(&folder);
    let mut books: Vec<Book> = vec![Book::new(); usize::from(WRITERS)];
    let mut numbers = Numbers::new(20);
    let mut in_all = 0;
    for round in 0..ROUNDS {
        let server = setup.start();
        for (writer, book) in (0..WRITERS).zip(&mut books) {
            check(&server, writer, book);
        }
        let total = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..WRITERS)
            .zip(books)
            .map(|(writer, book)| write(&server, writer, book, Arc::clone(&total)))
            .collect();
        // The kill falls behind a different number of acknowledgements each time.
        let enough = 1 + numbers.below(60);
        until("updates are acknowledged", || {
            total.load(Ordering::SeqCst) >= enough
        });
        server.kill();
        books = writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect();
        in_all += total.load(Ordering::SeqCst);
        eprintln!(
            "round {round}: killed behind {} updates",
            total.load(Ordering::SeqCst)
        );
    }
    let server = setup.start();
    for (writer, book) in (0..WRITERS).zip(&mut books) {
        check(&server, writer, book);
    }
    assert!(in_all >= 20);
    server.stop();
}
