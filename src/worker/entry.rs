//! The worker's side of the doors: accepting, letting in, turning away, and resting when there is no
//! room.
//!
//! ```text
//!   accept ──> barred? strangers turned away? ──> closed, counted, one line in the log
//!     │                      │
//!     │                      └─ from a proxy that is believed: knocks until its header is there
//!     │                                                         │ whose address counts from then on
//!     └─ no place: rests, and who waits is served later         v
//!                                     rates and counts ──> a session ──> what came behind the header
//! ```
//!
//! What a proxy sends before its header is whole is looked at here and nowhere else; of whoever is not
//! believed no byte is looked at. A header has the handshake timeout, and as many bytes as
//! [`proxy::LONGEST`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Slot, TURN_ACCEPTS, Timer, Worker};
use crate::net::{
    Conn, ConnKey, Door, Entry, FIRST_REST, Knock, Level, Listener, ListenerKey, Network, Place,
    Usage,
};
use crate::reactor::SessionKey;
use crate::session::{Cause, Close, Event, Listen};
use crate::stats::{Metric, Refusal};
use crate::wire::WireError;
use crate::wire::proxy::{self, Header};

impl<N: Network> Worker<N> {
    /// Takes a bound listener into care. Errors are the poll's.
    pub fn listen(
        &mut self,
        socket: N::Listener,
        listen: Listen,
        service: usize,
        number: usize,
    ) -> io::Result<()> {
        let name = self.christen(listen.to_string(), listen.role, (service, Some(number)));
        let mut listener = Listener::new(socket, name, service, number);
        let doors = &self.setup.doors;
        listener.door = Some(doors.at(service, listen.name.as_deref(), &listen.terms));
        let Ok(key) = self.listeners.insert(listener) else {
            return Err(io::Error::other("too many listeners"));
        };
        let Some(listener) = self.listeners.get_mut(key) else {
            return Ok(());
        };
        self.network.watch_listener(&mut listener.socket, key)
    }

    /// Accepts what waits, up to the turn's share.
    pub(super) fn accept(&mut self, key: ListenerKey) {
        let mut failures = 0;
        for _ in 0..TURN_ACCEPTS {
            let Some(listener) = self.listeners.get_mut(key) else {
                return;
            };
            listener.can_accept = true;
            if listener.rest.is_some() {
                return;
            }
            let place = match place(&self.setup, listener.door.as_ref()) {
                Ok(place) => place,
                // Waiting in the backlog, a client is served as soon as a place is free.
                Err(why) => return self.rest_listener(key, why),
            };
            match self.network.accept(&mut listener.socket) {
                Ok((stream, peer)) => {
                    listener.accepted();
                    self.network.restore_reserve();
                    let entry = listener.entry(key);
                    self.welcome(stream, peer, entry, place);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.can_accept = false;
                    return;
                }
                Err(error) if concerns_one_connection(&error) && failures < TURN_FAILURES => {
                    failures += 1;
                }
                Err(error) => {
                    self.shed_one(key);
                    return self.rest_listener(key, &error.to_string());
                }
            }
        }
        if let Some(listener) = self.listeners.get_mut(key)
            && !listener.queued
        {
            listener.queued = true;
            self.listeners_again.push(key);
        }
    }

    /// Lets an accepted connection in, or has it say first for whom it comes.
    fn welcome(&mut self, stream: N::Stream, peer: SocketAddr, entry: Entry, mut place: Place) {
        self.setup.counters.add(Metric::Accepted, 1);
        if entry.owner.is_some() && self.setup.load.level() >= Level::Pressed {
            return self.turn_away(&entry, peer, Refusal::Overload, || {
                "the server is short of descriptors or memory".to_owned()
            });
        }
        if let Some(door) = &entry.door {
            if door.bars(peer.ip()) {
                return self.turn_away(&entry, peer, Refusal::Denied, denied);
            }
            if door.believes(peer.ip()) {
                return self.await_header(stream, peer, entry, place);
            }
        }
        if !self.admit(&entry, peer, peer, &mut place) {
            return;
        }
        if let Some((session, listener)) = entry.owner {
            return self.visit(session, listener, stream, peer, place);
        }
        let Some(session) = self.begin(&entry, peer, place) else {
            return;
        };
        match self.adopt(session, Conn::new(stream, false)) {
            Ok(conn) => self.accepted(session, conn, peer, None),
            Err(error) => {
                let cause = Cause::Io("watch", error.kind());
                self.end(session, Close::own(cause));
            }
        }
    }

    /// Counts a connection for its source; false when it is turned away. It came `by` somebody, who
    /// may be the source itself.
    fn admit(
        &mut self,
        entry: &Entry,
        by: SocketAddr,
        from: SocketAddr,
        place: &mut Place,
    ) -> bool {
        let Err((why, is_role_s)) = place.admit(from.ip(), self.now) else {
            return true;
        };
        self.turn_away(entry, from, why, || {
            let words = match (why, is_role_s) {
                (Refusal::Denied, _) => denied(),
                (why, true) => format!("{} of the role reached", why.word()),
                (why, false) => format!("{} reached", why.word()),
            };
            match by == from {
                true => words,
                false => format!("{words}, by={by}"),
            }
        });
        false
    }

    /// Makes a session for a connection that came to a service's listener.
    fn begin(&mut self, entry: &Entry, peer: SocketAddr, place: Place) -> Option<SessionKey> {
        let seat = self.setup.seats.get_mut(entry.service)?;
        let session = seat.accept(entry.number);
        let role = self.role_of(entry.name);
        let mut slot = Slot::new(session, entry.name, role, self.now);
        slot.peer = Some(peer);
        slot.place = Some(place);
        let Ok(session) = self.sessions.insert(slot) else {
            self.setup.counters.add(Metric::Shed, 1);
            return None;
        };
        self.count_begun(role);
        Some(session)
    }

    /// Gives a connection to the session whose own listener it came to.
    fn visit(
        &mut self,
        session: SessionKey,
        listener: ListenerKey,
        stream: N::Stream,
        peer: SocketAddr,
        place: Place,
    ) {
        let mut conn = Conn::new(stream, false);
        conn.place = Some(place);
        // One that cannot be watched is closed at once; its peer sees that, and may come again.
        if let Ok(conn) = self.adopt(session, conn) {
            self.accepted(session, conn, peer, Some(listener));
        }
    }

    fn accepted(
        &mut self,
        session: SessionKey,
        conn: ConnKey,
        peer: SocketAddr,
        listener: Option<ListenerKey>,
    ) {
        let event = Event::Accepted {
            conn,
            peer,
            listener,
        };
        self.deliver(session, event);
        // Whoever speaks first has most often spoken by now. What it has said goes on in this turn, along
        // with what its coming has caused, and not in a turn of its own.
        if let Some(conn) = self.conns.get_mut(conn) {
            conn.can_read = true;
        }
        self.read_again(conn);
    }

    /// Keeps a connection without a session until it has said for whom it comes.
    fn await_header(&mut self, stream: N::Stream, peer: SocketAddr, entry: Entry, place: Place) {
        let mut conn = Conn::new(stream, false);
        conn.place = Some(place);
        conn.care().knock = Some(Knock { entry, peer });
        let Ok(key) = self.watch(conn) else {
            return; // As for a visitor, it is closed at once.
        };
        let within = self.setup.handshake_timeout;
        let timer = self.wheel.arm(self.now, within, Timer::Header(key));
        if let Some(conn) = self.conns.get_mut(key) {
            conn.timer = timer;
        }
    }

    /// Looks for the header of a connection that knocks, and lets it in when it is there. True when
    /// its session may be offered what stands behind the header.
    pub(super) fn identify(&mut self, key: ConnKey) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        let mut copy = [0; proxy::LONGEST];
        let head = conn.rx.head();
        // Nearly always it lies in one piece.
        let bytes = match head.len() < conn.rx.len().min(proxy::LONGEST) {
            true => {
                let count = conn.rx.copy_to(0, &mut copy);
                &copy[..count]
            }
            false => head,
        };
        let nothing = bytes.is_empty();
        match proxy::decode(bytes) {
            Ok(Some(header)) => self.let_in(key, header),
            Ok(None) if !conn.ended => false,
            // Whoever looks whether the port is open says nothing, and is nobody's fault.
            Ok(None) if nothing => {
                self.discard(key);
                false
            }
            Ok(None) => self.reject(key, || "it ended inside its PROXY header".to_owned()),
            Err(WireError::Missing { field }) => {
                self.reject(key, || format!("{field} is missing or malformed"))
            }
            Err(error) => self.reject(key, || error.to_string()),
        }
    }

    fn let_in(&mut self, key: ConnKey, header: Header) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        conn.rx.consume(header.len);
        conn.rx.trim(&mut self.pool);
        if let Some(timer) = conn.timer.take() {
            self.wheel.cancel(timer);
        }
        let care = conn.care();
        let knock = care.knock.take();
        care.destination = header.ends.map(|ends| ends.to);
        let (Some(Knock { entry, peer }), Some(mut place)) = (knock, conn.place.take()) else {
            return false;
        };
        let from = header.ends.map_or(peer, |ends| ends.from);
        let session = match self.admit(&entry, peer, from, &mut place) {
            true => self.begin(&entry, from, place),
            false => None,
        };
        let Some(session) = session else {
            self.discard(key);
            return false;
        };
        if let (Some(conn), Some(slot)) = (self.conns.get_mut(key), self.sessions.get_mut(session))
        {
            conn.owner = Some(session);
            slot.conns.insert(key);
            let payload = conn.rx.len();
            self.book(session, 0, payload);
        }
        self.accepted(session, key, from, None);
        self.tell_late_comer(session);
        let conn = self.conns.get(key);
        conn.is_some_and(|conn| conn.awaits.is_none())
    }

    /// Closes a connection that has not said for whom it comes.
    fn reject(&mut self, key: ConnKey, words: impl FnOnce() -> String) -> bool {
        let care = self.conns.get_mut(key).and_then(|conn| conn.care.as_mut());
        if let Some(knock) = care.and_then(|care| care.knock.take()) {
            self.turn_away(&knock.entry, knock.peer, Refusal::Header, words);
        }
        self.discard(key);
        false
    }

    /// A connection has not said in time for whom it comes.
    pub(super) fn header_is_late(&mut self, key: ConnKey) {
        self.reject(key, || "its PROXY header took too long".to_owned());
    }

    /// Closes the connections that no session has heard of: the server takes no more work.
    pub(super) fn dismiss_knocking(&mut self) {
        for key in self.conns.keys() {
            if self.conns.get(key).is_some_and(Conn::knocks) {
                self.discard(key);
            }
        }
    }

    /// Counts a connection that is not let in, and tells the log.
    fn turn_away(
        &mut self,
        entry: &Entry,
        from: SocketAddr,
        why: Refusal,
        words: impl FnOnce() -> String,
    ) {
        self.setup.counters.refuse(why);
        if !matches!(why, Refusal::Denied | Refusal::Header) {
            self.setup.counters.add(Metric::Shed, 1);
        }
        let name = &self.names[usize::from(entry.name)].text;
        self.journal.warn(self.now, why.word(), || {
            format!("{name} from={from} refused: {}", words())
        });
    }

    /// Lets a listener rest after a connection could not be taken.
    fn rest_listener(&mut self, key: ListenerKey, why: &str) {
        let Some(listener) = self.listeners.get_mut(key) else {
            return;
        };
        let pause = listener.next_rest();
        listener.rest = self.wheel.arm(self.now, pause, Timer::Rest(key));
        self.resting += 1;
        self.setup.counters.add(Metric::Rested, 1);
        if pause > FIRST_REST {
            return; // Said when the row of failures began.
        }
        let name = &self.names[usize::from(listener.name)].text;
        self.journal.warn(self.now, "accept", || {
            format!("{name} accepts nobody for now: {why}")
        });
    }

    /// Answers one waiting connection by closing it, with the descriptor held in reserve: its
    /// client learns at once that there is no room.
    fn shed_one(&mut self, key: ListenerKey) {
        let Some(listener) = self.listeners.get_mut(key) else {
            return;
        };
        if self.network.spend_reserve() {
            if let Ok(taken) = self.network.accept(&mut listener.socket) {
                drop(taken);
                self.setup.counters.add(Metric::Shed, 1);
            }
            self.network.restore_reserve();
        }
    }

    /// A rest is over.
    pub(super) fn rested(&mut self, key: ListenerKey) {
        let Some(listener) = self.listeners.get_mut(key) else {
            return;
        };
        if listener.rest.take().is_none() {
            return; // Woken by an earlier timer of this very pass, as a place became free.
        }
        self.resting -= 1;
        self.network.restore_reserve();
        self.accept(key);
    }

    /// A place or a descriptor was freed: resting listeners try at once.
    pub(super) fn wake_listeners(&mut self) {
        if self.resting == 0 {
            return;
        }
        self.resting = 0;
        self.network.restore_reserve();
        for key in self.listeners.keys() {
            if let Some(listener) = self.listeners.get_mut(key)
                && let Some(timer) = listener.rest.take()
            {
                self.wheel.cancel(timer);
                if !listener.queued {
                    listener.queued = true;
                    self.listeners_again.push(key);
                }
            }
        }
    }

    /// Tells all cores what this one uses; a step of the ladder is one line in the log.
    pub(super) fn weigh(&mut self) {
        let pipes = self.pipes.held();
        // Those of the listeners are reserved.
        let sockets = self.exchange.len().saturating_sub(self.exchange.seated);
        let now = Usage {
            descriptors: self.conns.len() + sockets + 2 * pipes,
            memory: self.pool.lent() * crate::buffer::BLOCK + self.pipes.bytes(),
        };
        if now == self.usage {
            return;
        }
        let told = self.setup.load.shift(self.usage, now);
        self.usage = now;
        let Some(level) = told else {
            return;
        };
        let (used, most) = (self.setup.load.used(), self.setup.load.most());
        self.journal.warn(self.now, "overload", || {
            format!(
                "overload level is {}: descriptors={} of {} buffer_bytes={} of {}",
                level.word(),
                used.descriptors,
                most.descriptors,
                used.memory,
                most.memory
            )
        });
        if level < Level::Full {
            self.wake_listeners();
        }
    }
}

/// A place for one more connection at a door; the error says why nobody is taken now.
fn place<N: Network>(
    setup: &super::Setup<N>,
    door: Option<&Arc<Door>>,
) -> Result<Place, &'static str> {
    if setup.load.level() == Level::Full {
        return Err("overload, the server is full");
    }
    let place = setup.quota.enter();
    let mut place = place.ok_or("max_connections reached")?;
    match door {
        Some(door) if !place.pass(door) => Err("max_connections of the role reached"),
        _ => Ok(place),
    }
}

fn denied() -> String {
    "not among allow_from, or among deny_from".to_owned()
}

/// An accept that failed for the sake of the connection that was to be taken; the next may do.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::EINTR
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

/// Connections that may turn out broken in one turn; at more than that the listener rests.
const TURN_FAILURES: usize = 16;
