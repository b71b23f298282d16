//! The payload's seal on its way: a plain connection and a sealed one, joined.
//!
//! A relay moves bytes that no protocol looks at; between a payload key's two ends they change, so a
//! session moves them, record by record:
//!
//! ```text
//!   plain ── up to 16 KiB ──> seal ──> sealed         end of stream ──> close record, FIN
//!   plain <── open <── whole records ── sealed        close record  ──> FIN
//!                                                     FIN without it ──> reset: it was cut short
//! ```
//!
//! Bound: [`QUEUE`] bytes and one record wait for each side; then the other is read no further.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::wire::{MAX_RECORD, Opened, Opener, Sealer, record_len};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::session::{Cause, Close, Cx, Event, Silence};

/// Both connections, and their seals.
pub(super) struct Sealing {
    sealed: ConnKey,
    plain: ConnKey,
    sealer: Sealer,
    opener: Opener,
    /// Which of the two came to us, for the log: the sealed one at a hop, the plain one at a client.
    sealed_is_downstream: bool,
    silence: Silence,
    active: Instant,
    /// Payload that was passed on from the sealed side, and to it.
    moved: [u64; 2],
    /// The end was passed on from the sealed side, and to it.
    ended: [bool; 2],
}

impl Sealing {
    /// Joins a downstream connection whose payload is sealed and a plain upstream one.
    pub(super) fn start(
        sealed: ConnKey,
        plain: ConnKey,
        seals: (Sealer, Opener),
        silence: Silence,
        cx: &mut Cx<'_>,
    ) -> Self {
        Self::join(sealed, plain, true, seals, silence, cx)
    }

    /// Joins a plain downstream connection and an upstream one whose payload is sealed.
    pub(super) fn start_as_client(
        plain: ConnKey,
        sealed: ConnKey,
        seals: (Sealer, Opener),
        silence: Silence,
        cx: &mut Cx<'_>,
    ) -> Self {
        Self::join(sealed, plain, false, seals, silence, cx)
    }

    fn join(
        sealed: ConnKey,
        plain: ConnKey,
        sealed_is_downstream: bool,
        (sealer, opener): (Sealer, Opener),
        silence: Silence,
        cx: &mut Cx<'_>,
    ) -> Self {
        cx.resume(sealed);
        cx.resume(plain);
        cx.arm(IDLE, silence.idle);
        Self {
            sealed,
            plain,
            sealer,
            opener,
            sealed_is_downstream,
            silence,
            active: cx.now,
            moved: [0; 2],
            ended: [false; 2],
        }
    }

    /// Takes an event of the session, all of which are for it from now on.
    pub(super) fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Data { conn, rx, last } if conn == self.sealed => self.open(rx, last, cx),
            Event::Data { rx, .. } => {
                self.seal(rx, cx);
                Ok(())
            }
            Event::Eof { conn } if conn == self.sealed => match self.opener.is_closed() {
                true => Ok(()),
                false => self.fail(Cause::Truncated, cx),
            },
            Event::Eof { .. } => {
                let mut record = Vec::new();
                self.sealer.close(&mut record);
                cx.send(self.sealed, &record);
                self.end(TO_SEALED, cx)
            }
            Event::Lost { conn, why } => {
                // The other end is told as a relay would: by a reset.
                let other = if conn == self.sealed {
                    self.plain
                } else {
                    self.sealed
                };
                cx.reset(other);
                Err(self.close(conn, Cause::Io("connection", why)))
            }
            Event::Timer { .. } => self.check_idle(cx),
            _ => Ok(()),
        }
    }

    /// Opens whole records and passes their payload on.
    fn open(&mut self, rx: &mut Ring, last: bool, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.active = cx.now;
        let mut record = Vec::new();
        while !rx.is_empty() {
            let mut head = [0; 2];
            let known = rx.copy_to(0, &mut head);
            let len = match record_len(&head[..known]) {
                Ok(Some(len)) if len <= rx.len() => len,
                Ok(_) if last => return self.fail(Cause::Truncated, cx),
                Ok(_) => return Ok(()),
                Err(error) => return self.fail(Cause::Wire(error), cx),
            };
            if cx.room(self.plain, QUEUE) == 0 {
                cx.await_room(self.sealed, self.plain, QUEUE / 2);
                return Ok(());
            }
            record.clear();
            rx.take_into(len, &mut record);
            match self.opener.open(&mut record) {
                Ok(Opened::Payload(payload)) => {
                    self.moved[0] += payload.len() as u64;
                    cx.send(self.plain, payload);
                }
                Ok(Opened::Close) => {
                    if !rx.is_empty() {
                        return self.fail(Cause::Denied("bytes behind the payload's end"), cx);
                    }
                    return self.end(FROM_SEALED, cx);
                }
                Err(_) => return self.fail(Cause::Denied("the payload's seal is wrong"), cx),
            }
        }
        Ok(())
    }

    /// Seals what came from the plain side.
    fn seal(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) {
        self.active = cx.now;
        let (mut chunk, mut records) = (Vec::new(), Vec::new());
        while !rx.is_empty() {
            if cx.room(self.sealed, QUEUE) == 0 {
                return cx.await_room(self.plain, self.sealed, QUEUE / 2);
            }
            chunk.clear();
            records.clear();
            rx.take_into(rx.len().min(MAX_RECORD), &mut chunk);
            self.sealer.seal(&mut records, &chunk);
            self.moved[1] += chunk.len() as u64;
            cx.send(self.sealed, &records);
        }
    }

    /// Seals words of our own for the sealed side, to be called before anything came from the plain one.
    pub(super) fn say(&mut self, words: &[u8], cx: &mut Cx<'_>) {
        let mut records = Vec::new();
        self.sealer.seal(&mut records, words);
        cx.send(self.sealed, &records);
    }

    /// One direction is over.
    fn end(&mut self, way: usize, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.active = cx.now;
        self.ended[way] = true;
        cx.finish([self.plain, self.sealed][way]);
        if self.ended == [true; 2] {
            return Err(Close::finished());
        }
        cx.arm(IDLE, self.silence.half_closed);
        Ok(())
    }

    /// What came is not what was sent: both ends learn that by a reset.
    fn fail(&self, cause: Cause, cx: &mut Cx<'_>) -> Result<(), Close> {
        cx.reset(self.plain);
        cx.reset(self.sealed);
        Err(self.close(self.sealed, cause))
    }

    fn close(&self, of: ConnKey, cause: Cause) -> Close {
        match (of == self.sealed) == self.sealed_is_downstream {
            true => Close::downstream(cause),
            false => Close::upstream(cause),
        }
    }

    /// The timer is armed once for each wait and not for each byte.
    fn check_idle(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let within = match self.ended {
            [false, false] => self.silence.idle,
            _ => self.silence.half_closed,
        };
        let silent = cx.now.saturating_duration_since(self.active);
        match within.checked_sub(silent).filter(|left| !left.is_zero()) {
            Some(left) => cx.arm(IDLE, left.max(Duration::from_millis(1))),
            None => return Err(Close::own(Cause::Deadline("idle"))),
        }
        Ok(())
    }

    /// Says how many bytes of payload went each way, seen from who came.
    pub(super) fn describe(&self, out: &mut String) {
        let [from_sealed, to_sealed] = self.moved;
        let (up, down) = match self.sealed_is_downstream {
            true => (from_sealed, to_sealed),
            false => (to_sealed, from_sealed),
        };
        // Writing to a string cannot fail.
        let _ = write!(out, " up={up} down={down}");
    }
}

const FROM_SEALED: usize = 0;
const TO_SEALED: usize = 1;

/// The session's timer.
const IDLE: u8 = 0;

/// Bytes that wait for one side before the other is read no further.
const QUEUE: usize = 64 * 1024;
