//! All records in memory, read by every worker and written by the store alone.
//!
//! It is not the truth: the disk is, and [`Store`](super::Store) puts a record here only after
//! its commit. Any thread may hold a [`Memory`] and read.
//!
//! **The one lock of the data plane.** Workers read here while the control thread writes, so the
//! records lie in shards behind read-write locks. A reader holds a shard's lock for one hash
//! lookup and one reference count; the writer for one insert (now and then one growth of a map
//! of a 256th of the records). Neither allocates a value, frees one, touches the disk or calls
//! out under the lock, so the wait is bounded by that and a worker cannot be blocked behind
//! anything slow. The other way, a copy of all records per worker, would cost the memory times
//! the number of cores and a message per update and core.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

/// One stored value. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was last set, in Unix seconds.
    pub timestamp: i64,
    /// The value, any bytes, also none.
    pub data: Arc<[u8]>,
}

/// The readers' view of the store. Cloning is a reference count; all clones see the same.
///
/// Holds at most what [`Limits`](super::Limits) let in; the limits are kept by the store.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    shards: Box<[RwLock<HashMap<Key, Record>>]>,
    // Keys come from strangers: the seed is of this process, so that nobody can aim at one shard.
    seed: RandomState,
    // Written by the store's thread only; readers take them as they come.
    records: AtomicUsize,
    bytes: AtomicUsize,
}

impl Memory {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::new(HashMap::new())).collect();
        Self {
            shared: Arc::new(Shared {
                shards,
                seed: RandomState::new(),
                records: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
            }),
        }
    }

    /// The record, if there is one. Never allocates, never waits for the disk.
    pub fn get(&self, id: &[u8], section: &[u8]) -> Option<Record> {
        let name: &dyn Name = &(id, section);
        self.shard(name).read().get(name).cloned()
    }

    /// True when there is such a record.
    pub fn has(&self, id: &[u8], section: &[u8]) -> bool {
        let name: &dyn Name = &(id, section);
        self.shard(name).read().contains_key(name)
    }

    /// Hands over every record, in no order, and holds up the writer meanwhile.
    pub(super) fn for_each(&self, mut each: impl FnMut(&[u8], &[u8], &Record)) {
        for shard in &self.shared.shards {
            for (key, record) in shard.read().iter() {
                each(key.id(), key.section(), record);
            }
        }
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.shared.records.load(Ordering::Relaxed)
    }

    /// The bytes of all ids, sections and data.
    pub fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// The length of the record's data, if there is one.
    pub(super) fn length(&self, name: &dyn Name) -> Option<usize> {
        let shard = self.shard(name).read();
        shard.get(name).map(|record| record.data.len())
    }

    /// Puts a record in the place of the one that was there. For the store's thread only.
    pub(super) fn set(&self, id: &[u8], section: &[u8], record: Record) {
        let name: &dyn Name = &(id, section);
        let new = record.data.len();
        // The key is made and the old record dropped outside the lock: both may take the
        // allocator's time.
        let key = Key::new(id, section);
        let old = self.shard(name).write().insert(key, record);
        match old {
            Some(old) => self.count(0, 0, old.data.len(), new),
            None => self.count(1, 0, 0, name.size() + new),
        }
    }

    /// Takes a record out. For the store's thread only.
    pub(super) fn remove(&self, id: &[u8], section: &[u8]) {
        let name: &dyn Name = &(id, section);
        let old = self.shard(name).write().remove_entry(name);
        if let Some((_, old)) = old {
            self.count(0, 1, name.size() + old.data.len(), 0);
        }
    }

    fn count(&self, more: usize, fewer: usize, bytes_out: usize, bytes_in: usize) {
        // One thread writes, so a load and a store make no race.
        let records = self.records() + more - fewer;
        let bytes = self.bytes() + bytes_in - bytes_out;
        self.shared.records.store(records, Ordering::Relaxed);
        self.shared.bytes.store(bytes, Ordering::Relaxed);
    }

    fn shard(&self, name: &dyn Name) -> &RwLock<HashMap<Key, Record>> {
        let hash = self.shared.seed.hash_one(name);
        &self.shared.shards[hash as usize % SHARDS]
    }
}

/// What a record is called, wherever its two parts lie. Lookups borrow it, so that finding a
/// record by two slices builds no key.
pub(crate) trait Name {
    /// The first-level key.
    fn id(&self) -> &[u8];
    /// The second-level key.
    fn section(&self) -> &[u8];

    /// The bytes of both.
    fn size(&self) -> usize {
        self.id().len() + self.section().len()
    }
}

impl Name for (&[u8], &[u8]) {
    fn id(&self) -> &[u8] {
        self.0
    }

    fn section(&self) -> &[u8] {
        self.1
    }
}

impl Hash for dyn Name + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The length keeps ("a", "bc") and ("ab", "c") apart.
        state.write_usize(self.id().len());
        state.write(self.id());
        state.write(self.section());
    }
}

impl PartialEq for dyn Name + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id() && self.section() == other.section()
    }
}

impl Eq for dyn Name + '_ {}

/// An owned [`Name`]: both parts in one allocation.
#[derive(Clone)]
pub(crate) struct Key {
    bytes: Box<[u8]>,
    split: usize,
}

impl Key {
    pub(crate) fn new(id: &[u8], section: &[u8]) -> Self {
        Self {
            bytes: [id, section].concat().into_boxed_slice(),
            split: id.len(),
        }
    }
}

impl Name for Key {
    fn id(&self) -> &[u8] {
        &self.bytes[..self.split]
    }

    fn section(&self) -> &[u8] {
        &self.bytes[self.split..]
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self as &dyn Name).hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self as &dyn Name == other as &dyn Name
    }
}

impl Eq for Key {}

impl<'a> Borrow<dyn Name + 'a> for Key {
    fn borrow(&self) -> &(dyn Name + 'a) {
        self
    }
}

impl<'a> Borrow<dyn Name + 'a> for Arc<Key> {
    fn borrow(&self) -> &(dyn Name + 'a) {
        self.as_ref()
    }
}

/// Enough that one growing map stays small: a million records make 4096 in each.
const SHARDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(data: &[u8]) -> Record {
        Record {
            timestamp: 7,
            data: data.into(),
        }
    }

    #[test]
    fn the_border_between_id_and_section_is_part_of_the_name() {
        let memory = Memory::new();
        memory.set(b"a", b"bc", record(b"1"));
        memory.set(b"ab", b"c", record(b"2"));
        memory.set(b"abc", b"", record(b"3"));
        memory.set(b"", b"abc", record(b"4"));
        assert_eq!(memory.records(), 4);
        assert_eq!(memory.get(b"a", b"bc"), Some(record(b"1")));
        assert_eq!(memory.get(b"ab", b"c"), Some(record(b"2")));
        assert_eq!(memory.get(b"abc", b""), Some(record(b"3")));
        assert_eq!(memory.get(b"", b"abc"), Some(record(b"4")));
        assert_eq!(memory.get(b"", b""), None);
    }

    #[test]
    fn counts_follow_set_replace_and_remove() {
        let memory = Memory::new();
        memory.set(b"id", b"s", record(b"12345"));
        assert_eq!((memory.records(), memory.bytes()), (1, 8));
        memory.set(b"id", b"s", record(b""));
        assert_eq!((memory.records(), memory.bytes()), (1, 3));
        memory.remove(b"id", b"t");
        assert_eq!((memory.records(), memory.bytes()), (1, 3));
        memory.remove(b"id", b"s");
        assert_eq!((memory.records(), memory.bytes()), (0, 0));
        assert!(!memory.has(b"id", b"s"));
    }

    #[test]
    fn names_spread_over_the_shards() {
        let memory = Memory::new();
        for number in 0..SHARDS * 64 {
            memory.set(number.to_string().as_bytes(), b"s", record(b"x"));
        }
        // 64 expected in each; 256 in one is beyond any chance of a sound hash.
        let fullest = memory.shared.shards.iter().map(|shard| shard.read().len());
        assert!(fullest.max().is_some_and(|most| most < 256));
    }

    #[test]
    fn readers_on_other_threads_see_whole_records() {
        let memory = Memory::new();
        memory.set(b"id", b"s", record(&[0; 64]));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let memory = memory.clone();
                std::thread::spawn(move || {
                    for _ in 0..20_000 {
                        let found = memory.get(b"id", b"s").unwrap();
                        let first = found.data[0];
                        assert!(found.data.iter().all(|byte| *byte == first));
                        assert_eq!(found.timestamp, if first == 0 { 7 } else { first.into() });
                    }
                })
            })
            .collect();
        for turn in 0..20_000u32 {
            let byte = (turn % 251) as u8;
            let timestamp = if byte == 0 { 7 } else { byte.into() };
            let data = [byte; 64].as_slice().into();
            memory.set(b"id", b"s", Record { timestamp, data });
        }
        for reader in readers {
            reader.join().unwrap();
        }
    }
}
