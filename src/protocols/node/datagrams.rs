//! Nodes that speak by datagrams: one session on each core for all whose datagrams come to it.
//!
//! ```text
//!   main port:   ProxyRequest ─> Asking ─> Opening ─> Open: answered ── Disconnect, no Keepalive ─> gone
//!                                                       │  ^ a request, from whatever source:
//!                                                       │  └─ answered, and that is where it is now
//!   leased port: any datagram ──────────────────────────┴─> to the node, from the main port, as it is
//! ```
//!
//! A datagram that is wrong, or not understood, is dropped; nobody is told. A lease that somebody
//! newer has, on this core or another, is given up as by a main connection.
//!
//! Bounds: [`MOST_ASKING`] requests under way; as many open nodes as there are ports; a peer is sent
//! nothing that is longer than what it sent.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::wire::{Demand, Identity, Transport, control_message, decode_datagram, opcode};
use super::{Rules, UDP_POOL};
use crate::control::leases::Lease;
use crate::control::{Command, Reply};
use crate::net::{SocketKey, Train};
use crate::session::{Cause, Close, Cx, Event, Session};
use crate::stats::Metric;

/// All nodes of one core that speak by datagrams.
pub(super) struct Datagrams {
    desk: Rc<RefCell<Desk>>,
    rules: Arc<Rules>,
    /// Which main address it is.
    address: usize,
    main: Option<SocketKey>,
    nodes: HashMap<Identity, Node>,
    /// Whose question a ticket is; kept while the node has its lease by it.
    tickets: HashMap<u32, Identity>,
    /// Whose a leased port is.
    leased: HashMap<SocketKey, Identity>,
    /// Nodes without a `connection_id`, whose address changes by the answer.
    sources: HashMap<SocketAddr, Identity>,
    ticket: u32,
    /// Leases whose end the control thread was told since the last look, by ticket.
    leaving: HashMap<u32, (Identity, u64)>,
    /// Those of them that it had no room for.
    unheard: Vec<(Identity, u64)>,
    /// Nodes that have no address yet.
    asking: usize,
    /// The timer that looks after the silent is armed.
    is_sweeping: bool,
}

struct Node {
    /// Where its datagrams go.
    source: SocketAddr,
    /// When it last sent a request or a Keepalive.
    heard: Instant,
    ticket: u32,
    state: State,
}

enum State {
    Asking(Request),
    /// The port is being opened, or to be tried again.
    Opening(Request, Lease),
    Open(Lease, SocketKey),
}

/// A request that is not answered yet.
struct Request {
    /// The request itself, for the answer.
    message: Box<[u8]>,
    /// Bytes of the request's datagram.
    len: usize,
    /// Ports that turned out to be held by other programs.
    foreign: u32,
    /// When the present port was first tried.
    since: Option<Instant>,
    /// The lease that is to be changed for another.
    epoch: Option<u64>,
}

impl Datagrams {
    /// A session that awaits its socket.
    pub(super) fn new(desk: Rc<RefCell<Desk>>, address: usize) -> Self {
        let rules = Arc::clone(&desk.borrow().rules);
        Self {
            desk,
            rules,
            address,
            main: None,
            nodes: HashMap::new(),
            tickets: HashMap::new(),
            leased: HashMap::new(),
            sources: HashMap::new(),
            ticket: 0,
            leaving: HashMap::new(),
            unheard: Vec::new(),
            asking: 0,
            is_sweeping: false,
        }
    }

    /// Takes one datagram of the main port; false when it is left without effect.
    fn take(&mut self, packet: &[u8], from: SocketAddr, cx: &mut Cx<'_>) -> Option<()> {
        let body = decode_datagram(packet).ok()?;
        let demand = control_message(body, None).ok()?;
        self.rules.admit(&demand).ok()?;
        let known = self.sources.get(&from);
        let identity = match known {
            Some(identity) if demand.connection_id.is_empty() => *identity,
            _ => self.rules.identify(&demand, Transport::Udp),
        };
        match demand.opcode {
            opcode::PROXY_REQUEST => self.request(identity, &demand, (from, packet.len()), cx),
            opcode::KEEPALIVE => self.keepalive(&identity, from, packet.len(), cx),
            opcode::DISCONNECT => {
                let node = self.nodes.get(&identity)?;
                let leaves = node.source == from && node.is_open();
                leaves.then(|| self.end(&identity, cx))
            }
            _ => None,
        }
    }

    fn request(
        &mut self,
        identity: Identity,
        demand: &Demand<'_>,
        (from, len): (SocketAddr, usize),
        cx: &mut Cx<'_>,
    ) -> Option<()> {
        if demand.address == format!("udp://{from}").as_bytes() {
            // Nothing translates its address: it is its own.
            self.answer(demand.message, len, from, from, cx);
            return Some(());
        }
        if let Some(node) = self.nodes.get_mut(&identity) {
            node.heard = cx.now;
            let former = std::mem::replace(&mut node.source, from);
            let is_anonymous = self.sources.remove(&former).is_some();
            if is_anonymous {
                self.sources.insert(from, identity);
            }
            if let State::Open(lease, _) = node.state {
                let public = SocketAddr::new(self.rules.public_ip, lease.port);
                self.answer(demand.message, len, public, from, cx);
            }
            return Some(());
        }
        if self.asking >= MOST_ASKING {
            return None;
        }
        let request = Request {
            message: demand.message.into(),
            len,
            foreign: 0,
            since: None,
            epoch: None,
        };
        let node = Node {
            source: from,
            heard: cx.now,
            ticket: 0,
            state: State::Asking(request),
        };
        self.nodes.insert(identity, node);
        self.asking += 1;
        if demand.connection_id.is_empty() {
            self.sources.insert(from, identity);
        }
        let command = Command::Lease {
            pool: UDP_POOL,
            owner: identity.as_bytes()[..].into(),
            wanted: None,
        };
        self.ask(identity, command, cx);
        if !self.is_sweeping {
            self.is_sweeping = true;
            cx.arm(SWEEP, self.rules.keepalive_timeout / SWEEPS);
        }
        Some(())
    }

    fn keepalive(
        &mut self,
        identity: &Identity,
        from: SocketAddr,
        len: usize,
        cx: &mut Cx<'_>,
    ) -> Option<()> {
        let node = self.nodes.get_mut(identity)?;
        if node.source != from || !node.is_open() {
            return None;
        }
        node.heard = cx.now;
        let mut answer = Vec::new();
        self.rules.speakers[self.address].keepalive_response(&mut answer, 0);
        self.say(&answer, len, from, cx);
        Some(())
    }

    fn ask(&mut self, identity: Identity, command: Command, cx: &mut Cx<'_>) {
        let Some(node) = self.nodes.get_mut(&identity) else {
            return;
        };
        self.tickets.remove(&node.ticket);
        self.ticket = self.ticket.wrapping_add(1);
        node.ticket = self.ticket;
        self.tickets.insert(self.ticket, identity);
        cx.ask(self.ticket, command);
    }

    fn answer(
        &self,
        request: &[u8],
        len: usize,
        public: SocketAddr,
        to: SocketAddr,
        cx: &mut Cx<'_>,
    ) {
        let demand = Demand {
            message: request,
            ..Demand::default()
        };
        let mut answer = Vec::new();
        let speaker = &self.rules.speakers[self.address];
        speaker.response(&mut answer, 0, &demand, public);
        self.say(&answer, len, to, cx);
    }

    /// Sends an answer, unless it is longer than the question: its sender may be somebody else.
    fn say(&self, answer: &[u8], len: usize, to: SocketAddr, cx: &mut Cx<'_>) {
        if let Some(main) = self.main
            && answer.len() <= len
        {
            cx.datagram(main, Some(to), &[answer]);
        }
    }

    fn hear(&mut self, ticket: u32, reply: Reply, cx: &mut Cx<'_>) {
        let Some(&identity) = self.tickets.get(&ticket) else {
            // The control thread had no room; it is told again.
            let refused = self.leaving.remove(&ticket);
            return self.unheard.extend(refused);
        };
        let Some(node) = self.nodes.get_mut(&identity) else {
            return;
        };
        match (reply, &mut node.state) {
            (Reply::Leased(lease), State::Asking(request)) => {
                let request = Request {
                    message: std::mem::take(&mut request.message),
                    since: None,
                    ..*request
                };
                node.state = State::Opening(request, lease);
                self.bind(identity, cx);
            }
            (
                Reply::Superseded { epoch } | Reply::Released { epoch },
                State::Open(lease, _) | State::Opening(_, lease),
            ) if lease.epoch == epoch => {
                self.end(&identity, cx);
            }
            (Reply::Superseded { .. } | Reply::Released { .. }, _) => {}
            (reply, State::Asking(_)) => {
                log::debug!("node {} node={identity} udp: {reply:?}", cx.handle);
                self.end(&identity, cx);
            }
            _ => {}
        }
    }

    /// Opens the leased port of a node.
    fn bind(&mut self, identity: Identity, cx: &mut Cx<'_>) {
        let Some(Node {
            state: State::Opening(_, lease),
            ..
        }) = self.nodes.get(&identity)
        else {
            return;
        };
        match cx.bind(SocketAddr::new(self.rules.bind_ip, lease.port)) {
            Some(socket) => drop(self.leased.insert(socket, identity)),
            None => self.end(&identity, cx),
        }
    }

    /// The leased port is open: the request is answered.
    fn open(&mut self, socket: SocketKey, cx: &mut Cx<'_>) {
        let identity = self.leased.get(&socket);
        let node = identity.and_then(|identity| Some((*identity, self.nodes.get_mut(identity)?)));
        let Some((identity, node)) = node else {
            return cx.unbind(socket);
        };
        let State::Opening(request, lease) = &mut node.state else {
            return cx.unbind(socket);
        };
        let (message, len, lease) = (std::mem::take(&mut request.message), request.len, *lease);
        node.state = State::Open(lease, socket);
        self.asking -= 1;
        let source = node.source;
        let public = SocketAddr::new(self.rules.public_ip, lease.port);
        let known = if lease.renewed { "renewed" } else { "new" };
        let handle = cx.handle;
        log::info!("node {handle} node={identity} udp={public} {known}");
        self.answer(&message, len, public, source, cx);
    }

    /// The leased port could not be opened.
    fn refused(&mut self, socket: SocketKey, why: io::ErrorKind, cx: &mut Cx<'_>) {
        let Some(identity) = self.leased.remove(&socket) else {
            return;
        };
        let Some(Node {
            state: State::Opening(request, lease),
            ..
        }) = self.nodes.get_mut(&identity)
        else {
            return;
        };
        let since = *request.since.get_or_insert(cx.now);
        let waited = cx.now.saturating_duration_since(since);
        let in_use = why == io::ErrorKind::AddrInUse;
        if in_use && lease.renewed && waited < TAKE_OVER {
            // Most likely another core has it still, and is about to hear of this.
            return cx.arm(RETRY, PAUSE);
        }
        if !in_use || request.foreign >= MOST_FOREIGN {
            log::warn!("node {} node={identity} udp: bind: {why}", cx.handle);
            return self.end(&identity, cx);
        }
        let command = Command::ForeignPort {
            pool: UDP_POOL,
            owner: identity.as_bytes()[..].into(),
            epoch: lease.epoch,
        };
        let request = Request {
            message: std::mem::take(&mut request.message),
            foreign: request.foreign + 1,
            epoch: Some(lease.epoch),
            ..*request
        };
        if let Some(node) = self.nodes.get_mut(&identity) {
            node.state = State::Asking(request);
        }
        self.ask(identity, command, cx);
    }

    /// Tries those ports again that were in use.
    fn retry(&mut self, cx: &mut Cx<'_>) {
        let waits = |node: &Node| match &node.state {
            State::Opening(request, _) => request.since.is_some(),
            _ => false,
        };
        let waiting = self.nodes.iter().filter(|(_, node)| waits(node));
        let waiting: Vec<_> = waiting.map(|(identity, _)| *identity).collect();
        for identity in waiting {
            self.bind(identity, cx);
        }
    }

    /// Ends those who were silent for too long.
    fn sweep(&mut self, cx: &mut Cx<'_>) {
        let timeout = self.rules.keepalive_timeout;
        // One without an address gets its answer, whatever it is, from the control thread.
        let is_late =
            |node: &Node| node.is_open() && cx.now.saturating_duration_since(node.heard) >= timeout;
        let late = self.nodes.iter().filter(|(_, node)| is_late(node));
        let late: Vec<_> = late.map(|(identity, _)| *identity).collect();
        for identity in late {
            self.end(&identity, cx);
        }
        // Those that were not refused by now have been heard.
        self.leaving.clear();
        for (identity, epoch) in std::mem::take(&mut self.unheard) {
            self.leave_lease(identity, epoch, cx);
        }
        let idle = self.nodes.is_empty() && self.leaving.is_empty();
        self.is_sweeping = !idle;
        if self.is_sweeping {
            cx.arm(SWEEP, timeout / SWEEPS);
        }
    }

    /// A node goes: its port is closed, and its lease runs out from now on.
    fn end(&mut self, identity: &Identity, cx: &mut Cx<'_>) {
        let Some(node) = self.nodes.remove(identity) else {
            return;
        };
        self.tickets.remove(&node.ticket);
        if self.sources.get(&node.source) == Some(identity) {
            self.sources.remove(&node.source);
        }
        let epoch = match node.state {
            State::Open(lease, socket) => {
                self.leased.remove(&socket);
                cx.unbind(socket);
                Some(lease.epoch)
            }
            State::Opening(_, lease) => {
                self.asking -= 1;
                Some(lease.epoch)
            }
            State::Asking(request) => {
                self.asking -= 1;
                request.epoch
            }
        };
        if let Some(epoch) = epoch {
            self.leave_lease(*identity, epoch, cx);
        }
    }

    fn leave_lease(&mut self, identity: Identity, epoch: u64, cx: &mut Cx<'_>) {
        let leave = Command::Leave {
            pool: UDP_POOL,
            owner: identity.as_bytes()[..].into(),
            epoch,
        };
        self.ticket = self.ticket.wrapping_add(1);
        self.leaving.insert(self.ticket, (identity, epoch));
        cx.ask(self.ticket, leave);
    }

    fn receive(&mut self, socket: SocketKey, train: Train<'_>, cx: &mut Cx<'_>) {
        if Some(socket) == self.main {
            for packet in train.datagrams() {
                if self.take(packet, train.from, cx).is_none() {
                    cx.count(Metric::Ignored, 1);
                }
            }
            return;
        }
        let identity = self.leased.get(&socket);
        let node = identity.and_then(|identity| self.nodes.get(identity));
        if let (Some(node), Some(main)) = (node, self.main) {
            cx.count(Metric::Forwarded, train.count() as u64);
            cx.train(main, Some(node.source), &train);
        }
    }
}

impl Node {
    fn is_open(&self) -> bool {
        matches!(self.state, State::Open(..))
    }
}

impl Session for Datagrams {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Bound { socket, .. } if self.main.is_none() => self.main = Some(socket),
            Event::Bound { socket, .. } => self.open(socket, cx),
            Event::Unbound { socket, why } => self.refused(socket, why, cx),
            Event::Datagrams { socket, train } => self.receive(socket, train, cx),
            Event::Reply { ticket, reply } => self.hear(ticket, reply, cx),
            Event::Timer { tag: SWEEP } => self.sweep(cx),
            Event::Timer { .. } => self.retry(cx),
            Event::Renewed { listener } => {
                self.rules = Arc::clone(&self.desk.borrow().rules);
                self.address = listener.unwrap_or(self.address);
            }
            // The main port closes, and without it nothing reaches a node.
            Event::Stopping => return Err(Close::own(Cause::Stopping)),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(out, " nodes={}", self.nodes.len());
    }
}

/// Looks for nodes that have fallen silent.
const SWEEP: u8 = 0;

/// Tries ports again.
const RETRY: u8 = 1;

/// How often in a keepalive's timeout the silent are looked for, so they end at most so much late.
const SWEEPS: u32 = 16;

/// Requests under way on one core; one more is dropped, and its sender asks again.
const MOST_ASKING: usize = 4096;

/// How long another core may take to close a port.
const TAKE_OVER: Duration = Duration::from_secs(2);

/// How soon a port that is in use for a moment is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// Ports of other programs that one request may meet.
const MOST_FOREIGN: u32 = 32;
