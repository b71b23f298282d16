//! What the clients of a crowd are about to do, and what they must have seen in the end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use towpath::protocols::agent::wire::{
    AgentRequest, Answer, Dialect, MAX_PAYLOAD, REMOVE, Request, decode_reply,
};

use super::super::agent::{MAX_WAIT, framed, query, set};
use super::super::house::{CONNECT, HANDSHAKE, IDLE};
use super::super::world::Random;
use super::{Backend, Client, Crowd, Note};

/// What a client is there for.
pub enum Plan {
    /// Requests on records of its own, all sent at once.
    Store {
        /// Whose records: another's when it sets what that one waits for.
        owner: usize,
        dialect: Dialect,
        asks: Vec<Ask>,
        /// Does not end by itself, but is ended by the idle timeout.
        stays: bool,
    },
    /// One query that waits.
    Wait { dialect: Dialect, seconds: i32 },
    /// A request to be relayed.
    Traffic { fate: Fate, says_ok: bool },
    /// Bytes that are no request.
    Garbage,
    /// Part of a request; then its end, or nothing.
    Cut { ends: bool },
    /// Nothing.
    Silent,
}

/// One request of a store client.
#[derive(Clone)]
pub enum Ask {
    Set(u8, Vec<u8>),
    Remove(u8),
    Query(u8),
    Awaited,
    Sniff,
}

/// Where a traffic request leads.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    Literal,
    Named,
    Two,
    Unresolved,
    Token { right: bool },
    NoField,
    NoService,
}

impl Plan {
    pub fn random(number: usize, count: usize, random: &mut Random) -> Self {
        let dialect = [Dialect::Document, Dialect::Stock][random.below(2)];
        match random.below(20) {
            0..6 => Plan::Store {
                owner: number,
                dialect,
                asks: (0..1 + random.below(8))
                    .map(|_| Ask::random(random))
                    .collect(),
                stays: random.chance(20),
            },
            6..8 => Plan::Store {
                owner: random.below(count),
                dialect,
                asks: vec![Ask::Awaited],
                stays: false,
            },
            8..11 => Plan::Wait {
                dialect,
                seconds: [1, 7, 20, 1_000][random.below(4)],
            },
            11..16 => Plan::Traffic {
                fate: Fate::random(random),
                says_ok: random.chance(50),
            },
            16 => Plan::Garbage,
            17 => Plan::Cut { ends: true },
            18 => Plan::Cut { ends: false },
            _ => Plan::Silent,
        }
    }

    pub fn script(&self, number: usize, random: &mut Random) -> Vec<u8> {
        match self {
            Plan::Store {
                owner,
                dialect,
                asks,
                ..
            } => {
                let frames = asks.iter().map(|ask| ask.frame(*owner, *dialect));
                frames.collect::<Vec<_>>().concat()
            }
            Plan::Wait { dialect, seconds } => query(*dialect, &id_of(number), AWAITED, *seconds),
            Plan::Traffic { fate, says_ok } => fate.frame(number, *says_ok),
            Plan::Garbage => {
                let count = 2 + random.below(3_000);
                let mut bytes = random.bytes(count);
                bytes[1] = b'g';
                bytes
            }
            Plan::Cut { .. } => {
                let mut bytes = set(Dialect::Stock, b"cut", b"", &[1; 200]);
                let left = 1 + random.below(bytes.len() - 1);
                bytes.truncate(left);
                bytes
            }
            Plan::Silent => Vec::new(),
        }
    }

    /// It sends whole requests.
    fn is_sound(&self) -> bool {
        matches!(
            self,
            Plan::Store { .. } | Plan::Wait { .. } | Plan::Traffic { .. }
        )
    }

    pub fn may_end(&self) -> bool {
        match self {
            Plan::Store { stays, .. } => !stays,
            Plan::Cut { ends } => *ends,
            Plan::Wait { .. } | Plan::Traffic { .. } | Plan::Garbage => true,
            Plan::Silent => false,
        }
    }
}

impl Ask {
    fn random(random: &mut Random) -> Self {
        let section = random.below(3) as u8;
        match random.below(10) {
            0..4 => {
                let most = [10, 3_000, 70_000][random.below(3)];
                let count = random.below(most);
                Ask::Set(section, random.bytes(count))
            }
            4..8 => Ask::Query(section),
            8 => Ask::Remove(section),
            _ => Ask::Sniff,
        }
    }

    fn frame(&self, owner: usize, dialect: Dialect) -> Vec<u8> {
        let id = &id_of(owner)[..];
        match self {
            Ask::Set(section, data) => set(dialect, id, &[*section], data),
            Ask::Awaited => set(dialect, id, AWAITED, NEWS),
            Ask::Query(section) => query(dialect, id, &[*section], 0),
            Ask::Remove(section) => {
                let request = AgentRequest::Update {
                    id,
                    section: &[*section],
                    data: b"",
                    op: REMOVE,
                };
                framed(dialect, &Request::Agent(request))
            }
            Ask::Sniff => framed(dialect, &Request::Agent(AgentRequest::Sniff)),
        }
    }
}

impl Fate {
    fn random(random: &mut Random) -> Self {
        match random.below(12) {
            0..3 => Fate::Literal,
            3..5 => Fate::Named,
            5..7 => Fate::Two,
            7 => Fate::Unresolved,
            8 => Fate::Token { right: true },
            9 => Fate::Token { right: false },
            10 => Fate::NoField,
            _ => Fate::NoService,
        }
    }

    fn frame(self, number: usize, says_ok: bool) -> Vec<u8> {
        let service = match self {
            Fate::NoService => String::from("nobody"),
            _ => format!("s{number}"),
        };
        let request = Request::Traffic {
            service: service.as_bytes(),
            field: b"any",
            token: match self {
                Fate::Token { right: false } => b"sesame ",
                _ => b"sesame",
            },
            leading_operation: !says_ok,
        };
        framed(Dialect::Stock, &request)
    }

    fn is_denied(self) -> bool {
        matches!(
            self,
            Fate::Unresolved | Fate::Token { right: false } | Fate::NoField | Fate::NoService
        )
    }
}

impl Crowd {
    /// Holds everything that was seen against what should have been.
    pub fn judge(&self) {
        for (number, client) in self.clients.iter().enumerate() {
            let socket = client.socket.unwrap();
            let note = &self.notes[socket];
            let received = &self.house.world.borrow().sockets[socket].received[..];
            if client.shed {
                assert!(received.is_empty(), "client {number}");
                continue;
            }
            let handshake = note.since + HANDSHAKE;
            if self.may_be_late(client, note) {
                continue;
            }
            match &client.plan {
                Plan::Store {
                    dialect,
                    asks,
                    stays,
                    ..
                } => {
                    let whole = self.judge_store(*dialect, asks, received, client);
                    if whole && !client.reset {
                        judge_end(*dialect, *stays, note);
                    }
                    if *stays && whole && *dialect == Dialect::Document && !client.reset {
                        let delivered = note.delivered.unwrap();
                        self.assert_between(note.closed, delivered + IDLE, note.answered, IDLE);
                    }
                }
                Plan::Wait { dialect, seconds } => {
                    self.judge_wait(number, *dialect, *seconds, received);
                }
                Plan::Traffic { fate, says_ok } => {
                    self.judge_traffic(number, *fate, *says_ok, received);
                }
                Plan::Garbage => assert_eq!(note.emitted, 0),
                Plan::Cut { ends } => {
                    assert_eq!(note.emitted, 0);
                    if !ends && !client.reset {
                        self.assert_at(note.closed, handshake);
                    }
                }
                Plan::Silent => {
                    assert_eq!(note.emitted, 0);
                    if !client.reset {
                        self.assert_at(note.closed, handshake);
                    }
                }
            }
        }
        for backend in &self.backends {
            self.judge_dial(backend);
        }
    }

    /// Its request came so slowly, or could be read so late, that a deadline may have been over.
    fn may_be_late(&self, client: &Client, note: &Note) -> bool {
        let handshake = note.since + HANDSHAKE;
        let late = note.delivered.is_none_or(|at| at >= handshake);
        // With a used-up pool even what has arrived may be read too late. A relay that has begun
        // has no such deadline, so only a traffic client's first one is excused.
        let relays = matches!(client.plan, Plan::Traffic { .. });
        let unread = self.weather.is_tight && (!relays || note.closed <= Some(handshake + GRAIN));
        client.plan.is_sound() && (late || unread) && note.closed >= Some(handshake)
    }

    /// The replies are those of the model, in order; true when there is one to each request.
    fn judge_store(
        &self,
        dialect: Dialect,
        asks: &[Ask],
        mut received: &[u8],
        client: &Client,
    ) -> bool {
        let mut records: HashMap<u8, &[u8]> = HashMap::new();
        let mut scratch = Vec::new();
        let mut served = 0;
        for ask in asks {
            let answer = decode_reply(received, dialect, MAX_PAYLOAD, &mut scratch).unwrap();
            let Some(answer) = answer else { break };
            received = &received[answer.consumed..];
            served += 1;
            let busy = answer.code == 1 && answer.message == b"server busy";
            assert!(!busy || self.weather.is_busy, "busy without a reason");
            match ask {
                Ask::Query(section) => expect_record(&answer, records.get(section).copied()),
                Ask::Sniff => assert_eq!(answer.host(), Ok(&b"10.1.0.1"[..])),
                _ if busy => continue,
                _ => assert_eq!((answer.command, answer.code), (&b"update"[..], 0)),
            }
            match ask {
                Ask::Set(section, data) => records.insert(*section, data),
                Ask::Remove(section) => records.remove(section),
                _ => None,
            };
        }
        let whole = served == asks.len();
        assert!(
            client.reset || received.is_empty(),
            "half a reply, or one too many"
        );
        // A stock client is closed when nothing lies behind its request; all others are served.
        let cut = dialect == Dialect::Stock && served > 0;
        assert!(whole || cut || client.reset, "{served} of {}", asks.len());
        whole
    }

    fn judge_wait(&self, number: usize, dialect: Dialect, seconds: i32, received: &[u8]) {
        let client = &self.clients[number];
        let mut scratch = Vec::new();
        let answer = decode_reply(received, dialect, MAX_PAYLOAD, &mut scratch).unwrap();
        if client.reset {
            return;
        }
        let answer = answer.expect("a query was never answered");
        assert_eq!(answer.consumed, received.len());
        let note = &self.notes[client.socket.unwrap()];
        let (asked, answered) = (note.delivered.unwrap(), note.answered.unwrap());
        let limit = Duration::from_secs(seconds as u64).min(MAX_WAIT);
        let news = self.news_for(number);
        let first = news.iter().filter_map(|note| note.answered).min();
        if answer.code == 0 {
            expect_record(&answer, Some(NEWS));
            assert!(!news.is_empty(), "news that nobody told");
            if let (Some(told), false) = (first, self.weather.is_tight) {
                // The watch itself may have waited for the control thread.
                let both = told.max(asked);
                let watched = self.caught_up.iter().find(|&&at| at >= both);
                assert!(answered <= *watched.unwrap(), "woken late");
            }
        } else if answer.message == b"server busy" {
            assert!(self.weather.is_busy, "busy without a reason");
        } else {
            expect_record(&answer, None);
            if !self.weather.is_tight {
                self.assert_at(Some(answered), asked + limit);
            }
            assert!(first.is_none_or(|told| told >= answered), "news kept back");
        }
    }

    /// What was noted of the clients that set what this one waits for, and were not told that the
    /// server is busy.
    fn news_for(&self, number: usize) -> Vec<Note> {
        let tells = |client: &&Client| {
            let Plan::Store {
                owner,
                asks,
                dialect,
                ..
            } = &client.plan
            else {
                return false;
            };
            if *owner != number || !matches!(asks[..], [Ask::Awaited]) || client.shed {
                return false;
            }
            let socket = client.socket.unwrap();
            let world = self.house.world.borrow();
            let mut scratch = Vec::new();
            let received = &world.sockets[socket].received;
            let answer = decode_reply(received, *dialect, MAX_PAYLOAD, &mut scratch).unwrap();
            answer.is_none_or(|answer| answer.code == 0)
        };
        let tellers = self.clients.iter().filter(tells);
        let noted = |one: &Client| {
            let note = self.notes[one.socket.unwrap()];
            // Nobody knows what one that was reset has been told.
            let answered = note.answered.filter(|_| !one.reset);
            Note { answered, ..note }
        };
        tellers.map(noted).collect()
    }

    fn judge_traffic(&self, number: usize, fate: Fate, says_ok: bool, received: &[u8]) {
        let client = &self.clients[number];
        let world = self.house.world.borrow();
        let mine = || {
            self.backends
                .iter()
                .filter(|backend| backend.client == number)
        };
        assert!(
            !fate.is_denied() || mine().count() == 0,
            "dialled all the same"
        );
        let Some(backend) = mine().find(|backend| backend.accepted == Some(true)) else {
            assert!(received.is_empty(), "bytes from nobody");
            return;
        };
        let mut expected = if says_ok { b"ok".to_vec() } else { Vec::new() };
        let mut others = mine().filter(|other| other.socket != backend.socket);
        if backend.reset || client.reset {
            // It may have gone on to the next address; then that one is what was relayed.
            return assert!(others.all(|other| self.is_prefix(other, client)));
        }
        assert!(others.all(|other| world.sockets[other.socket].emitted() == 0));
        expected.extend(&backend.sent);
        assert!(received == expected, "to client {number}");
        let got = &world.sockets[backend.socket].received;
        assert!(*got == client.payload, "from client {number}");
    }

    fn is_prefix(&self, backend: &Backend, client: &Client) -> bool {
        let world = self.house.world.borrow();
        client
            .payload
            .starts_with(&world.sockets[backend.socket].received)
    }

    /// Whatever became of it, a backend saw a beginning of its client's bytes; one that never
    /// answered was given up in time.
    fn judge_dial(&self, backend: &Backend) {
        let client = &self.clients[backend.client];
        assert!(self.is_prefix(backend, client), "bytes of another");
        let note = &self.notes[backend.socket];
        let untouched = !client.reset && !backend.reset && self.weather.failures == 0;
        if backend.accepted.is_none() && untouched {
            self.assert_at(note.closed, note.since + CONNECT);
        }
    }

    fn assert_at(&self, happened: Option<Instant>, due: Instant) {
        self.assert_between(happened, due, Some(due), Duration::ZERO);
    }

    /// Not before `from`, and within the grain of the timers not after `until + after`.
    fn assert_between(
        &self,
        happened: Option<Instant>,
        from: Instant,
        until: Option<Instant>,
        after: Duration,
    ) {
        let happened = happened.expect("it never happened");
        assert!(happened >= from, "{:?} early", from - happened);
        let until = until.unwrap() + after + GRAIN;
        assert!(happened <= until, "{:?} late", happened - until);
    }
}

/// A stock client is closed with its last answer, another one when it has ended.
fn judge_end(dialect: Dialect, stays: bool, note: &Note) {
    match dialect {
        Dialect::Stock => assert!(note.shut <= note.answered, "kept after its answer"),
        Dialect::Document => assert!(stays || note.shut >= note.left, "closed by itself"),
    }
}

fn expect_record(answer: &Answer<'_>, record: Option<&[u8]>) {
    let (timestamp, data) = answer.record().unwrap();
    assert_eq!(answer.command, b"query");
    assert_eq!(answer.code, i32::from(record.is_none()));
    assert_eq!(timestamp > 0, record.is_some());
    assert!(data == record.unwrap_or_default());
}

pub fn id_of(number: usize) -> Vec<u8> {
    format!("client {number}").into_bytes()
}

/// The section that waiting clients wait for.
pub const AWAITED: &[u8] = b"awaited";

/// What is set there.
const NEWS: &[u8] = b"news";

/// The wheel's tick, twice.
const GRAIN: Duration = Duration::from_millis(8);
