//! Signals, taken by a thread of their own and turned into phases of the server.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};

use super::reload::Caller;
use super::supervisor::Supervisor;
use crate::reactor::Bell;
use crate::worker::Phase;

/// The signals that a server acts on, and what each does.
pub const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT",
        "Takes no new connections, finishes what is open for drain_timeout at most, and ends with 0. \
         A second one ends it at once.",
    ),
    (
        "SIGHUP",
        "Reads the configuration again and puts it in force, as `towpath reload` does; one with mistakes \
         changes nothing. However many come, the readings begin a second apart.",
    ),
    (
        "SIGUSR1",
        "Opens the access log's file anew, for whoever has renamed the old one.",
    ),
    (
        "SIGUSR2",
        "Starts the program anew from its file as it is now, with the same arguments, hands it the listening \
         sockets and the store, and drains. Where the new process does not come to serve, nothing has \
         changed, and the log says why.",
    ),
];

/// Ends the workers' service: tells the phase, then rings every bell.
#[derive(Clone)]
pub struct Stopper {
    phase: Arc<Phase>,
    bells: Vec<Arc<dyn Bell>>,
}

impl Stopper {
    /// A stopper of the workers behind these bells.
    pub fn new(phase: Arc<Phase>, bells: Vec<Arc<dyn Bell>>) -> Self {
        Self { phase, bells }
    }

    /// No new work; what is open is finished.
    pub fn drain(&self) {
        self.phase.drain();
        self.ring();
    }

    /// The same, and a newer process of the server has the listening sockets.
    pub(super) fn hand_over(&self) {
        self.phase.hand_over();
        self.ring();
    }

    /// The end, now.
    pub fn stop(&self) {
        self.phase.stop();
        self.ring();
    }

    /// What it tells of.
    pub fn phase(&self) -> Arc<Phase> {
        Arc::clone(&self.phase)
    }

    /// True once it drains or stops.
    pub fn is_ending(&self) -> bool {
        self.phase.is_ending()
    }

    fn ring(&self) {
        self.bells.iter().for_each(|bell| bell.ring());
    }
}

/// What signals ask for besides an end. None of it blocks.
pub(super) struct Errands {
    /// SIGHUP: where reloads are asked for.
    pub(super) reload: Option<Caller>,
    /// SIGUSR1: has the access log opened anew.
    pub(super) reopen: Box<dyn Fn() + Send>,
    /// SIGUSR2: has the sockets handed over.
    pub(super) hand_over: Box<dyn Fn() + Send>,
}

/// The thread that takes signals, until it is closed.
pub struct Watch {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Watch {
    /// SIGTERM and SIGINT drain, the second of them stops; the others are taken and do nothing, so that a
    /// closed terminal does not end the program.
    pub fn start(stopper: Stopper) -> io::Result<Self> {
        let nothing = || Box::new(|| ());
        Self::begin(
            stopper,
            Arc::new(Supervisor::none()),
            Errands {
                reload: None,
                reopen: nothing(),
                hand_over: nothing(),
            },
        )
    }

    /// The same, and the service manager is told, and what other signals ask for is done.
    pub(super) fn begin(
        stopper: Stopper,
        supervisor: Arc<Supervisor>,
        errands: Errands,
    ) -> io::Result<Self> {
        // A file-size limit must fail a write, not end the process.
        let taken = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, libc::SIGXFSZ];
        let mut signals = Signals::new(taken)?;
        let handle = signals.handle();
        let body = move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => errands.reload.iter().for_each(Caller::signal),
                    SIGUSR1 => (errands.reopen)(),
                    SIGUSR2 => (errands.hand_over)(),
                    SIGTERM | SIGINT if stopper.is_ending() => {
                        log::warn!("second signal: stopping at once");
                        stopper.stop();
                    }
                    SIGTERM | SIGINT => {
                        log::info!("draining: no new connections; a second signal stops at once");
                        stopper.drain();
                        supervisor.stopping();
                    }
                    _ => {}
                }
            }
        };
        let thread = thread::Builder::new().name("signals".into()).spawn(body)?;
        Ok(Self { handle, thread })
    }

    /// Ends the thread.
    pub fn close(self) {
        self.handle.close();
        // Its body does nothing that could panic; there is nobody to tell if it did.
        let _ = self.thread.join();
    }
}
