//! A server in a thread of its own that sends back what it gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::support::peer::Peer;

use super::endpoint::Endpoint;
use super::{Dialect, Got, data};

/// An echoing server, until it is dropped.
pub struct Echo {
    peer: Peer,
    closed: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Heard>>,
}

/// What an echoing server was told.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Heard {
    /// Connections that were dialled to it.
    pub joined: usize,
    /// Closes that it got.
    pub closed: usize,
}

impl Echo {
    pub fn start(server: Endpoint) -> Self {
        let peer = server.writer();
        let closed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&closed);
        let thread = std::thread::spawn(move || echo(server, &counter));
        Self {
            peer,
            closed,
            thread: Some(thread),
        }
    }

    /// How many closes it has got so far.
    pub fn closed(&self) -> usize {
        self.closed.load(Ordering::Relaxed)
    }

    /// Waits until the gateway has closed the connection, or makes it.
    pub fn finish(mut self) -> Heard {
        self.peer.try_finish();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.peer.try_finish();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers in batches: one write for all that one read brought.
fn echo(mut server: Endpoint, closed: &AtomicUsize) -> Heard {
    let mut heard = Heard::default();
    let mut answers = Vec::new();
    while let Some(got) = server.maybe() {
        match got {
            Got::Data(conn, payload) => answers.extend(data(conn, &payload)),
            Got::Accept { .. } | Got::Connect { .. } => heard.joined += 1,
            Got::Close(_) => {
                heard.closed += 1;
                closed.fetch_add(1, Ordering::Relaxed);
            }
            // Only in the document's dialect is it a question.
            Got::Ping if server.dialect == Dialect::Document => {
                answers.extend(server.dialect.ping());
            }
            Got::Ping | Got::Open(_) | Got::Refuse(_) => {}
        }
        if !server.has_frame() && !answers.is_empty() {
            server.peer().try_send(&answers);
            answers.clear();
        }
    }
    heard
}
