//! The records on disk: one table of a `redb` database, one entry per record.
//!
//! It knows no limit and serves no query; [`Store`](super::Store) alone calls it.
//!
//! ```text
//! key    u32 BE  length of id | id | section
//! value  u8 format = 1 | i64 LE timestamp | u32 LE crc | data
//! ```
//!
//! The crc (CRC-32, IEEE) is taken over key, timestamp and data. The database has checksums of
//! its own, but they are not cryptographic and cover pages; ours says of one record that what is
//! served is what was stored under that very name.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
};

use super::error::OpenError;
use super::medium::{Medium, Watched};
use super::memory::{Name, Record};

/// The open database and what is needed to open it again.
pub(super) struct Disk {
    medium: Box<dyn Medium>,
    path: PathBuf,
    /// `None` after a failure, until [`Disk::reopen`]: the database refuses all further work.
    database: Option<Database>,
    sync_failed: Arc<AtomicBool>,
}

/// One change for [`Disk::commit`].
pub(super) struct Write<'a> {
    /// As made by [`key_of`].
    pub(super) key: Vec<u8>,
    /// The new data, or `None` to remove the record.
    pub(super) data: Option<&'a [u8]>,
}

impl Disk {
    /// Opens the database, verifies all of it, and hands over every record.
    pub(super) fn open(
        mut medium: Box<dyn Medium>,
        each: impl FnMut(&[u8], &[u8], Record),
    ) -> Result<Self, OpenError> {
        let path = medium.path().to_path_buf();
        let sync_failed = Arc::new(AtomicBool::new(false));
        let inner = medium
            .open(false)
            .map_err(|error| OpenError::from_io(&path, error))?;
        // A damaged file can make the database panic where it takes its own invariants for
        // granted; that is damage as well, told in the same words.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let backend = Watched::over(inner, &sync_failed).map_err(redb::Error::Io)?;
            let mut database = database_on(backend)?;
            if !database.check_integrity()? {
                return Err(redb::Error::Corrupted(ROLLED_BACK.into()));
            }
            load(&database, each)?;
            Ok(database)
        }));
        let database = opened
            .unwrap_or_else(|_| Err(redb::Error::Corrupted(PANICKED.into())))
            .map_err(|error| OpenError::from_database(&path, error))?;
        Ok(Self {
            medium,
            path,
            database: Some(database),
            sync_failed,
        })
    }

    /// The database's file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all or nothing, and returns when it is on the disk.
    ///
    /// After an error nobody knows whether it is on the disk; the database is closed, and the
    /// caller reads back what is there once it is open again.
    pub(super) fn commit(&mut self, writes: &[Write<'_>], timestamp: i64) -> Result<(), String> {
        self.guarded(|database| {
            // One phase, one sync: a crash in the midst of a commit is seen by the checksums of
            // the pages and rolled back. Two phases would guard the same against someone who
            // steers the order in which pages reach the disk, at twice the syncs.
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(RECORDS)?;
                let mut value = Vec::new();
                for write in writes {
                    match write.data {
                        Some(data) => {
                            encode_value(&write.key, timestamp, data, &mut value);
                            table.insert(write.key.as_slice(), value.as_slice())?;
                        }
                        None => {
                            table.remove(write.key.as_slice())?;
                        }
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// Opens the database again after a failure. An error leaves it closed.
    pub(super) fn reopen(&mut self) -> Result<(), String> {
        self.close();
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let inner = self.medium.open(true)?;
            database_on(Watched::over(inner, &self.sync_failed)?)
        }));
        let database = opened
            .unwrap_or_else(|_| Err(redb::Error::Corrupted(PANICKED.into())))
            .map_err(|error| self.in_words(error))?;
        self.database = Some(database);
        Ok(())
    }

    /// Reads records back, `None` where there is none, and the number of all records.
    pub(super) fn read_back(
        &mut self,
        keys: &[Vec<u8>],
    ) -> Result<(Vec<Option<Record>>, u64), String> {
        self.guarded(|database| {
            let transaction = database.begin_read()?;
            let table = match transaction.open_table(RECORDS) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok((vec![None; keys.len()], 0)),
                Err(error) => return Err(error.into()),
            };
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                found.push(match table.get(key.as_slice())? {
                    Some(value) => Some(decode_value(key, value.value()).map_err(corrupted)?),
                    None => None,
                });
            }
            Ok((found, table.len()?))
        })
    }

    /// Closes the database, so that only [`Disk::reopen`] brings it back.
    pub(super) fn close(&mut self) {
        if let Some(database) = self.database.take() {
            // Closing writes when it can; after a failure it may find things it did not expect.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
        }
    }

    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, String> {
        let Some(database) = &self.database else {
            return Err(self.in_words(redb::Error::DatabaseClosed));
        };
        let done = catch_unwind(AssertUnwindSafe(|| work(database)));
        let error = match done {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => redb::Error::Corrupted(PANICKED.into()),
        };
        self.close();
        Err(self.in_words(error))
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

fn load(
    database: &Database,
    mut each: impl FnMut(&[u8], &[u8], Record),
) -> Result<(), redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(RECORDS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut count = 0;
    for entry in table.iter()? {
        let (key, value) = entry?;
        let (id, section) = split_key(key.value()).map_err(corrupted)?;
        let record = decode_value(key.value(), value.value()).map_err(corrupted)?;
        each(id, section, record);
        count += 1;
    }
    let expected = table.len()?;
    if count != expected {
        return Err(corrupted(format!("{count} records of {expected} found")));
    }
    Ok(())
}

fn corrupted(what: String) -> redb::Error {
    redb::Error::Corrupted(what)
}

/// The key that a record has on disk.
pub(super) fn key_of(name: &dyn Name) -> Vec<u8> {
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

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// The first byte of every value; another layout takes another number.
const FORMAT: u8 = 1;
const CACHE: usize = 16 << 20;
const PANICKED: &str = "its structure contradicts itself";
const ROLLED_BACK: &str = "some of its pages are broken, and only an older state of it is whole \
                           (started again, it is served as it was then)";
