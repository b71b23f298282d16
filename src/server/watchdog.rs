//! The watchdog's feeder: tells the service manager that the server is alive, for as long as every
//! loop goes round. One that does not starves the watchdog, and the server is started anew.
//!
//! ```text
//!   look at every pulse, wake every loop ──> half the watchdog's time ──> all have moved: feed ──┐
//!        ^                                     ^                                                 │
//!        │                                     └── an eighth of it, while one has not            │
//!        └───────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A loop with nothing to do sleeps for long, which is why it is woken.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::StartError;
use crate::reactor::Pulse;

/// The running feeder.
pub(super) struct Watchdog {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// A loop that is watched.
pub(super) struct Loop {
    /// What the log calls it.
    pub(super) name: String,
    /// What it beats.
    pub(super) pulse: Arc<Pulse>,
    /// Makes it go round; never blocks.
    pub(super) wake: Box<dyn Fn() + Send>,
}

impl Watchdog {
    /// Feeds, by `feed`, a watchdog that barks after `time` without food.
    pub(super) fn start(
        loops: Vec<Loop>,
        time: Duration,
        feed: impl Fn() + Send + 'static,
    ) -> Result<Self, StartError> {
        let (stop, stopped) = bounded(1);
        let thread = thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || run(&loops, time / 2, &stopped, feed))
            .map_err(|error| StartError::System("start the watchdog's thread", error))?;
        Ok(Self { stop, thread })
    }

    /// Ends the feeding. The loops are let go of when this returns.
    pub(super) fn close(self) {
        drop(self.stop);
        // Its body does nothing that could panic; there is nobody to tell if it did.
        let _ = self.thread.join();
    }
}

fn run(loops: &[Loop], period: Duration, stopped: &Receiver<()>, feed: impl Fn()) {
    loop {
        let seen = look_and_wake(loops);
        let mut pause = period;
        let mut is_told = false;
        loop {
            if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let stuck = stuck(loops, &seen);
            if stuck.is_empty() {
                break;
            }
            if !is_told {
                let names = stuck.join(", ");
                log::error!("no progress for {period:?}: {names}; the watchdog is not fed");
                is_told = true;
            }
            pause = period / 8;
        }
        feed();
    }
}

/// What every pulse shows, before its loop is woken.
fn look_and_wake(loops: &[Loop]) -> Vec<u64> {
    let look = |one: &Loop| {
        let seen = one.pulse.look();
        (one.wake)();
        seen
    };
    loops.iter().map(look).collect()
}

/// The loops that have not gone round since.
fn stuck<'a>(loops: &'a [Loop], seen: &[u64]) -> Vec<&'a str> {
    let pairs = loops.iter().zip(seen);
    let stuck = pairs.filter(|(one, seen)| !one.pulse.has_moved(**seen));
    stuck.map(|(one, _)| one.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(name: &str) -> Loop {
        let pulse = Arc::new(Pulse::default());
        let beating = Arc::clone(&pulse);
        Loop {
            name: name.to_owned(),
            pulse,
            wake: Box::new(move || beating.beat()),
        }
    }

    fn still(name: &str) -> Loop {
        Loop {
            wake: Box::new(|| {}),
            ..quick(name)
        }
    }

    #[test]
    fn one_loop_that_stands_still_is_enough() {
        let loops = [quick("worker 0"), still("worker 1"), still("control")];
        let seen = look_and_wake(&loops);
        assert_eq!(stuck(&loops, &seen), ["worker 1", "control"]);
        loops[1].pulse.beat();
        assert_eq!(stuck(&loops, &seen), ["control"]);
        loops[2].pulse.end();
        assert_eq!(stuck(&loops, &seen), [""; 0]);
    }

    #[test]
    fn loops_that_only_a_bell_wakes_are_alive() {
        let (fed, meals) = bounded(1);
        let feed = move || {
            let _ = fed.try_send(());
        };
        let time = Duration::from_millis(20);
        let watchdog = Watchdog::start(vec![quick("worker 0")], time, feed).unwrap();
        for _ in 0..3 {
            meals.recv_timeout(PATIENCE).unwrap();
        }
        watchdog.close();
        assert!(meals.try_iter().count() <= 1 && meals.recv().is_err());
    }

    #[test]
    fn a_loop_that_comes_round_late_is_fed_for_again() {
        let (late, slow) = (still("control"), Arc::new(Pulse::default()));
        let late = Loop {
            pulse: Arc::clone(&slow),
            ..late
        };
        let (fed, meals) = bounded(1);
        let feed = move || {
            let _ = fed.try_send(());
        };
        let time = Duration::from_millis(20);
        let watchdog = Watchdog::start(vec![late], time, feed).unwrap();
        assert!(meals.recv_timeout(time * 4).is_err(), "it starves");
        slow.beat();
        meals.recv_timeout(PATIENCE).unwrap();
        watchdog.close();
    }

    const PATIENCE: Duration = Duration::from_secs(20);
}
