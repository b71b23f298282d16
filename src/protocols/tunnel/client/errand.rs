//! One visitor on the client's side: a connection to the inside service and one to the server, joined.
//!
//! ```text
//!   Visit:  dial the service ──> dial the server, show the ticket ──> relay
//!   Pool:   dial the server, show the ticket ──> wait for a visitor ──> dial the service ──> relay
//! ```
//!
//! The service is dialled first where there is a visitor already: where it is not there, the server is
//! told so on the control connection, and the visitor's connection ends at once.

use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;

use super::super::frames::drop_half;
use super::super::wire::{Attach, Ticket, Uuid, Visitor};
use super::{Route, Rules, Word, tell_failure};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::reactor::Handle;
use crate::session::{Cause, Close, Cx, Event, Mail, Session};
use crate::upstream::{Dialling, Failure, Progress};
use crate::wire::proxy::{Ends, encode};

/// A visitor's two connections, or a data connection that waits for one.
pub(super) struct Errand {
    rules: Rc<Rules>,
    link: Handle,
    ticket: Ticket,
    uuid: Uuid,
    /// None before the pool has a visitor.
    visitor: Option<(Route, SocketAddr)>,
    local: Option<ConnKey>,
    data: Option<ConnKey>,
    dialling: Option<Dialling>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    ToService,
    ToServer,
    Waiting,
    Relaying,
}

impl Errand {
    /// An errand for a visitor that waits at the server.
    pub(super) fn visit(
        rules: &Rc<Rules>,
        link: Handle,
        ticket: Ticket,
        uuid: Uuid,
        visitor: (Route, SocketAddr),
    ) -> Self {
        Self::new(rules, link, ticket, uuid, Some(visitor))
    }

    /// A data connection for the pool.
    pub(super) fn pooled(rules: &Rc<Rules>, link: Handle, ticket: Ticket) -> Self {
        Self::new(rules, link, ticket, Uuid::NONE, None)
    }

    fn new(
        rules: &Rc<Rules>,
        link: Handle,
        ticket: Ticket,
        uuid: Uuid,
        visitor: Option<(Route, SocketAddr)>,
    ) -> Self {
        Self {
            rules: Rc::clone(rules),
            link,
            ticket,
            uuid,
            visitor,
            local: None,
            data: None,
            dialling: None,
            stage: match visitor {
                Some(_) => Stage::ToService,
                None => Stage::ToServer,
            },
        }
    }

    fn dial(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let targets = match (self.stage, self.visitor) {
            (Stage::ToService, Some((route, _))) => &self.rules.locals[route.at],
            _ => &self.rules.server,
        };
        let (dialling, progress) = Dialling::start(targets, cx);
        self.dialling = Some(dialling);
        self.advance(progress, cx)
    }

    fn advance(&mut self, progress: Progress, cx: &mut Cx<'_>) -> Result<(), Close> {
        match progress {
            Progress::Waiting => Ok(()),
            Progress::Connected(conn) if self.stage == Stage::ToService => self.reached(conn, cx),
            Progress::Connected(conn) => self.attach(conn, cx),
            Progress::Failed(why) if self.stage == Stage::ToService => self.unreached(why, cx),
            Progress::Failed(why) => {
                let close = Close::upstream(why.into());
                self.tell_failure(&close, cx);
                Err(close)
            }
        }
    }

    fn tell_failure(&self, close: &Close, cx: &mut Cx<'_>) {
        let at = self.visitor.map(|(route, _)| route.at);
        tell_failure(self.link, at, close, cx);
    }

    /// The service is there.
    fn reached(&mut self, conn: ConnKey, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.local = Some(conn);
        if let Some((route, from)) = self.visitor {
            let service = &self.rules.services[route.at];
            if let Some(version) = service.proxy_protocol {
                let to = route.public;
                cx.send(conn, &encode(version, false, Some(Ends { from, to })));
            }
        }
        match self.data {
            Some(data) => {
                self.join(data, conn, cx);
                Ok(())
            }
            None => {
                self.stage = Stage::ToServer;
                self.dial(cx)
            }
        }
    }

    fn unreached(&mut self, why: Failure, cx: &mut Cx<'_>) -> Result<(), Close> {
        if let Some((route, _)) = self.visitor {
            let word = Word::Unserved {
                uuid: self.uuid,
                at: route.at,
                why: why.words(),
            };
            cx.post(self.link, Mail::new(word));
        }
        if let Some(data) = self.data {
            // The visitor is told by what it would have seen of the service itself.
            cx.reset(data);
        }
        Err(Close::upstream(why.into()))
    }

    /// The server is there.
    fn attach(&mut self, conn: ConnKey, cx: &mut Cx<'_>) -> Result<(), Close> {
        let (ticket, uuid) = (self.ticket, self.uuid);
        cx.send(conn, &Attach { ticket, uuid }.encode());
        self.data = Some(conn);
        match self.local {
            Some(local) => self.join(conn, local, cx),
            None => self.stage = Stage::Waiting,
        }
        Ok(())
    }

    fn join(&mut self, data: ConnKey, local: ConnKey, cx: &mut Cx<'_>) {
        self.stage = Stage::Relaying;
        self.dialling = None;
        cx.relay(data, local);
    }

    /// A connection of the pool is given its visitor.
    fn assigned(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        let mut bytes = [0; LONGEST_HEAD];
        let have = rx.copy_to(0, &mut bytes);
        let Some((uuid, visitor, len)) = Visitor::decode_assigned(&bytes[..have])? else {
            return Ok(());
        };
        rx.consume(len);
        let Some(route) = self.rules.route(visitor.service) else {
            if let Some(data) = self.data {
                cx.reset(data);
            }
            return Err(Close::upstream(Cause::Denied("a visitor of no service")));
        };
        self.uuid = uuid;
        self.visitor = Some((route, visitor.address));
        self.stage = Stage::ToService;
        self.dial(cx)
    }
}

impl Session for Errand {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Opened => return self.dial(cx),
            Event::Data { conn, rx, last } if self.stage == Stage::Waiting => {
                self.assigned(rx, cx)?;
                match self.stage {
                    Stage::Waiting => drop_half(rx, last),
                    _ => cx.pause(conn),
                }
            }
            // What comes early stays where it is until the two are joined.
            Event::Data { conn, .. } => cx.pause(conn),
            // The server has no use for it any more.
            Event::Eof { .. } if self.stage == Stage::Waiting => return Err(Close::finished()),
            Event::Lost { conn, why } => {
                let close = Close::upstream(Cause::Io("connection", why));
                if self.stage == Stage::Waiting {
                    self.tell_failure(&close, cx);
                }
                if self.stage == Stage::ToServer && Some(conn) == self.local {
                    let _ = self.unreached(Failure::from(why), cx);
                }
                return Err(close);
            }
            Event::Relayed(relayed) => return Err(relayed.into()),
            Event::Stopping if self.stage != Stage::Relaying => {
                return Err(Close::own(Cause::Stopping));
            }
            ref other => {
                if let Some(mut dialling) = self.dialling.take() {
                    let progress = dialling.handle(other, cx);
                    self.dialling = Some(dialling);
                    return self.advance(progress, cx);
                }
            }
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        if let Some((route, visitor)) = self.visitor {
            let service = &self.rules.services[route.at];
            let (name, local) = (&service.name, &service.local);
            // Writing to a string cannot fail.
            let _ = write!(out, " service={name} visitor={visitor} local={local}");
        }
    }
}

/// A session that ends with its first event.
pub(super) struct Nothing;

impl Session for Nothing {
    fn handle(&mut self, _event: Event<'_>, _cx: &mut Cx<'_>) -> Result<(), Close> {
        Err(Close::finished())
    }

    fn describe(&self, _out: &mut String) {}
}

/// Bytes of the head of a connection of the pool: uuid, service, the longest address.
const LONGEST_HEAD: usize = 16 + 2 + 19;
