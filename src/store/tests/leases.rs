//! Leases beside records: the same commits, and never the same names.

use std::collections::BTreeMap;

use super::super::faults::{Fault, FaultyDisk};
use super::super::medium::Watched;
use super::super::*;
use super::{SMALL, on_with, remove, seeded, set, value};

type Names = (Vec<u8>, Vec<u8>);
type Row = (i64, Vec<u8>);
type Rows = BTreeMap<Names, Row>;

fn rows(store: &Store) -> Rows {
    let mut rows = Rows::new();
    store.leases(|pool, owner, record| {
        let row = (record.timestamp, record.data.to_vec());
        assert_eq!(rows.insert((pool.to_vec(), owner.to_vec()), row), None);
    });
    rows
}

fn row(pool: &[u8], owner: &[u8], at: i64, data: &[u8]) -> (Names, Row) {
    ((pool.to_vec(), owner.to_vec()), (at, data.to_vec()))
}

#[test]
fn a_lease_and_a_record_of_the_same_name_are_two() {
    for bounds in [
        SMALL,
        Bounds {
            records: 0,
            ..SMALL
        },
    ] {
        let disk = FaultyDisk::default();
        let mut store = on_with(&disk, bounds);
        let (records, leases) = ([set(b"a", b"s", b"mine")], [set(b"a", b"s", b"port")]);
        let answers = store.apply_all(&records, &leases, 5);
        assert_eq!(answers, (vec![Ok(())], Ok(())));
        assert_eq!(store.memory().records(), 1);
        // From the journal or the tables after a crash, from the tables after an orderly end.
        let crashed = disk.copy();
        crashed.cut_power();
        drop(store);
        for disk in [crashed, disk] {
            let mut store = on_with(&disk, bounds);
            assert_eq!(value(&store, b"a"), Some(b"mine".to_vec()));
            assert_eq!(rows(&store), Rows::from([row(b"a", b"s", 5, b"port")]));
            assert_eq!(store.apply(&[remove(b"a", b"s")], 6), [Ok(())]);
            assert_eq!(rows(&store).len(), 1);
            let gone = store.apply_all(&[], &[remove(b"a", b"s")], 7);
            assert_eq!((gone.1, rows(&store)), (Ok(()), Rows::new()));
        }
    }
}

#[test]
fn leases_are_not_counted_against_the_limits_of_the_records() {
    let none = Limits {
        max_value: 0,
        max_records: 0,
        max_bytes: 0,
    };
    let mut store = Store::in_memory(none).unwrap();
    let lease = [set(b"pool", b"owner", b"port")];
    let (answers, kept) = store.apply_all(&[set(b"a", b"s", b"")], &lease, 1);
    assert!(answers[0].is_err());
    assert_eq!(kept, Ok(()));
    assert_eq!(rows(&store).len(), 1);
    let memory = store.memory();
    assert_eq!((memory.records(), memory.bytes()), (0, 0));
}

#[test]
fn updates_and_leases_of_a_round_share_one_sync() {
    let disk = FaultyDisk::default();
    let mut store = on_with(&disk, SMALL);
    let before = disk.syncs();
    let leases: Vec<_> = (0..3u8).map(|owner| set(b"p", &[owner], b"x")).collect();
    store
        .apply_all(&[set(b"a", b"s", b"1")], &leases, 1)
        .1
        .unwrap();
    assert_eq!(disk.syncs(), [before[0], before[1] + 1]);
    let before = disk.operations();
    store.apply_all(&[], &[remove(b"p", b"none")], 2).1.unwrap();
    assert_eq!(disk.operations(), before, "nothing changed");
}

#[test]
fn a_failing_disk_refuses_leases_and_recovers_without_them() {
    let disk = FaultyDisk::default();
    let mut store = on_with(&disk, SMALL);
    store
        .apply_all(&[], &[set(b"p", b"kept", b"1")], 1)
        .1
        .unwrap();
    disk.fail(Fault::LateSync(libc::EIO), 0);
    let leases = [set(b"p", b"lost", b"2"), remove(b"p", b"kept")];
    assert!(store.apply_all(&[], &leases, 2).1.is_err());
    disk.heal();
    store
        .apply_all(&[], &[set(b"p", b"next", b"3")], 3)
        .1
        .unwrap();
    disk.cut_power();
    let expected = Rows::from([row(b"p", b"kept", 1, b"1"), row(b"p", b"next", 3, b"3")]);
    assert_eq!(rows(&store), expected);
    assert_eq!(rows(&on_with(&disk.copy(), SMALL)), expected);
}

/// Each round changes a record and a lease; every operation is once the last before the crash.
#[test]
fn a_crash_at_any_step_splits_no_round() {
    let mut steps = 0;
    for spared in 0.. {
        let disk = FaultyDisk::default();
        let mut store = on_with(&disk, SMALL);
        disk.fail(Fault::All(libc::EIO), spared);
        let mut random = seeded(11);
        let (mut kept, mut tried) = (0, 0);
        for round in 1..=30i64 {
            tried = round;
            let data = round.to_le_bytes();
            let owner = [(random() % 7) as u8];
            let leases = [
                set(b"p", b"round", &data),
                match random() % 3 {
                    0 => remove(b"p", &owner),
                    _ => set(b"p", &owner, &data),
                },
            ];
            let (answers, leased) = store.apply_all(&[set(b"r", b"s", &data)], &leases, round);
            assert_eq!(answers[0].is_ok(), leased.is_ok());
            if leased.is_err() {
                break;
            }
            kept = round;
        }
        drop(store);
        let finished = !disk.failed();
        disk.heal();
        disk.tear(|| random() & 1 == 0);
        let store = on_with(&disk, SMALL);
        let record = store.memory().get(b"r", b"s").map(|found| found.timestamp);
        let lease = rows(&store)
            .get(&(b"p".to_vec(), b"round".to_vec()))
            .map(|row| row.0);
        assert_eq!(record, lease, "operation {spared}");
        let found = record.unwrap_or(0);
        assert!(found == kept || found == tried, "operation {spared}");
        if finished {
            break;
        }
        steps += 1;
    }
    assert!(steps > 50, "only {steps} steps");
}

/// A file written before there were leases has no table of them.
#[test]
fn a_store_without_leases_is_one_with_none() {
    let disk = FaultyDisk::default();
    let mut store = on_with(&disk, SMALL);
    assert_eq!(store.apply(&[set(b"a", b"s", b"1")], 1), [Ok(())]);
    drop(store);
    let file = disk.clone().open(true).unwrap();
    let database = redb::Database::builder()
        .create_with_backend(Watched::over(file, &Arc::default()).unwrap());
    let database = database.unwrap();
    let transaction = database.begin_write().unwrap();
    let leases: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("leases");
    assert!(transaction.delete_table(leases).unwrap());
    transaction.commit().unwrap();
    drop(database);
    let store = on_with(&disk, SMALL);
    assert_eq!(value(&store, b"a"), Some(b"1".to_vec()));
    assert_eq!(rows(&store), Rows::new());
}
