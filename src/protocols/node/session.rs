//! One node: its main connection, its registration, its visitors. The states are drawn in `mod.rs`.
//!
//! What is asked of the control thread and of the listener is in `address.rs`, what visitors send in
//! `visitors.rs`.

mod address;

use std::cell::RefCell;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use self::address::Request;
use super::Rules;
use super::desk::Desk;
use super::incoming::{Incoming, Next};
use super::visitors::Visitors;
use super::wire::{Demand, HEAD, Head, Identity, Transport, control_message, opcode};
use crate::buffer::Ring;
use crate::control::leases::Lease;
use crate::net::{ConnKey, ListenerKey};
use crate::runs::QUANTUM;
use crate::session::{Cause, Close, Cx, Event, Mail, Session};
use crate::stats::Metric;
use crate::wire::WireError;

/// A node and its visitors.
pub(super) struct NodeSession {
    desk: Rc<RefCell<Desk>>,
    rules: Arc<Rules>,
    /// Which main address it came to.
    address: usize,
    state: State,
    /// The main connection; none before the first event.
    main: Option<ConnKey>,
    incoming: Incoming,
    visitors: Visitors,
    node: Option<Node>,
    /// How many messages the server has made for it.
    nonce: u64,
    /// Bytes of answers that it may not have taken.
    owed: usize,
    /// Numbers the questions to the control thread.
    ticket: u32,
    /// When the timer for late frames fires.
    sweep: Option<Instant>,
    stopping: bool,
}

/// Who asks on a main connection.
#[derive(Clone, Copy)]
struct Node {
    identity: Identity,
    /// It sends no `connection_id`, so its identity is that of its first request.
    is_anonymous: bool,
}

enum State {
    /// The first event is still to come.
    Fresh,
    /// It has asked for nothing; its place among such.
    Unregistered(u64),
    /// The control thread is asked for a port.
    Asking(Request),
    /// The port is being listened on.
    Opening(Request, Lease),
    /// It has its address.
    Open(Lease, ListenerKey),
    /// Somebody newer has it.
    Superseded,
}

/// One session's word to another: there are too many unregistered connections.
struct MakeRoom;

impl NodeSession {
    /// A session that awaits its connection.
    pub(super) fn new(desk: Rc<RefCell<Desk>>, address: usize) -> Self {
        let rules = Arc::clone(&desk.borrow().rules);
        Self {
            desk,
            rules,
            address,
            state: State::Fresh,
            main: None,
            incoming: Incoming::default(),
            visitors: Visitors::default(),
            node: None,
            nonce: 0,
            owed: 0,
            ticket: 0,
            sweep: None,
            stopping: false,
        }
    }

    fn begin(&mut self, conn: ConnKey, cx: &mut Cx<'_>) {
        let (place, oldest) = self.desk.borrow_mut().arrive(cx.handle);
        if let Some(oldest) = oldest {
            cx.post(oldest, Mail::new(MakeRoom));
        }
        cx.arm(LIFE, self.rules.keepalive_timeout);
        self.main = Some(conn);
        self.state = State::Unregistered(place);
    }

    /// Reads the main connection.
    fn read(&mut self, rx: &mut Ring, last: bool, cx: &mut Cx<'_>) -> Result<(), Close> {
        let mut frames = 0;
        let held = self.read_frames(rx, &mut frames, cx)?;
        if held {
            self.incoming.rest();
            return Ok(());
        }
        if last && self.incoming.is_partial(rx) {
            return Err(Close::downstream(Cause::Truncated));
        }
        self.incoming.note(rx, frames > 0, cx.now, &self.rules);
        if let Some(due) = self.incoming.due() {
            self.watch(due, cx);
        }
        Ok(())
    }

    /// Goes through the frames of the main connection; true when it has to wait before it can go
    /// on.
    fn read_frames(
        &mut self,
        rx: &mut Ring,
        frames: &mut u64,
        cx: &mut Cx<'_>,
    ) -> Result<bool, Close> {
        let Some(main) = self.main else {
            return Ok(false);
        };
        loop {
            if self.is_busy() || self.is_deaf(main, cx) {
                cx.pause(main);
                return Ok(true);
            }
            let mut frame = match self.incoming.gather(rx) {
                Some(false) => return Ok(false),
                Some(true) => {
                    let frame = self.incoming.take(rx);
                    self.desk.borrow_mut().memory.give(frame.len(), cx);
                    frame
                }
                None => match self.incoming.next(main, 0, rx, &self.rules, cx)? {
                    Next::Part => return Ok(false),
                    Next::Frame(len) => {
                        let mut frame = std::mem::take(&mut self.desk.borrow_mut().scratch);
                        rx.take_into(len, &mut frame);
                        frame
                    }
                    Next::Long(len) if len > MOST_ASKED && self.is_unregistered() => {
                        // A request is far shorter, and who has made none is owed little memory.
                        return Err(WireError::TooLong {
                            field: "frame of an unregistered node",
                            length: len as u64,
                            most: MOST_ASKED as u64,
                        }
                        .into());
                    }
                    Next::Long(len) if self.desk.borrow_mut().memory.take(main, len, 0) => {
                        self.incoming.begin(len);
                        continue;
                    }
                    Next::Long(_) => {
                        cx.pause(main);
                        return Ok(true);
                    }
                },
            };
            *frames += 1;
            let outcome = self.take(&frame, cx);
            if frame.len() <= super::incoming::LONG {
                frame.clear();
                self.desk.borrow_mut().scratch = frame;
            }
            outcome?;
        }
    }

    fn is_unregistered(&self) -> bool {
        matches!(self.state, State::Unregistered(_))
    }

    /// A request is under way; what follows it waits.
    fn is_busy(&self) -> bool {
        matches!(self.state, State::Asking(..) | State::Opening(..))
    }

    /// True while it does not take the answers to its own messages.
    fn is_deaf(&self, main: ConnKey, cx: &Cx<'_>) -> bool {
        self.owed > QUANTUM && cx.unsent(main) > QUANTUM
    }

    /// Takes one frame of the main connection.
    fn take(&mut self, frame: &[u8], cx: &mut Cx<'_>) -> Result<(), Close> {
        let Some(head) = Head::decode(frame, self.rules.network, self.rules.max_frame)? else {
            return Ok(());
        };
        if head.is_compressed() {
            let compression = WireError::BadValue {
                field: "compression",
                value: head.compression.into(),
            };
            return Err(compression.into());
        }
        let demand = control_message(&frame[HEAD..], Some(self.rules.network))?;
        match demand.opcode {
            opcode::PROXY_REQUEST => self.request(&demand, cx),
            opcode::KEEPALIVE => self.keepalive(&demand, cx),
            _ => {
                cx.count(Metric::Ignored, 1);
                Ok(())
            }
        }
    }

    fn keepalive(&mut self, demand: &Demand<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.rules.admit(demand)?;
        let identity = self.rules.identify(demand, Transport::Tcp);
        let own = self.node.is_some_and(|node| node.is(demand, identity));
        let is_open = matches!(self.state, State::Open(..));
        let registered = (own && is_open) || self.desk.borrow().registry.has(&identity);
        if own && matches!(self.state, State::Superseded) && !registered {
            // Who took the address has gone. The node asks again when its connection ends, and
            // only then.
            return Err(Close::own(Cause::Denied("superseded")));
        }
        if own && registered {
            cx.arm(LIFE, self.rules.keepalive_timeout);
        }
        if registered {
            self.nonce += 1;
            let mut answer = Vec::new();
            let speaker = &self.rules.speakers[self.address];
            speaker.keepalive_response(&mut answer, self.nonce);
            self.say(&answer, cx);
        }
        Ok(())
    }

    /// Answers a request: the node's public address.
    fn answer(&mut self, request: &[u8], port: u16, cx: &mut Cx<'_>) {
        self.nonce += 1;
        let mut answer = Vec::new();
        let request = Demand {
            message: request,
            ..Demand::default()
        };
        let public = SocketAddr::new(self.rules.public_ip, port);
        let speaker = &self.rules.speakers[self.address];
        speaker.response(&mut answer, self.nonce, &request, public);
        self.say(&answer, cx);
        cx.arm(LIFE, self.rules.keepalive_timeout);
    }

    fn say(&mut self, answer: &[u8], cx: &mut Cx<'_>) {
        let Some(main) = self.main else { return };
        if cx.unsent(main) == 0 {
            self.owed = 0;
        }
        self.owed += answer.len();
        cx.send(main, answer);
    }

    /// The main connection's queue is short again.
    fn drained(&mut self, main: ConnKey, cx: &mut Cx<'_>) {
        self.owed = 0;
        let mut desk = self.desk.borrow_mut();
        self.visitors.drained(&mut desk.memory, cx);
        drop(desk);
        if !self.is_busy() {
            cx.resume(main);
        }
    }

    /// Somebody came to the node's address.
    fn visit(&mut self, conn: ConnKey, peer: SocketAddr, cx: &mut Cx<'_>) {
        if self.visitors.enter(conn, peer, &self.rules, cx) {
            self.watch(cx.now + self.rules.idle_timeout, cx);
        }
    }

    fn read_visitor(&mut self, conn: ConnKey, rx: &mut Ring, last: bool, cx: &mut Cx<'_>) {
        let Some(main) = self.main else { return };
        let mut desk = self.desk.borrow_mut();
        self.visitors.read((conn, main), rx, last, &mut desk, cx);
        drop(desk);
        if let Some(due) = self.visitors.due(conn, &self.rules) {
            self.watch(due, cx);
        }
    }

    /// A visitor's connection has ended; `closing` when it is still to be closed.
    fn part(&mut self, conn: ConnKey, closing: bool, cx: &mut Cx<'_>) -> Result<(), Close> {
        if closing {
            cx.close(conn);
        }
        let mut desk = self.desk.borrow_mut();
        self.visitors.forget(conn, &mut desk, cx);
        drop(desk);
        self.stop_if_idle()
    }

    /// Has the timer for late frames fire at `due`, or when it would have fired before.
    fn watch(&mut self, due: Instant, cx: &mut Cx<'_>) {
        if self.sweep.is_none_or(|at| due < at) {
            self.sweep = Some(due);
            cx.arm(SWEEP, due.saturating_duration_since(cx.now));
        }
    }

    /// Closes visitors who are late, or itself when the node is.
    fn look_for_late(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.sweep = None;
        let own = self.incoming.due();
        if own.is_some_and(|due| due <= cx.now) {
            return Err(Close::downstream(Cause::Deadline("frame")));
        }
        let mut desk = self.desk.borrow_mut();
        let next = self.visitors.sweep(&mut desk, cx);
        drop(desk);
        if let Some(due) = next.into_iter().chain(own).min() {
            // So many visitors as there may be are not gone through for each of them.
            let earliest = cx.now + self.rules.handshake_timeout / SWEEPS;
            self.watch(due.max(earliest), cx);
        }
        self.stop_if_idle()
    }

    fn stop(&mut self) -> Result<(), Close> {
        self.stopping = true;
        self.stop_if_idle()
    }

    fn stop_if_idle(&self) -> Result<(), Close> {
        match self.stopping && self.visitors.is_empty() {
            true => Err(Close::own(Cause::Stopping)),
            false => Ok(()),
        }
    }

    /// The timer of life: nothing was heard for too long, or the port is to be tried again.
    fn expire(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let cause = match &self.state {
            State::Opening(_, lease) => {
                self.listen(lease.port, cx);
                return Ok(());
            }
            State::Asking(_) => return Err(Close::own(Cause::Deadline("lease"))),
            State::Fresh | State::Unregistered(_) => Cause::Deadline("idle"),
            State::Open(..) | State::Superseded => Cause::Deadline("keepalive"),
        };
        Err(Close::downstream(cause))
    }
}

impl Node {
    fn is(&self, demand: &Demand<'_>, identity: Identity) -> bool {
        self.identity == identity || (self.is_anonymous && demand.connection_id.is_empty())
    }
}

impl Session for NodeSession {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        let is_main = |conn: ConnKey, main: Option<ConnKey>| main == Some(conn);
        match event {
            Event::Accepted {
                conn,
                listener: None,
                ..
            } => self.begin(conn, cx),
            Event::Accepted { conn, peer, .. } => self.visit(conn, peer, cx),
            Event::Data { conn, rx, last } if is_main(conn, self.main) => {
                return self.read(rx, last, cx);
            }
            Event::Data { conn, rx, last } => {
                self.read_visitor(conn, rx, last, cx);
                return self.stop_if_idle();
            }
            Event::Eof { conn } if is_main(conn, self.main) => return Err(Close::finished()),
            Event::Eof { conn } => return self.part(conn, true, cx),
            Event::Lost { conn, why } if is_main(conn, self.main) => {
                return Err(Close::downstream(Cause::Io("connection", why)));
            }
            Event::Lost { conn, .. } => return self.part(conn, false, cx),
            Event::Drained { conn } if is_main(conn, self.main) => self.drained(conn, cx),
            Event::Stalled { .. } => {
                return Err(Close::downstream(Cause::Deadline("slow receiver")));
            }
            Event::Reply { ticket, reply } => return self.hear(ticket, reply, cx),
            Event::Listening { listener, .. } => self.open(listener, cx),
            Event::Refused { why, .. } => return self.refused(why, cx),
            Event::Timer { tag: SWEEP } => return self.look_for_late(cx),
            Event::Timer { .. } => return self.expire(cx),
            Event::Mail { mail, .. } => {
                let asked = mail.open::<MakeRoom>().is_some();
                if asked && matches!(self.state, State::Unregistered(_)) {
                    return Err(Close::own(Cause::Overload("unregistered connections")));
                }
            }
            Event::Stopping => return self.stop(),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        // Writing to a string cannot fail.
        if let Some(node) = self.node {
            let _ = write!(out, " node={}", node.identity);
        }
        if let State::Open(lease, _) = &self.state {
            let public = SocketAddr::new(self.rules.public_ip, lease.port);
            let _ = write!(out, " lease={public}");
        }
        let (frames, bytes) = (self.visitors.frames, self.visitors.bytes);
        if frames > 0 {
            let visitors = self.visitors.len();
            let _ = write!(out, " visitors={visitors} frames={frames} bytes={bytes}");
        }
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.unregister();
        let mut desk = self.desk.borrow_mut();
        if let State::Unregistered(place) = self.state {
            desk.settle(place);
        }
        self.visitors.leave(&mut desk, cx);
        if let Some(main) = self.main {
            self.incoming.drop_all(main, &mut desk.memory, cx);
        }
    }
}

/// The longest frame of a connection that has registered no node.
const MOST_ASKED: usize = 2 << 20;

/// How long nothing may be heard; while the port is opened, when it is tried again.
const LIFE: u8 = 0;

/// Looks for frames that are late.
const SWEEP: u8 = 1;

/// How often in a handshake's time visitors are gone through at most.
const SWEEPS: u32 = 16;
