//! The visitors of one node: connections to its public address, whose frames go to its main
//! connection, whole and as they are.
//!
//! ```text
//!   visitor's ring ──(whole frames, one run)──> main connection's queue, 64 KiB for all of them
//!     │    ^                                       │
//!     │    └─ no room: not read, stands in line <──┘ until half of it is free
//!     └─(a frame over 128 KiB)──> gathered apart, out of the core's memory for such
//! ```
//!
//! A visitor is told nothing, not by a byte. What it sends wrong, or not to its end, concerns it
//! alone.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::Rules;
use super::desk::{Desk, FrameMemory};
use super::incoming::{Incoming, Next};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::runs::{QUANTUM, Run, room};
use crate::session::Cx;
use crate::stats::Metric;
use crate::wire::WireError;

/// All visitors of one node.
#[derive(Default)]
pub(super) struct Visitors {
    /// Bound: `max_visitors`.
    present: HashMap<ConnKey, Visitor>,
    /// Bytes of long frames that wait to leave on the main connection.
    queued: usize,
    /// Those, and those that are being gathered.
    held: usize,
    /// What was passed on.
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

struct Visitor {
    peer: SocketAddr,
    incoming: Incoming,
    /// When it last sent anything.
    heard: Instant,
    /// It is read no further, for no fault of its own.
    held: bool,
}

impl Visitors {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.present.len()
    }

    /// True when nobody is there.
    pub(super) fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Somebody comes; when there are too many already, it is closed again.
    pub(super) fn enter(
        &mut self,
        conn: ConnKey,
        peer: SocketAddr,
        rules: &Rules,
        cx: &mut Cx<'_>,
    ) -> bool {
        if self.present.len() >= rules.max_visitors {
            cx.count(Metric::Shed, 1);
            cx.close(conn);
            return false;
        }
        let visitor = Visitor {
            peer,
            incoming: Incoming::default(),
            heard: cx.now,
            held: false,
        };
        self.present.insert(conn, visitor);
        true
    }

    /// Passes on what a visitor has sent. It may be closed for it.
    pub(super) fn read(
        &mut self,
        (conn, main): (ConnKey, ConnKey),
        rx: &mut Ring,
        last: bool,
        desk: &mut Desk,
        cx: &mut Cx<'_>,
    ) {
        let Some(visitor) = self.present.get_mut(&conn) else {
            return rx.consume(rx.len()); // It was closed before it was read.
        };
        let mut reading = Reading {
            conn,
            main,
            rules: &desk.rules,
            memory: &mut desk.memory,
            held: &mut self.held,
            run: Run::default(),
            frames: 0,
            bytes: 0,
            long: 0,
        };
        let outcome = reading.all(&mut visitor.incoming, rx, cx);
        reading.flush(rx, cx);
        let (frames, bytes, long) = (reading.frames, reading.bytes, reading.long);
        cx.count(Metric::Forwarded, frames);
        self.frames += frames;
        self.bytes += bytes;
        self.queued += long;
        visitor.heard = cx.now;
        visitor.held = outcome == Ok(true);
        match outcome {
            Ok(true) => visitor.incoming.rest(),
            Ok(false) if last && visitor.incoming.is_partial(rx) => {
                self.close(conn, &"the stream ended inside a frame", desk, cx);
            }
            Ok(false) => visitor.incoming.note(rx, frames > 0, cx.now, &desk.rules),
            Err(error) => {
                cx.count(Metric::Rejected, 1);
                self.close(conn, &error, desk, cx);
            }
        }
    }

    /// When the visitor must have sent something.
    pub(super) fn due(&self, conn: ConnKey, rules: &Rules) -> Option<Instant> {
        Some(self.present.get(&conn)?.due(rules))
    }

    /// Closes a visitor's connection.
    pub(super) fn close(
        &mut self,
        conn: ConnKey,
        why: &dyn fmt::Display,
        desk: &mut Desk,
        cx: &mut Cx<'_>,
    ) {
        if let Some(visitor) = self.present.get(&conn) {
            let (handle, peer) = (cx.handle, visitor.peer);
            log::debug!("node {handle} visitor={peer} closed: {why}");
            cx.close(conn);
            self.forget(conn, desk, cx);
        }
    }

    /// A visitor's connection is closed.
    pub(super) fn forget(&mut self, conn: ConnKey, desk: &mut Desk, cx: &mut Cx<'_>) {
        if let Some(mut visitor) = self.present.remove(&conn) {
            self.held -= visitor.incoming.drop_all(conn, &mut desk.memory, cx);
        }
    }

    /// Closes those who are late, and tells when the next one may be.
    pub(super) fn sweep(&mut self, desk: &mut Desk, cx: &mut Cx<'_>) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut late = Vec::new();
        for (&conn, visitor) in &self.present {
            let due = match visitor.held {
                true => cx.now + desk.rules.idle_timeout,
                false => visitor.due(&desk.rules),
            };
            match due <= cx.now {
                true => late.push(conn),
                false => next = Some(next.map_or(due, |next| next.min(due))),
            }
        }
        for conn in late {
            self.close(conn, &"it took too long", desk, cx);
        }
        next
    }

    /// The main connection's queue is short: what long frames had taken is free again.
    pub(super) fn drained(&mut self, memory: &mut FrameMemory, cx: &mut Cx<'_>) {
        let queued = std::mem::take(&mut self.queued);
        if queued > 0 {
            self.held -= queued;
            memory.give(queued, cx);
        }
    }

    /// The node goes: nothing of its visitors is left.
    pub(super) fn leave(&mut self, desk: &mut Desk, cx: &mut Cx<'_>) {
        self.drained(&mut desk.memory, cx);
        for (conn, mut visitor) in self.present.drain() {
            self.held -= visitor.incoming.drop_all(conn, &mut desk.memory, cx);
        }
    }
}

impl Visitor {
    fn due(&self, rules: &Rules) -> Instant {
        let idle = self.heard + rules.idle_timeout;
        self.incoming.due().unwrap_or(idle)
    }
}

/// One call's work.
struct Reading<'d> {
    conn: ConnKey,
    main: ConnKey,
    rules: &'d Rules,
    memory: &'d mut FrameMemory,
    /// What the node's visitors hold of it.
    held: &'d mut usize,
    run: Run<ConnKey>,
    frames: u64,
    bytes: u64,
    /// Bytes of long frames that were queued.
    long: usize,
}

impl Reading<'_> {
    /// Goes through the frames; true when it has to wait before it can go on.
    fn all(
        &mut self,
        incoming: &mut Incoming,
        rx: &mut Ring,
        cx: &mut Cx<'_>,
    ) -> Result<bool, WireError> {
        loop {
            if let Some(whole) = incoming.gather(rx) {
                if !whole {
                    return Ok(false);
                }
                if room(self.conn, self.main, QUANTUM, cx).is_none() {
                    return Ok(true);
                }
                let frame = incoming.take(rx);
                cx.send(self.main, &frame);
                self.long += frame.len();
                self.count(frame.len());
                continue;
            }
            let held = match incoming.next(self.conn, self.run.len(), rx, self.rules, cx)? {
                Next::Part => return Ok(false),
                Next::Frame(len) => self.add(len, rx, cx),
                Next::Long(len) => {
                    self.flush(rx, cx);
                    let taken = self.memory.take(self.conn, len, *self.held);
                    match taken {
                        true => {
                            *self.held += len;
                            incoming.begin(len);
                        }
                        false => cx.pause(self.conn),
                    }
                    !taken
                }
            };
            if held {
                return Ok(true);
            }
        }
    }

    /// Adds a frame to the run, or begins another; true when there is no room for it.
    fn add(&mut self, len: usize, rx: &mut Ring, cx: &mut Cx<'_>) -> bool {
        if !self.run.is_open_to(&self.main) {
            self.flush(rx, cx);
            let Some(room) = room(self.conn, self.main, QUANTUM, cx) else {
                return true;
            };
            self.run.open(self.main, room);
        }
        self.count(len);
        if self.run.add(len) {
            self.flush(rx, cx);
        }
        false
    }

    /// Passes the run on.
    fn flush(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) {
        if let Some((main, len)) = self.run.take() {
            cx.forward(rx, main, len);
        }
    }

    fn count(&mut self, len: usize) {
        self.frames += 1;
        self.bytes += len as u64;
    }
}
