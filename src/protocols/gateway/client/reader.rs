//! The link's reader: the thread that takes frames in and hands them to those whom they concern. It
//! never writes.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::wire::{self, Command, Dialect, Head};
use super::channel::{Channel, State};
use super::dials::{Answer, Owner};
use super::error::End;
use super::link::{Link, is_timeout};
use super::table::{Offer, Place, Table};
use crate::wire::WireError;

/// Reads to the end. After this side's goodbye what still comes finds nobody and is dropped.
pub(super) fn run(link: &Link) {
    let mut reader = Reader {
        link,
        input: BufReader::with_capacity(BLOCK, &link.stream),
    };
    let end = loop {
        match reader.take_frame() {
            Ok(true) => link.has_heard.store(true, Ordering::Relaxed),
            Ok(false) => break link.end_by_close(),
            Err(end) => break end,
        }
    };
    link.finish(end);
    link.table.lock().has_read_all = true;
    link.done.notify_all();
}

struct Reader<'a, R> {
    link: &'a Link,
    input: R,
}

impl<R: Read> Reader<'_, R> {
    /// Reads one frame and does what it says; false at the end of the stream.
    fn take_frame(&mut self) -> Result<bool, End> {
        let most = self.link.options.max_packet;
        let mut bytes = [0; wire::HEAD];
        let (first, rest) = bytes.split_at_mut(1);
        if self.read_some(first)? == 0 {
            return Ok(false);
        }
        self.fill(rest)?;
        let head = Head::decode(&bytes, most).map_err(End::Malformed)?;
        let payload = self.take_payload(head.payload_len())?;
        if !head.is_command() {
            deliver(self.link, head.conn, payload);
            return Ok(true);
        }
        let command = self.link.options.dialect.decode(&payload);
        obey(self.link, command.map_err(End::Malformed)?)?;
        Ok(true)
    }

    /// The payload grows with the bytes that come, not by what the head promises.
    fn take_payload(&mut self, length: usize) -> Result<Vec<u8>, End> {
        let mut payload = Vec::with_capacity(length.min(BLOCK));
        let mut limited = self.input.by_ref().take(length as u64);
        match limited.read_to_end(&mut payload) {
            Ok(count) if count == length => Ok(payload),
            Ok(_) => Err(self.end_by(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.end_by(error)),
        }
    }

    fn read_some(&mut self, room: &mut [u8]) -> Result<usize, End> {
        loop {
            match self.input.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done.map_err(|error| self.end_by(error)),
            }
        }
    }

    fn fill(&mut self, room: &mut [u8]) -> Result<(), End> {
        let filled = self.input.read_exact(room);
        filled.map_err(|error| self.end_by(error))
    }

    fn end_by(&self, error: io::Error) -> End {
        match self.link.options.silence_timeout {
            Some(time) if is_timeout(&error) => End::Silent(time),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => {
                let words = "it ended in the middle of a frame";
                End::Broken(Arc::new(io::Error::new(error.kind(), words)))
            }
            _ => self.link.end_by(error),
        }
    }
}

/// Queues a message where it belongs. Where the queue is full, this waits, and with it all reading.
fn deliver(link: &Link, conn: u32, payload: Vec<u8>) {
    let mut table = link.table.lock();
    match table.find(conn) {
        Place::Open(channel) => {
            drop(table);
            channel.deliver(payload);
        }
        Place::Closing => {}
        Place::Unknown => {
            table.close_unknown(conn);
            link.due.notify_one();
        }
    }
}

fn obey(link: &Link, command: Command) -> Result<(), End> {
    let dialect = link.options.dialect;
    let mut table = link.table.lock();
    match command {
        Command::Open { conn } => match table.dials.opened(conn) {
            Owner::Dialler => drop(link.answered.notify_all()),
            // Nobody will dial with it; the gateway need not keep it.
            Owner::Nobody | Owner::Unknown => table.close_unknown(conn),
        },
        Command::Refuse { conn, remote } => {
            let answer = || Answer::Refused;
            if table.dials.answered(dialect, conn, remote, answer) == Owner::Dialler {
                link.answered.notify_all();
            }
        }
        Command::Close { conn } => {
            if let Some(channel) = table.closed(conn) {
                channel.end(State::ClosedByThem);
            }
        }
        // In the fastway dialect it answers one of this side's.
        Command::Ping => table.owes_pong |= dialect == Dialect::Document,
        Command::Accept { conn, remote } => accepted(link, &mut table, conn, remote),
        Command::Connect { conn, remote } => offer(link, &mut table, conn, remote),
        // Only an endpoint says these.
        Command::New => return Err(unknown(0)),
        Command::Dial { .. } if dialect == Dialect::Document => return Err(unknown(2)),
        Command::Dial { .. } => return Err(unknown(0)),
    }
    if table.is_due() {
        link.due.notify_one();
    }
    Ok(())
}

fn unknown(kind: u64) -> End {
    End::Malformed(WireError::BadValue {
        field: "command",
        value: kind,
    })
}

/// A dial of this side was taken. In the document's dialect the dialled end is told so too, and knows
/// it by its not having dialled.
fn accepted(link: &Link, table: &mut Table, conn: u32, remote: u32) {
    let dialect = link.options.dialect;
    let channel = Arc::new(Channel::new(link.options.queue));
    let answer = || Answer::Accepted(conn, Arc::clone(&channel));
    match table.dials.answered(dialect, conn, remote, answer) {
        Owner::Dialler => {
            table.admit(conn, channel);
            link.answered.notify_all();
        }
        Owner::Unknown if dialect == Dialect::Document => offer(link, table, conn, remote),
        Owner::Nobody | Owner::Unknown => table.close_unknown(conn),
    }
}

/// The other side has dialled this one.
fn offer(link: &Link, table: &mut Table, conn: u32, remote: u32) {
    if table.backlog.len() >= link.options.backlog || table.end.is_some() {
        return table.close_unknown(conn);
    }
    let channel = Arc::new(Channel::new(link.options.queue));
    table.admit(conn, Arc::clone(&channel));
    table.backlog.push_back(Offer {
        conn,
        remote,
        channel,
    });
    link.offered.notify_one();
}

/// Bytes read at once, and allocated before a payload has come.
const BLOCK: usize = 64 << 10;
