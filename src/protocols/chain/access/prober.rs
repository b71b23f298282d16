//! Tries the chains of a listener that has several, one after the other, again and again: whether all
//! hops answer, and how long it takes.
//!
//! ```text
//!   Opened ─> Resting ── probe_interval ──> Dialling ─> Waiting ─> next chain ... ─> Resting
//!                                              └──────────┴─ failed, late: the chain is left out
//! ```
//!
//! It is a resident of one core; what it finds out holds for all.

use std::fmt::Write;
use std::rc::Rc;
use std::time::Instant;

use super::super::passage::{Failed, Responses, Why, Wish};
use super::super::wire::Transport;
use super::session::close_stray;
use super::{Door, stamp};
use crate::net::ConnKey;
use crate::session::{Cause, Close, Cx, Event, Session};
use crate::upstream::{Dialling, Progress};

/// The session that tries them.
pub(in super::super) struct Prober {
    door: Rc<Door>,
    route: usize,
    state: State,
    /// What was tried to be dialled, so that a late answer is known for what it is.
    attempts: u32,
}

enum State {
    Resting,
    Dialling(Dialling),
    Waiting {
        first: ConnKey,
        responses: Responses,
        since: Instant,
    },
}

impl Prober {
    /// A session that awaits its beginning.
    pub(in super::super) fn new(door: Rc<Door>) -> Self {
        Self {
            door,
            route: 0,
            state: State::Resting,
            attempts: 0,
        }
    }

    /// Tries the present chain; one without hops is always good.
    fn begin(&mut self, cx: &mut Cx<'_>) {
        while let Some(route) = self.door.routes.list.get(self.route) {
            if route.hops.is_empty() {
                self.door.routes.note_probe(self.route, Some(1));
                self.route += 1;
                continue;
            }
            let hops = route.hops.len() as u32;
            cx.arm(TIMER, self.door.times.hop * (hops + 1));
            let targets = &self.door.firsts[self.route];
            let (dialling, progress) = Dialling::start_behind(self.attempts, targets, cx);
            self.state = State::Dialling(dialling);
            return self.dialled(progress, cx);
        }
        self.route = 0;
        self.state = State::Resting;
        cx.arm(TIMER, self.door.access.probe_interval);
    }

    fn dialled(&mut self, progress: Progress, cx: &mut Cx<'_>) {
        match progress {
            Progress::Waiting => {}
            Progress::Failed(failure) => {
                let why = Why::Dial(failure);
                self.end(None, Err(Failed { hop: 0, why }), cx);
            }
            Progress::Connected(first) => self.ask(first, cx),
        }
    }

    fn ask(&mut self, first: ConnKey, cx: &mut Cx<'_>) {
        let route = &self.door.routes.list[self.route];
        let wish = Wish {
            stamp: stamp(cx),
            probe: true,
            early: false,
        };
        // The last hop dials nobody, but its header has an address: its own.
        let Some(last) = route.hops.last().map(|hop| &hop.address) else {
            return;
        };
        let mut out = Vec::new();
        let nonce = || self.door.nonce();
        let Some(asked) = route.seal(&mut out, last, Transport::Tcp, wish, nonce) else {
            let why = Why::Silent;
            return self.end(Some(first), Err(Failed { hop: 0, why }), cx);
        };
        cx.send(first, &out);
        self.state = State::Waiting {
            first,
            responses: Responses::new(asked),
            since: cx.now,
        };
    }

    /// One chain was tried.
    fn end(&mut self, conn: Option<ConnKey>, outcome: Result<u32, Failed>, cx: &mut Cx<'_>) {
        if let Some(conn) = conn {
            cx.close(conn);
        }
        if let State::Dialling(dialling) = &self.state {
            self.attempts = dialling.attempts();
        }
        // For people they are numbered from 1, as `check` does.
        let (name, at, number) = (&self.door.name, self.route, self.route + 1);
        let routes = &self.door.routes;
        let news = routes.note_probe(at, outcome.ok());
        let (loss, micros) = routes.figures(at);
        let loss = f64::from(loss) / 10.0;
        match outcome {
            Ok(_) if news => {
                log::info!("access {name} chain {number} works again: rtt={micros}us loss={loss}%");
            }
            Ok(_) => log::debug!("access {name} chain {number}: rtt={micros}us loss={loss}%"),
            Err(failed) if news => {
                let told = routes.list[at].tell(failed);
                log::warn!("access {name} chain {number} is left out for now: {told}");
            }
            Err(_) => log::debug!("access {name} chain {number} is still broken"),
        }
        self.route += 1;
        self.begin(cx);
    }

    /// The present try has gone wrong.
    fn fail(&mut self, why: Why, cx: &mut Cx<'_>) {
        match &self.state {
            State::Resting => {}
            State::Dialling(_) => self.end(None, Err(Failed { hop: 0, why }), cx),
            State::Waiting {
                first, responses, ..
            } => {
                let (first, hop) = (*first, responses.turn());
                self.end(Some(first), Err(Failed { hop, why }), cx);
            }
        }
    }
}

impl Session for Prober {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (&mut self.state, event) {
            (_, Event::Opened) => self.begin(cx),
            (_, Event::Stopping) => return Err(Close::own(Cause::Stopping)),
            (State::Resting, Event::Timer { .. }) => self.begin(cx),
            (_, Event::Timer { .. }) => self.fail(Why::Late, cx),
            (
                State::Waiting {
                    first,
                    responses,
                    since,
                },
                Event::Data { conn, rx, last },
            ) if conn == *first => {
                let took = cx.now.saturating_duration_since(*since).as_micros();
                let took = u32::try_from(took).unwrap_or(u32::MAX).max(1);
                match responses.read(&self.door.routes.list[self.route], rx) {
                    Ok(true) => {
                        rx.consume(rx.len());
                        self.end(Some(conn), Ok(took), cx);
                    }
                    Ok(false) if last => self.fail(Why::Silent, cx),
                    Ok(false) => {}
                    Err(failed) => self.end(Some(conn), Err(failed), cx),
                }
            }
            // Those of an earlier try are of no interest any more.
            (_, Event::Data { rx, .. }) => rx.consume(rx.len()),
            (State::Waiting { first, .. }, Event::Eof { conn } | Event::Lost { conn, .. })
                if conn == *first =>
            {
                self.fail(Why::Silent, cx)
            }
            (State::Dialling(dialling), event) => {
                let progress = dialling.handle(&event, cx);
                close_stray(&event, progress, cx);
                self.dialled(progress, cx);
            }
            (_, event) => close_stray(&event, Progress::Waiting, cx),
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(out, " access={}", self.door.name);
    }
}

/// The session's timer: of the present try, or of the rest between.
const TIMER: u8 = 0;
