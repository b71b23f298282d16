//! One flow's way through a chain: who it is for, by which chain, and its socket.

use std::net::SocketAddr;

use super::super::outlet::{Begun, Looked, Outlet, Outlets};
use super::super::passage::{Blame, Failed, Flight, Why};
use super::super::wire::Address;
use super::{Door, stamp};
use crate::net::Train;
use crate::relay::Place;
use crate::session::Cx;
use crate::stats::Metric;
use crate::upstream::{Failure, Screen};

/// One flow's way.
pub(super) struct Leg {
    route: usize,
    flight: Flight,
    pub(super) outlet: Outlet,
}

impl Leg {
    /// A flow by the chain whose turn it is; it has no way yet.
    pub(super) fn new(door: &Door, destination: Address, cx: &mut Cx<'_>) -> Self {
        let random = cx.random();
        let route = door.routes.choose(0, random).unwrap_or_default();
        Self {
            route,
            flight: Flight::new(&door.routes.list[route], destination),
            outlet: Outlet::Waiting(Default::default()),
        }
    }

    /// Opens its way, or has the name of its first hop looked up.
    pub(super) fn begin(
        &mut self,
        door: &Door,
        place: Place,
        outlets: &mut Outlets,
        cx: &mut Cx<'_>,
    ) -> Result<(), Failure> {
        let first = self.flight.first(&door.routes.list[self.route]);
        let screen = self.screen(door);
        match outlets.begin(place, &first, screen, &door.names, cx) {
            Begun::Waiting => {}
            Begun::Open(socket) => self.outlet.open(socket, cx),
            Begun::Failed(failure) => return Err(failure),
        }
        Ok(())
    }

    /// The name was looked up, or not.
    pub(super) fn resolved(
        &mut self,
        door: &Door,
        place: Place,
        outcome: Looked,
        outlets: &mut Outlets,
        cx: &mut Cx<'_>,
    ) -> Result<(), Failure> {
        let first = self.flight.first(&door.routes.list[self.route]);
        let screen = self.screen(door);
        let socket = outlets.associate(place, &first, &outcome?, screen, cx)?;
        self.outlet.open(socket, cx);
        Ok(())
    }

    /// Sends a payload.
    pub(super) fn send(
        &mut self,
        door: &Door,
        scratch: &mut Vec<u8>,
        payload: &[u8],
        cx: &mut Cx<'_>,
    ) {
        let route = &door.routes.list[self.route];
        let sent = if route.hops.is_empty() {
            self.outlet.send(payload, cx)
        } else {
            scratch.clear();
            let nonces = &mut *door.nonces.borrow_mut();
            let wrapped = self.flight.wrap(route, scratch, stamp(cx), nonces, payload);
            wrapped.is_some() && self.outlet.send(scratch, cx)
        };
        let metric = if sent {
            Metric::Forwarded
        } else {
            Metric::DatagramsDropped
        };
        cx.count(metric, 1);
    }

    /// Sends a whole train as it is, where the chain has no hops.
    pub(super) fn send_train(&self, door: &Door, train: &Train<'_>, cx: &mut Cx<'_>) -> bool {
        let is_straight = door.routes.list[self.route].hops.is_empty();
        match self.outlet.socket().filter(|_| is_straight) {
            Some(socket) => {
                cx.count(Metric::Forwarded, train.count() as u64);
                cx.train(socket, None, train);
                true
            }
            None => false,
        }
    }

    /// True when what comes needs no unwrapping.
    pub(super) fn is_straight(&self, door: &Door) -> bool {
        door.routes.list[self.route].hops.is_empty()
    }

    /// The payload of what came; a failure stands for a datagram that was lost, and is for
    /// [`Leg::lose`].
    pub(super) fn receive<'a>(
        &mut self,
        door: &Door,
        datagram: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Failed> {
        let route = &door.routes.list[self.route];
        self.flight.unwrap(route, datagram, scratch)
    }

    /// A client's datagram was lost: the log says by whom. `at` is the number of the destination, where
    /// the configuration names it. Whoever is to blame is passed over from now on.
    pub(super) fn lose(
        &self,
        door: &Door,
        (client, at): (SocketAddr, Option<usize>),
        failed: Failed,
        cx: &mut Cx<'_>,
    ) {
        cx.count(Metric::DatagramsRefused, 1);
        let route = &door.routes.list[self.route];
        let kind = match failed.why {
            Why::Forged => "forged",
            why => why.code().name(),
        };
        door.complaints.say(kind, cx, |cx| {
            let (name, handle, to) = (&door.name, cx.handle, self.flight.destination());
            let mut line = format!("access {name} {handle} from={client} to={to}");
            route.describe(failed, &mut line);
            line + " datagram lost: " + &route.tell(failed)
        });
        match (route.blame(failed), at) {
            (Blame::Chain, _) => door.leave_out(self.route, failed),
            (Blame::Destination, Some(at)) => door.pass_over(at, self.route, failed, cx),
            (Blame::Destination, None) | (Blame::Nobody, _) => {}
        }
    }

    /// True when its chain is broken and another is not: it is left for that one.
    pub(super) fn is_left_out(&self, door: &Door) -> bool {
        door.routes.is_left_out(self.route)
    }

    /// What clients name is looked at before it is dialled; what the configuration names is not.
    fn screen<'a>(&self, door: &'a Door) -> Option<&'a Screen> {
        let is_theirs = door.protocol.is_proxy() && self.is_straight(door);
        is_theirs.then_some(&door.screen)
    }
}
