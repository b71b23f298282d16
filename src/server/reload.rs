//! The reloader: a thread that holds the configuration in force, and puts another in its place.
//!
//! ```text
//!   SIGHUP ──────────────┐                        file, environment, flags: read as at the start
//!   POST /reload ────────┼─> calls ─> one at a time ─> compare ─┬─ mistakes: nothing has changed
//!   PUT, DELETE /routes ─┘                                      ├─ dry run: who would leave is counted
//!                                                               └─> bind what is new ─> renew services
//!                                                                     ─> one order to each worker
//! ```
//!
//! Everything that can go wrong is done before anything is changed: the reading, and the binding of new
//! listeners. Calls that come while one is served wait; reloads among them are served by one, and those
//! that signals ask for begin a second apart.
//!
//! `difference` compares, `house` puts in force, `words` tells.

mod difference;
mod house;
mod words;

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

pub(super) use self::house::{Beginning, House};
use super::StartError;
use crate::admin::{Answering, NotReloaded, Reload, Wish};

/// What the reloader is asked to do.
pub(super) enum Call {
    /// A signal asks for a reload.
    Signal,
    /// A client of the admin address wishes something.
    Wish(Wish, Answering),
    /// The server ends.
    End,
}

/// Where calls go. Cloned for whoever calls.
#[derive(Clone)]
pub(super) struct Caller(Sender<Call>);

/// The running reloader.
pub(super) struct Reloader {
    caller: Caller,
    thread: JoinHandle<()>,
}

/// Calls, and who makes them.
pub(super) fn calls() -> (Caller, Receiver<Call>) {
    let (sender, calls) = bounded(MOST_CALLS);
    (Caller(sender), calls)
}

impl Caller {
    /// Asks for a reload, without an answer.
    pub(super) fn signal(&self) {
        // Where so many wait, a reload is among them.
        let _ = self.0.try_send(Call::Signal);
    }
}

impl Reload for Caller {
    fn ask(&self, wish: Wish, answer: Answering) {
        match self.0.try_send(Call::Wish(wish, answer)) {
            Ok(()) => {}
            Err(TrySendError::Full(Call::Wish(_, answer))) => {
                answer(Err(NotReloaded::Failed("too many wishes wait".to_owned())));
            }
            Err(TrySendError::Disconnected(Call::Wish(_, answer))) => {
                answer(Err(NotReloaded::Failed("the server is ending".to_owned())));
            }
            Err(_) => {}
        }
    }
}

impl Reloader {
    /// Starts it.
    pub(super) fn start(
        house: House,
        caller: Caller,
        calls: Receiver<Call>,
    ) -> Result<Self, StartError> {
        let thread = thread::Builder::new()
            .name("reload".into())
            .spawn(move || Desk::new(house).run(&calls))
            .map_err(|error| StartError::System("start the reloader's thread", error))?;
        Ok(Self { caller, thread })
    }

    /// Ends it; false when it has panicked.
    pub(super) fn end(self) -> bool {
        // It takes calls, so there is room soon; one that has panicked takes none, and is gone.
        let _ = self.caller.0.send(Call::End);
        self.thread.join().is_ok()
    }
}

/// The thread's state.
struct Desk {
    house: House,
    /// Who waits for the next reload.
    waiting: Vec<Answering>,
    /// A signal has asked for one, too.
    is_signalled: bool,
    /// When the last reload began.
    last: Option<Instant>,
}

impl Desk {
    fn new(house: House) -> Self {
        Self {
            house,
            waiting: Vec::new(),
            is_signalled: false,
            last: None,
        }
    }

    fn run(&mut self, calls: &Receiver<Call>) {
        loop {
            let call = match self.pause(Instant::now()) {
                None => calls.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(pause) => calls.recv_timeout(pause),
            };
            match call {
                Ok(first) => {
                    let batch: Vec<Call> = std::iter::once(first).chain(calls.try_iter()).collect();
                    for call in batch {
                        if !self.take(call) {
                            return;
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.reload_if_due(Instant::now());
        }
    }

    /// How long a signal's reload has still to wait; nothing where there is none.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let due = self.last.map_or(now, |last| last + BETWEEN);
        self.is_signalled
            .then(|| due.saturating_duration_since(now))
    }

    /// Takes a call; false when it is the last.
    fn take(&mut self, call: Call) -> bool {
        match call {
            Call::Signal => self.is_signalled = true,
            Call::Wish(Wish::Reload { dry_run: false }, answer) => self.waiting.push(answer),
            // What was wished before it comes before it.
            Call::Wish(wish, answer) => {
                if !self.waiting.is_empty() {
                    self.reload();
                }
                answer(self.house.grant(wish));
            }
            Call::End => return false,
        }
        true
    }

    fn reload_if_due(&mut self, now: Instant) {
        let is_due = self.pause(now).is_some_and(|pause| pause.is_zero());
        if is_due || !self.waiting.is_empty() {
            self.reload();
        }
    }

    /// One reload for all who have asked.
    fn reload(&mut self) {
        self.last = Some(Instant::now());
        self.is_signalled = false;
        let outcome = self.house.grant(Wish::Reload { dry_run: false });
        for answer in self.waiting.drain(..) {
            answer(outcome.clone());
        }
    }
}

/// Calls that may wait: those of all clients of the admin address, and some signals.
const MOST_CALLS: usize = 128;

/// How far apart the reloads begin that signals ask for.
const BETWEEN: Duration = Duration::from_secs(1);
