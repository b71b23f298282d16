//! The store on disks that fail, stay broken, or lose their power.

use std::collections::HashMap;
use std::fs;

use super::super::faults::{Fault, FaultyDisk};
use super::super::*;
use super::{ROOMY, SMALL, Scratch, on, on_with, remove, seeded, set, value};

#[test]
fn a_failing_disk_refuses_with_its_reason_and_comes_back_without_a_restart() {
    let faults = [
        (Fault::Write(libc::EIO), "Input/output error"),
        (Fault::Grow(libc::ENOSPC), "No space left on device"),
        (Fault::Grow(libc::EFBIG), "File too large"),
        (Fault::Sync(libc::EIO), "Input/output error"),
        (Fault::Sync(libc::ENOSPC), "No space left on device"),
        (Fault::LateSync(libc::EIO), "Input/output error"),
        (Fault::All(libc::EROFS), "Read-only file system"),
    ];
    for (fault, reason) in faults {
        let disk = FaultyDisk::default();
        let mut store = on(&disk);
        assert_eq!(store.apply(&[set(b"a", b"s", b"old")], 10), [Ok(())]);
        disk.fail(fault, 0);
        // Large enough that the file must grow.
        let large = vec![1; 1 << 20];
        let updates: Vec<_> = (0..8u8)
            .map(|id| set(&[id], b"s", &large))
            .chain([set(b"a", b"s", b"new"), remove(b"a", b"t")])
            .collect();
        for now in [10, 10, 11] {
            for answer in store.apply(&updates, now) {
                let message = answer.unwrap_err().to_string();
                assert!(message.contains(reason), "{fault:?}: {message}");
            }
            assert_eq!(value(&store, b"a"), Some(b"old".to_vec()));
            assert_eq!(store.memory().records(), 1);
        }
        disk.heal();
        assert!(store.apply(&updates, 11)[0].is_err(), "within the second");
        assert_eq!(store.apply(&[set(b"b", b"s", b"later")], 12), [Ok(())]);
        assert!(store.recoveries() >= 1);
        check_against_disk(&store, &disk, &format!("{fault:?}"));
    }
}

/// What the store serves is what a restart after a power cut would serve. Ends the disk's use.
fn check_against_disk(store: &Store, disk: &FaultyDisk, context: &str) {
    disk.cut_power();
    let after = Store::open_within(Box::new(disk.copy()), ROOMY, store.disk.bounds());
    let after = after.unwrap_or_else(|error| panic!("{context}: {error}"));
    let (before, after) = (store.memory(), after.memory());
    assert_eq!(before.records(), after.records(), "{context}");
    assert_eq!(before.bytes(), after.bytes(), "{context}");
    for id in 0..=255u8 {
        assert_eq!(before.get(&[id], b"s"), after.get(&[id], b"s"), "{context}");
    }
}

/// By the frame in the journal and by the fold of a batch that is too large for it.
#[test]
fn a_commit_that_reached_the_disk_in_spite_of_its_error_is_undone() {
    for size in [1, SMALL.journal] {
        let disk = FaultyDisk::default();
        let mut store = on_with(&disk, SMALL);
        let batch = [set(b"a", b"s", b"1"), set(b"b", b"s", b"1")];
        assert_eq!(store.apply(&batch, 1), [Ok(()), Ok(())]);
        disk.fail(Fault::LateSync(libc::EIO), 0);
        let large = vec![2; size];
        let batch = [
            set(b"a", b"s", &large),
            remove(b"b", b"s"),
            set(b"n", b"s", b"2"),
        ];
        assert!(store.apply(&batch, 2).iter().all(Result::is_err));
        assert_eq!(value(&store, b"a"), Some(b"1".to_vec()));
        // Without a recovery nobody can know: a restart now serves the batch.
        disk.heal();
        let restarted = on_with(&disk.copy(), SMALL);
        assert_eq!(value(&restarted, b"a"), Some(large));
        assert_eq!(value(&restarted, b"b"), None);
        // With it, the refusal is final.
        assert_eq!(store.apply(&[set(b"c", b"s", b"3")], 3), [Ok(())]);
        assert_eq!(value(&store, b"a"), Some(b"1".to_vec()));
        assert_eq!(value(&store, b"b"), Some(b"1".to_vec()));
        assert_eq!(value(&store, b"n"), None);
        check_against_disk(&store, &disk, "late sync");
    }
}

#[test]
fn a_disk_that_stays_broken_is_tried_once_per_second() {
    let disk = FaultyDisk::default();
    let mut store = on(&disk);
    disk.fail(Fault::All(libc::EIO), 0);
    let update = [set(b"a", b"s", b"1")];
    assert!(store.apply(&update, 100)[0].is_err());
    for now in 101..104 {
        let before = disk.operations();
        assert!(store.apply(&update, now)[0].is_err());
        let once = disk.operations();
        assert!(once > before);
        assert!(store.apply(&update, now)[0].is_err());
        assert_eq!(disk.operations(), once);
    }
}

#[test]
fn a_disk_that_cannot_be_opened_again_gives_that_reason() {
    let disk = FaultyDisk::default();
    let mut store = on(&disk);
    disk.fail(Fault::Sync(libc::EIO), 0);
    let update = [set(b"a", b"s", b"1")];
    assert!(store.apply(&update, 1)[0].is_err());
    disk.fail(Fault::Open(libc::EACCES), 0);
    let message = store.apply(&update, 2)[0].clone().unwrap_err().to_string();
    assert!(message.contains("Permission denied"), "{message}");
    disk.heal();
    assert_eq!(store.apply(&update, 3), [Ok(())]);
    disk.fail(Fault::Open(libc::EACCES), 0);
    let error = Store::open_on(Box::new(disk), ROOMY).err().unwrap();
    assert_eq!(error.exit_code(), 77);
}

#[test]
fn a_file_replaced_during_a_failure_is_not_taken_for_the_store() {
    let scratch = Scratch::new();
    let other = Scratch::new();
    drop(Store::open(&other.0, ROOMY).unwrap());
    let mut store = Store::open(&scratch.0, ROOMY).unwrap();
    assert_eq!(store.apply(&[set(b"a", b"s", b"1")], 1), [Ok(())]);
    store.disk.close();
    store.fail("test".into(), 1);
    let parked = scratch.0.join("parked");
    fs::rename(scratch.file(), &parked).unwrap();
    let missing = store.apply(&[set(b"b", b"s", b"1")], 2);
    assert!(missing[0].is_err() && !scratch.file().exists());
    fs::copy(other.file(), scratch.file()).unwrap();
    let refusal = store.apply(&[set(b"b", b"s", b"1")], 3)[0].clone();
    let message = refusal.unwrap_err().to_string();
    assert!(message.contains("replaced"), "{message}");
    fs::rename(&parked, scratch.file()).unwrap();
    assert_eq!(store.apply(&[set(b"b", b"s", b"1")], 4), [Ok(())]);
    assert_eq!(value(&store, b"a"), Some(b"1".to_vec()));
}

#[test]
fn random_faults_and_power_cuts_never_lose_an_acknowledged_update() {
    for seed in 0..100 {
        let mut random = seeded(seed);
        let disk = FaultyDisk::default();
        let mut store = on_with(&disk, SMALL);
        // What each record may be: one value when the last word was Ok, two after a refusal.
        let mut truth: HashMap<u8, Vec<Option<Vec<u8>>>> = HashMap::new();
        for now in 0..40 {
            match random() % 8 {
                0 => disk.fail(Fault::Sync(libc::EIO), random() as usize % 3),
                1 => disk.fail(Fault::Write(libc::EIO), random() as usize % 20),
                2 => disk.fail(Fault::All(libc::EIO), random() as usize % 60),
                3 => disk.fail(Fault::LateSync(libc::EIO), random() as usize % 3),
                4 => {
                    // The failed close leaves it as a crash in the midst would.
                    drop(store);
                    disk.heal();
                    disk.tear(|| random() & 1 == 0);
                    store = on_with(&disk, SMALL);
                    verify(&store, &mut truth, seed);
                }
                _ => disk.heal(),
            }
            let batch: Vec<_> = (0..random() % 5)
                .map(|_| {
                    let id = [(random() % 6) as u8];
                    let data = vec![random() as u8; random() as usize % 9000];
                    match random() % 4 {
                        0 => remove(&id, b"s"),
                        _ => set(&id, b"s", &data),
                    }
                })
                .collect();
            let answers = store.apply(&batch, now);
            for (update, answer) in batch.iter().zip(answers) {
                let data = match &update.change {
                    Change::Set(data) => Some(data.to_vec()),
                    Change::Remove => None,
                };
                let may = truth.entry(update.id[0]).or_insert_with(|| vec![None]);
                if answer.is_ok() {
                    may.clear();
                }
                may.push(data);
            }
        }
        disk.heal();
        store.apply(&[remove(b"none", b"s")], 1000);
        verify(&store, &mut truth, seed);
        check_against_disk(&store, &disk, &format!("seed {seed}"));
    }
}

fn verify(store: &Store, truth: &mut HashMap<u8, Vec<Option<Vec<u8>>>>, seed: u64) {
    for (id, may) in truth {
        let found = value(store, &[*id]);
        assert!(may.contains(&found), "seed {seed} id {id}");
        *may = vec![found];
    }
}
