//! The bystander: a client and a server that echo 64 bytes every 10 ms while something else goes
//! wrong, and that must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::until;

use super::{Dialect, Gateway, Got, Pair};

/// An echo loop in a thread of its own.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Bystander {
    /// Starts with a server and a client of its own.
    pub fn start(gateway: &Gateway, dialect: Dialect) -> Self {
        let pair = gateway.pair(dialect, BYSTANDER);
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let (stopping, count) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || echo(pair, &stopping, &count));
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

    /// Fails unless the echo still runs and ran without an error, and at no more than a snail's pace.
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

fn echo(mut pair: Pair, stopping: &AtomicBool, count: &AtomicUsize) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stopping.load(Ordering::SeqCst) {
        let block = vec![times.len().to_le_bytes()[0]; 64];
        let start = Instant::now();
        pair.client.data(pair.conn, &block);
        pair.server.expect(Got::Data(pair.conn, block.clone()));
        pair.server.data(pair.conn, &block);
        pair.client.expect(Got::Data(pair.conn, block));
        times.push(start.elapsed());
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
    }
    pair.expect_close();
    times
}

/// The id of its server.
const BYSTANDER: u32 = 0xb057_a4de;

/// Twenty-five times what an idle machine is allowed to take at worst.
const SNAIL: Duration = Duration::from_millis(500);
