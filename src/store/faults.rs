//! A disk for tests that fails when told to and loses what was not synced when the power goes.
//!
//! It behaves as Linux does after a failed sync: the pages stay readable, count as clean, and no
//! later sync brings them to the disk.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::Medium;

/// One disk with both files; clones are the same one, so that a test keeps a hand on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

/// One open file of the disk.
#[derive(Debug)]
struct OpenFile {
    disk: FaultyDisk,
    which: usize,
}

#[derive(Debug, Default)]
struct State {
    files: [Image; 2],
    fault: Option<Fault>,
    /// Operations of the fault's kind that still go well.
    spared: usize,
    failed: bool,
    operations: usize,
    syncs: [usize; 2],
}

#[derive(Clone, Debug, Default)]
struct Image {
    /// What reads give.
    cached: Vec<u8>,
    /// What is there after a power cut.
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

/// Which operation fails, and with which error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Open(i32),
    Write(i32),
    Grow(i32),
    Sync(i32),
    /// The sync fails although everything had reached the disk.
    LateSync(i32),
    /// Every operation from some point on: the disk is gone.
    All(i32),
}

impl FaultyDisk {
    /// From now on this fails, after `spared` operations of its kind have gone well.
    pub(crate) fn fail(&self, fault: Fault, spared: usize) {
        let mut state = self.state.lock();
        state.fault = Some(fault);
        state.spared = spared;
        state.failed = false;
    }

    /// True when the last fault that was asked for has happened.
    pub(crate) fn failed(&self) -> bool {
        self.state.lock().failed
    }

    pub(crate) fn heal(&self) {
        self.state.lock().fault = None;
    }

    /// Forgets what no sync has brought to the disk.
    pub(crate) fn cut_power(&self) {
        self.tear(|| false);
    }

    /// As [`FaultyDisk::cut_power`], but each sector that awaits its sync may have made it.
    pub(crate) fn tear(&self, mut made_it: impl FnMut() -> bool) {
        for image in &mut self.state.lock().files {
            image.dirty.retain(|_| made_it());
            image.write_back();
            image.cached = image.durable.clone();
        }
    }

    /// The syncs of the database and of the journal.
    pub(crate) fn syncs(&self) -> [usize; 2] {
        self.state.lock().syncs
    }

    pub(crate) fn operations(&self) -> usize {
        self.state.lock().operations
    }

    /// The database's bytes as they are read.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state.lock().files[DATABASE].cached.clone()
    }

    /// The journal's bytes as they are read.
    pub(crate) fn journal(&self) -> Vec<u8> {
        self.state.lock().files[JOURNAL].cached.clone()
    }

    /// Another disk with these bytes of a database on it, and no journal.
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self::holding_both(bytes, Vec::new())
    }

    pub(crate) fn holding_both(database: Vec<u8>, journal: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.state.lock().files = [database, journal].map(|bytes| Image {
            durable: bytes.clone(),
            cached: bytes,
            dirty: BTreeSet::new(),
        });
        disk
    }

    /// Another disk with what is on this one now, sound and without a fault.
    pub(crate) fn copy(&self) -> Self {
        Self::holding_both(self.bytes(), self.journal())
    }
}

impl State {
    fn check(&mut self, failing: impl Fn(Fault) -> Option<i32>) -> io::Result<()> {
        self.operations += 1;
        let Some(number) = self.fault.and_then(failing) else {
            return Ok(());
        };
        if self.spared > 0 {
            self.spared -= 1;
            return Ok(());
        }
        self.failed = true;
        Err(io::Error::from_raw_os_error(number))
    }

    fn open(&mut self) -> io::Result<()> {
        self.check(|fault| match fault {
            Fault::Open(number) | Fault::All(number) => Some(number),
            _ => None,
        })
    }
}

impl Image {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
    }

    fn write_back(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let from = (sector * SECTOR).min(self.cached.len());
            let to = (from + SECTOR).min(self.cached.len());
            self.durable[from..to].copy_from_slice(&self.cached[from..to]);
        }
    }
}

impl Medium for FaultyDisk {
    fn path(&self) -> &Path {
        Path::new("faulty/store.redb")
    }

    fn open(&mut self, _again: bool) -> io::Result<Box<dyn StorageBackend>> {
        self.state.lock().open()?;
        Ok(Box::new(OpenFile {
            disk: self.clone(),
            which: DATABASE,
        }))
    }

    fn open_journal(&mut self, _again: bool) -> io::Result<Box<dyn StorageBackend>> {
        self.state.lock().open()?;
        Ok(Box::new(OpenFile {
            disk: self.clone(),
            which: JOURNAL,
        }))
    }
}

impl StorageBackend for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().files[self.which].cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check(|fault| match fault {
            Fault::All(number) => Some(number),
            _ => None,
        })?;
        let from = offset as usize;
        let bytes = state.files[self.which].cached.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check(|fault| match fault {
            Fault::Grow(number) | Fault::All(number) => Some(number),
            _ => None,
        })?;
        let image = &mut state.files[self.which];
        let old = image.cached.len();
        image.cached.resize(length as usize, 0);
        image.touch(old, length as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.syncs[self.which] += 1;
        let late = matches!(state.fault, Some(Fault::LateSync(_)));
        let result = state.check(|fault| match fault {
            Fault::Sync(number) | Fault::LateSync(number) | Fault::All(number) => Some(number),
            _ => None,
        });
        let image = &mut state.files[self.which];
        if !(result.is_ok() || late) {
            // The kernel's way: an error once, and clean pages from then on.
            image.dirty.clear();
        }
        image.write_back();
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check(|fault| match fault {
            Fault::Write(number) | Fault::All(number) => Some(number),
            _ => None,
        })?;
        let from = offset as usize;
        let to = from + data.len();
        let image = &mut state.files[self.which];
        image.cached[from..to].copy_from_slice(data);
        image.touch(from, to);
        Ok(())
    }
}

const DATABASE: usize = 0;
const JOURNAL: usize = 1;
const SECTOR: usize = 512;
