//! What a worker holds, and whether what it holds agrees: for tests, and for whoever wants to know that
//! nothing was left behind.

use super::Worker;
use crate::net::Network;

/// What a worker holds besides its listeners, their datagram sockets among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Connections.
    pub conns: usize,
    /// Relayed pairs.
    pub links: usize,
    /// Datagram sockets of sessions.
    pub sockets: usize,
    /// Armed timers.
    pub timers: usize,
    /// Buffer blocks lent out.
    pub blocks: usize,
    /// Kernel pipes lent out.
    pub pipes: usize,
}

impl<N: Network> Worker<N> {
    /// What it holds for sessions; nothing when there is none.
    pub fn holdings(&self) -> Holdings {
        Holdings {
            conns: self.conns.len(),
            links: self.links.len(),
            sockets: self.exchange.own(),
            timers: self.wheel.len()
                - usize::from(self.spare_timer)
                - usize::from(self.lazy_timer)
                - usize::from(self.crowd_timer),
            blocks: self.pool.lent(),
            pipes: self.pipes.lent(),
        }
    }

    /// Sweeps over everything for contradictions; for tests, as it costs time.
    pub fn check(&self) {
        for seat in &self.setup.seats {
            seat.check();
        }
        self.check_lines();
        for (key, conn) in self.conns.iter() {
            conn.rx.check();
            conn.tx.check();
            if let Some((link, side)) = conn.link {
                let linked = self
                    .links
                    .get(link)
                    .map(|link| link.conns[usize::from(side)]);
                assert_eq!(linked, Some(key), "a pair and its connection disagree");
            }
            if let Some(slot) = conn.owner.and_then(|owner| self.sessions.get(owner)) {
                assert!(
                    slot.conns.iter().any(|held| held == key),
                    "a session has lost its connection"
                );
            }
        }
        for (key, slot) in self.sessions.iter() {
            for conn in slot.conns.iter() {
                let owner = self.conns.get(conn).and_then(|conn| conn.owner);
                assert_eq!(owner, Some(key), "a session holds a connection of another");
            }
        }
        self.check_exchange();
    }
}
