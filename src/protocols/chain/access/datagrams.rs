//! The datagrams of one core that came to a `udp` access listener: a flow for each sender, to the
//! destination whose turn it is.

use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::outlet::Outlets;
use super::super::passage::{Failed, Why};
use super::leg::Leg;
use super::{Door, PresentDoor};
use crate::control::Reply;
use crate::net::{SocketKey, Train};
use crate::relay::{Flows, Place};
use crate::session::{Cause, Close, Cx, Event, Session};
use crate::stats::Metric;
use crate::upstream::Failure;

/// The session of one core's socket.
pub(in super::super) struct AccessDatagrams {
    present: PresentDoor,
    /// The door that flows begin with.
    door: Rc<Door>,
    main: Option<SocketKey>,
    flows: Flows<SocketAddr, Flow>,
    outlets: Outlets,
    /// Made anew for each datagram; kept for its memory.
    scratch: Vec<u8>,
}

/// A sender's flow, the door that it began with, and the number of its destination there.
struct Flow {
    door: Rc<Door>,
    leg: Leg,
    at: usize,
}

impl Flow {
    /// True when its chain is broken, or its destination was not reached lately, and there is another.
    fn is_to_be_left(&self, now: Instant) -> bool {
        self.leg.is_left_out(&self.door) || self.door.turns.is_passed_over(self.at, now)
    }

    fn lose(&self, client: SocketAddr, why: Why, cx: &mut Cx<'_>) {
        self.lose_by(client, Failed { hop: 0, why }, cx);
    }

    fn lose_by(&self, client: SocketAddr, failed: Failed, cx: &mut Cx<'_>) {
        let who = (client, Some(self.at));
        self.leg.lose(&self.door, who, failed, cx);
    }
}

impl AccessDatagrams {
    /// A session that awaits its socket.
    pub(in super::super) fn new(present: PresentDoor) -> Self {
        let door = Rc::clone(&present.borrow());
        Self {
            present,
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
        let Some((_, Flow { door, leg, .. })) = self.flows.touch(place, cx.now) else {
            return;
        };
        if leg.send_train(door, train, cx) {
            return;
        }
        for datagram in train.datagrams() {
            leg.send(door, &mut self.scratch, datagram, cx);
        }
    }

    /// The flow of a sender, begun if there is none.
    fn flow(&mut self, from: SocketAddr, cx: &mut Cx<'_>) -> Option<Place> {
        if let Some(place) = self.flows.find(&from) {
            let flow = self.flows.get_mut(place);
            if flow.is_some_and(|(_, flow)| !flow.is_to_be_left(cx.now)) {
                return Some(place);
            }
            // A client that never falls silent would stay with what is broken for ever.
            if let Some((_, flow)) = self.flows.remove(place) {
                self.outlets.close(&flow.leg.outlet, cx);
            }
        }
        let order = self.door.turns.order(cx.now);
        order.into_iter().find_map(|at| self.begin(from, at, cx))
    }

    /// A sender's flow to the destination of that number; `None` when it has no way.
    fn begin(&mut self, from: SocketAddr, at: usize, cx: &mut Cx<'_>) -> Option<Place> {
        let door = Rc::clone(&self.door);
        let leg = Leg::new(&door, door.to.get(at)?.clone(), cx);
        if self.flows.is_empty() {
            cx.arm(SWEEP, self.pause());
        }
        let (place, evicted) = self.flows.insert(from, Flow { door, leg, at }, cx.now);
        if let Some((_, evicted)) = evicted {
            self.outlets.close(&evicted.leg.outlet, cx);
        }
        let (_, Flow { leg, .. }) = self.flows.get_mut(place)?;
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
        if let Some((client, flow)) = self.flows.remove(place) {
            flow.lose(client, Why::Dial(failure), cx);
            self.outlets.close(&flow.leg.outlet, cx);
        }
    }

    /// A datagram could not be delivered; the flow goes on, or leaves with the next one.
    fn bounced(&mut self, socket: SocketKey, failure: Failure, cx: &mut Cx<'_>) {
        let place = self.outlets.flow_of(socket);
        let flow = place.and_then(|place| self.flows.get_mut(place));
        if let Some((client, flow)) = flow {
            flow.lose(*client, Why::Dial(failure), cx);
        }
    }

    /// Passes on what came back.
    fn receive(&mut self, socket: SocketKey, train: &Train<'_>, cx: &mut Cx<'_>) {
        let place = self.outlets.flow_of(socket);
        let flow = place.and_then(|place| self.flows.touch(place, cx.now));
        let (Some((&client, flow)), Some(main)) = (flow, self.main) else {
            return;
        };
        if flow.leg.is_straight(&flow.door) {
            cx.count(Metric::Forwarded, train.count() as u64);
            return cx.train(main, Some(client), train);
        }
        for datagram in train.datagrams() {
            let Flow { door, leg, .. } = &mut *flow;
            match leg.receive(door, datagram, &mut self.scratch) {
                Ok(payload) => {
                    cx.count(Metric::Forwarded, 1);
                    cx.datagram(main, Some(client), &[payload]);
                }
                Err(failed) => flow.lose_by(client, failed, cx),
            }
        }
    }

    fn resolved(&mut self, ticket: u32, reply: &Reply, cx: &mut Cx<'_>) {
        let Some((place, outcome)) = self.outlets.answered(ticket, reply) else {
            return;
        };
        let Some((_, Flow { door, leg, .. })) = self.flows.get_mut(place) else {
            return;
        };
        let resolved = leg.resolved(door, place, outcome, &mut self.outlets, cx);
        if let Err(failure) = resolved {
            self.end(place, failure, cx);
        }
    }

    fn sweep(&mut self, cx: &mut Cx<'_>) {
        while let Some((_, flow)) = self.flows.expire(cx.now, self.door.times.udp_idle) {
            self.outlets.close(&flow.leg.outlet, cx);
        }
        let is_quiet = self.door.complaints.settle(cx);
        if !self.flows.is_empty() || !is_quiet {
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
            Event::Bounced { socket, why } if Some(socket) != self.main => {
                self.bounced(socket, why.into(), cx);
            }
            Event::Reply { ticket, reply } => self.resolved(ticket, &reply, cx),
            Event::Timer { .. } => self.sweep(cx),
            Event::Renewed { .. } => self.door = Rc::clone(&self.present.borrow()),
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
