//! The service manager above this process, where there is one (`NOTIFY_SOCKET`): what it is told,
//! and the sockets that it keeps for the next process of this server.
//!
//! ```text
//!   bound ──> FDSTORE=1 each socket ──> READY=1 ──> WATCHDOG=1 ...      (see `watchdog`)
//!   SIGTERM ──> STOPPING=1 ──> FDSTOREREMOVE=1 each name
//!   crash ──> nothing: the store has the sockets, and clients wait in their queues
//! ```
//!
//! A service manager that cannot be told is noted once in the log, and stops nothing.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use sd_notify::NotifyState;

/// The service manager, or nobody.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    is_there: bool,
    /// How many more sockets it keeps at most.
    room: usize,
    /// The names of the sockets that it keeps.
    kept: Vec<String>,
    has_failed: AtomicBool,
}

impl Supervisor {
    /// As the environment tells.
    pub(super) fn find() -> Self {
        let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        // Before its version 254 systemd does not tell how many it keeps; what is too much for its
        // store it closes.
        let room = named("FDSTORE").and_then(|room| room.to_str()?.parse().ok());
        Self {
            is_there: named("NOTIFY_SOCKET").is_some(),
            room: room.unwrap_or(usize::MAX),
            ..Self::default()
        }
    }

    /// There is none.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// After how long without a word it takes the server for dead, if it does.
    pub(super) fn patience(&self) -> Option<std::time::Duration> {
        let time = sd_notify::watchdog_enabled().filter(|_| self.is_there);
        time.filter(|time| !time.is_zero())
    }

    /// Gives it sockets to keep, under their names, as many as it has room for.
    pub(super) fn keep<'a>(&mut self, sockets: impl IntoIterator<Item = (String, BorrowedFd<'a>)>) {
        if !self.is_there {
            return;
        }
        for (name, socket) in sockets {
            let Some(room) = self.room.checked_sub(1) else {
                return;
            };
            self.room = room;
            let state = [
                NotifyState::FdStore,
                NotifyState::FdName(&name),
                // It is to keep them whatever is ready there: waiting clients are the purpose.
                NotifyState::Custom("FDPOLL=0"),
            ];
            self.note(sd_notify::notify_with_fds(&state, &[socket]));
            if !self.kept.contains(&name) {
                self.kept.push(name);
            }
        }
    }

    /// Has it close the sockets that it keeps under this name.
    pub(super) fn forget(&self, name: &str) {
        self.tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    /// Everything is open and served.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The server ends in good order: nobody shall wait at its sockets.
    pub(super) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
        for name in &self.kept {
            self.forget(name);
        }
    }

    /// Every loop goes round.
    pub(super) fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if self.is_there {
            self.note(sd_notify::notify(state));
        }
    }

    fn note(&self, outcome: std::io::Result<()>) {
        if let Err(error) = outcome
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            log::warn!("the service manager cannot be told: {error}");
        }
    }
}
