//! All visitors of a service on two connections, the same on both sides: frames out on one, frames in
//! on the other, and grants the other way on each.
//!
//! ```text
//!   guest's ring ── within its credit ──> outgoing     guest: a visitor's connection at the server,
//!   guest's queue <── bounded by its window ── incoming       one to the inside service at the client
//! ```
//!
//! The incoming connection is always read: what is for a slow guest waits in that guest's own queue,
//! which its window bounds, so that it holds up nobody. Bounds: [`WINDOW`](super::wire::WINDOW) for
//! each guest and direction, [`MOST`] and a frame on the outgoing connection.

use std::collections::HashMap;

use super::wire::{
    Grant, MAX_RAW, MUX_HEAD, Mark, MuxHead, Receiving, Sending, Transport, Uuid, Visitor,
};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::runs::{self, QUANTUM};
use crate::session::{Cause, Close, Cx};
use crate::stats::Metric;

/// The guests of one service. `T` is what its owner keeps with each, dropped with it.
pub(super) struct Mux<T> {
    pub(super) outgoing: Option<ConnKey>,
    pub(super) incoming: Option<ConnKey>,
    guests: HashMap<Uuid, Guest<T>>,
    conns: HashMap<ConnKey, Uuid>,
    /// Whose payload comes now, and how much of it.
    part: Option<(Uuid, usize)>,
    /// Bytes out and in, for the log.
    pub(super) moved: [u64; 2],
}

struct Guest<T> {
    /// None while the inside service is being dialled.
    conn: Option<ConnKey>,
    sending: Sending,
    receiving: Receiving,
    /// What has come before there was a connection; within the window.
    early: Vec<u8>,
    /// The end of the stream was sent, and has come.
    ends: [bool; 2],
    _owned: T,
}

impl<T> Mux<T> {
    pub(super) fn new() -> Self {
        Self {
            outgoing: None,
            incoming: None,
            guests: HashMap::new(),
            conns: HashMap::new(),
            part: None,
            moved: [0; 2],
        }
    }

    /// Whether frames can go both ways.
    pub(super) fn is_joined(&self) -> bool {
        self.outgoing.is_some() && self.incoming.is_some()
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

    /// A new guest, with its connection where it has one.
    pub(super) fn enter(&mut self, uuid: Uuid, conn: Option<ConnKey>, owned: T) {
        if let Some(conn) = conn {
            self.conns.insert(conn, uuid);
        }
        let guest = Guest {
            conn,
            sending: Sending::new(),
            receiving: Receiving::new(),
            early: Vec::new(),
            ends: [false; 2],
            _owned: owned,
        };
        self.guests.insert(uuid, guest);
    }

    /// A guest's connection is there; false when the guest has gone.
    pub(super) fn connect(&mut self, uuid: Uuid, conn: ConnKey, cx: &mut Cx<'_>) -> bool {
        let Some(guest) = self.guests.get_mut(&uuid) else {
            return false;
        };
        guest.conn = Some(conn);
        self.conns.insert(conn, uuid);
        cx.send(conn, &std::mem::take(&mut guest.early));
        if guest.ends[1] {
            cx.finish(conn);
        }
        self.grant(uuid, cx);
        true
    }

    /// Both connections are there: guests that have waited go on.
    pub(super) fn go_on(&mut self, cx: &mut Cx<'_>) {
        self.conns.keys().for_each(|conn| cx.resume(*conn));
    }

    /// Sends a head, and what stands behind it.
    pub(super) fn say(&self, uuid: Uuid, mark: Mark, cx: &mut Cx<'_>) {
        if let Some(outgoing) = self.outgoing {
            cx.send(outgoing, &MuxHead { uuid, mark }.encode());
        }
    }

    /// Announces a guest.
    pub(super) fn announce(&self, uuid: Uuid, visitor: Visitor, cx: &mut Cx<'_>) {
        if let Some(outgoing) = self.outgoing {
            let mut bytes = MuxHead {
                uuid,
                mark: Mark::Open,
            }
            .encode()
            .to_vec();
            visitor.encode(&mut bytes);
            cx.send(outgoing, &bytes);
        }
    }

    /// Reads what a guest's connection has sent; false when it is none of a guest.
    pub(super) fn read_guest(&mut self, conn: ConnKey, rx: &mut Ring, cx: &mut Cx<'_>) -> bool {
        let uuid = self.conns.get(&conn).copied();
        let Some((uuid, guest)) = uuid.and_then(|uuid| Some((uuid, self.guests.get_mut(&uuid)?)))
        else {
            return false;
        };
        let Some(outgoing) = self.outgoing.filter(|_| self.incoming.is_some()) else {
            cx.pause(conn);
            return true;
        };
        while !rx.is_empty() {
            if guest.sending.left() == 0 {
                cx.pause(conn); // A grant resumes it.
                return true;
            }
            let Some(room) = runs::room(conn, outgoing, MOST, cx) else {
                return true;
            };
            let count = guest.sending.take(rx.len().min(room).min(MAX_RAW));
            let mark = Mark::Data(count as u32);
            cx.send(outgoing, &MuxHead { uuid, mark }.encode());
            cx.forward(rx, outgoing, count);
            cx.count(Metric::Forwarded, 1);
            self.moved[0] += count as u64;
        }
        true
    }

    /// A guest's connection has sent its last byte.
    pub(super) fn end_guest(&mut self, conn: ConnKey, cx: &mut Cx<'_>) {
        if let Some(&uuid) = self.conns.get(&conn) {
            self.say(uuid, Mark::End, cx);
            self.end_way(uuid, 0, cx);
        }
    }

    /// A guest's connection broke.
    pub(super) fn lose_guest(&mut self, conn: ConnKey, cx: &mut Cx<'_>) {
        if let Some(uuid) = self.conns.remove(&conn) {
            self.guests.remove(&uuid);
            self.say(uuid, Mark::Reset, cx);
        }
    }

    /// A guest is not served any more, and both sides are told.
    pub(super) fn refuse(&mut self, uuid: Uuid, cx: &mut Cx<'_>) {
        self.drop_guest(uuid, cx);
        self.say(uuid, Mark::Reset, cx);
    }

    /// Forgets a guest; its connection is reset.
    pub(super) fn drop_guest(&mut self, uuid: Uuid, cx: &mut Cx<'_>) {
        if let Some(conn) = self.guests.remove(&uuid).and_then(|guest| guest.conn) {
            self.conns.remove(&conn);
            cx.reset(conn);
        }
    }

    fn end_way(&mut self, uuid: Uuid, way: usize, cx: &mut Cx<'_>) {
        let Some(guest) = self.guests.get_mut(&uuid) else {
            return;
        };
        guest.ends[way] = true;
        let over = guest.ends == [true; 2];
        let Some(conn) = guest.conn else { return };
        if over {
            self.conns.remove(&conn);
            self.guests.remove(&uuid);
            cx.close(conn);
        } else if way == 1 {
            cx.finish(conn);
        }
    }

    /// Reads frames; guests that are announced go into `opened`, where the peer may announce any.
    pub(super) fn read_frames(
        &mut self,
        rx: &mut Ring,
        mut opened: Option<&mut Vec<(Uuid, Visitor)>>,
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
            let mut bytes = [0; MUX_HEAD + LONGEST_VISITOR];
            let have = rx.copy_to(0, &mut bytes);
            let bytes = &bytes[..have];
            let Some(MuxHead { uuid, mark }) = MuxHead::decode(bytes, Transport::Tcp)? else {
                return Ok(());
            };
            let mut len = MUX_HEAD;
            match mark {
                Mark::Data(count) => {
                    if let Some(guest) = self.guests.get_mut(&uuid) {
                        let arrived = guest.receiving.arrived(count);
                        arrived.map_err(|_| broken("more bytes than were granted"))?;
                    }
                    self.part = Some((uuid, count as usize));
                }
                Mark::End => self.end_way(uuid, 1, cx),
                Mark::Reset => self.drop_guest(uuid, cx),
                Mark::Open => {
                    let Some(opened) = opened.as_deref_mut() else {
                        return Err(broken("a visitor announced by a client"));
                    };
                    let Some((visitor, more)) = Visitor::decode(&bytes[MUX_HEAD..])? else {
                        return Ok(());
                    };
                    len += more;
                    opened.push((uuid, visitor));
                }
            }
            rx.consume(len);
            if mark == Mark::Open {
                return Ok(()); // Its owner enters it before more is read.
            }
        }
    }

    /// Passes on what has come of a frame's payload; that of a guest that has gone is dropped.
    fn pass_on(&mut self, uuid: Uuid, left: usize, rx: &mut Ring, cx: &mut Cx<'_>) {
        let count = left.min(rx.len());
        self.moved[1] += count as u64;
        match self.guests.get_mut(&uuid) {
            None => rx.consume(count),
            Some(guest) => match guest.conn {
                Some(conn) => cx.forward(rx, conn, count),
                None => rx.take_into(count, &mut guest.early),
            },
        }
        let left = left - count;
        self.part = (left > 0).then_some((uuid, left));
        self.grant(uuid, cx);
    }

    /// Part of a guest's queue has left.
    pub(super) fn drained(&mut self, conn: ConnKey, cx: &mut Cx<'_>) {
        if let Some(&uuid) = self.conns.get(&conn) {
            self.grant(uuid, cx);
        }
    }

    /// Grants what a guest's connection has taken, if it is worth a frame. Up to 64 KiB of what has
    /// left unnoticed may be missing here, so the peer has always a good part of the window.
    fn grant(&mut self, uuid: Uuid, cx: &mut Cx<'_>) {
        let (Some(guest), Some(incoming)) = (self.guests.get_mut(&uuid), self.incoming) else {
            return;
        };
        let waiting = match guest.conn {
            Some(conn) => cx.unsent(conn),
            None => guest.early.len(),
        };
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
            if let Some(conn) = guest.conn {
                cx.resume(conn);
            }
        }
        Ok(())
    }

    /// The two connections are of no use any more: they and all guests go.
    pub(super) fn disband(&mut self, cx: &mut Cx<'_>) {
        for conn in self.outgoing.take().into_iter().chain(self.incoming.take()) {
            cx.reset(conn);
        }
        self.part = None;
        let all: Vec<_> = self.guests.keys().copied().collect();
        for uuid in all {
            self.drop_guest(uuid, cx);
        }
    }
}

/// The peer breaks the rules of credit.
fn broken(why: &'static str) -> Close {
    Close::downstream(Cause::Denied(why))
}

/// What guests may queue on the outgoing connection before they take turns.
pub(super) const MOST: usize = 2 * QUANTUM;

/// Bytes of an announced visitor: service and the longest address.
const LONGEST_VISITOR: usize = 2 + 19;
