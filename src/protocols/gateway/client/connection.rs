//! A virtual connection in the program's hands.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::channel::{Channel, Received, State};
use super::error::End;
use super::table::Offer;
use super::{Error, Handle};

/// A virtual connection with one other end. Dropping it closes it.
///
/// All calls take `&self`, so that one thread can send while another receives, by a shared reference
/// or in an [`Arc`].
pub struct Connection {
    handle: Arc<Handle>,
    channel: Arc<Channel>,
    conn: u32,
    remote: u32,
}

impl Connection {
    pub(super) fn new(handle: Arc<Handle>, offer: Offer) -> Self {
        Self {
            handle,
            channel: offer.channel,
            conn: offer.conn,
            remote: offer.remote,
        }
    }

    /// Its id, as the gateway gave it out. Another connection may have it after this one has ended.
    pub fn id(&self) -> u32 {
        self.conn
    }

    /// The other end's id: a server's for a client, a client's for a server.
    pub fn remote(&self) -> u32 {
        self.remote
    }

    /// Sends one message, which may be empty. Returns when the system has it; the gateway takes it
    /// when it has room.
    pub fn send(&self, message: &[u8]) -> Result<(), Error> {
        match self.channel.state() {
            State::Open => self.handle.link.send(self.conn, message),
            State::ClosedByThem | State::ClosedByUs => Err(Error::Closed),
            State::LinkOver => Err(self.over()),
        }
    }

    /// Waits for the next message; `None` when either end has closed and all is received.
    pub fn receive(&self) -> Result<Option<Vec<u8>>, Error> {
        self.receive_until(None)
    }

    /// As [`Connection::receive`], or [`Error::TimedOut`] when nothing has come by then.
    pub fn receive_timeout(&self, timeout: Duration) -> Result<Option<Vec<u8>>, Error> {
        self.receive_until(Instant::now().checked_add(timeout))
    }

    /// Closes it, behind all that was sent. Does not wait, and does nothing where it has ended.
    pub fn close(&self) {
        self.handle.link.close(self.conn, &self.channel);
    }

    fn receive_until(&self, deadline: Option<Instant>) -> Result<Option<Vec<u8>>, Error> {
        match self.channel.receive(deadline) {
            Received::Message(message) => Ok(Some(message)),
            Received::End(State::LinkOver) => Err(self.over()),
            Received::End(_) => Ok(None),
            Received::Nothing => Err(Error::TimedOut),
        }
    }

    fn over(&self) -> Error {
        self.handle.link.end().unwrap_or(End::Left).into()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.conn)
            .field("remote", &self.remote)
            .field("state", &self.channel.state())
            .finish()
    }
}
