//! One session's place in the table: the session, and what the engine keeps for it.

use std::net::SocketAddr;
use std::time::Instant;

use super::access::Dial;
use super::held::Held;
use crate::net::{ListenerKey, Place, SocketKey};
use crate::reactor::TimerKey;
use crate::session::{Session, TIMERS};

/// One session's place in the table.
pub(super) struct Slot {
    /// Taken out while it is being called.
    pub(super) session: Option<Box<dyn Session>>,
    /// Which of the worker's names is that of the listener that it came in by.
    pub(super) listener: u16,
    /// Which of the counters' roles it is counted by.
    pub(super) role: u16,
    /// It has asked for a lease, so the control thread must hear of its end.
    pub(super) leases: bool,
    /// It is one of the worker's residents.
    pub(super) resides: bool,
    /// It is the one for a listener's datagrams.
    pub(super) seated: bool,
    pub(super) conns: Held,
    /// What nearly no session has.
    pub(super) own: Option<Box<Own>>,
    pub(super) timers: [Option<TimerKey>; TIMERS],
    /// Whom it has dialled last; only where there is an access log.
    pub(super) dial: Option<Box<Dial>>,
    /// Who came; nobody to a session that began by itself.
    pub(super) peer: Option<SocketAddr>,
    pub(super) opened: Instant,
    /// Bytes that its relays have moved, once they have ended.
    pub(super) moved: [u64; 2],
    /// Bytes that it has been given and has sent itself, by way as those of a relay.
    pub(super) passed: [u64; 2],
    /// Goes on to a connection that outlives the session.
    pub(super) place: Option<Place>,
}

impl Slot {
    /// A place for a session that has done nothing yet.
    pub(super) fn new(
        session: Box<dyn Session>,
        listener: u16,
        role: u16,
        opened: Instant,
    ) -> Self {
        Self {
            session: Some(session),
            listener,
            role,
            leases: false,
            resides: false,
            seated: false,
            conns: Held::default(),
            own: None,
            timers: [None; TIMERS],
            dial: None,
            peer: None,
            opened,
            moved: [0; 2],
            passed: [0; 2],
            place: None,
        }
    }

    /// True for a session of somebody who has not sent a byte yet.
    pub(super) fn is_fresh(&self) -> bool {
        let is_served = self.passed != [0; 2] || self.moved != [0; 2];
        !is_served && !self.seated && self.peer.is_some() && self.own.is_none()
    }

    /// True when it may have a port on loan, or has a datagram socket.
    pub(super) fn has_ports(&self) -> bool {
        let own = self.own.as_ref();
        self.leases || own.is_some_and(|own| !own.sockets.is_empty())
    }
}

/// What a session has opened for itself besides connections. A listener's datagram socket is among
/// those of its session.
#[derive(Default)]
pub(super) struct Own {
    pub(super) listeners: Vec<ListenerKey>,
    pub(super) sockets: Vec<SocketKey>,
}
