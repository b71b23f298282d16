//! One visitor of a service for TCP in mode *direct*, from its connect to its last byte.
//!
//! ```text
//!   Arrival ──> Waiting ── Data: a connection of the client ──> relay ── Relayed ──> Close
//!                  └─ visitor_timeout, refused, client gone, visitor gone ──> Close
//! ```
//!
//! While it waits, what the visitor sends stays in its socket, but for one read.

use std::cell::RefCell;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::super::wire::{Reason, Uuid};
use super::desk::Desk;
use super::words::{Share, Word};
use crate::net::ConnKey;
use crate::session::{Cause, Close, Cx, Event, Mail, Session};

/// A visitor.
pub(super) struct Visitor {
    desk: Rc<RefCell<Desk>>,
    share: Arc<Share>,
    peer: SocketAddr,
    state: State,
}

enum State {
    Fresh,
    Waiting(ConnKey, Uuid),
    Served,
}

impl Visitor {
    /// A visitor, if there is room for one more; it gives its place back when it is dropped.
    pub(super) fn admit(
        desk: &Rc<RefCell<Desk>>,
        share: &Arc<Share>,
        peer: SocketAddr,
    ) -> Option<Self> {
        let mut here = desk.borrow_mut();
        if here.waiting >= here.lobby.rules().max_waiting || !share.enter() {
            return None;
        }
        if !here.lobby.enter() {
            share.leave();
            return None;
        }
        here.waiting += 1;
        drop(here);
        Some(Self {
            desk: Rc::clone(desk),
            share: Arc::clone(share),
            peer,
            state: State::Fresh,
        })
    }

    fn begin(&mut self, conn: ConnKey, cx: &mut Cx<'_>) -> Result<(), Close> {
        let (uuid, timeout) = {
            let desk = self.desk.borrow();
            (
                desk.lobby.uuid(desk.core),
                desk.lobby.rules().visitor_timeout,
            )
        };
        let Some(uuid) = uuid else {
            return Err(Close::own(Cause::Overload("no random bytes")));
        };
        self.state = State::Waiting(conn, uuid);
        cx.arm(PATIENCE, timeout);
        let want = Word::Want {
            uuid,
            number: self.share.number,
            visitor: self.peer,
        };
        cx.post(self.share.control, Mail::new(want));
        Ok(())
    }

    /// The client's connection is there.
    fn serve(&mut self, data: ConnKey, cx: &mut Cx<'_>) {
        let State::Waiting(conn, uuid) = self.state else {
            return cx.close(data);
        };
        self.end_wait();
        cx.disarm(PATIENCE);
        self.enough(uuid, None, cx);
        if let Some(throttle) = &self.share.throttle {
            cx.pace(conn, data, vec![Arc::clone(throttle)]);
        }
        cx.relay(conn, data);
    }

    fn enough(&self, uuid: Uuid, reason: Option<Reason>, cx: &mut Cx<'_>) {
        let word = Word::Enough { uuid, reason };
        cx.post(self.share.control, Mail::new(word));
    }

    /// Nobody is waited for any more.
    fn end_wait(&mut self) {
        if !matches!(self.state, State::Served) {
            self.state = State::Served;
            self.desk.borrow_mut().waiting -= 1;
        }
    }

    /// It ends without having been served, for the reason that the client is told.
    fn give_up(&mut self, reason: Reason, close: Close, cx: &mut Cx<'_>) -> Result<(), Close> {
        if let State::Waiting(_, uuid) = self.state {
            self.enough(uuid, Some(reason), cx);
        }
        Err(close)
    }
}

impl Session for Visitor {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Handed { conn, mail, .. } => match mail.open() {
                Some(Word::Arrival) => return self.begin(conn, cx),
                _ => self.serve(conn, cx),
            },
            Event::Data { conn, .. } => cx.pause(conn),
            Event::Timer { .. } => {
                let close = unreachable("backend_timeout");
                return self.give_up(Reason::Timeout, close, cx);
            }
            Event::Lost { conn, why } => {
                let close = match self.state {
                    State::Waiting(own, _) if own != conn => {
                        Close::upstream(Cause::Io("data connection", why))
                    }
                    _ => Close::downstream(Cause::Io("visitor", why)),
                };
                return self.give_up(Reason::VisitorLeft, close, cx);
            }
            Event::Mail { mail, .. } => {
                if let (Some(Word::Refused { reason, .. }), State::Waiting(..)) =
                    (mail.open(), &self.state)
                {
                    return Err(unreachable(match reason {
                        Reason::Unreachable => "backend_refused",
                        other => other.word(),
                    }));
                }
            }
            // A visitor that was served does not mind that its control connection has gone.
            Event::Returned { .. } if matches!(self.state, State::Waiting(..)) => {
                return Err(unreachable("the client has left"));
            }
            Event::Relayed(relayed) => return Err(relayed.into()),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        let (name, peer, client) = (&self.share.name, self.peer, self.share.client);
        // Writing to a string cannot fail.
        let _ = write!(out, " service={name} visitor={peer} client={client}");
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.end_wait();
        self.share.leave();
        self.desk.borrow().lobby.leave();
    }
}

fn unreachable(why: &'static str) -> Close {
    Close::upstream(Cause::Unreachable(why))
}

const PATIENCE: u8 = 0;
