//! What a session reaches while it is called: rings, queues and counters, which the engine lends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Ends, Session};
use crate::buffer::Ring;
use crate::net::{ConnKey, SocketKey, Throttle, Train};
use crate::reactor::Handle;
use crate::stats::Metric;

/// The rings and sockets that sessions may write to while they are called.
pub trait Outlets {
    /// Queues bytes on a connection.
    fn send(&mut self, conn: ConnKey, bytes: &[u8]);
    /// The same for bytes that may wait a moment for others.
    fn send_lazily(&mut self, conn: ConnKey, bytes: &[u8]) {
        self.send(conn, bytes);
    }
    /// Moves the first `count` bytes of `rx` behind what is queued on a connection.
    fn forward(&mut self, rx: &mut Ring, to: ConnKey, count: usize);
    /// How many bytes are queued on it.
    fn unsent(&self, conn: ConnKey) -> usize;
    /// How many bytes have been read from it and not taken; none while its ring is lent out.
    fn unread(&self, conn: ConnKey) -> usize;
    /// See [`Cx::ends`](super::Cx::ends).
    fn ends(&self, conn: ConnKey) -> Option<Ends>;
    /// See [`Cx::source`](super::Cx::source).
    fn source(&self, conn: ConnKey) -> Option<Arc<Throttle>> {
        let _ = conn;
        None
    }
    /// How many bytes more may be queued on a connection until there are `most`.
    fn room(&self, conn: ConnKey, most: usize) -> usize;
    /// How many bytes sessions have queued on this core, in whole blocks.
    fn queued(&self) -> usize;
    /// The name of a datagram socket to be, with a place for it; `None` when there is none.
    fn reserve_socket(&mut self) -> Option<SocketKey>;
    /// Queues a datagram, made of parts, on a socket.
    fn datagram(&mut self, socket: SocketKey, to: Option<SocketAddr>, parts: &[&[u8]]);
    /// Queues the datagrams of a train on a socket.
    fn train(&mut self, socket: SocketKey, to: Option<SocketAddr>, train: &Train<'_>);
    /// Counts something.
    fn count(&mut self, metric: Metric, count: u64);
    /// The time by the wall clock, since the Unix epoch.
    fn unix_time(&self) -> Duration;
    /// The server as a whole takes no more work.
    fn is_ending(&self) -> bool {
        true
    }
    /// Begins a session beside the one that is being called; `None` when there is no room.
    fn spawn(&mut self, session: Box<dyn Session>) -> Option<Handle>;
}
