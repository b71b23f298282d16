//! The material of an event loop: keys that go stale safely, timers, mailboxes.
//!
//! No protocol word occurs here, and nothing here makes a system call; the sockets and the poll
//! are the room `net`, the loop itself is `worker`.

mod mailbox;
mod outbox;
mod pulse;
mod table;
mod timer;

pub use mailbox::{Address, Bell, Mailbox, mailbox};
pub use outbox::Outbox;
pub use pulse::Pulse;
pub use table::{Key, Table};
pub use timer::{TimerKey, Wheel};

/// Marks the keys of a worker's session table.
pub enum SessionMark {}

/// The name of a session on its own core.
pub type SessionKey = Key<SessionMark>;

/// The address of a session on any core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    /// Which worker it lives on, from 0.
    pub core: u8,
    /// Its key there.
    pub session: SessionKey,
}

/// `w2#17.41`: worker 2, session 17.41. Every log line of a session begins with it.
impl std::fmt::Display for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "w{}#{}", self.core, self.session)
    }
}
