//! A service for TCP in mode *mux*: its port, its visitors, and the client's two connections.
//!
//! It lives on the core of the control connection, and its port is listened to there only. Each visitor
//! has a session of its own ([`Guest`]) on that core. Visitors that come before the client's connections
//! are there wait as those of mode *direct* do.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use super::super::frames::drop_half;
use super::super::mux::{News, Shared};
use super::super::wire::{Kind, Uuid, Visitor};
use super::guest::Guest;
use super::lobby::Lobby;
use super::words::{Share, Word};
use crate::buffer::Ring;
use crate::net::{ConnKey, ListenerKey};
use crate::session::{Cause, Close, Cx, Event, Mail, Session};
use crate::stats::Metric;

/// The session of such a service.
pub(super) struct Trunk {
    lobby: Arc<Lobby>,
    share: Arc<Share>,
    mux: Shared,
    listener: Option<ListenerKey>,
    /// Visitors that were not announced yet, the oldest first. Bound: `max_waiting`.
    waiting: Vec<(Uuid, SocketAddr)>,
    visits: u64,
    is_closing: bool,
}

impl Trunk {
    pub(super) fn new(lobby: Arc<Lobby>, share: Arc<Share>, mux: Shared) -> Self {
        Self {
            lobby,
            share,
            mux,
            listener: None,
            waiting: Vec::new(),
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
        let guest = self.admit(peer, cx);
        let begun = guest.and_then(|(uuid, guest)| Some((uuid, cx.spawn(Box::new(guest))?)));
        let Some((uuid, guest)) = begun else {
            cx.count(Metric::Shed, 1);
            return cx.close(conn);
        };
        self.visits += 1;
        self.mux.borrow_mut().enter(uuid, guest, cx.now);
        let joined = self.mux.borrow().is_joined();
        match joined {
            true => self.announce(uuid, peer, cx),
            false => self.waiting.push((uuid, peer)),
        }
        cx.hand(conn, guest, Mail::new(Word::Arrival));
    }

    fn admit(&mut self, peer: SocketAddr, cx: &Cx<'_>) -> Option<(Uuid, Guest)> {
        let most = self.lobby.rules().max_waiting;
        if self.waiting.len() >= most {
            // Some of them may have left.
            let mux = self.mux.borrow();
            self.waiting.retain(|(uuid, _)| mux.has(*uuid));
        }
        let full = self.waiting.len() >= most;
        let uuid = self.lobby.uuid(cx.handle.core).filter(|_| !full)?;
        if !self.share.enter() {
            return None;
        }
        if !self.lobby.enter() {
            self.share.leave();
            return None;
        }
        let guest = Guest::new(&self.lobby, &self.share, &self.mux, uuid, peer);
        Some((uuid, guest))
    }

    fn announce(&self, uuid: Uuid, address: SocketAddr, cx: &mut Cx<'_>) {
        let service = self.share.number;
        let visitor = Visitor { service, address };
        self.mux.borrow_mut().announce(uuid, visitor, cx);
    }

    /// A connection for frames has come.
    fn attach(&mut self, conn: ConnKey, kind: Kind, cx: &mut Cx<'_>) {
        let joined = {
            let mut mux = self.mux.borrow_mut();
            let side = match kind {
                Kind::Send => mux.incoming,
                _ => mux.outgoing,
            };
            if side.is_some() {
                // The client has made new ones; what went over the old ones is lost.
                mux.disband(cx);
            }
            match kind {
                Kind::Send => {
                    if let Some(throttle) = &self.share.throttle {
                        // What comes by it is what all visitors get.
                        cx.pace_one(conn, 1, vec![Arc::clone(throttle)]);
                    }
                    mux.incoming = Some(conn);
                }
                _ => mux.outgoing = Some(conn),
            }
            mux.is_joined()
        };
        if joined {
            for (uuid, peer) in std::mem::take(&mut self.waiting) {
                if self.mux.borrow().has(uuid) {
                    self.announce(uuid, peer, cx);
                }
            }
            self.mux.borrow_mut().go_on(cx);
        }
    }

    /// A client that breaks the rules loses its two connections and their visitors, and may make new
    /// ones: the port stays.
    fn judge(&mut self, read: Result<(), Close>, cx: &mut Cx<'_>) -> Result<(), Close> {
        if let Err(close) = read {
            let (handle, name) = (cx.handle, &self.share.name);
            log::warn!("tunnel {handle} service={name} {close}");
            cx.count(Metric::Rejected, 1);
            self.mux.borrow_mut().disband(cx);
        }
        self.end_if_over()
    }

    fn end_if_over(&self) -> Result<(), Close> {
        match self.is_closing && self.mux.borrow().is_empty() {
            true => Err(Close::finished()),
            false => Ok(()),
        }
    }

    fn close(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.is_closing = true;
        self.mux.borrow_mut().closing = Some(cx.handle);
        if let Some(listener) = self.listener.take() {
            cx.unlisten(listener);
        }
        // Nobody will come for those that wait.
        for (uuid, _) in std::mem::take(&mut self.waiting) {
            self.mux.borrow().tell(uuid, News::Gone, cx);
        }
        self.end_if_over()
    }

    fn read(
        &mut self,
        conn: ConnKey,
        rx: &mut Ring,
        last: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let read = {
            let mut mux = self.mux.borrow_mut();
            match mux.incoming == Some(conn) {
                true => mux.read_frames(rx, &mut Vec::new(), cx),
                false => mux.read_grants(rx, cx),
            }
        };
        drop_half(rx, last);
        self.judge(read, cx)
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
            Event::Data { conn, rx, last } if self.mux.borrow().is_line(conn) => {
                return self.read(conn, rx, last, cx);
            }
            Event::Eof { conn } | Event::Lost { conn, .. } if self.mux.borrow().is_line(conn) => {
                self.mux.borrow_mut().disband(cx);
                return self.end_if_over();
            }
            Event::Mail { from, mail } if from == self.share.control => match mail.open() {
                Some(Word::Open { at, sharing, .. }) => cx.listen_with(at, 0, sharing),
                Some(Word::Close { .. }) => return self.close(cx),
                _ => {}
            },
            // The last visitor has left.
            Event::Mail { .. } => return self.end_if_over(),
            // Its control connection has gone.
            Event::Returned { to, .. } if to == self.share.control => return self.close(cx),
            Event::Stopping => return self.close(cx).map_err(|_| Close::own(Cause::Stopping)),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        let (name, client, visits) = (&self.share.name, self.share.client, self.visits);
        let mux = self.mux.borrow();
        let ([down, up], open) = (mux.moved, mux.len());
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            " service={name} client={client} mux visits={visits} open={open} up={up} down={down}"
        );
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.mux.borrow_mut().disband(cx);
    }
}
