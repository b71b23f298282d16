//! The bystander: a relay that echoes a block every 10 ms while something else goes wrong, and
//! that must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::peer::Peer;
use super::until;

/// An echo loop in a thread of its own.
pub struct Reference {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Reference {
    /// Starts to echo over `peer`, a relay that leads to an echo backend.
    pub fn start(mut peer: Peer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let (stopping, count) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::SeqCst) {
                let round = count.load(Ordering::SeqCst);
                let block = vec![round.to_le_bytes()[0]; 1024];
                peer.send(&block).expect(&block);
                count.store(round + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(10));
            }
            peer.finish().expect_end();
        });
        Self {
            stop,
            rounds,
            thread,
        }
    }

    /// Fails unless the echo still runs and ran without an error.
    pub fn expect_undisturbed(self) {
        let before = self.rounds.load(Ordering::SeqCst);
        until("the reference connection goes on", || {
            self.thread.is_finished() || self.rounds.load(Ordering::SeqCst) > before + 2
        });
        self.stop.store(true, Ordering::SeqCst);
        self.thread
            .join()
            .expect("the reference connection was disturbed");
    }
}
