//! One virtual connection between the link's reader and the program: a queue of messages that is
//! bounded in bytes, and how it ended.
//!
//! It is not the connection's place in the table, nor its frames on the wire: those are the link's.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// A queue with one writer, the link's reader, and as many readers as the program has threads.
pub(super) struct Channel {
    inner: Mutex<Inner>,
    /// Bytes that may wait; a message larger than all of it waits alone.
    most: usize,
    /// A message came, or the end.
    arrived: Condvar,
    /// A message was taken, or the end.
    taken: Condvar,
}

struct Inner {
    messages: VecDeque<Vec<u8>>,
    /// The weight of all messages.
    weight: usize,
    state: State,
}

/// How a virtual connection stands. It changes once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Messages flow.
    Open,
    /// The other end, or the gateway in its place, has closed it.
    ClosedByThem,
    /// This program has.
    ClosedByUs,
    /// The link to the gateway is over, and so is all that ran on it.
    LinkOver,
}

/// What a receiver finds.
pub(super) enum Received {
    Message(Vec<u8>),
    /// Nothing is left, and this is why nothing more comes.
    End(State),
    /// The deadline passed first.
    Nothing,
}

impl Channel {
    pub(super) fn new(most: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                messages: VecDeque::new(),
                weight: 0,
                state: State::Open,
            }),
            most,
            arrived: Condvar::new(),
            taken: Condvar::new(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.inner.lock().state
    }

    /// Queues a message; waits for room as long as there is none and the connection is open. A
    /// message for an ended one is dropped.
    pub(super) fn deliver(&self, message: Vec<u8>) {
        let weight = message.len() + OVERHEAD;
        let mut inner = self.inner.lock();
        while inner.state == State::Open && inner.weight > 0 && inner.weight + weight > self.most {
            self.taken.wait(&mut inner);
        }
        if inner.state == State::Open {
            inner.weight += weight;
            inner.messages.push_back(message);
            self.arrived.notify_one();
        }
    }

    /// The next message; waits for it until the deadline, or without end.
    pub(super) fn receive(&self, deadline: Option<Instant>) -> Received {
        let mut inner = self.inner.lock();
        loop {
            if let Some(message) = inner.messages.pop_front() {
                inner.weight -= message.len() + OVERHEAD;
                self.taken.notify_one();
                return Received::Message(message);
            }
            if inner.state != State::Open {
                return Received::End(inner.state);
            }
            if wait(&self.arrived, &mut inner, deadline).is_err() {
                return Received::Nothing;
            }
        }
    }

    /// Ends it, and wakes all who wait. False when it had ended before.
    pub(super) fn end(&self, state: State) -> bool {
        let mut inner = self.inner.lock();
        let is_first = inner.state == State::Open;
        if is_first {
            inner.state = state;
            self.arrived.notify_all();
            self.taken.notify_all();
        }
        is_first
    }
}

/// The deadline has passed.
pub(super) struct Passed;

/// Waits for a signal until the deadline, or without end.
pub(super) fn wait<T>(
    signal: &Condvar,
    guard: &mut MutexGuard<'_, T>,
    deadline: Option<Instant>,
) -> Result<(), Passed> {
    match deadline {
        None => signal.wait(guard),
        Some(deadline) => {
            if signal.wait_until(guard, deadline).timed_out() {
                return Err(Passed);
            }
        }
    }
    Ok(())
}

/// What a message weighs beside its bytes, so that a flood of empty ones is bounded too.
const OVERHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs(20))
    }

    fn take(channel: &Channel) -> Vec<u8> {
        match channel.receive(soon()) {
            Received::Message(message) => message,
            Received::End(state) => panic!("ended: {state:?}"),
            Received::Nothing => panic!("nothing came"),
        }
    }

    #[test]
    fn messages_come_in_order_and_the_end_behind_them() {
        let channel = Channel::new(1000);
        channel.deliver(b"one".to_vec());
        channel.deliver(Vec::new());
        assert!(channel.end(State::ClosedByThem));
        assert!(!channel.end(State::ClosedByUs));
        channel.deliver(b"late".to_vec());
        assert_eq!(take(&channel), b"one");
        assert_eq!(take(&channel), b"");
        for _ in 0..2 {
            let end = channel.receive(None);
            assert!(matches!(end, Received::End(State::ClosedByThem)));
        }
    }

    #[test]
    fn an_empty_queue_is_waited_for_until_the_deadline() {
        let channel = Channel::new(1000);
        let now = Some(Instant::now());
        assert!(matches!(channel.receive(now), Received::Nothing));
    }

    #[test]
    fn a_full_queue_makes_the_writer_wait_and_drops_nothing() {
        let channel = Channel::new(2 * (100 + OVERHEAD));
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for at in 0..100_u8 {
                    channel.deliver(vec![at; 100]);
                    let inner = channel.inner.lock();
                    assert!(inner.messages.len() <= 2, "message {at}");
                }
            });
            for at in 0..100_u8 {
                assert_eq!(take(&channel), vec![at; 100]);
            }
            writer.join().unwrap();
        });
        assert_eq!(channel.inner.lock().weight, 0);
    }

    #[test]
    fn a_message_larger_than_the_queue_waits_alone() {
        let channel = Channel::new(10);
        channel.deliver(vec![7; 500]);
        assert_eq!(take(&channel).len(), 500);
    }

    #[test]
    fn an_end_frees_a_writer_that_waits() {
        let channel = Channel::new(1);
        channel.deliver(vec![1]);
        thread::scope(|scope| {
            scope.spawn(|| channel.deliver(vec![2]));
            channel.end(State::ClosedByUs);
        });
        assert_eq!(take(&channel), [1]);
        let end = channel.receive(None);
        assert!(matches!(end, Received::End(State::ClosedByUs)));
    }
}
