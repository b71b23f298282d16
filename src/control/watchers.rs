//! Who waits for which record to be set.
//!
//! It knows neither the store nor a mailbox: the control thread asks it whom to tell.

use std::collections::HashMap;
use std::sync::Arc;

use super::Asker;
use crate::reactor::Handle;
use crate::store::{Key, Name};

/// At most one record per slot of a worker's session table, [`WATCHERS`] in all, with
/// [`WATCHED_BYTES`] of names: a session that comes later is told to go without.
#[derive(Default)]
pub(super) struct Watchers {
    by_key: HashMap<Arc<Key>, HashMap<Slot, Asker>>,
    by_slot: HashMap<Slot, Arc<Key>>,
    bytes: usize,
}

/// A place in a worker's session table. Who comes into a place takes over from the one who was
/// there: so a watch that its session forgot to end cannot outlive the next session.
type Slot = (u8, u32);

impl Watchers {
    /// Notes the watch in the place of the session's former one; false when there is no room.
    pub(super) fn add(&mut self, asker: Asker, id: &[u8], section: &[u8]) -> bool {
        let from = asker.from;
        self.leave(slot_of(from));
        let size = id.len() + section.len();
        if self.by_slot.len() >= WATCHERS || self.bytes + size > WATCHED_BYTES {
            return false;
        }
        self.bytes += size;
        let name: &dyn Name = &(id, section);
        let key = match self.by_key.get_key_value(name) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(Key::new(id, section)),
        };
        let watching = self.by_key.entry(Arc::clone(&key)).or_default();
        watching.insert(slot_of(from), asker);
        self.by_slot.insert(slot_of(from), key);
        true
    }

    /// Ends whatever watch the session's place has.
    pub(super) fn end(&mut self, from: Handle) {
        self.leave(slot_of(from));
    }

    /// Ends the session's watch of this record, if it has one.
    pub(super) fn remove(&mut self, from: Handle, id: &[u8], section: &[u8]) {
        let name: &dyn Name = &(id, section);
        let watcher = self
            .by_key
            .get(name)
            .and_then(|all| all.get(&slot_of(from)));
        if watcher.is_some_and(|watcher| watcher.from == from) {
            self.leave(slot_of(from));
        }
    }

    /// Takes out all who wait for this record.
    pub(super) fn take(&mut self, name: &dyn Name) -> impl Iterator<Item = Asker> + use<> {
        let watching = self.by_key.remove(name).unwrap_or_default();
        for slot in watching.keys() {
            self.by_slot.remove(slot);
            self.bytes -= name.size();
        }
        watching.into_values()
    }

    /// The records that somebody waits for.
    pub(super) fn keys(&self) -> Vec<Arc<Key>> {
        self.by_key.keys().map(Arc::clone).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_slot.len()
    }

    fn leave(&mut self, slot: Slot) {
        let Some(key) = self.by_slot.remove(&slot) else {
            return;
        };
        self.bytes -= key.size();
        if let Some(watching) = self.by_key.get_mut(&key) {
            watching.remove(&slot);
            if watching.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }
}

fn slot_of(handle: Handle) -> Slot {
    (handle.core, handle.session.index())
}

pub(super) const WATCHERS: usize = 1 << 18;
pub(super) const WATCHED_BYTES: usize = 64 << 20;
