//! What the tunnel's sessions tell each other, within a core and between cores.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::wire::{ClientId, Kind, Name, Reason, Uuid};
use crate::net::{Sharing, Throttle};
use crate::reactor::Handle;

/// A service, as those who serve its visitors know it.
pub(super) struct Share {
    pub(super) name: Name,
    pub(super) client: ClientId,
    /// Its number on its control connection.
    pub(super) number: u16,
    /// Whom to ask for a data connection.
    pub(super) control: Handle,
    /// The client has its visitors moved out of the frames when they carry much.
    pub(super) may_move: bool,
    /// Limits the bytes of all its visitors together.
    pub(super) throttle: Option<Arc<Throttle>>,
    /// Visitors on all cores.
    visitors: AtomicUsize,
    most: usize,
}

impl Share {
    pub(super) fn new(
        (name, client): (Name, ClientId),
        number: u16,
        control: Handle,
        may_move: bool,
        most: usize,
    ) -> Self {
        Self {
            name,
            client,
            number,
            control,
            may_move,
            throttle: None,
            visitors: AtomicUsize::new(0),
            most,
        }
    }

    /// The same, with so many bytes a second each way; 0 is no limit.
    pub(super) fn limited_to(mut self, bandwidth: u64) -> Self {
        self.throttle = Throttle::of(bandwidth);
        self
    }

    /// Takes a visitor's place; false when all are taken.
    pub(super) fn enter(&self) -> bool {
        enter(&self.visitors, self.most)
    }

    pub(super) fn leave(&self) {
        self.visitors.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more, unless there are as many as may be.
pub(super) fn enter(count: &AtomicUsize, most: usize) -> bool {
    let more = |count| (count < most).then_some(count + 1);
    let entered = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    entered.is_ok()
}

/// One session's words to another.
pub(super) enum Word {
    /// To a connection that has proved nothing: there are too many of them.
    MakeRoom,
    /// Control to whoever listens for a service: do.
    Open {
        share: Arc<Share>,
        at: SocketAddr,
        sharing: Sharing,
    },
    /// The answer.
    Opened {
        number: u16,
        outcome: Result<(), io::ErrorKind>,
    },
    /// Control to whoever listens for a service: no more.
    Close { number: u16 },
    /// Hall or trunk to visitor, with the connection.
    Arrival,
    /// Visitor to control: a data connection is wanted.
    Want {
        uuid: Uuid,
        number: u16,
        visitor: SocketAddr,
    },
    /// Visitor to control: no more, for this reason; none where it has one.
    Enough { uuid: Uuid, reason: Option<Reason> },
    /// Control to visitor: there will be none.
    Refused { uuid: Uuid, reason: Reason },
    /// With a data connection, to the one that it was opened for.
    Data,
    /// With a connection for frames.
    Frames(Kind),
}
