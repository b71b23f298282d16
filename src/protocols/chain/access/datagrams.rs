//! The datagrams of one core that came to a `udp` access listener: a flow for each sender, to the
//! destination whose turn it is.

use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::super::outlet::Outlets;
use super::Door;
use super::leg::Leg;
use crate::control::Reply;
use crate::net::{SocketKey, Train};
use crate::relay::{Flows, Place};
use crate::session::{Cause, Close, Cx, Event, Session};
use crate::stats::Metric;
use crate::upstream::Failure;

/// The session of one core's socket.
pub(in super::super) struct AccessDatagrams {
    door: Rc<Door>,
    main: Option<SocketKey>,
    flows: Flows<SocketAddr, Leg>,
    outlets: Outlets,
    /// Made anew for each datagram; kept for its memory.
    scratch: Vec<u8>,
}

impl AccessDatagrams {
    /// A session that awaits its socket.
    pub(in super::super) fn new(door: Rc<Door>) -> Self {
        Self {
            flows: Flows::new(door.access.max_flows),
            door,
            main: None,
            outlets: Outlets::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes what a client sent.
    fn take(&mut self, train: &Train<'_>, cx: &mut Cx<'_>) {
        let Some(place) = self.flow(train.from, cx) else {
            cx.count(Metric::DatagramsDropped, train.count() as u64);
            return;
        };
        let Some((_, leg)) = self.flows.touch(place, cx.now) else {
            return;
        };
        if leg.send_train(&self.door, train, cx) {
            return;
        }
        for datagram in train.datagrams() {
            leg.send(&self.door, &mut self.scratch, datagram, cx);
        }
    }

    /// The flow of a sender, begun if there is none.
    fn flow(&mut self, from: SocketAddr, cx: &mut Cx<'_>) -> Option<Place> {
        if let Some(place) = self.flows.find(&from) {
            let leg = self.flows.get_mut(place);
            if leg.is_some_and(|(_, leg)| !leg.is_left_out(&self.door)) {
                return Some(place);
            }
            // A client that never falls silent would stay with a broken chain for ever.
            if let Some((_, leg)) = self.flows.remove(place) {
                self.outlets.close(&leg.outlet, cx);
            }
        }
        let to = self.door.to.get(self.door.turn())?.clone();
        let leg = Leg::new(&self.door, to, cx);
        if self.flows.is_empty() {
            cx.arm(SWEEP, self.pause());
        }
        let (place, evicted) = self.flows.insert(from, leg, cx.now);
        if let Some((_, evicted)) = evicted {
            self.outlets.close(&evicted.outlet, cx);
        }
        let (_, leg) = self.flows.get_mut(place)?;
        match leg.begin(&self.door, place, &mut self.outlets, cx) {
            Ok(()) => Some(place),
            Err(failure) => {
                self.end(place, failure, cx);
                None
            }
        }
    }

    /// A flow has no way; its client's next datagram begins another.
    fn end(&mut self, place: Place, failure: Failure, cx: &mut Cx<'_>) {
        if let Some((client, leg)) = self.flows.remove(place) {
            let (name, to) = (&self.door.name, leg.destination());
            let words = failure.words();
            log::debug!("access {name} from={client} to={to} no way: {words}");
            cx.count(Metric::Rejected, 1);
            self.outlets.close(&leg.outlet, cx);
        }
    }

    /// Passes on what came back.
    fn receive(&mut self, socket: SocketKey, train: &Train<'_>, cx: &mut Cx<'_>) {
        let place = self.outlets.flow_of(socket);
        let flow = place.and_then(|place| self.flows.touch(place, cx.now));
        let (Some((&client, leg)), Some(main)) = (flow, self.main) else {
            return;
        };
        if leg.is_straight(&self.door) {
            cx.count(Metric::Forwarded, train.count() as u64);
            return cx.train(main, Some(client), train);
        }
        for datagram in train.datagrams() {
            let payload = leg.receive(&self.door, datagram, &mut self.scratch, cx);
            if let Some(payload) = payload {
                cx.count(Metric::Forwarded, 1);
                cx.datagram(main, Some(client), &[payload]);
            }
        }
    }

    fn resolved(&mut self, ticket: u32, reply: &Reply, cx: &mut Cx<'_>) {
        let Some((place, outcome)) = self.outlets.answered(ticket, reply) else {
            return;
        };
        let Some((_, leg)) = self.flows.get_mut(place) else {
            return;
        };
        let resolved = leg.resolved(&self.door, place, outcome, &mut self.outlets, cx);
        if let Err(failure) = resolved {
            self.end(place, failure, cx);
        }
    }

    fn sweep(&mut self, cx: &mut Cx<'_>) {
        while let Some((_, leg)) = self.flows.expire(cx.now, self.door.times.udp_idle) {
            self.outlets.close(&leg.outlet, cx);
        }
        if !self.flows.is_empty() {
            cx.arm(SWEEP, self.pause());
        }
    }

    fn pause(&self) -> Duration {
        (self.door.times.udp_idle / 4).max(SHORTEST)
    }
}

impl Session for AccessDatagrams {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Bound { socket, .. } if self.main.is_none() => self.main = Some(socket),
            Event::Datagrams { socket, train } if Some(socket) == self.main => {
                self.take(&train, cx);
            }
            Event::Datagrams { socket, train } => self.receive(socket, &train, cx),
            Event::Unbound { socket, why } => {
                if let Some(place) = self.outlets.forget(socket) {
                    self.end(place, why.into(), cx);
                }
            }
            Event::Reply { ticket, reply } => self.resolved(ticket, &reply, cx),
            Event::Timer { .. } => self.sweep(cx),
            // The main socket closes, and without it nothing comes.
            Event::Stopping => return Err(Close::own(Cause::Stopping)),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(out, " flows={}", self.flows.len());
    }
}

/// Looks for flows that are over.
const SWEEP: u8 = 0;

/// How often at most.
const SHORTEST: Duration = Duration::from_millis(50);
