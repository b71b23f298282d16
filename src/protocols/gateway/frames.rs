//! An endpoint's frames, one after the other: data to the other end, commands to the hall.
//!
//! Consecutive frames for one connection are passed on as one run of bytes, with one copy. A frame
//! is passed on when it is whole, so that nobody's half frame holds up a link that others share.

use super::hall::{Hall, Route, Step};
use super::wire::{Command, Dialect, HEAD, Head, length};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::reactor::Handle;
use crate::runs::{QUANTUM, Run, peek, room};
use crate::session::{Cause, Close, Cx};
use crate::stats::Metric;
use crate::wire::WireError;

/// How reading went.
pub(super) struct Served {
    /// At least one whole frame was taken.
    pub(super) frames: bool,
    /// The endpoint is held: it is called again when what it waits for has come.
    pub(super) held: bool,
}

/// Takes all whole frames that may be taken now out of `rx`.
///
/// An error is the peer's: a length out of bounds, an unknown command, or one that is not an
/// endpoint's to give.
pub(super) fn serve(
    hall: &mut Hall,
    seat: usize,
    rx: &mut Ring,
    cx: &mut Cx<'_>,
) -> Result<Served, Close> {
    let mut reading = Reading {
        own: hall.endpoint(seat).conn,
        max_packet: hall.rules.max_packet,
        hall,
        seat,
        run: Run::default(),
        strays: Vec::new(),
        frames: 0,
    };
    let outcome = reading.all(rx, cx);
    reading.flush(rx, cx);
    cx.count(Metric::Forwarded, reading.frames);
    Ok(Served {
        frames: reading.frames > 0,
        held: outcome?,
    })
}

/// One call's work.
struct Reading<'h> {
    hall: &'h mut Hall,
    seat: usize,
    own: ConnKey,
    max_packet: u32,
    run: Run<Target>,
    /// Ids of no connection that were answered in this call. Bound: [`STRAYS`].
    strays: Vec<u32>,
    frames: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Near(ConnKey),
    Far(Handle),
}

impl Reading<'_> {
    /// Goes through the frames; true when it has to wait before it can go on.
    fn all(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<bool, Close> {
        while let Some(head) = self.head(rx)? {
            let len = head.frame_len();
            if rx.len() - self.run.len() < len {
                return Ok(false);
            }
            let held = match head.is_command() {
                true => {
                    self.flush(rx, cx);
                    self.command(head, rx, cx)?
                }
                false => self.data(head.conn, len, rx, cx),
            };
            if held {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The head of the frame behind the run. A bad length is known by its four bytes.
    fn head(&self, rx: &Ring) -> Result<Option<Head>, Close> {
        if let Some(head) = peek::<HEAD>(rx, self.run.len()) {
            return Ok(Some(Head::decode(&head, self.max_packet)?));
        }
        if let Some(bytes) = peek(rx, self.run.len()) {
            length(&bytes, self.max_packet)?;
        }
        Ok(None)
    }

    /// Adds a frame to the run, or begins another; true when the receiver has no room.
    fn data(&mut self, id: u32, len: usize, rx: &mut Ring, cx: &mut Cx<'_>) -> bool {
        match self.hall.route(self.seat, id, cx) {
            Route::Near(conn, most) => {
                if !self.run.is_open_to(&Target::Near(conn)) {
                    self.flush(rx, cx);
                    let Some(room) = room(self.own, conn, most, cx) else {
                        return true;
                    };
                    self.run.open(Target::Near(conn), room);
                }
            }
            Route::Far(to, credit) => {
                if !self.run.is_open_to(&Target::Far(to)) {
                    self.flush(rx, cx);
                    if !credit {
                        cx.pause(self.own);
                        return true;
                    }
                    self.run.open(Target::Far(to), QUANTUM);
                }
            }
            Route::Nowhere => {
                self.flush(rx, cx);
                if self.hall.is_deaf(self.seat, cx) {
                    return true;
                }
                self.answer_stray(id, cx);
                self.consume(len, rx);
                return false;
            }
        }
        self.frames += 1;
        if self.run.add(len) {
            self.flush(rx, cx);
        }
        false
    }

    /// Passes the run on.
    fn flush(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) {
        match self.run.take() {
            Some((Target::Near(conn), run)) => cx.forward(rx, conn, run),
            Some((Target::Far(to), run)) => {
                let mut frames = Vec::with_capacity(run);
                rx.take_into(run, &mut frames);
                self.hall.ship(self.seat, to, frames, cx);
            }
            None => {}
        }
    }

    /// Drops a frame that is dealt with.
    fn consume(&mut self, len: usize, rx: &mut Ring) {
        self.frames += 1;
        rx.consume(len);
    }

    /// Tells the sender once for each call that it has no such connection.
    fn answer_stray(&mut self, id: u32, cx: &mut Cx<'_>) {
        cx.count(Metric::Ignored, 1);
        if self.strays.contains(&id) {
            return;
        }
        if self.strays.len() < STRAYS {
            self.strays.push(id);
        }
        self.hall.say(self.seat, Command::Close { conn: id }, cx);
    }

    /// Does one command; true when it must be done again later.
    fn command(&mut self, head: Head, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<bool, Close> {
        let mut payload = [0; ARGUMENTS];
        let most = head.payload_len().min(ARGUMENTS);
        let payload = &mut payload[..most];
        rx.copy_to(HEAD, payload);
        let dialect = self.dialect(head.length, payload)?;
        let command = dialect.decode(payload)?;
        if !command.is_from_endpoint(dialect) {
            return Err(unfit(payload));
        }
        if self.hall.is_deaf(self.seat, cx) {
            return Ok(true);
        }
        let step = match command {
            Command::Dial { conn, remote } => self.hall.dial(self.seat, (conn, remote), cx),
            Command::Close { conn } => self.hall.close(self.seat, conn, cx),
            Command::New => self.open(cx),
            // A gateway of the document's dialect asks, and does not answer.
            Command::Ping if dialect == Dialect::Document => Step::Done,
            Command::Ping => {
                self.hall.say(self.seat, Command::Ping, cx);
                Step::Done
            }
            _ => return Err(unfit(payload)),
        };
        match step {
            Step::Done => self.consume(head.frame_len(), rx),
            Step::AwaitRoom(of, until) => cx.await_room(self.own, of, until),
            Step::AwaitAnswer => {
                self.consume(head.frame_len(), rx);
                cx.pause(self.own);
            }
        }
        Ok(step != Step::Done)
    }

    /// What the sender speaks; its first command tells, where that is not configured.
    fn dialect(&mut self, length: u32, payload: &[u8]) -> Result<Dialect, Close> {
        if let Some(dialect) = self.hall.endpoint(self.seat).dialect {
            return Ok(dialect);
        }
        let told = Dialect::detect(length, payload).ok_or_else(|| unfit(payload))?;
        self.hall.learn(self.seat, told);
        Ok(told)
    }

    fn open(&mut self, cx: &mut Cx<'_>) -> Step {
        match self.hall.open(self.seat) {
            Some(conn) => self.hall.say(self.seat, Command::Open { conn }, cx),
            // Four thousand million ids are alive. The word for "no" is what is left to say.
            None => self
                .hall
                .say(self.seat, Command::Refuse { conn: 0, remote: 0 }, cx),
        }
        Step::Done
    }
}

/// A command that is unknown, or not the sender's to give.
fn unfit(payload: &[u8]) -> Close {
    Close::downstream(Cause::Wire(match payload.first() {
        Some(&kind) => WireError::BadValue {
            field: "command",
            value: u64::from(kind),
        },
        None => WireError::Truncated {
            field: "command",
            need: 1,
            have: 0,
        },
    }))
}

/// The longest command: a type and two ids.
const ARGUMENTS: usize = 9;

/// Ids of no connection that are remembered as answered; a peer that sends more of them in one go
/// hears of some twice.
const STRAYS: usize = 64;
