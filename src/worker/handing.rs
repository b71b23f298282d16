//! The worker's side of connections that go from one session to another.
//!
//! ```text
//!   hand ──> parting: not read, not flushed ──> carry ─┬─ same core ───────────────> Handed
//!            (its ring may be lent to the session)     └─ another: freight in a letter ──> unload
//! ```
//!
//! On its own core a connection stays under the poll that it is under. To another it goes without a
//! copy of the socket: it leaves one poll and comes under the other, and what it holds in its rings,
//! bounded by its session, goes in the letter.

use super::{Handoff, Pending, Worker};
use crate::net::{Conn, ConnKey, Network};
use crate::reactor::{Handle, SessionKey};
use crate::session::{Event, Freight, Mail, Post};

impl<N: Network> Worker<N> {
    /// Takes a connection from its session, to be carried when the present call is over: until then
    /// its ring may be lent out.
    pub(super) fn hand(&mut self, key: ConnKey, handoff: Handoff) {
        let slot = self.sessions.get_mut(handoff.from);
        let conn = self.conns.get_mut(key).filter(|conn| {
            conn.owner == Some(handoff.from) && conn.link.is_none() && !conn.connecting
        });
        let (Some(slot), Some(conn)) = (slot, conn) else {
            // It broke in this very turn.
            let back = Pending::Returned(handoff.from, handoff.to, handoff.mail);
            return self.pending.push_back(back);
        };
        slot.conns.remove(key);
        conn.owner = None;
        conn.parting = true;
        conn.place = conn.place.take().or_else(|| slot.place.take());
        self.leave_line(key);
        self.dissolve_line(key);
        self.pending.push_back(Pending::Hand(key, handoff));
    }

    /// Gives a connection to the session that it is for.
    pub(super) fn carry(&mut self, key: ConnKey, handoff: Handoff) {
        let Handoff { from, to, mail } = handoff;
        if self.conns.get(key).is_none() {
            return self.pending.push_back(Pending::Returned(from, to, mail));
        }
        if to.core != self.setup.core {
            return self.ship(key, Handoff { from, to, mail });
        }
        let sender = self.handle(from);
        let slot = self.sessions.get_mut(to.session);
        let (Some(slot), Some(conn)) = (slot, self.conns.get_mut(key)) else {
            self.discard(key);
            return self.pending.push_back(Pending::Returned(from, to, mail));
        };
        conn.owner = Some(to.session);
        conn.parting = false;
        conn.end_told = false;
        if conn.place.is_some() && slot.place.is_some() && slot.conns.iter().next().is_none() {
            // A session and its first connection are one, whichever of them was there first.
            slot.place = conn.place.take();
        }
        slot.conns.insert(key);
        self.announce(key, to.session, sender, mail);
    }

    /// Sends a connection to another core.
    fn ship(&mut self, key: ConnKey, handoff: Handoff) {
        if let Some(conn) = self.conns.get_mut(key) {
            // What can leave now need not travel. A failure shows on the other core.
            let _ = conn.flush(&mut self.pool);
        }
        let Some(mut conn) = self.conns.remove(key) else {
            return;
        };
        let care = conn.care.as_ref();
        let cared = care.map(|care| [care.stall, care.pace.as_ref().and_then(|pace| pace.timer)]);
        let cared = cared.into_iter().flatten().flatten();
        for timer in conn.timer.into_iter().chain(cared) {
            self.wheel.cancel(timer);
        }
        let [unread, unsent] = [&conn.rx, &conn.tx].map(|ring| {
            let mut bytes = vec![0; ring.len()];
            ring.copy_to(0, &mut bytes);
            bytes
        });
        conn.release(&mut self.pool);
        let freight = Freight {
            parcel: self.network.release(conn.stream),
            unread,
            unsent,
            ended: conn.ended,
            shut_wanted: conn.shut_wanted && !conn.shut,
            place: conn.place,
        };
        let Handoff { from, to, mail } = handoff;
        let from = self.handle(from);
        // A core that no worker has cannot have a session.
        if let Some(outbox) = self.outboxes.get_mut(usize::from(to.core)) {
            let letter = Post {
                to: to.session,
                from,
                mail,
                returned: false,
                freight: Some(Box::new(freight)),
            };
            outbox.post(letter, self.now);
        }
    }

    /// Takes a connection that came from another core, for one of this core's sessions.
    pub(super) fn unload(
        &mut self,
        session: SessionKey,
        from: Handle,
        mail: Mail,
        freight: Freight,
    ) {
        let stream = self.network.unpack(freight.parcel);
        let there = self.sessions.get(session).is_some();
        let Some(stream) = stream.filter(|_| there) else {
            return self.send_back(session, from, mail);
        };
        let mut conn = Conn::new(stream, false);
        conn.ended = freight.ended;
        conn.place = freight.place;
        let Ok(key) = self.adopt(session, conn) else {
            return self.send_back(session, from, mail);
        };
        if let Some(conn) = self.conns.get_mut(key) {
            conn.rx.push(&freight.unread, &mut self.pool);
            conn.tx.push(&freight.unsent, &mut self.pool);
            conn.shut_wanted = freight.shut_wanted;
            if !conn.dirty {
                conn.dirty = true;
                self.dirty.push(key);
            }
        }
        self.announce(key, session, from, mail);
    }

    /// Tells a session of its new connection, and then of what that holds.
    fn announce(&mut self, conn: ConnKey, session: SessionKey, from: Handle, mail: Mail) {
        self.note_visitor(session, conn);
        self.deliver(session, Event::Handed { conn, from, mail });
        self.pending.push_back(Pending::Resume(conn));
    }
}
