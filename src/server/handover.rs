//! SIGUSR2: the listening sockets go to a newer process of this server, started from the program's file as
//! it is now, and this one drains.
//!
//! ```text
//!   the older process (`giving`)                  the newer one (`taking`)
//!   ─────────────────────────────                 ─────────────────────────────────────────────
//!   starts the program ─────────────────────────> reads its configuration
//!   socket NAME, with its descriptor; all ──────> takes them, binds what is new
//!     <─────────────────────────────── checked ──
//!   control closes the store's files;
//!   updates and leases wait, the rest goes on
//!   yours ──────────────────────────────────────> opens the store, starts its workers, accepts;
//!                                                 updates and leases wait there, too
//!     <─────────────────────────────── serving ──
//!   closes its listeners, on all cores;
//!   refuses what has waited, MAINPID=, drains
//!   main ───────────────────────────────────────> what has waited is done, READY=1
//!   finishes what is open, exits with 0
//!
//!   before `serving`: the newer process cannot be started, ends, is silent for too long, or something
//!   here fails ──> it is killed and waited for, control opens the files again and does what has waited,
//!                  and one line in the log says why
//! ```
//!
//! The older process accepts until the newer one does, so nobody is refused; for a moment both do. Who is
//! let in by the older one in that moment is served, but for updates and leases. The newer one changes nothing in the
//! store before `main`, so the older one finds it as it was when it has to go on: what is acknowledged is
//! acknowledged once, by whoever has the store. From `serving` on there is no way back. A newer process
//! that finds the older one gone from then on takes it as told `main`.
//!
//! The channel is a pair of Unix sockets that keep messages apart, the newer process has its end as
//! standard input, and [`VARIABLE`] in its environment says so, with the version of these words. A program
//! that speaks another version ends at once, and the older process goes on. One that knows no such
//! words finds its addresses in use, and ends as well.
//!
//! **Not handed over:** connections, and what lies in memory beside the store, such as who has proved what:
//! clients come to the newer process as they do after a restart.
//!
//! **Bounds.** One at a time; [`MOST`] sockets; every wait has a deadline, stated where it is.

mod giving;
mod taking;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use sendfd::SendWithFd;
use socket2::{Domain, Socket, Type};

pub(super) use self::giving::{Asker, Giver, Holdings, Program};
pub(super) use self::taking::Taking;
use crate::sys;

/// One end of the channel.
struct Channel(UnixDatagram);

/// A message of the other side.
struct Heard {
    word: String,
    /// What came with it.
    descriptors: Vec<OwnedFd>,
}

impl Channel {
    /// A channel, and its other end for another process.
    fn pair() -> io::Result<(Self, OwnedFd)> {
        let (own, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        Ok((Self::over(own.into())?, other.into()))
    }

    /// The end that this process was given.
    fn over(end: OwnedFd) -> io::Result<Self> {
        let socket = UnixDatagram::from(end);
        // Whoever does not read is not waited for.
        socket.set_write_timeout(Some(LONGEST_SAY))?;
        Ok(Self(socket))
    }

    fn say(&self, word: &str) -> io::Result<()> {
        self.0.send(word.as_bytes()).map(drop)
    }

    /// Says a word, with a descriptor.
    fn give(&self, word: &str, socket: BorrowedFd<'_>) -> io::Result<()> {
        let sent = self.0.send_with_fd(word.as_bytes(), &[socket.as_raw_fd()]);
        sent.map(drop)
    }

    /// The next message; nothing when none comes in time. The other side's end is an error.
    fn hear(&self, within: Duration) -> io::Result<Option<Heard>> {
        // No time at all would mean for ever.
        let within = within.max(Duration::from_millis(1));
        self.0.set_read_timeout(Some(within))?;
        let mut bytes = [0; LONGEST];
        match sys::receive_descriptors(&self.0, &mut bytes) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, descriptors)) => Ok(Some(Heard {
                word: String::from_utf8_lossy(&bytes[..count]).into_owned(),
                descriptors,
            })),
            Err(error) if is_no_news(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next message by `until`, looking in between whether to go on waiting.
    fn await_word(
        &self,
        until: Option<Instant>,
        is_over: impl Fn() -> bool,
    ) -> io::Result<Option<Heard>> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if is_over() || left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let heard = self.hear(left.map_or(LOOK, |left| left.min(LOOK)))?;
            if heard.is_some() {
                return Ok(heard);
            }
        }
    }
}

fn is_no_news(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::WouldBlock,
        io::ErrorKind::TimedOut,
        io::ErrorKind::Interrupted,
    ];
    kinds.contains(&error.kind())
}

/// Says to a process that its standard input is the channel, and in which version of the words.
pub(super) const VARIABLE: &str = "TOWPATH_HANDOVER";

/// The version of the words.
const VERSION: &str = "1";

/// The words. Before the name of a socket stands the first.
const SOCKET: &str = "socket ";
const ALL: &str = "all";
const CHECKED: &str = "checked";
const YOURS: &str = "yours";
const SERVING: &str = "serving";
const MAIN: &str = "main";

/// Bytes of the longest message: a name has at most 255.
const LONGEST: usize = 512;

/// Sockets that are handed over at most: as many as a service manager's store may be given, and more
/// than a process has at its start that may have few descriptors.
const MOST: usize = 65_536;

/// How often it is looked whether the server ends meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// How long a message may wait for room.
const LONGEST_SAY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn channel() -> (Channel, Channel) {
        let (own, other) = Channel::pair().unwrap();
        (own, Channel::over(other).unwrap())
    }

    #[test]
    fn words_and_sockets_come_one_by_one_and_the_end_is_told() {
        let (giver, taker) = channel();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        giver.give("socket agent-0", listener.as_fd()).unwrap();
        giver.give("socket agent-1", listener.as_fd()).unwrap();
        giver.say(ALL).unwrap();
        drop(giver);
        for name in ["socket agent-0", "socket agent-1"] {
            let mut heard = taker.hear(LONG).unwrap().unwrap();
            assert_eq!(heard.word, name);
            let socket = TcpListener::from(heard.descriptors.remove(0));
            assert!(heard.descriptors.is_empty());
            assert_eq!(socket.local_addr().unwrap(), listener.local_addr().unwrap());
        }
        let heard = taker.hear(LONG).unwrap().unwrap();
        assert_eq!((&*heard.word, heard.descriptors.len()), (ALL, 0));
        let end = taker.hear(LONG).err().unwrap();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn nobody_is_waited_for_beyond_the_deadline_or_when_it_is_over() {
        let (giver, taker) = channel();
        let soon = Some(Instant::now() + Duration::from_millis(10));
        assert!(giver.await_word(soon, || false).unwrap().is_none());
        assert!(giver.await_word(None, || true).unwrap().is_none());
        taker.say(CHECKED).unwrap();
        let heard = giver.await_word(None, || false).unwrap().unwrap();
        assert_eq!(heard.word, CHECKED);
    }
}
