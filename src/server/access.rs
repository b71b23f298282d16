//! The access log's writer: a thread of its own that takes records from the workers' queue and writes
//! them, as many at once as there are.
//!
//! ```text
//!   workers ── records ──> queue ──> batch ──> file, pipe or stdout
//!                                     │  ^
//!                 takes nothing now: waits │ gone, full: the batch is lost and counted, but for a record
//!                                     └──┘   that is half written, whose rest comes first when there is
//!   SIGUSR1 ── reopen ──────────────────┘    room again
//! ```
//!
//! Whatever the target does, no worker waits: while the writer does, the queue fills, and what finds no
//! room in it is counted. Bounds: the queue's own, and [`BATCH`] here. A lone record is written at once; those
//! that come within a pause behind it go together, and wake nobody.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use super::StartError;
use crate::config::{AccessLog, AccessTarget};
use crate::worker::{AccessQueue, AccessTally};

/// The access log at work.
pub(super) struct Access {
    queue: AccessQueue,
    asks: Sender<Ask>,
    tally: Arc<AccessTally>,
}

/// What the writer is asked for.
enum Ask {
    /// To open its file anew.
    Reopen,
    /// To write what is left, and to end; dropped when it has.
    End(Sender<()>),
}

impl Access {
    /// Opens the log and starts its writer; nothing where it is off.
    pub(super) fn start(
        config: &AccessLog,
        tally: &Arc<AccessTally>,
    ) -> Result<Option<Self>, StartError> {
        let out = match &config.target {
            AccessTarget::Off => return Ok(None),
            AccessTarget::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            AccessTarget::File(path) => open(path),
        };
        let out = match (out, &config.target) {
            (Ok(out), _) => Some(out),
            // A pipe that nobody reads yet.
            (Err(error), _) if error.raw_os_error() == Some(libc::ENXIO) => None,
            (Err(error), AccessTarget::File(path)) => {
                return Err(StartError::AccessLog(path.clone(), error));
            }
            (Err(error), _) => return Err(StartError::System("use stdout", error)),
        };
        let (queue, records) = AccessQueue::new(config.format, Arc::clone(tally));
        let (asks, asked) = bounded(ASKS);
        let writer = Writer {
            target: config.target.clone(),
            next_open: Instant::now(),
            out,
            asked,
            tally: Arc::clone(tally),
            batch: Vec::new(),
            lengths: VecDeque::new(),
            begun: 0,
            is_failing: false,
        };
        thread::Builder::new()
            .name("access log".into())
            .spawn(move || writer.run(&records))
            .map_err(|error| StartError::System("start the access log", error))?;
        Ok(Some(Self {
            queue,
            asks,
            tally: Arc::clone(tally),
        }))
    }

    /// Where a worker puts its records.
    pub(super) fn queue(&self) -> AccessQueue {
        self.queue.clone()
    }

    /// What has the file opened anew.
    pub(super) fn reopening(&self) -> impl Fn() + Send + use<> {
        let asks = self.asks.clone();
        move || {
            // One that finds others waiting is done by them.
            let _ = asks.try_send(Ask::Reopen);
        }
    }

    /// Writes what is left, and ends the writer, within a bound: a target that takes nothing is left
    /// behind.
    pub(super) fn end(self) {
        let (ending, is_over) = bounded(0);
        if self
            .asks
            .send_timeout(Ask::End(ending), PATIENCE + RETRY)
            .is_ok()
        {
            let _ = is_over.recv_timeout(PATIENCE + 2 * RETRY);
        }
        let lost = self.tally.dropped.load(Ordering::Relaxed);
        if lost > 0 {
            log::warn!("{lost} records of the access log were lost");
        }
    }
}

/// Opens a file, or a pipe, for records at its end. It does not wait for a pipe's reader.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// The writer's thread.
struct Writer {
    target: AccessTarget,
    out: Option<File>,
    /// When it may be opened again, where there is none.
    next_open: Instant,
    asked: Receiver<Ask>,
    tally: Arc<AccessTally>,
    /// Records that are being written, without what of them is.
    batch: Vec<u8>,
    /// How long each of them was.
    lengths: VecDeque<usize>,
    /// How much of the first of them is written.
    begun: usize,
    /// It was said that writing fails.
    is_failing: bool,
}

impl Writer {
    fn run(mut self, records: &Receiver<Box<[u8]>>) {
        loop {
            let ask = match self.batch.is_empty() {
                true => select! {
                    recv(records) -> record => match record {
                        Ok(record) => {
                            self.take(record);
                            self.gather(records);
                            self.write();
                            if self.batch.is_empty() {
                                thread::sleep(PAUSE);
                            }
                            None
                        }
                        Err(_) => return,
                    },
                    recv(self.asked) -> ask => Some(ask),
                },
                // Something could not be written: it is tried again, and new records wait meanwhile.
                false => match self.asked.recv_timeout(RETRY) {
                    Ok(ask) => Some(Ok(ask)),
                    Err(RecvTimeoutError::Timeout) => {
                        self.write();
                        None
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            match ask {
                None => {}
                Some(Ok(Ask::Reopen)) => self.reopen(),
                Some(Ok(Ask::End(_ending))) => return self.finish(records),
                Some(Err(_)) => return,
            }
        }
    }

    fn take(&mut self, record: Box<[u8]>) {
        self.tally.took(&record);
        self.batch.extend_from_slice(&record);
        self.lengths.push_back(record.len());
    }

    /// Takes what waits, up to a batch.
    fn gather(&mut self, records: &Receiver<Box<[u8]>>) {
        while self.batch.len() < BATCH
            && let Ok(record) = records.try_recv()
        {
            self.take(record);
        }
    }

    /// Writes the batch as far as it can be.
    fn write(&mut self) {
        if self.out.is_none() && Instant::now() >= self.next_open {
            self.next_open = Instant::now() + RETRY;
            if let AccessTarget::File(path) = &self.target {
                self.out = open(path).ok();
            }
        }
        let Some(out) = &mut self.out else {
            return self.drop_batch(false);
        };
        let mut at = 0;
        let failure = loop {
            if at == self.batch.len() {
                break None;
            }
            match out.write(&self.batch[at..]) {
                Ok(0) => break Some(ErrorKind::WriteZero.into()),
                Ok(count) => at += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        self.note_written(at);
        match failure {
            None => {
                if std::mem::take(&mut self.is_failing) {
                    log::info!("the access log is written again");
                }
            }
            // A pipe that is full for now.
            Some(error) if error.kind() == ErrorKind::WouldBlock => {}
            Some(error) => self.fail(&error),
        }
    }

    fn note_written(&mut self, count: usize) {
        self.batch.drain(..count);
        self.begun += count;
        while let Some(&length) = self.lengths.front()
            && self.begun >= length
        {
            self.begun -= length;
            self.lengths.pop_front();
            AccessTally::add(&self.tally.written, 1);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        AccessTally::add(&self.tally.failed, 1);
        if !std::mem::replace(&mut self.is_failing, true) {
            log::error!("the access log cannot be written, its records are lost: {error}");
        }
        // A pipe's next reader begins with a whole record.
        let has_gone = error.kind() == ErrorKind::BrokenPipe;
        if has_gone && matches!(self.target, AccessTarget::File(_)) {
            self.out = None;
        }
        self.drop_batch(!has_gone);
    }

    /// Gives the records up, but for the rest of one that is half written where that is wanted.
    fn drop_batch(&mut self, keeps_rest: bool) {
        let rest = match self.lengths.front() {
            Some(length) if keeps_rest && self.begun > 0 => length - self.begun,
            _ => 0,
        };
        let kept = usize::from(rest > 0);
        AccessTally::add(&self.tally.dropped, self.lengths.len() - kept);
        self.lengths.truncate(kept);
        self.batch.truncate(rest);
        if kept == 0 {
            self.begun = 0;
        }
    }

    /// Opens the file anew; what is written from now on goes there. Where that fails the old one stays.
    fn reopen(&mut self) {
        let AccessTarget::File(path) = self.target.clone() else {
            return;
        };
        match open(&path) {
            Ok(out) => {
                if self.begun > 0 {
                    // Half of it stands in the old file.
                    self.drop_batch(false);
                }
                self.out = Some(out);
                log::info!("the access log {} is open anew", path.display());
            }
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => self.out = None,
            Err(error) => log::error!(
                "the access log {} cannot be opened anew, and stays where it was: {error}",
                path.display()
            ),
        }
    }

    /// Writes what is left, while that goes on, and for no longer than the server's end may take.
    fn finish(mut self, records: &Receiver<Box<[u8]>>) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.gather(records);
            if self.batch.is_empty() {
                return;
            }
            let before = self.batch.len();
            self.write();
            if self.batch.len() == before {
                if Instant::now() >= until {
                    break;
                }
                // Nobody asks any more: this is a pause.
                let _ = self.asked.recv_timeout(RETRY);
            }
        }
        let left = records.try_iter().count() + self.lengths.len();
        AccessTally::add(&self.tally.dropped, left);
    }
}

/// Bytes that are written at once, and one record more.
const BATCH: usize = 64 * 1024;

/// How long records may gather behind those that were just written.
const PAUSE: Duration = Duration::from_millis(5);

/// How soon a target that takes nothing is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// How long the end of the server waits for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Asks that may wait.
const ASKS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(path: &Path) -> (Writer, Sender<Ask>) {
        let (asks, asked) = bounded(ASKS);
        let writer = Writer {
            target: AccessTarget::File(path.to_owned()),
            out: open(path).ok(),
            next_open: Instant::now(),
            asked,
            tally: Arc::default(),
            batch: Vec::new(),
            lengths: VecDeque::new(),
            begun: 0,
            is_failing: false,
        };
        (writer, asks)
    }

    fn add(writer: &mut Writer, record: &[u8]) {
        writer.batch.extend_from_slice(record);
        writer.lengths.push_back(record.len());
    }

    fn counts(writer: &Writer) -> [u64; 3] {
        let tally = &writer.tally;
        [&tally.written, &tally.dropped, &tally.failed].map(|count| count.load(Ordering::Relaxed))
    }

    #[test]
    fn a_full_target_loses_whole_records_and_counts_them() {
        let (mut writer, _asks) = writer(Path::new("/dev/full"));
        for _ in 0..3 {
            add(&mut writer, b"one\n");
        }
        writer.write();
        assert_eq!((counts(&writer), writer.batch.len()), ([0, 3, 1], 0));
    }

    #[test]
    fn the_rest_of_a_half_written_record_comes_first_when_there_is_room_again() {
        let (mut writer, _asks) = writer(Path::new("/dev/null"));
        add(&mut writer, b"first\n");
        add(&mut writer, b"second\n");
        add(&mut writer, b"third\n");
        writer.note_written(8);
        assert_eq!((counts(&writer), writer.begun), ([1, 0, 0], 2));
        writer.fail(&ErrorKind::StorageFull.into());
        assert_eq!(
            (counts(&writer), &writer.batch[..]),
            ([1, 1, 1], &b"cond\n"[..])
        );
        add(&mut writer, b"fourth\n");
        writer.write();
        assert_eq!((counts(&writer), writer.begun), ([3, 1, 1], 0));
        add(&mut writer, b"fifth\n");
        writer.note_written(2);
        writer.fail(&ErrorKind::BrokenPipe.into());
        assert_eq!(counts(&writer), [3, 2, 2]);
        assert!(writer.out.is_none() && writer.batch.is_empty() && writer.begun == 0);
    }
}
