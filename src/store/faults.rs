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

/// One disk; clones are the same one, so that a test keeps a hand on it.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What reads give.
    cached: Vec<u8>,
    /// What is there after a power cut.
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    fault: Option<Fault>,
    /// Operations of the fault's kind that still go well.
    spared: usize,
    operations: usize,
    syncs: usize,
}

/// Which operation fails, and with which error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
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
    pub(super) fn fail(&self, fault: Fault, spared: usize) {
        let mut state = self.state.lock();
        state.fault = Some(fault);
        state.spared = spared;
    }

    pub(super) fn heal(&self) {
        self.state.lock().fault = None;
    }

    /// Forgets what no sync has brought to the disk.
    pub(super) fn cut_power(&self) {
        self.tear(|| false);
    }

    /// As [`FaultyDisk::cut_power`], but each sector that awaits its sync may have made it.
    pub(super) fn tear(&self, mut made_it: impl FnMut() -> bool) {
        let mut state = self.state.lock();
        state.dirty.retain(|_| made_it());
        state.write_back();
        state.cached = state.durable.clone();
        state.dirty.clear();
    }

    pub(super) fn syncs(&self) -> usize {
        self.state.lock().syncs
    }

    pub(super) fn operations(&self) -> usize {
        self.state.lock().operations
    }

    /// The bytes as they are read.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state.lock().cached.clone()
    }

    /// Another disk with these bytes on it.
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.state.lock().durable = bytes.clone();
        disk.state.lock().cached = bytes;
        disk
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
        Err(io::Error::from_raw_os_error(number))
    }

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
        self.state.lock().check(|fault| match fault {
            Fault::Open(number) | Fault::All(number) => Some(number),
            _ => None,
        })?;
        Ok(Box::new(self.clone()))
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check(|fault| match fault {
            Fault::All(number) => Some(number),
            _ => None,
        })?;
        let from = offset as usize;
        let bytes = state.cached.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check(|fault| match fault {
            Fault::Grow(number) | Fault::All(number) => Some(number),
            _ => None,
        })?;
        let old = state.cached.len();
        state.cached.resize(length as usize, 0);
        state.touch(old, length as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.syncs += 1;
        let late = matches!(state.fault, Some(Fault::LateSync(_)));
        let result = state.check(|fault| match fault {
            Fault::Sync(number) | Fault::LateSync(number) | Fault::All(number) => Some(number),
            _ => None,
        });
        if result.is_ok() || late {
            state.write_back();
        } else {
            // The kernel's way: an error once, and clean pages from then on.
            let length = state.cached.len();
            state.durable.resize(length, 0);
            state.dirty.clear();
        }
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check(|fault| match fault {
            Fault::Write(number) | Fault::All(number) => Some(number),
            _ => None,
        })?;
        let from = offset as usize;
        let to = from + data.len();
        state.cached[from..to].copy_from_slice(data);
        state.touch(from, to);
        Ok(())
    }
}

const SECTOR: usize = 512;
