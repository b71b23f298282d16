//! What the house asks of a worker: to list its sessions, to end one of them, to take another
//! configuration over (`renewal`), to copy its listening sockets (`phase`). And how sessions
//! are ended from outside, also when the server drains.
//!
//! ```text
//!   house ── Order ──> [box of each worker] ──> a few a turn ──> Answer ──> [box of who asked]
//! ```
//!
//! Bounds: a turn does [`ORDERS`] orders; one that lists looks at [`SLOTS`] places of the table, makes
//! [`ROWS`] rows, and tells where to go on: some tenth of a millisecond. One that counts or renews looks
//! at every session. An answer that finds its box full is dropped: who asked stops waiting in its
//! own time.
//!
//! A relay that is ended from outside has not come to an end of its own: while bytes of either side
//! are under way, both ends see a reset, so that nobody takes a cut stream for a whole one. A pair
//! that is at rest closes in order.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::phase::Copied;
use super::renewal::{Leaving, Renewal, Renewed};
use super::slot::Slot;
use super::{Timer, Worker};
use crate::net::{Conn, ConnKey, Kernel, LinkKey, Network, Stream};
use crate::reactor::{Address, Handle, SessionKey};
use crate::session::{Cause, Close};
use crate::stats::{Held, Metric};

/// Something to be done by one worker.
pub struct Order<N: Network = Kernel> {
    /// Comes back in the answer.
    pub ticket: u64,
    /// What is to be done.
    pub task: Task<N>,
    /// Where the answer goes.
    pub answer: Address<Answer>,
}

/// What a worker does on demand.
pub enum Task<N: Network = Kernel> {
    /// Lists sessions, in the order of their places in the table.
    List {
        /// The first place to look at.
        from: u32,
        /// How many rows are wanted.
        most: usize,
        /// Which ones.
        filter: Filter,
    },
    /// Ends a session.
    Kick(SessionKey),
    /// Counts the sessions that would leave.
    Count(Arc<Leaving>),
    /// Takes another configuration over.
    Renew(Box<Renewal<N>>),
    /// Copies the sockets of the listeners, for a newer process of the server.
    Copy,
    /// Closes all listeners, as a drain does: the newer process has them, and the drain is next.
    Close,
}

/// Which sessions are meant: those of which everything that is given is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The role, as the address file calls it.
    pub role: Option<String>,
    /// The listener, as the log calls it.
    pub listener: Option<String>,
    /// Where the peer is.
    pub peer: Option<IpAddr>,
    /// The peer's port.
    pub port: Option<u16>,
}

/// The outcome of an [`Order`].
pub struct Answer {
    /// Whose it is.
    pub core: u8,
    /// The order's.
    pub ticket: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a [`Task`].
pub enum Outcome {
    /// Some sessions.
    Listed(Page),
    /// Whether the session was there.
    Kicked(bool),
    /// How many sessions would leave, for each entry.
    Counted(Vec<usize>),
    /// What the other configuration has led to.
    Renewed(Renewed),
    /// The copies, or why there are none.
    Copied(std::io::Result<Vec<Copied>>),
    /// The listeners are closed.
    Closed,
}

/// Some of a worker's sessions.
#[derive(Default)]
pub struct Page {
    /// The sessions.
    pub rows: Vec<Row>,
    /// Where to go on, unless all have been looked at.
    pub next: Option<u32>,
}

/// One session, in plain data.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub id: Handle,
    /// Its role, as the address file calls it.
    pub role: &'static str,
    /// What its log line begins with.
    pub listener: String,
    /// Who came; for a listener's datagrams, where they come.
    pub peer: Option<SocketAddr>,
    /// What it says of itself, as in its log line.
    pub words: String,
    /// Since when it is there.
    pub age: Duration,
    /// Bytes from whom it is for, and to them; those of a relay up to now.
    pub moved: [u64; 2],
    /// Stream connections that it has.
    pub connections: usize,
    /// Nobody's connection began it: it is the server's own.
    pub own: bool,
}

/// What the sessions of one listener, or of one resident, are called.
pub(super) struct Name {
    /// In the log.
    pub(super) text: String,
    /// In the counters, by number.
    pub(super) role: u16,
    /// Whose it is; nobody's when it is free.
    pub(super) service: Option<usize>,
    /// Which of the service's listeners; none for a resident, or when the listener is gone.
    pub(super) number: Option<usize>,
    /// Whom it named is gone, and it is free when no session bears it any more.
    pub(super) is_gone: bool,
}

impl<N: Network> Worker<N> {
    /// Names a service's listener, which has a number, or a resident; the result is what slots keep.
    pub(super) fn christen(
        &mut self,
        text: String,
        role: &'static str,
        (service, number): (usize, Option<usize>),
    ) -> u16 {
        let role = self.setup.counters.enroll(role);
        let role = role.and_then(|role| u16::try_from(role).ok());
        let name = Name {
            text,
            role: role.unwrap_or(u16::MAX),
            service: Some(service),
            number,
            is_gone: false,
        };
        if let Some(free) = self.free_names.pop() {
            self.names[usize::from(free)] = name;
            return free;
        }
        self.names.push(name);
        u16::try_from(self.names.len() - 1).unwrap_or(u16::MAX)
    }

    /// The role of a name.
    pub(super) fn role_of(&self, name: u16) -> u16 {
        let name = self.names.get(usize::from(name));
        name.map_or(u16::MAX, |name| name.role)
    }

    /// Counts a session that has begun.
    pub(super) fn count_begun(&self, role: u16) {
        if let Some(role) = self.setup.counters.role(usize::from(role)) {
            role.begin();
        }
    }

    /// Counts a session that has ended, and the bytes that are still to leave.
    pub(super) fn count_ended(&self, slot: &mut Slot, close: &Close) {
        let mut last = [0; 2];
        if close.is_graceful() {
            for conn in slot.conns.iter().filter_map(|key| self.conns.get(key)) {
                last[usize::from(!conn.dialled)] += conn.tx.len() as u64;
            }
        }
        let role = self.setup.counters.role(usize::from(slot.role));
        if let Some(role) = role {
            role.end(close.cause.reason());
        }
        for (way, count) in last.into_iter().enumerate() {
            slot.passed[way] += count;
            if let Some(role) = role {
                role.add_moved(way, count);
            }
        }
    }

    /// Counts bytes of a session: from those who came here (way 0), or to them (way 1).
    pub(super) fn book(&mut self, session: SessionKey, way: usize, count: usize) {
        let Some(slot) = self.sessions.get_mut(session).filter(|_| count > 0) else {
            return;
        };
        slot.passed[way] += count as u64;
        if let Some(role) = self.setup.counters.role(usize::from(slot.role)) {
            role.add_moved(way, count as u64);
        }
    }

    /// Counts bytes of a relay; its session learns their number from the relay itself.
    pub(super) fn book_relayed(&self, session: SessionKey, way: usize, count: u64) {
        self.setup.counters.add(Metric::Relayed, count);
        if let Some(slot) = self.sessions.get(session)
            && let Some(role) = self.setup.counters.role(usize::from(slot.role))
        {
            role.add_moved(way, count);
        }
    }

    /// Tells what there is at the end of a turn.
    pub(super) fn publish(&self) {
        let counters = &self.setup.counters;
        counters.hold(Held::Sessions, self.sessions.len());
        counters.hold(Held::Connections, self.conns.len());
        counters.hold(Held::Relays, self.links.len());
        counters.hold(Held::Sockets, self.exchange.len());
        counters.hold(Held::Buffers, self.pool.lent() * crate::buffer::BLOCK);
        counters.hold(Held::Resting, self.resting);
    }

    /// Does what the house has asked for, a turn's share of it.
    pub(super) fn take_orders(&mut self) {
        if !self.setup.orders.has_rung() {
            return;
        }
        let mut orders = Vec::new();
        self.setup.orders.open(ORDERS, |order| orders.push(order));
        for order in orders {
            let outcome = match order.task {
                Task::List { from, most, filter } => {
                    Outcome::Listed(self.list(from, most, &filter))
                }
                Task::Kick(session) => Outcome::Kicked(self.kick(session)),
                Task::Count(leaving) => Outcome::Counted(self.count_leaving(&leaving)),
                Task::Renew(renewal) => Outcome::Renewed(self.renew(*renewal)),
                Task::Copy => Outcome::Copied(self.copy_listeners()),
                Task::Close => {
                    self.close_listeners();
                    Outcome::Closed
                }
            };
            let answer = Answer {
                core: self.setup.core,
                ticket: order.ticket,
                outcome,
            };
            // Whoever asks more than it has room for goes without.
            let _ = order.answer.post(answer);
        }
    }

    fn list(&self, from: u32, most: usize, filter: &Filter) -> Page {
        let end = self.sessions.slots();
        let stop = end.min(from.saturating_add(SLOTS));
        let mut rows = Vec::new();
        let mut at = from;
        while at < stop && rows.len() < most.min(ROWS) {
            if let Some((key, slot)) = self.sessions.at(at)
                && self.is_meant(slot, filter)
            {
                rows.push(self.row(key, slot));
            }
            at += 1;
        }
        Page {
            rows,
            next: (at < end).then_some(at),
        }
    }

    fn is_meant(&self, slot: &Slot, filter: &Filter) -> bool {
        let role = filter.role.as_ref();
        let listener = filter.listener.as_ref();
        let asks = filter.peer.is_some() || filter.port.is_some();
        let peer = asks.then(|| self.peer_of(slot)).flatten();
        let peer = peer.map(|peer| (peer.ip().to_canonical(), peer.port()));
        role.is_none_or(|role| role == self.role_name(slot))
            && listener.is_none_or(|listener| listener == self.listener_name(slot))
            && filter
                .peer
                .is_none_or(|ip| peer.is_some_and(|(peer, _)| peer == ip))
            && filter
                .port
                .is_none_or(|port| peer.is_some_and(|(_, peer)| peer == port))
    }

    /// Who came; to a session that began by itself, whoever is at its first connection that was not
    /// dialled, as in its record.
    fn peer_of(&self, slot: &Slot) -> Option<SocketAddr> {
        let visitor = || {
            let conns = slot.conns.iter().take(MOST_COUNTED);
            let mut conns = conns.filter_map(|key| self.conns.get(key));
            conns.find(|conn| !conn.dialled)?.stream.peer()
        };
        let own = slot.resides || slot.seated;
        slot.peer.or_else(|| visitor().filter(|_| !own))
    }

    pub(super) fn role_name(&self, slot: &Slot) -> &'static str {
        let role = self.setup.counters.role(usize::from(slot.role));
        role.map_or("", |role| role.name())
    }

    /// What a session's log line begins with.
    pub(super) fn listener_name(&self, slot: &Slot) -> &str {
        let name = self.names.get(usize::from(slot.listener));
        name.map_or("", |name| &name.text)
    }

    fn row(&self, key: SessionKey, slot: &Slot) -> Row {
        let mut words = String::new();
        if let Some(session) = &slot.session {
            // Words of which the session's own code makes some: it may panic, and lose them.
            let describe = AssertUnwindSafe(|| session.describe(&mut words));
            if catch_unwind(describe).is_err() {
                self.setup.counters.add(Metric::Panicked, 1);
                words = String::new();
            }
        }
        let conns = slot.conns.iter().take(MOST_COUNTED);
        if conns
            .filter_map(|key| self.conns.get(key))
            .any(Conn::is_paced)
        {
            words.push_str(" limited");
        }
        Row {
            id: self.handle(key),
            role: self.role_name(slot),
            listener: self.listener_name(slot).to_owned(),
            peer: self.peer_of(slot),
            words: words.trim_start().to_owned(),
            age: self.now.saturating_duration_since(slot.opened),
            moved: self.moved_so_far(slot),
            connections: slot.conns.iter().take(MOST_COUNTED).count(),
            own: slot.resides || slot.seated,
        }
    }

    /// A session's bytes each way: its relays' where it relays, else what it has taken and sent.
    pub(super) fn moved_so_far(&self, slot: &Slot) -> [u64; 2] {
        let mut moved = slot.moved;
        for link in self.links_of(slot) {
            if let Some(link) = self.links.get(link) {
                moved[0] += link.directions[0].moved;
                moved[1] += link.directions[1].moved;
            }
        }
        if moved == [0; 2] { slot.passed } else { moved }
    }

    /// The pairs whose first connection is a session's.
    fn links_of(&self, slot: &Slot) -> Vec<LinkKey> {
        let first_of = |key: ConnKey| {
            let (link, side) = self.conns.get(key)?.link?;
            (side == 0).then_some(link)
        };
        let conns = slot.conns.iter().take(MOST_COUNTED);
        conns.filter_map(first_of).collect()
    }

    fn kick(&mut self, key: SessionKey) -> bool {
        let there = self.sessions.get(key).is_some();
        if there {
            self.cut(key, Cause::Kicked);
        }
        there
    }

    /// Ends a session from outside.
    fn cut(&mut self, key: SessionKey, cause: Cause) {
        let Some(slot) = self.sessions.get(key) else {
            return;
        };
        for link in self.links_of(slot) {
            self.cut_link(key, link);
        }
        self.end(key, Close::own(cause));
    }

    /// Closes both connections of a pair, by a reset while bytes are under way.
    fn cut_link(&mut self, session: SessionKey, key: LinkKey) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let conns = link.conns;
        let under_way = [0, 1].into_iter().any(|from| {
            let way = &link.directions[from];
            let source = self.conns.get(conns[from]);
            let target = self.conns.get(conns[1 - from]);
            let unread = source.is_some_and(|conn| !conn.rx.is_empty() || conn.can_read);
            let unsent = target.is_some_and(|conn| !conn.tx.is_empty());
            !way.ended && (way.holds_bytes() || unread || unsent)
        });
        let moved = [0, 1].map(|way: usize| link.directions[way].moved);
        if let Some(slot) = self.sessions.get_mut(session) {
            slot.moved[0] += moved[0];
            slot.moved[1] += moved[1];
        }
        self.unlink(key);
        for conn in conns {
            if let Some(conn) = self.conns.get_mut(conn).filter(|_| under_way) {
                conn.stream.abort();
            }
            self.discard(conn);
        }
    }

    /// The server drains: a session ends when it likes, or is ended at a time of its own.
    pub(super) fn bid_farewell(&mut self, key: SessionKey) {
        let spread = self.setup.drain_spread;
        let own = self
            .sessions
            .get(key)
            .is_none_or(|slot| slot.resides || slot.seated);
        if own || spread.is_zero() {
            return self.tell_stopping(key);
        }
        let after = share(self.handle(key), spread);
        self.wheel.arm(self.now, after, Timer::Depart(key));
    }

    /// The time of a session has come. One that only relays is ended at once; any other is asked,
    /// and has a moment for an answer that is under way.
    pub(super) fn depart(&mut self, key: SessionKey) {
        self.tell_stopping(key);
        let Some(slot) = self.sessions.get(key) else {
            return;
        };
        match self.links_of(slot).is_empty() {
            true => {
                self.wheel.arm(self.now, GRACE, Timer::Oust(key));
            }
            false => self.cut(key, Cause::Stopping),
        }
    }

    /// It has had its moment.
    pub(super) fn oust(&mut self, key: SessionKey) {
        self.cut(key, Cause::Stopping);
    }
}

/// A session's own part of the time over which closes are spread: the same for the same name, and
/// even over many names.
fn share(handle: Handle, spread: Duration) -> Duration {
    let key = handle.session;
    let mut hash = (u64::from(key.generation()) << 32 | u64::from(key.index()))
        ^ (u64::from(handle.core) << 24);
    // The finisher of splitmix64.
    hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let nanos = (spread.as_nanos() * u128::from(hash >> 32)) >> 32;
    Duration::from_nanos(nanos as u64)
}

/// Orders that one turn does.
const ORDERS: usize = 4;

/// Places of the session table that one order looks at.
const SLOTS: u32 = 1024;

/// Rows that one order makes.
const ROWS: usize = 128;

/// Connections of one session that are counted for its row.
const MOST_COUNTED: usize = 1024;

/// How long a session that relays nothing has for its last answer.
const GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_within_the_spread() {
        let spread = Duration::from_secs(10);
        let mut tenths = [0_u32; 10];
        for index in 0..10_000 {
            let handle = Handle {
                core: (index % 4) as u8,
                session: SessionKey::from_parts(index, index + 1).unwrap(),
            };
            let share = share(handle, spread);
            assert!(share < spread);
            tenths[share.as_secs() as usize] += 1;
        }
        // Chi-square with 9 degrees of freedom: 27.9 is passed once in a thousand times.
        let distance = |n: u32| (f64::from(n) - 1000.0).powi(2) / 1000.0;
        let sum: f64 = tenths.into_iter().map(distance).sum();
        assert!(sum < 27.9, "{tenths:?}");
    }
}
