//! A service for TCP in mode *mux* on the client's side: the two connections to the server.
//!
//! Each visitor has a session of its own ([`Guest`]), which dials the inside service.

use std::fmt::Write;
use std::rc::Rc;

use super::super::frames::drop_half;
use super::super::mux::{End, Mux, Shared};
use super::super::wire::{Mark, Uuid, Visitor};
use super::guest::{Guest, State};
use super::joining::{Joined, Joining};
use super::{Route, Rules, Word, tell_failure};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::reactor::Handle;
use crate::session::{Cause, Close, Cx, Event, Session};

/// The session of such a service.
pub(super) struct Trunk {
    rules: Rc<Rules>,
    link: Handle,
    route: Route,
    place: (Uuid, u16),
    joining: Option<Joining>,
    mux: Shared,
    visits: u64,
    is_closing: bool,
}

impl Trunk {
    pub(super) fn new(rules: &Rc<Rules>, link: Handle, route: Route, place: (Uuid, u16)) -> Self {
        Self {
            rules: Rc::clone(rules),
            link,
            route,
            place,
            joining: None,
            mux: Mux::new(End::Client),
            visits: 0,
            is_closing: false,
        }
    }

    fn join(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let (joining, dialled) = Joining::start(&self.rules, self.place, cx);
        self.joining = Some(joining);
        dialled
    }

    fn read_joining(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        if let Some(joining) = &mut self.joining
            && let Joined::Both(sending, receiving) = joining.read(rx, cx)?
        {
            self.joining = None;
            cx.disarm(PATIENCE);
            let mut mux = self.mux.borrow_mut();
            (mux.outgoing, mux.incoming) = (Some(sending), Some(receiving));
            cx.resume(receiving);
            cx.resume(sending);
        }
        Ok(())
    }

    fn read_frames(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        loop {
            let mut opened = Vec::new();
            self.mux.borrow_mut().read_frames(rx, &mut opened, cx)?;
            if opened.is_empty() {
                return self.end_if_over();
            }
            for (uuid, visitor) in opened {
                self.open(uuid, visitor, cx);
            }
        }
    }

    fn open(&mut self, uuid: Uuid, visitor: Visitor, cx: &mut Cx<'_>) {
        if self.mux.borrow().has(uuid) {
            return;
        }
        self.visits += 1;
        let guest = Guest {
            rules: Rc::clone(&self.rules),
            link: self.link,
            mux: Shared::clone(&self.mux),
            route: self.route,
            uuid,
            visitor: visitor.address,
            state: State::Fresh,
        };
        match cx.spawn(Box::new(guest)) {
            Some(who) => self.mux.borrow_mut().enter(uuid, who, cx.now),
            None => self.mux.borrow().say(uuid, Mark::Reset, cx),
        }
    }

    fn close(&mut self, cx: &Cx<'_>) -> Result<(), Close> {
        self.is_closing = true;
        self.mux.borrow_mut().closing = Some(cx.handle);
        self.end_if_over()
    }

    fn is_joining(&self, conn: ConnKey) -> bool {
        let joining = self.joining.as_ref();
        joining.is_some_and(|joining| joining.is_own(conn))
    }

    fn is_line(&self, conn: ConnKey) -> bool {
        self.mux.borrow().is_line(conn)
    }

    fn end_if_over(&self) -> Result<(), Close> {
        match self.is_closing && self.mux.borrow().is_empty() {
            true => Err(Close::finished()),
            false => Ok(()),
        }
    }

    /// One of the two connections has ended: both are made anew, unless nobody is to come any more.
    fn lose(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.mux.borrow_mut().disband(cx);
        self.joining = None;
        self.end_if_over()?;
        cx.arm(PATIENCE, PAUSE);
        Ok(())
    }

    fn expire(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        match self.joining {
            Some(_) => Err(Close::upstream(Cause::Deadline("handshake"))),
            None => self.join(cx),
        }
    }
}

impl Session for Trunk {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        let outcome = self.react(event, cx);
        let Err(close) = outcome else { return Ok(()) };
        // Two connections that did not come about are tried anew, as long as the server knows what
        // they are for.
        let is_final = matches!(
            close.cause,
            Cause::Denied(_) | Cause::Stopping | Cause::Finished
        );
        let joining = self.joining.take();
        if joining.is_some() {
            tell_failure(self.link, Some(self.route.at), &close, cx);
        }
        match joining.filter(|_| !is_final) {
            None => Err(close),
            Some(joining) => {
                joining.abandon(cx);
                cx.arm(PATIENCE, PAUSE);
                Ok(())
            }
        }
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.mux.borrow_mut().disband(cx);
    }

    fn describe(&self, out: &mut String) {
        let name = &self.rules.services[self.route.at].name;
        let mux = self.mux.borrow();
        let ([up, down], visits, open) = (mux.moved, self.visits, mux.len());
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            " service={name} mux visits={visits} open={open} up={up} down={down}"
        );
    }
}

impl Trunk {
    fn react(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Opened => return self.join(cx),
            Event::Data { conn, rx, last } => {
                let (incoming, outgoing) = {
                    let mux = self.mux.borrow();
                    (mux.incoming == Some(conn), mux.outgoing == Some(conn))
                };
                if incoming {
                    let read = self.read_frames(rx, cx);
                    drop_half(rx, last);
                    return read;
                }
                if outgoing {
                    self.mux.borrow_mut().read_grants(rx, cx)?;
                    drop_half(rx, last);
                } else {
                    self.read_joining(rx, cx)?;
                    // One that has been joined may hold frames.
                    drop_half(rx, last && self.joining.is_some());
                }
            }
            Event::Eof { conn } | Event::Lost { conn, .. } if self.is_line(conn) => {
                return self.lose(cx);
            }
            Event::Eof { conn } | Event::Lost { conn, .. } if self.is_joining(conn) => {
                return Err(Close::upstream(Cause::Truncated));
            }
            Event::Timer { .. } => return self.expire(cx),
            Event::Mail { mail, .. } => match mail.open() {
                Some(Word::End) => return self.close(cx),
                // The last visitor has left.
                _ => return self.end_if_over(),
            },
            Event::Stopping => return self.close(cx),
            ref other => {
                if let Some(joining) = &mut self.joining {
                    return joining.handle(other, cx);
                }
            }
        }
        Ok(())
    }
}

/// The handshakes take too long; later, the connections are to be made anew.
pub(super) const PATIENCE: u8 = 0;

const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
