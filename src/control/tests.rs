//! The control thread's rounds, with the clock and the workers played by the test.

use std::io;
use std::thread;

use crossbeam_channel::bounded;

use super::resolver::Failure;
use super::*;
use crate::reactor::{Bell, Mailbox, mailbox};
use crate::store::Limits;

struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

const LIMITS: Limits = Limits {
    max_value: 100,
    max_records: 1000,
    max_bytes: 1 << 20,
};

struct Stage {
    control: Control,
    boxes: Vec<Mailbox<Letter>>,
    now: Instant,
}

struct Inline;

impl resolver::Lookup for Inline {
    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        match host {
            "host" => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
            _ => Err(io::Error::other("unknown")),
        }
    }
}

fn control(depth: usize, resolver: Resolver<Asker>) -> (Control, Vec<Mailbox<Letter>>) {
    let store = Store::in_memory(LIMITS).unwrap();
    let (addresses, boxes) = (0..2).map(|_| mailbox(depth, Arc::new(Silent))).unzip();
    (Control::new(store, resolver, addresses), boxes)
}

impl Stage {
    fn new(depth: usize) -> Self {
        let second = Duration::from_secs(1);
        Self::with(depth, Resolver::inline(Box::new(Inline), second, second))
    }

    fn with(depth: usize, resolver: Resolver<Asker>) -> Self {
        let (control, boxes) = control(depth, resolver);
        Self {
            control,
            boxes,
            now: Instant::now(),
        }
    }

    fn step(&mut self, requests: Vec<Request>) {
        let mut requests = requests;
        self.control.step(&mut requests, self.now, 1000);
        assert!(requests.is_empty());
    }

    /// Takes at most `most` letters out of a worker's box.
    fn read(&mut self, core: usize, most: usize) -> Vec<(u32, u32, Reply)> {
        let mut letters = Vec::new();
        self.boxes[core].open(most, |letter| {
            letters.push((letter.to.index(), letter.ticket, letter.reply));
        });
        letters
    }
}

fn session(core: u8, index: u32, generation: u32) -> Handle {
    let session = SessionKey::from_parts(index, generation).unwrap();
    Handle { core, session }
}

fn ask(from: Handle, ticket: u32, command: Command) -> Request {
    Request {
        from,
        ticket,
        command,
    }
}

fn set(id: &[u8], data: &[u8]) -> Command {
    Command::Update(Update {
        id: id.into(),
        section: b"s"[..].into(),
        change: Change::Set(data.into()),
    })
}

fn remove(id: &[u8]) -> Command {
    Command::Update(Update {
        id: id.into(),
        section: b"s"[..].into(),
        change: Change::Remove,
    })
}

fn watch(id: &[u8]) -> Command {
    Command::Watch {
        id: id.into(),
        section: b"s"[..].into(),
    }
}

fn unwatch(id: &[u8]) -> Command {
    Command::Unwatch {
        id: id.into(),
        section: b"s"[..].into(),
    }
}

fn resolve(host: &str) -> Command {
    Command::Resolve { host: host.into() }
}

#[test]
fn each_update_is_answered_to_its_session_after_the_others_were_served() {
    let mut stage = Stage::new(8);
    let (a, b) = (session(0, 1, 1), session(1, 2, 1));
    stage.step(vec![
        ask(a, 10, set(b"id", b"1")),
        ask(b, 20, set(b"id", &[0; 101])),
        ask(a, 11, resolve("host")),
        ask(a, 12, resolve("none")),
    ]);
    let found = Reply::Resolved(Ok([IpAddr::from([192, 0, 2, 1])].into()));
    let none = Reply::Resolved(Err(Failure::NoSuchName));
    assert_eq!(
        stage.read(0, 9),
        [
            (1, 11, found),
            (1, 12, none),
            (1, 10, Reply::Stored(Ok(())))
        ]
    );
    let refusal = Refusal::ValueTooLong {
        length: 101,
        most: 100,
    };
    assert_eq!(stage.read(1, 9), [(2, 20, Reply::Stored(Err(refusal)))]);
    let record = stage.control.memory().get(b"id", b"s").unwrap();
    assert_eq!((record.timestamp, &*record.data), (1000, &b"1"[..]));
}

#[test]
fn a_watch_is_woken_by_the_update_and_only_once() {
    let mut stage = Stage::new(8);
    let (a, b) = (session(0, 1, 1), session(1, 2, 1));
    stage.step(vec![ask(a, 1, watch(b"id")), ask(b, 2, watch(b"id"))]);
    stage.step(vec![ask(a, 9, remove(b"id")), ask(a, 9, set(b"ie", b""))]);
    let stored = Reply::Stored(Ok(()));
    let twice = [(1, 9, stored.clone()), (1, 9, stored.clone())];
    assert_eq!(stage.read(0, 9), twice);
    assert_eq!(stage.read(1, 9), []);
    stage.step(vec![ask(b, 3, set(b"id", b"x"))]);
    assert_eq!(stage.read(0, 9), [(1, 1, Reply::Changed)]);
    assert_eq!(
        stage.read(1, 9),
        [(2, 3, stored.clone()), (2, 2, Reply::Changed)]
    );
    stage.step(vec![ask(b, 4, set(b"id", b"y"))]);
    assert_eq!(stage.read(0, 9), []);
    assert_eq!(stage.read(1, 9), [(2, 4, stored)]);
    assert_eq!(stage.control.watchers.len(), 0);
}

#[test]
fn a_watch_of_what_is_there_is_answered_at_once() {
    let mut stage = Stage::new(8);
    let a = session(0, 1, 1);
    stage.step(vec![ask(a, 1, set(b"id", b"x"))]);
    stage.step(vec![ask(a, 2, watch(b"id"))]);
    let letters = stage.read(0, 9);
    assert_eq!(letters[1..], [(1, 2, Reply::Changed)]);
    assert_eq!(stage.control.watchers.len(), 0);
}

#[test]
fn a_watch_before_the_update_of_its_own_round_is_woken_by_it() {
    let mut stage = Stage::new(8);
    let (a, b) = (session(0, 1, 1), session(0, 2, 1));
    stage.step(vec![ask(b, 1, set(b"id", b"x")), ask(a, 2, watch(b"id"))]);
    assert_eq!(
        stage.read(0, 9),
        [(2, 1, Reply::Stored(Ok(()))), (1, 2, Reply::Changed)]
    );
}

#[test]
fn a_refused_update_wakes_nobody() {
    let mut stage = Stage::new(8);
    let (a, b) = (session(0, 1, 1), session(1, 2, 1));
    stage.step(vec![ask(a, 1, watch(b"id"))]);
    stage.step(vec![ask(b, 2, set(b"id", &[0; 101]))]);
    assert_eq!(stage.read(0, 9), []);
    assert_eq!(stage.control.watchers.len(), 1);
}

#[test]
fn a_session_watches_one_record_and_its_successor_takes_its_place() {
    let mut stage = Stage::new(8);
    let (old, new) = (session(0, 1, 1), session(0, 1, 2));
    stage.step(vec![ask(old, 1, watch(b"a")), ask(old, 2, watch(b"b"))]);
    assert_eq!(stage.control.watchers.len(), 1);
    // The late word of a session that has left does not end its successor's watch.
    stage.step(vec![
        ask(new, 3, watch(b"a")),
        ask(old, 0, unwatch(b"a")),
        ask(new, 0, unwatch(b"b")),
    ]);
    assert_eq!(stage.control.watchers.len(), 1);
    stage.step(vec![ask(new, 0, unwatch(b"a"))]);
    assert_eq!(stage.control.watchers.len(), 0);
    stage.step(vec![ask(session(1, 1, 1), 9, set(b"a", b""))]);
    assert_eq!(stage.read(0, 9), []);
}

#[test]
fn too_many_watched_bytes_are_busy_and_room_comes_back() {
    let mut stage = Stage::new(8);
    let long = vec![0; watchers::WATCHED_BYTES];
    let a = session(0, 1, 1);
    stage.step(vec![ask(a, 1, watch(&long))]);
    assert_eq!(stage.read(0, 9), [(1, 1, Reply::Busy)]);
    let fits = &long[1..];
    stage.step(vec![ask(a, 2, watch(fits))]);
    stage.step(vec![ask(session(0, 2, 1), 3, watch(b""))]);
    assert_eq!(stage.read(0, 9), [(2, 3, Reply::Busy)]);
    stage.step(vec![ask(a, 0, unwatch(fits))]);
    stage.step(vec![ask(session(0, 2, 1), 4, watch(b""))]);
    assert_eq!(stage.read(0, 9), []);
    assert_eq!(stage.control.watchers.len(), 1);
}

#[test]
fn letters_for_a_full_box_wait_in_order_and_hold_up_no_other_worker() {
    let mut stage = Stage::new(2);
    let (slow, quick) = (session(0, 1, 1), session(1, 1, 1));
    let requests = (0..7).map(|ticket| ask(slow, ticket, set(b"id", b"")));
    stage.step(requests.collect());
    stage.step(vec![ask(quick, 1, set(b"id", b""))]);
    assert_eq!(stage.read(1, 9).len(), 1);
    let mut tickets = Vec::new();
    while tickets.len() < 7 {
        assert!(stage.control.next_deadline(stage.now) <= Some(stage.now + RETRY));
        let letters = stage.read(0, 1);
        assert_eq!(letters.len(), 1);
        tickets.extend(letters.iter().map(|letter| letter.1));
        stage.step(Vec::new());
    }
    assert_eq!(tickets, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(stage.control.next_deadline(stage.now), None);
}

#[test]
fn a_full_outbox_stops_the_intake_until_its_worker_is_given_up() {
    let mut stage = Stage::new(1);
    let (stuck, quick) = (session(0, 1, 1), session(1, 1, 1));
    let requests = |count| (0..count).map(|ticket| ask(stuck, ticket, resolve("host")));
    stage.step(requests(ROUND as u32).collect());
    assert!(!stage.control.is_clogged());
    stage.step(requests(1).collect());
    assert!(stage.control.is_clogged());
    stage.now += Duration::from_secs(10);
    stage.step(Vec::new());
    assert!(!stage.control.is_clogged());
    // From here on its letters are dropped at once, until it takes one.
    stage.step(requests(2 * ROUND as u32).collect());
    assert!(!stage.control.is_clogged());
    stage.step(vec![ask(quick, 5, resolve("host"))]);
    assert_eq!(stage.read(1, 9).len(), 1);
    assert_eq!(stage.read(0, 9).len(), 1);
    stage.step(requests(3).collect());
    assert_eq!(stage.control.outboxes[0].waiting(), 2);
}

#[test]
fn a_lookup_that_comes_back_or_times_out_is_told_to_who_asked() {
    let second = Duration::from_secs(1);
    let (resolver, jobs, found) = Resolver::with_channels(second, 5 * second);
    let mut stage = Stage::with(8, resolver);
    let a = session(0, 1, 1);
    stage.step(vec![ask(a, 1, resolve("x")), ask(a, 2, resolve("y"))]);
    assert_eq!(stage.read(0, 9), []);
    let host = jobs.try_recv().unwrap();
    let result = Ok(vec![IpAddr::from([192, 0, 2, 9])]);
    found.send(Found { host, result }).unwrap();
    stage.step(Vec::new());
    let told = Reply::Resolved(Ok([IpAddr::from([192, 0, 2, 9])].into()));
    assert_eq!(stage.read(0, 9), [(1, 1, told)]);
    let deadline = stage.now + 5 * second;
    assert_eq!(stage.control.next_deadline(stage.now), Some(deadline));
    stage.now = deadline;
    stage.step(Vec::new());
    let late = Reply::Resolved(Err(Failure::TimedOut(5 * second)));
    assert_eq!(stage.read(0, 9), [(1, 2, late)]);
    assert_eq!(stage.control.next_deadline(stage.now), None);
}

#[test]
fn the_thread_applies_all_that_was_sent_before_it_ends() {
    const UPDATES: u32 = 5000;
    let second = Duration::from_secs(1);
    let resolver = Resolver::inline(Box::new(Inline), second, second);
    let (control, mut boxes) = control(UPDATES as usize, resolver);
    let memory = control.memory();
    let (requests, inbox) = bounded(UPDATES as usize);
    let running = thread::spawn(move || control.run(inbox));
    for ticket in 0..UPDATES {
        let id = (ticket % 700).to_string();
        let request = ask(session(0, 1, 1), ticket, set(id.as_bytes(), b"x"));
        requests.send(request).unwrap();
    }
    drop(requests);
    running.join().unwrap();
    assert_eq!(memory.records(), 700);
    let mut tickets = Vec::new();
    boxes[0].open(usize::MAX, |letter| tickets.push(letter.ticket));
    assert_eq!(tickets, (0..UPDATES).collect::<Vec<_>>());
}

#[test]
fn the_thread_hears_of_lookups_on_other_threads() {
    let second = Duration::from_secs(1);
    let lookup = Arc::new(Inline);
    let resolver = Resolver::with_threads(lookup, second, 60 * second).unwrap();
    let (control, mut boxes) = control(8, resolver);
    let (requests, inbox) = bounded(8);
    let running = thread::spawn(move || control.run(inbox));
    let request = ask(session(1, 1, 1), 1, resolve("host"));
    requests.send(request).unwrap();
    let mut letters = Vec::new();
    let deadline = Instant::now() + 30 * second;
    while letters.is_empty() {
        assert!(Instant::now() < deadline, "no answer came");
        boxes[1].open(8, |letter| letters.push(letter));
        thread::yield_now();
    }
    assert!(matches!(letters[0].reply, Reply::Resolved(Ok(_))));
    drop(requests);
    running.join().unwrap();
}

#[test]
fn a_round_ends_at_its_bytes() {
    let (requests, inbox) = bounded(8);
    for _ in 0..8 {
        let request = ask(session(0, 1, 1), 1, set(b"", &vec![0; ROUND_BYTES / 2]));
        requests.send(request).unwrap();
    }
    let mut round = Vec::new();
    fill(&mut round, &inbox);
    assert_eq!(round.len(), 2);
}

mod custody;
mod leases;
