//! A service for UDP on the client's side: frames from the server, and a socket of its own to the inside
//! service for each visitor.
//!
//! In mode *direct* it is begun by a Visit and ends with its data connection; in mode *mux* it is there
//! as long as the service, and makes its two connections anew. Bounds: [`MOST_FLOWS`] visitors.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::super::frames::drop_half;
use super::super::packets::Packets;
use super::super::wire::{Attach, Body, MAX_DATAGRAM, Ticket, Uuid};
use super::joining::{Joined, Joining};
use super::trunk::PATIENCE;
use super::{Route, Rules, Word, tell_failure};
use crate::buffer::Ring;
use crate::control::{Command, Reply};
use crate::net::{ConnKey, SocketKey, Train};
use crate::reactor::Handle;
use crate::relay::Flows;
use crate::session::{Cause, Close, Cx, Event, Mail, Session};
use crate::stats::Metric;
use crate::upstream::{Dialling, Progress};
use crate::wire::proxy::{Ends, encode};

/// The session of such a service.
pub(super) struct Datagrams {
    rules: Rc<Rules>,
    link: Handle,
    route: Route,
    way: Way,
    /// The inside service, once its name is resolved.
    local: Option<SocketAddr>,
    dialling: Option<Dialling>,
    joining: Option<Joining>,
    packets: Packets,
    flows: Flows<Uuid, Flow>,
    sockets: HashMap<SocketKey, Uuid>,
}

/// How its frames travel.
#[derive(Clone, Copy)]
enum Way {
    Direct(Ticket, Uuid),
    Mux((Uuid, u16)),
}

struct Flow {
    visitor: SocketAddr,
    /// Opened by the first datagram.
    socket: Option<SocketKey>,
}

impl Datagrams {
    /// One that a Visit asks for.
    pub(super) fn attached(
        rules: &Rc<Rules>,
        link: Handle,
        route: Route,
        ticket: Ticket,
        uuid: Uuid,
    ) -> Self {
        Self::new(rules, link, route, Way::Direct(ticket, uuid))
    }

    /// One of mode *mux*.
    pub(super) fn framed(
        rules: &Rc<Rules>,
        link: Handle,
        route: Route,
        place: (Uuid, u16),
    ) -> Self {
        Self::new(rules, link, route, Way::Mux(place))
    }

    fn new(rules: &Rc<Rules>, link: Handle, route: Route, way: Way) -> Self {
        Self {
            rules: Rc::clone(rules),
            link,
            route,
            way,
            local: None,
            dialling: None,
            joining: None,
            packets: Packets::default(),
            flows: Flows::new(MOST_FLOWS),
            sockets: HashMap::new(),
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        let host = self.rules.services[self.route.at].local.host.clone();
        cx.ask(RESOLVE, Command::Resolve { host });
        cx.arm(SWEEP, IDLE / SWEEPS);
    }

    fn resolved(&mut self, reply: &Reply, cx: &mut Cx<'_>) -> Result<(), Close> {
        let address = match reply {
            Reply::Resolved(Ok(addresses)) => addresses.first().copied(),
            _ => None,
        };
        let Some(ip) = address else {
            self.unserved("name not resolved", cx);
            return Err(Close::upstream(Cause::Unreachable("name not resolved")));
        };
        let port = self.rules.services[self.route.at].local.port;
        self.local = Some(SocketAddr::new(ip, port));
        self.join(cx)
    }

    fn unserved(&self, why: &'static str, cx: &mut Cx<'_>) {
        let uuid = match self.way {
            Way::Direct(_, uuid) if !self.packets.is_joined() => uuid,
            _ => Uuid::NONE,
        };
        let at = self.route.at;
        let word = Word::Unserved { uuid, at, why };
        cx.post(self.link, Mail::new(word));
    }

    fn join(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        match self.way {
            Way::Mux(place) => {
                let (joining, dialled) = Joining::start(&self.rules, place, cx);
                self.joining = Some(joining);
                dialled
            }
            Way::Direct(..) => {
                let (dialling, progress) = Dialling::start(&self.rules.server, cx);
                self.dialling = Some(dialling);
                self.advance(progress, cx)
            }
        }
    }

    fn advance(&mut self, progress: Progress, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (progress, self.way) {
            (Progress::Connected(conn), Way::Direct(ticket, uuid)) => {
                self.dialling = None;
                cx.send(conn, &Attach { ticket, uuid }.encode());
                self.joined(conn, conn, cx);
                Ok(())
            }
            (Progress::Failed(why), way) => {
                let close = Close::upstream(why.into());
                if let Way::Direct(..) = way {
                    tell_failure(self.link, Some(self.route.at), &close, cx);
                }
                Err(close)
            }
            _ => Ok(()),
        }
    }

    fn joined(&mut self, outgoing: ConnKey, incoming: ConnKey, cx: &mut Cx<'_>) {
        (self.packets.outgoing, self.packets.incoming) = (Some(outgoing), Some(incoming));
        self.packets.go_on(cx);
    }

    fn is_joining(&self, conn: ConnKey) -> bool {
        let joining = self.joining.as_ref();
        joining.is_some_and(|joining| joining.is_own(conn))
    }

    fn is_line(&self, conn: ConnKey) -> bool {
        [self.packets.outgoing, self.packets.incoming].contains(&Some(conn))
    }

    fn read_joining(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        if let Some(joining) = &mut self.joining
            && let Joined::Both(sending, receiving) = joining.read(rx, cx)?
        {
            self.joining = None;
            cx.disarm(PATIENCE);
            self.joined(sending, receiving, cx);
        }
        Ok(())
    }

    fn read(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        let Self {
            packets,
            flows,
            sockets,
            rules,
            route,
            local,
            ..
        } = self;
        packets.read(rx, |frame| {
            let found = flows.find(&frame.uuid);
            match (frame.body, found) {
                (Body::Open(visitor), None) => {
                    let visitor = visitor.address;
                    let socket = None;
                    let flow = Flow { visitor, socket };
                    let (_, evicted) = flows.insert(frame.uuid, flow, cx.now);
                    if let Some(socket) = evicted.and_then(|(_, flow)| flow.socket) {
                        sockets.remove(&socket);
                        cx.unbind(socket);
                    }
                }
                (Body::Data(raw), Some(place)) => {
                    let Some((_, flow)) = flows.touch(place, cx.now) else {
                        return;
                    };
                    if let Some(socket) = flow.socket {
                        return cx.datagram(socket, None, &[raw]);
                    }
                    let service = &rules.services[route.at];
                    let (from, to) = (flow.visitor, route.public);
                    let ends = Some(Ends { from, to });
                    let head = service.proxy_protocol;
                    let head = head.map(|version| encode(version, true, ends));
                    let head = head.unwrap_or_default();
                    if head.len() + raw.len() > MAX_DATAGRAM {
                        // Dropped: the header has no room beside it, and goes with the next one.
                        let (name, len) = (&service.name, raw.len());
                        log::debug!("expose {name} visitor={from}: no room beside {len} bytes");
                        return cx.count(Metric::DatagramsDropped, 1);
                    }
                    let Some(socket) = local.and_then(|local| cx.associate(local)) else {
                        return cx.count(Metric::DatagramsDropped, 1);
                    };
                    flow.socket = Some(socket);
                    sockets.insert(socket, frame.uuid);
                    cx.datagram(socket, None, &[&head, raw]);
                }
                (Body::Reset, Some(place)) => {
                    let flow = flows.remove(place).map(|(_, flow)| flow);
                    if let Some(socket) = flow.and_then(|flow| flow.socket) {
                        sockets.remove(&socket);
                        cx.unbind(socket);
                    }
                }
                _ => {}
            }
        })?;
        Ok(())
    }

    fn receive(&mut self, socket: SocketKey, train: &Train<'_>, cx: &mut Cx<'_>) {
        let Some(&uuid) = self.sockets.get(&socket) else {
            return;
        };
        if let Some(place) = self.flows.find(&uuid) {
            self.flows.touch(place, cx.now);
        }
        for packet in train.datagrams() {
            match self.packets.has_room(cx) {
                true => self.packets.send(uuid, Body::Data(packet), cx),
                false => cx.count(Metric::DatagramsDropped, 1),
            }
        }
    }

    /// A socket could not be opened: its flow begins anew with the next datagram.
    fn unbound(&mut self, socket: SocketKey) {
        let uuid = self.sockets.remove(&socket);
        let place = uuid.and_then(|uuid| self.flows.find(&uuid));
        if let Some((_, flow)) = place.and_then(|place| self.flows.get_mut(place)) {
            flow.socket = None;
        }
    }

    /// Ends flows of which the server has forgotten to tell the end.
    fn sweep(&mut self, cx: &mut Cx<'_>) {
        while let Some((_, flow)) = self.flows.expire(cx.now, IDLE) {
            if let Some(socket) = flow.socket {
                self.sockets.remove(&socket);
                cx.unbind(socket);
            }
        }
        cx.arm(SWEEP, IDLE / SWEEPS);
    }

    /// The connection has ended, and what it carried is over.
    fn lose(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.packets.disband(cx);
        if let (Way::Direct(..), [_, 0]) = (self.way, self.packets.moved) {
            let closed = Close::upstream(Cause::Truncated);
            tell_failure(self.link, Some(self.route.at), &closed, cx);
        }
        for (socket, _) in self.sockets.drain() {
            cx.unbind(socket);
        }
        self.flows = Flows::new(MOST_FLOWS);
        match self.way {
            Way::Direct(..) => Err(Close::finished()),
            Way::Mux(_) => {
                self.joining = None;
                cx.arm(PATIENCE, PAUSE);
                Ok(())
            }
        }
    }
}

impl Session for Datagrams {
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

    fn describe(&self, out: &mut String) {
        let name = &self.rules.services[self.route.at].name;
        let [down, up] = self.packets.moved;
        // Writing to a string cannot fail.
        let _ = write!(out, " service={name} udp up={up} down={down}");
    }
}

impl Datagrams {
    fn react(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Opened => self.begin(cx),
            Event::Reply {
                ticket: RESOLVE,
                ref reply,
            } => return self.resolved(reply, cx),
            Event::Data { conn, rx, last } if self.packets.incoming == Some(conn) => {
                let read = self.read(rx, cx);
                drop_half(rx, last);
                return read;
            }
            Event::Data { rx, last, .. } if self.joining.is_some() => {
                self.read_joining(rx, cx)?;
                // One that has been joined may hold frames.
                drop_half(rx, last && self.joining.is_some());
            }
            Event::Data { rx, .. } => rx.consume(rx.len()),
            Event::Datagrams { socket, train } => self.receive(socket, &train, cx),
            Event::Bounced { .. } => self.unserved("connection refused", cx),
            Event::Unbound { socket, .. } => self.unbound(socket),
            Event::Eof { conn } | Event::Lost { conn, .. } if self.is_joining(conn) => {
                return Err(Close::upstream(Cause::Truncated));
            }
            Event::Eof { conn } | Event::Lost { conn, .. } if self.is_line(conn) => {
                return self.lose(cx);
            }
            Event::Eof { .. } | Event::Lost { .. } => {}
            Event::Timer { tag: SWEEP } => self.sweep(cx),
            Event::Timer { .. } if self.joining.is_some() => {
                return Err(Close::upstream(Cause::Deadline("handshake")));
            }
            Event::Timer { .. } => return self.join(cx),
            Event::Mail { .. } => return Err(Close::finished()),
            Event::Stopping => return Err(Close::own(Cause::Stopping)),
            ref other => {
                if let Some(joining) = &mut self.joining {
                    return joining.handle(other, cx);
                }
                if let Some(dialling) = &mut self.dialling {
                    let progress = dialling.handle(other, cx);
                    return self.advance(progress, cx);
                }
            }
        }
        Ok(())
    }
}

/// Ends flows that are idle.
const SWEEP: u8 = 1;

/// The question for the inside service's address.
const RESOLVE: u32 = u32::MAX;

/// Visitors of one service.
const MOST_FLOWS: usize = 65_536;

/// The server ends flows before that.
const IDLE: Duration = Duration::from_secs(24 * 3600 + 60);

const SWEEPS: u32 = 16;

const PAUSE: Duration = Duration::from_millis(200);
