//! Leases through the control thread's rounds: who is told what, when, and what a restart finds.

use std::collections::HashMap;
use std::time::Duration;

use super::super::leases::MAX_OWNER;
use super::*;
use crate::store::{Fault, FaultyDisk};

const LEASE: Duration = Duration::from_secs(3 * 3600);
const SECOND: Duration = Duration::from_secs(1);

/// Two pools of two ports each, on a disk that can fail.
pub(super) struct Lender {
    pub(super) stage: Stage,
    pub(super) disk: FaultyDisk,
    unix: i64,
}

impl Lender {
    pub(super) fn new() -> Self {
        Self::on(FaultyDisk::default(), 1_700_000_000)
    }

    fn on(disk: FaultyDisk, unix: i64) -> Self {
        let second = Duration::from_secs(1);
        let resolver = Resolver::inline(Box::new(Inline), second, second);
        let store = Store::open_on(Box::new(disk.clone()), LIMITS).unwrap();
        let (addresses, boxes) = (0..2).map(|_| mailbox(64, Arc::new(Silent))).unzip();
        let now = Instant::now();
        let pools = [("one", 20_000), ("two", 30_000)].map(|(name, first)| Pool {
            name,
            ports: first..=first + 1,
            lease: LEASE,
        });
        let control = Control::new(store, resolver, addresses).lending(pools.into(), now, unix);
        let stage = Stage {
            control,
            boxes,
            now,
        };
        Self { stage, disk, unix }
    }

    /// As a start finds it after the process was killed and the power was cut.
    fn restarted(&self, unix: i64) -> Self {
        let copy = self.disk.copy();
        copy.cut_power();
        Self::on(copy, unix)
    }

    pub(super) fn step(&mut self, mut requests: Vec<Request>) {
        let Stage { control, now, .. } = &mut self.stage;
        control.step(&mut requests, *now, self.unix);
    }

    fn pass(&mut self, time: Duration) {
        self.stage.now += time;
        self.unix += time.as_secs() as i64;
        self.step(Vec::new());
    }

    pub(super) fn read(&mut self, core: usize) -> Vec<(u32, Reply)> {
        let letters = self.stage.read(core, 64);
        let told = letters.into_iter();
        told.map(|(_, ticket, reply)| (ticket, reply)).collect()
    }

    /// One round with one question, and its answer.
    fn answer(&mut self, from: Handle, command: Command) -> Reply {
        self.step(vec![ask(from, 77, command)]);
        let mut told = self.read(usize::from(from.core));
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0).1
    }
}

pub(super) fn lease(pool: &'static str, owner: &[u8]) -> Command {
    Command::Lease {
        pool,
        owner: owner.into(),
        wanted: None,
    }
}

fn leave(owner: &[u8], epoch: u64) -> Command {
    Command::Leave {
        pool: "one",
        owner: owner.into(),
        epoch,
    }
}

pub(super) fn leased(port: u16, epoch: u64, renewed: bool) -> Reply {
    Reply::Leased(Lease {
        port,
        epoch,
        renewed,
    })
}

fn refused(why: NoPort) -> Reply {
    Reply::NoPort(why)
}

#[test]
fn each_pool_lends_its_own_ports_and_a_full_one_says_so() {
    let mut lender = Lender::new();
    let a = session(0, 1, 1);
    for (pool, owner, reply) in [
        ("one", b"x", leased(20_000, 1, false)),
        ("two", b"x", leased(30_000, 1, false)),
        ("one", b"y", leased(20_001, 2, false)),
        ("one", b"z", refused(NoPort::Full)),
        ("two", b"z", leased(30_001, 2, false)),
        ("none", b"z", refused(NoPort::Full)),
    ] {
        assert_eq!(lender.answer(a, lease(pool, owner)), reply);
    }
    let long = lender.answer(a, lease("one", &[0; MAX_OWNER + 1]));
    assert_eq!(long, refused(NoPort::LongOwner));
}

#[test]
fn a_take_over_is_told_to_the_former_holder_whose_departure_changes_nothing() {
    let mut lender = Lender::new();
    let (old, new) = (session(0, 1, 1), session(1, 2, 1));
    lender.step(vec![ask(old, 5, lease("one", b"x"))]);
    assert_eq!(lender.read(0), [(5, leased(20_000, 1, false))]);
    lender.step(vec![ask(new, 6, lease("one", b"x"))]);
    assert_eq!(lender.read(0), [(5, Reply::Superseded { epoch: 1 })]);
    assert_eq!(lender.read(1), [(6, leased(20_000, 2, true))]);
    lender.step(vec![
        ask(old, 5, leave(b"x", 1)),
        ask(old, 5, Command::Ended),
    ]);
    lender.pass(LEASE * 2);
    lender.step(vec![
        ask(old, 7, lease("one", b"y")),
        ask(old, 8, lease("one", b"z")),
    ]);
    assert_eq!(
        lender.read(0),
        [(8, refused(NoPort::Full)), (7, leased(20_001, 3, false))],
        "the new one holds it still"
    );
    // Who asks again on its own session supersedes nobody.
    assert_eq!(
        lender.answer(new, lease("one", b"x")),
        leased(20_000, 4, true)
    );
}

#[test]
fn two_of_one_owner_in_one_round_are_served_in_their_order() {
    let mut lender = Lender::new();
    let (a, b) = (session(0, 1, 1), session(1, 2, 1));
    lender.step(vec![
        ask(a, 1, lease("one", b"x")),
        ask(b, 2, lease("one", b"x")),
    ]);
    let told = [
        (1, leased(20_000, 1, false)),
        (1, Reply::Superseded { epoch: 1 }),
    ];
    assert_eq!(lender.read(0), told);
    assert_eq!(lender.read(1), [(2, leased(20_000, 2, true))]);
}

#[test]
fn what_an_ended_session_held_runs_out_though_it_never_heard_of_it() {
    let mut lender = Lender::new();
    let (a, b) = (session(0, 1, 1), session(0, 1, 2));
    lender.step(vec![
        ask(a, 1, lease("one", b"x")),
        ask(a, 2, lease("one", b"y")),
        ask(a, 3, Command::Ended),
        ask(b, 4, lease("one", b"y")),
    ]);
    lender.read(0);
    lender.pass(LEASE + SECOND);
    assert_eq!(
        lender.answer(b, lease("one", b"z")),
        leased(20_000, 4, false)
    );
    let held = lender.answer(b, lease("one", b"y"));
    assert_eq!(
        held,
        leased(20_001, 5, true),
        "the next session in that place held it"
    );
}

#[test]
fn a_foreign_port_is_replaced_and_a_void_epoch_gets_nothing() {
    let mut lender = Lender::new();
    let a = session(0, 1, 1);
    let foreign = |epoch| Command::ForeignPort {
        pool: "one",
        owner: b"x"[..].into(),
        epoch,
    };
    assert_eq!(
        lender.answer(a, lease("one", b"x")),
        leased(20_000, 1, false)
    );
    assert_eq!(lender.answer(a, foreign(1)), leased(20_001, 2, false));
    assert_eq!(lender.answer(a, foreign(1)), refused(NoPort::Superseded));
    assert_eq!(lender.answer(a, foreign(2)), refused(NoPort::Full));
    lender.pass(SECOND * 61);
    assert_eq!(lender.answer(a, foreign(2)), leased(20_000, 3, false));
}

#[test]
fn a_lease_is_on_the_disk_before_it_is_told_and_with_the_updates_of_its_round() {
    let mut lender = Lender::new();
    let a = session(0, 1, 1);
    let before = lender.disk.syncs();
    lender.step(vec![
        ask(a, 1, lease("one", b"x")),
        ask(a, 2, lease("two", b"y")),
        ask(a, 3, set(b"id", b"1")),
    ]);
    assert_eq!(lender.disk.syncs(), [before[0], before[1] + 1]);
    assert_eq!(lender.read(0).len(), 3);
    let mut restarted = lender.restarted(lender.unix);
    assert_eq!(
        restarted.answer(a, lease("one", b"y")),
        leased(20_001, 2, false)
    );
    assert_eq!(
        restarted.answer(a, lease("one", b"x")),
        leased(20_000, 3, true)
    );
    assert_eq!(
        restarted.answer(a, lease("two", b"y")),
        leased(30_000, 2, true)
    );
}

#[test]
fn a_disk_that_fails_gives_no_lease_and_loses_none() {
    let mut lender = Lender::new();
    let (old, new) = (session(0, 1, 1), session(1, 2, 1));
    assert_eq!(
        lender.answer(old, lease("one", b"x")),
        leased(20_000, 1, false)
    );
    lender.disk.fail(Fault::All(libc::EIO), 0);
    let is_refused = |reply: &Reply| match reply {
        Reply::NoPort(NoPort::NotStored(why)) => why.contains("Input/output error"),
        _ => false,
    };
    for _ in 0..2 {
        let told = lender.answer(new, lease("one", b"x"));
        assert!(is_refused(&told), "{told:?}");
    }
    assert_eq!(lender.read(0), [], "nobody was superseded");
    lender.disk.heal();
    let operations = lender.disk.operations();
    assert!(is_refused(&lender.answer(new, lease("one", b"y"))));
    assert_eq!(lender.disk.operations(), operations, "once a second");
    lender.pass(SECOND);
    let told = lender.answer(new, lease("one", b"x"));
    assert!(matches!(
        told,
        Reply::Leased(Lease {
            port: 20_000,
            renewed: true,
            ..
        })
    ));
    assert_eq!(lender.read(0), [(77, Reply::Superseded { epoch: 1 })]);
}

/// What is taken back must not come back to a session that has left meanwhile.
#[test]
fn who_leaves_in_a_round_that_fails_has_left() {
    let departures: [fn(Handle) -> Request; 2] = [
        |old| ask(old, 1, leave(b"x", 1)),
        |old| ask(old, 1, Command::Ended),
    ];
    for departure in departures {
        let mut lender = Lender::new();
        let (old, new) = (session(0, 1, 1), session(1, 2, 1));
        assert_eq!(
            lender.answer(old, lease("one", b"x")),
            leased(20_000, 1, false)
        );
        lender.disk.fail(Fault::All(libc::EIO), 0);
        lender.step(vec![ask(new, 2, lease("one", b"x")), departure(old)]);
        lender.disk.heal();
        // It is written as soon as the disk takes it, though nobody asks.
        let deadline = lender.stage.control.next_deadline(lender.stage.now);
        assert_eq!(deadline, Some(lender.stage.now + SECOND));
        lender.pass(SECOND);
        lender.read(1);
        let mut restarted = lender.restarted(lender.unix + 3600);
        restarted.pass(LEASE - SECOND * 3600 + SECOND * 2);
        let reply = restarted.answer(new, lease("one", b"x"));
        assert!(
            matches!(reply, Reply::Leased(Lease { renewed: false, .. })),
            "{reply:?}"
        );
    }
}

/// The wall clock is off by a day when the server is back: FAULTS B12.
#[test]
fn a_jump_of_the_wall_clock_neither_loses_a_lease_nor_keeps_it() {
    let a = session(0, 1, 1);
    for jump in [-86_400, 0, 86_400] {
        let mut lender = Lender::new();
        lender.step(vec![
            ask(a, 1, lease("one", b"x")),
            ask(a, 1, Command::Ended),
        ]);
        let mut restarted = lender.restarted(lender.unix + jump);
        restarted.pass(LEASE / 2 - SECOND);
        let mut early = restarted.restarted(restarted.unix);
        assert_eq!(
            early.answer(a, lease("one", b"x")),
            leased(20_000, 2, true),
            "{jump}"
        );
        restarted.pass(LEASE / 2 + SECOND * 2);
        let late = restarted.answer(a, lease("one", b"x"));
        assert_eq!(late, leased(20_001, 2, false), "{jump}");
    }
}

/// Rounds of random requests; every operation of the disk is once the last before the crash. Who
/// was told of a port has it after the restart, unless the lease was moved in the last round.
#[test]
fn a_crash_at_any_step_keeps_every_lease_that_was_told() {
    let mut steps = 0;
    for spared in 0.. {
        let mut lender = Lender::new();
        lender.disk.fail(Fault::All(libc::EIO), spared);
        let mut told: HashMap<u8, (u16, u64)> = HashMap::new();
        for round in 0..12u8 {
            let owner = round * 5 % 4;
            let from = session(0, u32::from(round), 1);
            lender.step(vec![
                ask(from, u32::from(owner), lease("one", &[owner])),
                ask(from, 9, set(&[round], &[1; 90])),
            ]);
            for (ticket, reply) in lender.read(0) {
                if let Reply::Leased(Lease { port, epoch, .. }) = reply {
                    told.insert(ticket as u8, (port, epoch));
                }
            }
        }
        let failed = lender.disk.failed();
        lender.disk.heal();
        let mut restarted = lender.restarted(lender.unix);
        for (owner, (port, epoch)) in told {
            let reply = restarted.answer(session(0, 1, 1), lease("one", &[owner]));
            let Reply::Leased(again) = reply else {
                panic!("operation {spared}: {reply:?}");
            };
            assert_eq!(
                (again.port, again.renewed),
                (port, true),
                "operation {spared}"
            );
            assert!(again.epoch > epoch, "operation {spared}");
        }
        if !failed {
            break;
        }
        steps += 1;
    }
    assert!(steps > 20, "only {steps} steps");
}

/// What an allocation costs with its way to the disk: a measurement to run by hand, in release.
///
/// `cargo test --lib leases::cost_of_a_lease -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a check"]
fn cost_of_a_lease() {
    for (round, rounds) in [(1, 4000), (16, 1000), (256, 100), (1024, 40)] {
        let path = std::env::temp_dir().join(format!("towpath-leases-{}", std::process::id()));
        let store = Store::open(&path, LIMITS).unwrap();
        let second = Duration::from_secs(1);
        let resolver = Resolver::inline(Box::new(Inline), second, second);
        let (address, mut letters) = mailbox(ROUND, Arc::new(Silent));
        let now = Instant::now();
        let pool = Pool {
            name: "one",
            ports: 1..=60_000,
            lease: LEASE,
        };
        let control = Control::new(store, resolver, vec![address]);
        let mut control = control.lending(vec![pool], now, 1);
        let started = Instant::now();
        for number in 0..rounds {
            let owner = |at: u32| (number * round + at).to_be_bytes().repeat(8);
            let mut requests = (0..round)
                .map(|at| ask(session(0, at, 1), at, lease("one", &owner(at))))
                .collect();
            control.step(&mut requests, now, 1);
            let mut leased = 0;
            letters.open(ROUND, |letter| {
                leased += u32::from(matches!(letter.reply, Reply::Leased(_)));
            });
            assert_eq!(leased, round);
        }
        let rate = f64::from(round * rounds) / started.elapsed().as_secs_f64();
        println!("rounds of {round:4}: {rate:9.0} leases/s");
        drop(control);
        std::fs::remove_dir_all(&path).unwrap();
    }
}

/// Has an operator ask, in a round with these other requests.
pub(super) fn operate(lender: &mut Lender, query: Query, mut with: Vec<Request>) -> Vec<Answer> {
    let (told, heard) = crossbeam_channel::unbounded();
    let errand = Errand {
        query,
        answer: Box::new(move |answer| told.send(answer).unwrap()),
    };
    with.push(ask(session(9, 1, 1), 0, Command::Operator(errand)));
    lender.step(with);
    heard.try_iter().collect()
}

#[test]
fn an_operator_lists_pins_and_releases() {
    let mut lender = Lender::new();
    let (a, b) = (session(0, 1, 1), session(1, 1, 2));
    assert_eq!(
        lender.answer(a, lease("one", b"a")),
        leased(20_000, 1, false)
    );
    assert_eq!(
        lender.answer(b, lease("two", b"\xff")),
        leased(30_000, 1, false)
    );
    let query = |after, most| Query::Leases {
        pool: None,
        after,
        most,
    };
    let answers = operate(&mut lender, query(None, 1), Vec::new());
    let [Answer::Leases(rows, true)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((&*rows[0].owner, rows[0].holder), ("a", Some(a)));
    let answers = operate(
        &mut lender,
        query(Some(("one".into(), 20_000)), 9),
        Vec::new(),
    );
    let [Answer::Leases(rows, false)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((rows.len(), &*rows[0].owner), (1, "ff"));

    let pin = |port, pinned| Query::Pin {
        pool: "one".into(),
        port,
        pinned,
    };
    let done = |held| Answer::Changed(Ok(Kept { held }));
    assert_eq!(
        operate(&mut lender, pin(20_000, true), Vec::new()),
        [done(false)]
    );
    let missing = operate(&mut lender, pin(20_001, true), Vec::new());
    assert_eq!(missing, [Answer::Changed(Err(Refused::NotLent))]);
    // Pinned, it does not run out, and a restart knows it.
    lender.step(vec![ask(a, 0, leave(b"a", 1))]);
    lender.pass(LEASE * 2);
    let mut lender = lender.restarted(lender.unix);
    assert_eq!(
        lender.answer(a, lease("one", b"a")),
        leased(20_000, 2, true)
    );
}

#[test]
fn a_released_port_is_free_at_once_and_its_holder_is_told() {
    let mut lender = Lender::new();
    let (a, b) = (session(0, 1, 1), session(1, 1, 2));
    assert_eq!(
        lender.answer(a, lease("one", b"a")),
        leased(20_000, 1, false)
    );
    let done = |held| Answer::Changed(Ok(Kept { held }));
    // Released, it is free before the round's own wishes, and its holder is told.
    let release = Query::Release {
        pool: "one".into(),
        port: 20_000,
    };
    let other = ask(
        b,
        5,
        Command::Lease {
            pool: "one",
            owner: b"b"[..].into(),
            wanted: Some(20_000),
        },
    );
    assert_eq!(
        operate(&mut lender, release.clone(), vec![other]),
        [done(true)]
    );
    assert_eq!(lender.read(0), [(77, Reply::Released { epoch: 1 })]);
    assert_eq!(lender.read(1), [(5, leased(20_000, 2, false))]);
    let nobody = Query::Release {
        pool: "none".into(),
        port: 1,
    };
    let no_pool = Answer::Changed(Err(Refused::NoPool));
    assert_eq!(operate(&mut lender, nobody, Vec::new()), [no_pool]);
    assert_eq!(operate(&mut lender, release, Vec::new()), [done(true)]);
}
