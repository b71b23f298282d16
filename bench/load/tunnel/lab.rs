//! The loop that runs visitors and their service, and the phases of a run.
//!
//! ```text
//!   gap ──> visitors connect ──> each has its byte, or has failed ──> gap ...
//!   warm-up ──> window ──> report
//! ```

use std::io;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::figures::Outcome;
use super::plan::Plan;
use crate::histogram::Histogram;
use crate::lab::listen;
use crate::line::Line;
use crate::report::Report;
use crate::usage;

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let mut lab = Lab::new(plan)?;
    lab.pass(plan.warmup)?;
    lab.latency = Histogram::new();
    lab.errors = 0;
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
        latency: lab.latency,
        errors: lab.errors,
    };
    Ok(outcome.report(plan))
}

struct Lab<'a> {
    plan: &'a Plan,
    poll: Poll,
    events: Events,
    listener: TcpListener,
    ends: Slab<End>,
    /// Visitors that are there.
    here: usize,
    /// When the next ones come, if none is there.
    next: Instant,
    latency: Histogram,
    errors: u64,
}

struct End {
    line: Line,
    role: Role,
}

#[derive(Clone, Copy)]
enum Role {
    /// A visitor, and when it began to connect.
    Visitor(Instant),
    /// The service's end: whether its byte has gone.
    Service { has_spoken: bool },
}

/// What became of an end.
enum Progress {
    Wait,
    /// The first byte is there.
    Served,
    /// The other side has left.
    Over,
}

impl<'a> Lab<'a> {
    fn new(plan: &'a Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = listen(plan.backend)?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            plan,
            poll,
            events: Events::with_capacity(1024),
            listener,
            ends: Slab::new(),
            here: 0,
            next: Instant::now(),
            latency: Histogram::new(),
            errors: 0,
        })
    }

    fn pass(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if self.here == 0 && Instant::now() >= self.next {
                self.open()?;
            }
            self.turn()?;
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        for _ in 0..self.plan.conns {
            let since = Instant::now();
            let line = Line::connect(self.plan.target)?;
            self.here += 1;
            self.admit(line, Role::Visitor(since))?;
        }
        Ok(())
    }

    fn admit(&mut self, line: Line, role: Role) -> io::Result<()> {
        let entry = self.ends.vacant_entry();
        let index = entry.key();
        let end = entry.insert(End { line, role });
        end.line.register(self.poll.registry(), Token(index))?;
        self.step(index);
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let timeout = match self.here {
            0 => self.next.saturating_duration_since(Instant::now()),
            _ => LONGEST_WAIT,
        };
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let mut accepts = false;
        let mut due = Vec::new();
        for event in &self.events {
            let Token(index) = event.token();
            if event.token() == LISTENER {
                accepts = true;
            } else if let Some(end) = self.ends.get_mut(index) {
                end.line.note(event);
                due.push(index);
            }
        }
        due.into_iter().for_each(|index| self.step(index));
        if accepts {
            self.accept_all()?;
        }
        self.give_up_on_late_ones()
    }

    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let has_spoken = false;
                    self.admit(Line::new(stream), Role::Service { has_spoken })?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets one end work; one that is over is closed.
    fn step(&mut self, index: usize) {
        let Some(End { line, role }) = self.ends.get_mut(index) else {
            return;
        };
        let visitor = match role {
            Role::Visitor(since) => Some(*since),
            Role::Service { .. } => None,
        };
        match (advance(line, role), visitor) {
            (Ok(Progress::Wait), _) => return,
            (Ok(Progress::Served), Some(since)) => self.latency.record(since.elapsed()),
            // A service's end goes with its visitor, however that leaves.
            (_, None) => {}
            (_, Some(_)) => self.errors += 1,
        }
        self.ends.remove(index);
        if visitor.is_some() {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.here -= 1;
        if self.here == 0 {
            self.next = Instant::now() + self.plan.gap;
        }
    }

    /// A visitor that is never served would hold up the others for good.
    fn give_up_on_late_ones(&mut self) -> io::Result<()> {
        if self.here == 0 {
            return Ok(());
        }
        let late = |end: &End| match end.role {
            Role::Visitor(since) => since.elapsed() > LATE,
            Role::Service { .. } => false,
        };
        let lost = self.ends.iter().find(|(_, end)| late(end));
        match lost {
            None => Ok(()),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("a visitor had no byte after {} s", LATE.as_secs()),
            )),
        }
    }
}

fn advance(line: &mut Line, role: &mut Role) -> io::Result<Progress> {
    let mut byte = [0; 16];
    match role {
        Role::Visitor(_) => match line.read(&mut byte)? {
            None => Ok(Progress::Wait),
            Some(0) => Ok(Progress::Over),
            Some(_) => Ok(Progress::Served),
        },
        Role::Service { has_spoken } => {
            if !*has_spoken {
                *has_spoken = line.write(b"!")?.is_some();
            }
            match line.read(&mut byte)? {
                Some(0) => Ok(Progress::Over),
                _ => Ok(Progress::Wait),
            }
        }
    }
}

const LISTENER: Token = Token(usize::MAX - 1);
/// How long the loop sleeps at most while visitors wait.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// No tunnel takes so long.
const LATE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::net::TcpListener as Blocking;

    use super::*;
    use crate::tunnel::plan::tests::plan;

    #[test]
    fn visitors_of_the_service_itself_get_its_byte() {
        // A port that was free a moment ago, and no tunnel at all.
        let probe = Blocking::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let line = format!("first -t {address} -b {address} -c 3 --gap 1 -d 0.2 -w 0");
        let report = run(&plan(&line).unwrap()).unwrap().line();
        assert!(
            report.starts_with("mode=tunnel-first conns=3 gap_ms=1 "),
            "{report}"
        );
        assert!(report.ends_with(" errors=0"), "{report}");
        assert!(!report.contains(" per_s=0 "), "{report}");
    }
}
