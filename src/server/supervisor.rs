//! The service manager above this process, where there is one (`NOTIFY_SOCKET`): what it is told,
//! and the sockets that it keeps for the next process of this server.
//!
//! ```text
//!   bound ──> FDSTORE=1 each socket ──> READY=1 ──> WATCHDOG=1 ...      (see `watchdog`)
//!   SIGTERM ──> STOPPING=1 ──> FDSTOREREMOVE=1 each name
//!   crash ──> nothing: the store has the sockets, and clients wait in their queues
//!   SIGUSR2 ──> MAINPID= the newer process; which says nothing before, as it would not be heard, and then
//!               FDSTORE=1 each socket, READY=1, and so on
//! ```
//!
//! A service manager that cannot be told is noted once in the log, and stops nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sd_notify::NotifyState;

use crate::session::Listen;

/// The service manager, or nobody.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    is_there: bool,
    /// It listens to another process of this server.
    is_silent: AtomicBool,
    kept: Mutex<Kept>,
    has_failed: AtomicBool,
}

/// The sockets that it keeps.
#[derive(Debug, Default)]
struct Kept {
    /// How many more at most.
    room: usize,
    /// Each with its name there and its listener. The store can only be told to close all of one name:
    /// those of them that are to stay are put there again.
    sockets: Vec<(String, Listen, OwnedFd)>,
    /// What it is to forget as soon as it listens: names of passed sockets that nobody wants.
    unwanted: Vec<String>,
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
            kept: Mutex::new(Kept {
                room: room.unwrap_or(usize::MAX),
                ..Kept::default()
            }),
            ..Self::default()
        }
    }

    /// The same for a process that takes over from an older one, to whom it listens until
    /// [`Supervisor::speak`].
    pub(super) fn silent() -> Self {
        let supervisor = Self::find();
        supervisor.is_silent.store(true, Ordering::Release);
        supervisor
    }

    /// It listens to this process from now on: it is given what it has not been given.
    pub(super) fn speak(&self) {
        self.is_silent.store(false, Ordering::Release);
        let mut kept = self.kept.lock();
        // Before those that are to stay, as some may have the same name.
        for name in std::mem::take(&mut kept.unwanted) {
            self.forget_at_once(&name);
        }
        for (name, _, socket) in &kept.sockets {
            self.store(name, socket.as_fd());
        }
        drop(kept);
        // The time since its last food counts on, whoever gave it.
        if self.patience().is_some() {
            self.alive();
        }
    }

    /// It listens to a newer process of this server, which keeps all sockets.
    pub(super) fn resign(&self, process: u32) {
        self.tell(&[NotifyState::MainPid(process)]);
        self.is_silent.store(true, Ordering::Release);
        self.kept.lock().sockets.clear();
    }

    /// Whether sockets of this name are kept; where nobody keeps any, all names may as well be.
    pub(super) fn keeps(&self, name: &str) -> bool {
        let kept = self.kept.lock();
        !self.is_there || kept.sockets.iter().any(|(known, ..)| known == name)
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

    /// True when there is one.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Gives it a listener's sockets to keep, under a name, as many as it has room for.
    pub(super) fn keep<'a>(
        &self,
        name: &str,
        listen: &Listen,
        sockets: impl IntoIterator<Item = BorrowedFd<'a>>,
    ) {
        if !self.is_there {
            return;
        }
        let mut kept = self.kept.lock();
        for socket in sockets {
            let copy = socket.try_clone_to_owned();
            let (Some(room), Ok(copy)) = (kept.room.checked_sub(1), copy) else {
                return;
            };
            kept.room = room;
            self.store(name, socket);
            kept.sockets.push((name.to_owned(), listen.clone(), copy));
        }
    }

    /// Has it close the sockets of listeners that are gone.
    pub(super) fn release(&self, gone: &[Listen]) {
        let mut kept = self.kept.lock();
        let is_gone = |listen: &Listen| gone.iter().any(|one| one.is_place_of(listen));
        let (leave, mut stay): (Vec<_>, Vec<_>) = std::mem::take(&mut kept.sockets)
            .into_iter()
            .partition(|(_, listen, _)| is_gone(listen));
        let mut names: Vec<&str> = leave.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let is_silent = self.is_silent.load(Ordering::Acquire);
        for name in names {
            match is_silent {
                true => kept.unwanted.push(name.to_owned()),
                false => self.forget_at_once(name),
            }
            for (_, _, socket) in stay.iter().filter(|(known, ..)| known == name) {
                self.store(name, socket.as_fd());
            }
        }
        kept.room = kept.room.saturating_add(leave.len());
        kept.sockets.append(&mut stay);
    }

    fn store(&self, name: &str, socket: BorrowedFd<'_>) {
        if self.is_silent.load(Ordering::Acquire) {
            return;
        }
        let state = [
            NotifyState::FdStore,
            NotifyState::FdName(name),
            // It is to keep them whatever is ready there: waiting clients are the purpose.
            NotifyState::Custom("FDPOLL=0"),
        ];
        self.note(sd_notify::notify_with_fds(&state, &[socket]));
    }

    /// Has it close the sockets that it keeps under this name.
    pub(super) fn forget(&self, name: &str) {
        if self.is_silent.load(Ordering::Acquire) {
            self.kept.lock().unwanted.push(name.to_owned());
            return;
        }
        self.forget_at_once(name);
    }

    fn forget_at_once(&self, name: &str) {
        self.tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    /// Everything is open and served.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The server ends in good order: nobody shall wait at its sockets.
    pub(super) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
        let sockets = std::mem::take(&mut self.kept.lock().sockets);
        let mut names: Vec<&str> = sockets.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            self.forget(name);
        }
    }

    /// Every loop goes round.
    pub(super) fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if self.is_there && !self.is_silent.load(Ordering::Acquire) {
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
