//! The worker's side of relayed pairs: making them, pumping them, ending them.

use std::io;

use super::{Pending, TURN_BYTES, Timer, Worker};
use crate::config::Way;
use crate::net::{Conn, ConnKey, Level, LinkKey, Network, Stream};
use crate::reactor::SessionKey;
use crate::relay::{Direction, Link, Means, Pumped, Silence};
use crate::session::{RelayEnd, Relayed};

impl<N: Network> Worker<N> {
    /// Joins two connections of a session. Either may have broken in this very turn: then the
    /// session hears that it is lost, and nothing is joined.
    pub(super) fn link(
        &mut self,
        session: SessionKey,
        a: ConnKey,
        b: ConnKey,
        silence: Option<Silence>,
    ) {
        let Some((left, right)) = self.conns.get2_mut(a, b) else {
            return;
        };
        if left.link.is_some() || right.link.is_some() {
            return;
        }
        let is_paced = left.is_paced();
        self.note_server(session, b);
        if !is_paced && self.setup.quota.sources().are_limited() {
            self.pace(session, [a, b], Vec::new());
        }
        let link = Link {
            conns: [a, b],
            session,
            directions: [
                Direction::new(self.setup.way),
                Direction::new(self.setup.way),
            ],
            broken: None,
            lasts: false,
            active: self.now,
            timer: None,
            silence: silence.map(Box::new),
        };
        let Ok(key) = self.links.insert(link) else {
            return self.end(session, crate::session::Close::own(OVERFULL));
        };
        for (conn, side) in [(a, 0), (b, 1)] {
            if let Some(conn) = self.conns.get_mut(conn) {
                conn.link = Some((key, side));
            }
        }
        if let Some(link) = self.links.get_mut(key) {
            let first = link.patience(self.setup.idle_timeout).min(LASTING);
            link.timer = self.wheel.arm(self.now, first, Timer::Idle(key));
        }
        // Pumped when the session's call is over, since one of the rings may be lent to it.
        self.read_again(a);
        self.read_again(b);
    }

    /// Pumps both ways of a pair, the one from the connection that became ready first.
    pub(super) fn advance_link(&mut self, key: LinkKey, side: usize) {
        for from in [side, 1 - side] {
            match self.pump(key, from) {
                None => return,
                Some((source, pumped)) => match pumped {
                    Pumped::Waiting => {}
                    Pumped::Budget => self.read_again(source),
                    Pumped::Paced => self.await_portion(source),
                    Pumped::Starved => self.starve(source),
                    Pumped::Ended => self.hasten(key),
                    Pumped::SourceBroke(why) => return self.break_link(key, from, why),
                    Pumped::TargetBroke(why) => {
                        // What the broken end has sent before may still be delivered: the way
                        // from it goes on until its socket is empty.
                        if self.abandon(key, from, why) {
                            return self.break_link(key, 1 - from, why);
                        }
                    }
                },
            }
        }
        self.end_link_if_over(key);
    }

    /// Runs the pump one way; `None` when the pair has gone.
    fn pump(&mut self, key: LinkKey, from: usize) -> Option<(ConnKey, Pumped)> {
        let link = self.links.get_mut(key)?;
        let (source_key, target_key) = (link.conns[from], link.conns[1 - from]);
        let (source, target) = self.conns.get2_mut(source_key, target_key)?;
        let last_way = link.directions[1 - from].ended;
        let direction = &mut link.directions[from];
        let before = direction.moved;
        let ration = source.ration(self.now);
        // A pipe takes two descriptors, which are worth more for something else now.
        let way = match self.setup.load.level() {
            Level::Normal => self.setup.way,
            _ => Way::Copy,
        };
        let mut means = Means {
            pool: &mut self.pool,
            pipes: &mut self.pipes,
            network: &mut self.network,
            way,
            last_way,
            ration,
            taken: 0,
        };
        let pumped = direction.pump(source, target, &mut means, TURN_BYTES);
        let taken = means.taken;
        if let Some(pace) = source.pace() {
            pace.settle(taken, pumped == Pumped::Paced, self.now);
        }
        if direction.moved != before {
            link.active = self.now;
            let moved = direction.moved - before;
            let session = link.session;
            self.book_relayed(session, from, moved);
        }
        Some((source_key, pumped))
    }

    /// Looks for a reset of a connection whose end of the stream was read before: no read would find
    /// it any more, and a write only once there is something to say.
    pub(super) fn notice_reset(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.ended) else {
            return;
        };
        let Err(error) = conn.stream.connected() else {
            return;
        };
        let Some((link, side)) = conn.link else {
            return self.lose(key, error.kind());
        };
        let side = usize::from(side);
        if self.abandon(link, 1 - side, error.kind()) {
            self.break_link(link, side, error.kind());
        }
    }

    /// Gives up the way to a broken target; true when the way from it is over as well.
    fn abandon(&mut self, key: LinkKey, from: usize, why: io::ErrorKind) -> bool {
        let Some(link) = self.links.get_mut(key) else {
            return true;
        };
        link.directions[from].ended = true;
        link.directions[from].release(&mut self.pipes);
        link.broken.get_or_insert((1 - from as u8, why));
        if let Some(target) = self.conns.get_mut(link.conns[1 - from]) {
            target.tx.clear(&mut self.pool);
            // Whatever its socket still holds can be read without a further event.
            target.can_read = true;
            target.read_closed = true;
        }
        link.directions[1 - from].ended
    }

    /// Ends a pair whose two ways have ended.
    fn end_link_if_over(&mut self, key: LinkKey) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        if link.directions.iter().all(|direction| direction.ended) {
            let end = match link.broken {
                Some((side, why)) => RelayEnd::Broken(usize::from(side), why),
                None => RelayEnd::Finished,
            };
            self.close_link(key, end);
        }
    }

    fn break_link(&mut self, key: LinkKey, side: usize, why: io::ErrorKind) {
        self.close_link(key, RelayEnd::Broken(side, why));
    }

    /// Closes both connections of a pair and tells its session. A broken end is passed on as what
    /// it is: the other end sees a reset.
    fn close_link(&mut self, key: LinkKey, end: RelayEnd) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let (session, conns) = (link.session, link.conns);
        let relayed = Relayed {
            moved: [0, 1].map(|way: usize| link.directions[way].moved),
            end,
        };
        self.unlink(key);
        for conn in conns {
            if let Some(conn) = self.conns.get_mut(conn)
                && matches!(end, RelayEnd::Broken(..))
            {
                conn.stream.abort();
            }
            self.discard(conn);
        }
        let relayed = Pending::Relayed(session, relayed);
        self.pending.push_back(relayed);
    }

    /// One way of a pair has ended: from now on it may be silent for less time, perhaps.
    fn hasten(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Some(silence) = link.silence.as_mut() else {
            return;
        };
        if silence.idle > silence.half_closed
            && link.directions.iter().any(|way| way.ended)
            && let Some(timer) = link.timer.take()
        {
            silence.idle = silence.half_closed;
            let within = silence.idle;
            self.wheel.cancel(timer);
            link.timer = self.wheel.arm(self.now, within, Timer::Idle(key));
        }
    }

    /// Forgets a pair; its connections are on their own again.
    pub(super) fn unlink(&mut self, key: LinkKey) {
        let Some(mut link) = self.links.remove(key) else {
            return;
        };
        for direction in &mut link.directions {
            direction.release(&mut self.pipes);
        }
        if let Some(timer) = link.timer {
            self.wheel.cancel(timer);
        }
        for conn in link.conns {
            if let Some(conn) = self.conns.get_mut(conn) {
                conn.link = None;
            }
        }
    }

    /// The idle timer of a pair fired: it is armed once per timeout, not once per byte, so the
    /// time of the last byte decides. Its first firing is an early one, at which the connection
    /// that was dialled is put under the system's watch: short ones are spared those calls.
    pub(super) fn check_idle(&mut self, key: LinkKey) {
        let usual = self.setup.idle_timeout;
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let idle = link.patience(usual);
        if !link.lasts {
            link.lasts = true;
            if let Some(conn) = self.conns.get_mut(link.conns[1]) {
                conn.stream.last(self.setup.socket_options);
            }
        }
        let silent = self.now.saturating_duration_since(link.active);
        if silent < idle {
            link.timer = self.wheel.arm(self.now, idle - silent, Timer::Idle(key));
            return;
        }
        // One that is kept waiting here is not silent.
        let (conns, now) = (link.conns, self.now);
        let mut waits = |conn| {
            let conn: Option<&mut Conn<_>> = self.conns.get_mut(conn);
            conn.and_then(Conn::pace)
                .is_some_and(|pace| pace.waits(now))
        };
        if waits(conns[0]) || waits(conns[1]) {
            link.timer = self.wheel.arm(now, idle, Timer::Idle(key));
            return;
        }
        link.timer = None;
        self.close_link(key, RelayEnd::Idle);
    }
}

const OVERFULL: crate::session::Cause = crate::session::Cause::Overload("relayed pairs");

/// A pair that has lived so long is taken to last.
const LASTING: std::time::Duration = std::time::Duration::from_secs(5);
