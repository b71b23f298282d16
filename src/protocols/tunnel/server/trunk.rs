//! A service for TCP in mode *mux*: its port, its visitors, and the client's two connections.
//!
//! It lives on the core of the control connection, and its port is listened to there only. Visitors
//! that come before the client's connections are there wait as those of mode *direct* do.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::frames::drop_half;
use super::super::mux::Mux;
use super::super::wire::{Kind, Uuid, Visitor};
use super::lobby::Lobby;
use super::words::{Share, Word};
use crate::net::{ConnKey, ListenerKey};
use crate::session::{Cause, Close, Cx, Event, Mail, Session};
use crate::stats::Metric;

/// The session of such a service.
pub(super) struct Trunk {
    lobby: Arc<Lobby>,
    share: Arc<Share>,
    mux: Mux<Stay>,
    listener: Option<ListenerKey>,
    /// Visitors that were not announced yet, the oldest first. Bound: `max_waiting`.
    waiting: VecDeque<(Uuid, SocketAddr, Instant)>,
    visits: u64,
    is_closing: bool,
}

/// A visitor's place, given back when it is dropped.
struct Stay {
    lobby: Arc<Lobby>,
    share: Arc<Share>,
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.share.leave();
        self.lobby.leave();
    }
}

impl Trunk {
    pub(super) fn new(lobby: Arc<Lobby>, share: Arc<Share>) -> Self {
        Self {
            lobby,
            share,
            mux: Mux::new(),
            listener: None,
            waiting: VecDeque::new(),
            visits: 0,
            is_closing: false,
        }
    }

    fn tell(&self, outcome: Result<(), std::io::ErrorKind>, cx: &mut Cx<'_>) {
        let number = self.share.number;
        let word = Word::Opened { number, outcome };
        cx.post(self.share.control, Mail::new(word));
    }

    fn visit(&mut self, conn: ConnKey, peer: SocketAddr, cx: &mut Cx<'_>) {
        let Some(uuid) = self.admit(cx) else {
            cx.count(Metric::Shed, 1);
            return cx.close(conn);
        };
        let (lobby, share) = (Arc::clone(&self.lobby), Arc::clone(&self.share));
        self.mux.enter(uuid, Some(conn), Stay { lobby, share });
        self.visits += 1;
        match self.mux.is_joined() {
            true => self.announce(uuid, peer, cx),
            false => {
                if self.waiting.is_empty() {
                    cx.arm(PATIENCE, self.lobby.rules.visitor_timeout);
                }
                self.waiting.push_back((uuid, peer, cx.now));
            }
        }
    }

    fn admit(&self, cx: &Cx<'_>) -> Option<Uuid> {
        let full = self.waiting.len() >= self.lobby.rules.max_waiting;
        let uuid = self.lobby.uuid(cx.handle.core).filter(|_| !full)?;
        if !self.share.enter() {
            return None;
        }
        if !self.lobby.enter() {
            self.share.leave();
            return None;
        }
        Some(uuid)
    }

    fn announce(&self, uuid: Uuid, address: SocketAddr, cx: &mut Cx<'_>) {
        let service = self.share.number;
        self.mux.announce(uuid, Visitor { service, address }, cx);
    }

    /// A connection for frames has come.
    fn attach(&mut self, conn: ConnKey, kind: Kind, cx: &mut Cx<'_>) {
        let side = match kind {
            Kind::Send => self.mux.incoming,
            _ => self.mux.outgoing,
        };
        if side.is_some() {
            // The client has made new ones; what went over the old ones is lost.
            self.mux.disband(cx);
        }
        match kind {
            Kind::Send => self.mux.incoming = Some(conn),
            _ => self.mux.outgoing = Some(conn),
        }
        if self.mux.is_joined() {
            cx.disarm(PATIENCE);
            for (uuid, peer, _) in std::mem::take(&mut self.waiting) {
                if self.mux.has(uuid) {
                    self.announce(uuid, peer, cx);
                }
            }
            self.mux.go_on(cx);
        }
    }

    /// Visitors have waited for long enough.
    fn expire(&mut self, cx: &mut Cx<'_>) {
        let timeout = self.lobby.rules.visitor_timeout;
        while let Some(&(uuid, peer, since)) = self.waiting.front() {
            let waited = cx.now.saturating_duration_since(since);
            if waited < timeout {
                return cx.arm(PATIENCE, timeout - waited);
            }
            self.waiting.pop_front();
            if self.mux.has(uuid) {
                let (handle, name) = (cx.handle, &self.share.name);
                log::info!("tunnel {handle} service={name} visitor={peer} backend_timeout");
                self.mux.drop_guest(uuid, cx);
            }
        }
    }

    fn is_line(&self, conn: ConnKey) -> bool {
        [self.mux.outgoing, self.mux.incoming].contains(&Some(conn))
    }

    /// One of the client's two connections has ended.
    fn lose_line(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.mux.disband(cx);
        self.end_if_over()
    }

    /// A client that breaks the rules loses its two connections and their visitors, and may make new
    /// ones: the port stays.
    fn judge(&mut self, read: Result<(), Close>, cx: &mut Cx<'_>) -> Result<(), Close> {
        if let Err(close) = read {
            let (handle, name) = (cx.handle, &self.share.name);
            log::warn!("tunnel {handle} service={name} {close}");
            cx.count(Metric::Rejected, 1);
            self.mux.disband(cx);
        }
        self.end_if_over()
    }

    fn end_if_over(&self) -> Result<(), Close> {
        match self.is_closing && self.mux.is_empty() {
            true => Err(Close::finished()),
            false => Ok(()),
        }
    }

    fn close(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.is_closing = true;
        if let Some(listener) = self.listener.take() {
            cx.unlisten(listener);
        }
        // Nobody will come for those that wait.
        for (uuid, ..) in std::mem::take(&mut self.waiting) {
            self.mux.drop_guest(uuid, cx);
        }
        self.end_if_over()
    }
}

impl Session for Trunk {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Accepted { conn, peer, .. } => self.visit(conn, peer, cx),
            Event::Listening { listener, .. } if self.is_closing => cx.unlisten(listener),
            Event::Listening { listener, .. } => {
                self.listener = Some(listener);
                self.tell(Ok(()), cx);
            }
            Event::Refused { why, .. } => self.tell(Err(why), cx),
            Event::Handed { conn, mail, .. } => match mail.open() {
                Some(Word::Frames(kind)) => self.attach(conn, kind, cx),
                _ => cx.close(conn),
            },
            Event::Data { conn, rx, last } if self.mux.incoming == Some(conn) => {
                let read = self.mux.read_frames(rx, None, cx);
                drop_half(rx, last);
                return self.judge(read, cx);
            }
            Event::Data { conn, rx, last } if self.mux.outgoing == Some(conn) => {
                let read = self.mux.read_grants(rx, cx);
                drop_half(rx, last);
                return self.judge(read, cx);
            }
            Event::Data { conn, rx, .. } => drop(self.mux.read_guest(conn, rx, cx)),
            Event::Eof { conn } | Event::Lost { conn, .. } if self.is_line(conn) => {
                return self.lose_line(cx);
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
            Event::Timer { .. } => self.expire(cx),
            Event::Mail { mail, .. } => match mail.open() {
                Some(Word::Open { at, sharing, .. }) => cx.listen_with(at, 0, sharing),
                Some(Word::Close { .. }) => return self.close(cx),
                _ => {}
            },
            // Its control connection has gone.
            Event::Returned { .. } => return self.close(cx),
            Event::Stopping => return self.close(cx).map_err(|_| Close::own(Cause::Stopping)),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        let (name, client, visits) = (&self.share.name, self.share.client, self.visits);
        let [down, up] = self.mux.moved;
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            " service={name} client={client} mux visits={visits} up={down} down={up}"
        );
    }
}

/// How long visitors wait for the client's connections.
const PATIENCE: u8 = 0;
