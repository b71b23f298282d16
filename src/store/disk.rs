//! The records on disk: a table of a `redb` database for each keyspace, one entry per record, and
//! before them the journal of what changed since.
//!
//! It knows no limit and serves no query; [`Store`](super::Store) alone calls it.
//!
//! ```text
//!   commit ----> append to the journal, one sync       (small, and the journal has room)
//!     |
//!     +--------> fold: one transaction, one sync       (the journal is full, or the batch is large)
//!                  tables  <- what the touched records are in memory
//!                  tables  <- the batch
//!                  state   <- a new generation, which makes every frame of the journal void
//!
//!   open         tables, then the journal's frames of the database's generation, then a fold
//!   recovery     open both again, then a fold of what memory has: nothing of a refused batch stays
//!   orderly end  a fold that leaves no generation: the database alone is the store
//!   taking back  after an orderly end, as an opening; what is read must be what memory has
//!
//! key    u32 BE  length of id | id | section
//! value  u8 format = 1 | i64 LE timestamp | u32 LE crc | data
//! ```
//!
//! A crash at any point finds either the old generation, whose frames and records are untouched,
//! or the new one, whose records have everything: no frame is overwritten before the fold that
//! makes it void is on the disk.
//!
//! The crc (CRC-32, IEEE) is taken over key, timestamp and data. The database has checksums of
//! its own, but they are not cryptographic and cover pages; ours says of one record that what is
//! served is what was stored under that very name.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    TableError,
};

use super::contents::{Contents, Keyspace};
use super::error::OpenError;
use super::journal::{Broken, Journal};
use super::medium::{Medium, Watched, journal_path};
use super::memory::{Key, Name, Record};

/// The open files and what is needed to open them again.
pub(super) struct Disk {
    medium: Box<dyn Medium>,
    path: PathBuf,
    /// `None` after a failure, until [`Disk::recover`]: nobody knows what is on the disk.
    files: Option<Files>,
    sync_failed: Arc<AtomicBool>,
    bounds: Bounds,
    /// The records that may be other in memory than in the table: at most `bounds.records`, and
    /// one batch after a failure.
    touched: Touched,
    /// The generation in the database, which is the store's mark as well.
    generation: u64,
    /// The generation that the last fold wanted there; after its failure it may be there.
    wanted: u64,
}

struct Files {
    database: Database,
    journal: Journal,
}

/// When the journal is folded into the table. Both bound how long one fold takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The length of the journal, a multiple of its sector.
    pub(super) journal: usize,
    /// The records that the journal may change.
    pub(super) records: usize,
}

/// One change for [`Disk::commit`].
pub(super) struct Write<'a> {
    /// Where the record is.
    pub(super) keyspace: Keyspace,
    /// The first-level key.
    pub(super) id: &'a [u8],
    /// The second-level key.
    pub(super) section: &'a [u8],
    /// The new data, or `None` to remove the record.
    pub(super) data: Option<&'a [u8]>,
}

/// A row of a keyspace's table, new or, with `None`, to be removed.
type Row<T> = (Keyspace, Vec<u8>, Option<(i64, T)>);

/// Names of records, by keyspace.
#[derive(Default)]
struct Touched([HashSet<Key>; Keyspace::ALL.len()]);

impl Touched {
    fn len(&self) -> usize {
        self.0.iter().map(HashSet::len).sum()
    }

    fn insert(&mut self, keyspace: Keyspace, id: &[u8], section: &[u8]) {
        let names = &mut self.0[keyspace as usize];
        let name: &dyn Name = &(id, section);
        if !names.contains(name) {
            names.insert(Key::new(id, section));
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Keyspace, &Key)> {
        let each = |keyspace| {
            self.0[keyspace as usize]
                .iter()
                .map(move |key| (keyspace, key))
        };
        Keyspace::ALL.into_iter().flat_map(each)
    }

    fn clear(&mut self) {
        self.0.iter_mut().for_each(HashSet::clear);
    }
}

impl Disk {
    /// Opens database and journal, verifies all of them, and puts every record into the memory.
    pub(super) fn open(
        mut medium: Box<dyn Medium>,
        bounds: Bounds,
        contents: &Contents,
    ) -> Result<Self, OpenError> {
        let path = medium.path().to_path_buf();
        let sync_failed = Arc::new(AtomicBool::new(false));
        let (files, touched) = read(medium.as_mut(), false, &sync_failed, bounds, contents)?;
        let mut disk = Self {
            medium,
            path,
            files: Some(files),
            sync_failed,
            bounds,
            touched,
            generation: 0,
            wanted: 0,
        };
        disk.fold(&[], 0, contents)
            .map_err(|error| OpenError::from_database(&disk.path, error))?;
        Ok(disk)
    }

    /// Opens the files again that [`Disk::finish`] has closed and another process may have opened in
    /// the meantime: they must hold what is in memory, and nothing else. An error leaves them closed.
    pub(super) fn take_back(&mut self, contents: &Contents) -> Result<(), String> {
        self.close();
        let found = Contents::new();
        let medium = self.medium.as_mut();
        let (files, _) = read(medium, true, &self.sync_failed, self.bounds, &found)
            .map_err(|error| error.to_string())?;
        if !found.is_as(contents) {
            return Err(REPLACED.into());
        }
        self.files = Some(files);
        self.touched.clear();
        self.fold(&[], 0, contents)
            .map_err(|error| self.in_words(error))
    }

    /// When it folds.
    #[cfg(test)]
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The database's file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all or nothing, and returns when it is on the disk. The memory is as it was before
    /// these changes.
    ///
    /// After an error nobody knows whether it is on the disk; the files are closed, and a restart
    /// would serve either, until [`Disk::recover`] has put there what is in memory.
    pub(super) fn commit(
        &mut self,
        writes: &[Write<'_>],
        timestamp: i64,
        contents: &Contents,
    ) -> Result<(), String> {
        let room = self.touched.len() + writes.len() <= self.bounds.records;
        let done = match &self.files {
            Some(files) if room && files.journal.takes(writes) => self.append(writes, timestamp),
            _ => self.fold(writes, timestamp, contents),
        };
        done.map_err(|error| self.in_words(error))
    }

    fn append(&mut self, writes: &[Write<'_>], timestamp: i64) -> Result<(), redb::Error> {
        self.guarded(|files| Ok(files.journal.append(writes, timestamp)?))?;
        self.touch(writes);
        Ok(())
    }

    fn touch(&mut self, writes: &[Write<'_>]) {
        for write in writes {
            self.touched.insert(write.keyspace, write.id, write.section);
        }
    }

    /// Brings the tables up to the memory and the batch, and starts an empty journal, in one
    /// transaction with one sync.
    fn fold(
        &mut self,
        writes: &[Write<'_>],
        timestamp: i64,
        contents: &Contents,
    ) -> Result<(), redb::Error> {
        let mut batch: Vec<Row<&[u8]>> = writes
            .iter()
            .map(|write| {
                let key = key_of(&(write.id, write.section));
                let value = write.data.map(|data| (timestamp, data));
                (write.keyspace, key, value)
            })
            .collect();
        // Neighbours share pages.
        batch.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let rows = self.touched_rows(contents);
        let generation = new_generation();
        self.wanted = generation;
        let folded = self.guarded(|files| {
            write_rows(&files.database, &rows, &batch, Some(generation))?;
            files.journal.begin(generation);
            Ok(())
        });
        if folded.is_err() {
            // Whatever of the batch got into the table has to be undone.
            self.touch(writes);
            return folded;
        }
        self.generation = generation;
        self.touched.clear();
        Ok(())
    }

    fn touched_rows(&self, contents: &Contents) -> Vec<Row<Arc<[u8]>>> {
        let mut rows: Vec<_> = self
            .touched
            .iter()
            .map(|(keyspace, name)| {
                let record = contents.of(keyspace).get(name.id(), name.section());
                let row = record.map(|record| (record.timestamp, record.data));
                (keyspace, key_of(name), row)
            })
            .collect();
        rows.sort_unstable_by(|a: &Row<_>, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        rows
    }

    /// Opens the files again after a failure and makes them hold what is in memory. An error
    /// leaves them closed.
    pub(super) fn recover(&mut self, contents: &Contents) -> Result<(), String> {
        self.close();
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let inner = self.medium.open(true)?;
            let database = database_on(Watched::over(inner, &self.sync_failed)?)?;
            let generation = generation_in(&database)?;
            Ok((database, generation))
        }));
        let (database, generation) = opened
            .unwrap_or_else(|_| Err(redb::Error::Corrupted(PANICKED.into())))
            .map_err(|error| self.in_words(error))?;
        // Another generation means that this is not the file that was open before, or that
        // another process has used it. To go on would mix two stores, and to serve it would drop
        // what clients were promised.
        if generation.is_none_or(|found| found != self.generation && found != self.wanted) {
            return Err(REPLACED.into());
        }
        // From here on another attempt would find this one.
        self.generation = generation.unwrap_or_default();
        let file = self.medium.open_journal(true);
        let journal = file.map(|file| Journal::over(file, self.bounds.journal));
        let journal = journal.and_then(|journal| journal.prepare().map(|()| journal));
        let journal = journal.map_err(|error| self.in_words(redb::Error::Io(error)))?;
        self.files = Some(Files { database, journal });
        self.fold(&[], 0, contents)
            .map_err(|error| self.in_words(error))
    }

    /// The orderly end: the tables get everything and the journal is no longer part of the store.
    /// After a failure, or when this fails, it stays as a crash would leave it.
    pub(super) fn finish(&mut self, contents: &Contents) {
        if self.files.is_none() {
            return;
        }
        let rows = self.touched_rows(contents);
        let done = self.guarded(|files| write_rows::<&[u8]>(&files.database, &rows, &[], None));
        if let Err(error) = done {
            log::warn!(
                "store: journal kept for the next start: {error} file={}",
                self.path.display()
            );
        }
        self.close();
    }

    /// Closes the files, so that only [`Disk::recover`] brings them back.
    pub(super) fn close(&mut self) {
        if let Some(files) = self.files.take() {
            // Closing writes when it can; after a failure it may find things it did not expect.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(files)));
        }
    }

    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Files) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let Some(files) = &mut self.files else {
            return Err(redb::Error::DatabaseClosed);
        };
        let done = catch_unwind(AssertUnwindSafe(|| work(files)));
        let done = done.unwrap_or_else(|_| Err(redb::Error::Corrupted(PANICKED.into())));
        if done.is_err() {
            self.close();
        }
        done
    }

    /// What a client may read: the system's reason, and no path of this machine.
    fn in_words(&self, error: redb::Error) -> String {
        log::debug!("store {}: {error}", self.path.display());
        match error {
            redb::Error::Io(error) => error.to_string(),
            redb::Error::DatabaseAlreadyOpen => "the store's file is in use elsewhere".into(),
            other => other.to_string(),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

fn database_on(backend: Watched) -> Result<Database, redb::Error> {
    // Queries are served from `Memory`; the cache only has to hold the pages that updates touch.
    let mut builder = Database::builder();
    Ok(builder.set_cache_size(CACHE).create_with_backend(backend)?)
}

/// Opens the files, verifies all that is in them, and puts every record into the memory. `again` is as
/// for a [`Medium`].
fn read(
    medium: &mut dyn Medium,
    again: bool,
    sync_failed: &Arc<AtomicBool>,
    bounds: Bounds,
    contents: &Contents,
) -> Result<(Files, Touched), OpenError> {
    let path = medium.path().to_path_buf();
    let inner = medium
        .open(again)
        .map_err(|error| OpenError::from_io(&path, error))?;
    // A damaged file can make the database panic where it takes its own invariants for
    // granted; that is damage as well, told in the same words.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let backend = Watched::over(inner, sync_failed).map_err(redb::Error::Io)?;
        let mut database = database_on(backend)?;
        if !database.check_integrity()? {
            return Err(redb::Error::Corrupted(ROLLED_BACK.into()));
        }
        for keyspace in Keyspace::ALL {
            load(&database, keyspace, contents)?;
        }
        let generation = generation_in(&database)?;
        Ok((database, generation))
    }));
    let (database, generation) = opened
        .unwrap_or_else(|_| Err(redb::Error::Corrupted(PANICKED.into())))
        .map_err(|error| OpenError::from_database(&path, error))?;
    let told = |error| OpenError::from_io(&journal_path(&path), error);
    let journal = Journal::over(medium.open_journal(again).map_err(told)?, bounds.journal);
    let mut touched = Touched::default();
    if let Some(generation) = generation {
        let replayed = journal.replay(generation, |keyspace, id, section, record| {
            touched.insert(keyspace, id, section);
            match record {
                Some(record) => contents.of(keyspace).set(id, section, record),
                None => contents.of(keyspace).remove(id, section),
            }
        });
        replayed.map_err(|broken| match broken {
            Broken::Io(error) => told(error),
            Broken::Damaged(what) => OpenError::damaged(&path, what),
        })?;
    }
    journal.prepare().map_err(told)?;
    Ok((Files { database, journal }, touched))
}

fn load(database: &Database, keyspace: Keyspace, contents: &Contents) -> Result<(), redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(table_of(keyspace)) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut count = 0;
    for entry in table.iter()? {
        let (key, value) = entry?;
        let (id, section) = split_key(key.value()).map_err(corrupted)?;
        let record = decode_value(key.value(), value.value()).map_err(corrupted)?;
        contents.of(keyspace).set(id, section, record);
        count += 1;
    }
    let expected = table.len()?;
    if count != expected {
        return Err(corrupted(format!("{count} records of {expected} found")));
    }
    Ok(())
}

/// The generation whose frames belong to the table; none after an orderly end.
fn generation_in(database: &Database) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(STATE) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(table.get(GENERATION)?.map(|found| found.value()))
}

/// A number that no client can guess and no older frame bears.
fn new_generation() -> u64 {
    // The hasher's keys come from the system's random numbers.
    RandomState::new().hash_one(())
}

/// Writes first the one rows, then the others, and the generation.
fn write_rows<T: AsRef<[u8]>>(
    database: &Database,
    rows: &[Row<Arc<[u8]>>],
    batch: &[Row<T>],
    generation: Option<u64>,
) -> Result<(), redb::Error> {
    // One phase, one sync: a crash in the midst of a commit is seen by the checksums of the
    // pages and rolled back. Two phases would guard the same against someone who steers the
    // order in which pages reach the disk, at twice the syncs.
    let transaction = database.begin_write()?;
    {
        let mut value = Vec::new();
        for keyspace in Keyspace::ALL {
            let mut table = transaction.open_table(table_of(keyspace))?;
            for (_, key, row) in rows.iter().filter(|row| row.0 == keyspace) {
                write_row(&mut table, key, row.as_ref(), &mut value)?;
            }
            for (_, key, row) in batch.iter().filter(|row| row.0 == keyspace) {
                write_row(&mut table, key, row.as_ref(), &mut value)?;
            }
        }
        let mut state = transaction.open_table(STATE)?;
        match generation {
            Some(generation) => state.insert(GENERATION, generation)?,
            None => state.remove(GENERATION)?,
        };
    }
    transaction.commit()?;
    Ok(())
}

fn write_row<T: AsRef<[u8]>>(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    key: &[u8],
    row: Option<&(i64, T)>,
    value: &mut Vec<u8>,
) -> Result<(), redb::Error> {
    match row {
        Some((timestamp, data)) => {
            encode_value(key, *timestamp, data.as_ref(), value);
            table.insert(key, value.as_slice())?;
        }
        None => {
            table.remove(key)?;
        }
    }
    Ok(())
}

fn corrupted(what: String) -> redb::Error {
    redb::Error::Corrupted(what)
}

/// The key that a record has on disk.
fn key_of(name: &dyn Name) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + name.size());
    // An id comes out of a frame, whose length is far below 4 GiB.
    key.extend_from_slice(&(name.id().len() as u32).to_be_bytes());
    key.extend_from_slice(name.id());
    key.extend_from_slice(name.section());
    key
}

fn split_key(key: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let split = key
        .split_first_chunk()
        .and_then(|(length, names)| names.split_at_checked(u32::from_be_bytes(*length) as usize));
    split.ok_or_else(|| format!("a record's key is malformed: {}", shown(key)))
}

fn encode_value(key: &[u8], timestamp: i64, data: &[u8], value: &mut Vec<u8>) {
    let timestamp = timestamp.to_le_bytes();
    value.clear();
    value.reserve_exact(1 + 8 + 4 + data.len());
    value.push(FORMAT);
    value.extend_from_slice(&timestamp);
    value.extend_from_slice(&checksum(key, &timestamp, data).to_le_bytes());
    value.extend_from_slice(data);
}

fn decode_value(key: &[u8], value: &[u8]) -> Result<Record, String> {
    let fields = value.split_first().and_then(|(format, rest)| {
        let (timestamp, rest) = rest.split_first_chunk::<8>()?;
        let (crc, data) = rest.split_first_chunk::<4>()?;
        Some((*format, timestamp, u32::from_le_bytes(*crc), data))
    });
    let Some((format, timestamp, crc, data)) = fields else {
        return Err(format!("record {} is cut short", shown(key)));
    };
    if format != FORMAT {
        return Err(format!(
            "record {} has format {format}, this version reads {FORMAT}",
            shown(key)
        ));
    }
    if crc != checksum(key, timestamp, data) {
        return Err(format!("record {} has a wrong checksum", shown(key)));
    }
    Ok(Record {
        timestamp: i64::from_le_bytes(*timestamp),
        data: data.into(),
    })
}

fn checksum(key: &[u8], timestamp: &[u8; 8], data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(timestamp);
    hasher.update(data);
    hasher.finalize()
}

/// A key's names for a message, cut to a line.
fn shown(key: &[u8]) -> String {
    let names = key.get(4..).unwrap_or(key);
    let most = names.len().min(64);
    format!("\"{}\"", names[..most].escape_ascii())
}

fn table_of(keyspace: Keyspace) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(match keyspace {
        Keyspace::Records => "records",
        Keyspace::Leases => "leases",
    })
}

/// The one entry of the state's table is the generation.
const STATE: TableDefinition<&str, u64> = TableDefinition::new("state");
const GENERATION: &str = "generation";
/// The first byte of every value; another layout takes another number.
const FORMAT: u8 = 1;
const CACHE: usize = 16 << 20;
const REPLACED: &str = "the store's file was replaced; restart the server to use it";
const PANICKED: &str = "its structure contradicts itself";
const ROLLED_BACK: &str = "some of its pages are broken, and only an older state of it is whole \
                           (started again, it is served as it was then)";
