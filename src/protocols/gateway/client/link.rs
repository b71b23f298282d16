//! One TCP connection to a gateway, shared by all that runs on it.
//!
//! ```text
//!   program's threads: dial, accept, receive, close ── table, channels ──┐
//!        │ send: whole frames, one at a time                             │
//!        v                                                               │
//!   TcpStream <── keeper thread: Close, Ping, goodbye <── outbox ────────┤
//!        └─────── reader thread ── messages, answers, offers, ends ──────┘
//! ```
//!
//! The reader never writes: two endpoints that flood each other would otherwise wait for each other's
//! reading for ever. What it has to answer it leaves in the table, and the keeper writes it.

use std::io::{self, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::wire::{Command, Dialect, Head};
use super::channel::{Channel, State, wait};
use super::dials::{self, Answer, News};
use super::error::End;
use super::table::{Offer, Table};
use super::{Error, Options, Side, keeper, reader};

/// The shared state of one TCP connection.
pub(super) struct Link {
    pub(super) stream: TcpStream,
    pub(super) side: Side,
    pub(super) options: Options,
    /// Whether the gateway has sent a frame.
    pub(super) has_heard: AtomicBool,
    /// Held while a frame is written.
    writing: Mutex<()>,
    pub(super) table: Mutex<Table>,
    /// A dial has news, or the link is over.
    pub(super) answered: Condvar,
    /// The backlog has one more, or the link is over.
    pub(super) offered: Condvar,
    /// The keeper has something to do.
    pub(super) due: Condvar,
    /// A thread of the link has done its last.
    pub(super) done: Condvar,
}

impl Link {
    /// Starts the two threads of a connection whose handshake, if any, is done.
    pub(super) fn start(
        stream: TcpStream,
        side: Side,
        options: Options,
    ) -> Result<Arc<Self>, Error> {
        let prepare = || {
            stream.set_write_timeout(Some(at_least_a_moment(options.send_timeout)))?;
            stream.set_read_timeout(options.silence_timeout.map(at_least_a_moment))
        };
        prepare().map_err(|source| Error::Broken(Arc::new(source)))?;
        let link = Arc::new(Self {
            stream,
            side,
            options,
            has_heard: AtomicBool::new(false),
            writing: Mutex::new(()),
            table: Mutex::default(),
            answered: Condvar::new(),
            offered: Condvar::new(),
            due: Condvar::new(),
            done: Condvar::new(),
        });
        let spawn = |name: &str, body: fn(&Self)| {
            let link = Arc::clone(&link);
            let thread = thread::Builder::new().name(name.to_owned());
            let started = thread.stack_size(STACK).spawn(move || body(&link));
            started.map(drop)
        };
        let started = spawn("gateway reader", reader::run)
            .and_then(|()| spawn("gateway keeper", keeper::run))
            .map_err(Error::NoThread);
        if started.is_err() {
            // The reader may run already.
            link.break_off(End::Left);
        }
        started.map(|()| link)
    }

    /// Asks to be joined with `remote`, and waits for the answer.
    pub(super) fn dial(&self, remote: u32) -> Result<Offer, Error> {
        let dialect = self.options.dialect;
        let deadline = Instant::now().checked_add(self.options.dial_timeout);
        let begun = self.table.lock().dials.begin(dialect, remote);
        let ticket = begun.ok_or(Error::Busy { most: dials::MOST })?;
        let first = match dialect {
            Dialect::Document => Command::New,
            Dialect::Fastway => Command::Dial { conn: 0, remote },
        };
        if let Err(error) = self.tell(first) {
            self.table.lock().dials.forget(ticket);
            return Err(error);
        }
        loop {
            match self.wait_for_news(ticket, deadline)? {
                News::Opened(conn) => {
                    if let Err(error) = self.tell(Command::Dial { conn, remote }) {
                        let mut table = self.table.lock();
                        table.dials.forget(ticket);
                        table.close_unknown(conn);
                        self.due.notify_one();
                        return Err(error);
                    }
                }
                News::Answered(Answer::Accepted(conn, channel)) => {
                    return Ok(Offer {
                        conn,
                        remote,
                        channel,
                    });
                }
                News::Answered(Answer::Refused) => {
                    let callee = self.side.other();
                    return Err(Error::Refused { callee, remote });
                }
            }
        }
    }

    fn wait_for_news(&self, ticket: u64, deadline: Option<Instant>) -> Result<News, Error> {
        let mut table = self.table.lock();
        loop {
            if let Some(news) = table.dials.news(ticket) {
                return Ok(news);
            }
            if let Some(end) = table.end.clone() {
                table.dials.forget(ticket);
                return Err(end.into());
            }
            let is_late = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if is_late {
                table.dials.give_up(ticket);
                return Err(Error::TimedOut);
            }
            // A wait that ends by the deadline looks once more, as the news may have come with it.
            let _ = wait(&self.answered, &mut table, deadline);
        }
    }

    /// The next connection that the other side has dialled.
    pub(super) fn accept(&self, deadline: Option<Instant>) -> Result<Offer, Error> {
        let mut table = self.table.lock();
        loop {
            if let Some(offer) = table.backlog.pop_front() {
                return Ok(offer);
            }
            if let Some(end) = table.end.clone() {
                return Err(end.into());
            }
            if wait(&self.offered, &mut table, deadline).is_err() {
                return Err(Error::TimedOut);
            }
        }
    }

    /// Closes a virtual connection of this side; the Close goes out behind all that was sent, and before
    /// all that is sent from now on.
    pub(super) fn close(&self, conn: u32, channel: &Arc<Channel>) {
        channel.end(State::ClosedByUs);
        if self.table.lock().close(conn, channel) {
            self.due.notify_one();
        }
    }

    /// Sends one message as one frame.
    pub(super) fn send(&self, conn: u32, message: &[u8]) -> Result<(), Error> {
        let head = Head::new(conn, message.len());
        let head = head.filter(|head| head.length <= self.options.max_packet);
        let head = head.ok_or(Error::TooLong {
            length: message.len(),
            most: self.options.longest_message(),
        })?;
        self.write(&head.encode(), message)
    }

    /// Why the link is over, if it is.
    pub(super) fn end(&self) -> Option<End> {
        self.table.lock().end.clone()
    }

    /// Waits until the goodbye is written and the gateway has closed too, or has had its time.
    pub(super) fn wait_until_left(&self) {
        let patience = self.options.send_timeout.saturating_add(keeper::LINGER * 2);
        let deadline = Instant::now().checked_add(patience);
        let mut table = self.table.lock();
        while !table.has_left && wait(&self.done, &mut table, deadline).is_ok() {}
    }

    fn tell(&self, command: Command) -> Result<(), Error> {
        match self.end() {
            Some(end) => Err(end.into()),
            None => self.write(self.options.dialect.frame(command).as_ref(), &[]),
        }
    }

    /// Writes whole frames, and before them what the link owes the gateway: so a Close is never
    /// overtaken by what its caller sends after it.
    ///
    /// [`Error::TimedOut`] means that not one byte of it all went; a frame that was cut ends the link.
    pub(super) fn write(&self, front: &[u8], back: &[u8]) -> Result<(), Error> {
        let timeout = at_least_a_moment(self.options.send_timeout);
        let Some(_writing) = self.writing.try_lock_for(timeout) else {
            return Err(self.end().map_or(Error::TimedOut, Error::from));
        };
        let due = self.table.lock().take_due();
        let owed = due.encode(self.options.dialect);
        match self.write_all([&owed, front, back]) {
            Ok(()) => Ok(()),
            Err(Cut::Before) => {
                self.table.lock().put_back(due);
                Err(Error::TimedOut)
            }
            Err(Cut::Within(error)) => {
                self.break_off(self.end_by(error));
                Err(self.end().map_or(Error::Left, Error::from))
            }
        }
    }

    fn write_all(&self, parts: [&[u8]; 3]) -> Result<(), Cut> {
        let mut slices = parts.map(IoSlice::new);
        let mut slices = &mut slices[..];
        // Passes over what is empty.
        IoSlice::advance_slices(&mut slices, 0);
        let mut is_begun = false;
        while !slices.is_empty() {
            match (&self.stream).write_vectored(slices) {
                Ok(0) => return Err(Cut::Within(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    is_begun = true;
                    IoSlice::advance_slices(&mut slices, count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && !is_begun => return Err(Cut::Before),
                Err(error) => return Err(Cut::Within(error)),
            }
        }
        Ok(())
    }

    /// What a failed read or write means for the link.
    pub(super) fn end_by(&self, error: io::Error) -> End {
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted => self.end_by_close(),
            _ => End::Broken(Arc::new(error)),
        }
    }

    /// What it means that the gateway has closed.
    pub(super) fn end_by_close(&self) -> End {
        match self.side {
            Side::Server if !self.has_heard.load(Ordering::Relaxed) => End::Rejected,
            _ => End::GatewayClosed,
        }
    }

    /// Ends the link at once, also under the reader.
    fn break_off(&self, end: End) {
        self.finish(end);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Ends all that runs on the link; the first reason stays. With [`End::Left`] the keeper still
    /// writes what is due, and closes.
    pub(super) fn finish(&self, end: End) {
        self.table.lock().finish(end);
        self.answered.notify_all();
        self.offered.notify_all();
        self.due.notify_all();
    }
}

/// Where a write that failed has stopped.
enum Cut {
    Before,
    Within(io::Error),
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// The system takes a timeout of zero for none at all.
pub(super) fn at_least_a_moment(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}

/// The stack of the link's threads.
const STACK: usize = 256 << 10;
