//! Datagrams as frames on a stream, the same on both sides: one datagram a frame, no credit. What finds
//! no room is dropped, as it would be on any other way.

use super::wire::{Body, Frame, MAX_DATAGRAM, MUX_HEAD, Transport, Uuid};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::session::Cx;
use crate::stats::Metric;
use crate::wire::WireError;

/// The way out of datagrams.
#[derive(Default)]
pub(super) struct Packets {
    pub(super) outgoing: Option<ConnKey>,
    pub(super) incoming: Option<ConnKey>,
    /// Frames from before there was a way.
    early: Vec<u8>,
    scratch: Vec<u8>,
    /// Datagrams out and in, for the log.
    pub(super) moved: [u64; 2],
}

impl Packets {
    /// Whether frames can go both ways.
    pub(super) fn is_joined(&self) -> bool {
        self.outgoing.is_some() && self.incoming.is_some()
    }

    /// The way is there, one connection or two: what has waited leaves.
    pub(super) fn go_on(&mut self, cx: &mut Cx<'_>) {
        if let (Some(outgoing), Some(incoming)) = (self.outgoing, self.incoming) {
            cx.send(outgoing, &std::mem::take(&mut self.early));
            cx.hold(incoming, 2 * (MUX_HEAD + MAX_DATAGRAM));
            cx.resume(incoming);
        }
    }

    /// Whether a datagram would find room.
    pub(super) fn has_room(&self, cx: &Cx<'_>) -> bool {
        match self.outgoing.filter(|_| self.is_joined()) {
            Some(outgoing) => cx.unsent(outgoing) < MOST,
            None => self.early.len() < MOST_EARLY,
        }
    }

    /// Sends a frame, or keeps it until there is a way.
    pub(super) fn send(&mut self, uuid: Uuid, body: Body<'_>, cx: &mut Cx<'_>) {
        let frame = Frame { uuid, body };
        let counts = matches!(body, Body::Data(_));
        self.moved[0] += u64::from(counts);
        match self.outgoing.filter(|_| self.is_joined()) {
            None => frame.encode(&mut self.early),
            Some(outgoing) => {
                self.scratch.clear();
                frame.encode(&mut self.scratch);
                cx.send(outgoing, &self.scratch);
                cx.count(Metric::Forwarded, u64::from(counts));
            }
        }
    }

    /// Reads frames and calls `take` with each.
    pub(super) fn read(
        &mut self,
        rx: &mut Ring,
        mut take: impl FnMut(&Frame<'_>),
    ) -> Result<(), WireError> {
        loop {
            let head = rx.head();
            if let Some((frame, len)) = Frame::decode(head, Transport::Udp)? {
                self.moved[1] += u64::from(matches!(frame.body, Body::Data(_)));
                take(&frame);
                rx.consume(len);
                continue;
            }
            if head.len() == rx.len() {
                return Ok(());
            }
            // It lies across blocks: one frame is put side by side.
            self.scratch
                .resize(rx.len().min(MUX_HEAD + MAX_DATAGRAM), 0);
            rx.copy_to(0, &mut self.scratch);
            let Some((frame, len)) = Frame::decode(&self.scratch, Transport::Udp)? else {
                return Ok(());
            };
            self.moved[1] += u64::from(matches!(frame.body, Body::Data(_)));
            take(&frame);
            rx.consume(len);
        }
    }

    /// The way is gone.
    pub(super) fn disband(&mut self, cx: &mut Cx<'_>) {
        let (outgoing, incoming) = (self.outgoing.take(), self.incoming.take());
        if let Some(conn) = outgoing {
            cx.close(conn);
        }
        if let Some(conn) = incoming.filter(|_| incoming != outgoing) {
            cx.close(conn);
        }
        self.early.clear();
    }

    /// Forgets what waits for a way.
    pub(super) fn forget(&mut self) {
        self.early.clear();
    }
}

/// What may be queued on the stream; a datagram that comes then is dropped.
const MOST: usize = 1 << 20;

/// What is kept until there is a stream.
const MOST_EARLY: usize = 256 << 10;
