//! A client's control connection to one server, over all its lives.
//!
//! ```text
//!   Resting ──> Dialling ──> Greeting ── challenge ──> Judged ── welcome ──> Working
//!      ^            │            │                       │                     │
//!      └── pause ───┴────────────┴─── lost, refused ─────┴─────────────────────┘
//!   Over: nothing is left to do, for good
//! ```

use std::collections::VecDeque;
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::frames::{ROOM, drop_half, front};
use super::super::wire::{
    Answer, CHALLENGE, Claim, Control as Frame, Denied, Expose, Exposed, Kind, Mode, NONCE,
    Options, REPLY, Reason, Refusal, Reply, Status, Transport, Uuid, Visit,
};
use super::super::{MISSED, PING};
use super::datagrams::Datagrams;
use super::errand::Errand;
use super::trunk::Trunk;
use super::{Event as Told, Route, Rules, Word};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::reactor::Handle;
use crate::session::{Cause, Close, Cx, Event, Mail, Session};
use crate::upstream::{Dialling, Progress};

/// The session of a client.
pub(super) struct Link {
    rules: Rc<Rules>,
    stage: Stage,
    services: Vec<Service>,
    /// The session that the server's Welcome told.
    session: Uuid,
    backoff: Backoff,
    heard: Option<Instant>,
    scratch: Vec<u8>,
    /// When it was last told that a service cannot be reached.
    warned: Option<Instant>,
    /// The last visitors that were announced, and the services that they are for. Bound: [`RECENT`].
    recent: VecDeque<(Uuid, usize)>,
    stopping: bool,
}

enum Stage {
    Resting,
    Dialling(Dialling),
    Greeting(ConnKey),
    Judged(ConnKey, [u8; CHALLENGE], [u8; NONCE]),
    Working(ConnKey),
    Over,
}

/// How a service stands.
#[derive(Default)]
struct Service {
    /// Its number on the present connection.
    number: Option<u16>,
    /// What it had last; 0 before it had any.
    epoch: u64,
    /// Who serves its visitors' frames.
    server: Option<Handle>,
    /// It is to be asked for again when the timer fires.
    waits: bool,
    /// It has ended for good.
    is_over: bool,
    /// When it was last told that a connection for its visitors has failed.
    told: Option<Instant>,
}

impl Link {
    pub(super) fn new(rules: Rc<Rules>) -> Self {
        let services = rules.services.iter().map(|_| Service::default()).collect();
        Self {
            rules,
            stage: Stage::Resting,
            services,
            session: Uuid::NONE,
            backoff: Backoff(FIRST_PAUSE),
            heard: None,
            scratch: Vec::new(),
            warned: None,
            recent: VecDeque::new(),
            stopping: false,
        }
    }

    fn dial(&mut self, cx: &mut Cx<'_>) {
        let (dialling, progress) = Dialling::start(&self.rules.server, cx);
        self.stage = Stage::Dialling(dialling);
        self.advance(progress, cx);
    }

    fn advance(&mut self, progress: Progress, cx: &mut Cx<'_>) {
        match progress {
            Progress::Waiting => {}
            Progress::Connected(conn) => {
                cx.send(conn, &Kind::Control.preamble());
                cx.arm(LIFE, self.rules.handshake_timeout);
                self.stage = Stage::Greeting(conn);
            }
            Progress::Failed(why) => self.lose(why.words(), cx),
        }
    }

    /// There is no connection any more, or none comes: again after a pause.
    fn lose(&mut self, why: &str, cx: &mut Cx<'_>) {
        if let Some(conn) = self.conn() {
            cx.close(conn);
        }
        let pause = self.backoff.next(cx.random());
        self.disconnect(cx);
        let why = why.into();
        self.rules.tell(Told::Lost { why, pause });
        self.rest(pause, cx);
    }

    fn rest(&mut self, pause: Duration, cx: &mut Cx<'_>) {
        self.stage = Stage::Resting;
        cx.arm(LIFE, pause);
    }

    /// Forgets what was agreed on the connection.
    fn disconnect(&mut self, cx: &mut Cx<'_>) {
        cx.disarm(AGAIN);
        self.rules.routes.borrow_mut().clear();
        for service in &mut self.services {
            service.number = None;
            service.waits = false;
            if let Some(server) = service.server.take() {
                cx.post(server, Mail::new(Word::End));
            }
        }
    }

    /// The server will not have this client.
    fn deny(&mut self, why: &str, cx: &mut Cx<'_>) {
        if self.rules.persists {
            self.backoff = Backoff(PENANCE);
            return self.lose(why, cx);
        }
        if let Some(conn) = self.conn() {
            cx.close(conn);
        }
        self.stage = Stage::Over;
        cx.disarm(LIFE);
        self.rules.tell(Told::Denied { why: why.into() });
        self.rules.tell(Told::Ended);
    }

    fn conn(&self) -> Option<ConnKey> {
        match self.stage {
            Stage::Greeting(conn) | Stage::Judged(conn, ..) | Stage::Working(conn) => Some(conn),
            Stage::Resting | Stage::Dialling(_) | Stage::Over => None,
        }
    }

    fn read(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) {
        if let Stage::Greeting(conn) = self.stage {
            let mut challenge = [0; CHALLENGE];
            if rx.copy_to(0, &mut challenge) < CHALLENGE {
                return;
            }
            rx.consume(CHALLENGE);
            let Some(nonce) = self.rules.random() else {
                return self.lose("no random bytes", cx);
            };
            let (token, client) = (&self.rules.token, self.rules.client);
            let answer = Answer::new(token, &challenge, Claim::Control, client, nonce);
            let mut bytes = Vec::new();
            answer.encode(&mut bytes);
            cx.send(conn, &bytes);
            self.stage = Stage::Judged(conn, challenge, nonce);
        }
        if let Stage::Judged(conn, challenge, nonce) = self.stage {
            let mut bytes = [0; REPLY];
            let have = rx.copy_to(0, &mut bytes);
            let Some(reply) = Reply::decode(&bytes[..have]) else {
                return;
            };
            rx.consume(REPLY);
            match reply.check(&self.rules.token, &challenge, &nonce) {
                Ok(()) => self.work(conn, cx),
                Err(denied) => return self.refused(denied, cx),
            }
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.read_frames(rx, &mut scratch, cx);
        scratch.clear();
        self.scratch = scratch;
        if let Err(error) = outcome {
            self.lose(&format!("the server breaks the protocol: {error}"), cx);
        }
    }

    fn refused(&mut self, denied: Denied, cx: &mut Cx<'_>) {
        let why = denied.to_string();
        match denied {
            Denied::Refused(Status::Overloaded | Status::Draining | Status::Other(_)) => {
                self.lose(&why, cx);
            }
            Denied::Refused(_) | Denied::Impostor => self.deny(&why, cx),
        }
    }

    /// The server has taken the client: every service is asked for.
    fn work(&mut self, conn: ConnKey, cx: &mut Cx<'_>) {
        self.stage = Stage::Working(conn);
        self.heard = Some(cx.now);
        cx.hold(conn, ROOM);
        cx.patience(conn, PING * MISSED);
        cx.arm(LIFE, PING);
        self.rules.tell(Told::Connected);
        for at in 0..self.services.len() {
            if !self.services[at].is_over {
                self.ask(at, cx);
            }
        }
    }

    fn ask(&mut self, at: usize, cx: &mut Cx<'_>) {
        let (service, wish) = (&self.services[at], &self.rules.services[at]);
        let expose = Expose {
            request: at as u32,
            transport: if wish.udp {
                Transport::Udp
            } else {
                Transport::Tcp
            },
            mode: match wish.is_framed() {
                true => Mode::Mux,
                false => Mode::Direct,
            },
            port: wish.port.unwrap_or(0),
            options: match wish.may_move() {
                true => Options(Options::MAY_MOVE),
                false => Options::default(),
            },
            epoch: service.epoch,
            name: wish.name.as_str().as_bytes(),
        };
        self.say(&Frame::Expose(expose), cx);
    }

    fn say(&self, frame: &Frame<'_>, cx: &mut Cx<'_>) {
        if let Stage::Working(conn) = self.stage {
            let mut bytes = Vec::with_capacity(128);
            frame.encode(&mut bytes);
            cx.send(conn, &bytes);
        }
    }

    fn read_frames(
        &mut self,
        rx: &mut Ring,
        scratch: &mut Vec<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<(), crate::wire::WireError> {
        while matches!(self.stage, Stage::Working(_)) {
            let Some((frame, len)) = Frame::decode(front(rx, scratch)?)? else {
                return Ok(());
            };
            self.heard = Some(cx.now);
            self.take(&frame, cx);
            rx.consume(len);
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame<'_>, cx: &mut Cx<'_>) {
        match *frame {
            Frame::Welcome { session } => self.session = session,
            Frame::Exposed(exposed) => self.exposed(&exposed, cx),
            Frame::Refused { request, code, .. } => self.not_exposed(request as usize, code, cx),
            Frame::Visit(visit) => self.visit(&visit, cx),
            Frame::PoolWanted(tickets) => {
                for ticket in tickets.iter() {
                    // Without room there is none in the pool; visitors come with a Visit then.
                    cx.spawn(Box::new(Errand::pooled(&self.rules, cx.handle, ticket)));
                }
            }
            Frame::Superseded { service, text, .. } => self.superseded(service, text, cx),
            Frame::Withdraw { service } => {
                if let Some(at) = self.at(service) {
                    self.end(at, cx);
                }
            }
            Frame::Ping(number) => self.say(&Frame::Pong(number), cx),
            Frame::Drain { .. } => self.rules.tell(Told::Draining),
            Frame::Closed {
                uuid,
                reason: Reason::Timeout,
            } => {
                let found = self.recent.iter().find(|(recent, _)| *recent == uuid);
                if let Some(&(_, at)) = found {
                    self.failed(Some(at), "none came to the server in time", cx);
                }
            }
            // A visitor that is gone before it was served: its errand finds that out by its ticket.
            Frame::Closed { .. } | Frame::Pong(_) | Frame::Expose(_) => {}
        }
    }

    fn at(&self, number: u16) -> Option<usize> {
        let mut services = self.services.iter();
        services.position(|service| service.number == Some(number))
    }

    fn exposed(&mut self, exposed: &Exposed, cx: &mut Cx<'_>) {
        let at = exposed.request as usize;
        let Some(service) = self.services.get_mut(at) else {
            return;
        };
        self.backoff = Backoff(FIRST_PAUSE);
        service.number = Some(exposed.service);
        service.epoch = exposed.epoch;
        let public = exposed.public;
        let route = Route { at, public };
        let mut routes = self.rules.routes.borrow_mut();
        routes.insert(exposed.service, route);
        drop(routes);
        let wish = &self.rules.services[at];
        let name = wish.name.clone();
        if wish.is_framed() {
            let place = (self.session, exposed.service);
            let (rules, link) = (&self.rules, cx.handle);
            let session: Box<dyn Session> = match wish.udp {
                false => Box::new(Trunk::new(rules, link, route, place)),
                true => Box::new(Datagrams::framed(rules, link, route, place)),
            };
            service.server = cx.spawn(session);
        }
        self.rules.tell(Told::Exposed { name, public });
    }

    fn not_exposed(&mut self, at: usize, why: Refusal, cx: &mut Cx<'_>) {
        let Some(service) = self.services.get_mut(at) else {
            return;
        };
        let name = self.rules.services[at].name.clone();
        let is_passing = matches!(
            why,
            Refusal::Draining | Refusal::Overloaded | Refusal::Released
        );
        let wants_room = matches!(
            why,
            Refusal::NoPorts | Refusal::PortTaken | Refusal::NotStored
        );
        let had = service.epoch > 0 || self.rules.persists;
        if is_passing || (wants_room && had) {
            let pause = self.backoff.next(cx.random());
            service.waits = true;
            cx.arm(AGAIN, pause);
            self.close(at, cx);
            let pause = Some(pause);
            return self.rules.tell(Told::Refused { name, why, pause });
        }
        match why {
            Refusal::Superseded => {
                let text = why.to_string().into();
                self.rules.tell(Told::Superseded { name, text });
            }
            _ => {
                let pause = None;
                self.rules.tell(Told::Refused { name, why, pause });
            }
        }
        self.end(at, cx);
    }

    fn superseded(&mut self, number: u16, text: &str, cx: &mut Cx<'_>) {
        if let Some(at) = self.at(number) {
            let name = self.rules.services[at].name.clone();
            let text = text.into();
            self.rules.tell(Told::Superseded { name, text });
            self.end(at, cx);
        }
    }

    /// Nobody comes to a service any more, for good or until it has a port again.
    fn close(&mut self, at: usize, cx: &mut Cx<'_>) {
        let service = &mut self.services[at];
        if let Some(server) = service.server.take() {
            cx.post(server, Mail::new(Word::End));
        }
        if let Some(number) = service.number.take() {
            self.rules.routes.borrow_mut().remove(&number);
        }
    }

    /// A service ends for good.
    fn end(&mut self, at: usize, cx: &mut Cx<'_>) {
        self.services[at].is_over = true;
        self.close(at, cx);
        if self.services.iter().all(|service| service.is_over) {
            if let Some(conn) = self.conn() {
                cx.close(conn);
            }
            self.stage = Stage::Over;
            cx.disarm(LIFE);
            cx.disarm(AGAIN);
            self.rules.tell(Told::Ended);
        }
    }

    /// A visitor waits at the server.
    fn visit(&mut self, visit: &Visit, cx: &mut Cx<'_>) {
        let closed = |reason| Frame::Closed {
            uuid: visit.uuid,
            reason,
        };
        let Some(route) = self.rules.route(visit.service) else {
            return self.say(&closed(Reason::Withdrawn), cx);
        };
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((visit.uuid, route.at));
        let (rules, link) = (&self.rules, cx.handle);
        let session: Box<dyn Session> = match rules.services[route.at].udp {
            false => {
                let visitor = (route, visit.visitor);
                Box::new(Errand::visit(
                    rules,
                    link,
                    visit.ticket,
                    visit.uuid,
                    visitor,
                ))
            }
            true => {
                let (ticket, uuid) = (visit.ticket, visit.uuid);
                Box::new(Datagrams::attached(rules, link, route, ticket, uuid))
            }
        };
        if cx.spawn(session).is_none() {
            self.say(&closed(Reason::Overloaded), cx);
        }
    }

    fn unserved(&mut self, uuid: Uuid, at: usize, why: &'static str, cx: &mut Cx<'_>) {
        let reason = Reason::Unreachable;
        if !uuid.is_none() {
            self.say(&Frame::Closed { uuid, reason }, cx);
        }
        let lately = |at: Instant| cx.now.saturating_duration_since(at) < Duration::from_secs(1);
        if self.warned.is_none_or(|at| !lately(at)) {
            self.warned = Some(cx.now);
            let name = self.rules.services[at].name.clone();
            self.rules.tell(Told::Unreachable { name, why });
        }
    }

    /// A connection for a service's visitors, or for those of any in mode *direct*, has come to nothing.
    fn failed(&mut self, at: Option<usize>, why: &str, cx: &Cx<'_>) {
        let is_pooled = |at: &usize| {
            let wish = &self.rules.services[*at];
            !self.services[*at].is_over && !wish.udp && !wish.is_framed()
        };
        let Some(at) = at.or_else(|| (0..self.services.len()).find(is_pooled)) else {
            return;
        };
        let service = &mut self.services[at];
        let lately = |at: Instant| cx.now.saturating_duration_since(at) < BETWEEN_FAILURES;
        if service.told.is_none_or(|at| !lately(at)) {
            service.told = Some(cx.now);
            let name = self.rules.services[at].name.clone();
            let why = why.into();
            self.rules.tell(Told::Failed { name, why });
        }
    }

    /// The timer of life: a rest is over, the server takes too long, or it is time to ping.
    fn expire(&mut self, cx: &mut Cx<'_>) {
        match self.stage {
            Stage::Resting => self.dial(cx),
            Stage::Greeting(_) | Stage::Judged(..) => self.lose("handshake timeout", cx),
            Stage::Working(_) => {
                let silent = |at| cx.now.saturating_duration_since(at) > PING * MISSED;
                if self.heard.is_some_and(silent) {
                    return self.lose("the server is silent", cx);
                }
                self.say(&Frame::Ping(cx.unix_time().as_secs()), cx);
                cx.arm(LIFE, PING);
            }
            Stage::Dialling(_) | Stage::Over => {}
        }
    }

    fn ask_again(&mut self, cx: &mut Cx<'_>) {
        for at in 0..self.services.len() {
            if std::mem::take(&mut self.services[at].waits) {
                self.ask(at, cx);
            }
        }
    }

    /// The process stops: nobody is to come any more.
    fn stop(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.stopping = true;
        for service in self.services.iter().filter_map(|service| service.number) {
            self.say(&Frame::Withdraw { service }, cx);
        }
        self.disconnect(cx);
        Err(Close::own(Cause::Stopping))
    }
}

impl Session for Link {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Opened => self.dial(cx),
            Event::Data { rx, last, .. } => {
                self.read(rx, cx);
                drop_half(rx, last);
            }
            Event::Eof { conn } if self.conn() == Some(conn) => {
                self.lose("the server has closed the connection", cx);
            }
            Event::Lost { conn, why } if self.conn() == Some(conn) => {
                self.lose(&why.to_string(), cx);
            }
            Event::Stalled { .. } => self.lose("the server takes nothing", cx),
            Event::Timer { tag: LIFE } => self.expire(cx),
            Event::Timer { .. } => self.ask_again(cx),
            Event::Mail { mail, .. } => match mail.open() {
                Some(Word::Unserved { uuid, at, why }) => self.unserved(uuid, at, why, cx),
                Some(Word::Failed { at, why }) => self.failed(at, &why, cx),
                _ => {}
            },
            Event::Stopping => return self.stop(cx),
            ref other => {
                if let Stage::Dialling(dialling) = &mut self.stage {
                    let progress = dialling.handle(other, cx);
                    self.advance(progress, cx);
                }
            }
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(out, " client={}", self.rules.client);
    }
}

/// Pauses with full jitter below a ceiling that doubles: clients that have lost the same server do
/// not come back together.
struct Backoff(Duration);

impl Backoff {
    fn next(&mut self, draw: u64) -> Duration {
        let ceiling = self.0;
        self.0 = (ceiling * 2).min(LONGEST_PAUSE);
        ceiling.mul_f64((draw >> 32) as f64 / f64::from(u32::MAX))
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Of one that is not let in and tries all the same: it changes seldom, and a wrong token costs the
/// server.
const PENANCE: Duration = Duration::from_secs(30);

/// How seldom it is told of a service that its connections fail.
const BETWEEN_FAILURES: Duration = Duration::from_secs(10);

/// Visitors whose services are remembered.
const RECENT: usize = 256;

/// A rest, a handshake, the next ping.
const LIFE: u8 = 0;

/// Services that found no room are asked for again.
const AGAIN: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_below_a_ceiling_that_doubles() {
        let mut backoff = Backoff(FIRST_PAUSE);
        let most: Vec<_> = (0..10)
            .map(|_| backoff.next(u64::MAX).as_millis())
            .collect();
        assert_eq!(
            most,
            [100, 200, 400, 800, 1600, 3200, 4000, 4000, 4000, 4000]
        );
        let mut denied = Backoff(PENANCE);
        assert_eq!(denied.next(u64::MAX), PENANCE);
        assert_eq!(backoff.next(0), Duration::ZERO);
    }
}
