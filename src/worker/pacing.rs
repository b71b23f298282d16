//! The worker's side of paced connections: which throttles limit one, waking it when its next portion is
//! due; and reading for sessions, which is paced as relays are.
//!
//! ```text
//!   pump or read ── ration used up ──> await_portion ─┬─ due ──> again, in the next pass
//!                                                     └─ later ──> one timer ──> again
//! ```
//!
//! Bound: one timer for each connection that waits.

use std::sync::Arc;

use super::{TURN_BYTES, Timer, Worker};
use crate::buffer::BLOCK;
use crate::net::{Conn, ConnKey, Network, Pace, Stream, Throttle};
use crate::reactor::SessionKey;
use crate::stats::Metric;

impl<N: Network> Worker<N> {
    /// Limits how fast two connections of a session are read, by its source's throttle, too.
    pub(super) fn pace(
        &mut self,
        session: SessionKey,
        conns: [ConnKey; 2],
        mut throttles: Vec<Arc<Throttle>>,
    ) {
        let sources = self.setup.quota.sources();
        if sources.are_limited() {
            let slot = self.sessions.get(session);
            let peer = slot.and_then(|slot| slot.peer).or_else(|| {
                // A visitor of a session's own listener.
                self.conns.get(conns[0])?.stream.peer()
            });
            let own = peer.and_then(|peer| sources.throttle(peer.ip(), self.now));
            throttles.extend(own);
        }
        for (way, key) in conns.into_iter().enumerate() {
            self.pace_one(key, way, throttles.clone());
        }
    }

    /// Limits how fast one connection is read.
    pub(super) fn pace_one(&mut self, key: ConnKey, way: usize, throttles: Vec<Arc<Throttle>>) {
        let Some(conn) = self.conns.get_mut(key).filter(|_| !throttles.is_empty()) else {
            return;
        };
        let pace = Pace::new(throttles, way, self.now);
        let former = conn.care().pace.replace(pace);
        if let Some(timer) = former.and_then(|mut pace| pace.timer.take()) {
            self.wheel.cancel(timer);
            self.read_again(key);
        }
    }

    /// A connection has used its ration up: it is read on when the next portion is due.
    pub(super) fn await_portion(&mut self, key: ConnKey) {
        let now = self.now;
        let Some(pace) = self.conns.get_mut(key).and_then(Conn::pace) else {
            return;
        };
        let Err(due) = pace.take(now) else {
            return self.read_again(key);
        };
        if pace.timer.is_none() {
            let wait = due.saturating_duration_since(now);
            pace.timer = self.wheel.arm(now, wait, Timer::Paced(key));
            self.setup.counters.add(Metric::PaceWaits, 1);
        }
    }

    /// A connection's portion is due.
    pub(super) fn portion_due(&mut self, key: ConnKey) {
        if let Some(pace) = self.conns.get_mut(key).and_then(Conn::pace) {
            pace.timer = None;
            self.read_again(key);
        }
    }

    /// Reads for a session, as far as the connection's pace allows, and offers it what came.
    pub(super) fn read(&mut self, key: ConnKey) {
        let now = self.now;
        let conn = self.conns.get_mut(key).filter(|conn| !conn.is_held());
        let Some(ration) = conn.and_then(|conn| conn.ration(now)) else {
            if self.read_some(key, TURN_BYTES).1 {
                self.read_again(key);
            }
            return;
        };
        let (taken, reads_on) = self.read_some(key, ration.min(TURN_BYTES));
        if let Some(pace) = self.conns.get_mut(key).and_then(Conn::pace) {
            pace.settle(taken, reads_on, now);
        }
        if reads_on {
            self.await_portion(key);
        }
    }

    /// Reads and offers about so many bytes; how many came, and whether there may be more.
    fn read_some(&mut self, key: ConnKey, most: usize) -> (usize, bool) {
        let (mut left, mut taken) = (most, 0);
        loop {
            let Some(conn) = self.conns.get_mut(key) else {
                return (taken, false);
            };
            if conn.link.is_some() {
                self.advance(key); // The session has joined it to another meanwhile.
                return (taken, false);
            }
            if !conn.can_read || conn.is_held() {
                return (taken, false);
            }
            if left == 0 {
                return (taken, true);
            }
            // A first read is most often all there is; after a full one, more is taken at once.
            let blocks = if taken == 0 {
                1
            } else {
                left.div_ceil(BLOCK).min(4)
            };
            match conn.read(&mut self.pool, blocks) {
                None => {
                    self.starve(key);
                    return (taken, false);
                }
                Some(Ok(count)) => {
                    left = left.saturating_sub(count.max(1));
                    taken += count;
                    let (ended, way) = (conn.ended, usize::from(conn.dialled));
                    let knocks = conn.knocks();
                    if let Some(owner) = conn.owner {
                        self.book(owner, way, count);
                    }
                    if knocks && !self.identify(key) {
                        continue;
                    }
                    if count > 0 || ended {
                        self.offer(key);
                    }
                }
                Some(Err(error)) => {
                    self.lose(key, error.kind());
                    return (taken, false);
                }
            }
        }
    }
}
