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

use super::{Pending, TURN_LETTERS, Timer, Worker};
use crate::net::{Conn, ConnKey, Network, Waiter};
use crate::reactor::{Handle, SessionKey};
use crate::session::{Mail, Post};

impl<N: Network> Worker<N> {
    /// Stops the reading of `key` until few enough bytes are queued on `of`.
    pub(super) fn await_room(&mut self, key: ConnKey, of: ConnKey, until: usize) {
        if self.conns.get(key).is_none_or(|conn| conn.awaits.is_some()) {
            return;
        }
        match self.conns.get_mut(of) {
            Some(target) if target.tx.len() > until => {
                let waiter = Waiter { conn: key, until };
                target.care().waiters.push_back(waiter);
            }
            _ => return self.pending.push_back(Pending::Resume(key)),
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
        if conn.awaits == Some(key) {
            conn.awaits = None;
        }
        if conn.awaits.is_none() {
            self.offer(key);
            self.advance(key);
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
                    self.go_on(next);
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

    /// A connection waits no longer in the line of the one that it `awaits`, if any.
    pub(super) fn leave_line(&mut self, key: ConnKey, awaits: Option<ConnKey>) {
        let target = awaits.and_then(|of| self.conns.get_mut(of));
        if let Some(care) = target.and_then(|target| target.care.as_mut()) {
            care.waiters.retain(|waiter| waiter.conn != key);
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

    /// A connection closes: it leaves the line that it stands in, and those in its own go on.
    pub(super) fn forget_waiting(&mut self, key: ConnKey, conn: &mut Conn<N::Stream>) {
        self.leave_line(key, conn.awaits.take());
        let Some(care) = conn.care.take() else { return };
        if let Some(timer) = care.stall {
            self.wheel.cancel(timer);
        }
        for waiter in care.waiters {
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
            } = letter;
            pending.push_back(match returned {
                false => Pending::Mail(to, from, mail),
                true => Pending::Returned(to, from, mail),
            });
        });
    }
}
