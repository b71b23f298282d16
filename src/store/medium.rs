//! What the database and its journal lie on: two files in a directory, memory for simulations,
//! or a disk that fails on demand.
//!
//! It opens and watches; it knows no record. `disk` is its only caller inside the store;
//! simulations may bring a medium of their own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{BackendError, StorageBackend};

/// Something that the database and its journal can be opened on, more than once.
pub trait Medium: Send {
    /// What messages call it.
    fn path(&self) -> &Path;

    /// Opens it. The first time (`again` false) it is created where it does not exist; after a
    /// failure (`again` true) it must be there, or else every record would seem deleted.
    fn open(&mut self, again: bool) -> io::Result<Box<dyn StorageBackend>>;

    /// Opens the journal in the same way. The database is open by then, and its lock keeps other
    /// processes away from both.
    fn open_journal(&mut self, again: bool) -> io::Result<Box<dyn StorageBackend>>;
}

/// What messages call the journal of a database.
pub(super) fn journal_path(database: &Path) -> PathBuf {
    database.with_extension("journal")
}

/// The files `store.redb` and `store.journal` in the data directory.
pub(super) struct InDirectory {
    directory: PathBuf,
    file: PathBuf,
}

impl InDirectory {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_path_buf(),
            file: directory.join(FILE_NAME),
        }
    }

    /// Makes the directory and the database's file, for this user alone, and their names durable.
    fn create(&self) -> io::Result<()> {
        if !self.directory.is_dir() {
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(&self.directory)?;
            // A relative path of one part has the parent "", which is the working directory.
            let parent = match self.directory.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            File::open(parent)?.sync_all()?;
        }
        self.create_file(&self.file)
    }

    fn create_file(&self, file: &Path) -> io::Result<()> {
        if !file.exists() {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            options.open(file)?.sync_all()?;
            File::open(&self.directory)?.sync_all()?;
        }
        Ok(())
    }
}

fn backend_on(file: &Path) -> io::Result<FileBackend> {
    let file = OpenOptions::new().read(true).write(true).open(file)?;
    FileBackend::new(file).map_err(|error| match error.into() {
        redb::Error::Io(error) => error,
        other => io::Error::other(other),
    })
}

impl Medium for InDirectory {
    fn path(&self) -> &Path {
        &self.file
    }

    fn open(&mut self, again: bool) -> io::Result<Box<dyn StorageBackend>> {
        if !again {
            self.create()?;
        }
        let backend = backend_on(&self.file)?;
        if !again {
            locked(&backend, forget_unfinished)?;
        }
        Ok(Box::new(backend))
    }

    fn open_journal(&mut self, again: bool) -> io::Result<Box<dyn StorageBackend>> {
        let file = journal_path(&self.file);
        if !again {
            self.create_file(&file)?;
        }
        Ok(Box::new(backend_on(&file)?))
    }
}

/// Empties a file whose first making was interrupted, which the database would call damaged.
///
/// The database writes its magic number after everything else of a new file, and the trees
/// behind the header only later. So no magic and nothing behind the header means that nothing
/// was ever stored.
fn forget_unfinished(file: &dyn StorageBackend) -> io::Result<()> {
    let length = file.len()?;
    let mut magic = [0; 8];
    let count = length.min(8) as usize;
    file.read(0, &mut magic[..count])?;
    if length == 0 || magic != [0; 8] {
        return Ok(());
    }
    let mut block = vec![0; BLOCK];
    let mut offset = PAGE as u64;
    while offset < length {
        let count = (length - offset).min(BLOCK as u64) as usize;
        file.read(offset, &mut block[..count])?;
        if block[..count].iter().any(|byte| *byte != 0) {
            return Ok(());
        }
        offset += count as u64;
    }
    file.set_len(0)
}

/// Does something to a file before the database takes its own lock of it, and lets no other
/// process write in between: one that is just making the file, or one that took it over after
/// our failure.
fn locked(
    file: &dyn StorageBackend,
    work: impl FnOnce(&dyn StorageBackend) -> io::Result<()>,
) -> io::Result<()> {
    match file.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
        Ok(true) => {
            work(file)?;
            file.unlock_range(Bound::Unbounded, Bound::Unbounded)?;
            Ok(())
        }
        Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
        Err(BackendError::Unsupported) => work(file),
        Err(error) => Err(error.into()),
    }
}

/// Memory that lives as long as the store: for simulations, and gone after a failure, which it
/// never has.
pub(super) struct InMemory;

impl Medium for InMemory {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn open(&mut self, again: bool) -> io::Result<Box<dyn StorageBackend>> {
        if again {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Box::new(InMemoryBackend::new()))
    }

    fn open_journal(&mut self, again: bool) -> io::Result<Box<dyn StorageBackend>> {
        self.open(again)
    }
}

/// Passes everything on and remembers a failed sync.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Box<dyn StorageBackend>,
    sync_failed: Arc<AtomicBool>,
}

impl Watched {
    /// Takes a freshly opened medium into use. When a sync on it failed before, everything in it
    /// is written and synced anew.
    ///
    /// The kernel forgets after a failed sync that the pages are not on the disk: it still reads
    /// them back, but never writes them again. A database opened on that looks sound and breaks
    /// at the next power cut. Writing every page again makes the kernel know it again.
    pub(super) fn over(
        inner: Box<dyn StorageBackend>,
        sync_failed: &Arc<AtomicBool>,
    ) -> io::Result<Self> {
        if sync_failed.load(Ordering::Relaxed) {
            locked(inner.as_ref(), write_again)?;
            sync_failed.store(false, Ordering::Relaxed);
        }
        Ok(Self {
            inner,
            sync_failed: Arc::clone(sync_failed),
        })
    }
}

fn write_again(medium: &dyn StorageBackend) -> io::Result<()> {
    let length = medium.len()?;
    let mut block = vec![0; BLOCK];
    let mut offset = 0;
    while offset < length {
        let count = (length - offset).min(BLOCK as u64) as usize;
        medium.read(offset, &mut block[..count])?;
        for (number, page) in block[..count].chunks(PAGE).enumerate() {
            // Empty pages are left alone: they may be holes, which a full disk could not fill.
            if page.iter().any(|byte| *byte != 0) {
                medium.write(offset + (number * PAGE) as u64, page)?;
            }
        }
        offset += count as u64;
    }
    medium.sync_data()
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data().inspect_err(|_| {
            self.sync_failed.store(true, Ordering::Relaxed);
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

/// The database's file in the data directory.
pub const FILE_NAME: &str = "store.redb";
/// The database's unit of writing; its header fills the first one.
const PAGE: usize = 4096;
/// How much is read at once in a walk over a whole file.
const BLOCK: usize = 1 << 20;
