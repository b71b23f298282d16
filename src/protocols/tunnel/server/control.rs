//! A client's control connection: its services, its visitors that wait, its pool.
//!
//! Services are asked for, opened and lost in `service.rs`; here are the frames, the visitors and the
//! silence. The client is gone when it has not been heard for [`MISSED`] pings, or takes nothing.
//!
//! Bounds: `max_services`; of visitors that wait as many as all cores let wait; a connection whose
//! client does not take the answers to its own frames is not read.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::frames::{ROOM, front};
use super::super::tickets::{LIFE, Purpose, Wanted};
use super::super::wire::{
    ClientId, Control as Frame, Reason, Ticket, TicketList, Transport, Uuid, Visit,
    Visitor as Guest,
};
use super::super::{MISSED, PING};
use super::desk::Desk;
use super::lobby::Lobby;
use super::pool::Pool;
use super::service::Service;
use super::words::Word;
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::reactor::Handle;
use crate::session::{Cause, Close, Cx, Event, Mail};
use crate::stats::Metric;
use crate::wire::WireError;

/// A control connection that has proved the token.
pub(super) struct Control {
    pub(super) desk: Rc<RefCell<Desk>>,
    pub(super) lobby: Arc<Lobby>,
    pub(super) conn: ConnKey,
    pub(super) client: ClientId,
    pub(super) session: Uuid,
    pub(super) services: BTreeMap<u16, Service>,
    /// The number that was given last; none is given twice.
    pub(super) last: u16,
    /// The timer for ports that were in use is armed.
    pub(super) retries: bool,
    waiting: HashMap<Uuid, Waiter>,
    pool: Pool,
    heard: Instant,
    pinged: Instant,
    /// Visitors that were announced or given a connection.
    visits: u64,
    scratch: Vec<u8>,
    pub(super) draining: bool,
}

/// A visitor, or the session of a service, that waits for a data connection.
struct Waiter {
    who: Handle,
    service: u16,
    ticket: Ticket,
}

impl Control {
    pub(super) fn begin(
        desk: Rc<RefCell<Desk>>,
        conn: ConnKey,
        client: ClientId,
        cx: &mut Cx<'_>,
    ) -> Result<Self, Close> {
        let lobby = Arc::clone(&desk.borrow().lobby);
        let Some(session) = lobby.uuid(cx.handle.core) else {
            desk.borrow_mut().clients -= 1;
            return Err(Close::own(Cause::Overload("no random bytes")));
        };
        let control = Self {
            desk,
            lobby,
            conn,
            client,
            session,
            services: BTreeMap::new(),
            last: 0,
            retries: false,
            waiting: HashMap::new(),
            pool: Pool::new(),
            heard: cx.now,
            pinged: cx.now,
            visits: 0,
            scratch: Vec::new(),
            draining: false,
        };
        cx.arm(BEAT, BETWEEN_BEATS);
        cx.hold(conn, ROOM);
        cx.patience(conn, PING * MISSED);
        control.say(&Frame::Welcome { session }, cx);
        Ok(control)
    }

    /// Whether it is the control connection itself, and not one of the pool.
    pub(super) fn is_own(&self, conn: ConnKey) -> bool {
        self.conn == conn
    }

    pub(super) fn say(&self, frame: &Frame<'_>, cx: &mut Cx<'_>) {
        let mut bytes = Vec::with_capacity(128);
        frame.encode(&mut bytes);
        cx.send(self.conn, &bytes);
    }

    /// Reads the client's frames.
    pub(super) fn read(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.read_frames(rx, &mut scratch, cx);
        scratch.clear();
        self.scratch = scratch;
        outcome
    }

    /// Whether the client takes its answers too slowly for more frames to be read.
    pub(super) fn holds_back(&self, cx: &Cx<'_>) -> bool {
        cx.unsent(self.conn) > MOST_OWED
    }

    fn read_frames(
        &mut self,
        rx: &mut Ring,
        scratch: &mut Vec<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        loop {
            if self.holds_back(cx) {
                cx.pause(self.conn);
                return Ok(());
            }
            let bytes = front(rx, scratch)?;
            let Some((frame, len)) = Frame::decode(bytes)? else {
                return Ok(());
            };
            self.heard = cx.now;
            self.take(&frame, cx)?;
            rx.consume(len);
        }
    }

    fn take(&mut self, frame: &Frame<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        if !frame.is_from_client() {
            let wrong = WireError::BadValue {
                field: "frame of a server",
                value: 0,
            };
            return Err(wrong.into());
        }
        match frame {
            Frame::Expose(expose) => self.expose(expose, cx),
            Frame::Withdraw { service } => self.withdraw(*service, cx),
            Frame::Closed { uuid, reason } => self.refuse_visitor(*uuid, *reason, cx),
            Frame::Ping(number) => self.say(&Frame::Pong(*number), cx),
            _ => {}
        }
        Ok(())
    }

    /// Events other than the control connection's own bytes.
    pub(super) fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Handed { conn, .. } => self.put_aside(conn, cx),
            Event::Eof { conn } if self.is_own(conn) => return Err(Close::finished()),
            Event::Lost { conn, why } if self.is_own(conn) => {
                return Err(Close::downstream(Cause::Io("control connection", why)));
            }
            Event::Stalled { .. } => {
                return Err(Close::downstream(Cause::Deadline("slow receiver")));
            }
            Event::Drained { conn } if self.is_own(conn) => cx.resume(conn),
            // Who is in the pool has nothing to say before it has a visitor.
            Event::Data { conn, .. } if self.pool.forget(conn) => {
                cx.count(Metric::Rejected, 1);
                cx.reset(conn);
            }
            Event::Eof { conn } if self.pool.forget(conn) => cx.close(conn),
            Event::Lost { conn, .. } => drop(self.pool.forget(conn)),
            Event::Timer { tag: BEAT } => return self.beat(cx),
            Event::Timer { .. } => self.retry(cx),
            Event::Reply { ticket, reply } => return self.hear(ticket, reply, cx),
            Event::Mail { from, mail } => match mail.open() {
                Some(Word::Opened { number, outcome }) => self.opened(number, outcome, cx),
                Some(Word::Want {
                    uuid,
                    number,
                    visitor,
                }) => self.want(from, uuid, number, visitor, cx),
                Some(Word::Enough { uuid, reason }) => return self.enough(uuid, reason, cx),
                _ => {}
            },
            Event::Returned { mail, .. } => {
                if let Some(Word::Open { share, .. }) = mail.open() {
                    self.opened(share.number, Err(io::ErrorKind::NotFound), cx);
                }
            }
            Event::Stopping => return self.stop(cx),
            _ => {}
        }
        Ok(())
    }

    /// Somebody waits for a data connection.
    fn want(&mut self, who: Handle, uuid: Uuid, number: u16, visitor: SocketAddr, cx: &mut Cx<'_>) {
        let refuse = |reason, cx: &mut Cx<'_>| {
            cx.post(who, Mail::new(Word::Refused { uuid, reason }));
        };
        let Some(service) = self.services.get(&number) else {
            return refuse(Reason::Withdrawn, cx);
        };
        self.visits += 1;
        if service.transport == Transport::Tcp {
            let most = self.most_pooled();
            if let Some(conn) = self.pool.take(most) {
                let guest = Guest {
                    service: number,
                    address: visitor,
                };
                let mut head = Vec::new();
                guest.encode_assigned(uuid, &mut head);
                cx.send(conn, &head);
                cx.hand(conn, who, Mail::new(Word::Data));
                return self.fill_pool(cx);
            }
        }
        let purpose = Purpose {
            to: who,
            client: self.client,
            wanted: Wanted::Visit {
                service: number,
                uuid,
            },
        };
        let Some(ticket) = self.lobby.ticket(purpose, cx.now) else {
            return refuse(Reason::Overloaded, cx);
        };
        let service = number;
        let waiter = Waiter {
            who,
            service,
            ticket,
        };
        self.waiting.insert(uuid, waiter);
        let visit = Visit {
            uuid,
            service,
            ticket,
            visitor,
        };
        self.say(&Frame::Visit(visit), cx);
        self.fill_pool(cx);
    }

    /// Somebody waits no more: it was served, or is gone.
    fn enough(&mut self, uuid: Uuid, reason: Option<Reason>, cx: &mut Cx<'_>) -> Result<(), Close> {
        if let Some(waiter) = self.waiting.remove(&uuid)
            && let Some(reason) = reason
        {
            self.lobby.tickets.cancel(&waiter.ticket);
            self.say(&Frame::Closed { uuid, reason }, cx);
        }
        self.stop_if_idle()
    }

    /// The client says that a visitor will get no data connection.
    fn refuse_visitor(&mut self, uuid: Uuid, reason: Reason, cx: &mut Cx<'_>) {
        match self.waiting.remove(&uuid) {
            None => cx.count(Metric::Ignored, 1),
            Some(waiter) => {
                self.lobby.tickets.cancel(&waiter.ticket);
                cx.post(waiter.who, Mail::new(Word::Refused { uuid, reason }));
            }
        }
    }

    /// Whoever waits for a service that is over waits for nothing.
    pub(super) fn refuse_visitors(&mut self, service: Option<u16>, cx: &mut Cx<'_>) {
        let reason = Reason::Withdrawn;
        let tickets = &self.lobby.tickets;
        self.waiting.retain(|&uuid, waiter| {
            let stays = service.is_some_and(|service| service != waiter.service);
            if !stays {
                tickets.cancel(&waiter.ticket);
                cx.post(waiter.who, Mail::new(Word::Refused { uuid, reason }));
            }
            stays
        });
    }

    /// How many connections the pool may have.
    fn most_pooled(&self) -> usize {
        let direct = self.services.values().filter(|one| one.is_direct());
        direct.count() * self.lobby.rules().pool
    }

    /// A connection for the pool has come.
    fn put_aside(&mut self, conn: ConnKey, cx: &mut Cx<'_>) {
        if self.draining || !self.pool.put(conn, cx.now) {
            cx.close(conn);
        }
    }

    fn fill_pool(&mut self, cx: &mut Cx<'_>) {
        if self.draining {
            return;
        }
        let missing = self.pool.missing(cx.now, MOST_AT_ONCE);
        let purpose = Purpose {
            to: cx.handle,
            client: self.client,
            wanted: Wanted::Pool,
        };
        let issued = (0..missing).filter_map(|_| self.lobby.ticket(purpose, cx.now));
        let tickets: Vec<_> = issued.map(|ticket| *ticket.as_bytes()).collect();
        if !tickets.is_empty() {
            self.say(&Frame::PoolWanted(TicketList::new(&tickets)), cx);
        }
    }

    /// Looks after the silence and the pool.
    fn beat(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let silent = cx.now.saturating_duration_since(self.heard);
        if silent > PING * MISSED {
            return Err(Close::downstream(Cause::Deadline("keepalive")));
        }
        if cx.now.saturating_duration_since(self.pinged) >= PING {
            self.pinged = cx.now;
            self.say(&Frame::Ping(cx.unix_time().as_secs()), cx);
        }
        for conn in self.pool.look(cx.now, LIFE) {
            cx.close(conn);
        }
        self.fill_pool(cx);
        cx.arm(BEAT, BETWEEN_BEATS);
        Ok(())
    }

    /// The server stops: the client is told, and visitors that wait are still served.
    fn stop(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.draining = true;
        let seconds = self.lobby.rules().drain_timeout.as_secs();
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.say(&Frame::Drain { seconds }, cx);
        self.stop_if_idle()
    }

    fn stop_if_idle(&self) -> Result<(), Close> {
        match self.draining && self.waiting.is_empty() {
            true => Err(Close::own(Cause::Stopping)),
            false => Ok(()),
        }
    }

    pub(super) fn describe(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(out, " client={} visits={}", self.client, self.visits);
        for service in self.services.values() {
            let _ = write!(out, " service={}", service.name);
        }
    }

    pub(super) fn leave(&mut self, cx: &mut Cx<'_>) {
        self.refuse_visitors(None, cx);
        let numbers: Vec<_> = self.services.keys().copied().collect();
        for number in numbers {
            self.close_service(number, cx);
        }
        self.desk.borrow_mut().clients -= 1;
    }
}

/// Pings, and looks at the pool.
const BEAT: u8 = 0;

/// Tries ports again that were in use.
pub(super) const RETRY: u8 = 1;

const BETWEEN_BEATS: Duration = Duration::from_secs(5);

/// Tickets of the pool in one frame.
const MOST_AT_ONCE: usize = 64;

/// Bytes that a client may not have taken before its own frames wait.
const MOST_OWED: usize = 256 << 10;
