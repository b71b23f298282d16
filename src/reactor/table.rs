//! A slab whose keys carry a generation, so that an event meant for a closed entry never reaches
//! the one that reuses its slot.
//!
//! It knows nothing of what it holds; every room that keeps things by key uses it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::num::NonZeroU32;

use slab::Slab;

/// The name of one entry of a [`Table`]: its slot and the generation that filled it.
///
/// `T` only marks which table the key belongs to; it need not be the table's entry type.
pub struct Key<T> {
    index: u32,
    generation: NonZeroU32,
    table: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The slot's number: dense from 0, reused after a removal.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Tells apart the entries that use one slot after another.
    pub fn generation(self) -> u32 {
        self.generation.get()
    }

    /// Puts a key together again from what [`Key::index`] and [`Key::generation`] gave.
    ///
    /// `None` for generation 0, which no entry ever has.
    pub const fn from_parts(index: u32, generation: u32) -> Option<Self> {
        match NonZeroU32::new(generation) {
            Some(generation) => Some(Self {
                index,
                generation,
                table: PhantomData,
            }),
            None => None,
        }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}

impl<T> Eq for Key<T> {}

impl<T> Hash for Key<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
        self.generation.hash(state);
    }
}

/// `17.41`: slot 17, generation 41. This is the form that log lines and admin addresses use.
impl<T> fmt::Display for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Entries of type `T`, found by `Key<M>`, at most as many as the cap given at the start.
pub struct Table<T, M = T> {
    entries: Slab<Entry<T>>,
    cap: usize,
    next_generation: NonZeroU32,
    keys: PhantomData<fn() -> M>,
}

struct Entry<T> {
    generation: NonZeroU32,
    value: T,
}

impl<T, M> Table<T, M> {
    /// An empty table that takes at most `cap` entries. It grows as they come.
    pub fn new(cap: usize) -> Self {
        Self {
            entries: Slab::new(),
            cap: cap.min(u32::MAX as usize),
            next_generation: NonZeroU32::MIN,
            keys: PhantomData,
        }
    }

    /// Sets anew how many entries it takes; those that are there stay.
    pub fn set_cap(&mut self, cap: usize) {
        self.cap = cap.min(u32::MAX as usize);
    }

    /// How many entries are in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True when [`Table::insert`] would give the value back.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.cap
    }

    /// Puts a value in and names it; at the cap the value comes back and the caller sheds.
    pub fn insert(&mut self, value: T) -> Result<Key<M>, T> {
        if self.is_full() {
            return Err(value);
        }
        let generation = self.next_generation;
        self.next_generation = generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let index = self.entries.insert(Entry { generation, value });
        Ok(Key {
            index: index as u32,
            generation,
            table: PhantomData,
        })
    }

    /// The entry, unless it has left; then `None`, whoever has its slot now.
    pub fn get(&self, key: Key<M>) -> Option<&T> {
        self.entries
            .get(key.index as usize)
            .filter(|entry| entry.generation == key.generation)
            .map(|entry| &entry.value)
    }

    /// As [`Table::get`], to change it.
    pub fn get_mut(&mut self, key: Key<M>) -> Option<&mut T> {
        self.entries
            .get_mut(key.index as usize)
            .filter(|entry| entry.generation == key.generation)
            .map(|entry| &mut entry.value)
    }

    /// Two different entries at once; `None` when either has left or both are the same.
    pub fn get2_mut(&mut self, a: Key<M>, b: Key<M>) -> Option<(&mut T, &mut T)> {
        let (a_at, b_at) = (a.index as usize, b.index as usize);
        if a_at == b_at || !self.entries.contains(a_at) || !self.entries.contains(b_at) {
            return None;
        }
        let (left, right) = self.entries.get2_mut(a_at, b_at)?;
        (left.generation == a.generation && right.generation == b.generation)
            .then_some((&mut left.value, &mut right.value))
    }

    /// Takes the entry out. The slot may be reused at once: the key's generation guards it.
    pub fn remove(&mut self, key: Key<M>) -> Option<T> {
        self.get(key)?;
        self.entries
            .try_remove(key.index as usize)
            .map(|entry| entry.value)
    }

    /// All entries with their keys, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Key<M>, &T)> {
        self.entries.iter().map(|(index, entry)| {
            let key = Key {
                index: index as u32,
                generation: entry.generation,
                table: PhantomData,
            };
            (key, &entry.value)
        })
    }

    /// The entry of a slot, whatever its generation.
    pub fn at(&self, index: u32) -> Option<(Key<M>, &T)> {
        let entry = self.entries.get(index as usize)?;
        let key = Key::from_parts(index, entry.generation.get())?;
        Some((key, &entry.value))
    }

    /// One more than the last slot that may have an entry: the end of a walk in steps by
    /// [`Table::at`].
    pub fn slots(&self) -> u32 {
        self.entries.capacity() as u32
    }

    /// All keys, in slot order, for a walk that changes the table meanwhile.
    pub fn keys(&self) -> Vec<Key<M>> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_never_reaches_a_reused_slot() {
        let mut table: Table<&str> = Table::new(4);
        let old = table.insert("old").unwrap();
        assert_eq!(table.remove(old), Some("old"));
        let new = table.insert("new").unwrap();
        assert_eq!(new.index(), old.index());
        assert_eq!(table.get(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.get(new), Some(&"new"));
    }

    #[test]
    fn a_full_table_gives_the_value_back() {
        let mut table: Table<u8> = Table::new(1);
        let key = table.insert(1).unwrap();
        assert_eq!(table.insert(2), Err(2));
        table.remove(key);
        assert!(table.insert(2).is_ok());
    }

    #[test]
    fn a_walk_by_slots_finds_all() {
        let mut table: Table<u8> = Table::new(8);
        let keys: Vec<_> = (0..5).map(|n| table.insert(n).unwrap()).collect();
        table.remove(keys[1]);
        let found: Vec<_> = (0..table.slots()).filter_map(|at| table.at(at)).collect();
        let values: Vec<_> = found.iter().map(|(_, value)| **value).collect();
        assert_eq!(values, [0, 2, 3, 4]);
        assert_eq!(found[1].0, keys[2]);
    }

    #[test]
    fn two_entries_only_when_both_live_and_differ() {
        let mut table: Table<u8> = Table::new(4);
        let a = table.insert(1).unwrap();
        let b = table.insert(2).unwrap();
        assert_eq!(table.get2_mut(b, a), Some((&mut 2, &mut 1)));
        assert_eq!(table.get2_mut(a, a), None);
        table.remove(b);
        assert_eq!(table.get2_mut(a, b), None);
    }

    #[test]
    fn generations_wrap_past_zero() {
        let mut table: Table<u8> = Table::new(4);
        table.next_generation = NonZeroU32::MAX;
        let last = table.insert(1).unwrap();
        let first = table.insert(2).unwrap();
        assert_eq!((last.generation(), first.generation()), (u32::MAX, 1));
        assert_eq!(
            Key::<u8>::from_parts(first.index(), first.generation()),
            Some(first)
        );
        assert_eq!(Key::<u8>::from_parts(0, 0), None);
    }
}
