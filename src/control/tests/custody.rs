//! The store in the hands of a newer process: what waits meanwhile, and what becomes of it.

use super::leases::{Lender, lease, leased, operate};
use super::*;
use crate::control::custody::{HELD, HELD_BYTES};
use crate::store::{Refusal, Store};

fn files(lender: &mut Lender, files: Files, with: Vec<Request>) -> Result<(), String> {
    let mut answers = operate(lender, Query::Files(files), with);
    match answers.pop() {
        Some(Answer::Files(outcome)) if answers.is_empty() => outcome,
        other => panic!("{other:?} {answers:?}"),
    }
}

const STORED: Reply = Reply::Stored(Ok(()));
const REFUSED: Reply = Reply::Stored(Err(Refusal::HandedOver));

#[test]
fn what_has_waited_is_done_when_the_files_are_open_again() {
    let mut lender = Lender::new();
    let (a, b) = (session(0, 1, 1), session(1, 2, 1));
    // What comes in the round itself is on the disk before the files are closed.
    let with = vec![ask(a, 1, set(b"a", b"1"))];
    assert_eq!(files(&mut lender, Files::Close, with), Ok(()));
    assert_eq!(lender.read(0), [(1, STORED)]);
    let newer = Store::open_on(Box::new(lender.disk.clone()), LIMITS).unwrap();
    assert!(newer.memory().has(b"a", b"s"));

    lender.step(vec![
        ask(a, 2, set(b"b", b"2")),
        ask(a, 3, lease("one", b"gone")),
        ask(a, 4, resolve("192.0.2.7")),
        ask(b, 5, lease("one", b"stays")),
        ask(b, 6, watch(b"a")),
        ask(a, 0, Command::Ended),
    ]);
    // Lookups and watches do not wait.
    assert!(matches!(lender.read(0)[..], [(4, Reply::Resolved(Ok(_)))]));
    assert_eq!(lender.read(1), [(6, Reply::Changed)]);
    let again = files(&mut lender, Files::Close, Vec::new());
    assert!(again.is_err(), "once");
    let pin = Query::Pin {
        pool: "one".into(),
        port: 20_000,
        pinned: true,
    };
    let pinned = operate(&mut lender, pin, Vec::new());
    assert!(matches!(
        pinned[..],
        [Answer::Changed(Err(Refused::NotNow(_)))]
    ));
    assert!(!lender.stage.control.memory.has(b"b", b"s"));

    drop(newer);
    assert_eq!(files(&mut lender, Files::Open, Vec::new()), Ok(()));
    let now = lender.stage.now;
    assert_eq!(lender.stage.control.next_deadline(now), Some(now));
    lender.step(vec![ask(a, 7, set(b"b", b"3"))]);
    // In their order, and no lease for a session that has ended.
    assert_eq!(lender.read(0), [(2, STORED), (7, STORED)]);
    assert_eq!(lender.read(1), [(5, leased(20_000, 1, false))]);
    let record = lender.stage.control.memory.get(b"b", b"s");
    assert_eq!(&*record.unwrap().data, b"3");
}

#[test]
fn what_has_waited_is_refused_when_the_newer_process_keeps_them() {
    let mut lender = Lender::new();
    let a = session(0, 1, 1);
    assert_eq!(files(&mut lender, Files::Close, Vec::new()), Ok(()));
    lender.step(vec![
        ask(a, 1, set(b"a", b"1")),
        ask(a, 2, lease("one", b"x")),
    ]);
    assert_eq!(files(&mut lender, Files::Leave, Vec::new()), Ok(()));
    lender.step(vec![ask(a, 3, set(b"a", b"1"))]);
    let told = lender.read(0);
    assert_eq!((&told[0], &told[2]), (&(1, REFUSED), &(3, REFUSED)));
    assert!(matches!(told[1], (2, Reply::NoPort(NoPort::NotStored(_)))));
    // There is no way back, and nothing is written behind the newer one's back.
    assert!(files(&mut lender, Files::Open, Vec::new()).is_err());
    let newer = Store::open_on(Box::new(lender.disk.clone()), LIMITS).unwrap();
    assert_eq!(newer.memory().records(), 0);
}

#[test]
fn a_newer_process_begins_when_it_is_told_to() {
    let second = Duration::from_secs(1);
    let resolver = Resolver::inline(Box::new(Inline), second, second);
    let (control, boxes) = control(64, resolver);
    let mut stage = Stage {
        control: control.waiting(),
        boxes,
        now: Instant::now(),
    };
    let a = session(0, 1, 1);
    stage.step(vec![ask(a, 1, set(b"a", b"1"))]);
    assert!(stage.read(0, 9).is_empty());
    let errand = Errand {
        query: Query::Files(Files::Open),
        answer: Box::new(|answer| assert_eq!(answer, Answer::Files(Ok(())))),
    };
    stage.step(vec![Request::errand(errand).unwrap()]);
    stage.step(Vec::new());
    assert_eq!(stage.read(0, 9), [(1, 1, STORED)]);
}

#[test]
fn no_more_waits_than_may() {
    let mut lender = Lender::new();
    let a = session(0, 1, 1);
    assert_eq!(files(&mut lender, Files::Close, Vec::new()), Ok(()));
    let many = (0..HELD as u32).map(|ticket| ask(a, ticket, remove(b"a")));
    lender.step(many.collect());
    assert!(lender.read(0).is_empty());
    lender.step(vec![ask(a, 99, remove(b"a"))]);
    assert_eq!(lender.read(0), [(99, Reply::Busy)]);

    let mut lender = Lender::new();
    assert_eq!(files(&mut lender, Files::Close, Vec::new()), Ok(()));
    let large = vec![0; HELD_BYTES / 2 - 2];
    lender.step(
        (1..4)
            .map(|ticket| ask(a, ticket, set(b"a", &large)))
            .collect(),
    );
    assert_eq!(lender.read(0), [(3, Reply::Busy)]);
}
