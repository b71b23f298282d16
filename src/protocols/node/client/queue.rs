//! Frames between the node's own thread and its receiver, bounded by their bytes: a count would let
//! large frames take any amount of memory.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::Frame;

/// Frames in order. One that is larger than the bound passes alone.
#[derive(Debug)]
pub(super) struct Queue {
    most: usize,
    inside: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    frames: VecDeque<Frame>,
    bytes: usize,
    is_closed: bool,
}

/// Why a frame was not taken.
#[derive(Debug)]
pub(super) enum Full {
    /// There was no room until the deadline; here it is again.
    Late(Frame),
    /// Nobody will take it.
    Closed,
}

impl Queue {
    /// An empty queue for at most `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            inside: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Puts a frame in, waiting for room until the deadline.
    pub(super) fn push(&self, frame: Frame, deadline: Instant) -> Result<(), Full> {
        let mut inside = self.inside.lock();
        loop {
            let bytes = inside.bytes.saturating_add(cost(&frame));
            if inside.is_closed {
                return Err(Full::Closed);
            }
            if bytes <= self.most || inside.frames.is_empty() {
                inside.bytes = bytes;
                inside.frames.push_back(frame);
                self.changed.notify_all();
                return Ok(());
            }
            if self.changed.wait_until(&mut inside, deadline).timed_out() {
                return Err(Full::Late(frame));
            }
        }
    }

    /// Takes the oldest frame, waiting for one until the deadline, if there is one. What was put in
    /// before the close is still given out.
    pub(super) fn pop(&self, deadline: Option<Instant>) -> Option<Frame> {
        let mut inside = self.inside.lock();
        loop {
            if let Some(frame) = inside.frames.pop_front() {
                inside.bytes = inside.bytes.saturating_sub(cost(&frame));
                self.changed.notify_all();
                return Some(frame);
            }
            if inside.is_closed {
                return None;
            }
            match deadline {
                None => self.changed.wait(&mut inside),
                Some(deadline) => {
                    if self.changed.wait_until(&mut inside, deadline).timed_out() {
                        return None;
                    }
                }
            }
        }
    }

    /// Wakes everybody: nothing more is put in.
    pub(super) fn close(&self) {
        self.inside.lock().is_closed = true;
        self.changed.notify_all();
    }
}

/// What a frame takes of the bound: its bytes and, so that small ones are bounded too, its place.
fn cost(frame: &Frame) -> usize {
    frame.bytes().len().saturating_add(PLACE)
}

/// About what the queue and the allocator keep for one frame.
const PLACE: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocols::node::wire::Head;

    fn frame(length: usize) -> Frame {
        let head = Head {
            network: 0,
            compression: 0,
            length: 0,
        };
        Frame::new(head, vec![0; length])
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn bytes_bound_it_but_never_a_single_frame() {
        let queue = Queue::new(1000);
        assert!(queue.push(frame(5000), now()).is_ok());
        assert!(matches!(queue.push(frame(1), now()), Err(Full::Late(_))));
        assert_eq!(queue.pop(Some(now())).unwrap().bytes().len(), 5000);
        let taken = (0..100).take_while(|_| queue.push(frame(36), now()).is_ok());
        assert_eq!(taken.count(), 10);
        assert!(queue.pop(Some(now())).is_some());
        assert!(queue.push(frame(36), now()).is_ok());
    }

    #[test]
    fn closing_wakes_both_sides_and_loses_nothing() {
        let queue = Queue::new(100);
        assert!(queue.push(frame(100), now()).is_ok());
        let far = now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let pushing = scope.spawn(|| queue.push(frame(100), far));
            queue.close();
            assert!(matches!(pushing.join().unwrap(), Err(Full::Closed)));
        });
        assert!(queue.pop(None).is_some());
        assert!(queue.pop(None).is_none());
    }

    #[test]
    fn who_waits_gets_what_comes() {
        let queue = Queue::new(100);
        std::thread::scope(|scope| {
            let popping = scope.spawn(|| queue.pop(None));
            assert!(queue.push(frame(7), now()).is_ok());
            assert_eq!(popping.join().unwrap().unwrap().bytes().len(), 7);
        });
    }
}
