//! One client: connects, asks for its route when there is one, then does its task.
//!
//! ```text
//!   Route ──frame sent──> Granted ──"ok"──> Hello ──sent──> Work ──> Done (a new client follows)
//!     │ └──headers sent──> Chain ──answers──^ ^              └─ or without end
//!     └──────────── no route ─────────────────┘
//! ```
//!
//! It waits for "ok" as the programs in use do, so a routed connection costs one round trip more
//! than a plain one.

use std::io;
use std::time::Instant;

use crate::agent;
use crate::args::{Mode, Operation};
use crate::backend::{REQUEST, Service};
use crate::chain::Answers;
use crate::line::Line;
use crate::meter::{Bench, corrupt};
use crate::pattern::BLOCK;

/// What the loop does with a connection next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing until the next event.
    Wait,
    /// Call again in the next turn: the budget is used up, not the work.
    Again,
    /// It has ended as it should.
    Done,
}

/// One connection of ours to the server under test.
pub struct Client {
    lane: usize,
    task: Task,
    stage: Stage,
    /// What the hops are to say, until the headers have left.
    answers: Option<Answers>,
    /// What is being sent before the work, and how much of it has gone.
    out: Vec<u8>,
    out_at: usize,
    sent: u64,
    received: u64,
    since: Instant,
}

enum Stage {
    Route,
    Granted(usize),
    Chain(Answers),
    Hello,
    Work,
}

enum Task {
    Bulk { both: bool },
    Ping,
    Hold,
    Fetch,
    Store { writes: bool, reply: Progress },
}

/// How much of a store's reply is here.
enum Progress {
    Part(Vec<u8>),
    Whole,
}

impl Client {
    /// A client that has just begun to connect.
    pub fn new(lane: usize, bench: &mut Bench<'_>) -> io::Result<Self> {
        let (task, hello) = assign(lane, bench);
        let mut answers = None;
        let (stage, out) = match (&bench.plan.way, &bench.plan.route) {
            (Some(way), _) => {
                let (headers, expected) = way.begin(&mut bench.nonces)?;
                answers = Some(expected);
                (Stage::Route, headers)
            }
            (None, Some(frame)) => (Stage::Route, frame.clone()),
            (None, None) => (Stage::Hello, hello),
        };
        Ok(Self {
            lane,
            task,
            stage,
            answers,
            out,
            out_at: 0,
            sent: 0,
            received: 0,
            since: Instant::now(),
        })
    }

    /// Which of the plan's clients it is.
    pub fn lane(&self) -> usize {
        self.lane
    }

    /// Does what can be done now, within the turn's budget.
    pub fn advance(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        for _ in 0..BUDGET {
            let verdict = match &mut self.stage {
                Stage::Route | Stage::Hello => self.send_out(line)?,
                Stage::Granted(have) => {
                    let have = *have;
                    self.await_ok(have, line, bench)?
                }
                Stage::Chain(answers) => match &bench.plan.way {
                    None => Verdict::Again,
                    Some(way) => match answers.read(line, way)? {
                        None => Verdict::Wait,
                        Some(seals) => {
                            line.seal(seals);
                            self.begin(bench)
                        }
                    },
                },
                Stage::Work => self.work(line, bench)?,
            };
            if verdict != Verdict::Again {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Again)
    }

    fn send_out(&mut self, line: &mut Line) -> io::Result<Verdict> {
        let rest = self.out.get(self.out_at..).unwrap_or_default();
        let Some(count) = line.write(rest)? else {
            return Ok(Verdict::Wait);
        };
        self.out_at += count;
        if self.out_at == self.out.len() {
            self.stage = match (&self.stage, self.answers.take()) {
                (Stage::Route, Some(answers)) => Stage::Chain(answers),
                (Stage::Route, None) => Stage::Granted(0),
                _ => Stage::Work,
            };
        }
        Ok(Verdict::Again)
    }

    fn await_ok(
        &mut self,
        have: usize,
        line: &mut Line,
        bench: &mut Bench<'_>,
    ) -> io::Result<Verdict> {
        let wanted = agent::OK.get(have..).unwrap_or_default();
        let room = bench.buffer.get_mut(..wanted.len()).unwrap_or_default();
        let count = match line.read(room)? {
            None => return Ok(Verdict::Wait),
            Some(0) => return Err(ended("the server closed instead of granting the route")),
            Some(count) => count,
        };
        if !wanted.starts_with(bench.buffer.get(..count).unwrap_or_default()) {
            return Err(corrupt(
                "the server answered a route request with other than ok",
            ));
        }
        self.stage = Stage::Granted(have + count);
        if count == wanted.len() {
            return Ok(self.begin(bench));
        }
        Ok(Verdict::Again)
    }

    /// The way to the backend is there.
    fn begin(&mut self, bench: &mut Bench<'_>) -> Verdict {
        self.stage = Stage::Hello;
        self.out = assign(self.lane, bench).1;
        self.out_at = 0;
        Verdict::Again
    }

    fn work(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        match self.task {
            Task::Bulk { both } => self.bulk(both, line, bench),
            Task::Ping => self.ping(line, bench),
            Task::Hold => self.hold(line, bench),
            Task::Fetch => self.fetch(line, bench),
            Task::Store { .. } => self.store(line, bench),
        }
    }

    fn bulk(&mut self, both: bool, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        bench.arrive(self.lane);
        let mut verdict = Verdict::Wait;
        if let Some(count) = line.write(bench.pattern.at(self.sent, BLOCK))? {
            self.sent += count as u64;
            bench.meter.sent += count as u64;
            verdict = Verdict::Again;
        }
        if both && let Some(count) = self.receive(line, bench)? {
            bench.meter.received += count as u64;
            verdict = Verdict::Again;
        }
        Ok(verdict)
    }

    fn ping(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        let size = bench.plan.size as u64;
        if self.sent == self.received {
            self.since = Instant::now();
        }
        // The message under way ends at the next multiple of its size.
        let goal = (self.received / size + 1) * size;
        if self.sent < goal {
            let left = usize::try_from(goal - self.sent).unwrap_or(BLOCK);
            if let Some(count) = line.write(bench.pattern.at(self.sent, left))? {
                self.sent += count as u64;
            }
        }
        if self.receive(line, bench)?.is_some() {
            if self.received == goal {
                self.since = bench.meter.complete(self.since);
                bench.arrive(self.lane);
            }
            return Ok(Verdict::Again);
        }
        Ok(Verdict::Wait)
    }

    fn hold(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        if self.received == bench.plan.size as u64 {
            self.receive(line, bench)?;
            return Ok(Verdict::Wait);
        }
        self.ping(line, bench)
    }

    /// Reads the response to its end; the hello was the request.
    fn fetch(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        match line.read(&mut bench.buffer)? {
            None => Ok(Verdict::Wait),
            Some(0) if self.received == bench.plan.size as u64 => {
                bench.meter.complete(self.since);
                bench.arrive(self.lane);
                Ok(Verdict::Done)
            }
            Some(0) => Err(ended("the response ended early")),
            Some(count) => {
                bench.verify(self.received, count)?;
                self.received += count as u64;
                if bench.plan.hangs_up && self.received == bench.plan.size as u64 {
                    bench.meter.complete(self.since);
                    bench.arrive(self.lane);
                    return Ok(Verdict::Done);
                }
                Ok(Verdict::Again)
            }
        }
    }

    /// Reads the reply, then waits for the server's close, as the programs in use do.
    fn store(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Verdict> {
        let Task::Store { writes, reply } = &mut self.task else {
            return Ok(Verdict::Done);
        };
        let count = match line.read(&mut bench.buffer)? {
            None => return Ok(Verdict::Wait),
            Some(count) => count,
        };
        let part = match reply {
            Progress::Whole if count == 0 => return Ok(Verdict::Done),
            Progress::Whole => return Err(corrupt("bytes follow the reply")),
            Progress::Part(_) if count == 0 => return Err(ended("the reply ended early")),
            Progress::Part(part) => part,
        };
        part.extend_from_slice(bench.buffer.get(..count).unwrap_or_default());
        let Some(answer) = agent::reply(part).map_err(corrupt)? else {
            return Ok(Verdict::Again);
        };
        if answer.code != 0 {
            return Err(ended("the store refused"));
        }
        if *writes {
            bench.note_stored();
        } else if answer.data != bench.value {
            return Err(corrupt("the store returned a value that was never stored"));
        }
        *reply = Progress::Whole;
        bench.meter.complete(self.since);
        bench.arrive(self.lane);
        Ok(Verdict::Again)
    }

    /// Reads once on a connection that the server should never close.
    fn receive(&mut self, line: &mut Line, bench: &mut Bench<'_>) -> io::Result<Option<usize>> {
        let Some(count) = line.read(&mut bench.buffer)? else {
            return Ok(None);
        };
        if count == 0 {
            return Err(ended("the server closed"));
        }
        bench.verify(self.received, count)?;
        self.received += count as u64;
        Ok(Some(count))
    }
}

/// What the client of a lane does, and its first bytes behind the route.
fn assign(lane: usize, bench: &mut Bench<'_>) -> (Task, Vec<u8>) {
    let (task, service) = match bench.plan.mode {
        Mode::Bulk { both: true } => (Task::Bulk { both: true }, Service::Both),
        Mode::Bulk { both: false } => (Task::Bulk { both: false }, Service::Sink),
        Mode::Fair if lane == 0 => (Task::Bulk { both: false }, Service::Sink),
        Mode::Idle => (Task::Hold, Service::Echo),
        Mode::Connect => {
            let size = u32::try_from(bench.plan.size).unwrap_or(u32::MAX);
            let service = match bench.plan.hangs_up {
                true => Service::Wait(size),
                false => Service::Respond(size),
            };
            let mut request = service.greeting().to_vec();
            request.resize(REQUEST, 0);
            return (Task::Fetch, request);
        }
        Mode::Store(operation) => return assign_operation(operation, bench),
        Mode::PingPong | Mode::Fair | Mode::Backend => (Task::Ping, Service::Echo),
    };
    (task, service.greeting().to_vec())
}

fn assign_operation(operation: Operation, bench: &mut Bench<'_>) -> (Task, Vec<u8>) {
    let (key, writes) = bench.next_operation(operation);
    let id = format!("load{key:05}");
    let frame = if writes {
        agent::update(&id, SECTION, &bench.value)
    } else {
        agent::query(&id, SECTION)
    };
    let reply = Progress::Part(Vec::new());
    (Task::Store { writes, reply }, frame)
}

fn ended(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

/// Steps that one connection may take before others have their turn.
const BUDGET: usize = 8;
const SECTION: &str = "status";
