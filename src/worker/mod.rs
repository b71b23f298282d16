//! One core: feeds events to sessions, performs their actions, settles the turn.
//!
//! ```text
//!   ready events ─┐
//!   timers ───────┼─> deliver ─> session ─> actions ─> performed at once; what they cause goes
//!   letters ──────┘                                    on `pending`, never into the session again
//!                     then, once a turn: read what was queued, flush what is dirty
//! ```
//!
//! The worker has never heard of any protocol. It is generic over [`Network`], so the simulation
//! runs this very code over scripted sockets with a clock of its own: a turn is a function of the
//! events and the time that it is given.
//!
//! Bounds: connections, sessions and datagram sockets by the quota; reading by [`TURN_BYTES`] for each
//! connection and turn, and by as many and [`TURN_DATAGRAMS`] for each datagram socket; accepting by
//! [`TURN_ACCEPTS`], letters by [`TURN_LETTERS`]. `again`, `dirty`, `lazy` and `starved` hold a connection
//! at most once each; `pending` holds what the sessions of one turn gave rise to. Nobody outside ends a
//! worker: a peer, a full table and a panicking session each end what they touch and no more.

mod access;
mod account;
mod care;
mod datagrams;
mod entry;
mod handing;
mod held;
mod links;
mod log;
mod orders;
mod pacing;
mod phase;
mod record;
mod renewal;
mod residents;
mod sessions;
mod slot;
mod sockets;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

pub use self::access::{AccessQueue, AccessTally};
pub use self::account::Holdings;
use self::datagrams::{Exchange, News};
use self::log::Journal;
use self::orders::Name;
pub use self::orders::{Answer, Filter, Order, Outcome, Page, Row, Task};
pub use self::phase::{Copied, Phase};
use self::phase::{DRAINING, STOPPING};
pub use self::renewal::{Change, Leaving, Opened, Opening, Renewal, Renewed};
use self::residents::Residence;
use self::slot::Slot;
use crate::buffer::{Pipes, Pool};
use crate::config::Way;
use crate::control::{Letter, Reply, Request};
use crate::net::{
    Conn, ConnKey, ConnMark, Doors, Kernel, LinkKey, LinkMark, Listener, ListenerKey, ListenerMark,
    Load, Network, Quota, Ready, SocketKey, SocketOptions, Stream, Usage, Watched,
};
use crate::reactor::{Address, Handle, Mailbox, Outbox, SessionKey, SessionMark, Table, Wheel};
use crate::relay::Link;
use crate::session::{Action, Freight, Mail, Post, Relayed, Seat};
use crate::stats::Counters;
use crate::sys;

/// What a worker is given.
pub struct Setup<N: Network = Kernel> {
    /// Its number.
    pub core: u8,
    /// How long a connection may take to say for whom it comes.
    pub handshake_timeout: Duration,
    /// Longest silence of a relayed pair.
    pub idle_timeout: Duration,
    /// Longest wait for open sessions when the server stops.
    pub drain_timeout: Duration,
    /// Over how long the closing of what is open is spread then; none leaves it open.
    pub drain_spread: Duration,
    /// Bytes that may wait on this core, half of them in rings, half in kernel pipes.
    pub buffer_memory: usize,
    /// What connections that last are given.
    pub socket_options: SocketOptions,
    /// How relayed bytes are moved.
    pub way: Way,
    /// Bytes of one kernel pipe; 0 for none.
    pub pipe_size: usize,
    /// Seeds the masks and the like; not zero.
    pub seed: u64,
    /// Where questions to the control thread go.
    pub control: Sender<Request>,
    /// Where its answers come from.
    pub mailbox: Mailbox<Letter>,
    /// Where the letters of other cores' sessions come from.
    pub post: Mailbox<Post>,
    /// Where the house's orders come from.
    pub orders: Mailbox<Order<N>>,
    /// The boxes of all cores' sessions, in the order of the cores.
    pub cores: Vec<Address<Post>>,
    /// The server's phase.
    pub phase: Arc<Phase>,
    /// The whole server's caps.
    pub quota: Arc<Quota>,
    /// Who may come in where.
    pub doors: Arc<Doors>,
    /// How near the server is to what it may use.
    pub load: Arc<Load>,
    /// This core's counters.
    pub counters: Arc<Counters>,
    /// This core's seat of each service.
    pub seats: Vec<Box<dyn Seat>>,
    /// What each service is called in the counters where no listener's name says it.
    pub roles: Vec<&'static str>,
}

type PipeOf<N> = <<N as Network>::Stream as Stream>::Pipe;

/// One core of the server.
pub struct Worker<N: Network> {
    network: N,
    setup: Setup<N>,
    /// Letters to the sessions of other cores.
    outboxes: Vec<Outbox<Post>>,
    now: Instant,
    random: u64,
    /// The last phase that was acted on.
    phase: u8,
    drain_over: bool,
    listeners: Table<Listener<N::Listener>, ListenerMark>,
    /// What the log calls the listeners; they outlive them, for sessions do.
    names: Vec<Name>,
    /// Those that may be given to others.
    free_names: Vec<u16>,
    conns: Table<Conn<N::Stream>, ConnMark>,
    sessions: Table<Slot, SessionMark>,
    /// Sessions that are there from the start.
    residents: Vec<Residence>,
    links: Table<Link<PipeOf<N>>, LinkMark>,
    /// Datagram sockets and what passes by them.
    exchange: Exchange<N::Socket>,
    wheel: Wheel<Timer>,
    pool: Pool,
    pipes: Pipes<PipeOf<N>>,
    actions: Vec<Action>,
    /// Events that actions gave rise to.
    pending: VecDeque<Pending>,
    /// Connections to read (or pairs to pump) again without a new event.
    again: VecDeque<ConnKey>,
    /// Connections with bytes to write.
    dirty: Vec<ConnKey>,
    /// Connections with bytes that need not leave at once.
    lazy: Vec<ConnKey>,
    /// Connections that could not be read because the pool was used up.
    starved: Vec<ConnKey>,
    /// Listeners to accept from again.
    listeners_again: Vec<ListenerKey>,
    /// The timer is armed that looks whether connections still cannot be read.
    crowd_timer: bool,
    /// The timer is armed that has lazy bytes leave.
    lazy_timer: bool,
    /// The timer that drops spare blocks and pipes is armed.
    spare_timer: bool,
    /// How many listeners rest.
    resting: usize,
    /// What all cores were told that this one uses.
    usage: Usage,
    journal: Journal,
    /// Where the records of sessions that have ended go, if they are wanted.
    access: Option<AccessQueue>,
}

enum Timer {
    Session(SessionKey, u8),
    /// A connect takes too long.
    Connect(ConnKey),
    /// A connection does not say for whom it comes.
    Header(ConnKey),
    /// Last bytes take too long to leave.
    Linger(ConnKey),
    /// A peer takes none of the bytes that are queued for it.
    Stall(ConnKey),
    Idle(LinkKey),
    /// A connection may be read again, by its pace.
    Paced(ConnKey),
    /// The control thread has still to hear that a session has ended.
    Part(Handle),
    Rest(ListenerKey),
    /// A listener's datagrams are to have a session again.
    Reseat(SocketKey),
    /// A resident is to be there again.
    Reside(usize),
    Drain,
    /// A session's time in a drain has come.
    Depart(SessionKey),
    /// A session that came as the drain began has had time to say what it wants.
    Farewell(SessionKey),
    /// It has had time for its last answer.
    Oust(SessionKey),
    /// Connections could not be read for want of blocks some time ago.
    Crowd,
    /// Bytes that need not leave at once have waited for others long enough.
    Lazy,
    /// Blocks and pipes that are kept free may have been so for long.
    Spare,
}

enum Pending {
    Refused(SessionKey, u32, io::ErrorKind),
    Lost(SessionKey, ConnKey, io::ErrorKind),
    Relayed(SessionKey, Relayed),
    Reply(SessionKey, u32, Reply),
    Resume(ConnKey),
    /// There is room in this connection's queue for those who wait.
    Room(ConnKey),
    Stalled(SessionKey, ConnKey),
    Crowding(SessionKey, ConnKey),
    Listening(SessionKey, u32, ListenerKey),
    Socket(SessionKey, SocketKey, News),
    Mail(SessionKey, Handle, Mail),
    Returned(SessionKey, Handle, Mail),
    /// A session begins by itself.
    Opened(SessionKey),
    /// A connection leaves its session for another.
    Hand(ConnKey, Handoff),
    /// A connection comes from another core.
    Freight(SessionKey, Handle, Mail, Box<Freight>),
}

/// Who gives a connection to whom, and with what words.
struct Handoff {
    from: SessionKey,
    to: Handle,
    mail: Mail,
}

impl<N: Network> Worker<N> {
    /// A worker with nothing to do yet. `now` is the time of its first turn.
    pub fn new(network: N, mut setup: Setup<N>, now: Instant) -> Self {
        let most = setup.quota.most();
        let cores = std::mem::take(&mut setup.cores).into_iter().enumerate();
        Self {
            outboxes: cores.map(|(core, at)| Outbox::new(core, at)).collect(),
            network,
            now,
            random: setup.seed.max(1),
            phase: 0,
            drain_over: false,
            listeners: Table::new(MOST_LISTENERS),
            names: Vec::new(),
            free_names: Vec::new(),
            conns: Table::new(MOST_SOCKETS),
            sessions: Table::new(most + MOST_LISTENERS),
            residents: Vec::new(),
            links: Table::new(most),
            exchange: Exchange::default(),
            wheel: Wheel::new(now),
            pool: Pool::new(setup.buffer_memory / 2),
            pipes: Pipes::new(setup.buffer_memory / 2, setup.pipe_size),
            actions: Vec::new(),
            pending: VecDeque::new(),
            again: VecDeque::new(),
            dirty: Vec::new(),
            lazy: Vec::new(),
            starved: Vec::new(),
            listeners_again: Vec::new(),
            crowd_timer: false,
            lazy_timer: false,
            spare_timer: false,
            resting: 0,
            usage: Usage::default(),
            journal: Journal::default(),
            access: None,
            setup,
        }
    }

    /// Has a record made of each session that ends from now on.
    pub fn record_to(&mut self, access: AccessQueue) {
        self.access = Some(access);
    }

    /// One pass of the loop at the time `now` over what became ready.
    pub fn turn(&mut self, now: Instant, ready: impl IntoIterator<Item = Ready>) {
        self.now = now;
        for ready in ready {
            match ready.whom {
                Watched::Conn(key) => self.conn_ready(key, ready),
                Watched::Listener(key) => self.accept(key),
                Watched::Socket(key) => self.receive_later(key),
                Watched::Bell => {}
            }
        }
        self.expire();
        self.open_mailbox();
        self.take_orders();
        self.follow_phase();
        // Connections that are handed over are read by their new session in this very turn.
        self.deliver_waiting();
        self.run_again();
        self.settle();
    }

    /// How long the loop may sleep: not at all when something is left to do, forever when no timer
    /// is armed. Counted from the last turn's time, so that a turn reads the clock once.
    pub fn rest(&self) -> Option<Duration> {
        let busy = !self.again.is_empty()
            || !self.pending.is_empty()
            || !self.dirty.is_empty()
            || !self.listeners_again.is_empty()
            || self.exchange.is_busy()
            || self.setup.mailbox.has_rung()
            || self.setup.post.has_rung()
            || self.setup.orders.has_rung();
        if busy {
            return Some(Duration::ZERO);
        }
        let retry = self.outboxes.iter().any(|one| one.waiting() > 0);
        let retry = retry.then_some(RETRY);
        let deadline = self.wheel.next_deadline();
        let deadline = deadline.map(|at| at.saturating_duration_since(self.now));
        retry.into_iter().chain(deadline).min()
    }

    /// True when the server is stopping and this core has nothing left to finish.
    pub fn is_done(&self) -> bool {
        match self.phase {
            STOPPING => true,
            // Datagrams have no end to wait for.
            DRAINING => self.drain_over || (self.visits() == 0 && self.conns.is_empty()),
            _ => false,
        }
    }

    /// How many sessions are open.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many of them somebody's connection has begun.
    fn visits(&self) -> usize {
        self.sessions.len() - self.exchange.seated - self.residing()
    }

    fn expire(&mut self) {
        let mut due = Vec::new();
        self.wheel
            .expire(self.now, |timer, whose| due.push((timer, whose)));
        for (timer, whose) in due {
            match whose {
                Timer::Session(key, tag) => self.session_timer(key, tag, timer),
                Timer::Connect(key) => self.connect_ended(key, Err(io::ErrorKind::TimedOut.into())),
                Timer::Header(key) => self.header_is_late(key),
                Timer::Linger(key) => self.stop_lingering(key),
                Timer::Stall(key) => self.check_stall(key),
                Timer::Idle(key) => self.check_idle(key),
                Timer::Paced(key) => self.portion_due(key),
                Timer::Part(session) => self.part(session),
                Timer::Rest(key) => self.rested(key),
                Timer::Reseat(key) => self.reseat(key),
                Timer::Reside(at) => self.reside_again(at),
                Timer::Drain => self.drain_over = true,
                Timer::Depart(key) => self.depart(key),
                Timer::Farewell(key) => self.bid_farewell(key),
                Timer::Oust(key) => self.oust(key),
                Timer::Crowd => self.relieve(),
                Timer::Lazy => self.flush_lazy(),
                Timer::Spare => self.drop_spare(),
            }
        }
    }

    /// Gives back the blocks and pipes that nobody has needed for a second.
    fn drop_spare(&mut self) {
        self.pool.drop_spare();
        self.pipes.drop_spare();
        self.exchange.drop_spare();
        self.spare_timer = false;
        if self.pool.take_freed() {
            sys::trim_memory();
        }
    }

    /// Takes the control thread's letters, those for sessions that have gone are dropped; and those
    /// of other cores' sessions.
    fn open_mailbox(&mut self) {
        let mut letters = Vec::new();
        if self.setup.mailbox.has_rung() {
            self.setup
                .mailbox
                .open(TURN_LETTERS, |letter| letters.push(letter));
        }
        for Letter { to, ticket, reply } in letters {
            self.pending.push_back(Pending::Reply(to, ticket, reply));
        }
        self.open_post();
    }

    /// One pass over what was queued before it began; what it queues anew waits for the next turn,
    /// so a busy connection takes its share and no more.
    fn run_again(&mut self) {
        for _ in 0..self.again.len() {
            let Some(key) = self.again.pop_front() else {
                break;
            };
            if let Some(conn) = self.conns.get_mut(key) {
                conn.queued = false;
                self.advance(key);
            }
        }
        for key in std::mem::take(&mut self.listeners_again) {
            if let Some(listener) = self.listeners.get_mut(key) {
                listener.queued = false;
                self.accept(key);
            }
        }
        self.receive_again();
    }

    /// Ends the turn: what actions caused is delivered, then everything queued is written.
    fn settle(&mut self) {
        // An event can cause another (a refused connect the next connect): a fixed number of
        // rounds a turn, the rest next turn.
        for _ in 0..SETTLE_ROUNDS {
            self.deliver_waiting();
            for key in std::mem::take(&mut self.dirty) {
                self.flush(key);
            }
            self.flush_sockets();
            if self.pending.is_empty() {
                break;
            }
        }
        self.await_others();
        let spare = self.pool.has_spare() || self.pipes.has_spare() || self.exchange.has_spare();
        if !self.spare_timer && spare {
            let timer = self.wheel.arm(self.now, SPARE, Timer::Spare);
            self.spare_timer = timer.is_some();
        }
        if !self.starved.is_empty() && self.pool.left() > 0 {
            for key in std::mem::take(&mut self.starved) {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.queued = false;
                }
                self.read_again(key);
            }
        }
        for outbox in &mut self.outboxes {
            outbox.flush(self.now);
        }
        self.weigh();
        self.journal.settle(self.now, &self.setup.counters);
        self.publish();
    }

    /// Delivers what waits, and nothing that this gives rise to.
    fn deliver_waiting(&mut self) {
        for _ in 0..self.pending.len() {
            if let Some(pending) = self.pending.pop_front() {
                self.deliver_pending(pending);
            }
        }
    }

    /// Queues a connection until there are blocks to read into.
    fn starve(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.queued
        {
            conn.queued = true;
            self.starved.push(key);
            self.watch_crowd(CROWD);
        }
    }

    /// Queues a connection to be read or pumped in the next pass.
    fn read_again(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.queued
        {
            conn.queued = true;
            self.again.push_back(key);
        }
    }
}

/// Bytes that one connection may move in one turn before others get theirs.
const TURN_BYTES: usize = 256 * 1024;

/// Datagrams that one socket may give in one turn, empty ones among them, before others get theirs.
const TURN_DATAGRAMS: usize = 512;

/// Connections that one listener takes in one turn.
const TURN_ACCEPTS: usize = 64;

/// Letters taken in one turn.
const TURN_LETTERS: usize = 4096;

/// How long a free block or pipe is kept for the next who needs one.
const SPARE: Duration = Duration::from_secs(1);

/// How long connections may wait for blocks to be read into before room is made.
const CROWD: Duration = Duration::from_secs(1);

/// How long bytes that need not leave at once wait for others to leave with.
const LAZY: Duration = Duration::from_millis(2);

/// How soon more room is made when one connection's was not enough.
const NEXT_CROWD: Duration = Duration::from_millis(100);

const SETTLE_ROUNDS: usize = 4;

/// Listeners of one core.
const MOST_LISTENERS: usize = 65_536;

/// Connections, and datagram sockets, that the poll can tell apart.
const MOST_SOCKETS: usize = 1 << 30;

/// How soon letters that found no room are tried again.
const RETRY: Duration = Duration::from_millis(1);
