//! The contract between a protocol and the engine.
//!
//! A session is one protocol conversation. It owns no socket, reads no clock, never blocks: it is
//! told an [`Event`], looks at bytes, and asks for what it wants through [`Cx`]. Everything that
//! touches the system is an [`Action`], performed after the call; so tests assert on actions, and
//! a session can never re-enter the engine.
//!
//! ```text
//!   Accepted ──> Data* ──> Reply / Connected ... ──> Err(Close)       one Close for each session
//!                           └── relay(a, b) ──> Relayed ──> Err(Close)
//! ```
//!
//! Datagrams have no connections: one session on each core hears all that come to a listener, and
//! opens sockets of its own for whom it passes them on to.
//!
//! A [`Protocol`] reads its configuration into a [`Role`], which becomes a [`Service`] when the
//! server starts; each core has a [`Seat`] of it, which makes the sessions of that core and may
//! hold what they share.

mod close;
mod datagrams;
mod mail;
mod outlets;
mod role;
mod word;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::net::Sharing;
pub use crate::relay::Silence;
pub use close::{Cause, Close, Side};
pub use mail::{Freight, Mail, Post};
pub use outlets::Outlets;
pub use role::{
    Current, Ground, Listen, Protocol, Resident, Role, RouteRow, Seat, Service, Transport, alike,
    same_role,
};
pub use word::{Word, quote};

use crate::buffer::Ring;
use crate::control::{Command, Reply};
use crate::net::{ConnKey, ListenerKey, SocketKey, Throttle, Train};
use crate::reactor::Handle;
use crate::stats::Metric;
use crate::wire::proxy::Ends;

/// One conversation.
pub trait Session {
    /// Takes one event. `Err` ends the session: with a graceful [`Close`] what is still to be
    /// written is flushed first.
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close>;

    /// Appends ` key=value` words that say what this session is about, for its log line. Never a
    /// secret, never payload; a value that a peer has chosen, or anybody who may use spaces, is written
    /// as a [`Word`].
    fn describe(&self, out: &mut String);

    /// Which of its role's routes it goes by, by the name and the field of [`RouteRow`]: it drains when
    /// that one is removed.
    fn route(&self) -> Option<(&str, &str)> {
        None
    }

    /// Takes leave: called once, after [`Session::describe`], when the session is over, however that
    /// came, so that what others know of it is undone in one place. Its own listeners are closed
    /// already. Of what it asks for, only [`Cx::send`], [`Cx::forward`], [`Cx::datagram`],
    /// [`Cx::train`], [`Cx::post`] and [`Cx::resume`] (of others' connections) are done; its own
    /// connections and sockets close behind what they are sent here.
    fn leave(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}

/// What a session is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// The session begins by itself: it is a resident ([`Seat::resident`]), or another has begun it
    /// ([`Cx::spawn`]). Always the first event of such a one.
    Opened,
    /// A connection that another session has handed to this one, with all that its peer has sent
    /// and nobody has taken.
    Handed {
        /// The connection, from now on this session's.
        conn: ConnKey,
        /// Who had it.
        from: Handle,
        /// What was said with it.
        mail: Mail,
    },
    /// The connection that the session was made for, always the first event; later those that
    /// came to listeners of its own.
    Accepted {
        /// The connection, a downstream one.
        conn: ConnKey,
        /// Who it is.
        peer: SocketAddr,
        /// Which of the session's own listeners it came to.
        listener: Option<ListenerKey>,
    },
    /// A listener asked for with [`Cx::listen`] is open.
    Listening {
        /// The new listener.
        listener: ListenerKey,
        /// The tag given to [`Cx::listen`].
        tag: u32,
    },
    /// A datagram socket is open: the one that the session was made for, which is then the first
    /// event, or one asked for with [`Cx::bind`].
    Bound {
        /// The socket.
        socket: SocketKey,
        /// Where it is bound.
        address: SocketAddr,
    },
    /// A datagram socket could not be opened; what was queued on it is dropped.
    Unbound {
        /// What [`Cx::bind`] or [`Cx::associate`] gave; it names nothing any more.
        socket: SocketKey,
        /// Why.
        why: io::ErrorKind,
    },
    /// Datagrams came.
    Datagrams {
        /// By which socket.
        socket: SocketKey,
        /// One of them, or several of one length from one sender.
        train: Train<'a>,
    },
    /// A datagram sent by a socket of [`Cx::associate`] could not be delivered. The socket stays,
    /// and the next may arrive.
    Bounced {
        /// The socket.
        socket: SocketKey,
        /// Why.
        why: io::ErrorKind,
    },
    /// Bytes wait in `rx`. What is left in it is offered again with the next bytes, or after
    /// [`Cx::resume`]; a full ring stops the reading.
    Data {
        /// Whose bytes.
        conn: ConnKey,
        /// The bytes; consume what is understood.
        rx: &'a mut Ring,
        /// No byte will follow those in `rx`.
        last: bool,
    },
    /// The peer's end of the stream, told once, after its last byte was consumed.
    Eof {
        /// Whose end.
        conn: ConnKey,
    },
    /// A connection on which much was queued has sent all but a little of it.
    Drained {
        /// Which.
        conn: ConnKey,
    },
    /// A connect succeeded.
    Connected {
        /// The new connection.
        conn: ConnKey,
        /// The tag given to [`Cx::connect`].
        tag: u32,
    },
    /// A connect failed or took too long, or a listener could not be opened.
    Refused {
        /// The tag given to [`Cx::connect`] or [`Cx::listen`].
        tag: u32,
        /// Why.
        why: io::ErrorKind,
    },
    /// A connection has taken no byte of what is queued on it for as long as [`Cx::patience`]
    /// allows.
    Stalled {
        /// Which.
        conn: ConnKey,
    },
    /// Others cannot be read because the core's budget for reading is used up, and this connection
    /// holds more unread bytes than any other.
    Crowding {
        /// Which.
        conn: ConnKey,
    },
    /// Another session's words.
    Mail {
        /// Who says it.
        from: Handle,
        /// What.
        mail: Mail,
    },
    /// Own words that came too late: the session that they were for has ended.
    Returned {
        /// Whom they were for.
        to: Handle,
        /// What was said.
        mail: Mail,
    },
    /// A connection broke and is closed.
    Lost {
        /// Which.
        conn: ConnKey,
        /// How.
        why: io::ErrorKind,
    },
    /// A timer armed with [`Cx::arm`] fired.
    Timer {
        /// Its tag.
        tag: u8,
    },
    /// The answer to [`Cx::ask`].
    Reply {
        /// The ticket given with the question.
        ticket: u32,
        /// The answer.
        reply: Reply,
    },
    /// A relay has ended; both its connections are closed.
    Relayed(Relayed),
    /// The server stops taking work, or what the session came by has been removed: end now, or as soon
    /// as what is under way is done.
    Stopping,
    /// The service has another configuration, and its seat has taken it over. Told to those that stay
    /// through it: residents, and the sessions of listeners' datagrams.
    Renewed {
        /// The number that the listener has now, where the session is one's.
        listener: Option<usize>,
    },
}

/// How a relay went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from the first connection of [`Cx::relay`] to the second, and back.
    pub moved: [u64; 2],
    /// What ended it: both ends closed in order, or the first failure.
    pub end: RelayEnd,
}

/// What ended a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEnd {
    /// Both ends sent all they had and closed.
    Finished,
    /// Neither sent a byte for the idle timeout.
    Idle,
    /// The connection of that index in [`Cx::relay`] broke; the other was reset, too.
    Broken(usize, io::ErrorKind),
}

/// What a session asks for; the engine does it when the call has returned.
#[derive(Debug)]
pub enum Action {
    /// See [`Cx::connect`].
    Connect {
        /// Where to.
        to: SocketAddr,
        /// The longest wait.
        within: Duration,
        /// What the session calls the attempt.
        tag: u32,
    },
    /// See [`Cx::relay`] and [`Cx::relay_within`].
    Relay(ConnKey, ConnKey, Option<Silence>),
    /// See [`Cx::pace`].
    Pace(ConnKey, ConnKey, Vec<Arc<Throttle>>),
    /// See [`Cx::pace_one`].
    PaceOne(ConnKey, usize, Vec<Arc<Throttle>>),
    /// See [`Cx::finish`].
    Finish(ConnKey),
    /// See [`Cx::resume`].
    Resume(ConnKey),
    /// See [`Cx::arm`].
    Arm(u8, Duration),
    /// See [`Cx::disarm`].
    Disarm(u8),
    /// See [`Cx::ask`].
    Ask(u32, Command),
    /// See [`Cx::post`].
    Post(Handle, Mail),
    /// See [`Cx::passed_on`].
    PassedOn([u64; 2]),
    /// See [`Cx::served_by`].
    ServedBy(ConnKey),
    /// See [`Cx::hand`].
    Hand(ConnKey, Handle, Mail),
    /// See [`Cx::await_room`].
    AwaitRoom {
        /// Who waits.
        conn: ConnKey,
        /// For whose queue.
        of: ConnKey,
        /// To fall to how many bytes.
        until: usize,
    },
    /// See [`Cx::low_mark`].
    LowMark(ConnKey, usize),
    /// See [`Cx::shallow`].
    Shallow(ConnKey, usize),
    /// See [`Cx::pause`].
    Pause(ConnKey),
    /// See [`Cx::patience`].
    Patience(ConnKey, Duration),
    /// See [`Cx::hold`].
    Hold(ConnKey, usize),
    /// See [`Cx::close`].
    Close(ConnKey),
    /// See [`Cx::reset`].
    Reset(ConnKey),
    /// See [`Cx::listen`] and [`Cx::listen_with`].
    Listen(SocketAddr, u32, Sharing),
    /// See [`Cx::unlisten`].
    Unlisten(ListenerKey),
    /// See [`Cx::bind`].
    Bind(SocketKey, SocketAddr),
    /// See [`Cx::associate`].
    Associate(SocketKey, SocketAddr),
    /// See [`Cx::unbind`].
    Unbind(SocketKey),
}

/// What a session may do during a call.
pub struct Cx<'a> {
    /// The time of this turn.
    pub now: Instant,
    /// The session's own address.
    pub handle: Handle,
    actions: &'a mut Vec<Action>,
    outlets: &'a mut dyn Outlets,
    random: &'a mut u64,
}

impl<'a> Cx<'a> {
    /// The engine's side: where the actions go, and the rings.
    pub fn new(
        now: Instant,
        handle: Handle,
        actions: &'a mut Vec<Action>,
        outlets: &'a mut dyn Outlets,
        random: &'a mut u64,
    ) -> Self {
        Self {
            now,
            handle,
            actions,
            outlets,
            random,
        }
    }

    /// Queues bytes that the session made; they leave at the end of the turn. A session bounds
    /// what it queues by reading no further request until [`Cx::unsent`] has fallen.
    pub fn send(&mut self, conn: ConnKey, bytes: &[u8]) {
        self.outlets.send(conn, bytes);
    }

    /// The same for bytes that nobody waits for: they leave with the next ones on that connection, or alone
    /// a few milliseconds later, so that many of them cost one write.
    pub fn send_lazily(&mut self, conn: ConnKey, bytes: &[u8]) {
        self.outlets.send_lazily(conn, bytes);
    }

    /// Passes the first `count` bytes of `rx`, at most all of them, on as they are: behind what is
    /// queued on `to`, a connection of any session on this core. From ring to ring, with one copy
    /// at most; bytes for a connection that has gone are dropped. A session bounds what it queues
    /// by [`Cx::unsent`] and [`Cx::await_room`].
    pub fn forward(&mut self, rx: &mut Ring, to: ConnKey, count: usize) {
        self.outlets.forward(rx, to, count);
    }

    /// How many bytes wait to leave on a connection.
    pub fn unsent(&self, conn: ConnKey) -> usize {
        self.outlets.unsent(conn)
    }

    /// Between whom a connection is that came to this session: who came, and where to, as a proxy
    /// has said it where one is believed. `None` for one that was dialled here.
    pub fn ends(&self, conn: ConnKey) -> Option<Ends> {
        self.outlets.ends(conn)
    }

    /// How many bytes more this session may queue on a connection until there are `most`: none
    /// while others stand in line for it, unless it is this session's turn.
    pub fn room(&self, conn: ConnKey, most: usize) -> usize {
        self.outlets.room(conn, most)
    }

    /// How many bytes a connection's peer has sent that no event has taken yet. Not for the
    /// connection of the [`Event::Data`] at hand, whose ring the session holds.
    pub fn unread(&self, conn: ConnKey) -> usize {
        self.outlets.unread(conn)
    }

    /// Dials an upstream: [`Event::Connected`] or [`Event::Refused`] follows, within `within`.
    pub fn connect(&mut self, to: SocketAddr, within: Duration, tag: u32) {
        self.actions.push(Action::Connect { to, within, tag });
    }

    /// Joins two connections of this session: every byte of each, those already in its ring
    /// first, goes to the other until both have ended. Then [`Event::Relayed`] follows.
    pub fn relay(&mut self, a: ConnKey, b: ConnKey) {
        self.actions.push(Action::Relay(a, b, None));
    }

    /// [`Cx::relay`] with its own bounds of silence instead of the server's idle timeout.
    pub fn relay_within(&mut self, a: ConnKey, b: ConnKey, silence: Silence) {
        self.actions.push(Action::Relay(a, b, Some(silence)));
    }

    /// Has these throttles limit how fast two connections of this session are read, `a` by their first
    /// way and `b` by their second, whatever reads them; for a relay, before it begins. The limit of
    /// the source address comes on top, and is there for every relay without a word.
    pub fn pace(&mut self, a: ConnKey, b: ConnKey, throttles: Vec<Arc<Throttle>>) {
        self.actions.push(Action::Pace(a, b, throttles));
    }

    /// Has these throttles limit how fast one connection of this session is read, by their way of that
    /// number; without its source's.
    pub fn pace_one(&mut self, conn: ConnKey, way: usize, throttles: Vec<Arc<Throttle>>) {
        self.actions.push(Action::PaceOne(conn, way, throttles));
    }

    /// The throttle of the address that a connection comes from, where addresses have a limit: for one
    /// that is served without a relay.
    pub fn source(&self, conn: ConnKey) -> Option<Arc<Throttle>> {
        self.outlets.source(conn)
    }

    /// Sends the end of the stream after what is queued; reading goes on.
    pub fn finish(&mut self, conn: ConnKey) {
        self.actions.push(Action::Finish(conn));
    }

    /// Asks for [`Event::Data`] again with what lies in the connection's ring, and for reading to
    /// go on.
    pub fn resume(&mut self, conn: ConnKey) {
        self.actions.push(Action::Resume(conn));
    }

    /// Arms (or arms anew) the timer `tag`, one of [`TIMERS`].
    pub fn arm(&mut self, tag: u8, after: Duration) {
        assert!(usize::from(tag) < TIMERS, "a session has {TIMERS} timers");
        self.actions.push(Action::Arm(tag, after));
    }

    /// Cancels the timer `tag` if it is armed.
    pub fn disarm(&mut self, tag: u8) {
        self.actions.push(Action::Disarm(tag));
    }

    /// Asks the control thread; [`Event::Reply`] with the same ticket follows.
    pub fn ask(&mut self, ticket: u32, command: Command) {
        self.actions.push(Action::Ask(ticket, command));
    }

    /// Reads `conn` no further until at most `until` bytes are queued on `of`, a connection of any
    /// session on this core, or that has gone: then [`Event::Data`] comes as by [`Cx::resume`].
    /// Those who wait for one connection are served in the order in which they asked, each while
    /// there is room.
    pub fn await_room(&mut self, conn: ConnKey, of: ConnKey, until: usize) {
        self.actions.push(Action::AwaitRoom { conn, of, until });
    }

    /// How many bytes sessions have queued on this core, on all connections together and in whole
    /// blocks: for those who share out memory for queues.
    pub fn queued(&self) -> usize {
        self.outlets.queued()
    }

    /// Reads `conn` no further until [`Cx::resume`].
    pub fn pause(&mut self, conn: ConnKey) {
        self.actions.push(Action::Pause(conn));
    }

    /// Has [`Event::Drained`] come when at most `bytes` are queued on a connection, instead of the
    /// usual number; while more than that usual number are, it may come more than once.
    pub fn low_mark(&mut self, conn: ConnKey, bytes: usize) {
        self.actions.push(Action::LowMark(conn, bytes));
    }

    /// Keeps what the system itself queues for a connection to about so many bytes: what is queued
    /// later waits behind that, however much the peer's end would be given ahead.
    pub fn shallow(&mut self, conn: ConnKey, bytes: usize) {
        self.actions.push(Action::Shallow(conn, bytes));
    }

    /// Asks for [`Event::Stalled`] whenever bytes are queued on a connection and its peer has
    /// taken none for so long; once for each such time.
    pub fn patience(&mut self, conn: ConnKey, within: Duration) {
        self.actions.push(Action::Patience(conn, within));
    }

    /// Sets how many unread bytes a connection may hold before it is read no further: a session
    /// that takes only whole frames needs room for the largest. The bytes come out of the core's
    /// budget for reading, which may allow fewer.
    pub fn hold(&mut self, conn: ConnKey, bytes: usize) {
        self.actions.push(Action::Hold(conn, bytes));
    }

    /// Closes one connection, after what is queued on it.
    pub fn close(&mut self, conn: ConnKey) {
        self.actions.push(Action::Close(conn));
    }

    /// Closes one connection by a reset, whatever is queued on it: its peer sees that the stream is
    /// broken and not at its end.
    pub fn reset(&mut self, conn: ConnKey) {
        self.actions.push(Action::Reset(conn));
    }

    /// Listens on an address on this core alone: [`Event::Listening`] or [`Event::Refused`] follows,
    /// and then [`Event::Accepted`] for each who comes. It closes with the session.
    pub fn listen(&mut self, address: SocketAddr, tag: u32) {
        self.actions
            .push(Action::Listen(address, tag, Sharing::Alone));
    }

    /// [`Cx::listen`] on an address that several cores listen on, and the system spreads who comes
    /// over them: one of them begins with [`Sharing::First`], and the others join when it is open.
    pub fn listen_with(&mut self, address: SocketAddr, tag: u32, sharing: Sharing) {
        self.actions.push(Action::Listen(address, tag, sharing));
    }

    /// Closes a listener of this session; connections that came to it stay.
    pub fn unlisten(&mut self, listener: ListenerKey) {
        self.actions.push(Action::Unlisten(listener));
    }

    /// Tells another session something, on any core: [`Event::Mail`] there, or
    /// [`Event::Returned`] here when it has ended. Letters between two sessions keep their order.
    /// A session bounds the letters that it has under way.
    pub fn post(&mut self, to: Handle, mail: Mail) {
        self.actions.push(Action::Post(to, mail));
    }

    /// Gives a connection of this session to another, on any core, behind what the session has
    /// queued on it: [`Event::Handed`] there. What its peer has sent and this session has not taken
    /// goes with it. When the other has gone the connection is closed, and [`Event::Returned`] brings
    /// the words back. A session bounds what it leaves unread.
    pub fn hand(&mut self, conn: ConnKey, to: Handle, mail: Mail) {
        self.actions.push(Action::Hand(conn, to, mail));
    }

    /// Begins another session on this core, which counts as one connection, together with the first
    /// that it is handed: [`Event::Opened`] is its first event. `None` when the server has all that it may have.
    pub fn spawn(&mut self, session: Box<dyn Session>) -> Option<Handle> {
        self.outlets.spawn(session)
    }

    /// Says how many bytes this session has passed on by itself, from who came to it and back: they
    /// count as those of a relay in its log line and in lists of sessions.
    pub fn passed_on(&mut self, moved: [u64; 2]) {
        if moved != [0; 2] {
            self.actions.push(Action::PassedOn(moved));
        }
    }

    /// What this session passes on goes by a connection of another session on this core: whoever is at
    /// the other end of that is the upstream of its record.
    pub fn served_by(&mut self, conn: ConnKey) {
        self.actions.push(Action::ServedBy(conn));
    }

    /// True when the server as a whole takes no more work, and not only what this session came by has
    /// been removed.
    pub fn is_ending(&self) -> bool {
        self.outlets.is_ending()
    }

    /// The time by the wall clock, since the Unix epoch, for what peers are told or have said of
    /// time. It may jump: deadlines are counted by [`Cx::now`].
    pub fn unix_time(&self) -> Duration {
        self.outlets.unix_time()
    }

    /// Counts something.
    pub fn count(&mut self, metric: Metric, count: u64) {
        self.outlets.count(metric, count);
    }

    /// Random bits for masks and the like; not for secrets.
    pub fn random(&mut self) -> u64 {
        // xorshift64*: the seed is never zero, so the state never is.
        *self.random ^= *self.random >> 12;
        *self.random ^= *self.random << 25;
        *self.random ^= *self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// How many timers a session has.
pub const TIMERS: usize = 2;
