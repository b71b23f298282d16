//! The loop that runs all clients and backends, and the phases of a run.
//!
//! ```text
//!   opening ──every lane works──> warm-up ──> window (counts and CPU begin at nought) ──> report
//! ```

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use crate::args::{Mode, Plan};
use crate::backend::Guest;
use crate::client::{Client, Verdict};
use crate::line::Line;
use crate::meter::Bench;
use crate::report::Report;
use crate::usage::{self, Usage};

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let mut lab = Lab::new(plan)?;
    if plan.mode == Mode::Backend {
        loop {
            lab.turn()?;
        }
    }
    let at_rest = usage::read(&plan.pids)?;
    lab.open_all()?;
    lab.wear()?;
    lab.pass(plan.warmup)?;
    lab.bench.begin_window();
    let each = if plan.each { &plan.pids[..] } else { &[] };
    let before = usage::read(&plan.pids)?;
    let each_before = usage::each(each)?;
    let began = Instant::now();
    lab.pass(plan.window)?;
    let elapsed = began.elapsed();
    let after = usage::read(&plan.pids)?;
    let each_after = usage::each(each)?;
    let each = each_after.iter().zip(&each_before);
    let each = each.map(|(after, before)| after.cpu.saturating_sub(before.cpu));
    Ok(Report::new(
        plan,
        &lab.bench.meter,
        elapsed,
        Usage {
            cpu: after.cpu.saturating_sub(before.cpu),
            ..after
        },
        &each.collect::<Vec<_>>(),
        after.resident_bytes.saturating_sub(at_rest.resident_bytes),
    ))
}

struct Lab<'a> {
    poll: Poll,
    events: Events,
    peers: Slab<Peer>,
    listener: Option<TcpListener>,
    /// Connections that used up their budget with work left.
    again: Vec<usize>,
    /// Lanes whose client has ended and wants a successor.
    vacant: Vec<usize>,
    opened: usize,
    /// All errors since the start; [`MOST_ERRORS`] of them end the run.
    errors: u64,
    bench: Bench<'a>,
}

struct Peer {
    line: Line,
    role: Role,
    /// It is in the list of those to be stepped; nobody is in it twice.
    queued: bool,
}

enum Role {
    Client(Client),
    Guest(Guest),
}

impl<'a> Lab<'a> {
    fn new(plan: &'a Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = plan.backend.map(listen).transpose()?;
        if let Some(listener) = &mut listener {
            poll.registry()
                .register(listener, LISTENER, Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            peers: Slab::new(),
            listener,
            again: Vec::new(),
            vacant: Vec::new(),
            opened: 0,
            errors: 0,
            bench: Bench::new(plan),
        })
    }

    /// Opens the clients a few at a time, so that no listener's backlog overflows, until all work.
    fn open_all(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + OPENING;
        while !self.bench.is_ready() {
            let arrived = self.bench.arrivals();
            while self.opened < self.bench.plan.conns && self.opened - arrived < AT_ONCE {
                self.open(self.opened)?;
                self.opened += 1;
            }
            self.turn()?;
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "only {arrived} of {} clients could begin within {} s",
                    self.bench.plan.conns,
                    OPENING.as_secs()
                )));
            }
        }
        Ok(())
    }

    /// Lets so many operations pass as the plan wants before anything is measured.
    fn wear(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + WEARING;
        while self.bench.meter.operations < self.bench.plan.after {
            self.turn()?;
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "only {} of {} connections within {} s",
                    self.bench.meter.operations,
                    self.bench.plan.after,
                    WEARING.as_secs()
                )));
            }
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    fn open(&mut self, lane: usize) -> io::Result<()> {
        let Some(target) = self.bench.plan.target else {
            return Ok(());
        };
        let client = Client::new(lane, &mut self.bench)?;
        let line = Line::connect(target)?;
        self.admit(line, Role::Client(client))
    }

    fn admit(&mut self, line: Line, role: Role) -> io::Result<()> {
        let entry = self.peers.vacant_entry();
        let index = entry.key();
        let peer = entry.insert(Peer {
            line,
            role,
            queued: false,
        });
        peer.line.register(self.poll.registry(), Token(index))?;
        self.step(index)
    }

    fn turn(&mut self) -> io::Result<()> {
        let idle = self.again.is_empty() && self.vacant.is_empty();
        let timeout = if idle { TICK } else { Duration::ZERO };
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let mut due = std::mem::take(&mut self.again);
        let mut accepts = false;
        for event in &self.events {
            let Token(index) = event.token();
            if event.token() == LISTENER {
                accepts = true;
            } else if let Some(peer) = self.peers.get_mut(index) {
                peer.line.note(event);
                if !std::mem::replace(&mut peer.queued, true) {
                    due.push(index);
                }
            }
        }
        for index in due.drain(..) {
            self.step(index)?;
        }
        if accepts {
            self.accept_all()?;
        }
        for lane in std::mem::take(&mut self.vacant) {
            self.open(lane)?;
        }
        Ok(())
    }

    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            let Some(listener) = &self.listener else {
                return Ok(());
            };
            match listener.accept() {
                Ok((stream, _)) => self.admit(Line::new(stream), Role::Guest(Guest::new()))?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets one connection work. Its failure is counted, not fatal, unless bytes were wrong or
    /// failures pile up.
    fn step(&mut self, index: usize) -> io::Result<()> {
        let Some(Peer { line, role, queued }) = self.peers.get_mut(index) else {
            return Ok(());
        };
        let outcome = match role {
            Role::Client(client) => client.advance(line, &mut self.bench),
            Role::Guest(guest) => guest.advance(line, &mut self.bench),
        };
        *queued = matches!(outcome, Ok(Verdict::Again));
        match outcome {
            Ok(Verdict::Wait) => return Ok(()),
            Ok(Verdict::Again) => {
                self.again.push(index);
                return Ok(());
            }
            Ok(Verdict::Done) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
            Err(error) => self.count(error)?,
        }
        if let Role::Client(client) = self.peers.remove(index).role {
            self.vacant.push(client.lane());
        }
        Ok(())
    }

    fn count(&mut self, error: io::Error) -> io::Result<()> {
        self.bench.meter.errors += 1;
        self.errors += 1;
        if self.errors < MOST_ERRORS {
            return Ok(());
        }
        let text = format!("{MOST_ERRORS} connections failed, the last one with: {error}");
        Err(io::Error::new(error.kind(), text))
    }
}

/// A deep backlog, and no delay of small writes: accepted connections inherit it.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

const LISTENER: Token = Token(usize::MAX - 1);
/// The longest that the loop sleeps past the end of a phase.
const TICK: Duration = Duration::from_millis(10);
/// How long all clients together may take to begin.
const OPENING: Duration = Duration::from_secs(30);
/// How long the operations that are not measured may take.
const WEARING: Duration = Duration::from_secs(60);
/// Clients that may be opening at the same time.
const AT_ONCE: usize = 256;
/// A server that fails so often is not being measured.
const MOST_ERRORS: u64 = 1000;
