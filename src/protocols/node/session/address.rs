//! A node's address: asked of the control thread, listened on, taken over, taken away.
//!
//! ```text
//!   ask ──> Leased ──> listen ──┬─> Listening: answered
//!    ^                          ├─> in use, and the node's own before: again in a moment
//!    └──── ForeignPort <────────┴─> in use by another program
//! ```

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::TCP_POOL;
use super::super::wire::{Demand, MAX_ORIGIN, Transport};
use super::{LIFE, Node, NodeSession, State};
use crate::control::leases::{Lease, NoPort};
use crate::control::{Command, Reply};
use crate::net::ListenerKey;
use crate::session::{Cause, Close, Cx};

/// A request that is not answered yet.
pub(super) struct Request {
    /// Its inner message, as far as the answer needs it.
    message: Box<[u8]>,
    /// Ports that turned out to be held by other programs.
    foreign: u32,
    /// When the present port was first tried, and how long to wait before the next try.
    tried: Option<(Instant, Duration)>,
}

impl NodeSession {
    /// A node asks for its address.
    pub(super) fn request(&mut self, demand: &Demand<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.rules.admit(demand)?;
        let identity = self.rules.identify(demand, Transport::Tcp);
        let node = *self.node.get_or_insert(Node {
            identity,
            is_anonymous: demand.connection_id.is_empty(),
        });
        if !node.is(demand, identity) {
            let why = "a second identity on one connection";
            return Err(Close::downstream(Cause::Denied(why)));
        }
        if let State::Open(lease, _) = self.state {
            self.answer(demand.message, lease.port, cx);
            return Ok(());
        }
        if self.stopping {
            return Err(Close::own(Cause::Stopping));
        }
        if let (State::Unregistered(place), Some(main)) = (&self.state, self.main) {
            self.desk.borrow_mut().settle(*place);
            cx.patience(main, self.rules.keepalive_timeout);
        }
        // What is longer is not echoed, so it need not be kept.
        let kept = demand.message.len() <= 2 * MAX_ORIGIN;
        let request = Request {
            message: if kept { demand.message } else { &[] }.into(),
            foreign: 0,
            tried: None,
        };
        let command = Command::Lease {
            pool: TCP_POOL,
            owner: node.identity.as_bytes()[..].into(),
            wanted: None,
        };
        self.ask(request, command, cx);
        Ok(())
    }

    fn ask(&mut self, request: Request, command: Command, cx: &mut Cx<'_>) {
        self.ticket = self.ticket.wrapping_add(1);
        cx.ask(self.ticket, command);
        cx.arm(LIFE, self.rules.keepalive_timeout);
        self.state = State::Asking(request);
    }

    /// Takes an answer of the control thread.
    pub(super) fn hear(&mut self, ticket: u32, reply: Reply, cx: &mut Cx<'_>) -> Result<(), Close> {
        match reply {
            Reply::Superseded { epoch } => self.give_up(epoch, cx),
            Reply::Released { epoch } => self.release(epoch),
            // An answer to a question that was given up.
            _ if ticket != self.ticket => Ok(()),
            Reply::Leased(lease) => {
                self.state = match std::mem::replace(&mut self.state, State::Fresh) {
                    State::Asking(request) => {
                        self.listen(lease.port, cx);
                        let tried = None;
                        State::Opening(Request { tried, ..request }, lease)
                    }
                    other => other,
                };
                Ok(())
            }
            Reply::NoPort(NoPort::Superseded) => Err(superseded()),
            Reply::NoPort(NoPort::NotStored(_)) => {
                Err(Close::own(Cause::Overload("lease not stored")))
            }
            Reply::NoPort(_) => Err(Close::own(Cause::Overload("no_ports"))),
            Reply::Busy => Err(Close::own(Cause::Overload("control thread"))),
            _ => Ok(()),
        }
    }

    /// Listens on a leased port.
    pub(super) fn listen(&self, port: u16, cx: &mut Cx<'_>) {
        cx.listen(SocketAddr::new(self.rules.bind_ip, port), 0);
    }

    /// The leased port is listened on: the request is answered.
    pub(super) fn open(&mut self, listener: ListenerKey, cx: &mut Cx<'_>) {
        let Some((request, lease, node)) = self.opening() else {
            return cx.unlisten(listener); // It was tried twice.
        };
        self.state = State::Open(lease, listener);
        let desk = self.desk.borrow();
        desk.registry.enter(node.identity, lease.epoch);
        drop(desk);
        let (handle, identity) = (cx.handle, node.identity);
        let public = SocketAddr::new(self.rules.public_ip, lease.port);
        let known = if lease.renewed { "renewed" } else { "new" };
        log::info!("node {handle} node={identity} lease={public} {known}");
        self.answer(&request.message, lease.port, cx);
        if let Some(main) = self.main {
            cx.resume(main);
        }
    }

    /// The request whose port is being listened on, if there is one; the state is to be set anew.
    fn opening(&mut self) -> Option<(Request, Lease, Node)> {
        match std::mem::replace(&mut self.state, State::Fresh) {
            State::Opening(request, lease) => Some((request, lease, self.node?)),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// The leased port could not be listened on.
    pub(super) fn refused(&mut self, why: io::ErrorKind, cx: &mut Cx<'_>) -> Result<(), Close> {
        let Some((mut request, lease, node)) = self.opening() else {
            return Ok(());
        };
        if why != io::ErrorKind::AddrInUse {
            return Err(Close::own(Cause::Io("listen", why)));
        }
        let (since, pause) = request.tried.unwrap_or((cx.now, FIRST_PAUSE));
        let waited = cx.now.saturating_duration_since(since);
        if lease.renewed && waited < TAKE_OVER {
            // Most likely it is an older session of the same node, which is about to hear of this.
            request.tried = Some((since, (pause * 2).min(LONGEST_PAUSE)));
            cx.arm(LIFE, pause);
            self.state = State::Opening(request, lease);
            return Ok(());
        }
        if request.foreign >= MOST_FOREIGN {
            return Err(Close::own(Cause::Overload("no_ports")));
        }
        request.foreign += 1;
        let command = Command::ForeignPort {
            pool: TCP_POOL,
            owner: node.identity.as_bytes()[..].into(),
            epoch: lease.epoch,
        };
        self.ask(request, command, cx);
        Ok(())
    }

    /// Somebody newer has the lease of that epoch.
    fn give_up(&mut self, epoch: u64, cx: &mut Cx<'_>) -> Result<(), Close> {
        match &self.state {
            State::Open(lease, listener) if lease.epoch == epoch => {
                cx.unlisten(*listener);
                self.unregister();
                self.state = State::Superseded;
                Ok(())
            }
            State::Opening(_, lease) if lease.epoch == epoch => Err(superseded()),
            // A lease from before the request that is under way.
            _ => Ok(()),
        }
    }

    /// An operator has ended the lease of that epoch. The session ends with it, since only a node that
    /// comes back asks for an address and learns the new one.
    fn release(&self, epoch: u64) -> Result<(), Close> {
        match &self.state {
            State::Open(lease, _) | State::Opening(_, lease) if lease.epoch == epoch => {
                Err(Close::own(Cause::Kicked))
            }
            _ => Ok(()),
        }
    }

    /// Takes the registration out of the registry, unless it is somebody newer's already.
    pub(super) fn unregister(&self) {
        if let (State::Open(lease, _), Some(node)) = (&self.state, self.node) {
            let desk = self.desk.borrow();
            desk.registry.leave(&node.identity, lease.epoch);
        }
    }
}

fn superseded() -> Close {
    Close::own(Cause::Denied("superseded before it was answered"))
}

/// How long the node's own former session may take to stop listening.
const TAKE_OVER: Duration = Duration::from_secs(2);

/// A port that is in use for a moment is tried again so soon, then after twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Ports of other programs that one request may meet.
const MOST_FOREIGN: u32 = 32;
