//! A listening socket and its protection against running out of descriptors.

use std::sync::Arc;
use std::time::Duration;

use super::Door;
use crate::reactor::{Key, SessionKey, TimerKey};

/// Marks the keys of a worker's listener table.
pub enum ListenerMark {}

/// The name of a listener on its own core.
pub type ListenerKey = Key<ListenerMark>;

/// One listening socket of one core.
pub struct Listener<L> {
    /// The socket.
    pub socket: L,
    /// Which of its worker's names is its own, for the log.
    pub name: u16,
    /// Which of the server's services its connections belong to.
    pub service: usize,
    /// Which of that service's listeners it is.
    pub number: usize,
    /// Who may come in by it; none at a listener of a session's own, where only what holds for the
    /// whole server does.
    pub door: Option<Arc<Door>>,
    /// The session that opened it and is told who comes; `None` for a listener of the service.
    pub owner: Option<SessionKey>,
    /// Connections may be waiting; cleared when an accept finds none.
    pub can_accept: bool,
    /// It is on the worker's list of listeners to accept from again.
    pub queued: bool,
    /// Set while it rests because a connection could not be taken.
    pub rest: Option<TimerKey>,
    backoff: Duration,
}

/// Where an accepted connection came in.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What the log calls the listener, by the worker's number of that name.
    pub name: u16,
    /// Which of the server's services the connection belongs to.
    pub service: usize,
    /// Which of that service's listeners it came to.
    pub number: usize,
    /// The session whose listener it is, if it is one's own.
    pub owner: Option<(SessionKey, ListenerKey)>,
    /// Who may come in by it.
    pub door: Option<Arc<Door>>,
}

impl<L> Listener<L> {
    /// A listener that may have connections waiting already.
    pub fn new(socket: L, name: u16, service: usize, number: usize) -> Self {
        Self {
            socket,
            name,
            service,
            number,
            door: None,
            owner: None,
            can_accept: false,
            queued: false,
            rest: None,
            backoff: FIRST_REST,
        }
    }

    /// Where those who come to it come in; it is called `key`.
    pub fn entry(&self, key: ListenerKey) -> Entry {
        Entry {
            name: self.name,
            service: self.service,
            number: self.number,
            owner: self.owner.map(|owner| (owner, key)),
            door: self.door.clone(),
        }
    }

    /// How long to rest after a connection could not be taken: longer each time in a row, so that
    /// a full process neither spins nor waits long once there is room.
    pub fn next_rest(&mut self) -> Duration {
        let rest = self.backoff;
        self.backoff = (rest * 2).min(LONGEST_REST);
        rest
    }

    /// Forgets earlier failures: a connection was taken.
    pub fn accepted(&mut self) {
        self.backoff = FIRST_REST;
    }
}

/// The first rest of a row.
pub const FIRST_REST: Duration = Duration::from_millis(10);

/// Two tries a second cost nothing, and a freed descriptor is used within half a second even when
/// another core freed it.
const LONGEST_REST: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_half_a_second_and_start_over() {
        let mut listener = Listener::new((), 0, 0, 0);
        let rests: Vec<_> = (0..8).map(|_| listener.next_rest().as_millis()).collect();
        assert_eq!(rests, [10, 20, 40, 80, 160, 320, 500, 500]);
        listener.accepted();
        assert_eq!(listener.next_rest(), FIRST_REST);
    }
}
