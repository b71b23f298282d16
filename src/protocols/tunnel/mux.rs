//! All visitors of a service on two connections, the same on both sides: frames out on one, frames in
//! on the other, and grants the other way on each.
//!
//! ```text
//!   guest's ring ── within its credit ──> outgoing     guest: a visitor's connection at the server,
//!   guest's queue <── bounded by its window ── incoming       one to the inside service at the client
//! ```
//!
//! A guest has a session of its own on the same core, which owns its connection. That session hands
//! over here what its connection has sent; what comes for it is put into its queue from here, and the
//! rest is told to it by [`News`]. The trunk is the session that owns the two connections.
//!
//! The incoming connection is always read: what is for a slow guest waits in that guest's own queue,
//! which its window bounds, so that it holds up nobody. Bounds: [`WINDOW`](super::wire::WINDOW) for
//! each guest and direction, [`MOST`] and a frame on the outgoing connection.
//!
//! Frames are copied by both ends, which is cheap for what is small. A guest with much to carry is
//! moved, where the client can do so, to a data connection of its own, whose bytes nobody looks at:
//!
//! ```text
//!   server: ... Data, Data, Move+ticket ──>         the last of its frames; it reads its guest no further
//!   client: data connection, ticket ──> server: CONFIRM on it
//!   client:    <── ... Data, Moved                  the last of its frames; both ends relay
//!              <── ... Stay                         or there is no such connection: frames as before
//! ```
//!
//! Neither end says anything of the stream on a connection that the other has not, so none that comes
//! to nothing loses a byte.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::wire::{
    Body, Frame, Grant, MAX_RAW, MUX_HEAD, Mark, MuxHead, Receiving, Sending, TICKET, Ticket,
    Transport, Uuid, Visitor,
};
use crate::buffer::Ring;
use crate::net::{ConnKey, Pace};
use crate::reactor::Handle;
use crate::runs::{self, QUANTUM};
use crate::session::{Cause, Close, Cx, Mail};
use crate::stats::Metric;

/// The guests of one service, shared by the trunk and their sessions.
pub(super) type Shared = Rc<RefCell<Mux>>;

/// What the trunk tells a guest's session.
pub(super) enum News {
    /// The other end of its stream has come; true when both have.
    Ended(bool),
    /// The peer has reset it, and knows it no more.
    Reset,
    /// It carries much.
    Bulky,
    /// To the client: the server goes on on a data connection with this ticket.
    Move(Ticket),
    /// To the server: the client does, too.
    Moved,
    /// To the server: the client has no such connection.
    Stay,
    /// The two connections are lost.
    Gone,
    /// Not all that has come may go to its connection yet.
    Held,
}

/// Which end this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Server,
    Client,
}

/// The guests of one service.
pub(super) struct Mux {
    end: End,
    pub(super) outgoing: Option<ConnKey>,
    pub(super) incoming: Option<ConnKey>,
    /// Whom to tell when the last guest has left; set when no more are to come.
    pub(super) closing: Option<Handle>,
    guests: HashMap<Uuid, Guest>,
    /// Whose payload comes now, and how much of it.
    part: Option<(Uuid, usize)>,
    /// Bytes out and in, for the log.
    pub(super) moved: [u64; 2],
}

struct Guest {
    who: Handle,
    /// None while the inside service is being dialled.
    conn: Option<ConnKey>,
    sending: Sending,
    receiving: Receiving,
    /// What has come before there was a connection, or before its time; within the window.
    early: Vec<u8>,
    /// How fast what has come goes to its connection, where that is limited.
    pace: Option<Pace>,
    /// Its session knows that something is left for later.
    waits: bool,
    /// The end of the stream was sent, and has come.
    ends: [bool; 2],
    /// Its last frame was sent, and has come: the rest goes by a data connection.
    moves: [bool; 2],
    /// The other end knows of it.
    known: bool,
    /// Bytes from its connection and to it.
    passed: [u64; 2],
    used: Instant,
    /// Since when the bytes are counted that make it bulky, and how many they are; none once that
    /// was told.
    burst: Option<(Instant, usize)>,
}

impl Mux {
    pub(super) fn new(end: End) -> Shared {
        Rc::new(RefCell::new(Self {
            end,
            outgoing: None,
            incoming: None,
            closing: None,
            guests: HashMap::new(),
            part: None,
            moved: [0; 2],
        }))
    }

    /// Whether frames can go both ways.
    pub(super) fn is_joined(&self) -> bool {
        self.outgoing.is_some() && self.incoming.is_some()
    }

    /// Whether it is one of the two connections.
    pub(super) fn is_line(&self, conn: ConnKey) -> bool {
        [self.outgoing, self.incoming].contains(&Some(conn))
    }

    pub(super) fn len(&self) -> usize {
        self.guests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }

    /// Whether there is such a guest.
    pub(super) fn has(&self, uuid: Uuid) -> bool {
        self.guests.contains_key(&uuid)
    }

    /// Whether the other end knows of a guest.
    pub(super) fn is_known(&self, uuid: Uuid) -> bool {
        let guest = self.guests.get(&uuid);
        guest.is_some_and(|guest| guest.known)
    }

    /// A new guest, served by this session.
    pub(super) fn enter(&mut self, uuid: Uuid, who: Handle, now: Instant) {
        let guest = Guest {
            who,
            conn: None,
            sending: Sending::new(),
            receiving: Receiving::new(),
            early: Vec::new(),
            pace: None,
            waits: false,
            ends: [false; 2],
            moves: [false; 2],
            known: self.end == End::Client,
            passed: [0; 2],
            used: now,
            burst: Some((now, 0)),
        };
        self.guests.insert(uuid, guest);
    }

    /// A guest's connection is there. With a pace, all leaves by [`Mux::pour`], and the end after it.
    pub(super) fn connect(
        &mut self,
        uuid: Uuid,
        conn: ConnKey,
        pace: Option<Pace>,
        cx: &mut Cx<'_>,
    ) {
        let Some(guest) = self.guests.get_mut(&uuid) else {
            return;
        };
        guest.conn = Some(conn);
        guest.pace = pace;
        if guest.pace.is_none() {
            cx.send(conn, &std::mem::take(&mut guest.early));
            if guest.ends[1] {
                cx.finish(conn);
            }
        }
        self.grant(uuid, cx);
    }

    /// Whether something that has come for a guest waits for its time.
    pub(super) fn is_held(&self, uuid: Uuid) -> bool {
        let guest = self.guests.get(&uuid);
        guest.is_some_and(|guest| guest.pace.is_some() && !guest.early.is_empty())
    }

    /// Sends a guest what its pace allows of what has come; when to go on, where something is left.
    pub(super) fn pour(&mut self, uuid: Uuid, cx: &mut Cx<'_>) -> Option<Instant> {
        let guest = self.guests.get_mut(&uuid)?;
        let (conn, pace) = (guest.conn?, guest.pace.as_mut()?);
        let (mut sent, mut due) = (0, None);
        while due.is_none() && sent < guest.early.len() {
            match pace.take(cx.now) {
                Err(later) => due = Some(later),
                Ok(lent) => {
                    let count = lent.min(guest.early.len() - sent);
                    cx.send(conn, &guest.early[sent..sent + count]);
                    pace.settle(count, true, cx.now);
                    sent += count;
                }
            }
        }
        if due.is_none() {
            pace.settle(0, false, cx.now);
        }
        if sent > 0 {
            guest.early.drain(..sent);
            guest.used = cx.now;
        }
        guest.waits = due.is_some();
        self.grant(uuid, cx);
        due
    }

    /// Both connections are there: guests that have waited go on.
    pub(super) fn go_on(&mut self, cx: &mut Cx<'_>) {
        let conns = self.guests.values().filter_map(|guest| guest.conn);
        conns.for_each(|conn| cx.resume(conn));
    }

    /// Sends a head.
    pub(super) fn say(&self, uuid: Uuid, mark: Mark, cx: &mut Cx<'_>) {
        if let Some(outgoing) = self.outgoing {
            cx.send(outgoing, &MuxHead { uuid, mark }.encode());
        }
    }

    fn say_lazily(&self, uuid: Uuid, mark: Mark, cx: &mut Cx<'_>) {
        if let Some(outgoing) = self.outgoing {
            cx.send_lazily(outgoing, &MuxHead { uuid, mark }.encode());
        }
    }

    fn say_whole(&self, uuid: Uuid, body: Body<'_>, cx: &mut Cx<'_>) {
        if let Some(outgoing) = self.outgoing {
            let mut bytes = Vec::with_capacity(MUX_HEAD + TICKET);
            Frame { uuid, body }.encode(&mut bytes);
            cx.send(outgoing, &bytes);
        }
    }

    /// Announces a guest.
    pub(super) fn announce(&mut self, uuid: Uuid, visitor: Visitor, cx: &mut Cx<'_>) {
        self.say_whole(uuid, Body::Open(visitor), cx);
        let guest = self.guests.get_mut(&uuid);
        let ended = guest.is_some_and(|guest| {
            guest.known = true;
            guest.ends[0]
        });
        // It had nothing to say, and ended before there was anybody to be told.
        if ended {
            self.say(uuid, Mark::End, cx);
        }
    }

    /// Reads what a guest's connection has sent; true when the guest has turned out to carry much.
    pub(super) fn read_guest(
        &mut self,
        uuid: Uuid,
        conn: ConnKey,
        rx: &mut Ring,
        cx: &mut Cx<'_>,
    ) -> bool {
        let lines = self.outgoing.filter(|_| self.incoming.is_some());
        let guest = self.guests.get_mut(&uuid).filter(|guest| !guest.moves[0]);
        let (Some(outgoing), Some(guest)) = (lines, guest) else {
            cx.pause(conn);
            return false;
        };
        let mut read = 0;
        while !rx.is_empty() {
            if guest.sending.left() == 0 {
                cx.pause(conn); // A grant resumes it.
                break;
            }
            let Some(room) = runs::room(conn, outgoing, MOST, cx) else {
                break;
            };
            let count = guest.sending.take(rx.len().min(room).min(MAX_RAW));
            let mark = Mark::Data(count as u32);
            cx.send(outgoing, &MuxHead { uuid, mark }.encode());
            cx.forward(rx, outgoing, count);
            cx.count(Metric::Forwarded, 1);
            read += count;
        }
        guest.passed[0] += read as u64;
        self.moved[0] += read as u64;
        guest.is_now_bulky(read, cx.now)
    }

    /// A guest's connection has sent its last byte; true when both ways have ended.
    pub(super) fn end_guest(&mut self, uuid: Uuid, cx: &mut Cx<'_>) -> bool {
        let Some(guest) = self.guests.get_mut(&uuid).filter(|guest| !guest.moves[0]) else {
            return false;
        };
        guest.ends[0] = true;
        let (over, known) = (guest.ends[1], guest.known);
        match known {
            // A service that has said its last word waits for nothing: its connection may close a moment
            // later, along with the next frames.
            true if over && self.end == End::Server => self.say_lazily(uuid, Mark::End, cx),
            true => self.say(uuid, Mark::End, cx),
            false => {}
        }
        over
    }

    /// A guest's last frame: what else its connection sends goes by the data connection of a ticket,
    /// which the server tells.
    pub(super) fn move_guest(&mut self, uuid: Uuid, ticket: Option<Ticket>, cx: &mut Cx<'_>) {
        if let Some(guest) = self.guests.get_mut(&uuid) {
            guest.moves[0] = true;
        }
        let body = ticket.map_or(Body::Moved, Body::Move);
        self.say_whole(uuid, body, cx);
    }

    /// The client has no data connection for a guest that the server would move: all goes on as before.
    pub(super) fn stay(&mut self, uuid: Uuid, cx: &mut Cx<'_>) {
        if let Some(guest) = self.guests.get_mut(&uuid) {
            guest.moves[1] = false;
        }
        self.say(uuid, Mark::Stay, cx);
    }

    /// Forgets a guest, and says how many bytes have passed from its connection and to it.
    pub(super) fn forget(&mut self, uuid: Uuid, cx: &mut Cx<'_>) -> [u64; 2] {
        let guest = self.guests.remove(&uuid);
        if self.guests.is_empty()
            && let Some(trunk) = self.closing
        {
            cx.post(trunk, Mail::new(News::Gone));
        }
        guest.map_or([0; 2], |guest| guest.passed)
    }

    /// How long a guest has been silent.
    pub(super) fn silence(&self, uuid: Uuid, now: Instant) -> Duration {
        let guest = self.guests.get(&uuid);
        guest.map_or(Duration::ZERO, |guest| {
            now.saturating_duration_since(guest.used)
        })
    }

    /// Tells a guest's session something.
    pub(super) fn tell(&self, uuid: Uuid, news: News, cx: &mut Cx<'_>) {
        if let Some(guest) = self.guests.get(&uuid) {
            cx.post(guest.who, Mail::new(news));
        }
    }

    /// Reads frames; guests that are announced go into `opened`, at the client.
    pub(super) fn read_frames(
        &mut self,
        rx: &mut Ring,
        opened: &mut Vec<(Uuid, Visitor)>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        loop {
            if let Some((uuid, left)) = self.part {
                if rx.is_empty() {
                    return Ok(());
                }
                self.pass_on(uuid, left, rx, cx);
                continue;
            }
            let mut bytes = [0; MUX_HEAD + LONGEST_TAIL];
            let have = rx.copy_to(0, &mut bytes);
            let bytes = &bytes[..have];
            let Some(MuxHead { uuid, mark }) = MuxHead::decode(bytes, Transport::Tcp)? else {
                return Ok(());
            };
            let len = match mark {
                // Refused by its head: what stands behind it never comes.
                Mark::Open | Mark::Move if self.end == End::Server => return Err(misplaced()),
                Mark::Data(count) => {
                    self.arrive(uuid, count)?;
                    MUX_HEAD
                }
                _ => match Frame::decode(bytes, Transport::Tcp)? {
                    Some((frame, len)) => {
                        self.hear(uuid, frame.body, opened, cx)?;
                        len
                    }
                    None => return Ok(()),
                },
            };
            rx.consume(len);
            if mark == Mark::Open {
                return Ok(()); // Its owner enters it before more is read.
            }
        }
    }

    /// A frame of data begins.
    fn arrive(&mut self, uuid: Uuid, count: u32) -> Result<(), Close> {
        if let Some(guest) = self.guests.get_mut(&uuid) {
            if guest.moves[1] {
                return Err(broken("frames behind the last"));
            }
            if guest.ends[1] {
                return Err(broken("bytes behind the end"));
            }
            let arrived = guest.receiving.arrived(count);
            arrived.map_err(|_| broken("more bytes than were granted"))?;
        }
        self.part = Some((uuid, count as usize));
        Ok(())
    }

    /// Takes a frame that is no data.
    fn hear(
        &mut self,
        uuid: Uuid,
        body: Body<'_>,
        opened: &mut Vec<(Uuid, Visitor)>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let end = self.end;
        let guest = self.guests.get_mut(&uuid);
        match body {
            Body::Open(visitor) if end == End::Client => opened.push((uuid, visitor)),
            Body::End => {
                if let Some(guest) = guest.filter(|guest| !guest.ends[1]) {
                    guest.ends[1] = true;
                    let over = guest.ends[0];
                    self.tell(uuid, News::Ended(over), cx);
                }
            }
            Body::Reset => {
                self.tell(uuid, News::Reset, cx);
                if let Some(guest) = self.guests.get_mut(&uuid) {
                    guest.known = false;
                }
            }
            // One that has gone meanwhile is nobody's any more.
            Body::Move(ticket) if end == End::Client => {
                if let Some(guest) = guest {
                    guest.moves[1] = true;
                    self.tell(uuid, News::Move(ticket), cx);
                }
            }
            Body::Moved | Body::Stay if end == End::Server => {
                if let Some(guest) = guest {
                    if guest.moves != [true, false] {
                        return Err(broken("a visitor moved that is not to move"));
                    }
                    let moved = body == Body::Moved;
                    guest.moves = [moved; 2];
                    let news = if moved { News::Moved } else { News::Stay };
                    self.tell(uuid, news, cx);
                }
            }
            _ => return Err(misplaced()),
        }
        Ok(())
    }

    /// Passes on what has come of a frame's payload; that of a guest that has gone is dropped.
    fn pass_on(&mut self, uuid: Uuid, left: usize, rx: &mut Ring, cx: &mut Cx<'_>) {
        let count = left.min(rx.len());
        self.moved[1] += count as u64;
        let (mut bulky, mut waits) = (false, false);
        match self.guests.get_mut(&uuid) {
            None => rx.consume(count),
            Some(guest) => {
                guest.passed[1] += count as u64;
                bulky = guest.is_now_bulky(count, cx.now);
                match guest.conn.filter(|_| guest.pace.is_none()) {
                    Some(conn) => cx.forward(rx, conn, count),
                    None => rx.take_into(count, &mut guest.early),
                }
                waits = guest.waits;
            }
        }
        self.part = (left > count).then_some((uuid, left - count));
        self.grant(uuid, cx);
        if !waits && self.pour(uuid, cx).is_some() {
            self.tell(uuid, News::Held, cx);
        }
        if bulky {
            self.tell(uuid, News::Bulky, cx);
        }
    }

    /// Grants what a guest's connection has taken, if it is worth a frame. Up to 64 KiB of what has
    /// left unnoticed may be missing here, so the peer has always a good part of the window.
    pub(super) fn grant(&mut self, uuid: Uuid, cx: &mut Cx<'_>) {
        let (Some(guest), Some(incoming)) = (self.guests.get_mut(&uuid), self.incoming) else {
            return;
        };
        let waiting = guest.early.len() + guest.conn.map_or(0, |conn| cx.unsent(conn));
        let to_come = self.part.filter(|(whose, _)| *whose == uuid);
        let held = waiting + to_come.map_or(0, |(_, left)| left);
        let passed = guest.receiving.unread().saturating_sub(held);
        if let Some(bytes) = guest.receiving.drained(passed as u32) {
            cx.send(incoming, &Grant { uuid, bytes }.encode());
        }
    }

    /// Reads grants.
    pub(super) fn read_grants(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        while let Some(bytes) = runs::peek::<{ super::wire::GRANT }>(rx, 0) {
            let Some(Grant { uuid, bytes }) = Grant::decode(&bytes)? else {
                return Ok(());
            };
            rx.consume(super::wire::GRANT);
            let Some(guest) = self.guests.get_mut(&uuid) else {
                continue; // It has gone meanwhile.
            };
            let granted = guest.sending.granted(bytes);
            granted.map_err(|_| broken("more granted than was sent"))?;
            // One that moves waits for its data connection.
            if let Some(conn) = guest.conn.filter(|_| !guest.moves[0]) {
                cx.resume(conn);
            }
        }
        Ok(())
    }

    /// The two connections are of no use any more, and the guests of whom something is still to come
    /// hear of it. The caller closes the connections, which are its own.
    pub(super) fn disband(&mut self, cx: &mut Cx<'_>) {
        for conn in self.outgoing.take().into_iter().chain(self.incoming.take()) {
            cx.reset(conn);
        }
        self.part = None;
        // A guest whose frames have all come has only its data connection to wait for, or its time, and
        // one that was not announced waits for the next two connections.
        let gone =
            |guest: &&Guest| guest.known && guest.moves != [true; 2] && guest.ends != [true; 2];
        for guest in self.guests.values().filter(gone) {
            cx.post(guest.who, Mail::new(News::Gone));
        }
    }
}

impl Guest {
    /// Counts bytes, and says once whether so many come in so short a time that frames are dear.
    fn is_now_bulky(&mut self, count: usize, now: Instant) -> bool {
        self.used = now;
        let Some((since, bytes)) = &mut self.burst else {
            return false;
        };
        if now.saturating_duration_since(*since) > BURST {
            (*since, *bytes) = (now, 0);
        }
        *bytes += count;
        let bulky = *bytes >= BULKY;
        if bulky {
            self.burst = None;
        }
        bulky
    }
}

/// The peer breaks the rules of the frames.
fn broken(why: &'static str) -> Close {
    Close::downstream(Cause::Denied(why))
}

/// It sends what only the other end may.
fn misplaced() -> Close {
    broken("a frame of the other end")
}

/// What guests may queue on the outgoing connection before they take turns.
pub(super) const MOST: usize = 2 * QUANTUM;

/// What the server says first on a data connection that a guest is moved to.
pub(super) const CONFIRM: u8 = 6;

/// A guest that carries so much...
const BULKY: usize = 128 << 10;

/// ... in so short a time is worth a connection of its own.
const BURST: Duration = Duration::from_secs(1);

/// Bytes behind the longest head that is no data's: a ticket.
const LONGEST_TAIL: usize = TICKET;
