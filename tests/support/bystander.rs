//! The bystander's loop: something that goes on every 10 ms while something else goes wrong, and that
//! must not notice. What goes on is the roles' own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::until;

/// Rounds in a thread of their own.
pub struct Rounds {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Rounds {
    /// Starts: each round is given what goes on and a byte of its own; `end` is given what goes on.
    pub fn start<T: Send + 'static>(
        mut what: T,
        mut round: impl FnMut(&mut T, u8) + Send + 'static,
        end: impl FnOnce(T) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let (stopping, counter) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !stopping.load(Ordering::SeqCst) {
                let start = Instant::now();
                round(&mut what, times.len().to_le_bytes()[0]);
                times.push(start.elapsed());
                counter.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(10));
            }
            end(what);
            times
        });
        Self {
            stop,
            count,
            thread,
        }
    }

    /// Waits until it has gone on for some more rounds.
    pub fn expect_going_on(&self) {
        let before = self.count.load(Ordering::SeqCst);
        until("the bystanders go on", || {
            self.thread.is_finished() || self.count.load(Ordering::SeqCst) > before + 5
        });
        assert!(!self.thread.is_finished(), "the bystanders were disturbed");
    }

    /// Fails unless it still runs and ran without an error, and at no more than a snail's pace.
    pub fn expect_undisturbed(self) {
        self.expect_going_on();
        self.stop.store(true, Ordering::SeqCst);
        let mut times = self.thread.join().expect("the bystanders were disturbed");
        times.sort_unstable();
        let middle = times[times.len() / 2];
        eprintln!(
            "bystanders: {} rounds, median {middle:?}, worst {:?}",
            times.len(),
            times[times.len() - 1]
        );
        assert!(middle < SNAIL, "the median round took {middle:?}");
    }
}

/// Twenty-five times what an idle machine is allowed to take at worst.
const SNAIL: Duration = Duration::from_millis(500);
