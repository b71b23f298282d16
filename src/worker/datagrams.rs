//! The worker's side of datagrams: sockets and whose they are, receiving for sessions, sending.
//!
//! ```text
//!   ready ─> a batch ─> its session, train by train ─> Outgoing ─> one call for each socket,
//!                                                                  at the end of the turn
//! ```
//!
//! A listener's socket is open for as long as the server takes work: in a drain its session ends at once, and
//! it is read no more, as others may have a copy of it. Its session is not begun by
//! anybody, so it is not waited for when the server stops; should it fail before, another takes its
//! place, at most a hundred times a second.
//!
//! Bounds: each socket of a session's own has a place in the quota; a socket gives
//! [`TURN_DATAGRAMS`], or [`TURN_BYTES`], and one batch more in a turn; what waits to leave is
//! bounded by [`Outgoing`], and never waits for the system.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{DRAINING, MOST_SOCKETS, Pending, Slot, TURN_BYTES, TURN_DATAGRAMS, Timer, Worker};
use crate::net::{
    Batch, Door, Home, Network, Outgoing, Place, Socket, SocketKey, SocketMark, Train,
};
use crate::reactor::{SessionKey, Table};
use crate::session::{Action, Event, Listen};
use crate::stats::{Metric, Refusal};

/// One core's datagram sockets and what passes by them.
pub(super) struct Exchange<S> {
    pub(super) sockets: Table<Socket<S>, SocketMark>,
    pub(super) outgoing: Outgoing,
    /// How many sessions serve a listener's datagrams.
    pub(super) seated: usize,
    /// Sockets with datagrams to send.
    dirty: Vec<SocketKey>,
    /// Sockets to read in this turn, or the next.
    again: VecDeque<SocketKey>,
    batch: Batch,
    /// Something was received or sent since spare memory was looked for.
    used: bool,
}

/// What a session is told of a socket of its own.
pub(super) enum News {
    Bound(SocketAddr),
    Unbound(io::ErrorKind),
    Bounced(io::ErrorKind),
}

impl<S> Default for Exchange<S> {
    fn default() -> Self {
        Self {
            sockets: Table::new(MOST_SOCKETS),
            outgoing: Outgoing::default(),
            seated: 0,
            dirty: Vec::new(),
            again: VecDeque::new(),
            batch: Batch::default(),
            used: false,
        }
    }
}

impl<S> Exchange<S> {
    /// Names a socket that is to be opened when its session's call is over.
    pub(super) fn reserve(&mut self, place: Place) -> Option<SocketKey> {
        let mut socket = Socket::new(None);
        socket.place = Some(place);
        self.sockets.insert(socket).ok()
    }

    /// Queues a datagram; how many were dropped, as there was no room or no such socket.
    pub(super) fn push(
        &mut self,
        key: SocketKey,
        to: Option<SocketAddr>,
        parts: &[&[u8]],
    ) -> usize {
        let Some(socket) = self.sockets.get_mut(key) else {
            return 1;
        };
        let was_empty = socket.line.is_empty();
        let queued = self.outgoing.push(&mut socket.line, to, parts);
        if was_empty && queued {
            self.dirty.push(key);
        }
        usize::from(!queued)
    }

    /// Queues a train; how many of its datagrams were dropped.
    pub(super) fn push_train(
        &mut self,
        key: SocketKey,
        to: Option<SocketAddr>,
        train: &Train<'_>,
    ) -> usize {
        let Some(socket) = self.sockets.get_mut(key) else {
            return train.count();
        };
        let was_empty = socket.line.is_empty();
        let dropped = self.outgoing.push_train(&mut socket.line, to, train);
        if was_empty && !socket.line.is_empty() {
            self.dirty.push(key);
        }
        dropped
    }

    /// True when something is left to do that no event will tell of.
    pub(super) fn is_busy(&self) -> bool {
        !self.again.is_empty() || !self.dirty.is_empty()
    }

    /// How many sockets there are, the listeners' among them.
    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// How many sockets sessions have opened for themselves.
    pub(super) fn own(&self) -> usize {
        let own = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.home.is_none());
        own.count()
    }

    /// True when memory is kept for datagrams to come.
    pub(super) fn has_spare(&self) -> bool {
        self.batch.has_room() || self.outgoing.has_memory()
    }

    /// Gives memory back that nobody has needed since the last call.
    pub(super) fn drop_spare(&mut self) {
        if !std::mem::take(&mut self.used) {
            self.batch.release();
            self.outgoing.release();
        }
    }
}

impl<N: Network> Worker<N> {
    /// Takes a listener's datagram socket into care and makes its session. Errors are the poll's,
    /// and that the service has no use for datagrams.
    pub fn listen_datagrams(
        &mut self,
        socket: N::Socket,
        listen: Listen,
        service: usize,
        number: usize,
    ) -> io::Result<()> {
        let home = Home {
            name: self.christen(listen.to_string(), listen.role, (service, Some(number))),
            service,
            number,
            address: listen.address,
        };
        let mut socket = Socket::new(Some(socket));
        socket.home = Some(home);
        let doors = &self.setup.doors;
        socket.door = Some(doors.at(service, listen.name.as_deref(), &listen.terms));
        let full = |_| io::Error::other("too many sockets");
        let key = self.exchange.sockets.insert(socket).map_err(full)?;
        self.watch_socket(key)?;
        if self.seat(key, home) {
            return Ok(());
        }
        self.drop_socket(key);
        Err(io::Error::other("its service takes no datagrams"))
    }

    /// Makes the session of a listener's datagrams; false when its service has none for them.
    fn seat(&mut self, key: SocketKey, home: Home) -> bool {
        let seat = self.setup.seats.get_mut(home.service);
        let Some(session) = seat.and_then(|seat| seat.datagrams(home.number)) else {
            return false;
        };
        let role = self.role_of(home.name);
        let mut slot = Slot::new(session, home.name, role, self.now);
        slot.peer = Some(home.address);
        slot.seated = true;
        let Ok(session) = self.sessions.insert(slot) else {
            return false;
        };
        self.count_begun(role);
        self.exchange.seated += 1;
        self.give_socket(session, key);
        let news = News::Bound(home.address);
        self.tell_news(session, key, news);
        true
    }

    /// A listener's datagrams have had no session for a while.
    pub(super) fn reseat(&mut self, key: SocketKey) {
        let Some(socket) = self.exchange.sockets.get(key) else {
            return;
        };
        match socket
            .home
            .filter(|_| self.phase < DRAINING && !socket.is_retired)
        {
            Some(home) => {
                self.seat(key, home);
                // What came meanwhile will not be announced again.
                self.receive_later(key);
            }
            None => self.drop_socket(key),
        }
    }

    /// Opens a socket that a session has asked for by [`Action::Bind`].
    pub(super) fn bind_socket(&mut self, session: SessionKey, key: SocketKey, at: SocketAddr) {
        let bound = match self.phase {
            // A port on loan is to be closed by now, as for listeners; any other may be had.
            DRAINING.. if at.port() != 0 => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => self.network.bind(at),
        };
        match bound {
            Ok((socket, address)) => self.open_socket(session, key, socket, Some(address)),
            Err(error) => self.fail_socket(session, key, error.kind()),
        }
    }

    /// Opens a socket that a session has asked for by [`Action::Associate`].
    pub(super) fn associate_socket(&mut self, session: SessionKey, key: SocketKey, to: SocketAddr) {
        match self.network.associate(to) {
            Ok(socket) => self.open_socket(session, key, socket, None),
            Err(error) => self.fail_socket(session, key, error.kind()),
        }
    }

    /// `bound` is told to the session; a connected socket is bound to nothing of interest.
    fn open_socket(
        &mut self,
        session: SessionKey,
        key: SocketKey,
        socket: N::Socket,
        bound: Option<SocketAddr>,
    ) {
        if let Some(reserved) = self.exchange.sockets.get_mut(key) {
            reserved.io = Some(socket);
            reserved.connected = bound.is_none();
        }
        if let Err(error) = self.watch_socket(key) {
            return self.fail_socket(session, key, error.kind());
        }
        self.give_socket(session, key);
        if let Some(address) = bound {
            let news = Pending::Socket(session, key, News::Bound(address));
            self.pending.push_back(news);
        }
    }

    fn watch_socket(&mut self, key: SocketKey) -> io::Result<()> {
        let socket = self.exchange.sockets.get_mut(key);
        match socket.and_then(|socket| socket.io.as_mut()) {
            Some(socket) => self.network.watch_socket(socket, key),
            None => Ok(()),
        }
    }

    /// A socket could not be opened: what is queued on it goes nowhere.
    fn fail_socket(&mut self, session: SessionKey, key: SocketKey, why: io::ErrorKind) {
        if let Some(socket) = self.exchange.sockets.get_mut(key) {
            socket.io = None;
        }
        self.drop_socket(key);
        let news = Pending::Socket(session, key, News::Unbound(why));
        self.pending.push_back(news);
    }

    /// Puts a socket among those of a session.
    fn give_socket(&mut self, session: SessionKey, key: SocketKey) {
        let socket = self.exchange.sockets.get_mut(key);
        if let (Some(slot), Some(socket)) = (self.sessions.get_mut(session), socket) {
            let own = &mut slot.own.get_or_insert_default().sockets;
            socket.owner = Some(session);
            socket.number = own.len();
            own.push(key);
        }
    }

    /// Closes a socket that a session has opened for itself.
    pub(super) fn unbind_socket(&mut self, session: SessionKey, key: SocketKey) {
        let Some(socket) = self.exchange.sockets.get(key) else {
            return;
        };
        let number = socket.number;
        if socket.owner != Some(session) || socket.home.is_some() {
            return;
        }
        let slot = self.sessions.get_mut(session);
        if let Some(own) = slot.and_then(|slot| slot.own.as_mut()) {
            own.sockets.swap_remove(number);
            let moved = own.sockets.get(number).copied();
            if let Some(moved) = moved.and_then(|key| self.exchange.sockets.get_mut(key)) {
                moved.number = number;
            }
        }
        self.drop_socket(key);
    }

    /// A session that has ended leaves a socket behind; one that is a listener's has another take
    /// its place.
    pub(super) fn leave_socket(&mut self, key: SocketKey) {
        let Some(socket) = self.exchange.sockets.get_mut(key) else {
            return;
        };
        socket.owner = None;
        if socket.home.is_none() {
            return self.drop_socket(key);
        }
        self.exchange.seated -= 1;
        if self.phase >= DRAINING || socket.is_retired {
            return self.drop_socket(key);
        }
        self.wheel.arm(self.now, RESEAT, Timer::Reseat(key));
    }

    /// A listener's datagrams are not wanted any more: its socket closes with its session.
    pub(super) fn retire_socket(&mut self, key: SocketKey) {
        let Some(socket) = self.exchange.sockets.get_mut(key) else {
            return; // Its session has ended at the first word.
        };
        socket.is_retired = true;
        if socket.owner.is_none() {
            self.drop_socket(key);
        }
    }

    /// Forgets sockets that were asked for in a call whose wishes are not granted.
    pub(super) fn revoke(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::Bind(socket, _) | Action::Associate(socket, _) = action {
                self.drop_socket(*socket);
            }
        }
    }

    /// Closes a socket behind what is queued on it.
    fn drop_socket(&mut self, key: SocketKey) {
        self.flush_socket(key);
        if let Some(mut socket) = self.exchange.sockets.remove(key) {
            if let (Some(_), Some(io)) = (socket.home, &mut socket.io) {
                self.network.forget_socket(io);
            }
            drop(socket);
            self.wake_listeners();
        }
    }

    /// Takes what waits at a socket, up to the turn's share, and gives it to its session.
    fn receive(&mut self, key: SocketKey) {
        let mut batch = std::mem::take(&mut self.exchange.batch);
        let mut share = Share::default();
        while !share.is_used_up() {
            let Some(socket) = self.exchange.sockets.get_mut(key) else {
                break;
            };
            // Without a session it is left in the socket, for the next.
            let (Some(owner), Some(io)) = (socket.owner, socket.io.as_mut()) else {
                break;
            };
            match batch.fill(io) {
                Ok(more) => {
                    self.hand_over(owner, key, &batch, &mut share);
                    if !more {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    share.datagrams += 1;
                    if socket.connected {
                        let news = Pending::Socket(owner, key, News::Bounced(error.kind()));
                        self.pending.push_back(news);
                    }
                }
            }
        }
        self.exchange.batch = batch;
        self.exchange.used = true;
        if share.is_used_up() {
            self.receive_later(key);
        }
    }

    /// Gives a batch to a session, train by train. The session may end or close the socket
    /// meanwhile; then nobody is left to whom the rest could be given.
    fn hand_over(&mut self, owner: SessionKey, key: SocketKey, batch: &Batch, share: &mut Share) {
        let (mut received, mut dropped) = (0, 0);
        let socket = self.exchange.sockets.get(key);
        let door = socket.and_then(|socket| socket.door.clone());
        let choosy = door.filter(|door| door.is_choosy());
        for train in batch.trains() {
            let count = train.as_ref().map_or(1, Train::count);
            received += count;
            share.bytes += train.as_ref().map_or(0, |train| train.payload.len());
            let socket = self.exchange.sockets.get(key);
            let heard = socket.is_some_and(|socket| socket.owner == Some(owner));
            let is_barred = |train: &Train<'_>| {
                let barred = |door: &Arc<Door>| door.bars(train.from.ip());
                choosy.as_ref().is_some_and(barred)
            };
            if train.as_ref().is_some_and(is_barred) {
                self.setup.counters.refuse(Refusal::Denied);
                dropped += count;
                continue;
            }
            match train.filter(|_| heard) {
                Some(train) => self.deliver(owner, Event::Datagrams { socket: key, train }),
                None => dropped += count,
            }
        }
        share.datagrams += received;
        let counters = &self.setup.counters;
        counters.add(Metric::DatagramsIn, received as u64);
        counters.add(Metric::DatagramsDropped, dropped as u64);
    }

    /// Has a socket read in this turn's pass over all that are to be read, or in the next turn's:
    /// once a turn.
    pub(super) fn receive_later(&mut self, key: SocketKey) {
        if let Some(socket) = self.exchange.sockets.get_mut(key)
            && !socket.queued
        {
            socket.queued = true;
            self.exchange.again.push_back(key);
        }
    }

    /// Reads the sockets that became ready, or had more than their share the last time.
    pub(super) fn receive_again(&mut self) {
        for _ in 0..self.exchange.again.len() {
            let Some(key) = self.exchange.again.pop_front() else {
                break;
            };
            if let Some(socket) = self.exchange.sockets.get_mut(key) {
                socket.queued = false;
                self.receive(key);
            }
        }
    }

    /// Sends what waits at all sockets. It calls no session.
    pub(super) fn flush_sockets(&mut self) {
        if self.exchange.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.exchange.dirty);
        for key in dirty.drain(..) {
            self.flush_socket(key);
        }
        self.exchange.dirty = dirty;
        self.exchange.outgoing.clear();
        self.exchange.used = true;
    }

    fn flush_socket(&mut self, key: SocketKey) {
        let Some(socket) = self.exchange.sockets.get_mut(key) else {
            return;
        };
        let flushed = socket.flush(&self.exchange.outgoing);
        let counters = &self.setup.counters;
        counters.add(Metric::DatagramsOut, flushed.sent as u64);
        counters.add(Metric::DatagramsDropped, flushed.dropped as u64);
        if let (Some(owner), Some(why)) = (socket.owner, flushed.bounced) {
            let news = Pending::Socket(owner, key, News::Bounced(why));
            self.pending.push_back(news);
        }
    }

    /// Tells a session of a socket of its own; no news of one that it has closed meanwhile.
    pub(super) fn tell_news(&mut self, session: SessionKey, socket: SocketKey, news: News) {
        let open = self.exchange.sockets.get(socket);
        let is_own = open.is_some_and(|socket| socket.owner == Some(session));
        let event = match news {
            News::Bound(_) | News::Bounced(_) if !is_own => return,
            News::Bound(address) => Event::Bound { socket, address },
            News::Unbound(why) => Event::Unbound { socket, why },
            News::Bounced(why) => Event::Bounced { socket, why },
        };
        self.deliver(session, event);
    }

    /// The sockets' part of [`Worker::check`].
    pub(super) fn check_exchange(&self) {
        let exchange = &self.exchange;
        assert!(exchange.outgoing.is_empty(), "datagrams outlast a turn");
        let mut seated = 0;
        for (key, socket) in exchange.sockets.iter() {
            assert!(socket.line.is_empty(), "a line outlasts a turn");
            assert!(socket.io.is_some(), "a socket was never opened");
            assert_eq!(socket.place.is_none(), socket.home.is_some());
            assert_eq!(socket.queued, exchange.again.contains(&key));
            let owner = socket.owner.and_then(|owner| self.sessions.get(owner));
            assert!(owner.is_some() || socket.home.is_some(), "nobody's socket");
            if let Some(own) = owner.and_then(|owner| owner.own.as_ref()) {
                assert_eq!(own.sockets.get(socket.number), Some(&key), "a lost socket");
                seated += usize::from(socket.home.is_some());
            }
        }
        assert_eq!(seated, exchange.seated, "sessions of listeners miscounted");
        for (key, slot) in self.sessions.iter() {
            for socket in slot.own.iter().flat_map(|own| &own.sockets) {
                let owner = exchange.sockets.get(*socket).and_then(|one| one.owner);
                assert_eq!(owner, Some(key), "a session holds a socket of another");
            }
        }
    }
}

/// How much a socket has given in one turn.
#[derive(Default)]
struct Share {
    datagrams: usize,
    bytes: usize,
}

impl Share {
    fn is_used_up(&self) -> bool {
        self.datagrams >= TURN_DATAGRAMS || self.bytes >= TURN_BYTES
    }
}

/// How long a listener's datagrams wait for a session when theirs has failed.
const RESEAT: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
