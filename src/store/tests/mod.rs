//! The store as its callers see it: limits, durability, damage; `failing` has the failing
//! disks, `folding` the way from the journal into the database.

mod cost;
mod failing;
mod folding;
mod leases;
mod lending;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::faults::FaultyDisk;
use super::*;

/// A directory of a test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "towpath-store-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE_NAME)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ROOMY: Limits = Limits {
    max_value: 1 << 20,
    max_records: 1 << 20,
    max_bytes: 1 << 30,
};

fn set(id: &[u8], section: &[u8], data: &[u8]) -> Update {
    Update {
        id: id.into(),
        section: section.into(),
        change: Change::Set(data.into()),
    }
}

fn remove(id: &[u8], section: &[u8]) -> Update {
    Update {
        id: id.into(),
        section: section.into(),
        change: Change::Remove,
    }
}

/// A journal that is full after a few updates.
const SMALL: Bounds = Bounds {
    journal: 32 << 10,
    records: 5,
};

fn on(disk: &FaultyDisk) -> Store {
    Store::open_on(Box::new(disk.clone()), ROOMY).unwrap()
}

fn on_with(disk: &FaultyDisk, bounds: Bounds) -> Store {
    Store::open_within(Box::new(disk.clone()), ROOMY, bounds).unwrap()
}

fn value(store: &Store, id: &[u8]) -> Option<Vec<u8>> {
    let record = store.memory().get(id, b"s");
    record.map(|record| record.data.to_vec())
}

fn seeded(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let scratch = Scratch::new();
    let long = vec![7; 600_000];
    {
        let mut store = Store::open(&scratch.0, ROOMY).unwrap();
        let batch = [
            set(b"dev1", b"status", b"hello"),
            set(b"", b"", b""),
            set(b"\0\xff../", &[0; 300], &long),
            set(&long, b"x", b"a long id"),
            set(b"gone", b"s", b"x"),
        ];
        assert_eq!(store.apply(&batch, 1000), vec![Ok(()); 5]);
        assert_eq!(store.apply(&[remove(b"gone", b"s")], 1001), [Ok(())]);
    }
    let store = Store::open(&scratch.0, ROOMY).unwrap();
    let memory = store.memory();
    assert_eq!(memory.records(), 4);
    let hello = memory.get(b"dev1", b"status").unwrap();
    assert_eq!((hello.timestamp, &*hello.data), (1000, &b"hello"[..]));
    assert_eq!(&*memory.get(b"", b"").unwrap().data, b"");
    assert_eq!(&*memory.get(b"\0\xff../", &[0; 300]).unwrap().data, long);
    assert_eq!(&*memory.get(&long, b"x").unwrap().data, b"a long id");
    assert_eq!(memory.get(b"gone", b"s"), None);
}

#[test]
fn directory_and_file_are_made_for_this_user_alone() {
    let scratch = Scratch::new();
    let deep = scratch.0.join("a/b");
    let _store = Store::open(&deep, ROOMY).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&deep), 0o700);
    assert_eq!(mode(&deep.join(FILE_NAME)), 0o600);
}

#[test]
fn a_second_opener_is_told_that_the_file_is_in_use() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.0, ROOMY).unwrap();
    let error = Store::open(&scratch.0, ROOMY).err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert_eq!(error.exit_code(), 75);
    drop(store);
    assert!(Store::open(&scratch.0, ROOMY).is_ok());
}

#[test]
fn a_data_directory_that_is_a_file_is_an_error_with_its_path() {
    let scratch = Scratch::new();
    fs::write(&scratch.0, b"not a directory").unwrap();
    let error = Store::open(&scratch.0, ROOMY).err().unwrap();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains(scratch.0.to_str().unwrap()));
    fs::remove_file(&scratch.0).unwrap();
}

#[test]
fn a_file_of_something_else_is_damaged() {
    let scratch = Scratch::new();
    fs::create_dir(&scratch.0).unwrap();
    fs::write(scratch.file(), [b'x'; 10_000]).unwrap();
    let error = Store::open(&scratch.0, ROOMY).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert_eq!(error.exit_code(), 1);
    // Nothing of it was touched: the operator may know what it is.
    assert_eq!(fs::read(scratch.file()).unwrap(), [b'x'; 10_000]);
}

#[test]
fn a_start_killed_while_it_made_the_file_does_not_stop_the_next() {
    let scratch = Scratch::new();
    drop(Store::open(&scratch.0, ROOMY).unwrap());
    let whole = fs::metadata(scratch.file()).unwrap().len();
    // The magic number comes last; before it there is a header at most.
    for length in [1, 4096, whole] {
        let file = fs::File::create(scratch.file()).unwrap();
        file.set_len(length).unwrap();
        if length > 100 {
            file.write_all_at(&[1; 20], 64).unwrap();
        }
        drop(file);
        let opened = Store::open(&scratch.0, ROOMY);
        assert!(opened.is_ok(), "{length}: {}", opened.err().unwrap());
    }
}

#[test]
fn a_wiped_header_over_records_is_damage_not_a_new_store() {
    let scratch = Scratch::new();
    let mut store = Store::open(&scratch.0, ROOMY).unwrap();
    assert_eq!(store.apply(&[set(b"a", b"s", b"1")], 1), [Ok(())]);
    drop(store);
    let file = fs::OpenOptions::new().write(true).open(scratch.file());
    file.unwrap().write_all_at(&[0; 4096], 0).unwrap();
    let error = Store::open(&scratch.0, ROOMY).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn limits_are_exact_inside_a_batch_and_removal_gives_room_back() {
    let limits = Limits {
        max_value: 10,
        max_records: 2,
        max_bytes: 20,
    };
    let mut store = Store::in_memory(limits).unwrap();
    let records = Err(Refusal::TooManyRecords { most: 2 });
    let bytes = Err(Refusal::TooManyBytes { most: 20 });
    let batch = [
        set(b"a", b"s", &[0; 11]),
        set(b"a", b"s", &[0; 10]),
        set(b"b", b"s", &[0; 6]),
        set(b"c", b"s", b""),
        set(b"b", b"s", &[0; 7]),
        remove(b"a", b"s"),
        set(b"c", b"s", &[0; 9]),
        set(b"d", b"s", b""),
    ];
    let length = Err(Refusal::ValueTooLong {
        length: 11,
        most: 10,
    });
    let ok = Ok(());
    assert_eq!(
        store.apply(&batch, 5),
        [
            length,
            ok.clone(),
            ok.clone(),
            records.clone(),
            bytes.clone(),
            ok.clone(),
            ok,
            records
        ]
    );
    let memory = store.memory();
    assert_eq!((memory.records(), memory.bytes()), (2, 2 + 6 + 2 + 9));
    assert_eq!(value(&store, b"a"), None);
    assert_eq!(value(&store, b"b"), Some(vec![0; 6]));
    // The limits hold across batches too, and a replacement that shrinks gives room back.
    assert_eq!(store.apply(&[set(b"b", b"s", &[0; 8])], 6), [bytes]);
    let batch = [set(b"c", b"s", b""), set(b"b", b"s", &[0; 8])];
    assert_eq!(store.apply(&batch, 6), [Ok(()), Ok(())]);
}

#[test]
fn a_store_over_lowered_limits_serves_all_and_may_only_shrink() {
    let scratch = Scratch::new();
    let mut store = Store::open(&scratch.0, ROOMY).unwrap();
    let batch = [set(b"a", b"s", b"12345"), set(b"b", b"s", b"12345")];
    assert_eq!(store.apply(&batch, 1), [Ok(()), Ok(())]);
    drop(store);
    let small = Limits {
        max_value: 5,
        max_records: 1,
        max_bytes: 3,
    };
    let mut store = Store::open(&scratch.0, small).unwrap();
    assert_eq!(store.memory().records(), 2);
    let batch = [set(b"a", b"s", b"1234"), set(b"b", b"s", b"54321")];
    assert_eq!(store.apply(&batch, 1), [Ok(()), Ok(())]);
    assert!(store.apply(&[set(b"b", b"", b"")], 1)[0].is_err());
}

#[test]
fn a_batch_is_one_commit_and_nothing_at_all_when_nothing_changes() {
    let disk = FaultyDisk::default();
    let mut store = on(&disk);
    let batch: Vec<_> = (0..64u8).map(|id| set(&[id], b"s", b"x")).collect();
    store.apply(&batch[..1], 1);
    let before = disk.syncs();
    store.apply(&batch, 2);
    assert_eq!(disk.syncs(), [before[0], before[1] + 1]);
    let before = disk.operations();
    assert_eq!(store.apply(&[remove(b"none", b"s")], 3), [Ok(())]);
    assert_eq!(store.apply(&[], 3), []);
    assert_eq!(disk.operations(), before);
}

#[test]
fn the_last_update_of_a_record_in_a_batch_wins() {
    let mut store = Store::in_memory(ROOMY).unwrap();
    let batch = [
        set(b"a", b"s", b"1"),
        set(b"b", b"s", b"1"),
        remove(b"a", b"s"),
        set(b"b", b"s", b"2"),
        remove(b"c", b"s"),
        set(b"c", b"s", b"3"),
    ];
    assert_eq!(store.apply(&batch, 9), vec![Ok(()); 6]);
    assert_eq!(value(&store, b"a"), None);
    assert_eq!(value(&store, b"b"), Some(b"2".to_vec()));
    assert_eq!(value(&store, b"c"), Some(b"3".to_vec()));
}

#[test]
fn every_flipped_byte_is_harmless_or_told() {
    let disk = FaultyDisk::default();
    let mut store = on(&disk);
    let batch: Vec<_> = (0..=255u8).map(|id| set(&[id], b"s", &[id; 40])).collect();
    store.apply(&batch, 1);
    store.apply(&batch[..128], 2);
    let expected = store.memory();
    drop(store);
    let sound = disk.bytes();
    let mut random = seeded(1);
    let mut told = 0;
    for _ in 0..400 {
        let mut bytes = sound.clone();
        // Most of a young file is empty; aim at what is in use.
        let at = loop {
            let at = random() as usize % bytes.len();
            if bytes[at] != 0 {
                break at;
            }
        };
        bytes[at] ^= 1 << (random() % 8);
        match Store::open_on(Box::new(FaultyDisk::holding(bytes)), ROOMY) {
            Ok(store) => {
                for id in 0..=255u8 {
                    let id = &[id];
                    let found = store.memory().get(id, b"s");
                    assert_eq!(found, expected.get(id, b"s"), "byte {at}");
                }
            }
            Err(error) => {
                told += 1;
                assert!(matches!(error, OpenError::Damaged { .. }), "{at}: {error}");
            }
        }
    }
    assert!(told > 0);
}

#[test]
fn a_file_cut_short_is_told() {
    let disk = FaultyDisk::default();
    let mut store = on(&disk);
    let batch: Vec<_> = (0..=255u8)
        .map(|id| set(&[id], b"s", &[id; 4000]))
        .collect();
    store.apply(&batch, 1);
    drop(store);
    let sound = disk.bytes();
    for length in [5, 100, 4096, 8192, sound.len() / 2, sound.len() - 1] {
        let cut = FaultyDisk::holding(sound[..length].to_vec());
        let error = Store::open_on(Box::new(cut), ROOMY).err();
        let error = error.unwrap_or_else(|| panic!("{length} bytes were taken for a store"));
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
}

/// The killed process of the next test: stores number after number and says which are stored.
#[test]
#[ignore = "run by a_killed_process_has_kept_its_word"]
fn store_until_killed() {
    let Some(directory) = std::env::var_os("TOWPATH_TEST_STORE") else {
        return;
    };
    let mut store = Store::open(Path::new(&directory), ROOMY).unwrap();
    for number in store.memory().records() as u64.. {
        let batch = [set(&number.to_be_bytes(), b"s", &[number as u8; 500])];
        assert_eq!(store.apply(&batch, 1), [Ok(())]);
        println!("stored {number}");
    }
}

#[test]
fn a_killed_process_has_kept_its_word() {
    let scratch = Scratch::new();
    let mut least = 0;
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::tests::store_until_killed", "--ignored"])
            .args(["--exact", "--nocapture"])
            .env("TOWPATH_TEST_STORE", &scratch.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stored = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("stored ")?.parse::<usize>().ok());
        let last = stored.take(round * 5).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        least = least.max(last + 1);
        let store = Store::open(&scratch.0, ROOMY).unwrap();
        assert!(store.memory().records() >= least, "round {round}");
        for number in 0..store.memory().records() as u64 {
            let record = store.memory().get(&number.to_be_bytes(), b"s").unwrap();
            assert_eq!(*record.data, [number as u8; 500]);
        }
    }
}
