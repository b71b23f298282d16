//! The loop that runs nodes and peers, and the phases of a run.
//!
//! ```text
//!   homes have addresses ──> a frame on every way ──> warm-up ──> window ──> report
//!        memory 0 ^ memory 1 ^                        ^ memory 2
//!   `register`: lanes ask from the warm-up on, each time as another node
//! ```
//!
//! Nobody is replaced but a lane: a connection that fails ends the run, for its figures would be
//! another load's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::{Events, Poll, Token};
use socket2::{Domain, Socket, Type};

use super::ask::Ask;
use super::figures::Outcome;
use super::home::Home;
use super::plan::{Load, Plan};
use super::run::{Run, Tally};
use crate::client::Verdict;
use crate::line::Line;
use crate::report::Report;
use crate::usage;

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let mut lab = Lab::new(plan)?;
    let at_rest = usage::read(&plan.pids)?.resident_bytes;
    lab.settle_all()?;
    let with_nodes = usage::read(&plan.pids)?.resident_bytes;
    lab.open_ways()?;
    lab.open_lanes()?;
    lab.run.begin_talking();
    lab.pass(plan.warmup)?;
    let with_peers = usage::read(&plan.pids)?.resident_bytes;
    lab.run.tally = Tally::new();
    let own = [std::process::id()];
    let (before, own_before) = (usage::read(&plan.pids)?, usage::read(&own)?);
    let began = Instant::now();
    lab.pass(plan.window)?;
    let elapsed = began.elapsed();
    let (after, own_after) = (usage::read(&plan.pids)?, usage::read(&own)?);
    let outcome = Outcome {
        elapsed,
        cpu: after.cpu.saturating_sub(before.cpu),
        own_cpu: own_after.cpu.saturating_sub(own_before.cpu),
        resident_bytes: after.resident_bytes,
        by_nodes: with_nodes.saturating_sub(at_rest),
        by_peers: with_peers.saturating_sub(with_nodes),
    };
    Ok(outcome.report(plan, &lab.run.tally))
}

struct Lab<'a> {
    poll: Poll,
    events: Events,
    /// The homes, then the ways, or the lanes.
    ends: Vec<End>,
    /// Ends that used up their budget with work left, and lanes that begin again.
    again: Vec<usize>,
    opened: usize,
    /// All errors since the start; [`MOST_ERRORS`] of them end the run.
    errors: usize,
    run: Run<'a>,
}

struct End {
    line: Line,
    role: Role,
    /// It is in the list of those to be stepped; nobody is in it twice.
    queued: bool,
}

enum Role {
    Home(Home),
    /// By its index in the run.
    Way(usize),
    Lane(Ask),
}

impl<'a> Lab<'a> {
    fn new(plan: &'a Plan) -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let salt = now.unwrap_or_default().as_nanos() as u64;
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            ends: Vec::new(),
            again: Vec::new(),
            opened: 0,
            errors: 0,
            run: Run::new(plan, salt),
        })
    }

    /// Connects the homes a few at a time, so that no listener's backlog overflows.
    fn settle_all(&mut self) -> io::Result<()> {
        let plan = self.run.plan;
        self.until("nodes have an address", plan.homes(), |lab| {
            while lab.ends.len() < plan.homes() && lab.ends.len() - lab.run.settled < AT_ONCE {
                let home = Home::new(lab.ends.len(), lab.run.next_request());
                lab.admit(plan.target, Role::Home(home))?;
            }
            Ok(lab.run.settled)
        })
    }

    /// Connects the ways, which are used in both directions before any is used in earnest.
    fn open_ways(&mut self) -> io::Result<()> {
        let ways = self.run.plan.ways();
        self.until("connections brought a frame home", ways, |lab| {
            while lab.run.ways.len() < ways && lab.run.ways.len() - lab.run.proven < AT_ONCE {
                let way = lab.run.ways.len();
                let public = lab.run.open_way()?;
                lab.admit(public, Role::Way(way))?;
            }
            Ok(lab.run.proven)
        })
    }

    fn open_lanes(&mut self) -> io::Result<()> {
        let plan = self.run.plan;
        if plan.load != Load::Register {
            return Ok(());
        }
        for _ in 0..plan.lanes {
            let ask = Ask::new(self.run.next_request());
            self.admit(plan.target, Role::Lane(ask))?;
        }
        self.until("nodes have an address", 1, |lab| {
            Ok(usize::try_from(lab.run.tally.operations).unwrap_or(usize::MAX))
        })
    }

    /// Turns until the count is as wanted.
    fn until(
        &mut self,
        what: &str,
        wanted: usize,
        mut count: impl FnMut(&mut Self) -> io::Result<usize>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + OPENING;
        loop {
            let have = count(self)?;
            if have >= wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "only {have} of {wanted} {what} within {} s",
                    OPENING.as_secs()
                )));
            }
            self.turn()?;
        }
    }

    fn pass(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    fn connect(&mut self, target: SocketAddr, index: usize) -> io::Result<Line> {
        let mut line = connect(target, self.opened)?;
        self.opened += 1;
        line.register(self.poll.registry(), Token(index))?;
        Ok(line)
    }

    fn admit(&mut self, target: SocketAddr, role: Role) -> io::Result<()> {
        let index = self.ends.len();
        let line = self.connect(target, index)?;
        self.ends.push(End {
            line,
            role,
            queued: false,
        });
        self.step(index)
    }

    fn turn(&mut self) -> io::Result<()> {
        let idle = self.again.is_empty() && self.run.woken.is_empty();
        let timeout = if idle { TICK } else { Duration::ZERO };
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let mut due = std::mem::take(&mut self.again);
        for event in &self.events {
            let Token(index) = event.token();
            if let Some(end) = self.ends.get_mut(index) {
                end.line.note(event);
                if !std::mem::replace(&mut end.queued, true) {
                    due.push(index);
                }
            }
        }
        for index in due {
            self.step(index)?;
        }
        // What has come home may be followed at once; a way wakes nobody, so this ends.
        for way in std::mem::take(&mut self.run.woken) {
            self.step(self.run.plan.homes() + way)?;
        }
        Ok(())
    }

    fn step(&mut self, index: usize) -> io::Result<()> {
        let Some(End { line, role, queued }) = self.ends.get_mut(index) else {
            return Ok(());
        };
        *queued = false;
        match role {
            Role::Home(home) => {
                let verdict = home.advance(line, &mut self.run)?;
                if verdict == Verdict::Again {
                    *queued = true;
                    self.again.push(index);
                }
                Ok(())
            }
            Role::Way(way) => match self.run.ways.get_mut(*way) {
                Some(way) => way.advance(line),
                None => Ok(()),
            },
            Role::Lane(ask) => match ask.advance(line) {
                Ok(None) => Ok(()),
                Ok(Some(_)) => {
                    self.run.note_answer(ask.since());
                    self.begin_again(index)
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
                Err(error) => {
                    self.count(error)?;
                    self.begin_again(index)
                }
            },
        }
    }

    /// The lane's node leaves; another one comes in its place, in the next turn.
    fn begin_again(&mut self, index: usize) -> io::Result<()> {
        let ask = Ask::new(self.run.next_request());
        let line = self.connect(self.run.plan.target, index)?;
        if let Some(end) = self.ends.get_mut(index) {
            *end = End {
                line,
                role: Role::Lane(ask),
                queued: true,
            };
            self.again.push(index);
        }
        Ok(())
    }

    fn count(&mut self, error: io::Error) -> io::Result<()> {
        self.run.tally.errors += 1;
        self.errors += 1;
        if self.errors < MOST_ERRORS {
            return Ok(());
        }
        let text = format!("{MOST_ERRORS} nodes were given no address, the last one with: {error}");
        Err(io::Error::new(error.kind(), text))
    }
}

/// Begins to connect. On loopback each call takes another address of this host than the server's:
/// else the kernel would give the connection a port of its own choice at the very address where
/// the server is about to listen on all of them, and the many that were closed would use it up.
fn connect(target: SocketAddr, number: usize) -> io::Result<Line> {
    if target.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        return Line::connect(target);
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let source = Ipv4Addr::new(127, 0, 0, FIRST_SOURCE + (number % SOURCES) as u8);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    match socket.connect(&target.into()) {
        // A connection that does not wait is still under way, which is no failure.
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(Line::new(TcpStream::from_std(socket.into()))),
    }
}

/// The longest that the loop sleeps past the end of a phase.
const TICK: Duration = Duration::from_millis(10);
/// How long each phase before the warm-up may take.
const OPENING: Duration = Duration::from_secs(20);
/// Connections that may be opening at the same time.
const AT_ONCE: usize = 256;
/// A server that refuses so many nodes is not being measured.
const MOST_ERRORS: usize = 100;
/// 127.0.0.2 is the first that connections come from.
const FIRST_SOURCE: u8 = 2;
const SOURCES: usize = 32;
