//! A service for UDP: its port, the flows of its visitors, and the client's connection for frames, or
//! its two of mode *mux*.
//!
//! ```text
//!   visitor's datagram ─> flow (new: Open) ─> frame ─> client
//!                           └─ idle, or the longest idle when another needs its place: Reset
//! ```
//!
//! It lives on the core of the control connection. What comes before the client's connection is there
//! waits, within bounds. Bounds: `max_visitors` flows.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::frames::drop_half;
use super::super::packets::Packets;
use super::super::wire::{Body, Kind, Mode, Uuid, Visitor};
use super::lobby::Lobby;
use super::words::{Share, Word};
use crate::net::{ConnKey, SocketKey, Train};
use crate::relay::{Flows, Place};
use crate::session::{Cause, Close, Cx, Event, Mail, Session};
use crate::stats::Metric;

/// The session of such a service.
pub(super) struct Datagrams {
    lobby: Arc<Lobby>,
    share: Arc<Share>,
    mode: Mode,
    socket: Option<SocketKey>,
    packets: Packets,
    flows: Flows<SocketAddr, Uuid>,
    places: HashMap<Uuid, Place>,
    /// The data connection that was asked for, and when.
    asked: Option<(Uuid, Instant)>,
    is_sweeping: bool,
    visits: u64,
}

impl Datagrams {
    pub(super) fn new(lobby: Arc<Lobby>, share: Arc<Share>, mode: Mode) -> Self {
        Self {
            flows: Flows::new(lobby.rules().max_visitors),
            lobby,
            share,
            mode,
            socket: None,
            packets: Packets::default(),
            places: HashMap::new(),
            asked: None,
            is_sweeping: false,
            visits: 0,
        }
    }

    fn open(&mut self, at: SocketAddr, cx: &mut Cx<'_>) {
        self.socket = cx.bind(at);
        if self.socket.is_none() {
            self.tell(Err(io::ErrorKind::OutOfMemory), cx);
        }
    }

    fn tell(&self, outcome: Result<(), io::ErrorKind>, cx: &mut Cx<'_>) {
        let number = self.share.number;
        let word = Word::Opened { number, outcome };
        cx.post(self.share.control, Mail::new(word));
    }

    fn receive(&mut self, train: &Train<'_>, cx: &mut Cx<'_>) {
        for packet in train.datagrams() {
            if !self.packets.has_room(cx) {
                cx.count(Metric::DatagramsDropped, 1);
                continue;
            }
            if let Some(uuid) = self.flow(train.from, cx) {
                self.packets.send(uuid, Body::Data(packet), cx);
            }
        }
    }

    /// The flow of a visitor, a new one where there is none.
    fn flow(&mut self, from: SocketAddr, cx: &mut Cx<'_>) -> Option<Uuid> {
        if let Some(place) = self.flows.find(&from) {
            return self.flows.touch(place, cx.now).map(|(_, uuid)| *uuid);
        }
        let uuid = self.lobby.uuid(cx.handle.core)?;
        self.ask(uuid, from, cx);
        let (place, evicted) = self.flows.insert(from, uuid, cx.now);
        self.places.insert(uuid, place);
        self.visits += 1;
        if let Some((_, uuid)) = evicted {
            self.places.remove(&uuid);
            self.packets.send(uuid, Body::Reset, cx);
        }
        let service = self.share.number;
        let address = from;
        let visitor = Visitor { service, address };
        self.packets.send(uuid, Body::Open(visitor), cx);
        if !self.is_sweeping {
            self.is_sweeping = true;
            cx.arm(SWEEP, self.lobby.rules().udp_idle_timeout / SWEEPS);
        }
        Some(uuid)
    }

    /// Asks for a data connection, if there is none and none is on its way.
    fn ask(&mut self, uuid: Uuid, visitor: SocketAddr, cx: &mut Cx<'_>) {
        let lately = |at| cx.now.saturating_duration_since(at) < self.lobby.rules().visitor_timeout;
        let is_asked = self.asked.is_some_and(|(_, at)| lately(at));
        if self.mode == Mode::Mux || self.packets.is_joined() || is_asked {
            return;
        }
        if let Some((uuid, _)) = self.asked.replace((uuid, cx.now)) {
            let reason = Some(super::super::wire::Reason::Timeout);
            cx.post(self.share.control, Mail::new(Word::Enough { uuid, reason }));
        }
        let want = Word::Want {
            uuid,
            number: self.share.number,
            visitor,
        };
        cx.post(self.share.control, Mail::new(want));
    }

    /// A connection of the client has come.
    fn attach(&mut self, conn: ConnKey, kind: Option<Kind>, cx: &mut Cx<'_>) {
        let taken = match kind {
            None => self.packets.is_joined(),
            Some(Kind::Send) => self.packets.incoming.is_some(),
            Some(_) => self.packets.outgoing.is_some(),
        };
        if taken {
            self.lose(cx);
        }
        if kind.is_none_or(|kind| kind == Kind::Send) {
            self.packets.incoming = Some(conn);
        }
        if kind.is_none_or(|kind| kind != Kind::Send) {
            self.packets.outgoing = Some(conn);
        }
        if let Some((uuid, _)) = self.asked.take() {
            let reason = None;
            cx.post(self.share.control, Mail::new(Word::Enough { uuid, reason }));
        }
        self.packets.go_on(cx);
    }

    /// The client's connection is gone, and with it what it knew of the flows.
    fn lose(&mut self, cx: &mut Cx<'_>) {
        self.packets.disband(cx);
        self.forget_flows();
    }

    fn forget_flows(&mut self) {
        self.packets.forget();
        self.flows = Flows::new(self.lobby.rules().max_visitors);
        self.places.clear();
    }

    fn read(&mut self, rx: &mut crate::buffer::Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        let Self {
            packets,
            flows,
            places,
            socket,
            ..
        } = self;
        packets.read(rx, |frame| {
            let Some(&place) = places.get(&frame.uuid) else {
                return; // Its flow has ended meanwhile.
            };
            match frame.body {
                Body::Data(raw) => {
                    if let (Some((visitor, _)), Some(socket)) =
                        (flows.touch(place, cx.now), *socket)
                    {
                        cx.datagram(socket, Some(*visitor), &[raw]);
                    }
                }
                Body::Reset => {
                    flows.remove(place);
                    places.remove(&frame.uuid);
                }
                Body::Open(_) | Body::End | Body::Move(_) | Body::Moved | Body::Stay => {
                    cx.count(Metric::Ignored, 1);
                }
            }
        })?;
        Ok(())
    }

    fn sweep(&mut self, cx: &mut Cx<'_>) {
        let idle = self.lobby.rules().udp_idle_timeout;
        while let Some((_, uuid)) = self.flows.expire(cx.now, idle) {
            self.places.remove(&uuid);
            self.packets.send(uuid, Body::Reset, cx);
        }
        self.is_sweeping = !self.flows.is_empty();
        if self.is_sweeping {
            cx.arm(SWEEP, idle / SWEEPS);
        }
    }

    fn is_line(&self, conn: ConnKey) -> bool {
        [self.packets.outgoing, self.packets.incoming].contains(&Some(conn))
    }
}

impl Session for Datagrams {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Bound { .. } => self.tell(Ok(()), cx),
            Event::Unbound { why, .. } => {
                self.socket = None;
                self.tell(Err(why), cx);
            }
            Event::Datagrams { train, .. } => self.receive(&train, cx),
            Event::Handed { conn, mail, .. } => match (mail.open(), self.mode) {
                (Some(Word::Frames(kind)), Mode::Mux) => self.attach(conn, Some(kind), cx),
                (Some(Word::Data), Mode::Direct) => self.attach(conn, None, cx),
                _ => cx.close(conn),
            },
            Event::Data { conn, rx, last } if self.packets.incoming == Some(conn) => {
                let read = self.read(rx, cx);
                drop_half(rx, last);
                if let Err(close) = read {
                    // It loses its connection and may make another: the port stays.
                    let (handle, name) = (cx.handle, &self.share.name);
                    log::warn!("tunnel {handle} service={name} {close}");
                    cx.count(Metric::Rejected, 1);
                    self.lose(cx);
                }
            }
            // Datagrams have no grants.
            Event::Data { rx, .. } => rx.consume(rx.len()),
            Event::Eof { conn } | Event::Lost { conn, .. } if self.is_line(conn) => self.lose(cx),
            Event::Timer { .. } => self.sweep(cx),
            Event::Mail { mail, .. } => match mail.open() {
                Some(Word::Open { at, .. }) => self.open(at, cx),
                Some(Word::Close { .. }) => return Err(Close::finished()),
                Some(Word::Refused { uuid, .. })
                    if self.asked.is_some_and(|(asked, _)| asked == uuid) =>
                {
                    self.asked = None;
                    self.forget_flows();
                }
                _ => {}
            },
            // Its control connection has gone.
            Event::Returned { .. } => return Err(Close::finished()),
            Event::Stopping => return Err(Close::own(Cause::Stopping)),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        let (name, client, visits) = (&self.share.name, self.share.client, self.visits);
        let [up, down] = self.packets.moved;
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            " service={name} client={client} udp visits={visits} up={up} down={down}"
        );
    }
}

/// Ends flows that are idle.
const SWEEP: u8 = 0;

/// How often in the idle timeout they are looked for.
const SWEEPS: u32 = 16;
