//! The bystander: a node and its visitor that pass a frame every 10 ms while something else goes
//! wrong, and that must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::until;

use super::Visited;
use super::plan::Proxy;

/// A loop of frames and Keepalives in a thread of its own.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Bystander {
    /// Starts with a node and a visitor of its own; takes one port.
    pub fn start(proxy: &Proxy) -> Self {
        let visited = proxy.visited(BYSTANDER);
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let (stopping, count) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || pass(visited, &stopping, &count));
        Self {
            stop,
            rounds,
            thread,
        }
    }

    /// Waits until it has gone on for some more rounds.
    pub fn expect_going_on(&self) {
        let before = self.rounds.load(Ordering::SeqCst);
        until("the bystanders go on", || {
            self.thread.is_finished() || self.rounds.load(Ordering::SeqCst) > before + 5
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
        let worst = times[times.len() - 1];
        eprintln!(
            "bystanders: {} rounds, median {middle:?}, worst {worst:?}",
            times.len()
        );
        assert!(middle < SNAIL, "the median round took {middle:?}");
    }
}

fn pass(mut visited: Visited, stopping: &AtomicBool, count: &AtomicUsize) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stopping.load(Ordering::SeqCst) {
        let start = Instant::now();
        visited.expect_passing(&[times.len().to_le_bytes()[0]; 64]);
        visited.node.expect_keepalive();
        times.push(start.elapsed());
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
    }
    visited.node.leave();
    visited.visitor.expect_closed();
    times
}

/// Its number as a node.
const BYSTANDER: u32 = 0xb057;

/// Twenty-five times what an idle machine is allowed to take at worst.
const SNAIL: Duration = Duration::from_millis(500);
