//! One stream with its rings and what is known of its readiness.
//!
//! It is plain state: `worker` reads and writes it for sessions, `relay` for links.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Entry, Pace, Place, Stream};
use crate::buffer::{Pool, Ring};
use crate::reactor::{Key, SessionKey, TimerKey};

/// Which end of a relayed pair: 0 or 1.
pub type Side = u8;

/// Marks the keys of a worker's connection table.
pub enum ConnMark {}

/// The name of a connection on its own core.
pub type ConnKey = Key<ConnMark>;

/// Marks the keys of a worker's table of relayed pairs.
pub enum LinkMark {}

/// The name of a relayed pair on its own core.
pub type LinkKey = Key<LinkMark>;

/// One stream socket, its bytes in both directions, and its state.
pub struct Conn<S> {
    /// The socket.
    pub stream: S,
    /// The session it belongs to; `None` before there is one, and while its last bytes are flushed
    /// after that has ended.
    pub owner: Option<SessionKey>,
    /// Its session's place among the server's connections, while there is no session.
    pub place: Option<Place>,
    /// Its place in a relayed pair: the link, and which of the two it is.
    pub link: Option<(LinkKey, Side)>,
    /// Read, not yet taken by the session.
    pub rx: Ring,
    /// To be written.
    pub tx: Ring,
    /// A connect timeout, or the deadline of the last flush.
    pub timer: Option<TimerKey>,
    /// What the session calls it (a connect's tag).
    pub tag: u32,
    /// The connect has not ended yet.
    pub connecting: bool,
    /// It was dialled here; the others came by themselves.
    pub dialled: bool,
    /// A read may give bytes; cleared by a short read or `WouldBlock`.
    pub can_read: bool,
    /// A write may take bytes; cleared by a short write or `WouldBlock`.
    pub can_write: bool,
    /// The peer's end was announced: a short read does not prove the socket dry.
    pub read_closed: bool,
    /// The end of the stream was read.
    pub ended: bool,
    /// The session has been told of the end.
    pub end_told: bool,
    /// The writing side is to be shut once `tx` is empty.
    pub shut_wanted: bool,
    /// The writing side is shut.
    pub shut: bool,
    /// It is on the worker's list of connections to flush.
    pub dirty: bool,
    /// It is on the worker's list of connections with bytes that may wait for others.
    pub lazy: bool,
    /// It is on the worker's list of connections to read this turn or the next.
    pub queued: bool,
    /// The session is to be told when `tx` has fallen under its low mark.
    pub tell_drained: bool,
    /// It is about to go to another session, and nothing is done with it until then.
    pub parting: bool,
    /// Its session has ended and told its peer why: it waits for the peer's end, for a while.
    pub lingers: bool,
    /// It is read no further until there is room in the queue of that connection.
    pub awaits: Option<ConnKey>,
    /// What few connections need.
    pub care: Option<Box<Care>>,
}

/// What an engine keeps for connections whose sessions forward frames.
#[derive(Default)]
pub struct Care {
    /// Who waits for room in `tx`, each at most once, in the order in which they asked.
    pub waiters: VecDeque<Waiter>,
    /// How many unread bytes it may hold, if not the usual number.
    pub hold: Option<usize>,
    /// How long its peer may take no byte while some are queued.
    pub patience: Option<Duration>,
    /// When the peer last took some.
    pub progress: Option<Instant>,
    /// Watches over that while bytes are queued.
    pub stall: Option<TimerKey>,
    /// The engine is about to look after the waiters.
    pub calling: bool,
    /// It is looking after them: the one whose turn it is need not stand in line.
    pub serving: bool,
    /// The session is told of room when so few bytes are queued, if not the usual number.
    pub low: Option<usize>,
    /// What the system held for the peer when that was last looked at.
    pub in_flight: usize,
    /// How fast it may be read, if not as fast as it sends.
    pub pace: Option<Pace>,
    /// It has still to say for whom it comes; no session has heard of it.
    pub knock: Option<Knock>,
    /// Where its peer wanted to go, as the one who came for it has said.
    pub destination: Option<SocketAddr>,
}

/// A connection that has been accepted and not let in.
pub struct Knock {
    /// Where it came in.
    pub entry: Entry,
    /// From whom it came.
    pub peer: SocketAddr,
}

/// A connection that waits for room in another's queue.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// Which.
    pub conn: ConnKey,
    /// It goes on when so many bytes are queued, or fewer.
    pub until: usize,
}

impl<S: Stream> Conn<S> {
    /// A stream that is `connecting`, or connected.
    pub fn new(stream: S, connecting: bool) -> Self {
        Self {
            stream,
            owner: None,
            place: None,
            link: None,
            rx: Ring::default(),
            tx: Ring::default(),
            timer: None,
            tag: 0,
            connecting,
            dialled: connecting,
            // What a socket holds when it comes under watch is reported as its first event, so
            // reading ahead of that would often find nothing; a fresh socket always takes bytes.
            can_read: false,
            can_write: !connecting,
            read_closed: false,
            ended: false,
            end_told: false,
            shut_wanted: false,
            shut: false,
            dirty: false,
            lazy: false,
            queued: false,
            tell_drained: false,
            parting: false,
            lingers: false,
            awaits: None,
            care: None,
        }
    }

    /// What few connections need, from now on kept for this one.
    pub fn care(&mut self) -> &mut Care {
        self.care.get_or_insert_default()
    }

    /// True while it has still to say for whom it comes.
    pub fn knocks(&self) -> bool {
        let care = self.care.as_ref();
        care.is_some_and(|care| care.knock.is_some())
    }

    /// With how many queued bytes its session is told of room.
    pub fn low_mark(&self, usual: usize) -> usize {
        let own = self.care.as_ref().and_then(|care| care.low);
        own.unwrap_or(usual)
    }

    /// How many unread bytes it may hold.
    pub fn hold(&self) -> usize {
        let own = self.care.as_ref().and_then(|care| care.hold);
        own.unwrap_or(HOLD)
    }

    /// How many bytes may be queued in `tx` up to `most` by whoever is not in line: none while
    /// others are.
    pub fn room(&self, most: usize) -> usize {
        match &self.care {
            Some(care) if !care.waiters.is_empty() && !care.serving => 0,
            _ => most.saturating_sub(self.tx.len()),
        }
    }

    /// True when nothing is read from it for now: its session leaves enough unread, or it waits
    /// for room elsewhere.
    pub fn is_held(&self) -> bool {
        self.awaits.is_some() || self.parting || self.rx.len() >= self.hold()
    }

    /// How fast it may be read, if there is a limit.
    pub fn pace(&mut self) -> Option<&mut Pace> {
        self.care.as_mut()?.pace.as_mut()
    }

    /// True when there is a limit to that.
    pub fn is_paced(&self) -> bool {
        self.care.as_ref().is_some_and(|care| care.pace.is_some())
    }

    /// How many bytes may be read from it now; `None` where there is no limit. Reading that is so
    /// limited is booked by [`Pace::settle`].
    pub fn ration(&mut self, now: Instant) -> Option<usize> {
        let may_read = self.can_read && !self.ended;
        let pace = self.pace()?;
        // One that has nothing to read stands in nobody's way.
        Some(match may_read {
            true => pace.take(now).unwrap_or(0),
            false => 0,
        })
    }

    /// One read of up to `blocks` blocks into `rx`.
    ///
    /// `None` when the pool is used up. Afterwards `can_read` says whether another may give more.
    pub fn read(&mut self, pool: &mut Pool, blocks: usize) -> Option<io::Result<usize>> {
        let stream = &mut self.stream;
        let outcome = self.rx.fill(pool, blocks, |slices| stream.read(slices))?;
        Some(match outcome {
            Ok(filled) => {
                self.note_read(filled.count, filled.room);
                Ok(filled.count)
            }
            Err(error) => self.note_read_error(error),
        })
    }

    /// Books a read of `count` bytes where `room` were offered.
    pub fn note_read(&mut self, count: usize, room: usize) {
        if count == 0 {
            self.ended = true;
            self.can_read = false;
        } else if count < room && !self.read_closed {
            // Edge-triggered: a short read has emptied the socket, and the next byte makes a new
            // event. Only an announced end may lie behind it without one.
            self.can_read = false;
        }
    }

    /// Books a failed read: nothing to read is no failure.
    pub fn note_read_error(&mut self, error: io::Error) -> io::Result<usize> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.can_read = false;
                Ok(0)
            }
            io::ErrorKind::Interrupted => Ok(0),
            _ => {
                self.can_read = false;
                Err(error)
            }
        }
    }

    /// Writes from `tx` until it is empty or the socket takes no more; how many bytes went.
    ///
    /// Shuts the writing side when that is wanted and nothing is left.
    pub fn flush(&mut self, pool: &mut Pool) -> io::Result<usize> {
        let mut written = 0;
        let is_last = self.shut_wanted && !self.shut;
        while self.can_write && !self.tx.is_empty() {
            let stream = &mut self.stream;
            let mut offered = 0;
            let outcome = self.tx.drain(pool, |slices| {
                offered = slices.iter().map(|slice| slice.len()).sum();
                match is_last {
                    true => stream.write_last(slices),
                    false => stream.write(slices),
                }
            });
            match outcome {
                Ok(count) => {
                    written += count;
                    self.can_write = count == offered;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.can_write = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.shut_wanted && !self.shut && self.tx.is_empty() {
            self.shut = true;
            // A peer that has reset the connection already makes this fail; its reading side
            // reports that in its own turn.
            let _ = self.stream.shut();
        }
        Ok(written)
    }

    /// Gives all its blocks back.
    pub fn release(&mut self, pool: &mut Pool) {
        self.rx.clear(pool);
        self.tx.clear(pool);
    }
}

/// How many bytes a session may leave unread before its connection is read no further.
const HOLD: usize = 64 * 1024;
