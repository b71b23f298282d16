//! From the journal into the database: crashes at every step, order, damage, bounds.

use std::collections::BTreeMap;

use super::super::faults::{Fault, FaultyDisk};
use super::super::journal::SECTOR;
use super::super::*;
use super::{ROOMY, SMALL, on_with, remove, seeded, set, value};

/// What records there are, by id.
type Model = BTreeMap<Vec<u8>, (i64, Vec<u8>)>;

fn follow(model: &mut Model, batch: &[Update], now: i64) {
    for update in batch {
        let id = update.id.to_vec();
        match &update.change {
            Change::Set(data) => model.insert(id, (now, data.to_vec())),
            Change::Remove => model.remove(&id),
        };
    }
}

fn holds(store: &Store, model: &Model) -> bool {
    let memory = store.memory();
    let same = |(id, (timestamp, data)): (&Vec<u8>, &(i64, Vec<u8>))| {
        memory
            .get(id, b"s")
            .is_some_and(|found| found.timestamp == *timestamp && *found.data == **data)
    };
    memory.records() == model.len() && model.iter().all(same)
}

fn random_batch(random: &mut impl FnMut() -> u64, most: u64) -> Vec<Update> {
    (0..random() % most)
        .map(|_| {
            let id = [(random() % 12) as u8];
            match random() % 4 {
                0 => remove(&id, b"s"),
                _ => set(&id, b"s", &vec![random() as u8; random() as usize % 3000]),
            }
        })
        .collect()
}

/// The disk as a machine would find it that lost its power now.
fn crashed(disk: &FaultyDisk) -> Store {
    let copy = disk.copy();
    copy.cut_power();
    on_with(&copy, SMALL)
}

/// Every operation of appends, folds and the orderly end fails once, and is the last one before
/// the crash. What awaited its sync is lost, there, or there in part.
#[test]
fn a_crash_at_any_step_keeps_every_acknowledged_batch_and_splits_none() {
    let mut steps = 0;
    for spared in 0.. {
        let mut finished = false;
        for torn in 0..4u64 {
            let disk = FaultyDisk::default();
            let mut store = on_with(&disk, SMALL);
            disk.fail(Fault::All(libc::EIO), spared);
            let mut random = seeded(7);
            let (mut before, mut after) = (Model::new(), Model::new());
            for now in 0..40 {
                let batch = random_batch(&mut random, 5);
                follow(&mut after, &batch, now);
                if store.apply(&batch, now).iter().any(Result::is_err) {
                    break;
                }
                before.clone_from(&after);
                finished = now == 39;
            }
            drop(store);
            finished &= !disk.failed();
            disk.heal();
            let mut tearing = seeded(spared as u64);
            disk.tear(|| match torn {
                0 => false,
                1 => true,
                _ => tearing() & 1 == 0,
            });
            let store = on_with(&disk, SMALL);
            let context = format!("operation {spared}, torn {torn}");
            assert!(holds(&store, &before) || holds(&store, &after), "{context}");
        }
        if finished {
            break;
        }
        steps += 1;
    }
    assert!(steps > 100, "only {steps} steps");
}

#[test]
fn a_crash_at_any_step_of_a_start_loses_nothing() {
    let disk = FaultyDisk::default();
    let mut store = on_with(&disk, SMALL);
    let mut model = Model::new();
    let mut random = seeded(3);
    for now in 0..9 {
        let batch = random_batch(&mut random, 4);
        assert!(store.apply(&batch, now).iter().all(Result::is_ok));
        follow(&mut model, &batch, now);
    }
    let left = disk.copy();
    for spared in 0.. {
        let disk = left.copy();
        disk.fail(Fault::All(libc::EIO), spared);
        let started = Store::open_within(Box::new(disk.clone()), ROOMY, SMALL);
        let last = started.is_ok() && !disk.failed();
        drop(started);
        disk.heal();
        disk.tear(|| random() & 1 == 0);
        assert!(holds(&on_with(&disk, SMALL), &model), "operation {spared}");
        if last {
            assert!(spared > 10);
            break;
        }
    }
}

#[test]
fn the_frames_of_one_record_are_replayed_in_their_order() {
    let disk = FaultyDisk::default();
    let mut store = on_with(&disk, SMALL);
    let steps = [
        set(b"a", b"s", b"1"),
        remove(b"a", b"s"),
        set(b"a", b"s", b"3"),
        set(b"a", b"s", b"4"),
        remove(b"a", b"s"),
    ];
    let folds = disk.syncs()[0];
    let expected: [Option<&[u8]>; 5] = [Some(b"1"), None, Some(b"3"), Some(b"4"), None];
    for (now, (step, expected)) in (1..).zip(steps.into_iter().zip(expected)) {
        assert_eq!(store.apply(&[step], now), [Ok(())]);
        let after = crashed(&disk);
        assert_eq!(value(&after, b"a").as_deref(), expected);
        let record = after.memory().get(b"a", b"s");
        assert!(record.is_none_or(|record| record.timestamp == now));
    }
    assert_eq!(disk.syncs()[0], folds, "all of it came from the journal");
}

#[test]
fn a_flipped_bit_in_the_journal_is_told_and_in_its_last_frame_taken_for_a_crash() {
    let disk = FaultyDisk::default();
    let mut store = on_with(&disk, SMALL);
    for id in 0..4u8 {
        assert_eq!(store.apply(&[set(&[id], b"s", &[id; 30])], 1), [Ok(())]);
    }
    let expected = store.memory();
    let (database, journal) = (disk.bytes(), disk.journal());
    // Header, timestamp, lengths, names and data; behind them zeros up to the sector's end.
    let used = 24 + 8 + 12 + 2 + 30;
    for frame in 0..4 {
        for at in (0..SECTOR).filter(|at| *at <= used) {
            let mut flipped = journal.clone();
            flipped[frame * SECTOR + at] ^= 1 << (at % 8);
            let disk = FaultyDisk::holding_both(database.clone(), flipped);
            let opened = Store::open_within(Box::new(disk), ROOMY, SMALL);
            let context = format!("frame {frame}, byte {at}");
            match opened {
                Ok(store) => {
                    assert!(at == used || frame == 3, "{context}");
                    for id in 0..3 + u8::from(at == used) {
                        let found = store.memory().get(&[id], b"s");
                        assert_eq!(found, expected.get(&[id], b"s"), "{context}");
                    }
                }
                Err(OpenError::Damaged { what, .. }) => {
                    assert!(at < used && frame < 3, "{context}: {what}");
                    assert!(what.contains("journal"), "{what}");
                }
                Err(error) => panic!("{context}: {error}"),
            }
        }
    }
}

#[test]
fn a_journal_missing_or_cut_is_told_unless_the_store_was_closed_in_order() {
    let disk = FaultyDisk::default();
    let mut store = on_with(&disk, SMALL);
    assert_eq!(store.apply(&[set(b"a", b"s", b"1")], 1), [Ok(())]);
    for length in [0, 1, SMALL.journal - 1] {
        let cut = disk.journal()[..length].to_vec();
        let cut = FaultyDisk::holding_both(disk.bytes(), cut);
        let error = Store::open_within(Box::new(cut), ROOMY, SMALL).err();
        assert!(matches!(error, Some(OpenError::Damaged { .. })), "{length}");
    }
    drop(store);
    let alone = FaultyDisk::holding(disk.bytes());
    assert_eq!(value(&on_with(&alone, SMALL), b"a"), Some(b"1".to_vec()));
}

/// Frames of the generation before lie behind the new ones and must not come back.
#[test]
fn a_fold_comes_at_either_bound_and_makes_older_frames_void() {
    let disk = FaultyDisk::default();
    let mut store = on_with(&disk, SMALL);
    let mut update = |id: u8, now: i64| {
        assert_eq!(store.apply(&[set(&[id], b"s", &[id])], now), [Ok(())]);
        disk.syncs()
    };
    let start = update(0, 0);
    for id in 1..SMALL.records as u8 {
        assert_eq!(update(id, 0)[0], start[0], "room for {id}");
    }
    let folded = update(SMALL.records as u8, 0);
    assert_eq!(folded[0], start[0] + 1, "one sync for fold and batch");
    assert_eq!(folded[1], start[1] + SMALL.records - 1);
    assert_eq!(crashed(&disk).memory().records(), SMALL.records + 1);
    for now in 1..=(SMALL.journal / SECTOR) as i64 {
        assert_eq!(update(0, now)[0], folded[0], "room at {now}");
    }
    assert_eq!(update(0, 1000)[0], folded[0] + 1);
    update(1, 1001);
    let after = crashed(&disk).memory();
    assert_eq!(after.get(&[0], b"s").unwrap().timestamp, 1000);
    assert_eq!(after.get(&[1], b"s").unwrap().timestamp, 1001);
}

#[test]
fn a_batch_larger_than_the_journal_goes_straight_into_the_records() {
    let disk = FaultyDisk::default();
    let mut store = on_with(&disk, SMALL);
    assert_eq!(store.apply(&[set(b"a", b"s", b"old")], 1), [Ok(())]);
    let before = disk.syncs();
    let large = vec![9; SMALL.journal];
    let batch = [set(b"a", b"s", b"new"), set(b"b", b"s", &large)];
    assert_eq!(store.apply(&batch, 2), [Ok(()), Ok(())]);
    assert_eq!(disk.syncs(), [before[0] + 1, before[1]]);
    assert_eq!(value(&crashed(&disk), b"a"), Some(b"new".to_vec()));
    assert_eq!(value(&crashed(&disk), b"b"), Some(large));
}

#[test]
fn many_folds_under_random_updates_equal_a_model() {
    for seed in 0..20 {
        let mut random = seeded(seed);
        let disk = FaultyDisk::default();
        let mut store = on_with(&disk, SMALL);
        let mut model = Model::new();
        let start = disk.syncs();
        for now in 0..100 {
            let batch = random_batch(&mut random, 6);
            assert!(store.apply(&batch, now).iter().all(Result::is_ok));
            follow(&mut model, &batch, now);
            assert!(holds(&store, &model), "seed {seed}, {now}");
            match random() % 8 {
                0 => {
                    drop(store);
                    store = on_with(&disk, SMALL);
                    assert!(holds(&store, &model), "seed {seed}, {now}: orderly");
                }
                1 | 2 => assert!(holds(&crashed(&disk), &model), "seed {seed}, {now}: crash"),
                _ => {}
            }
        }
        let end = disk.syncs();
        assert!(end[0] > start[0] + 20 && end[1] > start[1] + 20, "{end:?}");
    }
}
