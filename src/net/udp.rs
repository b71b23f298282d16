//! Datagram sockets: one socket's state, what came by one, and what waits to leave.
//!
//! Datagrams of one length between the same two ends move as a train: one system call, one walk
//! through the stack, one copy. A train arrives as the system has joined it, and what a session
//! sends to one address in a row is joined to trains here.
//!
//! ```text
//!   Batch      up to 32 trains, one call         ──> a session, train by train
//!   Outgoing   one store of bytes for all sockets <── a session; a Line through it for each socket
//! ```
//!
//! It is plain state: `worker` fills and empties it. A batch has [`DATAGRAMS`] places of [`PLACE`]
//! bytes; the bounds of [`Outgoing`] are told there.

mod outgoing;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

pub use outgoing::{Leaving, Line, Outgoing};

use super::{Datagrams, Door, Place};
use crate::reactor::{Key, SessionKey};
use crate::sys::{Arrival, DATAGRAMS};

/// Marks the keys of a worker's table of datagram sockets.
pub enum SocketMark {}

/// The name of a datagram socket on its own core.
pub type SocketKey = Key<SocketMark>;

/// One datagram socket.
pub struct Socket<S> {
    /// The system's; `None` from its session's wish to its opening, within one call of the session.
    pub io: Option<S>,
    /// The session that hears what comes.
    pub owner: Option<SessionKey>,
    /// Which of that session's sockets it is.
    pub number: usize,
    /// What it is to the server, if it is a listener's and not a session's own.
    pub home: Option<Home>,
    /// Who may send to it, if it is a listener's.
    pub door: Option<Arc<Door>>,
    /// Its place among the server's connections; a listener's has none.
    pub place: Option<Place>,
    /// It speaks with one address only, and hears of what could not be delivered there.
    pub connected: bool,
    /// It is on the worker's list of sockets to read.
    pub queued: bool,
    /// It was a listener's that is gone: it closes with its session.
    pub is_retired: bool,
    /// What waits to leave by it.
    pub line: Line,
    /// Trains of longer datagrams than this are known to be refused, by the device or by the way's
    /// MTU: they leave as single datagrams.
    pub longest_segment: usize,
}

impl<S> Socket<S> {
    /// A socket; not open yet when `io` is `None`.
    pub fn new(io: Option<S>) -> Self {
        Self {
            io,
            owner: None,
            number: 0,
            home: None,
            door: None,
            place: None,
            connected: false,
            queued: false,
            is_retired: false,
            line: Line::default(),
            longest_segment: usize::MAX,
        }
    }
}

impl<S: Datagrams> Socket<S> {
    /// Sends what waits. Whatever the system does not take now is dropped.
    ///
    /// A send can fail for the sake of an earlier datagram that bounced, so one that fails is tried
    /// once more. A train that fails twice is one that this way does not take: it leaves as single
    /// datagrams, and so do all that are as long.
    pub fn flush(&mut self, waiting: &Outgoing) -> Flushed {
        let line = std::mem::take(&mut self.line);
        let mut leaving = waiting.leaving(line, self.longest_segment);
        let mut flushed = Flushed::default();
        let mut failed = false;
        while let (Some(io), Some(first)) = (&mut self.io, leaving.clone().next()) {
            match io.send(leaving.clone()) {
                Ok(0) => break,
                Ok(taken) => {
                    let taken = leaving.by_ref().take(taken);
                    flushed.sent += taken.map(|one| outgoing::count(&one)).sum::<usize>();
                    failed = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    let of_earlier = first.segment == 0 || is_unreachable(error.kind());
                    if self.connected && of_earlier {
                        flushed.bounced.get_or_insert(error.kind());
                    }
                    if !failed {
                        failed = true;
                        continue;
                    }
                    failed = false;
                    if first.segment > 0 {
                        self.longest_segment = first.segment - 1;
                        leaving.longest_segment = self.longest_segment;
                    } else {
                        leaving.next();
                        flushed.dropped += 1;
                    }
                }
            }
        }
        flushed.dropped += leaving.map(|one| outgoing::count(&one)).sum::<usize>();
        flushed
    }
}

/// What became of the datagrams that waited at a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// How many the system took.
    pub sent: usize,
    /// How many it did not.
    pub dropped: usize,
    /// What it said of one that could not be delivered.
    pub bounced: Option<io::ErrorKind>,
}

/// An answer of the network, and none of the own system to what it is asked.
fn is_unreachable(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// A listener's datagram socket, which outlives its session.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    /// Which of the worker's names is its own, for the log.
    pub name: u16,
    /// Which of the server's services it belongs to.
    pub service: usize,
    /// Which of that service's listeners it is.
    pub number: usize,
    /// Where it is bound.
    pub address: SocketAddr,
}

/// One datagram, or several of one length from one sender, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// The bytes of all its datagrams.
    pub payload: &'a [u8],
    /// The length of each but the last, which may be shorter; 0 for a lone datagram.
    pub segment: usize,
}

impl<'a> Train<'a> {
    /// Its datagrams, whole and in order; an empty one is one, too.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let each = match self.segment {
            0 => self.payload.len().max(1),
            segment => segment,
        };
        let empty = self.payload.is_empty().then_some(self.payload);
        empty.into_iter().chain(self.payload.chunks(each))
    }

    /// How many they are, at least 1.
    pub fn count(&self) -> usize {
        count(self.payload.len(), self.segment)
    }
}

/// How many datagrams a train has.
fn count(len: usize, segment: usize) -> usize {
    match segment {
        0 => 1,
        segment => len.div_ceil(segment).max(1),
    }
}

/// What one call has taken from a socket. It takes up memory from its first use to
/// [`Batch::release`], and of that only the pages that were written to.
pub struct Batch {
    room: Vec<u8>,
    arrivals: [Arrival; DATAGRAMS],
    count: usize,
}

impl Default for Batch {
    fn default() -> Self {
        let none = Arrival {
            from: None,
            len: 0,
            segment: 0,
            truncated: false,
        };
        Self {
            room: Vec::new(),
            arrivals: [none; DATAGRAMS],
            count: 0,
        }
    }
}

impl Batch {
    /// Takes what waits at a socket, in place of what it held. True when more may wait.
    pub fn fill(&mut self, socket: &mut impl Datagrams) -> io::Result<bool> {
        if self.room.is_empty() {
            self.room = vec![0; DATAGRAMS * PLACE];
        }
        self.count = 0;
        self.count = socket.receive(&mut self.room, PLACE, &mut self.arrivals)?;
        Ok(self.count == DATAGRAMS)
    }

    /// What it holds; `None` stands for a datagram that was cut, or that nobody sent.
    pub fn trains(&self) -> impl Iterator<Item = Option<Train<'_>>> {
        let places = self.room.chunks_exact(PLACE);
        let taken = self.arrivals.iter().take(self.count);
        taken.zip(places).map(|(arrival, place)| {
            let from = arrival.from.filter(|_| !arrival.truncated)?;
            Some(Train {
                from,
                payload: place.get(..arrival.len)?,
                segment: arrival.segment,
            })
        })
    }

    /// True when it takes up memory.
    pub fn has_room(&self) -> bool {
        !self.room.is_empty()
    }

    /// Gives its memory back; what it held is gone.
    pub fn release(&mut self) {
        self.count = 0;
        self.room = Vec::new();
    }
}

/// Bytes for each datagram or train that is received. The longest that IP can carry is shorter, so
/// nothing is ever cut.
pub const PLACE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn train(payload: &[u8], segment: usize) -> Train<'_> {
        Train {
            from: "10.0.0.1:1".parse().unwrap(),
            payload,
            segment,
        }
    }

    #[test]
    fn a_train_is_its_datagrams_and_an_empty_one_is_one() {
        let parts = |train: Train<'static>| -> Vec<&[u8]> {
            assert_eq!(train.datagrams().count(), train.count());
            train.datagrams().collect()
        };
        assert_eq!(parts(train(b"", 0)), [b""]);
        assert_eq!(parts(train(b"abcde", 0)), [b"abcde"]);
        assert_eq!(parts(train(b"abcde", 2)), [&b"ab"[..], b"cd", b"e"]);
        assert_eq!(parts(train(b"abcd", 2)), [b"ab", b"cd"]);
        assert_eq!(parts(train(b"ab", 2)), [b"ab"]);
    }

    /// A system that answers each send as it is told to, and takes all when it is told nothing.
    #[derive(Default)]
    struct Script {
        answers: Vec<Result<usize, io::ErrorKind>>,
        /// Lengths and segments of what it has taken.
        taken: Vec<(usize, usize)>,
        calls: usize,
    }

    impl Datagrams for Script {
        fn receive(
            &mut self,
            _: &mut [u8],
            _: usize,
            _: &mut [Arrival; DATAGRAMS],
        ) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn send(&mut self, leaving: Leaving<'_>) -> io::Result<usize> {
            self.calls += 1;
            let count = match self.answers.is_empty() {
                true => DATAGRAMS,
                false => self.answers.remove(0)?,
            };
            let taken = leaving
                .take(count)
                .map(|one| (one.payload.len(), one.segment));
            let before = self.taken.len();
            self.taken.extend(taken);
            Ok(self.taken.len() - before)
        }
    }

    /// Sends datagrams of those lengths; what became of them, and what the system took.
    fn flush(
        lengths: &[usize],
        connected: bool,
        answers: &[Result<usize, io::ErrorKind>],
    ) -> (Flushed, Script, usize) {
        let mut outgoing = Outgoing::default();
        let mut socket = Socket::new(Some(Script::default()));
        socket.connected = connected;
        for &len in lengths {
            assert!(outgoing.push(&mut socket.line, None, &[&vec![0; len]]));
        }
        if let Some(script) = &mut socket.io {
            script.answers = answers.to_vec();
        }
        let flushed = socket.flush(&outgoing);
        assert!(socket.line.is_empty());
        (flushed, socket.io.unwrap(), socket.longest_segment)
    }

    fn flushed(sent: usize, dropped: usize, bounced: Option<io::ErrorKind>) -> Flushed {
        Flushed {
            sent,
            dropped,
            bounced,
        }
    }

    #[test]
    fn what_the_system_has_no_room_for_is_dropped() {
        let full = Err(io::ErrorKind::WouldBlock);
        let (outcome, script, _) = flush(&[1, 2, 3, 3, 4], true, &[Ok(2), full]);
        assert_eq!(
            outcome,
            flushed(2, 3, None),
            "a train counts as its datagrams"
        );
        assert_eq!(script.taken, [(1, 0), (2, 0)]);
        let (outcome, script, _) = flush(&(0..100).collect::<Vec<_>>(), true, &[]);
        assert_eq!((outcome, script.calls), (flushed(100, 0, None), 4));
        let (outcome, _, _) = flush(&[1, 2], true, &[Ok(0)]);
        assert_eq!(outcome, flushed(0, 2, None));
    }

    #[test]
    fn an_earlier_bounce_costs_nothing_and_is_told() {
        let refused = io::ErrorKind::ConnectionRefused;
        for lengths in [&[1, 2, 3][..], &[5, 5, 5]] {
            let (outcome, _, longest) = flush(lengths, true, &[Err(refused)]);
            assert_eq!(outcome, flushed(3, 0, Some(refused)));
            assert_eq!(longest, usize::MAX);
        }
    }

    #[test]
    fn one_that_is_refused_twice_is_dropped_and_the_next_is_sent() {
        let refused = io::ErrorKind::PermissionDenied;
        for (connected, told) in [(true, Some(refused)), (false, None)] {
            let twice = [Err(refused), Err(refused)];
            let (outcome, script, _) = flush(&[1, 2, 3], connected, &twice);
            assert_eq!(outcome, flushed(2, 1, told));
            assert_eq!(script.taken, [(2, 0), (3, 0)]);
        }
    }

    #[test]
    fn a_train_that_is_refused_leaves_as_single_datagrams() {
        let refused = Err(io::ErrorKind::InvalidInput);
        let lengths = [9, 9, 9, 5, 2, 2];
        let (outcome, script, longest) = flush(&lengths, true, &[refused, refused]);
        assert_eq!(outcome, flushed(6, 0, None));
        assert_eq!(script.taken, [(9, 0), (9, 0), (9, 0), (5, 0), (4, 2)]);
        assert_eq!(longest, 8, "shorter ones are still joined");
        let (outcome, script, _) = flush(&lengths, true, &[Ok(1), refused, refused]);
        assert_eq!(outcome, flushed(6, 0, None));
        assert_eq!(script.taken, [(32, 9), (2, 0), (2, 0)]);
    }

    #[test]
    fn a_socket_that_was_never_opened_drops_all() {
        let (mut outgoing, mut socket) = (Outgoing::default(), Socket::<Script>::new(None));
        for _ in 0..3 {
            assert!(outgoing.push(&mut socket.line, None, &[b"lost"]));
        }
        assert_eq!(socket.flush(&outgoing), flushed(0, 3, None));
    }
}
