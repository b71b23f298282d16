//! One visitor of a service for TCP in mode *mux*, from its connect to its last byte.
//!
//! ```text
//!   Arrival ──> Framed ── both ends, reset, idle, lines lost ──> Close
//!                  ^  └─ much to carry ──> Moving ── data connection, Moved ──> relay ──> Close
//!                  └──────────── Stay ────────┘└─ anything else ──> reset
//! ```
//!
//! It lives on the core of its service's trunk, which announces it and puts into its queue what comes.

use std::fmt::Write;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use super::super::mux::{CONFIRM, News, Shared};
use super::super::tickets::{Purpose, Wanted};
use super::super::wire::{Mark, Ticket, Uuid};
use super::lobby::Lobby;
use super::words::{Share, Word};
use crate::net::{ConnKey, Pace};
use crate::session::{Cause, Close, Cx, Event, Session};

/// A visitor.
pub(super) struct Guest {
    lobby: Arc<Lobby>,
    share: Arc<Share>,
    mux: Shared,
    uuid: Uuid,
    peer: SocketAddr,
    state: State,
    /// The end of the client's stream, true where both have come, while bytes before it wait for their
    /// time.
    owed: Option<bool>,
    /// Its record knows the client's connection.
    recorded: bool,
}

enum State {
    Fresh,
    Framed(ConnKey),
    Moving(Moving),
    Served,
}

/// A move that is not done.
struct Moving {
    conn: ConnKey,
    /// Confirmed, once it is there.
    data: Option<ConnKey>,
    ticket: Ticket,
    /// The visitor's end was told meanwhile.
    ended: bool,
    /// The client's last frame has come, and what came before it waits for its time.
    told: bool,
}

impl Guest {
    /// A visitor whose place among all has been taken; it is given back when this is dropped.
    pub(super) fn new(
        lobby: &Arc<Lobby>,
        share: &Arc<Share>,
        mux: &Shared,
        uuid: Uuid,
        peer: SocketAddr,
    ) -> Self {
        Self {
            lobby: Arc::clone(lobby),
            share: Arc::clone(share),
            mux: Shared::clone(mux),
            uuid,
            peer,
            state: State::Fresh,
            owed: None,
            recorded: false,
        }
    }

    /// What it sends is limited where it is read. What it gets comes with everybody's: the service's
    /// limit is on the frames' connection, its source's on what leaves for it.
    fn begin(&mut self, conn: ConnKey, cx: &mut Cx<'_>) -> Result<(), Close> {
        let source = cx.source(conn);
        let throttles: Vec<_> = self.share.throttle.iter().chain(&source).cloned().collect();
        if !throttles.is_empty() {
            cx.pace_one(conn, 0, throttles);
        }
        let pace = source.map(|source| Pace::new(vec![source], 1, cx.now));
        let known = {
            let mut mux = self.mux.borrow_mut();
            mux.connect(self.uuid, conn, pace, cx);
            mux.is_known(self.uuid)
        };
        self.state = State::Framed(conn);
        let rules = self.lobby.rules();
        let first = if known {
            rules.idle_timeout
        } else {
            rules.visitor_timeout
        };
        cx.arm(PATIENCE, first);
        self.pour(cx)
    }

    /// Passes on what its source's limit allows, and behind the last byte what has waited for that.
    fn pour(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let due = self.mux.borrow_mut().pour(self.uuid, cx);
        if let Some(due) = due {
            cx.arm(POUR, due.saturating_duration_since(cx.now));
            return Ok(());
        }
        if let Some(over) = self.owed.take() {
            self.pass_end(over, cx)?;
        }
        match self.state {
            State::Moving(Moving { told: true, .. }) => self.moved(cx),
            _ => Ok(()),
        }
    }

    /// The client's stream has ended; true when the visitor's has, too.
    fn pass_end(&mut self, over: bool, cx: &mut Cx<'_>) -> Result<(), Close> {
        if self.mux.borrow().is_held(self.uuid) {
            // What was told first may be heard last: both have ended, whichever says so.
            self.owed = Some(over || self.owed == Some(true));
            return Ok(());
        }
        match &self.state {
            // Closing, which comes next, says it as well.
            State::Framed(_) | State::Moving(_) if over => return Err(Close::finished()),
            // The client had said this before it knew of a move.
            State::Framed(conn) | State::Moving(Moving { conn, .. }) => cx.finish(*conn),
            State::Fresh => self.owed = Some(over),
            State::Served => {}
        }
        Ok(())
    }

    /// It carries much: the rest goes by a connection of its own, if the client can do so and there is
    /// a ticket to be had.
    fn start_move(&mut self, cx: &mut Cx<'_>) {
        let State::Framed(conn) = self.state else {
            return;
        };
        // When the server ends, nobody listens for the data connection.
        if !self.share.may_move || cx.is_ending() {
            return;
        }
        let purpose = Purpose {
            to: cx.handle,
            client: self.share.client,
            wanted: Wanted::Visit {
                service: self.share.number,
                uuid: self.uuid,
            },
        };
        let Some(ticket) = self.lobby.ticket(purpose, cx.now) else {
            return;
        };
        self.mux
            .borrow_mut()
            .move_guest(self.uuid, Some(ticket), cx);
        cx.pause(conn);
        cx.arm(PATIENCE, self.lobby.rules().visitor_timeout);
        self.state = State::Moving(Moving {
            conn,
            data: None,
            ticket,
            ended: false,
            told: false,
        });
    }

    /// The client's last frame has come: the move is done.
    fn moved(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let State::Moving(Moving {
            conn, data, told, ..
        }) = &mut self.state
        else {
            return Ok(());
        };
        if self.mux.borrow().is_held(self.uuid) {
            *told = true;
            cx.disarm(PATIENCE);
            return Ok(());
        }
        let (conn, data) = (*conn, *data);
        let Some(data) = data else {
            // It broke behind the confirmation.
            let close = broken("data connection", ErrorKind::ConnectionReset);
            return self.break_off(close, cx);
        };
        self.state = State::Served;
        self.forget(cx);
        cx.disarm(PATIENCE);
        // From now on it is the pair that is limited, as in mode direct: what was on the visitor's
        // connection alone is replaced, and the frames' own limit knows these bytes no more.
        cx.pace(conn, data, self.share.throttle.iter().cloned().collect());
        cx.relay(conn, data);
        Ok(())
    }

    /// The client could not come: frames as before, and no second try.
    fn stay(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let State::Moving(Moving {
            conn,
            data,
            ticket,
            ended,
            ..
        }) = self.state
        else {
            return Ok(());
        };
        self.lobby.tickets.cancel(&ticket);
        data.into_iter().for_each(|data| cx.close(data));
        self.state = State::Framed(conn);
        cx.arm(PATIENCE, self.lobby.rules().idle_timeout);
        cx.resume(conn);
        match ended {
            true => self.end(cx),
            false => Ok(()),
        }
    }

    /// The visitor's end is told on.
    fn end(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let is_over = self.mux.borrow_mut().end_guest(self.uuid, cx);
        match is_over {
            true => self.pass_end(true, cx),
            false => Ok(()),
        }
    }

    fn forget(&mut self, cx: &mut Cx<'_>) {
        let passed = self.mux.borrow_mut().forget(self.uuid, cx);
        cx.passed_on(passed);
    }

    /// Its end without an end of the stream: nobody takes what it has heard for all there is.
    fn break_off(&mut self, close: Close, cx: &mut Cx<'_>) -> Result<(), Close> {
        match &self.state {
            State::Framed(conn) => cx.reset(*conn),
            State::Moving(moving) => {
                cx.reset(moving.conn);
                moving.data.into_iter().for_each(|data| cx.reset(data));
            }
            State::Fresh | State::Served => {}
        }
        Err(close)
    }

    fn hear(&mut self, news: News, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (news, &mut self.state) {
            (News::Ended(over), _) => return self.pass_end(over, cx),
            (News::Held, _) => return self.pour(cx),
            (News::Reset, State::Framed(_) | State::Moving(_)) => {
                return self.break_off(broken("service", ErrorKind::ConnectionReset), cx);
            }
            (News::Gone, State::Framed(_) | State::Moving(_)) => {
                return self.break_off(broken("frames", ErrorKind::ConnectionAborted), cx);
            }
            (News::Bulky, State::Framed(_)) => self.start_move(cx),
            (News::Moved, State::Moving(_)) => return self.moved(cx),
            (News::Stay, State::Moving(_)) => return self.stay(cx),
            _ => {}
        }
        Ok(())
    }

    /// A data connection is lost.
    fn lose_data(&mut self, conn: ConnKey) {
        if let State::Moving(moving) = &mut self.state {
            moving.data = moving.data.filter(|data| *data != conn);
        }
    }

    fn expire(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let State::Framed(_) = self.state else {
            return self.break_off(unreachable("backend_timeout"), cx);
        };
        let (known, silent) = {
            let mux = self.mux.borrow();
            let silent = mux.silence(self.uuid, cx.now);
            (mux.is_known(self.uuid), silent)
        };
        if !known {
            return Err(unreachable("backend_timeout"));
        }
        let most = self.lobby.rules().idle_timeout;
        if silent >= most {
            return Err(Close::own(Cause::Deadline("idle")));
        }
        cx.arm(PATIENCE, most - silent);
        Ok(())
    }

    fn react(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Handed { conn, mail, .. } => match (mail.open(), &mut self.state) {
                (Some(Word::Arrival), State::Fresh) => return self.begin(conn, cx),
                (_, State::Moving(moving)) if moving.data.is_none() => {
                    moving.data = Some(conn);
                    cx.send(conn, &[CONFIRM]);
                }
                _ => cx.close(conn),
            },
            Event::Data { conn, rx, .. } => match self.state {
                State::Framed(own) if own == conn => {
                    let bulky = self.mux.borrow_mut().read_guest(self.uuid, conn, rx, cx);
                    if bulky {
                        self.start_move(cx);
                    }
                }
                _ => cx.pause(conn),
            },
            Event::Eof { conn } => match &mut self.state {
                State::Framed(_) => return self.end(cx),
                State::Moving(moving) if moving.conn == conn => moving.ended = true,
                // The client's end may overtake its last frame; the relay will tell it on.
                State::Fresh | State::Moving(_) | State::Served => {}
            },
            Event::Lost { conn, why } => match &self.state {
                // The client says what comes of it.
                State::Moving(moving) if moving.conn != conn => self.lose_data(conn),
                _ => {
                    let close = Close::downstream(Cause::Io("visitor", why));
                    return self.break_off(close, cx);
                }
            },
            Event::Drained { .. } => self.mux.borrow_mut().grant(self.uuid, cx),
            Event::Timer { tag: POUR } => return self.pour(cx),
            Event::Timer { .. } => return self.expire(cx),
            Event::Mail { mail, .. } => {
                if let Some(news) = mail.open() {
                    return self.hear(news, cx);
                }
            }
            Event::Relayed(relayed) => return Err(relayed.into()),
            _ => {}
        }
        Ok(())
    }
}

impl Session for Guest {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        if !self.recorded
            && let Some(incoming) = self.mux.borrow().incoming
        {
            self.recorded = true;
            cx.served_by(incoming);
        }
        let outcome = self.react(event, cx);
        if let Err(close) = &outcome
            && !matches!(self.state, State::Served)
        {
            if close.cause != Cause::Finished && self.mux.borrow().is_known(self.uuid) {
                self.mux.borrow().say(self.uuid, Mark::Reset, cx);
            }
            self.forget(cx);
        }
        outcome
    }

    fn describe(&self, out: &mut String) {
        let (name, peer, client) = (&self.share.name, self.peer, self.share.client);
        // Writing to a string cannot fail.
        let _ = write!(out, " service={name} visitor={peer} client={client}");
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        if let State::Moving(moving) = &self.state {
            self.lobby.tickets.cancel(&moving.ticket);
        }
        let mut mux = self.mux.borrow_mut();
        // One that was ended from outside.
        if mux.is_known(self.uuid) {
            mux.say(self.uuid, Mark::Reset, cx);
        }
        mux.forget(self.uuid, cx);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.share.leave();
        self.lobby.leave();
    }
}

fn unreachable(why: &'static str) -> Close {
    Close::upstream(Cause::Unreachable(why))
}

fn broken(what: &'static str, why: ErrorKind) -> Close {
    Close::upstream(Cause::Io(what, why))
}

/// It waits for the client's connections, is silent, or moves for too long.
const PATIENCE: u8 = 0;

/// More may go to the visitor.
const POUR: u8 = 1;
