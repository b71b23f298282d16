//! The log's way to stderr: a bounded channel and a thread of its own, so that a stderr that
//! nobody reads stops no worker. Who logs uses the `log` macros and knows nothing of this.
//!
//! ```text
//!   any thread: format the line, try to put it in --> channel of 4096 --> writer: stderr, then a pause
//!                          |                                               |
//!                          +-- full: count it as lost ------> "N lines lost" when there is room
//! ```
//!
//! A lone line is written at once. What comes within the pause behind it goes in one write, and wakes
//! nobody: where each connection has its line, waking the writer for it would cost more than the line.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::LevelFilter;

use super::flags::{Command, Usage};
use crate::config::{nearest, plain};
use crate::stats;

/// The running log. Dropping it writes what is still waiting, for at most a second.
pub(super) struct Logging {
    lines: Sender<Message>,
}

/// What the writer gets.
enum Message {
    Line(Box<[u8]>),
    /// Everything before this one is written when the answer comes.
    Flush(Sender<()>),
}

/// Starts the log: at `level`, else as `RUST_LOG` says, else at info. A panic is logged too, on
/// one line like everything else.
pub(super) fn start(level: Option<&str>) -> Logging {
    let (lines, waiting) = bounded(DEPTH);
    let lost = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    let writer = thread::Builder::new().name("log".to_owned());
    // Without the writer the channel fills and every line is counted as lost, nothing worse.
    let _ = writer.spawn(move || write(&waiting, &lost, &mut io::stderr()));
    let line = Line {
        lines: lines.clone(),
        lost: counted,
    };
    let mut builder = env_logger::Builder::new();
    match (level, std::env::var("RUST_LOG")) {
        (Some(level), _) => builder.parse_filters(level),
        (None, Ok(filters)) if !filters.is_empty() => builder.parse_filters(&filters),
        (None, _) => builder.filter_level(LevelFilter::Info),
    };
    builder
        .format(|out, record| {
            let time = out.timestamp_millis();
            let message = plain(&record.args().to_string());
            writeln!(out, "{time} {} {message}", record.level())
        })
        .write_style(env_logger::WriteStyle::Never)
        .target(env_logger::Target::Pipe(Box::new(line)));
    // It fails only when a log runs already, which then stays.
    let _ = builder.try_init();
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    Logging { lines }
}

/// Checks a `--log` value.
pub(super) fn level(command: &Command, level: Option<String>) -> Result<Option<String>, Usage> {
    let Some(level) = level else {
        return Ok(None);
    };
    if LEVELS.contains(&level.as_str()) {
        return Ok(Some(level));
    }
    let hint = match nearest(&level, LEVELS.iter().copied()) {
        Some(hint) => format!("the nearest is {hint}, all are"),
        None => "levels are".to_owned(),
    };
    let (level, levels) = (plain(&level), LEVELS.join(", "));
    let message = format!("--log {level} is no level; {hint} {levels}");
    Err(command.wrong(message))
}

impl Drop for Logging {
    fn drop(&mut self) {
        let (done, is_done) = bounded(1);
        let flush = Message::Flush(done);
        if self.lines.send_timeout(flush, PATIENCE).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

/// Where env_logger writes: one call is one line.
struct Line {
    lines: Sender<Message>,
    lost: Arc<AtomicU64>,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Message::Line(line.into())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            stats::lose_line();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writer's thread: ends when every sender is gone. An output that fails is tried again with
/// the next lines, because a log has nowhere else to say so.
fn write(waiting: &Receiver<Message>, lost: &AtomicU64, out: &mut dyn Write) {
    let mut batch = Batch::default();
    while let Ok(first) = waiting.recv() {
        batch.take(first);
        while batch.lines.len() < BATCH
            && let Ok(next) = waiting.try_recv()
        {
            batch.take(next);
        }
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            // Writing to a vector cannot fail.
            let _ = writeln!(batch.lines, "{count} log lines lost: stderr was too slow");
        }
        let _ = out.write_all(&batch.lines);
        batch.lines.clear();
        if batch.flushes.is_empty() {
            thread::sleep(PAUSE);
        }
        for done in batch.flushes.drain(..) {
            let _ = done.send(());
        }
    }
}

/// What is written at once.
#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    /// Who waits for these lines, and for those before them.
    flushes: Vec<Sender<()>>,
}

impl Batch {
    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => self.lines.extend_from_slice(&line),
            Message::Flush(done) => self.flushes.push(done),
        }
    }
}

/// Lines that may wait for a slow stderr.
const DEPTH: usize = 4096;

/// Bytes that are written at once, and one line more.
const BATCH: usize = 64 * 1024;

/// How long lines may gather behind those that were just written: short enough for a reader's eye, and for
/// the channel to hold what every core could log meanwhile.
const PAUSE: Duration = Duration::from_millis(5);

/// How long the end of the program waits for a stuck stderr.
const PATIENCE: Duration = Duration::from_millis(500);

/// Every level, from the least.
pub(super) const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_channel_loses_lines_and_says_how_many() {
        let (lines, waiting) = bounded(2);
        let lost = Arc::new(AtomicU64::new(0));
        let mut line = Line {
            lines,
            lost: Arc::clone(&lost),
        };
        for _ in 0..5 {
            line.write_all(b"x\n").unwrap();
        }
        drop(line);
        let mut out = Vec::new();
        write(&waiting, &lost, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "x\nx\n3 log lines lost: stderr was too slow\n"
        );
    }

    #[test]
    fn a_flush_is_answered_when_all_before_it_is_written() {
        let (lines, waiting) = bounded(2);
        let (done, is_done) = bounded(1);
        lines.send(Message::Line(b"x\n".as_slice().into())).unwrap();
        lines.send(Message::Flush(done)).unwrap();
        drop(lines);
        let mut out = Vec::new();
        write(&waiting, &AtomicU64::new(0), &mut out);
        assert_eq!(
            (out.as_slice(), is_done.recv()),
            (b"x\n".as_slice(), Ok(()))
        );
    }
}
