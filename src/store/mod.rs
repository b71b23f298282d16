//! The agent store: id -> section -> record, on disk first and then in memory. Beside it, in the
//! same commits, lie the leases of ports: pool -> owner -> lease.
//!
//! [`Store`] is the control thread's end and the only writer; [`Memory`] is what every worker
//! reads. No socket, no clock and no protocol is known here: the time comes as a parameter, and
//! what a refused update means to a client is the session's business.
//!
//! ```text
//!   control thread                                         any worker
//!   apply(batch) -> limits -> one commit, one sync -> Memory <- get(id, section)
//!                     |            |
//!                     |            +-- store.journal: appended, one frame per batch
//!                     |            |        | full: folded, in one transaction
//!                     |            |        v
//!                     |            |   store.redb: the records
//!                     |            |
//!                  Refusal      failed: all refused, files closed; a later batch
//!                               opens them again and makes them hold what Memory has
//!   lend() -> files closed, everything in them: another process may open them
//!   take_back() -> opened again, and checked to hold what Memory has
//! ```
//!
//! What an update's `Ok` promises: it is on the disk, and no crash of the process or the machine
//! takes it back. What a [`Refusal`] promises: queries do not show it. Only when the process ends
//! between a failure of the disk and the recovery from it, the refused batch may be there after
//! the restart, since nobody can know what such a commit left behind.

mod contents;
mod disk;
mod error;
mod journal;
mod medium;
mod memory;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub use error::{OpenError, Refusal};
pub use medium::{FILE_NAME, Medium};
pub(crate) use memory::{Key, Name};
pub use memory::{Memory, Record};

use contents::{Contents, Keyspace};
use disk::{Bounds, Disk, Write};

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

/// A record's name, and the data it shall have; `None` when it is to be removed.
type Parts<'a> = ((&'a [u8], &'a [u8]), Option<&'a [u8]>);

impl Update {
    fn parts(&self) -> Parts<'_> {
        let data = match &self.change {
            Change::Set(data) => Some(data.as_ref()),
            Change::Remove => None,
        };
        ((&self.id, &self.section), data)
    }
}

/// The writing end of the store, for one thread.
///
/// Memory: every record once in [`Memory`] (bounded by [`Limits`]), every lease once (bounded by the
/// pools that wrote them), 16 MiB of pages, the names of
/// at most 4096 records, a frame of at most 4 MiB, and the batch at hand. Dropping it moves the
/// journal into the database.
pub struct Store {
    contents: Contents,
    disk: Disk,
    limits: Limits,
    failure: Option<Failure>,
    /// Another process may have the files, or has had them.
    is_lent: bool,
    /// There is nothing that another process could open.
    is_fleeting: bool,
    recoveries: u64,
}

/// What is remembered between a failed commit and the recovery from it.
struct Failure {
    reason: Arc<str>,
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
        let mut store = Self::open_within(Box::new(medium::InMemory), limits, IN_MEMORY)?;
        store.is_fleeting = true;
        Ok(store)
    }

    /// Opens a store on anything that can hold a database: for tests with failing disks.
    pub fn open_on(medium: Box<dyn Medium>, limits: Limits) -> Result<Self, OpenError> {
        Self::open_within(medium, limits, ON_DISK)
    }

    fn open_within(
        medium: Box<dyn Medium>,
        limits: Limits,
        bounds: Bounds,
    ) -> Result<Self, OpenError> {
        let contents = Contents::new();
        let disk = Disk::open(medium, bounds, &contents)?;
        Ok(Self {
            contents,
            disk,
            limits,
            failure: None,
            is_lent: false,
            is_fleeting: false,
            recoveries: 0,
        })
    }

    /// Closes the files, so that another process can open them: everything is in them. Until
    /// [`Store::take_back`] queries go on and nothing may be applied. Fails where the disk has failed and
    /// has not come back: then nobody else would be served better.
    pub fn lend(&mut self) -> Result<(), String> {
        if let Some(failure) = &self.failure {
            return Err(format!("the store's disk has failed: {}", failure.reason));
        }
        if !self.is_fleeting {
            self.disk.finish(&self.contents);
            self.is_lent = true;
        }
        Ok(())
    }

    /// Opens the files again after [`Store::lend`], and makes sure that they hold what the memory has.
    /// Where that fails it is as after any failure of the disk: it is tried again with later updates.
    pub fn take_back(&mut self, unix_now: i64) -> Result<(), String> {
        if !self.is_lent {
            return Ok(());
        }
        // A time at which it cannot have been tried yet.
        let tried = unix_now.wrapping_sub(1);
        let reason = "its files are closed".into();
        self.failure = Some(Failure { reason, tried });
        self.recover(unix_now).map_err(|reason| {
            let file = self.disk.path().display();
            log::error!("store: not opened again, updates are refused: {reason} file={file}");
            reason.to_string()
        })
    }

    /// The readers' view; clone it for every worker.
    pub fn memory(&self) -> Memory {
        self.contents.records.clone()
    }

    /// How often the store has come back after a failure of the disk. No record changes by that.
    pub fn recoveries(&self) -> u64 {
        self.recoveries
    }

    /// Every lease as it was written last, in no order; the timestamp says when, in Unix seconds.
    pub fn leases(&self, each: impl FnMut(&[u8], &[u8], &Record)) {
        self.contents.leases.for_each(each);
    }

    /// Applies the updates in their order and answers each, in one commit with one sync.
    ///
    /// `unix_now` is the time that the records get, in seconds; after a failure the disk is
    /// tried once per such second.
    pub fn apply(&mut self, batch: &[Update], unix_now: i64) -> Vec<Result<(), Refusal>> {
        self.apply_all(batch, &[], unix_now).0
    }

    /// As [`Store::apply`], with changes of leases in the same commit: their id is the pool, their
    /// section the owner. No limit holds for them but that of their pool; all of them are on the
    /// disk, or none.
    pub fn apply_all(
        &mut self,
        batch: &[Update],
        leases: &[Update],
        unix_now: i64,
    ) -> (Vec<Result<(), Refusal>>, Result<(), Refusal>) {
        if let Err(reason) = self.recover(unix_now) {
            return refuse_all(batch, &reason);
        }
        let (answers, wanted) = self.admit(batch);
        let wanted_leases = leases.iter().map(Update::parts).collect();
        let mut writes = self.writes(Keyspace::Records, &wanted);
        writes.extend(self.writes(Keyspace::Leases, &wanted_leases));
        if writes.is_empty() {
            return (answers, Ok(()));
        }
        if let Err(reason) = self.disk.commit(&writes, unix_now, &self.contents) {
            let reason = self.fail(reason, unix_now);
            return refuse_all(batch, &reason);
        }
        self.keep(Keyspace::Records, &wanted, unix_now);
        self.keep(Keyspace::Leases, &wanted_leases, unix_now);
        (answers, Ok(()))
    }

    /// Puts into memory what is on the disk by now.
    fn keep(&self, keyspace: Keyspace, wanted: &Wanted<'_>, unix_now: i64) {
        let memory = self.contents.of(keyspace);
        for (name, data) in wanted {
            match data {
                Some(data) => {
                    let record = Record {
                        timestamp: unix_now,
                        data: (*data).into(),
                    };
                    memory.set(name.0, name.1, record);
                }
                None => memory.remove(name.0, name.1),
            }
        }
    }

    /// Decides on each update by the limits, and sums up what the accepted ones come to: the
    /// last change of each record wins, the earlier ones need not touch the disk.
    fn admit<'a>(&self, batch: &'a [Update]) -> (Vec<Result<(), Refusal>>, Wanted<'a>) {
        let mut wanted = Wanted::with_capacity(batch.len());
        let mut room = Room {
            limits: self.limits,
            records: self.contents.records.records(),
            bytes: self.contents.records.bytes(),
        };
        let answers = batch.iter().map(|update| {
            let (name, data) = update.parts();
            let present = match wanted.get(&name) {
                Some(data) => data.map(<[u8]>::len),
                None => self.contents.records.length(&name),
            };
            room.change(name.size(), present, data.map(<[u8]>::len))?;
            wanted.insert(name, data);
            Ok(())
        });
        (answers.collect(), wanted)
    }

    /// The changes as the disk takes them.
    fn writes<'a>(&self, keyspace: Keyspace, wanted: &Wanted<'a>) -> Vec<Write<'a>> {
        let memory = self.contents.of(keyspace);
        wanted
            .iter()
            // Removing what is not there changes nothing and needs no sync.
            .filter(|(name, data)| data.is_some() || memory.has(name.0, name.1))
            .map(|(name, data)| Write {
                keyspace,
                id: name.0,
                section: name.1,
                data: *data,
            })
            .collect()
    }

    fn fail(&mut self, reason: String, unix_now: i64) -> Arc<str> {
        log::error!(
            "store: disk failed, updates are refused, queries go on: {reason} file={}",
            self.disk.path().display()
        );
        let reason: Arc<str> = reason.into();
        self.failure = Some(Failure {
            reason: Arc::clone(&reason),
            tried: unix_now,
        });
        reason
    }

    /// After a failure: opens the files again, at most once per second, and makes them hold what
    /// the memory has.
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
        let back = match self.is_lent {
            true => self.disk.take_back(&self.contents),
            false => self.disk.recover(&self.contents),
        };
        if let Err(reason) = back {
            failure.reason = reason.into();
            failure.tried = unix_now;
            let reason = Arc::clone(&failure.reason);
            self.failure = Some(failure);
            return Err(reason);
        }
        self.recoveries += 1;
        let file = self.disk.path().display();
        match std::mem::take(&mut self.is_lent) {
            true => log::info!("store: opened again, updates are taken file={file}"),
            false => log::warn!("store: disk works again, updates are taken file={file}"),
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.disk.finish(&self.contents);
    }
}

/// What a batch comes to: the last accepted change of each record, `None` = removed.
type Wanted<'a> = HashMap<(&'a [u8], &'a [u8]), Option<&'a [u8]>>;

fn refuse_all(
    batch: &[Update],
    reason: &Arc<str>,
) -> (Vec<Result<(), Refusal>>, Result<(), Refusal>) {
    let refused = Err(Refusal::Disk(Arc::clone(reason)));
    (vec![refused.clone(); batch.len()], refused)
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

/// A fold of so many records holds the control thread for about 10 ms, and for some tens of them
/// when each record lies on a page of its own.
const ON_DISK: Bounds = Bounds {
    journal: 4 << 20,
    records: 4096,
};
/// Simulations make many stores, and folds shall happen in them.
const IN_MEMORY: Bounds = Bounds {
    journal: 64 << 10,
    records: 256,
};

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use faults::{Fault, FaultyDisk};
