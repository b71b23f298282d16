//! The worker's side of sockets: connecting, reading for sessions, flushing, closing. How connections
//! come in is the file `entry`.

use std::io;
use std::net::SocketAddr;

use super::{DRAINING, Pending, Timer, Worker};
use crate::net::{Conn, ConnKey, Listener, ListenerKey, Network, Ready, Sharing, Stream};
use crate::reactor::SessionKey;
use crate::session::Event;
use crate::stats::Metric;

impl<N: Network> Worker<N> {
    /// Opens a listener of a session's own.
    pub(super) fn open_listener(
        &mut self,
        session: SessionKey,
        at: SocketAddr,
        tag: u32,
        sharing: Sharing,
    ) {
        let opened = match self.phase {
            // It would outlast the closing of all others, and keep a newer process from the port.
            DRAINING.. => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => self.network.listen(at, sharing),
        };
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
        let Some(mut listener) = self.listeners.remove(key) else {
            return;
        };
        if let Some(timer) = listener.rest {
            self.wheel.cancel(timer);
            self.resting = self.resting.saturating_sub(1);
        }
        if listener.owner.is_none() {
            self.network.forget_listener(&mut listener.socket);
        }
    }

    /// Puts a connection under watch and among those of its session.
    pub(super) fn adopt(
        &mut self,
        session: SessionKey,
        mut conn: Conn<N::Stream>,
    ) -> io::Result<ConnKey> {
        conn.owner = Some(session);
        let key = self.watch(conn)?;
        if let Some(slot) = self.sessions.get_mut(session) {
            slot.conns.insert(key);
        }
        Ok(key)
    }

    /// Puts a connection under watch.
    pub(super) fn watch(&mut self, conn: Conn<N::Stream>) -> io::Result<ConnKey> {
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
        Ok(key)
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
        if conn.parting || conn.knocks() {
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
            None if conn.parting || conn.knocks() => {}
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

/// A session that queued more than this is told when the queue has fallen to it.
pub(super) const TX_LOW: usize = 64 * 1024;
