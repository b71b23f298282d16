//! The store while another process has its files, and when they come back.

use super::super::faults::{Fault, FaultyDisk};
use super::super::*;
use super::{ROOMY, Scratch, on, set, value};

#[test]
fn files_that_are_lent_hold_everything_and_come_back_as_they_were() {
    let scratch = Scratch::new();
    let mut store = Store::open(&scratch.0, ROOMY).unwrap();
    assert_eq!(store.apply(&[set(b"a", b"s", b"1")], 1), [Ok(())]);
    assert!(Store::open(&scratch.0, ROOMY).is_err(), "it is locked");
    for round in 2..4 {
        store.lend().unwrap();
        // A newer process, which is killed or ends before it changes anything.
        let newer = Store::open(&scratch.0, ROOMY).unwrap();
        assert_eq!(
            newer.memory().get(b"a", b"s"),
            store.memory().get(b"a", b"s")
        );
        let why = store.take_back(round).unwrap_err();
        assert!(why.contains("in use"), "{why}");
        drop(newer);
        // As after any failure, the next second's update tries again.
        let name = [round as u8];
        assert_eq!(store.apply(&[set(&name, b"s", b"2")], round + 10), [Ok(())]);
        store.lend().unwrap();
        assert_eq!(store.take_back(round + 20), Ok(()));
        assert_eq!(store.take_back(round + 20), Ok(()), "it has them");
    }
    drop(store);
    let again = Store::open(&scratch.0, ROOMY).unwrap();
    assert_eq!(again.memory().records(), 3);
}

#[test]
fn files_that_somebody_has_changed_do_not_come_back() {
    let scratch = Scratch::new();
    let mut store = Store::open(&scratch.0, ROOMY).unwrap();
    assert_eq!(store.apply(&[set(b"a", b"s", b"1")], 1), [Ok(())]);
    store.lend().unwrap();
    let mut other = Store::open(&scratch.0, ROOMY).unwrap();
    assert_eq!(other.apply(&[set(b"a", b"s", b"2")], 2), [Ok(())]);
    drop(other);
    let why = store.take_back(3).unwrap_err();
    assert!(why.contains("was replaced"), "{why}");
    assert_eq!(value(&store, b"a"), Some(b"1".to_vec()), "queries go on");
    assert!(store.apply(&[set(b"b", b"s", b"3")], 4)[0].is_err());
    drop(store);
    let again = Store::open(&scratch.0, ROOMY).unwrap();
    assert_eq!(value(&again, b"a"), Some(b"2".to_vec()));
}

#[test]
fn a_failed_disk_is_not_lent_and_one_that_fails_meanwhile_is_tried_again() {
    let disk = FaultyDisk::default();
    let mut store = on(&disk);
    disk.fail(Fault::All(libc::EIO), 0);
    assert!(store.apply(&[set(b"a", b"s", b"1")], 1)[0].is_err());
    let why = store.lend().unwrap_err();
    assert!(why.contains("Input/output error"), "{why}");
    disk.heal();
    assert_eq!(store.apply(&[set(b"a", b"s", b"1")], 2), [Ok(())]);
    store.lend().unwrap();
    disk.fail(Fault::All(libc::EIO), 0);
    assert!(store.take_back(3).is_err());
    assert!(store.apply(&[set(b"b", b"s", b"1")], 3)[0].is_err());
    disk.heal();
    assert_eq!(store.apply(&[set(b"b", b"s", b"1")], 4), [Ok(())]);
    assert_eq!(store.memory().records(), 2);
}

#[test]
fn memory_has_no_files_to_lend() {
    let mut store = Store::in_memory(ROOMY).unwrap();
    store.lend().unwrap();
    assert_eq!(store.take_back(1), Ok(()));
    assert_eq!(store.apply(&[set(b"a", b"s", b"1")], 1), [Ok(())]);
}
