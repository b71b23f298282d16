//! One scripted endpoint of the gateway: a client or a server of either dialect, as its program
//! sees the world. It keeps what it has said and heard; the town compares that with the others'.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use towpath::protocols::gateway::wire::{Command, Dialect, HEAD, Head};

/// An endpoint.
pub struct Peer {
    pub core: usize,
    pub socket: usize,
    pub dialect: Dialect,
    /// A server's id; `None` for a client.
    pub server: Option<u32>,
    /// A server has answered the challenge; a client has nothing to answer.
    pub speaks: bool,
    /// When it was first seen to have said who it is: a number that grows.
    pub entered: Option<usize>,
    pub fate: Fate,
    /// It reads nothing for now.
    pub stalled: bool,
    /// How many of the bytes that it has read are understood.
    pub parsed: usize,
    /// All virtual connections that it ever had.
    pub lines: Vec<Line>,
    /// Those that have not ended, by their ids.
    pub open: HashMap<u32, usize>,
    /// Answers that are due, in their order.
    pub due: VecDeque<Due>,
    /// Ids that Open gave it.
    pub reserved: Vec<u32>,
    /// Data sent on ids that it has no connection of.
    pub strays: HashMap<u32, usize>,
    /// Closes for ids that it has no connection of.
    pub extra: HashMap<u32, usize>,
    pub joined: Instant,
    /// When it last sent a whole frame.
    pub spoke: Instant,
    /// When its socket last took a byte.
    pub taken: Instant,
    pub emitted: usize,
    /// How many bytes it has sent.
    pub posted: usize,
    /// The gateway has closed it.
    pub closed: bool,
}

/// How an endpoint's TCP connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Alive,
    /// It has ended its stream in order.
    Ended,
    /// It has reset its connection.
    Reset,
    /// It has broken the protocol and must be closed.
    Doomed,
    /// The gateway has closed it, as it may.
    Killed,
}

/// A virtual connection as one end sees it.
#[derive(Debug)]
pub struct Line {
    pub id: u32,
    /// The other end, as Accept or Connect has named it.
    pub remote: u32,
    /// This end has dialled.
    pub dialled: bool,
    /// Who must be at the other end, if that is known.
    pub must_be: Option<usize>,
    /// The lengths of the messages sent.
    pub sent: Vec<usize>,
    /// How many messages have come.
    pub got: usize,
    /// The other end: a peer's number and its line, learned from the first message.
    pub partner: Option<(usize, usize)>,
    /// This end has sent Close.
    pub hung_up: bool,
    /// Close has come.
    pub ended: bool,
}

/// An answer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    Open,
    Pong,
    Dialled(Dialled),
}

/// A dial under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// 0 where the dialler does not choose.
    pub id: u32,
    pub remote: u32,
    /// Nobody has this id.
    pub unknown: bool,
    /// The id may be another's.
    pub doubtful: bool,
    /// Those whom it may reach, all of them present when it was sent.
    pub targets: Vec<usize>,
    /// The newest server of the id at that time, and how often that had changed.
    pub newest: Option<usize>,
    pub changes: usize,
}

/// What an endpoint reads.
pub enum Heard {
    Said(Command),
    Data(u32, Vec<u8>),
}

impl Peer {
    pub fn new(place: (usize, usize), dialect: Dialect, server: Option<u32>, now: Instant) -> Self {
        Self {
            core: place.0,
            socket: place.1,
            dialect,
            server,
            speaks: server.is_none(),
            entered: None,
            fate: Fate::Alive,
            stalled: false,
            parsed: 0,
            lines: Vec::new(),
            open: HashMap::new(),
            due: VecDeque::new(),
            reserved: Vec::new(),
            strays: HashMap::new(),
            extra: HashMap::new(),
            joined: now,
            spoke: now,
            taken: now,
            emitted: 0,
            posted: 0,
            closed: false,
        }
    }

    pub fn is_client(&self) -> bool {
        self.server.is_none()
    }

    pub fn is_alive(&self) -> bool {
        self.fate == Fate::Alive
    }

    /// A server that has not said yet who it is, for all that the gateway knows.
    pub fn is_nobody(&self) -> bool {
        self.is_alive() && !self.is_client() && self.entered.is_none()
    }

    /// It may send frames.
    pub fn may_speak(&self) -> bool {
        self.is_alive() && self.speaks
    }

    /// A connection begins; its number.
    pub fn begin(&mut self, id: u32, remote: u32, dialled: bool, must_be: Option<usize>) -> usize {
        let number = self.lines.len();
        let before = self.open.insert(id, number);
        assert!(before.is_none(), "connection {id} begins twice");
        self.lines.push(Line {
            id,
            remote,
            dialled,
            must_be,
            sent: Vec::new(),
            got: 0,
            partner: None,
            hung_up: false,
            ended: false,
        });
        number
    }

    /// A Close came.
    pub fn end(&mut self, id: u32) {
        match self.open.remove(&id) {
            Some(line) => self.lines[line].ended = true,
            None => *self.extra.entry(id).or_default() += 1,
        }
    }

    /// The next frame of what it has read, if there is a whole one.
    pub fn next(&mut self, received: &[u8]) -> Option<Heard> {
        let rest = &received[self.parsed..];
        let head = Head::decode(rest.first_chunk::<HEAD>()?, 1 << 24).expect("a bad head");
        let payload = rest.get(HEAD..head.frame_len())?;
        self.parsed += head.frame_len();
        Some(match head.is_command() {
            true => Heard::Said(self.dialect.decode(payload).expect("an unknown command")),
            false => Heard::Data(head.conn, payload.to_vec()),
        })
    }
}

/// The message of that number on a line of a peer. The first one tells who sends it.
pub fn message(peer: usize, line: usize, number: usize, len: usize) -> Vec<u8> {
    let mut state = (peer as u64) << 40 ^ (line as u64) << 20 ^ number as u64;
    let mut bytes = Vec::with_capacity(len + 8);
    if number == 0 {
        bytes.extend((peer as u32).to_le_bytes());
        bytes.extend((line as u32).to_le_bytes());
    }
    while bytes.len() < len {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        bytes.extend((state >> 8).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The least length of a line's first message.
pub const TAG: usize = 8;

/// Who sends a first message.
pub fn sender(first: &[u8]) -> (usize, usize) {
    let number = |at: usize| u32::from_le_bytes(first[at..at + 4].try_into().unwrap()) as usize;
    (number(0), number(4))
}

/// A data frame.
pub fn data(id: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Head::new(id, payload.len()).unwrap().encode().to_vec();
    frame.extend(payload);
    frame
}

/// A command's frame.
pub fn said(dialect: Dialect, command: Command) -> Vec<u8> {
    dialect.frame(command).as_ref().to_vec()
}
