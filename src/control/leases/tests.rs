//! One promise of a book after the other, with the clock played by the test.

use std::collections::BTreeMap;
use std::time::Instant;

use super::*;

const LEASE: Duration = Duration::from_secs(3 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

fn pool(first: u16, last: u16) -> Pool {
    Pool {
        name: "pool",
        ports: first..=last,
        lease: LEASE,
    }
}

/// A book of three ports.
fn book(now: Instant) -> Book<u32> {
    Book::new(pool(20_000, 20_002), now)
}

fn ends(book: &mut Book<u32>, now: Instant) -> Vec<(u16, Vec<u8>)> {
    let mut ended = Vec::new();
    book.expire(now, |port, owner| ended.push((port, owner.to_vec())));
    book.check();
    ended
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Writes what is unsaved into `rows`, as the store does.
fn save(book: &mut Book<u32>, rows: &mut Rows, now: Instant) {
    book.unsaved(now, |owner, row| {
        match row {
            Some(row) => rows.insert(owner.to_vec(), row.to_vec()),
            None => rows.remove(owner),
        };
    });
    book.saved();
    book.check();
}

fn restored(rows: &Rows, pool: Pool, elapsed: i64, now: Instant) -> Book<u32> {
    let mut book = Book::new(pool, now);
    for (owner, row) in rows {
        book.restore(owner, row, elapsed, now);
        book.check();
    }
    book
}

fn lease(port: u16, epoch: u64, renewed: bool) -> Lease {
    Lease {
        port,
        epoch,
        renewed,
    }
}

#[test]
fn an_owner_has_one_port_and_nobody_else_has_it() {
    let now = Instant::now();
    let mut book = book(now);
    for (epoch, owner, port) in [(1, b"a", 20_000), (2, b"b", 20_001), (3, b"c", 20_002)] {
        let granted = book.acquire(owner, None, 0, now).unwrap();
        assert_eq!(granted.lease, lease(port, epoch, false));
        assert_eq!(granted.ousted, None);
    }
    assert_eq!(book.acquire(b"d", None, 0, now), Err(NoPort::Full));
    let again = book.acquire(b"b", None, 0, now).unwrap();
    assert_eq!(again.lease, lease(20_001, 4, true));
    assert_eq!((book.len(), book.free()), (3, 0));
    book.check();
}

#[test]
fn the_newest_wins_and_a_void_epoch_changes_nothing() {
    let now = Instant::now();
    let mut book = book(now);
    let old = book.acquire(b"a", None, 1, now).unwrap().lease;
    let taken = book.acquire(b"a", None, 2, now).unwrap();
    assert_eq!(taken.lease, lease(old.port, 2, true));
    assert_eq!(taken.ousted, Some((1, old.epoch)));
    let held = |book: &Book<u32>| book.holder(old.port).map(|(_, epoch, who)| (epoch, who));
    assert_eq!(book.leave(b"a", old.epoch, now), None);
    let foreign = book.foreign(b"a", old.epoch, 1, now);
    assert_eq!(foreign, Err(NoPort::Superseded));
    assert_eq!(held(&book), Some((2, 2)));
    assert_eq!(ends(&mut book, now + LEASE * 9), []);
    assert_eq!(book.leave(b"a", 2, now), Some((old.port, 2)));
    // The epoch is void once it was left, too.
    assert_eq!(book.leave(b"a", 2, now), None);
    assert_eq!(held(&book), None);
}

#[test]
fn a_lease_runs_from_the_leaving_on_and_its_port_is_free_at_its_end() {
    let start = Instant::now();
    let mut book = book(start);
    let port = book.acquire(b"a", None, 0, start).unwrap().lease.port;
    let later = start + LEASE * 5;
    assert_eq!(ends(&mut book, later), [], "it is held");
    book.leave(b"a", 1, later).unwrap();
    assert_eq!(ends(&mut book, later + LEASE - MINUTE), []);
    let back = later + LEASE - MINUTE;
    let again = book.acquire(b"a", None, 0, back).unwrap().lease;
    assert_eq!(again, lease(port, 2, true));
    assert_eq!(ends(&mut book, back + LEASE), [], "it is held again");
    book.leave(b"a", 2, back).unwrap();
    let end = ends(&mut book, back + LEASE + Duration::from_millis(8));
    assert_eq!(end, [(port, b"a".to_vec())]);
    assert_eq!((book.len(), book.free()), (0, 3));
    // It comes after those that were free before it.
    let next = book.acquire(b"a", None, 0, back + LEASE * 2).unwrap().lease;
    assert_eq!(next, lease(20_001, 3, false));
}

#[test]
fn a_wanted_port_is_given_or_nothing_changes() {
    let now = Instant::now();
    let mut book = book(now);
    let a = book.acquire(b"a", Some(20_002), 0, now).unwrap().lease;
    assert_eq!(a, lease(20_002, 1, false));
    for (port, why) in [
        (20_002, NoPort::Taken),
        (19_999, NoPort::Outside),
        (20_003, NoPort::Outside),
        (0, NoPort::Outside),
    ] {
        assert_eq!(book.acquire(b"b", Some(port), 0, now), Err(why));
    }
    let b = book.acquire(b"b", Some(20_000), 0, now).unwrap().lease;
    assert_eq!(book.acquire(b"b", Some(20_002), 0, now), Err(NoPort::Taken));
    assert_eq!(book.holder(20_000).map(|held| held.1), Some(b.epoch));
    let moved = book.acquire(b"b", Some(20_001), 0, now).unwrap();
    assert_eq!(moved.lease, lease(20_001, 3, false));
    assert_eq!(moved.ousted, Some((0, b.epoch)));
    assert_eq!(book.acquire(b"c", None, 0, now).unwrap().lease.port, 20_000);
    book.check();
}

#[test]
fn a_foreign_port_is_left_alone_for_longer_each_time_and_another_is_given() {
    let mut now = Instant::now();
    let mut book = Book::new(pool(20_000, 20_001), now);
    let mut epoch = book
        .acquire(b"a", Some(20_000), 0, now)
        .unwrap()
        .lease
        .epoch;
    for minutes in [1, 2, 4, 8, 16, 32, 64, 64] {
        let other = book.foreign(b"a", epoch, 0, now).unwrap().lease;
        assert_eq!(other, lease(20_001, epoch + 1, false));
        assert_eq!(book.acquire(b"b", None, 0, now), Err(NoPort::Full));
        let wanted = book.acquire(b"b", Some(20_000), 0, now);
        assert_eq!(wanted, Err(NoPort::Taken));
        assert_eq!(ends(&mut book, now + MINUTE * minutes - MINUTE / 2), []);
        assert_eq!(book.free(), 0);
        now += MINUTE * minutes + MINUTE / 2;
        ends(&mut book, now);
        assert_eq!(book.free(), 1);
        let back = book.acquire(b"a", Some(20_000), 0, now).unwrap().lease;
        epoch = back.epoch;
    }
    // A lease that was used shows that the port is our own again.
    book.leave(b"a", epoch, now).unwrap();
    epoch = book.acquire(b"a", None, 0, now).unwrap().lease.epoch;
    book.foreign(b"a", epoch, 0, now).unwrap();
    ends(&mut book, now + MINUTE * 3 / 2);
    assert_eq!(book.free(), 1);
}

#[test]
fn without_another_port_a_foreign_one_stays_its_owners() {
    let now = Instant::now();
    let mut book = Book::new(pool(20_000, 20_000), now);
    let only = book.acquire(b"a", None, 0, now).unwrap().lease;
    let none = book.foreign(b"a", only.epoch, 0, now);
    assert_eq!(none, Err(NoPort::Full));
    assert_eq!(book.leave(b"a", only.epoch, now), Some((20_000, 0)));
}

#[test]
fn owners_are_any_bytes_up_to_the_longest() {
    let now = Instant::now();
    let mut book = book(now);
    let long = [0xff; MAX_OWNER + 1];
    assert_eq!(book.acquire(&long, None, 0, now), Err(NoPort::LongOwner));
    book.acquire(&long[1..], None, 0, now).unwrap();
    book.acquire(b"", None, 0, now).unwrap();
    assert_eq!(book.len(), 2);
}

#[test]
fn what_is_restored_is_what_was_saved() {
    let now = Instant::now();
    let mut book = Book::new(pool(20_000, 20_009), now);
    for owner in [b"held", b"left", b"pins", b"gone", b"both"] {
        book.acquire(owner, None, 7, now).unwrap();
    }
    book.leave(b"left", 2, now).unwrap();
    book.leave(b"gone", 4, now).unwrap();
    assert!(book.pin(20_002, true, now));
    book.leave(b"pins", 3, now).unwrap();
    let mut rows = Rows::new();
    save(&mut book, &mut rows, now);
    book.acquire(b"gone", Some(20_008), 7, now).unwrap();
    assert_eq!(book.release(20_008), Some(Some((7, 6))));
    let written = now + MINUTE;
    book.acquire(b"left", None, 7, written).unwrap();
    book.leave(b"left", 7, written).unwrap();
    save(&mut book, &mut rows, written + MINUTE);
    assert!(!rows.contains_key(&b"gone"[..]), "its removal is told");

    let start = now + LEASE * 7;
    let mut book = restored(&rows, pool(20_000, 20_009), 600, start);
    let list: Vec<_> = book.list(start).collect();
    let ported = |port, owner| Listed {
        port,
        owner,
        epoch: 1,
        held: false,
        pinned: false,
        remaining: Some(LEASE),
    };
    let left = LEASE - MINUTE - MINUTE * 10;
    assert_eq!(
        list,
        [
            ported(20_000, b"held"),
            Listed {
                epoch: 7,
                remaining: Some(left),
                ..ported(20_001, b"left")
            },
            Listed {
                epoch: 3,
                pinned: true,
                remaining: None,
                ..ported(20_002, b"pins")
            },
            Listed {
                epoch: 5,
                ..ported(20_004, b"both")
            },
        ]
    );
    // Epochs go on from the greatest one, so that no holder of the last process comes back.
    let renewed = book.acquire(b"held", None, 0, start).unwrap().lease;
    assert_eq!(renewed, lease(20_000, 8, true));
    assert_eq!(ends(&mut book, start + LEASE * 2).len(), 2);
    assert_eq!(book.len(), 2, "held and pinned");
}

#[test]
fn what_is_restored_is_written_anew_so_that_a_second_restart_takes_nothing_twice() {
    let now = Instant::now();
    let mut book = book(now);
    book.acquire(b"a", None, 0, now).unwrap();
    let mut rows = Rows::new();
    save(&mut book, &mut rows, now);
    // Held at both crashes of a server that crashes each hour, with nobody coming back.
    let hour = 3600;
    for restart in 0..3 {
        let mut book = restored(&rows, pool(20_000, 20_002), hour, now);
        let remaining = book.list(now).next().unwrap().remaining;
        assert_eq!(remaining, Some(LEASE - MINUTE * 60 * restart));
        assert!(book.has_unsaved());
        save(&mut book, &mut rows, now);
    }
}

#[test]
fn rows_that_are_none_or_not_of_the_range_are_dropped_on_the_disk_too() {
    let now = Instant::now();
    let mut book = book(now);
    for owner in [b"a", b"b", b"c"] {
        book.acquire(owner, None, 0, now).unwrap();
    }
    let mut rows = Rows::new();
    save(&mut book, &mut rows, now);
    rows.insert(b"x".to_vec(), b"not a row".to_vec());
    rows.insert(b"y".to_vec(), rows[&b"b"[..]].clone());
    let mut book = restored(&rows, pool(20_001, 20_001), 0, now);
    assert_eq!(book.len(), 1);
    assert_eq!(book.list(now).next().unwrap().owner, b"b");
    save(&mut book, &mut rows, now);
    assert_eq!(rows.keys().collect::<Vec<_>>(), [b"b"]);
}

#[test]
fn what_the_disk_did_not_take_is_taken_back_and_departures_are_not() {
    let now = Instant::now();
    let mut book = book(now);
    book.acquire(b"a", None, 1, now).unwrap();
    book.acquire(b"b", None, 2, now).unwrap();
    let mut rows = Rows::new();
    save(&mut book, &mut rows, now);
    let before: Vec<_> = [20_000, 20_001]
        .map(|port| book.holder(port).unwrap().2)
        .into();
    // A new one, a take-over, a move, a foreign port, and one that leaves.
    book.acquire(b"n", None, 3, now).unwrap();
    book.acquire(b"a", None, 4, now).unwrap();
    book.leave(b"b", 2, now).unwrap();
    book.leave(b"n", 3, now).unwrap();
    book.acquire(b"n", None, 3, now).unwrap();
    book.release(20_002).unwrap();
    let foreign = book.foreign(b"a", 4, 4, now).unwrap().lease;
    assert_eq!(foreign.port, 20_002);
    assert_eq!(book.acquire(b"n", Some(20_000), 3, now), Err(NoPort::Taken));
    book.revert(now);
    book.check();
    assert_eq!(book.holder(20_000).unwrap().2, before[0]);
    assert_eq!(book.holder(20_000).unwrap().1, 1, "the old epoch holds");
    assert_eq!(book.holder(20_001), None, "who left has left");
    assert_eq!((book.len(), book.free()), (2, 1));
    let mut told = Vec::new();
    book.unsaved(now, |owner, row| told.push((owner.to_vec(), row.is_some())));
    assert_eq!(told, [(b"b".to_vec(), true)], "only the departure waits");
    let granted = book.acquire(b"n", None, 3, now).unwrap().lease;
    assert_eq!(granted.port, 20_002);
}

#[test]
fn the_operator_pins_and_releases() {
    let now = Instant::now();
    let mut book = book(now);
    assert!(!book.pin(20_000, true, now), "nobody has it");
    assert!(!book.pin(1, true, now));
    assert_eq!(book.release(20_000), None);
    assert_eq!(book.release(1), None);
    book.acquire(b"a", None, 9, now).unwrap();
    assert!(book.pin(20_000, true, now));
    book.leave(b"a", 1, now).unwrap();
    assert_eq!(ends(&mut book, now + LEASE * 2), []);
    let renewed = book.acquire(b"a", None, 9, now).unwrap().lease;
    book.leave(b"a", renewed.epoch, now).unwrap();
    assert_eq!(ends(&mut book, now + LEASE * 2), [], "it is pinned still");
    assert!(book.pin(20_000, false, now + LEASE * 2));
    assert_eq!(ends(&mut book, now + LEASE * 3 - MINUTE), []);
    assert_eq!(ends(&mut book, now + LEASE * 3 + MINUTE).len(), 1);
    let again = book.acquire(b"a", Some(20_001), 9, now).unwrap().lease;
    assert_eq!(book.release(20_001), Some(Some((9, again.epoch))));
    assert_eq!((book.is_empty(), book.free()), (true, 3));
    assert_eq!(book.leave(b"a", again.epoch, now), None);
    book.check();
}

#[test]
fn the_ends_of_the_port_numbers_are_ports_like_any() {
    let now = Instant::now();
    for (first, last) in [(1, 1), (65_535, 65_535), (65_534, 65_535)] {
        let mut book: Book<u32> = Book::new(pool(first, last), now);
        for port in first..=last {
            let granted = book.acquire(&port.to_be_bytes(), None, 0, now).unwrap();
            assert_eq!(granted.lease.port, port);
        }
        assert_eq!(book.acquire(b"x", None, 0, now), Err(NoPort::Full));
        book.check();
    }
    let mut all: Book<u32> = Book::new(pool(1, 65_535), now);
    for port in 1..=65_535u16 {
        all.acquire(&port.to_be_bytes(), None, 0, now).unwrap();
    }
    assert_eq!(all.acquire(b"x", None, 0, now), Err(NoPort::Full));
    all.check();
}
