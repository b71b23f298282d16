//! The agent store: id -> section -> record, on disk first and then in memory.
//!
//! [`Store`] is the control thread's end and the only writer; [`Memory`] is what every worker
//! reads. No socket, no clock and no protocol is known here: the time comes as a parameter, and
//! what a refused update means to a client is the session's business.
//!
//! ```text
//!   control thread                                         any worker
//!   apply(batch) -> limits -> one commit, one sync -> Memory <- get(id, section)
//!                     |            |
//!                  Refusal      failed: all refused, database closed;
//!                               a later batch opens it again and reads back what it holds
//! ```
//!
//! What an update's `Ok` promises: it is on the disk, and no crash of the process or the machine
//! takes it back. What a [`Refusal`] promises: queries do not show it; after a failure of the
//! disk alone it may appear later, since nobody can know what such a commit left behind.

mod disk;
mod error;
mod medium;
mod memory;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub use error::{OpenError, Refusal};
pub use medium::{FILE_NAME, Medium};
pub(crate) use memory::{Key, Name};
pub use memory::{Memory, Record};

use disk::{Disk, Write};

/// What the store takes at most. A store that already holds more (because the limits were
/// lowered) serves all of it and takes no update that would make it larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one value.
    pub max_value: usize,
    /// Records in all.
    pub max_records: usize,
    /// Bytes of all ids, sections and values.
    pub max_bytes: usize,
}

/// One change that an agent asks for. Id and section are any bytes, also none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The first-level key.
    pub id: Box<[u8]>,
    /// The second-level key.
    pub section: Box<[u8]>,
    /// What becomes of the record.
    pub change: Change,
}

/// What an [`Update`] does to its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets it, whether it was there or not.
    Set(Box<[u8]>),
    /// Removes it; a missing one is fine.
    Remove,
}

/// The writing end of the store, for one thread.
///
/// Memory: every record once in [`Memory`] (bounded by [`Limits`]), 16 MiB of pages, and the
/// batch at hand.
pub struct Store {
    memory: Memory,
    disk: Disk,
    limits: Limits,
    failure: Option<Failure>,
    recoveries: u64,
}

/// What is remembered between a failed commit and the recovery from it.
struct Failure {
    reason: Arc<str>,
    /// The records that the failed commit would have changed, and may have: one batch of them.
    suspects: Vec<Key>,
    /// When it failed, or recovery was tried last, in Unix seconds.
    tried: i64,
}

impl Store {
    /// Opens the store in `directory`, which is made when it does not exist, and reads and
    /// verifies every record.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, OpenError> {
        Self::open_on(Box::new(medium::InDirectory::new(directory)), limits)
    }

    /// A store that forgets everything when it is dropped: for simulations.
    pub fn in_memory(limits: Limits) -> Result<Self, OpenError> {
        Self::open_on(Box::new(medium::InMemory), limits)
    }

    /// Opens a store on anything that can hold a database: for tests with failing disks.
    pub fn open_on(medium: Box<dyn Medium>, limits: Limits) -> Result<Self, OpenError> {
        let memory = Memory::new();
        let disk = Disk::open(medium, |id, section, record| {
            memory.set(id, section, record);
        })?;
        Ok(Self {
            memory,
            disk,
            limits,
            failure: None,
            recoveries: 0,
        })
    }

    /// The readers' view; clone it for every worker.
    pub fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// How often the store has come back after a failure of the disk. When this has grown,
    /// records may have changed without an update that was answered with `Ok`.
    pub fn recoveries(&self) -> u64 {
        self.recoveries
    }

    /// Applies the updates in their order and answers each, in one commit with one sync.
    ///
    /// `unix_now` is the time that the records get, in seconds; after a failure the disk is
    /// tried once per such second.
    pub fn apply(&mut self, batch: &[Update], unix_now: i64) -> Vec<Result<(), Refusal>> {
        if let Err(reason) = self.recover(unix_now) {
            return refuse_all(batch, &reason);
        }
        let (answers, wanted) = self.admit(batch);
        let writes = self.writes(&wanted);
        if writes.is_empty() {
            return answers;
        }
        if let Err(reason) = self.disk.commit(&writes, unix_now) {
            let reason = self.fail(reason, &wanted, unix_now);
            return refuse_all(batch, &reason);
        }
        for (name, data) in &wanted {
            match data {
                Some(data) => {
                    let record = Record {
                        timestamp: unix_now,
                        data: (*data).into(),
                    };
                    self.memory.set(name.0, name.1, record);
                }
                None => self.memory.remove(name.0, name.1),
            }
        }
        answers
    }

    /// Decides on each update by the limits, and sums up what the accepted ones come to: the
    /// last change of each record wins, the earlier ones need not touch the disk.
    fn admit<'a>(&self, batch: &'a [Update]) -> (Vec<Result<(), Refusal>>, Wanted<'a>) {
        let mut wanted = Wanted::with_capacity(batch.len());
        let mut room = Room {
            limits: self.limits,
            records: self.memory.records(),
            bytes: self.memory.bytes(),
        };
        let answers = batch.iter().map(|update| {
            let name = (update.id.as_ref(), update.section.as_ref());
            let present = match wanted.get(&name) {
                Some(data) => data.map(<[u8]>::len),
                None => self.memory.length(&name),
            };
            let data = match &update.change {
                Change::Set(data) => Some(data.as_ref()),
                Change::Remove => None,
            };
            room.change(name.size(), present, data.map(<[u8]>::len))?;
            wanted.insert(name, data);
            Ok(())
        });
        (answers.collect(), wanted)
    }

    /// The changes as the disk takes them, in the order of its keys: neighbours share pages.
    fn writes<'a>(&self, wanted: &Wanted<'a>) -> Vec<Write<'a>> {
        let mut writes: Vec<_> = wanted
            .iter()
            // Removing what is not there changes nothing and needs no sync.
            .filter(|(name, data)| data.is_some() || self.memory.has(name.0, name.1))
            .map(|(name, data)| Write {
                key: disk::key_of(name),
                data: *data,
            })
            .collect();
        writes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        writes
    }

    fn fail(&mut self, reason: String, wanted: &Wanted<'_>, unix_now: i64) -> Arc<str> {
        log::error!(
            "store: disk failed, updates are refused, queries go on: {reason} file={}",
            self.disk.path().display()
        );
        let reason: Arc<str> = reason.into();
        self.failure = Some(Failure {
            reason: Arc::clone(&reason),
            suspects: wanted.keys().map(|name| Key::new(name.0, name.1)).collect(),
            tried: unix_now,
        });
        reason
    }

    /// After a failure: opens the database again, at most once per second, and takes over what
    /// the failed commit left on disk.
    fn recover(&mut self, unix_now: i64) -> Result<(), Arc<str>> {
        let Some(mut failure) = self.failure.take() else {
            return Ok(());
        };
        // The wall clock may go back; any other second will do.
        if failure.tried == unix_now {
            let reason = Arc::clone(&failure.reason);
            self.failure = Some(failure);
            return Err(reason);
        }
        let recovered = self
            .disk
            .reopen()
            .and_then(|()| self.read_back(&failure.suspects));
        if let Err(reason) = recovered {
            self.disk.close();
            failure.reason = reason.into();
            failure.tried = unix_now;
            let reason = Arc::clone(&failure.reason);
            self.failure = Some(failure);
            return Err(reason);
        }
        self.recoveries += 1;
        log::warn!(
            "store: disk works again, updates are taken file={}",
            self.disk.path().display()
        );
        Ok(())
    }

    /// Makes memory and disk agree on the records of a failed commit. The disk is right: what it
    /// holds would be served after a restart as well.
    fn read_back(&mut self, suspects: &[Key]) -> Result<(), String> {
        let keys: Vec<_> = suspects.iter().map(|key| disk::key_of(key)).collect();
        let (found, on_disk) = self.disk.read_back(&keys)?;
        let fewer = suspects
            .iter()
            .filter(|key| self.memory.has(key.id(), key.section()))
            .count();
        let more = found.iter().flatten().count();
        // Another number of records means that this is not the file that was open before. To go
        // on would mix two stores, and to serve it would drop what clients were promised.
        if (self.memory.records() - fewer + more) as u64 != on_disk {
            return Err("the store's file was replaced; restart the server to use it".into());
        }
        for (key, record) in suspects.iter().zip(found) {
            match record {
                Some(record) => self.memory.set(key.id(), key.section(), record),
                None => self.memory.remove(key.id(), key.section()),
            }
        }
        Ok(())
    }
}

/// What a batch comes to: the last accepted change of each record, `None` = removed.
type Wanted<'a> = HashMap<(&'a [u8], &'a [u8]), Option<&'a [u8]>>;

fn refuse_all(batch: &[Update], reason: &Arc<str>) -> Vec<Result<(), Refusal>> {
    let refused = Err(Refusal::Disk(Arc::clone(reason)));
    vec![refused; batch.len()]
}

/// What is in the store after the changes admitted so far.
struct Room {
    limits: Limits,
    records: usize,
    bytes: usize,
}

impl Room {
    /// Admits a change of one record with a name of `name` bytes, whose data goes from one length
    /// to the other (`None`: no record), or refuses it and counts nothing.
    fn change(
        &mut self,
        name: usize,
        from: Option<usize>,
        to: Option<usize>,
    ) -> Result<(), Refusal> {
        let Limits {
            max_value,
            max_records,
            max_bytes,
        } = self.limits;
        let takes = |data: Option<usize>| data.map_or(0, |length| name + length);
        let records = self.records - usize::from(from.is_some()) + usize::from(to.is_some());
        let bytes = self.bytes - takes(from) + takes(to);
        if let Some(length) = to.filter(|length| *length > max_value) {
            let most = max_value;
            return Err(Refusal::ValueTooLong { length, most });
        }
        // What makes nothing larger is always taken, also over a limit that was lowered.
        if records > self.records && records > max_records {
            return Err(Refusal::TooManyRecords { most: max_records });
        }
        if bytes > self.bytes && bytes > max_bytes {
            return Err(Refusal::TooManyBytes { most: max_bytes });
        }
        self.records = records;
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
