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

/// Reads back what [`Handle`] shows; nothing else is one.
impl std::str::FromStr for Handle {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix('w').ok_or(())?;
        let (core, key) = rest.split_once('#').ok_or(())?;
        let (index, generation) = key.split_once('.').ok_or(())?;
        let index = index.parse().map_err(drop)?;
        let generation = generation.parse().map_err(drop)?;
        let handle = Self {
            core: core.parse().map_err(drop)?,
            session: SessionKey::from_parts(index, generation).ok_or(())?,
        };
        // Numbers can be written in more than one way, and an address is written in one.
        match handle.to_string() == text {
            true => Ok(handle),
            false => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_read_as_it_is_shown_and_in_no_other_way() {
        let handle: Handle = "w1#0.4".parse().unwrap();
        assert_eq!((handle.core, handle.session.generation()), (1, 4));
        assert_eq!(handle.to_string(), "w1#0.4");
        for wrong in [
            "", "w1", "w1#0", "w1#0.0", "w01#0.4", "w1#+0.4", "w256#0.1", "1#0.4", "w1#0.4 ",
        ] {
            assert_eq!(wrong.parse::<Handle>(), Err(()), "{wrong}");
        }
    }
}
