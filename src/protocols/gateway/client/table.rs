//! What a link knows of its virtual connections: which are open, which wait for an owner, and of which
//! the gateway is still to be told.
//!
//! It is not the link: it neither waits nor writes. Every call here is short, under the link's lock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::super::wire::{Command, Dialect};
use super::channel::{Channel, State};
use super::dials::Dials;
use super::error::End;

/// The connections of one link.
#[derive(Default)]
pub(super) struct Table {
    /// The open ones.
    open: HashMap<u32, Arc<Channel>>,
    /// Those that this side closed, until the gateway's own Close for them comes: what still arrives
    /// on them is dropped without a word. At most [`CLOSING`].
    closing: HashSet<u32>,
    pub(super) dials: Dials,
    /// Those that the other side has dialled and nobody has accepted.
    pub(super) backlog: VecDeque<Offer>,
    /// Of which a Close is to be sent: once for each that was open, and for unknown ids as long as
    /// fewer than [`COURTESY`] wait.
    closes: VecDeque<u32>,
    /// A ping is to be answered.
    pub(super) owes_pong: bool,
    /// Why the link is over.
    pub(super) end: Option<End>,
    pub(super) has_read_all: bool,
    pub(super) has_left: bool,
}

/// A virtual connection that is open and has no owner yet.
pub(super) struct Offer {
    pub(super) conn: u32,
    pub(super) remote: u32,
    pub(super) channel: Arc<Channel>,
}

/// What the gateway is to be told on the link's own account.
pub(super) struct Due {
    closes: VecDeque<u32>,
    owes_pong: bool,
}

/// Where a message belongs.
pub(super) enum Place {
    Open(Arc<Channel>),
    /// This side closed it before the message came.
    Closing,
    Unknown,
}

impl Table {
    /// Opens a connection. A gateway that gives an id out again has ended the one before it.
    pub(super) fn admit(&mut self, conn: u32, channel: Arc<Channel>) {
        self.closing.remove(&conn);
        if let Some(before) = self.open.insert(conn, channel) {
            before.end(State::ClosedByThem);
        }
    }

    pub(super) fn find(&self, conn: u32) -> Place {
        match self.open.get(&conn) {
            Some(channel) => Place::Open(Arc::clone(channel)),
            None if self.closing.contains(&conn) => Place::Closing,
            None => Place::Unknown,
        }
    }

    /// This side closes a connection; false when the other end was first, whose Close is answered
    /// already.
    pub(super) fn close(&mut self, conn: u32, channel: &Arc<Channel>) -> bool {
        let open = self.open.get(&conn);
        if !open.is_some_and(|open| Arc::ptr_eq(open, channel)) {
            return false;
        }
        self.open.remove(&conn);
        if self.closing.len() < CLOSING {
            self.closing.insert(conn);
        }
        self.closes.push_back(conn);
        true
    }

    /// The gateway closes a connection: the one that was open, and now owes a Close in return. `None`
    /// for the answer to a Close of this side, and for an unknown id.
    pub(super) fn closed(&mut self, conn: u32) -> Option<Arc<Channel>> {
        if self.closing.remove(&conn) {
            return None;
        }
        let channel = self.open.remove(&conn)?;
        self.closes.push_back(conn);
        Some(channel)
    }

    /// Has the gateway told that nobody here knows the id.
    pub(super) fn close_unknown(&mut self, conn: u32) {
        if self.closes.len() < COURTESY && !self.closes.contains(&conn) {
            self.closes.push_back(conn);
        }
    }

    /// Ends everything; the first reason stays.
    pub(super) fn finish(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        let mut open: Vec<u32> = Vec::with_capacity(self.open.len());
        for (conn, channel) in self.open.drain() {
            channel.end(State::LinkOver);
            open.push(conn);
        }
        open.sort_unstable();
        self.closes.extend(open);
    }

    /// Whether the keeper has something to write or to end.
    pub(super) fn is_due(&self) -> bool {
        !self.closes.is_empty() || self.owes_pong || self.end.is_some()
    }

    /// What is to be written before anything else, told once.
    pub(super) fn take_due(&mut self) -> Due {
        Due {
            closes: std::mem::take(&mut self.closes),
            owes_pong: std::mem::take(&mut self.owes_pong),
        }
    }

    /// Puts back what could not be written, before what has come since.
    pub(super) fn put_back(&mut self, mut due: Due) {
        due.closes.append(&mut self.closes);
        self.closes = due.closes;
        self.owes_pong |= due.owes_pong;
    }
}

impl Due {
    /// The frames of it.
    pub(super) fn encode(&self, dialect: Dialect) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &conn in &self.closes {
            dialect.encode(Command::Close { conn }, &mut bytes);
        }
        if self.owes_pong {
            dialect.encode(Command::Ping, &mut bytes);
        }
        bytes
    }
}

/// Closed connections whose answer may be awaited; beyond that, a late message on one is answered by
/// another Close, which the gateway ignores.
const CLOSING: usize = 65_536;

/// Closes that may wait before unknown ids are left without.
const COURTESY: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> Arc<Channel> {
        Arc::new(Channel::new(1))
    }

    impl Table {
        fn take_closes(&mut self) -> VecDeque<u32> {
            self.take_due().closes
        }
    }

    #[test]
    fn each_side_is_told_of_a_close_once() {
        let mut table = Table::default();
        let (mine, theirs) = (channel(), channel());
        table.admit(1, Arc::clone(&mine));
        table.admit(2, Arc::clone(&theirs));
        assert!(table.close(1, &mine));
        assert!(!table.close(1, &mine));
        assert!(table.closed(1).is_none());
        assert!(table.closed(2).is_some());
        assert!(table.closed(2).is_none());
        assert!(!table.close(2, &theirs));
        assert_eq!(table.take_closes(), [1, 2]);
        assert!(!table.is_due());
    }

    #[test]
    fn an_id_that_comes_again_is_another_connection() {
        let mut table = Table::default();
        let (first, second) = (channel(), channel());
        table.admit(1, Arc::clone(&first));
        assert!(table.close(1, &first));
        assert!(matches!(table.find(1), Place::Closing));
        table.admit(1, Arc::clone(&second));
        assert!(!table.close(1, &first));
        assert!(matches!(table.find(1), Place::Open(_)));
        table.admit(1, channel());
        assert_eq!(second.state(), State::ClosedByThem);
    }

    #[test]
    fn unknown_ids_are_closed_once_and_never_without_bound() {
        let mut table = Table::default();
        table.close_unknown(9);
        table.close_unknown(9);
        assert_eq!(table.take_closes(), [9]);
        for conn in 0..5000 {
            table.close_unknown(conn);
        }
        assert_eq!(table.take_closes().len(), COURTESY);
    }

    #[test]
    fn what_could_not_be_written_stays_first() {
        let mut table = Table::default();
        table.close_unknown(1);
        table.owes_pong = true;
        let due = table.take_due();
        assert!(!table.is_due());
        table.close_unknown(2);
        table.put_back(due);
        let due = table.take_due();
        assert_eq!(due.closes, [1, 2]);
        assert_eq!(due.encode(Dialect::Document).len(), 13 + 13 + 9);
    }

    #[test]
    fn the_end_of_the_link_ends_every_connection() {
        let mut table = Table::default();
        let channel = channel();
        table.admit(2, Arc::clone(&channel));
        table.admit(1, self::channel());
        table.finish(End::Left);
        table.finish(End::GatewayClosed);
        assert_eq!(channel.state(), State::LinkOver);
        assert!(matches!(table.end, Some(End::Left)));
        assert_eq!(table.take_closes(), [1, 2]);
    }
}
