//! A service for TCP in mode *mux* on the client's side: two connections to the server, and one to the
//! inside service for each visitor.
//!
//! Each of those is dialled by a small session of its own ([`Reach`]), so that many can be on their
//! way, and handed over when it is there.

use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;

use super::super::frames::drop_half;
use super::super::mux::Mux;
use super::super::wire::{Uuid, Visitor};
use super::header::header;
use super::joining::{Joined, Joining};
use super::{Route, Rules, Word};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::reactor::Handle;
use crate::session::{Cause, Close, Cx, Event, Mail, Session};
use crate::upstream::{Dialling, Progress};

/// The session of such a service.
pub(super) struct Trunk {
    rules: Rc<Rules>,
    link: Handle,
    route: Route,
    place: (Uuid, u16),
    joining: Option<Joining>,
    mux: Mux<()>,
    visits: u64,
    is_closing: bool,
}

/// To the trunk, from the session that dials the inside service.
enum Reached {
    /// With the connection.
    Yes(Uuid),
    No(Uuid, &'static str),
}

impl Trunk {
    pub(super) fn new(rules: &Rc<Rules>, link: Handle, route: Route, place: (Uuid, u16)) -> Self {
        Self {
            rules: Rc::clone(rules),
            link,
            route,
            place,
            joining: None,
            mux: Mux::new(),
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
            (self.mux.outgoing, self.mux.incoming) = (Some(sending), Some(receiving));
            cx.resume(receiving);
            cx.resume(sending);
        }
        Ok(())
    }

    fn read_frames(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        loop {
            let mut opened = Vec::new();
            self.mux.read_frames(rx, Some(&mut opened), cx)?;
            if opened.is_empty() {
                return self.end_if_over();
            }
            for (uuid, visitor) in opened {
                self.open(uuid, visitor, cx);
            }
        }
    }

    fn open(&mut self, uuid: Uuid, visitor: Visitor, cx: &mut Cx<'_>) {
        if self.mux.has(uuid) {
            return;
        }
        self.visits += 1;
        self.mux.enter(uuid, None, ());
        let reach = Reach {
            rules: Rc::clone(&self.rules),
            trunk: cx.handle,
            route: self.route,
            uuid,
            visitor: visitor.address,
            dialling: None,
        };
        if cx.spawn(Box::new(reach)).is_none() {
            self.mux.refuse(uuid, cx);
        }
    }

    fn unreached(&mut self, uuid: Uuid, why: &'static str, cx: &mut Cx<'_>) {
        self.mux.refuse(uuid, cx);
        let (uuid, at) = (Uuid::NONE, self.route.at);
        let word = Word::Unserved { uuid, at, why };
        cx.post(self.link, Mail::new(word));
    }

    fn is_joining(&self, conn: ConnKey) -> bool {
        let joining = self.joining.as_ref();
        joining.is_some_and(|joining| joining.is_own(conn))
    }

    fn is_line(&self, conn: ConnKey) -> bool {
        [self.mux.outgoing, self.mux.incoming].contains(&Some(conn))
    }

    fn end_if_over(&self) -> Result<(), Close> {
        match self.is_closing && self.mux.is_empty() {
            true => Err(Close::finished()),
            false => Ok(()),
        }
    }

    /// One of the two connections has ended: both are made anew, unless nobody is to come any more.
    fn lose(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.mux.disband(cx);
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
        match self.joining.take().filter(|_| !is_final) {
            None => Err(close),
            Some(joining) => {
                joining.abandon(cx);
                cx.arm(PATIENCE, PAUSE);
                Ok(())
            }
        }
    }

    fn describe(&self, out: &mut String) {
        let name = &self.rules.services[self.route.at].name;
        let ([up, down], visits) = (self.mux.moved, self.visits);
        let open = self.mux.len();
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
            Event::Data { conn, rx, last } if self.mux.incoming == Some(conn) => {
                let read = self.read_frames(rx, cx);
                drop_half(rx, last);
                return read;
            }
            Event::Data { conn, rx, last } if self.mux.outgoing == Some(conn) => {
                self.mux.read_grants(rx, cx)?;
                drop_half(rx, last);
            }
            Event::Data { conn, rx, last } => {
                if !self.mux.read_guest(conn, rx, cx) {
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
            Event::Eof { conn } => {
                self.mux.end_guest(conn, cx);
                return self.end_if_over();
            }
            Event::Lost { conn, .. } => {
                self.mux.lose_guest(conn, cx);
                return self.end_if_over();
            }
            Event::Drained { conn } => self.mux.drained(conn, cx),
            Event::Handed { conn, mail, .. } => match mail.open() {
                Some(Reached::Yes(uuid)) if self.mux.connect(uuid, conn, cx) => {}
                _ => cx.close(conn),
            },
            Event::Timer { .. } => return self.expire(cx),
            Event::Mail { mail, .. } => {
                if let Some(Reached::No(uuid, why)) = mail.open() {
                    self.unreached(uuid, why, cx);
                } else {
                    self.is_closing = true;
                }
                return self.end_if_over();
            }
            Event::Stopping => {
                self.is_closing = true;
                return self.end_if_over();
            }
            ref other => {
                if let Some(joining) = &mut self.joining {
                    return joining.handle(other, cx);
                }
            }
        }
        Ok(())
    }
}

/// Dials the inside service for one visitor, and hands the connection over.
struct Reach {
    rules: Rc<Rules>,
    trunk: Handle,
    route: Route,
    uuid: Uuid,
    visitor: SocketAddr,
    dialling: Option<Dialling>,
}

impl Reach {
    fn advance(&mut self, progress: Progress, cx: &mut Cx<'_>) -> Result<(), Close> {
        match progress {
            Progress::Waiting => Ok(()),
            Progress::Connected(conn) => {
                let service = &self.rules.services[self.route.at];
                if let Some(version) = service.proxy_protocol {
                    let public = self.route.public;
                    cx.send(conn, &header(version, false, self.visitor, public));
                }
                cx.hand(conn, self.trunk, Mail::new(Reached::Yes(self.uuid)));
                Err(Close::finished())
            }
            Progress::Failed(why) => {
                let word = Reached::No(self.uuid, why.words());
                cx.post(self.trunk, Mail::new(word));
                Err(Close::upstream(why.into()))
            }
        }
    }
}

impl Session for Reach {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        if let Event::Opened = event {
            let targets = &self.rules.locals[self.route.at];
            let (dialling, progress) = Dialling::start(targets, cx);
            self.dialling = Some(dialling);
            return self.advance(progress, cx);
        }
        match &mut self.dialling {
            Some(dialling) => {
                let progress = dialling.handle(&event, cx);
                self.advance(progress, cx)
            }
            None => Ok(()),
        }
    }

    fn describe(&self, out: &mut String) {
        let name = &self.rules.services[self.route.at].name;
        // Writing to a string cannot fail.
        let _ = write!(out, " service={name} visitor={}", self.visitor);
    }
}

/// The handshakes take too long; later, the connections are to be made anew.
pub(super) const PATIENCE: u8 = 0;

const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
