//! Signals, taken by a thread of their own and turned into phases of the server.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
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

/// The thread that takes signals, until it is closed.
pub struct Watch {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Watch {
    /// SIGTERM and SIGINT drain, the second of them stops; SIGHUP is taken and does nothing, so that a
    /// closed terminal does not end the program.
    pub fn start(stopper: Stopper) -> io::Result<Self> {
        let reopen = Box::new(|| ());
        Self::begin(stopper, Arc::new(Supervisor::none()), None, reopen)
    }

    /// The same, and the service manager is told, SIGHUP reloads, and SIGUSR1 has the access log opened anew.
    pub(super) fn begin(
        stopper: Stopper,
        supervisor: Arc<Supervisor>,
        reload: Option<Caller>,
        reopen: Box<dyn Fn() + Send>,
    ) -> io::Result<Self> {
        // A file-size limit must fail a write, not end the process.
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, libc::SIGXFSZ])?;
        let handle = signals.handle();
        let body = move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => reload.iter().for_each(Caller::signal),
                    SIGUSR1 => reopen(),
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
