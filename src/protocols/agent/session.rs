//! One client's conversation: frames in, replies out, or a relay. The states are drawn in `mod.rs`.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::routes::{Way, asked_for};
use super::wire::{
    AgentRequest, Dialect, OK, REMOVE, Reply, Request, SET, decode, encode_reply, fits, needed,
};
use super::{Desk, PresentDesk};
use crate::buffer::Ring;
use crate::control::{self, Command};
use crate::net::ConnKey;
use crate::session::{Cause, Close, Cx, Event, Session};
use crate::store::{Change, Update};
use crate::upstream::{Dialling, Progress};

/// One connection of an agent or of a traffic proxy's client.
pub struct AgentSession {
    present: PresentDesk,
    /// The desk by which the last frame was served.
    desk: Rc<Desk>,
    /// Set by the first event.
    client: Option<ConnKey>,
    address: IpAddr,
    state: State,
    /// The beginning of a frame that has not come whole.
    partial: Vec<u8>,
    deadline: Deadline,
    /// When the last frame was served.
    served: Option<Instant>,
    frames: u64,
    authorised: bool,
    /// The client has shut its sending side.
    ended: bool,
    /// The server stops: end when the present request is answered.
    stopping: bool,
    /// Numbers the questions to the control thread.
    ticket: u32,
    way: Option<Way>,
    /// What the last request that was not granted lacked.
    refused: Option<&'static str>,
}

enum State {
    Reading,
    Storing(Dialect),
    Waiting {
        dialect: Dialect,
        id: Box<[u8]>,
        section: Box<[u8]>,
    },
    Dialling {
        dialling: Box<Dialling>,
        says_ok: bool,
    },
    /// The number of the target that was reached.
    Relaying(u32),
    /// What was asked for and is not to be had.
    Denied(String),
}

/// What the deadline timer is armed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deadline {
    Unarmed,
    Frame,
    Idle,
}

impl AgentSession {
    /// A session that awaits its connection.
    pub(super) fn new(present: PresentDesk) -> Self {
        let desk = Rc::clone(&present.borrow());
        Self {
            present,
            desk,
            client: None,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            state: State::Reading,
            partial: Vec::new(),
            deadline: Deadline::Unarmed,
            served: None,
            frames: 0,
            authorised: false,
            ended: false,
            stopping: false,
            ticket: FIRST_TICKET,
            way: None,
            refused: None,
        }
    }
}

impl Session for AgentSession {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (&mut self.state, event) {
            (State::Reading, Event::Accepted { conn, peer, .. }) => {
                self.client = Some(conn);
                self.address = peer.ip().to_canonical();
                self.served = Some(cx.now);
                self.set_deadline(Deadline::Frame, cx);
                Ok(())
            }
            (State::Reading, Event::Data { conn, rx, .. }) => self.serve(conn, rx, cx),
            (State::Reading, Event::Eof { .. }) if self.partial.is_empty() => {
                Err(Close::finished())
            }
            (State::Reading, Event::Eof { .. }) => Err(Close::downstream(Cause::Truncated)),
            (_, Event::Eof { .. }) => {
                self.ended = true;
                Ok(())
            }
            (State::Reading, Event::Drained { conn }) => {
                cx.resume(conn);
                Ok(())
            }
            (_, Event::Timer { tag }) => self.timer(tag, cx),
            (State::Dialling { dialling, says_ok }, event @ Event::Connected { .. })
            | (State::Dialling { dialling, says_ok }, event @ Event::Refused { .. })
            | (State::Dialling { dialling, says_ok }, event @ Event::Reply { .. }) => {
                let says_ok = *says_ok;
                let progress = dialling.handle(&event, cx);
                self.dialled(progress, says_ok, cx)
            }
            (_, Event::Reply { ticket, reply }) => self.answered(ticket, reply, cx),
            (_, Event::Relayed(relayed)) => Err(relayed.into()),
            (_, Event::Lost { why, .. }) => {
                self.abandon_wait(cx);
                Err(Close::downstream(Cause::Io("connection", why)))
            }
            (_, Event::Stopping) => self.stop(cx),
            _ => Ok(()),
        }
    }

    fn route(&self) -> Option<(&str, &str)> {
        self.way.as_ref().map(|way| (&*way.service, &*way.field))
    }

    fn describe(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = match (&self.way, &self.state) {
            (Some(way), State::Dialling { dialling, .. }) => {
                write!(out, "{} to={}", way.words(), dialling.target())
            }
            (Some(way), State::Relaying(target)) => {
                out.push_str(&way.words());
                let to = way.targets.get(*target);
                to.map_or(Ok(()), |to| write!(out, " to={to}"))
            }
            (_, State::Denied(asked)) => out.write_str(asked),
            _ => write!(out, " frames={}", self.frames),
        };
        if let Some(refused) = self.refused {
            let _ = write!(out, " refused={refused:?}");
        }
    }
}

impl AgentSession {
    /// Serves the frames that have come whole, in order, until one makes the session wait.
    fn serve(&mut self, conn: ConnKey, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        if self.partial.is_empty() {
            self.desk.clone_from(&self.present.borrow());
        }
        let desk = Rc::clone(&self.desk);
        let mut payload = desk.payload.take();
        let mut outcome = Ok(true);
        while let (Ok(true), State::Reading) = (&outcome, &self.state) {
            if cx.unsent(conn) > UNSENT {
                break; // Drained makes the connection resume.
            }
            outcome = self.serve_one(conn, rx, &mut payload, cx);
        }
        desk.payload.replace(payload);
        outcome.map(|_| ())
    }

    /// Serves one frame; false when there is none whole.
    fn serve_one(
        &mut self,
        conn: ConnKey,
        rx: &mut Ring,
        payload: &mut Vec<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<bool, Close> {
        let max_payload = self.desk.max_payload;
        if self.partial.is_empty() {
            // Most frames lie whole in the ring and are read where they are.
            if let Some(frame) = decode(rx.head(), max_payload, payload)? {
                rx.consume(frame.consumed);
                self.request(conn, frame.dialect, frame.request, rx.is_empty(), cx)?;
                return Ok(true);
            }
        }
        while !rx.is_empty() {
            let more = needed(&self.partial).saturating_sub(self.partial.len());
            rx.take_into(more.max(1), &mut self.partial);
            if let Some(frame) = decode(&self.partial, max_payload, payload)? {
                // Emptied, not kept: an idle connection holds no frame's memory.
                self.partial = Vec::new();
                self.request(conn, frame.dialect, frame.request, rx.is_empty(), cx)?;
                return Ok(true);
            }
        }
        let partial = !self.partial.is_empty();
        if partial || self.frames == 0 {
            self.set_deadline(Deadline::Frame, cx);
        }
        Ok(false)
    }

    /// Does what a request asks; `alone` when the client has sent nothing behind it.
    fn request(
        &mut self,
        conn: ConnKey,
        dialect: Dialect,
        request: Request<'_>,
        alone: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        self.frames += 1;
        self.served = Some(cx.now);
        let answer = match request {
            Request::Traffic {
                service,
                field,
                token,
                leading_operation,
            } => {
                let way = self.desk.routes.find(service, field, token);
                let way = way.map_err(|why| {
                    self.state = State::Denied(asked_for(service, field));
                    Close::downstream(Cause::Denied(why))
                })?;
                return self.dial(way, !leading_operation, cx);
            }
            Request::Agent(request) => request,
        };
        match answer {
            AgentRequest::Update {
                id,
                section,
                data,
                op,
            } => return self.update(conn, dialect, (id, section, data, op), alone, cx),
            AgentRequest::Query { id, section, wait } => {
                return self.query(conn, dialect, (id, section, wait), alone, cx);
            }
            AgentRequest::Sniff => {
                let host = self.sniffed().to_string();
                let host = host.as_bytes();
                self.reply(conn, dialect, &Reply::Sniffed { host }, cx);
            }
            AgentRequest::Auth { token } => {
                self.authorised = self.desk.token.admits(token);
                let reply = match self.authorised {
                    true => Reply::Authorised,
                    false => self.refuse("auth", "token wrong"),
                };
                self.reply(conn, dialect, &reply, cx);
            }
            AgentRequest::Unknown { .. } => {
                return Err(Close::downstream(Cause::Denied("command unknown")));
            }
        }
        self.answered_one(dialect, alone, cx)
    }

    fn update(
        &mut self,
        conn: ConnKey,
        dialect: Dialect,
        (id, section, data, op): (&[u8], &[u8], &[u8], u32),
        alone: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let refusal = if self.desk.token.is_set() && !self.authorised {
            Some("not authorised: send auth with the token first")
        } else if op == SET && !fits(dialect, data.len(), self.desk.max_payload) {
            Some("value too long to be read back")
        } else {
            None
        };
        if let Some(message) = refusal {
            let reply = self.refuse("update", message);
            self.reply(conn, dialect, &reply, cx);
            return self.answered_one(dialect, alone, cx);
        }
        let change = match op {
            SET => Change::Set(data.into()),
            REMOVE => Change::Remove,
            _ => {
                self.reply(conn, dialect, &Reply::Updated, cx);
                return self.answered_one(dialect, alone, cx);
            }
        };
        let update = Update {
            id: id.into(),
            section: section.into(),
            change,
        };
        self.state = State::Storing(dialect);
        self.set_deadline(Deadline::Unarmed, cx);
        self.ask(Command::Update(update), cx);
        Ok(())
    }

    fn query(
        &mut self,
        conn: ConnKey,
        dialect: Dialect,
        (id, section, wait): (&[u8], &[u8], i32),
        alone: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        if self.reply_record(conn, dialect, id, section, cx) {
            return self.answered_one(dialect, alone, cx);
        }
        let wait = Duration::from_secs(u64::try_from(wait).unwrap_or(0)).min(self.desk.max_wait);
        if wait.is_zero() {
            self.reply(conn, dialect, &Reply::Missing, cx);
            return self.answered_one(dialect, alone, cx);
        }
        self.state = State::Waiting {
            dialect,
            id: id.into(),
            section: section.into(),
        };
        self.set_deadline(Deadline::Unarmed, cx);
        cx.arm(WAIT, wait);
        let watch = Command::Watch {
            id: id.into(),
            section: section.into(),
        };
        self.ask(watch, cx);
        Ok(())
    }

    /// Answers a query whose record is there; false when it is not.
    fn reply_record(
        &mut self,
        conn: ConnKey,
        dialect: Dialect,
        id: &[u8],
        section: &[u8],
        cx: &mut Cx<'_>,
    ) -> bool {
        let Some(record) = self.desk.memory.get(id, section) else {
            return false;
        };
        let reply = if fits(dialect, record.data.len(), self.desk.max_payload) {
            Reply::Found {
                timestamp: record.timestamp,
                data: &record.data,
            }
        } else {
            Reply::failed(b"query", b"record too long for this dialect")
        };
        self.reply(conn, dialect, &reply, cx);
        true
    }

    /// The control thread has answered.
    fn answered(
        &mut self,
        ticket: u32,
        reply: control::Reply,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let Some(conn) = self.client else {
            return Ok(());
        };
        if ticket != self.ticket {
            return Ok(()); // The answer to a question that nobody waits for any more.
        }
        match (std::mem::replace(&mut self.state, State::Reading), reply) {
            (State::Storing(dialect), control::Reply::Stored(outcome)) => {
                match outcome {
                    Ok(()) => self.reply(conn, dialect, &Reply::Updated, cx),
                    Err(refusal) => {
                        let message = refusal.to_string();
                        let reply = Reply::failed(b"update", message.as_bytes());
                        self.reply(conn, dialect, &reply, cx);
                    }
                }
                self.go_on(conn, dialect, cx)
            }
            (State::Storing(dialect), control::Reply::Busy) => {
                self.reply(conn, dialect, &Reply::failed(b"update", b"server busy"), cx);
                self.go_on(conn, dialect, cx)
            }
            (
                State::Waiting {
                    dialect,
                    id,
                    section,
                },
                control::Reply::Changed,
            ) => {
                if self.reply_record(conn, dialect, &id, &section, cx) {
                    cx.disarm(WAIT);
                    return self.go_on(conn, dialect, cx);
                }
                // Set and removed again before we looked: the wait goes on.
                let watch = Command::Watch {
                    id: id.clone(),
                    section: section.clone(),
                };
                self.state = State::Waiting {
                    dialect,
                    id,
                    section,
                };
                self.ask(watch, cx);
                Ok(())
            }
            (State::Waiting { dialect, .. }, control::Reply::Busy) => {
                cx.disarm(WAIT);
                self.reply(conn, dialect, &Reply::failed(b"query", b"server busy"), cx);
                self.go_on(conn, dialect, cx)
            }
            (state, _) => {
                self.state = state;
                Ok(())
            }
        }
    }

    /// After an answer that had to be waited for: on to the next frame, if there is one. What the
    /// client has sent meanwhile lies in its ring.
    fn go_on(&mut self, conn: ConnKey, dialect: Dialect, cx: &mut Cx<'_>) -> Result<(), Close> {
        let alone = cx.unread(conn) == 0;
        self.answered_one(dialect, alone, cx)?;
        cx.resume(conn);
        Ok(())
    }

    /// Decides, after an answer, whether the connection goes on.
    fn answered_one(
        &mut self,
        dialect: Dialect,
        alone: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        self.state = State::Reading;
        if self.stopping {
            return Err(Close::own(Cause::Stopping));
        }
        if alone && (self.ended || dialect == Dialect::Stock) {
            return Err(Close::finished());
        }
        self.set_deadline(Deadline::Idle, cx);
        Ok(())
    }

    fn dial(&mut self, way: Way, says_ok: bool, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.set_deadline(Deadline::Unarmed, cx);
        let (dialling, progress) = Dialling::start(&way.targets, cx);
        self.way = Some(way);
        self.state = State::Dialling {
            dialling: Box::new(dialling),
            says_ok,
        };
        self.dialled(progress, says_ok, cx)
    }

    fn dialled(&mut self, progress: Progress, says_ok: bool, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (progress, self.client) {
            (Progress::Connected(backend), Some(client)) => {
                if says_ok {
                    cx.send(client, OK);
                }
                if let Some(way) = &self.way {
                    way.begin(client, backend, cx);
                }
                cx.relay(client, backend);
                let target = match &self.state {
                    State::Dialling { dialling, .. } => dialling.number(),
                    _ => 0,
                };
                self.state = State::Relaying(target);
                Ok(())
            }
            (Progress::Failed(failure), _) => Err(Close::upstream(failure.into())),
            _ => Ok(()),
        }
    }

    fn timer(&mut self, tag: u8, cx: &mut Cx<'_>) -> Result<(), Close> {
        if tag == WAIT {
            self.abandon_wait(cx);
            let state = std::mem::replace(&mut self.state, State::Reading);
            let (
                State::Waiting {
                    dialect,
                    id,
                    section,
                },
                Some(conn),
            ) = (state, self.client)
            else {
                return Ok(());
            };
            // The word of an update may be on its way still, and its sender knows already.
            if !self.reply_record(conn, dialect, &id, &section, cx) {
                self.reply(conn, dialect, &Reply::Missing, cx);
            }
            return self.go_on(conn, dialect, cx);
        }
        match std::mem::replace(&mut self.deadline, Deadline::Unarmed) {
            Deadline::Unarmed => Ok(()),
            Deadline::Frame => Err(Close::downstream(Cause::Deadline("handshake"))),
            Deadline::Idle => {
                // Armed once, not once for each frame: the time of the last frame decides.
                let served = self.served.unwrap_or(cx.now);
                let silent = cx.now.saturating_duration_since(served);
                if silent >= self.desk.timeouts.idle {
                    return Err(Close::own(Cause::Deadline("idle")));
                }
                self.deadline = Deadline::Idle;
                cx.arm(DEADLINE, self.desk.timeouts.idle - silent);
                Ok(())
            }
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.stopping = true;
        match self.state {
            State::Reading if self.partial.is_empty() => Err(Close::own(Cause::Stopping)),
            State::Waiting { .. } => {
                self.abandon_wait(cx);
                Err(Close::own(Cause::Stopping))
            }
            _ => Ok(()),
        }
    }

    /// Tells the control thread that nobody waits for a record any more.
    fn abandon_wait(&mut self, cx: &mut Cx<'_>) {
        if let State::Waiting { id, section, .. } = &self.state {
            let (id, section) = (id.clone(), section.clone());
            cx.ask(self.ticket, Command::Unwatch { id, section });
        }
    }

    fn ask(&mut self, command: Command, cx: &mut Cx<'_>) {
        self.ticket = self.ticket.wrapping_add(1) | FIRST_TICKET;
        cx.ask(self.ticket, command);
    }

    fn reply(&self, conn: ConnKey, dialect: Dialect, reply: &Reply<'_>, cx: &mut Cx<'_>) {
        let mask = (cx.random() as u32).to_le_bytes();
        let mut out = self.desk.reply.borrow_mut();
        out.clear();
        encode_reply(&mut out, dialect, mask, reply);
        cx.send(conn, &out);
    }

    /// For the client, and for the log.
    fn refuse(&mut self, command: &'static str, message: &'static str) -> Reply<'static> {
        self.refused = Some(message);
        Reply::failed(command.as_bytes(), message.as_bytes())
    }

    fn sniffed(&self) -> IpAddr {
        match self.address.is_loopback() {
            true => self.desk.own_address,
            false => self.address,
        }
    }

    /// Arms the deadline for what comes next; one that is armed for the same is left as it is.
    fn set_deadline(&mut self, deadline: Deadline, cx: &mut Cx<'_>) {
        if self.deadline == deadline {
            return;
        }
        self.deadline = deadline;
        match deadline {
            Deadline::Unarmed => cx.disarm(DEADLINE),
            Deadline::Frame => cx.arm(DEADLINE, self.desk.timeouts.handshake),
            Deadline::Idle => cx.arm(DEADLINE, self.desk.timeouts.idle),
        }
    }
}

/// The timers: of the frame that must come whole or of silence between frames, and of a waiting query.
const DEADLINE: u8 = 0;
const WAIT: u8 = 1;
/// Tickets of this file have this bit; those of a [`Dialling`] have it not.
const FIRST_TICKET: u32 = 1 << 31;

/// Bytes of answers that may wait for a client that does not read, before its next request is left
/// unserved. One largest reply may come on top.
pub const UNSENT: usize = 64 * 1024;
