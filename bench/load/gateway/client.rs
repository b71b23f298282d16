//! A client endpoint with its virtual connections.
//!
//! ```text
//!   Greet ──echo──> Quiet ──told to──> Dial ──all accepted──> Quiet ──told to──> Talk
//!                     └──── told to (load `open`) ────> Dial, close, dial again
//! ```
//!
//! Talking is passing on permits: a message may be sent for each, and whoever takes a message in
//! gives its permit back. In `pingpong` the permit stays with its connection, in `stream` and
//! `count` it goes to the connection whose turn it is, so that all are used however few there are.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::time::Instant;

use super::link::{Inbox, Outbox};
use super::plan::Load;
use super::state::{Place, Run, SERVER_ID};
use super::wire::{self, Command, Dialect, HEAD, Unit};
use crate::client::Verdict;
use crate::line::Line;
use crate::meter::corrupt;
use crate::pattern::BLOCK;

/// One client of a run.
pub struct Client {
    index: usize,
    stage: Stage,
    inbox: Inbox,
    outbox: Outbox,
    conns: Vec<Conn>,
    /// When each dial began that has not been answered; answers come in the order of the dials.
    dials: VecDeque<Instant>,
    /// Connections that are being closed, and when their dials began.
    closing: HashMap<u32, Instant>,
    /// Messages that may be sent.
    ready: VecDeque<Message>,
    /// Bytes of the first of them that have gone.
    gone: usize,
    /// The connection whose turn it is.
    turn: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greet,
    Quiet,
    Dial,
    Talk,
}

/// One virtual connection.
struct Conn {
    id: u32,
    head: [u8; HEAD],
    /// Messages that were sent or may be.
    begun: u64,
    /// When the latest was.
    since: Instant,
}

#[derive(Clone, Copy)]
struct Message {
    conn: usize,
    number: u64,
}

impl Client {
    /// One that has just begun to connect.
    pub fn new(index: usize, run: &Run<'_>) -> Self {
        let mut outbox = Outbox::default();
        run.plan.dialect.greet(&mut outbox.bytes);
        Self {
            index,
            stage: Stage::Greet,
            inbox: Inbox::new(run.plan.dialect),
            outbox,
            conns: Vec::new(),
            dials: VecDeque::new(),
            closing: HashMap::new(),
            ready: VecDeque::new(),
            gone: 0,
            turn: 0,
        }
    }

    /// Begins to open connections; the load `open` never ends doing so.
    pub fn begin_dialling(&mut self, run: &Run<'_>) {
        self.stage = Stage::Dial;
        let at_once = match run.plan.load {
            Load::Open => run.plan.conns,
            _ => run.plan.conns.min(DIALS_AT_ONCE),
        };
        for _ in 0..at_once {
            self.dial(run);
        }
    }

    /// Begins to send, so many messages ahead of what has arrived.
    pub fn begin_talking(&mut self, run: &Run<'_>) {
        self.stage = Stage::Talk;
        for _ in 0..run.plan.permits() {
            self.permit_next();
        }
    }

    /// Does what can be done now, within the turn's budget.
    pub fn advance(&mut self, line: &mut Line, run: &mut Run<'_>) -> io::Result<Verdict> {
        for _ in 0..run.take_permits(self.index) {
            self.permit_next();
        }
        for _ in 0..BUDGET {
            let mut buffer = std::mem::take(&mut run.buffer);
            let outcome = self.receive(&mut buffer, line, run);
            run.buffer = buffer;
            let has_read = outcome?;
            self.send(line, run)?;
            if !has_read {
                return Ok(Verdict::Wait);
            }
        }
        Ok(Verdict::Again)
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        line: &mut Line,
        run: &mut Run<'_>,
    ) -> io::Result<bool> {
        if !self.inbox.fill(line, buffer)? {
            return Ok(false);
        }
        let now = Instant::now();
        while let Some((begin, end, unit)) = self.inbox.next(buffer)? {
            match unit {
                Unit::Command(command) => self.obey(command, now, run)?,
                Unit::Part { .. } => {
                    let bytes = buffer.get(begin..end).unwrap_or_default();
                    if let Some(place) = run.deliver(unit, bytes)? {
                        self.take_in(place, now, run)?;
                    }
                }
            }
        }
        Ok(true)
    }

    /// A message of ours has come back whole.
    fn take_in(&mut self, place: Place, now: Instant, run: &mut Run<'_>) -> io::Result<()> {
        if place.client != self.index {
            return Err(corrupt("a message came back to another client"));
        }
        run.tally.messages += 1;
        match run.plan.load {
            Load::PingPong => {
                if let Some(conn) = self.conns.get(place.conn) {
                    run.tally.complete(now - conn.since);
                }
                self.permit(place.conn);
            }
            Load::Idle => run.tally.operations += 1,
            Load::Stream | Load::Count | Load::Open => self.permit_next(),
        }
        Ok(())
    }

    fn obey(&mut self, command: Command, now: Instant, run: &mut Run<'_>) -> io::Result<()> {
        match (self.stage, command) {
            (Stage::Greet, Command::Ping | Command::Open(_)) => {
                self.stage = Stage::Quiet;
                run.greeted += 1;
            }
            // The answer to a Ping is the same Ping, where the gateway is the one who asks.
            (_, Command::Ping) if run.plan.dialect == Dialect::Document => {
                run.plan.dialect.ping(&mut self.outbox.bytes);
            }
            (Stage::Dial, Command::Open(conn)) => {
                Dialect::dial_with(conn, SERVER_ID, &mut self.outbox.bytes);
            }
            (Stage::Dial, Command::Refuse) if self.dials.pop_front().is_some() => {
                run.note_refusal()?;
                self.dial(run);
            }
            (Stage::Dial, Command::Accept(id)) => self.accepted(id, run)?,
            (Stage::Dial, Command::Close(id)) => {
                let Some(since) = self.closing.remove(&id) else {
                    return Err(corrupt("a connection was closed that nobody closes"));
                };
                run.tally.complete(now - since);
                self.dial(run);
            }
            _ => return Err(corrupt(&format!("a client was told {command:?}"))),
        }
        Ok(())
    }

    fn accepted(&mut self, id: u32, run: &mut Run<'_>) -> io::Result<()> {
        let Some(since) = self.dials.pop_front() else {
            return Err(corrupt("a connection was accepted that nobody dialled"));
        };
        run.accepted += 1;
        if run.plan.load == Load::Open {
            run.plan.dialect.close(id, &mut self.outbox.bytes);
            self.closing.insert(id, since);
            return Ok(());
        }
        run.settle(id, self.index, self.conns.len())?;
        self.conns.push(Conn {
            id,
            head: wire::head(id, run.plan.size),
            begun: 0,
            since,
        });
        if self.conns.len() + self.dials.len() < run.plan.conns {
            self.dial(run);
        }
        if self.conns.len() == run.plan.conns {
            self.stage = Stage::Quiet;
        }
        Ok(())
    }

    fn dial(&mut self, run: &Run<'_>) {
        let dialect = run.plan.dialect;
        dialect.begin_dial(SERVER_ID, &mut self.outbox.bytes);
        self.dials.push_back(Instant::now());
    }

    fn permit_next(&mut self) {
        let conn = self.turn;
        self.turn = (conn + 1) % self.conns.len().max(1);
        self.permit(conn);
    }

    fn permit(&mut self, index: usize) {
        if let Some(conn) = self.conns.get_mut(index) {
            let number = conn.begun;
            conn.begun += 1;
            self.ready.push_back(Message {
                conn: index,
                number,
            });
        }
    }

    /// Sends commands, but never into the middle of a message, and then all messages that may be.
    fn send(&mut self, line: &mut Line, run: &Run<'_>) -> io::Result<()> {
        loop {
            if self.gone == 0 && !self.outbox.flush(line)? {
                return Ok(());
            }
            if self.ready.is_empty() {
                return Ok(());
            }
            let now = Instant::now();
            let Some(count) = line.write_vectored(&self.batch(run))? else {
                return Ok(());
            };
            self.note_sent(count, run.plan.size + HEAD, now);
        }
    }

    /// Heads and messages in turn, as many as one call may be worth.
    fn batch<'b>(&'b self, run: &'b Run<'_>) -> Vec<IoSlice<'b>> {
        let size = run.plan.size;
        let most = (BLOCK / (size + HEAD)).clamp(1, MOST_AT_ONCE);
        let mut slices = Vec::with_capacity(2 * most.min(self.ready.len()));
        let mut skip = self.gone;
        for message in self.ready.iter().take(most) {
            let Some(conn) = self.conns.get(message.conn) else {
                continue;
            };
            let text = run.pattern.at(origin(conn.id, message.number), size);
            for part in [&conn.head[..], text] {
                let rest = part.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                if !rest.is_empty() {
                    slices.push(IoSlice::new(rest));
                }
            }
        }
        slices
    }

    fn note_sent(&mut self, count: usize, frame: usize, now: Instant) {
        self.gone += count;
        while self.gone >= frame {
            self.gone -= frame;
            let sent = self.ready.pop_front();
            if let Some(conn) = sent.and_then(|message| self.conns.get_mut(message.conn)) {
                conn.since = now;
            }
        }
    }
}

/// Where in the pattern a message begins: elsewhere than its neighbours on the same connection, and
/// mostly elsewhere than those of other connections.
pub fn origin(conn: u32, number: u64) -> u64 {
    u64::from(conn).wrapping_mul(7).wrapping_add(number)
}

/// Reads that one client may do before others have their turn.
const BUDGET: usize = 4;
/// Dials of one client that are under way while it opens its connections.
const DIALS_AT_ONCE: usize = 64;
/// Half of what the kernel takes in one vectored write: head and message are a slice each.
const MOST_AT_ONCE: usize = 512;

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::super::wire::Scan;
    use super::*;

    /// A client of the first index with this many connections, of ids 10, 11 and so on.
    fn client(run: &mut Run<'_>, conns: u32) -> Client {
        let mut client = Client::new(0, run);
        client.outbox = Outbox::default();
        client.stage = Stage::Quiet;
        client.begin_dialling(run);
        for id in 10..10 + conns {
            client
                .obey(Command::Accept(id), Instant::now(), run)
                .unwrap();
        }
        assert!(client.stage == Stage::Quiet);
        client.begin_talking(run);
        client
    }

    /// Everything that may be sent, through a socket that takes at most so many bytes at once.
    fn sent(client: &mut Client, run: &Run<'_>, most: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        while !client.ready.is_empty() {
            let batch = client.batch(run);
            let bytes: Vec<u8> = batch
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            let count = bytes.len().min(most);
            stream.extend_from_slice(&bytes[..count]);
            client.note_sent(count, run.plan.size + HEAD, Instant::now());
        }
        stream
    }

    /// Delivers a stream of frames; the connections of the messages in it.
    fn delivered(stream: &[u8], run: &mut Run<'_>) -> io::Result<Vec<usize>> {
        let mut scan = Scan::new(run.plan.dialect);
        let (mut at, mut conns) = (0, Vec::new());
        while let Some((used, unit)) = scan.next(&stream[at..]).map_err(corrupt)? {
            let place = run.deliver(unit, &stream[at..at + used])?;
            conns.extend(place.map(|place| place.conn));
            at += used;
        }
        Ok(conns)
    }

    #[test]
    fn messages_written_in_bits_of_any_size_are_those_that_are_awaited() {
        let plan = plan("stream -c 3 -s 20 --ahead 196 --verify").unwrap();
        for most in 1..200 {
            let mut run = Run::new(&plan);
            let mut client = client(&mut run, 3);
            let stream = sent(&mut client, &run, most);
            let conns = delivered(&stream, &mut run).unwrap();
            assert_eq!(conns, [0, 1, 2, 0, 1, 2, 0], "{most} bytes at once");
        }
    }

    #[test]
    fn a_damaged_a_doubled_and_a_strange_message_are_told() {
        let plan = plan("stream -c 1 -s 20 --ahead 56 --verify").unwrap();
        let good = |run: &mut Run<'_>| {
            let mut client = client(run, 1);
            sent(&mut client, run, 999)
        };
        let frame = 20 + HEAD;
        for (what, spoil) in [
            ("damaged", (|s| s[HEAD + 19] ^= 1) as fn(&mut Vec<u8>)),
            ("doubled", |s| s.copy_within(..20 + HEAD, 20 + HEAD)),
            ("strange", |s| s[4] = 99),
            ("short", |s| s[0] = 23),
        ] {
            let mut run = Run::new(&plan);
            let mut stream = good(&mut run);
            assert_eq!(stream.len(), 2 * frame);
            spoil(&mut stream);
            assert!(delivered(&stream, &mut run).is_err(), "{what}");
        }
    }

    #[test]
    fn the_permit_of_a_counted_message_goes_back_to_its_client() {
        let plan = plan("count -c 1 -s 20 --ahead 56").unwrap();
        let mut run = Run::new(&plan);
        let mut client = client(&mut run, 1);
        let stream = sent(&mut client, &run, 999);
        delivered(&stream, &mut run).unwrap();
        assert_eq!(run.woken, [0]);
        assert_eq!((run.take_permits(0), run.take_permits(0)), (2, 0));
    }

    #[test]
    fn an_opening_is_complete_when_its_close_has_come_back() {
        let plan = plan("open -c 2").unwrap();
        let mut run = Run::new(&plan);
        let mut client = Client::new(0, &run);
        client.begin_dialling(&run);
        let now = Instant::now();
        for command in [Command::Accept(5), Command::Accept(6), Command::Close(6)] {
            client.obey(command, now, &mut run).unwrap();
        }
        assert_eq!((run.accepted, run.tally.operations), (2, 1));
        assert_eq!((client.dials.len(), client.closing.len()), (1, 1));
        assert!(client.obey(Command::Close(6), now, &mut run).is_err());
    }
}
