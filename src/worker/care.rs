//! The worker's side of frames passed from session to session: room in a queue and those who wait
//! for it, peers who take nothing, and letters between sessions.
//!
//! ```text
//!   session A: no room on b ── await_room(a, b) ──> a is not read; a stands in b's line
//!   b's socket takes bytes ──> b's queue is short enough ──> Room(b): A is offered what a holds,
//!                              then the next in line, while there is room
//! ```
//!
//! Nobody stands in more than one line, and whoever is closed leaves it, so a line is no longer
//! than there are connections.

use std::time::Duration;

use super::{LAZY, NEXT_CROWD, Pending, TURN_LETTERS, Timer, Worker};
use crate::net::{Conn, ConnKey, Network, Stream, Waiter};
use crate::reactor::{Handle, SessionKey};
use crate::session::{Mail, Post};

impl<N: Network> Worker<N> {
    /// Stops the reading of `key` until few enough bytes are queued on `of`.
    pub(super) fn await_room(&mut self, key: ConnKey, of: ConnKey, until: usize) {
        if self.conns.get(key).is_none_or(|conn| conn.awaits.is_some()) {
            return;
        }
        let Some(target) = self.conns.get_mut(of).filter(|conn| conn.owner.is_some()) else {
            return self.pending.push_back(Pending::Resume(key));
        };
        let free = target.tx.len() <= until;
        let care = target.care();
        if free && care.waiters.is_empty() {
            return self.pending.push_back(Pending::Resume(key));
        }
        care.waiters.push_back(Waiter { conn: key, until });
        if free && !care.calling {
            care.calling = true;
            self.pending.push_back(Pending::Room(of));
        }
        if let Some(conn) = self.conns.get_mut(key) {
            conn.awaits = Some(of);
        }
    }

    /// Stops the reading of a connection until it is resumed: it waits for itself, and so stands in
    /// nobody's line.
    pub(super) fn pause(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.awaits.get_or_insert(key);
        }
    }

    /// Offers a session what a connection holds, and reads on; one that waits for room elsewhere
    /// goes on waiting.
    pub(super) fn resume(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        // Who waits for room in its own queue stands in line, and is not paused.
        let stands = |waiter: &Waiter| waiter.conn == key;
        let in_line = conn
            .care
            .as_ref()
            .is_some_and(|care| care.waiters.iter().any(stands));
        if conn.awaits == Some(key) && !in_line {
            conn.awaits = None;
        }
        if conn.awaits.is_some() {
            return;
        }
        self.offer(key);
        // Not read at once, or a session that is resumed again and again would have a turn's share
        // each time.
        if let Some(conn) = self.conns.get(key)
            && (conn.can_read || conn.link.is_some())
        {
            self.read_again(key);
        }
    }

    /// Sees to a connection after a flush that has written so many bytes: whether its peer takes
    /// any, and whether those who wait for room may go on.
    pub(super) fn look_after(&mut self, key: ConnKey, written: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let queued = conn.tx.len();
        let Some(care) = conn.care.as_deref_mut() else {
            return;
        };
        if written > 0 || queued == 0 || care.stall.is_none() {
            care.progress = Some(self.now);
        }
        if let Some(patience) = care.patience
            && queued > 0
            && care.stall.is_none()
        {
            care.in_flight = conn.stream.in_flight();
            care.stall = self.wheel.arm(self.now, patience, Timer::Stall(key));
        }
        let served = care
            .waiters
            .front()
            .is_some_and(|next| queued <= next.until);
        if served && !care.calling {
            care.calling = true;
            self.pending.push_back(Pending::Room(key));
        }
    }

    /// Has those who wait for room in a connection's queue go on, one after the other, while there
    /// is room. Whoever asks again stands at the end of the line.
    pub(super) fn call_waiters(&mut self, key: ConnKey) {
        let waiting = match self.conns.get_mut(key).and_then(|conn| conn.care.as_mut()) {
            Some(care) => {
                care.calling = false;
                care.waiters.len()
            }
            None => return,
        };
        for _ in 0..waiting {
            let Some(conn) = self.conns.get_mut(key) else {
                return;
            };
            let queued = conn.tx.len();
            let Some(care) = conn.care.as_mut() else {
                return;
            };
            match care.waiters.front() {
                Some(next) if queued <= next.until => {
                    let next = next.conn;
                    care.waiters.pop_front();
                    care.serving = true;
                    self.go_on(next);
                    if let Some(conn) = self.conns.get_mut(key) {
                        conn.care().serving = false;
                    }
                }
                _ => return,
            }
        }
    }

    /// Offers a connection that has waited for room what it holds, and reads on.
    fn go_on(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.awaits = None;
            self.offer(key);
            self.read_again(key);
        }
    }

    /// Sweeps over the lines for contradictions: whoever stands in one awaits it.
    pub(super) fn check_lines(&self) {
        for (key, conn) in self.conns.iter() {
            for waiter in conn.care.iter().flat_map(|care| &care.waiters) {
                let awaits = self.conns.get(waiter.conn).map(|conn| conn.awaits);
                assert_eq!(awaits, Some(Some(key)), "nobody stands in line");
            }
        }
    }

    /// Takes a connection out of the line that it stands in.
    pub(super) fn leave_line(&mut self, key: ConnKey) {
        let awaited = self.conns.get_mut(key).and_then(|conn| conn.awaits.take());
        let target = awaited.and_then(|of| self.conns.get_mut(of));
        if let Some(care) = target.and_then(|target| target.care.as_mut()) {
            care.waiters.retain(|waiter| waiter.conn != key);
        }
    }

    /// Has all go on who stand in a connection's line: it will take nothing more of theirs.
    pub(super) fn dissolve_line(&mut self, key: ConnKey) {
        let care = self.conns.get_mut(key).and_then(|conn| conn.care.as_mut());
        let waiters = care.map(|care| std::mem::take(&mut care.waiters));
        for waiter in waiters.into_iter().flatten() {
            if let Some(conn) = self.conns.get_mut(waiter.conn) {
                conn.awaits = None;
                self.pending.push_back(Pending::Resume(waiter.conn));
            }
        }
    }

    /// The stall timer of a connection fired: it is armed once per wait, not once per write, so
    /// the time of the last byte taken decides.
    pub(super) fn check_stall(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let (queued, owner) = (conn.tx.len(), conn.owner);
        let Some(care) = conn.care.as_deref_mut() else {
            return;
        };
        care.stall = None;
        // A slow peer makes room in its socket long before the socket asks for more to write.
        let in_flight = conn.stream.in_flight();
        if in_flight < std::mem::replace(&mut care.in_flight, in_flight) {
            care.progress = Some(self.now);
        }
        let (Some(patience), Some(progress)) = (care.patience, care.progress) else {
            return;
        };
        if queued == 0 {
            return;
        }
        let waited = self.now.saturating_duration_since(progress);
        if waited < patience {
            let left = patience - waited;
            care.stall = self.wheel.arm(self.now, left, Timer::Stall(key));
            return;
        }
        care.progress = Some(self.now);
        care.stall = self.wheel.arm(self.now, patience, Timer::Stall(key));
        if let Some(session) = owner {
            self.pending.push_back(Pending::Stalled(session, key));
        }
    }

    /// Bytes that need not leave at once wait for others to leave with, and not for long.
    pub(super) fn await_others(&mut self) {
        if !self.lazy_timer && !self.lazy.is_empty() {
            let timer = self.wheel.arm(self.now, LAZY, Timer::Lazy);
            self.lazy_timer = timer.is_some();
        }
    }

    /// They have waited long enough.
    pub(super) fn flush_lazy(&mut self) {
        self.lazy_timer = false;
        for key in std::mem::take(&mut self.lazy) {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.lazy = false;
                if !conn.dirty && !conn.tx.is_empty() {
                    conn.dirty = true;
                    self.dirty.push(key);
                }
            }
        }
    }

    /// Looks soon whether connections still cannot be read for want of blocks.
    pub(super) fn watch_crowd(&mut self, after: Duration) {
        if !self.crowd_timer {
            let timer = self.wheel.arm(self.now, after, Timer::Crowd);
            self.crowd_timer = timer.is_some();
        }
    }

    /// Connections wait for blocks to be read into: the session that has left most unread hears of
    /// it, and may end for the others' sake.
    pub(super) fn relieve(&mut self) {
        self.crowd_timer = false;
        if self.starved.is_empty() || self.pool.left() > 0 {
            return;
        }
        let unread = |(key, conn): (ConnKey, &Conn<N::Stream>)| {
            let owner = conn.owner.filter(|_| conn.link.is_none())?;
            Some((conn.rx.len(), key, owner))
        };
        let most = self.conns.iter().filter_map(unread);
        if let Some((_, conn, session)) = most.max_by_key(|(unread, ..)| *unread) {
            self.pending.push_back(Pending::Crowding(session, conn));
        }
        self.watch_crowd(NEXT_CROWD);
    }

    /// Sends one session's letter to another.
    pub(super) fn post(&mut self, from: SessionKey, to: Handle, mail: Mail) {
        let from = self.handle(from);
        if to.core == self.setup.core {
            let mail = Pending::Mail(to.session, from, mail);
            return self.pending.push_back(mail);
        }
        self.dispatch(to, from, mail, false);
    }

    /// Lets a sender know that its letter came too late.
    pub(super) fn send_back(&mut self, late: SessionKey, to: Handle, mail: Mail) {
        if to.core == self.setup.core {
            let late = self.handle(late);
            let mail = Pending::Returned(to.session, late, mail);
            return self.pending.push_back(mail);
        }
        let late = self.handle(late);
        self.dispatch(to, late, mail, true);
    }

    fn dispatch(&mut self, to: Handle, from: Handle, mail: Mail, returned: bool) {
        // A core that no worker has cannot have a session.
        if let Some(outbox) = self.outboxes.get_mut(usize::from(to.core)) {
            let letter = Post {
                to: to.session,
                from,
                mail,
                returned,
                freight: None,
            };
            outbox.post(letter, self.now);
        }
    }

    /// Takes the letters of other cores' sessions.
    pub(super) fn open_post(&mut self) {
        if !self.setup.post.has_rung() {
            return;
        }
        let pending = &mut self.pending;
        self.setup.post.open(TURN_LETTERS, |letter| {
            let Post {
                to,
                from,
                mail,
                returned,
                freight,
            } = letter;
            pending.push_back(match (returned, freight) {
                (true, _) => Pending::Returned(to, from, mail),
                (false, Some(freight)) => Pending::Freight(to, from, mail, freight),
                (false, None) => Pending::Mail(to, from, mail),
            });
        });
    }
}
