//! The loop that runs a gateway's clients and its server, and the phases of a run.
//!
//! ```text
//!   server connects ──> clients are greeted ──> connections open ──> warm-up ──> window ──> report
//!     memory 0 ^           memory 1 ^       (`idle`: memory 2 after a message on each)
//! ```
//!
//! Nobody is replaced: a link that fails ends the run, for its figures would be another load's.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::client::Client;
use super::figures::{Growth, Outcome};
use super::plan::{Load, Plan};
use super::server::Server;
use super::state::{Run, Tally};
use crate::client::Verdict;
use crate::line::Line;
use crate::report::Report;
use crate::usage;

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let mut lab = Lab::new(plan)?;
    let at_rest = usage::read(&plan.pids)?.resident_bytes;
    lab.greet_all()?;
    let with_clients = usage::read(&plan.pids)?.resident_bytes;
    lab.dial_all()?;
    lab.talk_all()?;
    lab.pass(plan.warmup)?;
    let with_conns = usage::read(&plan.pids)?.resident_bytes;
    let growth = Growth {
        by_clients: with_clients.saturating_sub(at_rest),
        by_conns: with_conns.saturating_sub(with_clients),
    };
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
        growth,
    };
    Ok(outcome.report(plan, &lab.run.tally))
}

struct Lab<'a> {
    poll: Poll,
    events: Events,
    /// The server first, then the clients.
    ends: Vec<End>,
    /// Ends that used up their budget with work left.
    again: Vec<usize>,
    run: Run<'a>,
}

struct End {
    line: Line,
    role: Role,
    /// It is in the list of those to be stepped; nobody is in it twice.
    queued: bool,
}

enum Role {
    Server(Server),
    Client(Client),
}

impl<'a> Lab<'a> {
    /// With the server on its way.
    fn new(plan: &'a Plan) -> io::Result<Self> {
        let mut lab = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            ends: Vec::new(),
            again: Vec::new(),
            run: Run::new(plan),
        };
        let server = Server::new(&lab.run);
        lab.admit(plan.servers, Role::Server(server))?;
        Ok(lab)
    }

    /// Connects the clients a few at a time, so that no listener's backlog overflows.
    fn greet_all(&mut self) -> io::Result<()> {
        let plan = self.run.plan;
        let mut opened = 0;
        self.until("clients were answered", plan.clients, |lab| {
            while opened < plan.clients && opened - lab.run.greeted < AT_ONCE {
                let client = Client::new(opened, &lab.run);
                lab.admit(plan.target, Role::Client(client))?;
                opened += 1;
            }
            Ok(lab.run.greeted)
        })
    }

    /// Opens all virtual connections; the load `open` only has to begin well.
    fn dial_all(&mut self) -> io::Result<()> {
        let plan = self.run.plan;
        self.tell_clients(Client::begin_dialling)?;
        let wanted = match plan.load {
            Load::Open => 1,
            _ => plan.clients * plan.conns,
        };
        self.until("dials were accepted", wanted, |lab| {
            Ok(usize::try_from(lab.run.accepted).unwrap_or(usize::MAX))
        })
    }

    fn talk_all(&mut self) -> io::Result<()> {
        let plan = self.run.plan;
        if plan.load == Load::Open {
            return Ok(());
        }
        self.tell_clients(Client::begin_talking)?;
        if plan.load != Load::Idle {
            return Ok(());
        }
        let wanted = plan.clients * plan.conns;
        self.until("messages came back", wanted, |lab| {
            Ok(usize::try_from(lab.run.tally.operations).unwrap_or(usize::MAX))
        })
    }

    fn tell_clients(&mut self, what: fn(&mut Client, &Run<'_>)) -> io::Result<()> {
        for index in 0..self.ends.len() {
            if let Some(End {
                role: Role::Client(client),
                ..
            }) = self.ends.get_mut(index)
            {
                what(client, &self.run);
                self.step(index)?;
            }
        }
        Ok(())
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

    fn admit(&mut self, target: SocketAddr, role: Role) -> io::Result<()> {
        let index = self.ends.len();
        let mut line = Line::connect(target)?;
        line.register(self.poll.registry(), Token(index))?;
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
        for client in self.run.woken.drain(..) {
            let index = client + 1;
            if let Some(end) = self.ends.get_mut(index)
                && !std::mem::replace(&mut end.queued, true)
            {
                due.push(index);
            }
        }
        for index in due {
            self.step(index)?;
        }
        Ok(())
    }

    fn step(&mut self, index: usize) -> io::Result<()> {
        let Some(End { line, role, queued }) = self.ends.get_mut(index) else {
            return Ok(());
        };
        let outcome = match role {
            Role::Server(server) => server.advance(line, &mut self.run),
            Role::Client(client) => client.advance(line, &mut self.run),
        };
        let verdict = outcome.map_err(|error| {
            let who = match index {
                0 => "the server".to_string(),
                client => format!("client {client}"),
            };
            io::Error::new(error.kind(), format!("{who}: {error}"))
        })?;
        *queued = verdict == Verdict::Again;
        if *queued {
            self.again.push(index);
        }
        Ok(())
    }
}

/// The longest that the loop sleeps past the end of a phase.
const TICK: Duration = Duration::from_millis(10);
/// How long each phase before the warm-up may take.
const OPENING: Duration = Duration::from_secs(10);
/// Clients that may be connecting at the same time.
const AT_ONCE: usize = 256;
