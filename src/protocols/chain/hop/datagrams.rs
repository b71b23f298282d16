//! The datagrams of one core that came to the hop.
//!
//! ```text
//!   client ── [own header][the rest] ──> hop ── [the rest] ──> next      a flow: client and next
//!   client <── [response][payload] ── hop <── payload ── next
//! ```
//!
//! Each datagram is a request of its own. What fails is answered by a response alone, which stands for
//! the datagram that was lost; what shows no key, is stale or came before gets no answer. A response is
//! shorter than any request, so that nobody is sent more than he has sent in another's name.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::super::outlet::{Begun, Outlet, Outlets};
use super::super::wire::binding::is_anchor;
use super::super::wire::{
    Address, Code, Direction, Nonce, Request, Response, Transport, frame_len, open_datagram,
    seal_datagram,
};
use super::{Heard, Hop, NO_LENGTH, PresentHop, code_of, target_of};
use crate::control::Reply;
use crate::net::{SocketKey, Train};
use crate::relay::{Flows, Place};
use crate::session::{Cause, Close, Cx, Event, Session};
use crate::stats::Metric;
use crate::upstream::Failure;

/// The session of one core's socket.
pub(in super::super) struct HopDatagrams {
    present: PresentHop,
    hop: Rc<Hop>,
    main: Option<SocketKey>,
    flows: Flows<(SocketAddr, Address), Flow>,
    outlets: Outlets,
    /// Made anew for each datagram; kept for their memory.
    frame: Vec<u8>,
    payload: Vec<u8>,
}

struct Flow {
    /// The request that responses are bound to.
    bound: Nonce,
    /// The payload goes under the payload key.
    is_sealed: bool,
    outlet: Outlet,
}

impl HopDatagrams {
    /// A session that awaits its socket.
    pub(in super::super) fn new(present: PresentHop) -> Self {
        let hop = Rc::clone(&present.borrow());
        let most = hop.rules.max_flows;
        Self {
            present,
            hop,
            main: None,
            flows: Flows::new(most),
            outlets: Outlets::default(),
            frame: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Takes a datagram of a client. `Err` says why it is left without an answer.
    fn take(
        &mut self,
        packet: &[u8],
        from: SocketAddr,
        cx: &mut Cx<'_>,
    ) -> Result<(), &'static str> {
        let len = frame_len(packet).map_err(|_| NO_LENGTH)?;
        let cut = len.and_then(|len| packet.split_at_checked(len));
        let (frame, rest) = cut.ok_or("the header is cut short")?;
        let (nonce, request) = match self.hop.hear(Transport::Udp, frame, cx) {
            Heard::Stranger(why) => return Err(why),
            Heard::Refused(nonce, code) => {
                self.respond(from, &nonce, code, &[], cx);
                return Ok(());
            }
            Heard::Request(nonce, request) => (nonce, request),
        };
        if request.flags.probe {
            self.respond(from, &nonce, Code::Ok, rest, cx);
            return Ok(());
        }
        let mut opened = std::mem::take(&mut self.payload);
        opened.clear();
        let key = self.hop.rules.payload_key.as_ref();
        let payload = match key.filter(|_| request.flags.sealed) {
            None => Some(rest),
            Some(key) => {
                let way = Direction::Request;
                let outcome = open_datagram(&mut opened, key, way, &nonce, rest);
                outcome.ok().map(|()| opened.as_slice())
            }
        };
        match payload {
            Some(payload) => self.pass(from, nonce, request, payload, cx),
            None => self.respond(from, &nonce, Code::Protocol, &[], cx),
        }
        self.payload = opened;
        Ok(())
    }

    /// Whoever has no key learns nothing, but the operator does, as of connections.
    fn deny(&self, from: SocketAddr, why: &'static str, cx: &mut Cx<'_>) {
        cx.count(Metric::DatagramsDenied, 1);
        self.hop.complaints.say(why, cx, |cx| {
            let handle = cx.handle;
            format!("chain {handle} from={from} datagram denied: {why}")
        });
    }

    /// Passes a payload on by its flow, which it begins if there is none.
    fn pass(
        &mut self,
        from: SocketAddr,
        nonce: Nonce,
        request: Request,
        payload: &[u8],
        cx: &mut Cx<'_>,
    ) {
        let key = (from, request.address);
        let place = match self.flows.find(&key) {
            Some(place) => place,
            None => match self.begin(key, nonce, cx) {
                Ok(place) => place,
                Err(failure) => return self.respond(from, &nonce, code_of(failure), &[], cx),
            },
        };
        let Some((_, flow)) = self.flows.touch(place, cx.now) else {
            return;
        };
        if is_anchor(&nonce) {
            flow.bound = nonce;
        }
        flow.is_sealed = request.flags.sealed;
        if flow.outlet.send(payload, cx) {
            cx.count(Metric::Forwarded, 1);
        } else {
            cx.count(Metric::DatagramsDropped, 1);
        }
    }

    fn begin(
        &mut self,
        key: (SocketAddr, Address),
        nonce: Nonce,
        cx: &mut Cx<'_>,
    ) -> Result<Place, Failure> {
        let target = target_of(&key.1);
        let flow = Flow {
            bound: nonce,
            is_sealed: false,
            outlet: Outlet::Waiting(Default::default()),
        };
        let was_empty = self.flows.is_empty();
        let (place, evicted) = self.flows.insert(key, flow, cx.now);
        if let Some((_, evicted)) = evicted {
            self.outlets.close(&evicted.outlet, cx);
        }
        if was_empty {
            cx.arm(SWEEP, self.pause());
        }
        let (screen, names) = (&self.hop.screen, &self.hop.names);
        match self.outlets.begin(place, &target, Some(screen), names, cx) {
            Begun::Waiting => {}
            Begun::Open(socket) => self.open(place, socket, cx),
            Begun::Failed(failure) => {
                self.flows.remove(place);
                return Err(failure);
            }
        }
        Ok(place)
    }

    fn open(&mut self, place: Place, socket: SocketKey, cx: &mut Cx<'_>) {
        if let Some((_, flow)) = self.flows.get_mut(place) {
            flow.outlet.open(socket, cx);
        } else {
            self.outlets.forget(socket);
            cx.unbind(socket);
        }
    }

    /// A flow's name was looked up, or not.
    fn resolved(&mut self, ticket: u32, reply: &Reply, cx: &mut Cx<'_>) {
        let Some((place, outcome)) = self.outlets.answered(ticket, reply) else {
            return;
        };
        let Some(((_, address), _)) = self.flows.get_mut(place) else {
            return;
        };
        let target = target_of(address);
        let screen = Some(&self.hop.screen);
        let opened = outcome.and_then(|addresses| {
            self.outlets
                .associate(place, &target, &addresses, screen, cx)
        });
        match opened {
            Ok(socket) => self.open(place, socket, cx),
            Err(failure) => self.end(place, failure, cx),
        }
    }

    /// A flow leads nowhere: its client hears why, and the next datagram begins another.
    fn end(&mut self, place: Place, failure: Failure, cx: &mut Cx<'_>) {
        if let Some(((client, _), flow)) = self.flows.remove(place) {
            self.outlets.close(&flow.outlet, cx);
            self.respond(client, &flow.bound, code_of(failure), &[], cx);
        }
    }

    /// A datagram could not be delivered; the flow goes on.
    fn bounced(&mut self, socket: SocketKey, failure: Failure, cx: &mut Cx<'_>) {
        let place = self.outlets.flow_of(socket);
        let flow = place.and_then(|place| self.flows.get_mut(place));
        if let Some(((client, _), flow)) = flow {
            let (client, bound) = (*client, flow.bound);
            self.respond(client, &bound, code_of(failure), &[], cx);
        }
    }

    /// Passes on what came back.
    fn receive(&mut self, socket: SocketKey, train: &Train<'_>, cx: &mut Cx<'_>) {
        let place = self.outlets.flow_of(socket);
        let flow = place.and_then(|place| self.flows.touch(place, cx.now));
        let Some((&(client, _), flow)) = flow else {
            return;
        };
        let (bound, is_sealed) = (flow.bound, flow.is_sealed);
        cx.count(Metric::Forwarded, train.count() as u64);
        for datagram in train.datagrams() {
            if is_sealed {
                self.respond_sealed(client, &bound, datagram, cx);
            } else {
                self.respond(client, &bound, Code::Ok, datagram, cx);
            }
        }
    }

    /// Sends a response, and what is behind it.
    fn respond(
        &mut self,
        to: SocketAddr,
        request: &Nonce,
        code: Code,
        rest: &[u8],
        cx: &mut Cx<'_>,
    ) {
        self.frame.clear();
        let response = Response { code, dial: 0 };
        let sealed = self
            .hop
            .answer(&mut self.frame, Transport::Udp, request, response);
        if let (Some(main), Some(_)) = (self.main, sealed) {
            cx.datagram(main, Some(to), &[&self.frame, rest]);
        }
    }

    /// Sends a good response with a payload under the payload key.
    fn respond_sealed(&mut self, to: SocketAddr, request: &Nonce, payload: &[u8], cx: &mut Cx<'_>) {
        self.frame.clear();
        let (code, dial) = (Code::Ok, 0);
        let (udp, response) = (Transport::Udp, Response { code, dial });
        let header = self.hop.answer(&mut self.frame, udp, request, response);
        let (Some(main), Some(key)) = (self.main, &self.hop.rules.payload_key) else {
            return;
        };
        if let (Some(header), Some(nonce)) = (header, self.hop.nonce()) {
            let way = Direction::Response;
            seal_datagram(&mut self.frame, key, way, &header, &nonce, payload);
            cx.datagram(main, Some(to), &[&self.frame]);
        }
    }

    /// Ends flows in which nothing has passed for long, and forgets nonces that are over.
    fn sweep(&mut self, cx: &mut Cx<'_>) {
        let idle = self.hop.rules.udp_idle_timeout;
        while let Some((_, flow)) = self.flows.expire(cx.now, idle) {
            self.outlets.close(&flow.outlet, cx);
        }
        let now = u64::try_from(cx.unix_time().as_millis()).unwrap_or(u64::MAX);
        self.hop.rules.replay.sweep(now);
        self.hop.complaints.settle(cx);
        cx.arm(SWEEP, self.pause());
    }

    fn pause(&self) -> Duration {
        match self.flows.is_empty() {
            true => QUIET,
            false => (self.hop.rules.udp_idle_timeout / 4).clamp(SHORTEST, QUIET),
        }
    }
}

impl Session for HopDatagrams {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Bound { socket, .. } if self.main.is_none() => {
                self.main = Some(socket);
                cx.arm(SWEEP, QUIET);
            }
            Event::Datagrams { socket, train } if Some(socket) == self.main => {
                for packet in train.datagrams() {
                    if let Err(why) = self.take(packet, train.from, cx) {
                        self.deny(train.from, why, cx);
                    }
                }
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
            // Every datagram is a request, so none is bound to what was.
            Event::Renewed { .. } => self.hop = Rc::clone(&self.present.borrow()),
            // The main socket closes, and without it nothing reaches a flow.
            Event::Stopping => return Err(Close::own(Cause::Stopping)),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        use std::fmt::Write;
        // Writing to a string cannot fail.
        let _ = write!(out, " flows={}", self.flows.len());
    }
}

/// Looks for what is over.
const SWEEP: u8 = 0;

/// How often while there are no flows.
const QUIET: Duration = Duration::from_secs(30);

/// How often at most.
const SHORTEST: Duration = Duration::from_millis(50);
