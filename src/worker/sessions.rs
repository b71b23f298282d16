//! The worker's side of sessions: calling them, performing what they ask, ending them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::datagrams::Exchange;
use super::slot::Slot;
use super::sockets::TX_LOW;
use super::{DRAINING, Handoff, Pending, Timer, Worker};
use crate::buffer::{Pool, Ring};
use crate::control::{Command, Reply, Request};
use crate::net::{
    Conn, ConnKey, ConnMark, Level, Network, Quota, SocketKey, Stream, Throttle, Train,
};
use crate::reactor::{Handle, SessionKey, SessionMark, Table, TimerKey};
use crate::session::{Action, Cause, Close, Cx, Event, Outlets, Session};
use crate::stats::{Counters, Metric};
use crate::wire::proxy::Ends;

/// What a session reaches while it is called: the rings and what leaves by datagram sockets, nothing
/// else of the worker.
struct Wires<'a, S, D> {
    conns: &'a mut Table<Conn<S>, ConnMark>,
    pool: &'a mut Pool,
    dirty: &'a mut Vec<ConnKey>,
    lazy: &'a mut Vec<ConnKey>,
    exchange: &'a mut Exchange<D>,
    quota: &'a Arc<Quota>,
    /// New flows are given up.
    is_full: bool,
    counters: &'a Counters,
    sessions: &'a mut Table<Slot, SessionMark>,
    pending: &'a mut VecDeque<Pending>,
    /// Who is being called.
    caller: Handle,
    now: Instant,
    is_ending: bool,
    unix_time: &'a dyn Fn() -> Duration,
}

impl<S, D> Wires<'_, S, D> {
    /// Has a connection flushed at the end of the turn, as bytes were queued on it.
    fn soil(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        // Noted here and not after a write: the socket may take all of it at once, and a session
        // that has paused because of it would hear nothing.
        conn.tell_drained |= conn.tx.len() > TX_LOW;
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(key);
        }
    }
}

impl<S: Stream, D> Outlets for Wires<'_, S, D> {
    fn send(&mut self, key: ConnKey, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else {
            return; // It broke in this turn; the session will hear of it.
        };
        conn.tx.push(bytes, self.pool);
        self.soil(key);
    }

    fn send_lazily(&mut self, key: ConnKey, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.tx.push(bytes, self.pool);
        if !conn.dirty && !conn.lazy {
            conn.lazy = true;
            self.lazy.push(key);
        }
    }

    fn forward(&mut self, rx: &mut Ring, to: ConnKey, count: usize) {
        let Some(conn) = self.conns.get_mut(to) else {
            return rx.consume(count);
        };
        rx.forward(count, &mut conn.tx, self.pool);
        self.soil(to);
    }

    fn unsent(&self, key: ConnKey) -> usize {
        self.conns.get(key).map_or(0, |conn| conn.tx.len())
    }

    fn unread(&self, key: ConnKey) -> usize {
        self.conns.get(key).map_or(0, |conn| conn.rx.len())
    }

    fn room(&self, key: ConnKey, most: usize) -> usize {
        self.conns.get(key).map_or(most, |conn| conn.room(most))
    }

    fn queued(&self) -> usize {
        self.pool.queued()
    }

    fn ends(&self, key: ConnKey) -> Option<Ends> {
        let conn = self.conns.get(key).filter(|conn| !conn.dialled)?;
        let from = self.sessions.get(self.caller.session)?.peer?;
        let said = conn.care.as_ref().and_then(|care| care.destination);
        let to = said.or_else(|| conn.stream.local())?;
        Some(Ends { from, to })
    }

    fn source(&self, key: ConnKey) -> Option<Arc<Throttle>> {
        let sources = self.quota.sources();
        if !sources.are_limited() {
            return None;
        }
        let peer = self.conns.get(key)?.stream.peer()?;
        sources.throttle(peer.ip(), self.now)
    }

    fn reserve_socket(&mut self) -> Option<SocketKey> {
        let place = match self.is_full {
            true => None,
            false => self.quota.enter(),
        };
        let reserved = place.and_then(|place| self.exchange.reserve(place));
        if reserved.is_none() {
            self.counters.add(Metric::Shed, 1);
        }
        reserved
    }

    fn datagram(&mut self, socket: SocketKey, to: Option<SocketAddr>, parts: &[&[u8]]) {
        let dropped = self.exchange.push(socket, to, parts);
        self.counters.add(Metric::DatagramsDropped, dropped as u64);
    }

    fn train(&mut self, socket: SocketKey, to: Option<SocketAddr>, train: &Train<'_>) {
        let dropped = self.exchange.push_train(socket, to, train);
        self.counters.add(Metric::DatagramsDropped, dropped as u64);
    }

    fn count(&mut self, metric: Metric, count: u64) {
        self.counters.add(metric, count);
    }

    fn unix_time(&self) -> Duration {
        (self.unix_time)()
    }

    fn is_ending(&self) -> bool {
        self.is_ending
    }

    fn spawn(&mut self, session: Box<dyn Session>) -> Option<Handle> {
        let caller = self.sessions.get(self.caller.session)?;
        let (listener, role) = (caller.listener, caller.role);
        let Some(place) = self.quota.enter() else {
            self.counters.add(Metric::Shed, 1);
            return None;
        };
        let mut slot = Slot::new(session, listener, role, self.now);
        slot.place = Some(place);
        let session = self.sessions.insert(slot).ok()?;
        if let Some(role) = self.counters.role(usize::from(role)) {
            role.begin();
        }
        self.pending.push_back(Pending::Opened(session));
        let core = self.caller.core;
        Some(Handle { core, session })
    }
}

impl<N: Network> Worker<N> {
    /// Calls a session with one event, performs what it asks for, and ends it if it says so.
    ///
    /// A panic ends that session alone. Nothing here calls a session again: what the actions
    /// cause waits on `pending`.
    pub(super) fn deliver(&mut self, key: SessionKey, event: Event<'_>) {
        let Some(mut session) = self
            .sessions
            .get_mut(key)
            .and_then(|slot| slot.session.take())
        else {
            return; // It has ended; what is meant for it goes nowhere.
        };
        let mut actions = std::mem::take(&mut self.actions);
        let outcome = self.call(key, &mut actions, |cx| session.handle(event, cx));
        if let Some(slot) = self.sessions.get_mut(key) {
            slot.session = Some(session);
        }
        match outcome {
            Some(Ok(())) => self.perform_all(key, &mut actions),
            Some(Err(close)) => {
                self.perform_all(key, &mut actions);
                self.end(key, close);
            }
            None => {
                self.revoke(&actions);
                self.end(key, Close::own(Cause::Panicked));
            }
        }
        actions.clear();
        self.actions = actions;
        if self.exchange.outgoing.is_long() {
            self.flush_sockets();
        }
    }

    /// Calls into a session's code; `None` when it panicked.
    fn call<T>(
        &mut self,
        key: SessionKey,
        actions: &mut Vec<Action>,
        code: impl FnOnce(&mut Cx<'_>) -> T,
    ) -> Option<T> {
        let handle = self.handle(key);
        let network = &self.network;
        let mut wires = Wires {
            conns: &mut self.conns,
            pool: &mut self.pool,
            dirty: &mut self.dirty,
            lazy: &mut self.lazy,
            exchange: &mut self.exchange,
            quota: &self.setup.quota,
            is_full: self.setup.load.level() == Level::Full,
            counters: &self.setup.counters,
            sessions: &mut self.sessions,
            pending: &mut self.pending,
            caller: handle,
            now: self.now,
            is_ending: self.phase >= DRAINING,
            unix_time: &|| network.unix_time(),
        };
        let random = &mut self.random;
        let mut cx = Cx::new(self.now, handle, actions, &mut wires, random);
        let outcome = catch_unwind(AssertUnwindSafe(|| code(&mut cx)));
        if outcome.is_err() {
            self.setup.counters.add(Metric::Panicked, 1);
        }
        outcome.ok()
    }

    fn perform_all(&mut self, key: SessionKey, actions: &mut Vec<Action>) {
        for action in actions.drain(..) {
            self.perform(key, action);
        }
    }

    fn perform(&mut self, session: SessionKey, action: Action) {
        match action {
            Action::Connect { to, within, tag } => self.dial(session, to, within, tag),
            Action::Relay(a, b, silence) => self.link(session, a, b, silence),
            Action::Pace(a, b, throttles) => self.pace(session, [a, b], throttles),
            Action::PaceOne(conn, way, throttles) => self.pace_one(conn, way, throttles),
            Action::Finish(conn) => self.finish(conn),
            Action::Resume(conn) => {
                self.offer_later(conn);
            }
            Action::Arm(tag, after) => {
                let timer = self
                    .wheel
                    .arm(self.now, after, Timer::Session(session, tag));
                self.replace_timer(session, tag, timer);
            }
            Action::Disarm(tag) => self.replace_timer(session, tag, None),
            Action::Ask(ticket, command) => self.ask(session, ticket, command),
            Action::Post(to, mail) => self.post(session, to, mail),
            Action::PassedOn(moved) => self.add_moved(session, moved),
            Action::ServedBy(conn) => self.note_server(session, conn),
            Action::Hand(conn, to, mail) => self.hand(
                conn,
                Handoff {
                    from: session,
                    to,
                    mail,
                },
            ),
            Action::AwaitRoom { conn, of, until } => self.await_room(conn, of, until),
            Action::Pause(conn) => self.pause(conn),
            Action::LowMark(conn, bytes) => {
                if let Some(conn) = self.conns.get_mut(conn) {
                    conn.care().low = Some(bytes);
                }
            }
            Action::Shallow(conn, bytes) => {
                if let Some(conn) = self.conns.get_mut(conn) {
                    conn.stream.shallow(bytes);
                }
            }
            Action::Patience(conn, within) => {
                if let Some(conn) = self.conns.get_mut(conn) {
                    conn.care().patience = Some(within);
                }
            }
            Action::Hold(conn, bytes) => {
                if let Some(conn) = self.conns.get_mut(conn) {
                    conn.care().hold = Some(bytes);
                }
            }
            Action::Close(conn) => self.close(session, conn),
            Action::Reset(conn) => self.reset(session, conn),
            Action::Listen(at, tag, sharing) => self.open_listener(session, at, tag, sharing),
            Action::Unlisten(listener) => self.close_listener(session, listener),
            Action::Bind(socket, at) => self.bind_socket(session, socket, at),
            Action::Associate(socket, to) => self.associate_socket(session, socket, to),
            Action::Unbind(socket) => self.unbind_socket(session, socket),
        }
    }

    fn add_moved(&mut self, session: SessionKey, [up, down]: [u64; 2]) {
        if let Some(slot) = self.sessions.get_mut(session) {
            slot.moved[0] += up;
            slot.moved[1] += down;
        }
    }

    fn replace_timer(&mut self, session: SessionKey, tag: u8, timer: Option<TimerKey>) {
        let Some(slot) = self.sessions.get_mut(session) else {
            return;
        };
        let old = std::mem::replace(&mut slot.timers[usize::from(tag)], timer);
        if let Some(old) = old {
            self.wheel.cancel(old);
        }
    }

    /// Passes a question on; when the control thread's box is full the answer is that it is busy.
    fn ask(&mut self, session: SessionKey, ticket: u32, command: Command) {
        if let (Command::Lease { .. }, Some(slot)) = (&command, self.sessions.get_mut(session)) {
            slot.leases = true;
        }
        let request = Request {
            from: self.handle(session),
            ticket,
            command,
        };
        if self.setup.control.try_send(request).is_err() {
            self.setup.counters.add(Metric::Unasked, 1);
            let busy = Pending::Reply(session, ticket, Reply::Busy);
            self.pending.push_back(busy);
        }
    }

    /// Tells the control thread that a session has ended, so that no lease is held for ever by one
    /// that forgot to leave it, did not live to hear of it, or panicked.
    pub(super) fn part(&mut self, session: Handle) {
        let request = Request {
            from: session,
            ticket: 0,
            command: Command::Ended,
        };
        if self.setup.control.try_send(request).is_err() {
            self.wheel.arm(self.now, PART_AGAIN, Timer::Part(session));
        }
    }

    /// Has the end of the stream sent after what is queued.
    fn finish(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.shut_wanted = true;
            if !conn.dirty {
                conn.dirty = true;
                self.dirty.push(key);
            }
        }
    }

    /// Delivers what an action gave rise to.
    pub(super) fn deliver_pending(&mut self, pending: Pending) {
        match pending {
            Pending::Refused(session, tag, why) => {
                self.deliver(session, Event::Refused { tag, why });
            }
            Pending::Lost(session, conn, why) => self.deliver(session, Event::Lost { conn, why }),
            Pending::Relayed(session, relayed) => {
                self.add_moved(session, relayed.moved);
                self.deliver(session, Event::Relayed(relayed));
            }
            Pending::Reply(session, ticket, reply) => {
                self.deliver(session, Event::Reply { ticket, reply });
            }
            Pending::Resume(conn) => self.resume(conn),
            Pending::Room(conn) => self.call_waiters(conn),
            Pending::Crowding(session, conn) => self.deliver(session, Event::Crowding { conn }),
            Pending::Stalled(session, conn) => self.deliver(session, Event::Stalled { conn }),
            Pending::Listening(session, tag, listener) => {
                self.deliver(session, Event::Listening { listener, tag });
            }
            Pending::Socket(session, socket, news) => self.tell_news(session, socket, news),
            Pending::Mail(session, from, mail) => {
                if self.sessions.get(session).is_some() {
                    return self.deliver(session, Event::Mail { from, mail });
                }
                self.send_back(session, from, mail);
            }
            Pending::Returned(session, to, mail) => {
                self.deliver(session, Event::Returned { to, mail });
            }
            Pending::Opened(session) => self.deliver(session, Event::Opened),
            Pending::Hand(conn, handoff) => self.carry(conn, handoff),
            Pending::Freight(session, from, mail, freight) => {
                self.unload(session, from, mail, *freight);
            }
        }
    }

    fn offer_later(&mut self, key: ConnKey) {
        self.pending.push_back(Pending::Resume(key));
    }

    /// A session's timer fired, unless it has been armed anew or cancelled in this very pass.
    pub(super) fn session_timer(&mut self, key: SessionKey, tag: u8, timer: TimerKey) {
        if let Some(slot) = self.sessions.get_mut(key)
            && slot.timers[usize::from(tag)] == Some(timer)
        {
            slot.timers[usize::from(tag)] = None;
            self.deliver(key, Event::Timer { tag });
        }
    }

    pub(super) fn tell_stopping(&mut self, key: SessionKey) {
        self.deliver(key, Event::Stopping);
    }

    /// Ends a session: exactly once, with one line in the log, and nothing of it is left but, when
    /// the end is a graceful one, connections whose last bytes are still leaving.
    pub(super) fn end(&mut self, key: SessionKey, close: Close) {
        let Some(mut slot) = self.sessions.remove(key) else {
            return;
        };
        let close = self.explain(close);
        self.setup.counters.add(Metric::Ended, 1);
        if close.is_fault() {
            self.setup.counters.add(Metric::Faulted, 1);
        }
        self.count_ended(&mut slot, &close);
        self.write_down(key, &slot, &close);
        self.record(key, &slot, &close);
        // Whoever learns that it is over, or gets its ports next, can listen on them.
        let listeners = slot
            .own
            .as_mut()
            .map(|own| std::mem::take(&mut own.listeners));
        for listener in listeners.unwrap_or_default() {
            self.drop_listener(listener);
        }
        self.take_leave(key, &mut slot);
        for timer in slot.timers.into_iter().flatten() {
            self.wheel.cancel(timer);
        }
        for socket in slot.own.take().unwrap_or_default().sockets {
            self.leave_socket(socket);
        }
        for conn in slot.conns.iter() {
            self.let_go(conn, close.is_graceful(), close.told);
            // Whoever does not read its last bytes keeps its place, or its like could come again
            // and again without end.
            if let Some(lingering) = self.conns.get_mut(conn) {
                lingering.place = lingering.place.take().or_else(|| slot.place.take());
            }
        }
        if slot.leases {
            self.part(self.handle(key));
        }
        if slot.resides {
            self.miss_resident(key);
        }
        drop(slot);
        self.wake_listeners();
    }

    /// Whoever is told to stop by a server that goes on came or went by what has been removed.
    fn explain(&self, close: Close) -> Close {
        match close.cause {
            Cause::Stopping if self.phase < DRAINING => Close {
                cause: Cause::Removed,
                ..close
            },
            _ => close,
        }
    }

    /// Writes a session's line in the log, in words of which some are the session's own.
    fn write_down(&mut self, key: SessionKey, slot: &Slot, close: &Close) {
        let handle = self.handle(key);
        let name = self.names.get(usize::from(slot.listener));
        let name = name.map_or("", |name| &name.text);
        let (now, journal) = (self.now, &mut self.journal);
        let line = AssertUnwindSafe(|| journal.ended(now, name, handle, slot, close));
        if catch_unwind(line).is_err() {
            self.setup.counters.add(Metric::Panicked, 1);
        }
    }

    /// Has a session that is over undo what others know of it.
    fn take_leave(&mut self, key: SessionKey, slot: &mut Slot) {
        let Some(session) = &mut slot.session else {
            return;
        };
        let mut actions = Vec::new();
        let session = &mut **session;
        let _ = self.call(key, &mut actions, |cx| session.leave(cx));
        self.revoke(&actions);
        for action in actions {
            if matches!(action, Action::Post(..) | Action::Resume(_)) {
                self.perform(key, action);
            }
        }
    }

    /// Closes one connection of a session, after what is queued on it.
    fn close(&mut self, session: SessionKey, key: ConnKey) {
        if let Some(slot) = self.sessions.get_mut(session) {
            slot.conns.remove(key);
            self.let_go(key, true, false);
        }
    }

    /// Closes one connection of a session by a reset.
    fn reset(&mut self, session: SessionKey, key: ConnKey) {
        let conn = self.conns.get_mut(key);
        if let Some(conn) = conn.filter(|conn| conn.owner == Some(session) && conn.link.is_none()) {
            conn.stream.abort();
            self.discard(key);
        }
    }

    /// A connection whose session has ended has had its time. What it could not be told is missing at
    /// its peer, who learns that by a reset: a FIN would say that all of it was there.
    pub(super) fn stop_lingering(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.tx.is_empty()
        {
            conn.stream.abort();
        }
        self.discard(key);
    }

    /// Closes a connection whose session has ended, after its last bytes if `graceful`; one that was
    /// `told` something waits for its peer's end, too, or a reset that answers what the peer sends
    /// next could eat the words.
    fn let_go(&mut self, key: ConnKey, graceful: bool, told: bool) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.owner = None;
        self.leave_line(key);
        self.dissolve_line(key);
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if let Some((link, _)) = conn.link.take() {
            self.unlink(link);
        }
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.rx.clear(&mut self.pool);
        conn.lingers = told && !conn.tx.is_empty();
        // Most often the last bytes leave at once, and the close itself says the end. Answers to
        // earlier requests leave also when a later one was wrong.
        let broken = conn.flush(&mut self.pool).is_err();
        let unread = (conn.can_read || conn.lingers) && !conn.ended;
        if broken || !graceful || (conn.tx.is_empty() && !unread) {
            return self.discard(key);
        }
        // The end goes out behind the last bytes; what still comes in is read and dropped, for a
        // close with unread bytes is a reset, which may overtake the answer.
        conn.shut_wanted = true;
        let linger = if conn.tx.is_empty() { DISCARD } else { LINGER };
        if let Some(timer) = conn.timer.take() {
            self.wheel.cancel(timer);
        }
        conn.timer = self.wheel.arm(self.now, linger, Timer::Linger(key));
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(key);
        }
        // What the session left in the socket will not be announced again.
        self.read_again(key);
    }

    pub(super) fn handle(&self, session: SessionKey) -> Handle {
        Handle {
            core: self.setup.core,
            session,
        }
    }
}

/// How soon the control thread is told again of an ended session when its box was full.
const PART_AGAIN: std::time::Duration = std::time::Duration::from_millis(20);

/// How long the last bytes of an ended session may take to leave.
const LINGER: std::time::Duration = std::time::Duration::from_secs(30);

/// How long a peer that nothing is left to tell may go on sending before its connection is closed
/// all the same.
const DISCARD: std::time::Duration = std::time::Duration::from_secs(2);
