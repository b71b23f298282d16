//! The datagrams of one SOCKS5 client: UDP ASSOCIATE.
//!
//! The client's connection stays open, and when it ends so do the association, its port and its flows,
//! one for each destination. Datagrams are taken from the client's own IP address only, and from the one
//! port from which the first of them came.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::outlet::Outlets;
use super::super::passage::{Failed, Why};
use super::super::wire::{Address, socks5};
use super::Door;
use super::leg::Leg;
use crate::net::{ConnKey, SocketKey, Train};
use crate::relay::{Flows, Place};
use crate::session::{Cause, Close, Cx, Event};
use crate::stats::Metric;
use crate::upstream::Failure;

/// One client's association.
pub(super) struct Association {
    conn: ConnKey,
    peer: SocketAddr,
    main: SocketKey,
    /// Where the client's datagrams come from.
    source: Option<SocketAddr>,
    flows: Flows<Address, Leg>,
    outlets: Outlets,
    scratch: Vec<u8>,
    head: Vec<u8>,
}

impl Association {
    /// Asks for a port on the address that the client came to; it is told when that is open.
    pub(super) fn start(
        at: SocketAddr,
        peer: SocketAddr,
        conn: ConnKey,
        most: usize,
        cx: &mut Cx<'_>,
    ) -> Result<Self, Close> {
        let main = cx.bind(SocketAddr::new(at.ip(), 0));
        let main = main.ok_or_else(|| {
            refuse(conn, cx);
            Close::own(Cause::Overload("sockets")).told()
        })?;
        Ok(Self {
            conn,
            peer,
            main,
            source: None,
            flows: Flows::new(most),
            outlets: Outlets::default(),
            scratch: Vec::new(),
            head: Vec::new(),
        })
    }

    /// Takes an event of the session, all of which are for it from now on.
    pub(super) fn handle(
        &mut self,
        door: &Door,
        event: Event<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        match event {
            Event::Bound { socket, address } if socket == self.main => {
                let mut reply = Vec::new();
                socks5::Reply::Done.encode(address, &mut reply);
                cx.send(self.conn, &reply);
            }
            Event::Unbound { socket, why } if socket == self.main => {
                refuse(self.conn, cx);
                return Err(Close::own(Cause::Io("bind", why)).told());
            }
            Event::Unbound { socket, why } => {
                if let Some(place) = self.outlets.forget(socket) {
                    self.end(door, place, why.into(), cx);
                }
            }
            Event::Bounced { socket, why } if socket != self.main => {
                let client = self.client();
                let place = self.outlets.flow_of(socket);
                let leg = place.and_then(|place| self.flows.get_mut(place));
                if let Some((_, leg)) = leg {
                    lose(leg, door, client, why.into(), cx);
                }
            }
            Event::Datagrams { socket, train } if socket == self.main => {
                for datagram in train.datagrams() {
                    if self.take(door, train.from, datagram, cx).is_none() {
                        cx.count(Metric::Ignored, 1);
                    }
                }
            }
            Event::Datagrams { socket, train } => self.receive(door, socket, &train, cx),
            Event::Reply { ticket, reply } => {
                if let Some((place, outcome)) = self.outlets.answered(ticket, &reply)
                    && let Some((_, leg)) = self.flows.get_mut(place)
                    && let Err(failure) = leg.resolved(door, place, outcome, &mut self.outlets, cx)
                {
                    self.end(door, place, failure, cx);
                }
            }
            Event::Timer { .. } => self.sweep(door, cx),
            // The client has nothing more to say on its connection.
            Event::Data { rx, .. } => rx.consume(rx.len()),
            Event::Eof { .. } => return Err(Close::finished()),
            Event::Stopping => return Err(Close::own(Cause::Stopping)),
            Event::Lost { why, .. } => {
                return Err(Close::downstream(Cause::Io("connection", why)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes a datagram; `None` when it is dropped.
    fn take(
        &mut self,
        door: &Door,
        from: SocketAddr,
        datagram: &[u8],
        cx: &mut Cx<'_>,
    ) -> Option<()> {
        let is_theirs = from.ip().to_canonical() == self.peer.ip().to_canonical();
        if !is_theirs || self.source.is_some_and(|source| source != from) {
            return None;
        }
        let (to, payload) = socks5::datagram(datagram).ok()?;
        self.source = Some(from);
        let known = self.flows.find(&to);
        let known = known.filter(|&place| !self.leaves(door, place, cx));
        let place = match known {
            Some(place) => place,
            None => self.begin(door, to, cx)?,
        };
        let (_, leg) = self.flows.touch(place, cx.now)?;
        leg.send(door, &mut self.scratch, payload, cx);
        Some(())
    }

    fn begin(&mut self, door: &Door, to: Address, cx: &mut Cx<'_>) -> Option<Place> {
        let leg = Leg::new(door, to.clone(), cx);
        if self.flows.is_empty() {
            cx.arm(SWEEP, pause(door));
        }
        let (place, evicted) = self.flows.insert(to, leg, cx.now);
        if let Some((_, evicted)) = evicted {
            self.outlets.close(&evicted.outlet, cx);
        }
        let (_, leg) = self.flows.get_mut(place)?;
        match leg.begin(door, place, &mut self.outlets, cx) {
            Ok(()) => Some(place),
            Err(failure) => {
                self.end(door, place, failure, cx);
                None
            }
        }
    }

    /// Ends a flow whose chain has been left out for another; true when it is gone.
    fn leaves(&mut self, door: &Door, place: Place, cx: &mut Cx<'_>) -> bool {
        let leg = self.flows.get_mut(place);
        let is_left = leg.is_none_or(|(_, leg)| leg.is_left_out(door));
        if is_left && let Some((_, leg)) = self.flows.remove(place) {
            self.outlets.close(&leg.outlet, cx);
        }
        is_left
    }

    /// A flow has no way.
    fn end(&mut self, door: &Door, place: Place, failure: Failure, cx: &mut Cx<'_>) {
        if let Some((_, leg)) = self.flows.remove(place) {
            lose(&leg, door, self.client(), failure, cx);
            self.outlets.close(&leg.outlet, cx);
        }
    }

    /// Where the client's datagrams come from, or its connection as long as there were none.
    fn client(&self) -> SocketAddr {
        self.source.unwrap_or(self.peer)
    }

    /// Passes on what came back, with where it is from as the client wrote it, or 0.0.0.0 for a name.
    fn receive(&mut self, door: &Door, socket: SocketKey, train: &Train<'_>, cx: &mut Cx<'_>) {
        let place = self.outlets.flow_of(socket);
        let flow = place.and_then(|place| self.flows.touch(place, cx.now));
        let (Some((to, leg)), Some(source)) = (flow, self.source) else {
            return;
        };
        let from = match to {
            Address::Socket(address) => *address,
            Address::Name { port, .. } => SocketAddr::from(([0, 0, 0, 0], *port)),
        };
        self.head.clear();
        socks5::datagram_head(from, &mut self.head);
        for datagram in train.datagrams() {
            match leg.receive(door, datagram, &mut self.scratch) {
                Ok(payload) => {
                    cx.count(Metric::Forwarded, 1);
                    cx.datagram(self.main, Some(source), &[&self.head, payload]);
                }
                Err(failed) => leg.lose(door, (source, None), failed, cx),
            }
        }
    }

    fn sweep(&mut self, door: &Door, cx: &mut Cx<'_>) {
        let idle = door.times.udp_idle;
        while let Some((_, leg)) = self.flows.expire(cx.now, idle) {
            self.outlets.close(&leg.outlet, cx);
        }
        let is_quiet = door.complaints.settle(cx);
        if !self.flows.is_empty() || !is_quiet {
            cx.arm(SWEEP, pause(door));
        }
    }

    /// How many destinations it has.
    pub(super) fn flows(&self) -> usize {
        self.flows.len()
    }
}

/// A datagram was lost on the way to the first hop or, without one, to the destination.
fn lose(leg: &Leg, door: &Door, client: SocketAddr, failure: Failure, cx: &mut Cx<'_>) {
    let why = Why::Dial(failure);
    leg.lose(door, (client, None), Failed { hop: 0, why }, cx);
}

fn pause(door: &Door) -> Duration {
    (door.times.udp_idle / 4).max(Duration::from_millis(50))
}

fn refuse(conn: ConnKey, cx: &mut Cx<'_>) {
    let mut reply = Vec::new();
    socks5::Reply::Failure.encode(([0, 0, 0, 0], 0).into(), &mut reply);
    cx.send(conn, &reply);
}

/// Looks for flows that are over.
const SWEEP: u8 = 0;
