//! The node's own thread: it holds one main connection after the other, and rests between them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use super::main_connection::MainConnection;
use super::peer::Voice;
use super::queue::Queue;
use super::{Error, Event};

/// What the node's thread shares with those who use the node.
pub(super) struct Shared {
    pub(super) queue: Queue,
    line: Mutex<Line>,
    closed: Condvar,
}

#[derive(Default)]
struct Line {
    /// The last public address; empty before the first.
    public: String,
    /// A second handle of the main connection, to end a read from outside.
    stream: Option<TcpStream>,
    is_closed: bool,
}

impl Shared {
    pub(super) fn new(queue_bytes: usize) -> Self {
        Self {
            queue: Queue::new(queue_bytes),
            line: Mutex::default(),
            closed: Condvar::new(),
        }
    }

    pub(super) fn public(&self) -> String {
        self.line.lock().public.clone()
    }

    /// Ends the connection and the thread, now or as soon as a dial that is under way has ended.
    pub(super) fn close(&self) {
        let mut line = self.line.lock();
        line.is_closed = true;
        if let Some(stream) = line.stream.take() {
            // Fails only where the connection has ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.closed.notify_all();
        self.queue.close();
    }

    /// Keeps a handle of the connection, unless the node was closed meanwhile.
    fn hold(&self, stream: &TcpStream) -> Result<(), Error> {
        let mut line = self.line.lock();
        if line.is_closed {
            return Err(Error::Stopped);
        }
        line.stream = Some(stream.try_clone().map_err(Error::Broken)?);
        Ok(())
    }

    /// Lets go of the handle, without which the connection would stay open.
    fn release(&self) {
        self.line.lock().stream = None;
    }

    fn is_closed(&self) -> bool {
        self.line.lock().is_closed
    }

    /// Waits that long; false when the node was closed.
    fn rest(&self, pause: Duration) -> bool {
        let mut line = self.line.lock();
        let end = Instant::now() + pause;
        while !line.is_closed {
            if self.closed.wait_until(&mut line, end).timed_out() {
                return true;
            }
        }
        false
    }
}

/// The thread's own.
pub(super) struct Driver<F> {
    pub(super) shared: Arc<Shared>,
    pub(super) server: String,
    pub(super) voice: Voice,
    pub(super) observe: F,
    /// Told how the first connection went. If it failed, it stays the only one.
    pub(super) first: Option<Sender<Result<(), Error>>>,
}

impl<F: FnMut(&Event<'_>)> Driver<F> {
    /// Runs until the node is closed.
    pub(super) fn run(mut self) {
        // A receiver must not wait for a thread that has ended, by a panic of the observer either.
        let shared = Arc::clone(&self.shared);
        let _closing = Closing(&shared);
        let mut failures = 0;
        loop {
            let mut served = None;
            let error = self.serve(&mut served);
            shared.release();
            if shared.is_closed() {
                return;
            }
            if let Some(first) = self.first.take() {
                // The caller waits for it.
                let _ = first.send(Err(error));
                return;
            }
            // A server that ends every connection at once must not be asked again at once: only one
            // that has lasted makes up for the failures before it.
            if served.is_some_and(|since: Instant| since.elapsed() >= STEADY) {
                failures = 0;
            }
            let pause = jitter(failures, RandomState::new().hash_one(failures));
            failures = failures.saturating_add(1);
            (self.observe)(&match served {
                Some(_) => Event::Lost { why: &error, pause },
                None => Event::Failed { why: &error, pause },
            });
            if !shared.rest(pause) {
                return;
            }
        }
    }

    /// One connection to its end; `served` says since when it had an address.
    fn serve(&mut self, served: &mut Option<Instant>) -> Error {
        let voice = self.voice.clone();
        let opened = MainConnection::open(&self.server, &voice);
        let held = opened.and_then(|main| self.shared.hold(main.stream()).map(|()| main));
        let mut main = match held {
            Ok(main) => main,
            Err(error) => return error,
        };
        loop {
            match main.turn(&self.shared.queue) {
                Ok(None) => {}
                Ok(Some(public)) => {
                    *served = Some(Instant::now());
                    self.tell(public);
                }
                Err(error) => return error,
            }
        }
    }

    fn tell(&mut self, public: String) {
        let before = std::mem::replace(&mut self.shared.line.lock().public, public.clone());
        (self.observe)(&Event::Connected {
            public: &public,
            is_new: before != public,
        });
        if let Some(first) = self.first.take() {
            // The caller waits for it.
            let _ = first.send(Ok(()));
        }
    }
}

struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Full jitter: anything from nothing to a bound that doubles with every failure. Ten thousand nodes
/// that lose their server at once come back spread over the bound, not in one wave.
fn jitter(failures: u32, chance: u64) -> Duration {
    let doubled = SHORTEST_BOUND.saturating_mul(1 << failures.min(16));
    let bound = doubled.min(LONGEST_BOUND).as_millis() as u64;
    Duration::from_millis(chance % (bound + 1))
}

/// The bounds of the pauses between connections.
const SHORTEST_BOUND: Duration = Duration::from_millis(500);
const LONGEST_BOUND: Duration = Duration::from_secs(15);

/// How long a connection lasts that is a success.
const STEADY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_anything_up_to_a_bound_that_doubles() {
        let longest = |failures| {
            let pauses = (0..20_000).map(|chance| jitter(failures, chance));
            pauses.max().unwrap().as_millis()
        };
        let bounds: Vec<_> = (0..7).map(longest).collect();
        assert_eq!(bounds, [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        assert_eq!(longest(u32::MAX), 15_000);
        assert_eq!(jitter(3, 0), Duration::ZERO);
    }

    #[test]
    fn a_rest_ends_with_the_node() {
        let shared = Shared::new(1);
        assert!(shared.rest(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let resting = scope.spawn(|| shared.rest(Duration::from_secs(60)));
            shared.close();
            assert!(!resting.join().unwrap());
        });
    }
}
