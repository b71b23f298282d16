//! The server's phases, as a worker follows them: it serves, it drains, it stops. And what is particular
//! about a drain when a newer process of the server has the listening sockets.
//!
//! ```text
//!   serving ── drain: listeners close, sessions are told ──> draining ── all have ended ──> done
//!      │                                                        │
//!      ├── copies of the listeners for a newer process          └── stop: at once
//!      └── listeners close already, as that serves
//! ```
//!
//! Where a newer process takes whoever comes, nobody may notice that there are two:
//!
//! * A copy of a socket keeps the poll's entry for it alive when this process closes its own, so the
//!   poll is told to forget it. Else every client of the newer process would wake this one.
//! * Whoever was let in a moment ago and has not said what it wants is served as it would have been
//!   there: it is told of the drain when the handshake's time is over, and not before.
//! * All cores have closed their listeners before any tells a client to go, which might come to another core
//!   of this process else. Closed are those of sessions, too: the newer process is asked for the same port
//!   next, and binds it. Whoever has such a port is told at once, and not at some time of `drain_spread`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use super::{Timer, Worker};
use crate::net::Network;
use crate::reactor::SessionKey;

/// What the server is doing, told to the workers by a flag and their bells.
#[derive(Default)]
pub struct Phase {
    now: AtomicU8,
    has_heir: AtomicBool,
}

impl Phase {
    /// Take no new work, finish what is open.
    pub fn drain(&self) {
        self.now.fetch_max(DRAINING, Ordering::Release);
    }

    /// The same, and a newer process has the listening sockets.
    pub fn hand_over(&self) {
        self.has_heir.store(true, Ordering::Release);
        self.drain();
    }

    /// End at once.
    pub fn stop(&self) {
        self.now.fetch_max(STOPPING, Ordering::Release);
    }

    /// True from [`Phase::drain`] or [`Phase::stop`] on.
    pub fn is_ending(&self) -> bool {
        self.now() >= DRAINING
    }

    pub(super) fn now(&self) -> u8 {
        self.now.load(Ordering::Acquire)
    }

    fn has_heir(&self) -> bool {
        self.has_heir.load(Ordering::Acquire)
    }
}

pub(super) const DRAINING: u8 = 1;
pub(super) const STOPPING: u8 = 2;

/// A second descriptor of a listener's socket.
#[derive(Debug)]
pub struct Copied {
    /// What the log calls the listener.
    pub name: String,
    /// The copy.
    pub socket: OwnedFd,
}

impl<N: Network> Worker<N> {
    /// Copies the sockets of all listeners of services, those for datagrams among them: at most two for
    /// each.
    pub(super) fn copy_listeners(&self) -> io::Result<Vec<Copied>> {
        let name = |name: u16| self.names[usize::from(name)].text.clone();
        let mut copies = Vec::new();
        for (_, listener) in self.listeners.iter() {
            if listener.owner.is_none() {
                copies.push(Copied {
                    name: name(listener.name),
                    socket: self.network.copy_listener(&listener.socket)?,
                });
            }
        }
        for (_, socket) in self.exchange.sockets.iter() {
            if let (Some(home), Some(io)) = (socket.home, &socket.io) {
                copies.push(Copied {
                    name: name(home.name),
                    socket: self.network.copy_socket(io)?,
                });
            }
        }
        Ok(copies)
    }

    /// Acts on a phase that has changed: closes the listeners and tells the sessions.
    pub(super) fn follow_phase(&mut self) {
        let phase = self.setup.phase.now();
        if phase == self.phase {
            return;
        }
        let first = self.phase == 0;
        self.phase = phase;
        if !first || phase != DRAINING {
            return;
        }
        self.close_listeners();
        let has_heir = self.setup.phase.has_heir();
        if !has_heir {
            self.dismiss_knocking();
        }
        self.wheel
            .arm(self.now, self.setup.drain_timeout, Timer::Drain);
        for key in self.sessions.keys() {
            match self.sessions.get(key) {
                Some(slot) if has_heir && slot.is_fresh() => self.be_patient(key),
                // The newer process binds their ports when it is asked for them: the sooner, the less are
                // they closed to visitors.
                Some(slot) if has_heir && slot.has_ports() => self.tell_stopping(key),
                _ => self.bid_farewell(key),
            }
        }
    }

    /// Somebody is let in although the server drains: it came before that began.
    pub(super) fn tell_late_comer(&mut self, key: SessionKey) {
        if self.phase == DRAINING {
            self.be_patient(key);
        }
    }

    fn be_patient(&mut self, key: SessionKey) {
        let within = self.setup.handshake_timeout.max(SHORTEST);
        self.wheel.arm(self.now, within, Timer::Farewell(key));
    }

    /// Closes all listeners, those of sessions among them.
    pub(super) fn close_listeners(&mut self) {
        for key in self.listeners.keys() {
            // A session that closes its own later finds that it is gone.
            self.drop_listener(key);
        }
    }
}

/// A handshake may be bounded more tightly than two processes take to change places.
const SHORTEST: Duration = Duration::from_secs(1);
