//! One visitor of a service for TCP in mode *mux* on the client's side: its connection to the inside
//! service, and when it carries much a data connection to the server.
//!
//! ```text
//!   ToService ──> Framed ── both ends, reset, lines lost ──> Close
//!                   └─ Move ──> dialling ──> attached ── CONFIRM ──> relay ──> Close
//!                      └──────────────┴─ anything else ──> Stay: frames as before
//! ```
//!
//! The frames of its own direction go on until the server has confirmed the data connection.

use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;

use super::super::mux::{CONFIRM, News, Shared};
use super::super::wire::{Attach, Mark, Ticket, Uuid};
use super::{Route, Rules, Word};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::reactor::Handle;
use crate::session::{Cause, Close, Cx, Event, Mail, Session};
use crate::upstream::{Dialling, Failure, Progress};
use crate::wire::proxy::{Ends, encode};

/// A visitor.
pub(super) struct Guest {
    pub(super) rules: Rc<Rules>,
    pub(super) link: Handle,
    pub(super) mux: Shared,
    pub(super) route: Route,
    pub(super) uuid: Uuid,
    pub(super) visitor: SocketAddr,
    pub(super) state: State,
}

/// How far a visitor has come.
pub(super) enum State {
    Fresh,
    /// Perhaps it is to be moved as soon as the service is there.
    ToService(Dialling, Option<Ticket>),
    Framed(ConnKey, Move),
    Served,
}

/// How far a move has come.
pub(super) enum Move {
    None,
    Dialling(Dialling, Ticket),
    Attached(ConnKey),
}

impl Guest {
    fn dial(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let targets = &self.rules.locals[self.route.at];
        let (dialling, progress) = Dialling::start(targets, cx);
        self.state = State::ToService(dialling, None);
        self.advance(progress, cx)
    }

    fn advance(&mut self, progress: Progress, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (progress, &mut self.state) {
            (Progress::Connected(conn), State::ToService(_, ticket)) => {
                let ticket = *ticket;
                self.reached(conn, ticket, cx);
            }
            (Progress::Failed(why), State::ToService(..)) => return self.unreached(why, cx),
            (Progress::Connected(data), State::Framed(_, step)) => {
                if let Move::Dialling(_, ticket) = step {
                    let (ticket, uuid) = (*ticket, self.uuid);
                    cx.send(data, &Attach { ticket, uuid }.encode());
                    *step = Move::Attached(data);
                }
            }
            (Progress::Failed(_), State::Framed(..)) => self.stay(cx),
            _ => {}
        }
        Ok(())
    }

    /// The service is there.
    fn reached(&mut self, conn: ConnKey, ticket: Option<Ticket>, cx: &mut Cx<'_>) {
        let service = &self.rules.services[self.route.at];
        if let Some(version) = service.proxy_protocol {
            let (from, to) = (self.visitor, self.route.public);
            cx.send(conn, &encode(version, false, Some(Ends { from, to })));
        }
        self.state = State::Framed(conn, Move::None);
        self.mux.borrow_mut().connect(self.uuid, conn, None, cx);
        if let Some(ticket) = ticket {
            self.start_move(ticket, cx);
        }
    }

    fn unreached(&mut self, why: Failure, cx: &mut Cx<'_>) -> Result<(), Close> {
        let word = Word::Unserved {
            uuid: Uuid::NONE,
            at: self.route.at,
            why: why.words(),
        };
        cx.post(self.link, Mail::new(word));
        Err(Close::upstream(why.into()))
    }

    /// The server's last frame has come, if there is a data connection for the rest.
    fn start_move(&mut self, ticket: Ticket, cx: &mut Cx<'_>) {
        if let State::Framed(_, step @ Move::None) = &mut self.state {
            let (dialling, progress) = Dialling::start(&self.rules.server, cx);
            *step = Move::Dialling(dialling, ticket);
            cx.arm(PATIENCE, self.rules.handshake_timeout);
            // It never fails for the service's sake.
            let _ = self.advance(progress, cx);
        }
    }

    /// There is no data connection: frames as before.
    fn stay(&mut self, cx: &mut Cx<'_>) {
        let State::Framed(_, step) = &mut self.state else {
            return;
        };
        match std::mem::replace(step, Move::None) {
            // The server waits for no answer.
            Move::None => return,
            Move::Dialling(..) => {}
            Move::Attached(data) => cx.close(data),
        }
        cx.disarm(PATIENCE);
        self.mux.borrow_mut().stay(self.uuid, cx);
    }

    /// The server's confirmation; what is behind it is the visitor's.
    fn confirmed(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) {
        let State::Framed(local, Move::Attached(data)) = self.state else {
            return;
        };
        let mut byte = [0];
        if rx.copy_to(0, &mut byte) == 0 {
            return;
        }
        if byte != [CONFIRM] {
            return self.stay(cx);
        }
        rx.consume(1);
        self.mux.borrow_mut().move_guest(self.uuid, None, cx);
        self.forget(cx);
        self.state = State::Served;
        cx.disarm(PATIENCE);
        cx.relay(data, local);
    }

    fn forget(&mut self, cx: &mut Cx<'_>) {
        let [from, to] = self.mux.borrow_mut().forget(self.uuid, cx);
        // The visitor's side comes first, as in the relay.
        cx.passed_on([to, from]);
    }

    /// Its end without an end of the stream, for both sides.
    fn break_off(&mut self, close: Close, cx: &mut Cx<'_>) -> Result<(), Close> {
        if let State::Framed(local, step) = &self.state {
            cx.reset(*local);
            if let Move::Attached(data) = step {
                cx.reset(*data);
            }
        }
        Err(close)
    }

    fn hear(&mut self, news: News, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (news, &mut self.state) {
            // Closing, which comes next, says it as well.
            (News::Ended(true), State::Framed(..)) => return Err(Close::finished()),
            (News::Ended(false), State::Framed(local, _)) => cx.finish(*local),
            (News::Reset, State::Served) | (News::Gone, State::Served) => {}
            (News::Reset, _) => {
                let close =
                    Close::downstream(Cause::Io("visitor", std::io::ErrorKind::ConnectionReset));
                return self.break_off(close, cx);
            }
            (News::Gone, _) => {
                let close =
                    Close::upstream(Cause::Io("frames", std::io::ErrorKind::ConnectionAborted));
                return self.break_off(close, cx);
            }
            (News::Move(ticket), State::ToService(_, later)) => *later = Some(ticket),
            (News::Move(ticket), State::Framed(..)) => self.start_move(ticket, cx),
            _ => {}
        }
        Ok(())
    }

    fn react(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Opened => return self.dial(cx),
            Event::Data { conn, rx, .. } => match &self.state {
                State::Framed(local, _) if *local == conn => {
                    self.mux.borrow_mut().read_guest(self.uuid, conn, rx, cx);
                }
                State::Framed(_, Move::Attached(data)) if *data == conn => self.confirmed(rx, cx),
                _ => cx.pause(conn),
            },
            Event::Eof { conn } => match &self.state {
                State::Framed(local, _) if *local == conn => {
                    let is_over = self.mux.borrow_mut().end_guest(self.uuid, cx);
                    return if is_over {
                        Err(Close::finished())
                    } else {
                        Ok(())
                    };
                }
                State::Framed(..) => self.stay(cx),
                _ => {}
            },
            Event::Lost { conn, why } => match &self.state {
                State::Framed(local, _) if *local != conn => self.stay(cx),
                _ => {
                    let close = Close::upstream(Cause::Io("connection", why));
                    return self.break_off(close, cx);
                }
            },
            Event::Drained { .. } => self.mux.borrow_mut().grant(self.uuid, cx),
            Event::Timer { .. } => self.stay(cx),
            Event::Mail { mail, .. } => {
                if let Some(news) = mail.open() {
                    return self.hear(news, cx);
                }
            }
            Event::Relayed(relayed) => return Err(relayed.into()),
            ref other => {
                let progress = match &mut self.state {
                    State::ToService(dialling, _)
                    | State::Framed(_, Move::Dialling(dialling, _)) => dialling.handle(other, cx),
                    _ => {
                        // One that was given up has come about all the same.
                        if let Event::Connected { conn, .. } = other {
                            cx.close(*conn);
                        }
                        return Ok(());
                    }
                };
                return self.advance(progress, cx);
            }
        }
        Ok(())
    }
}

impl Session for Guest {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        let outcome = self.react(event, cx);
        if let Err(close) = &outcome
            && !matches!(self.state, State::Served)
        {
            let known = self.mux.borrow().is_known(self.uuid);
            if close.cause != Cause::Finished && known {
                self.mux.borrow().say(self.uuid, Mark::Reset, cx);
            }
            self.forget(cx);
        }
        outcome
    }

    fn describe(&self, out: &mut String) {
        let service = &self.rules.services[self.route.at];
        let (name, visitor, local) = (&service.name, self.visitor, &service.local);
        // Writing to a string cannot fail.
        let _ = write!(out, " service={name} visitor={visitor} local={local}");
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        let mut mux = self.mux.borrow_mut();
        // One that was ended from outside.
        if mux.is_known(self.uuid) {
            mux.say(self.uuid, Mark::Reset, cx);
        }
        mux.forget(self.uuid, cx);
    }
}

/// The data connection takes too long.
const PATIENCE: u8 = 0;
