//! The datagrams of one core that came to a `udp` access listener: a flow for each sender, to the
//! destination whose turn it is.

use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::super::outlet::Outlets;
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

/// A sender's flow, and the door that it began with.
struct Flow {
    door: Rc<Door>,
    leg: Leg,
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
        let Some((_, Flow { door, leg })) = self.flows.touch(place, cx.now) else {
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
            if flow.is_some_and(|(_, flow)| !flow.leg.is_left_out(&flow.door)) {
                return Some(place);
            }
            // A client that never falls silent would stay with a broken chain for ever.
            if let Some((_, flow)) = self.flows.remove(place) {
                self.outlets.close(&flow.leg.outlet, cx);
            }
        }
        let to = self.door.to.get(self.door.turn())?.clone();
        let leg = Leg::new(&self.door, to, cx);
        if self.flows.is_empty() {
            cx.arm(SWEEP, self.pause());
        }
        let door = Rc::clone(&self.door);
        let (place, evicted) = self.flows.insert(from, Flow { door, leg }, cx.now);
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
        if let Some((client, Flow { leg, .. })) = self.flows.remove(place) {
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
        let (Some((&client, Flow { door, leg })), Some(main)) = (flow, self.main) else {
            return;
        };
        if leg.is_straight(door) {
            cx.count(Metric::Forwarded, train.count() as u64);
            return cx.train(main, Some(client), train);
        }
        for datagram in train.datagrams() {
            let payload = leg.receive(door, datagram, &mut self.scratch, cx);
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
        let Some((_, Flow { door, leg })) = self.flows.get_mut(place) else {
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
