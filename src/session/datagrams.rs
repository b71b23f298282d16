//! What a session may do with datagrams.
//!
//! A socket is named from the moment on at which it is asked for, so the datagram that asked for it
//! leaves by it in the same call, and nothing has to be kept until it is open:
//!
//! ```text
//!   Datagrams(train) ─> associate(to) ─> socket ─> train(socket, ..)
//!                                          └─ it cannot be opened ──> Unbound(socket)
//! ```
//!
//! What is queued leaves at the end of the turn, or earlier when it is much. A datagram that the
//! system has no room for is dropped and counted: one slow flow never holds up another.

use std::net::SocketAddr;

use super::{Action, Cx};
use crate::net::{SocketKey, Train};

impl Cx<'_> {
    /// A datagram socket of this session's own, bound to an address, for whoever sends to it:
    /// [`Event::Bound`](super::Event::Bound) tells where, as port 0 becomes a free one, or
    /// [`Event::Unbound`](super::Event::Unbound) why not. It closes with the session. `None` when
    /// the server has all the connections and sockets that it may have.
    pub fn bind(&mut self, at: SocketAddr) -> Option<SocketKey> {
        let socket = self.outlets.reserve_socket()?;
        self.actions.push(Action::Bind(socket, at));
        Some(socket)
    }

    /// A datagram socket of this session's own that speaks with one address: only that can answer,
    /// and [`Event::Bounced`](super::Event::Bounced) tells what could not be delivered there. It
    /// may be sent by at once; only a failure is told, by [`Event::Unbound`](super::Event::Unbound).
    /// It closes with the session. `None` as by [`Cx::bind`].
    pub fn associate(&mut self, to: SocketAddr) -> Option<SocketKey> {
        let socket = self.outlets.reserve_socket()?;
        self.actions.push(Action::Associate(socket, to));
        Some(socket)
    }

    /// Closes a datagram socket of this session's own behind what is queued on it. The socket of a
    /// listener stays as long as the server takes work.
    pub fn unbind(&mut self, socket: SocketKey) {
        self.actions.push(Action::Unbind(socket));
    }

    /// Queues one datagram, put together from `parts`, on a socket of any session on this core.
    /// `to` is `None` on a socket that [`Cx::associate`] gave. Datagrams of one length that are
    /// sent to one address one after the other cost little more than one.
    pub fn datagram(&mut self, socket: SocketKey, to: Option<SocketAddr>, parts: &[&[u8]]) {
        self.outlets.datagram(socket, to, parts);
    }

    /// Queues the datagrams of a train as they are, which is the cheapest way to pass them on.
    pub fn train(&mut self, socket: SocketKey, to: Option<SocketAddr>, train: &Train<'_>) {
        self.outlets.train(socket, to, train);
    }
}
