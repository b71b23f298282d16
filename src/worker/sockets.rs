//! The worker's side of sockets: accepting, connecting, reading for sessions, flushing, closing.

use std::io;
use std::net::SocketAddr;

use super::{Pending, Slot, Timer, Worker};
use crate::net::{
    Conn, ConnKey, FIRST_REST, Listener, ListenerKey, Network, Place, Ready, Sharing, Stream,
};
use crate::reactor::SessionKey;
use crate::session::{Cause, Close, Event, Listen};
use crate::stats::Metric;

use super::TURN_ACCEPTS;

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
        let listener = Listener::new(socket, name, service, number);
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
            let Some(place) = self.setup.quota.enter() else {
                // Waiting in the backlog, a client is served as soon as a place is free.
                return self.rest_listener(key, "max_connections reached");
            };
            match self.network.accept(&mut listener.socket) {
                Ok((stream, peer)) => {
                    listener.accepted();
                    self.network.restore_reserve();
                    let from = From {
                        service: listener.service,
                        number: listener.number,
                        name: listener.name,
                        owner: listener.owner.map(|owner| (owner, key)),
                    };
                    self.welcome(stream, peer, from, place);
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

    /// Makes a session for an accepted connection.
    fn welcome(&mut self, stream: N::Stream, peer: SocketAddr, from: From, mut place: Place) {
        self.setup.counters.add(Metric::Accepted, 1);
        if !place.admit(peer.ip()) {
            self.setup.counters.add(Metric::Shed, 1);
            return self.journal.warn(self.now, "shed", || {
                format!(
                    "{} from={peer} refused: max_connections_per_ip reached",
                    from.name
                )
            });
        }
        if let Some((session, listener)) = from.owner {
            return self.visit(session, listener, stream, peer, place);
        }
        let Some(seat) = self.setup.seats.get_mut(from.service) else {
            return;
        };
        let session = seat.accept(from.number);
        let role = self.role_of(from.name);
        let mut slot = Slot::new(session, from.name, role, self.now);
        slot.peer = Some(peer);
        slot.place = Some(place);
        let Ok(session) = self.sessions.insert(slot) else {
            self.setup.counters.add(Metric::Shed, 1);
            return;
        };
        self.count_begun(role);
        match self.adopt(session, Conn::new(stream, false)) {
            Ok(conn) => self.accepted(session, conn, peer, None),
            Err(error) => {
                let cause = Cause::Io("watch", error.kind());
                self.end(session, Close::own(cause));
            }
        }
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
    }

    /// Opens a listener of a session's own.
    pub(super) fn open_listener(
        &mut self,
        session: SessionKey,
        at: SocketAddr,
        tag: u32,
        sharing: Sharing,
    ) {
        let opened = self.network.listen(at, sharing);
        let opened = opened.and_then(|(socket, _)| self.adopt_listener(session, socket));
        self.pending.push_back(match opened {
            Ok(key) => Pending::Listening(session, tag, key),
            Err(error) => Pending::Refused(session, tag, error.kind()),
        });
    }

    fn adopt_listener(
        &mut self,
        session: SessionKey,
        socket: N::Listener,
    ) -> io::Result<ListenerKey> {
        let Some(slot) = self.sessions.get_mut(session) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut listener = Listener::new(socket, slot.listener, 0, 0);
        listener.owner = Some(session);
        let full = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let key = self.listeners.insert(listener).map_err(full)?;
        let watched = match self.listeners.get_mut(key) {
            Some(listener) => self.network.watch_listener(&mut listener.socket, key),
            None => Ok(()),
        };
        if let Err(error) = watched {
            self.listeners.remove(key);
            return Err(error);
        }
        slot.own.get_or_insert_default().listeners.push(key);
        Ok(key)
    }

    /// Closes a listener of a session's own.
    pub(super) fn close_listener(&mut self, session: SessionKey, key: ListenerKey) {
        let slot = self.sessions.get_mut(session);
        let Some(own) = slot.and_then(|slot| slot.own.as_mut()) else {
            return;
        };
        if let Some(at) = own.listeners.iter().position(|held| *held == key) {
            own.listeners.swap_remove(at);
            self.drop_listener(key);
        }
    }

    /// Closes a listener.
    pub(super) fn drop_listener(&mut self, key: ListenerKey) {
        if let Some(listener) = self.listeners.remove(key)
            && let Some(timer) = listener.rest
        {
            self.wheel.cancel(timer);
            self.resting = self.resting.saturating_sub(1);
        }
    }

    /// Puts a connection under watch and among those of its session.
    pub(super) fn adopt(
        &mut self,
        session: SessionKey,
        mut conn: Conn<N::Stream>,
    ) -> io::Result<ConnKey> {
        conn.owner = Some(session);
        let full = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let key = self.conns.insert(conn).map_err(full)?;
        let watched = match self.conns.get_mut(key) {
            Some(conn) => self.network.watch(&mut conn.stream, key),
            None => Ok(()),
        };
        if let Err(error) = watched {
            self.conns.remove(key);
            return Err(error);
        }
        if let Some(slot) = self.sessions.get_mut(session) {
            slot.conns.insert(key);
        }
        Ok(key)
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

    /// Begins a connect for a session.
    pub(super) fn dial(
        &mut self,
        session: SessionKey,
        to: SocketAddr,
        within: std::time::Duration,
        tag: u32,
    ) {
        self.setup.counters.add(Metric::Dialled, 1);
        let dialled = self.network.dial(to).and_then(|stream| {
            let mut conn = Conn::new(stream, true);
            conn.tag = tag;
            self.adopt(session, conn)
        });
        match dialled {
            Ok(key) => {
                self.note_dial(session, key, to);
                let timer = self.wheel.arm(self.now, within, Timer::Connect(key));
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.timer = timer;
                }
            }
            Err(error) => {
                self.setup.counters.add(Metric::DialFailed, 1);
                let refused = Pending::Refused(session, tag, error.kind());
                self.pending.push_back(refused);
            }
        }
    }

    /// A connect has ended, well or not.
    pub(super) fn connect_ended(&mut self, key: ConnKey, outcome: io::Result<()>) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if !conn.connecting {
            return;
        }
        let (tag, owner) = (conn.tag, conn.owner);
        if let Some(timer) = conn.timer.take() {
            self.wheel.cancel(timer);
        }
        conn.connecting = false;
        conn.can_write = outcome.is_ok();
        if let Err(error) = outcome {
            self.setup.counters.add(Metric::DialFailed, 1);
            self.discard(key);
            if let Some(session) = owner {
                let why = error.kind();
                self.deliver(session, Event::Refused { tag, why });
            }
        } else if let Some(session) = owner {
            self.note_connected(session, key);
            self.deliver(session, Event::Connected { conn: key, tag });
        }
    }

    /// Something about a connection is ready.
    pub(super) fn conn_ready(&mut self, key: ConnKey, ready: Ready) {
        let Some(conn) = self.conns.get_mut(key) else {
            return; // An event for a connection closed earlier in this turn.
        };
        if conn.connecting {
            if !ready.writable {
                return;
            }
            conn.can_read = ready.readable;
            conn.read_closed = ready.read_closed;
            // Writable and nothing wrong is a connection; only a failure needs to be asked for.
            let outcome = match ready.hung_up {
                true => conn.stream.connected(),
                false => Ok(()),
            };
            self.connect_ended(key, outcome);
            return self.advance(key);
        }
        conn.can_read |= ready.readable;
        conn.can_write |= ready.writable;
        conn.read_closed |= ready.read_closed;
        if ready.hung_up && conn.link.is_none() && conn.is_held() {
            // A session that is not reading would never notice; with both sides closed, what it
            // has not read yet is all that is left, so the end may be looked for behind it.
            let outcome = conn.stream.connected();
            if let Err(error) = outcome {
                return self.lose(key, error.kind());
            }
        }
        self.advance(key);
        if ready.hung_up {
            self.notice_reset(key);
        }
    }

    /// Does whatever a connection's readiness allows.
    pub(super) fn advance(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get(key) else {
            return;
        };
        if conn.connecting {
            return;
        }
        match conn.link {
            Some((link, side)) => self.advance_link(link, usize::from(side)),
            None => {
                self.flush(key);
                self.read(key);
            }
        }
    }

    /// Tells a session of the bytes in a connection's ring, then of the stream's end.
    pub(super) fn offer(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.parting {
            return;
        }
        let Some(owner) = conn.owner else {
            // Its session has ended; only its last bytes leave, then it waits for the peer's end.
            conn.rx.clear(&mut self.pool);
            if conn.ended && conn.tx.is_empty() {
                self.discard(key);
            }
            return;
        };
        if !conn.rx.is_empty() {
            let last = conn.ended;
            let mut rx = std::mem::take(&mut conn.rx);
            let data = Event::Data {
                conn: key,
                rx: &mut rx,
                last,
            };
            self.deliver(owner, data);
            rx.trim(&mut self.pool);
            match self.conns.get_mut(key) {
                // A relay that began during the call has found the ring empty: it goes first.
                Some(conn) => conn.rx = rx,
                None => return rx.clear(&mut self.pool),
            }
        }
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.ended && !conn.end_told && conn.rx.is_empty() && conn.link.is_none() {
            conn.end_told = true;
            self.deliver(owner, Event::Eof { conn: key });
        }
    }

    /// Writes what is queued on a connection.
    pub(super) fn flush(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.dirty = false;
        if conn.connecting || conn.link.is_some() {
            return self.advance(key);
        }
        // A session that saw so much queued may have held back, even when all of it leaves now.
        conn.tell_drained |= conn.tx.len() > TX_LOW;
        let written = match conn.flush(&mut self.pool) {
            Ok(written) => written,
            Err(error) => return self.lose(key, error.kind()),
        };
        let (owner, cared) = (conn.owner, conn.care.is_some());
        if let Some(owner) = owner {
            let way = usize::from(!conn.dialled);
            self.book(owner, way, written);
        }
        if cared {
            self.look_after(key, written);
        }
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        match conn.owner {
            // Only bytes that have left are news: a mark above what is queued would be told of in
            // every turn.
            Some(owner)
                if written > 0 && conn.tell_drained && conn.tx.len() <= conn.low_mark(TX_LOW) =>
            {
                conn.tell_drained = false;
                self.deliver(owner, Event::Drained { conn: key });
            }
            None if conn.parting => {}
            None if conn.tx.is_empty() && (conn.ended || !(conn.can_read || conn.lingers)) => {
                self.discard(key);
            }
            _ => {}
        }
    }

    /// A connection of a session broke.
    pub(super) fn lose(&mut self, key: ConnKey, why: io::ErrorKind) {
        let owner = self.conns.get(key).and_then(|conn| conn.owner);
        self.discard(key);
        if let Some(session) = owner {
            self.pending.push_back(Pending::Lost(session, key, why));
        }
    }

    /// Closes a connection: its blocks, its timer and its descriptor are free at once.
    pub(super) fn discard(&mut self, key: ConnKey) {
        self.leave_line(key);
        self.dissolve_line(key);
        let Some(mut conn) = self.conns.remove(key) else {
            return;
        };
        conn.release(&mut self.pool);
        if let Some(timer) = conn.timer {
            self.wheel.cancel(timer);
        }
        if let Some(care) = &conn.care {
            let paced = care.pace.as_ref().and_then(|pace| pace.timer);
            for timer in care.stall.into_iter().chain(paced) {
                self.wheel.cancel(timer);
            }
        }
        if let Some(owner) = conn.owner
            && let Some(slot) = self.sessions.get_mut(owner)
        {
            slot.conns.remove(key);
        }
        drop(conn);
        self.wake_listeners();
    }
}

/// Where an accepted connection came in.
struct From {
    service: usize,
    number: usize,
    name: u16,
    /// The session whose listener it is, if it is one's own.
    owner: Option<(SessionKey, ListenerKey)>,
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

/// A session that queued more than this is told when the queue has fallen to it.
pub(super) const TX_LOW: usize = 64 * 1024;

/// Connections that may turn out broken in one turn; at more than that the listener rests.
const TURN_FAILURES: usize = 16;
