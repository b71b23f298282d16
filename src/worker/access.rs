//! The access log on its way from a worker: one record for each session that somebody's connection has
//! begun, made when it ends, and only where there is such a log.
//!
//! ```text
//!   session ends ── record, one line ──> queue, bounded in records and bytes ──> a writer elsewhere
//!                                          └─ full: counted in the tally, and gone
//! ```
//!
//! A worker never waits here. Residents and the sessions of a listener's datagrams are the server's own
//! and have no record; a session that has handed its connection on has none either, for the one that has
//! the connection now tells the rest.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Worker;
use super::record::Record;
use super::slot::Slot;
use crate::config::LogFormat;
use crate::net::{ConnKey, Network, Stream};
use crate::reactor::SessionKey;
use crate::session::{Cause, Close};

/// A worker's end of the queue.
#[derive(Clone)]
pub struct AccessQueue {
    format: LogFormat,
    records: Sender<Box<[u8]>>,
    tally: Arc<AccessTally>,
}

/// What is known of the access log as a whole; counted by the workers and the writer.
#[derive(Debug, Default)]
pub struct AccessTally {
    /// Records that are written.
    pub written: AtomicU64,
    /// Records that are lost: the queue was full, or what they were for took none.
    pub dropped: AtomicU64,
    /// Times that the writer failed.
    pub failed: AtomicU64,
    /// Bytes in the queue.
    queued: AtomicUsize,
}

impl AccessTally {
    /// Adds to a count.
    pub fn add(count: &AtomicU64, more: usize) {
        count.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// A record has left the queue.
    pub fn took(&self, record: &[u8]) {
        self.queued.fetch_sub(record.len(), Ordering::Relaxed);
    }
}

impl AccessQueue {
    /// A queue, and its end for the writer.
    pub fn new(format: LogFormat, tally: Arc<AccessTally>) -> (Self, Receiver<Box<[u8]>>) {
        let (records, written) = bounded(MOST_RECORDS);
        let queue = Self {
            format,
            records,
            tally,
        };
        (queue, written)
    }

    /// Puts a record into the queue, or counts it as lost.
    pub(super) fn post(&self, record: &Record<'_>) {
        let line = record.line(self.format).into_bytes().into_boxed_slice();
        let (len, tally) = (line.len(), &self.tally);
        let queued = tally.queued.fetch_add(len, Ordering::Relaxed);
        if queued + len > MOST_BYTES || self.records.try_send(line).is_err() {
            tally.queued.fetch_sub(len, Ordering::Relaxed);
            AccessTally::add(&tally.dropped, 1);
        }
    }
}

/// The worker's side: what it notes of a session for its record, and the record itself.
impl<N: Network> Worker<N> {
    /// A session dials somebody.
    pub(super) fn note_dial(&mut self, session: SessionKey, conn: ConnKey, to: SocketAddr) {
        let slot = self.sessions.get_mut(session);
        if let Some(slot) = slot.filter(|_| self.access.is_some()) {
            slot.dial = Some(Box::new(Dial {
                conn: Some(conn),
                to,
                begun: self.now,
                took: None,
            }));
        }
    }

    /// It is connected.
    pub(super) fn note_connected(&mut self, session: SessionKey, conn: ConnKey) {
        let slot = self.sessions.get_mut(session);
        if let Some(dial) = slot.and_then(|slot| slot.dial.as_mut())
            && dial.conn == Some(conn)
        {
            dial.took = Some(self.now.saturating_duration_since(dial.begun));
        }
    }

    /// A session's bytes go by a connection that others may have dialled.
    pub(super) fn note_server(&mut self, session: SessionKey, conn: ConnKey) {
        let slot = self.sessions.get_mut(session);
        if let Some(slot) = slot.filter(|_| self.access.is_some())
            && slot.dial.is_none()
            && let Some(to) = self.conns.get(conn).and_then(|conn| conn.stream.peer())
        {
            slot.dial = Some(Box::new(Dial {
                conn: None,
                to,
                begun: self.now,
                took: None,
            }));
        }
    }

    /// A session that began by itself is given a connection: it is for whoever that is.
    pub(super) fn note_visitor(&mut self, session: SessionKey, conn: ConnKey) {
        let slot = self.sessions.get_mut(session);
        if let Some(slot) = slot.filter(|_| self.access.is_some())
            && slot.peer.is_none()
            && !slot.resides
            && !slot.seated
        {
            slot.peer = self.conns.get(conn).and_then(|conn| conn.stream.peer());
        }
    }

    /// Makes the record of a session that has ended.
    pub(super) fn record(&self, key: SessionKey, slot: &Slot, close: &Close) {
        let Some(access) = &self.access else {
            return;
        };
        if slot.resides || slot.seated || close.is_handed_on() {
            return;
        }
        let mut words = String::new();
        if let Some(session) = &slot.session {
            // It may be what panicked. That was counted when the line for the log was made.
            let describe = AssertUnwindSafe(|| session.describe(&mut words));
            if catch_unwind(describe).is_err() {
                words = String::new();
            }
        }
        let dial = slot.dial.as_ref();
        access.post(&Record {
            at: self.network.unix_time(),
            id: self.handle(key),
            role: self.role_name(slot),
            listener: self.listener_name(slot),
            peer: slot.peer,
            upstream: dial.map(|dial| dial.to),
            moved: self.moved_so_far(slot),
            lasted: self.now.saturating_duration_since(slot.opened),
            connect: dial.and_then(|dial| dial.took),
            close,
            words: &words,
        });
    }

    /// Makes the records of those that are still there when the worker ends.
    pub fn close_books(&self) {
        if self.access.is_none() {
            return;
        }
        let close = Close::own(Cause::Stopping);
        for (key, slot) in self.sessions.iter() {
            self.record(key, slot, &close);
        }
    }
}

/// A connection that a session has dialled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dial {
    /// Which, while it is not decided how it went.
    pub(super) conn: Option<ConnKey>,
    pub(super) to: SocketAddr,
    pub(super) begun: Instant,
    /// How long the connect took, when there was one.
    pub(super) took: Option<Duration>,
}

/// Records that may wait for the writer.
const MOST_RECORDS: usize = 4096;

/// Bytes of them.
const MOST_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let tally = Arc::new(AccessTally::default());
        let (queue, records) = AccessQueue::new(LogFormat::Text, Arc::clone(&tally));
        let close = Close::finished();
        let name = format!(" service={}", "x".repeat(1_000));
        for _ in 0..3_000 {
            queue.post(&record(&name, &close));
        }
        let dropped = tally.dropped.load(Ordering::Relaxed);
        assert!(dropped > 1_000, "bytes are bounded");
        assert_eq!(records.len() as u64 + dropped, 3_000);
        for record in records.try_iter() {
            tally.took(&record);
        }
        assert_eq!(tally.queued.load(Ordering::Relaxed), 0);
        for _ in 0..2 * MOST_RECORDS {
            queue.post(&Record {
                peer: None,
                upstream: None,
                ..record("", &close)
            });
        }
        assert!(records.len() <= MOST_RECORDS, "records are bounded");
    }
}
