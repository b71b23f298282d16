//! One endpoint's TCP connection: a client's or a server's. The states are drawn in `mod.rs`.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::directory::Kind;
use super::far::Word;
use super::frames::{self, LARGE};
use super::hall::Hall;
use super::wire::{ANSWER, CHALLENGE, Command, Dialect, verify};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::runs::QUANTUM;
use crate::session::{Cause, Close, Cx, Event, Mail, Session};

/// A client or a server of the gateway.
pub(super) struct GatewaySession {
    hall: Rc<RefCell<Hall>>,
    state: State,
}

enum State {
    /// The first event is still to come.
    Fresh(Kind),
    /// A server has been asked to prove its key.
    Asked(ConnKey, [u8; CHALLENGE]),
    /// It has a place in the hall.
    Entered(Entered),
}

struct Entered {
    conn: ConnKey,
    seat: usize,
    /// When the last whole frame was taken.
    heard: Instant,
    /// It was pinged since.
    pinged: bool,
    /// What lies unread had to wait for others when it was last looked at.
    held: bool,
    /// Bytes of a frame whose beginning lies unread; 0 when there is none.
    partial: usize,
}

impl GatewaySession {
    /// A session that awaits its connection.
    pub(super) fn new(hall: Rc<RefCell<Hall>>, kind: Kind) -> Self {
        let state = State::Fresh(kind);
        Self { hall, state }
    }

    fn begin(&mut self, kind: Kind, conn: ConnKey, cx: &mut Cx<'_>) -> Result<(), Close> {
        match kind {
            Kind::Client => self.enter(conn, None, cx),
            Kind::Server => {
                let hall = self.hall.borrow();
                let challenge = hall.rules.challenge()?;
                cx.send(conn, &challenge);
                cx.arm(LIFE, hall.rules.handshake_timeout);
                self.state = State::Asked(conn, challenge);
                Ok(())
            }
        }
    }

    /// Reads a server's proof, then whatever follows it.
    fn prove(
        &mut self,
        (conn, challenge): (ConnKey, [u8; CHALLENGE]),
        rx: &mut Ring,
        last: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let mut answer = [0; ANSWER];
        if rx.copy_to(0, &mut answer) < ANSWER {
            return match last {
                true => Err(Close::downstream(Cause::Truncated)),
                false => Ok(()),
            };
        }
        rx.consume(ANSWER);
        let id = verify(&challenge, &self.hall.borrow().rules.key, &answer);
        let id = id.ok_or_else(|| Close::downstream(Cause::Denied("wrong proof of the key")))?;
        self.enter(conn, Some(id), cx)?;
        self.read(rx, last, cx)
    }

    fn enter(&mut self, conn: ConnKey, server: Option<u32>, cx: &mut Cx<'_>) -> Result<(), Close> {
        let mut hall = self.hall.borrow_mut();
        let full = || Close::own(Cause::Overload("client ids"));
        let seat = hall.enter(conn, server, cx).ok_or_else(full)?;
        match server {
            None => cx.patience(conn, hall.rules.slow_receiver_timeout),
            Some(id) => {
                // What the system queues by itself would stand before whoever's turn it is.
                cx.shallow(conn, QUANTUM);
                log::info!("gateway {} server={id} joined", cx.handle);
            }
        }
        cx.disarm(LIFE);
        let entered = Entered {
            conn,
            seat,
            heard: cx.now,
            pinged: false,
            held: false,
            partial: 0,
        };
        if let Some(idle) = entered.idle(&hall) {
            cx.arm(LIFE, idle / 2);
        }
        drop(hall);
        self.state = State::Entered(entered);
        Ok(())
    }

    fn read(&mut self, rx: &mut Ring, last: bool, cx: &mut Cx<'_>) -> Result<(), Close> {
        let State::Entered(entered) = &mut self.state else {
            return Ok(());
        };
        let mut hall = self.hall.borrow_mut();
        if hall.is_calling(entered.seat) {
            cx.pause(entered.conn);
            return Ok(());
        }
        let served = frames::serve(&mut hall, entered.seat, rx, cx)?;
        if served.frames {
            entered.heard = cx.now;
            entered.pinged = false;
        }
        entered.held = served.held;
        if served.partial.max(LARGE) != entered.partial.max(LARGE) {
            cx.hold(entered.conn, served.partial.max(LARGE));
        }
        entered.partial = served.partial;
        match last && !served.held && !rx.is_empty() {
            true => Err(Close::downstream(Cause::Truncated)),
            false => Ok(()),
        }
    }

    /// The timer of life: the handshake's deadline, then looks twice in an idle timeout whether
    /// the endpoint has sent anything.
    fn check_life(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let entered = match &mut self.state {
            State::Entered(entered) => entered,
            _ => return Err(Close::downstream(Cause::Deadline("handshake"))),
        };
        let hall = self.hall.borrow();
        let Some(idle) = entered.idle(&hall) else {
            return Ok(());
        };
        let unread = cx.unread(entered.conn) > 0;
        if hall.is_calling(entered.seat) || (entered.held && unread) {
            // It could not be heard, so it starts anew.
            entered.heard = cx.now;
        }
        let silent = cx.now.saturating_duration_since(entered.heard);
        let most = match unread {
            true => idle * FRAME_TIMEOUTS,
            false => idle,
        };
        if silent >= most {
            return Err(Close::downstream(Cause::Deadline("idle")));
        }
        let half = idle / 2;
        let told = hall.endpoint(entered.seat).dialect;
        let pings = told == Some(Dialect::Document);
        if pings && silent >= half && !entered.pinged {
            entered.pinged = true;
            hall.say(entered.seat, Command::Ping, cx);
        }
        let next = match silent {
            silent if silent < half => half - silent,
            silent if silent < idle => idle - silent,
            _ => half,
        };
        cx.arm(LIFE, next);
        Ok(())
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        // Where only its own listener is gone, the others go on.
        self.hall.borrow_mut().stopping |= cx.is_ending();
        let busy = match &self.state {
            State::Entered(entered) => !self.hall.borrow().is_idle(entered.seat),
            _ => false,
        };
        if !busy {
            return Err(Close::own(Cause::Stopping));
        }
        cx.arm(STOP, STOP_CHECK);
        Ok(())
    }

    /// Says to the hall what another session says to this one.
    fn hear(
        &mut self,
        mail: Mail,
        cx: &mut Cx<'_>,
        say: impl FnOnce(&mut Hall, usize, Word, &mut Cx<'_>),
    ) {
        if let State::Entered(entered) = &self.state
            && let Some(word) = mail.open::<Word>()
        {
            say(&mut self.hall.borrow_mut(), entered.seat, word, cx);
        }
    }
}

impl Entered {
    /// How long it may be silent, if there is a limit.
    fn idle(&self, hall: &Hall) -> Option<Duration> {
        let idle = match hall.endpoint(self.seat).kind {
            Kind::Client => hall.rules.client_idle_timeout,
            Kind::Server => hall.rules.server_idle_timeout,
        };
        (!idle.is_zero()).then_some(idle)
    }
}

impl Session for GatewaySession {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (&self.state, event) {
            (State::Fresh(kind), Event::Accepted { conn, .. }) => self.begin(*kind, conn, cx),
            (State::Asked(conn, challenge), Event::Data { rx, last, .. }) => {
                self.prove((*conn, *challenge), rx, last, cx)
            }
            (State::Entered(_), Event::Data { rx, last, .. }) => self.read(rx, last, cx),
            (_, Event::Eof { .. }) => Err(Close::finished()),
            (_, Event::Lost { why, .. }) => Err(Close::downstream(Cause::Io("connection", why))),
            (State::Entered(entered), Event::Drained { conn }) => {
                self.hall.borrow_mut().drained(entered.seat, cx);
                cx.resume(conn);
                Ok(())
            }
            (_, Event::Crowding { .. }) => Err(Close::own(Cause::Overload("memory for reading"))),
            (_, Event::Stalled { .. }) => Err(Close::downstream(Cause::Deadline("slow receiver"))),
            (_, Event::Timer { tag: STOP } | Event::Stopping) => self.stop(cx),
            (_, Event::Timer { .. }) => self.check_life(cx),
            (_, Event::Mail { from, mail }) => {
                self.hear(mail, cx, |hall, seat, word, cx| {
                    hall.hear(seat, from, word, cx)
                });
                Ok(())
            }
            (_, Event::Returned { to, mail }) => {
                self.hear(mail, cx, |hall, seat, word, cx| {
                    hall.returned(seat, to, word, cx)
                });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn describe(&self, out: &mut String) {
        let State::Entered(entered) = &self.state else {
            return;
        };
        let hall = self.hall.borrow();
        let endpoint = hall.endpoint(entered.seat);
        let kind = match endpoint.kind {
            Kind::Client => "client",
            Kind::Server => "server",
        };
        // Writing to a string cannot fail.
        let _ = write!(out, " {kind}={}", endpoint.id);
        if let Some(dialect) = endpoint.dialect {
            let _ = write!(out, " dialect={}", super::config::name(dialect));
        }
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        if let State::Entered(entered) = &self.state {
            self.hall.borrow_mut().leave(entered.seat, cx);
        }
    }
}

/// The handshake's deadline, then the idle timeout.
const LIFE: u8 = 0;

/// Looks whether a stopping server's endpoint has connections left.
const STOP: u8 = 1;

const STOP_CHECK: Duration = Duration::from_millis(50);

/// A frame that comes slowly counts as life for so many idle timeouts.
const FRAME_TIMEOUTS: u32 = 3;
