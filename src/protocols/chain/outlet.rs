//! A flow's way out: a name that is looked up, then a socket of its own.
//!
//! ```text
//!   open ── address known ─────────────────────────> Open(socket)
//!     └─ name unknown ─> Waiting ── resolved ──────────^
//!                          └─ what comes meanwhile is kept, up to a bound, and no other flow waits
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::control::resolver::Names;
use crate::control::{Command, Reply};
use crate::net::SocketKey;
use crate::relay::Place;
use crate::session::Cx;
use crate::upstream::{Failure, Screen, Target};

/// Where a flow's datagrams go.
pub(super) enum Outlet {
    /// The name is being looked up; what came meanwhile.
    Waiting(Waiting),
    /// There.
    Open(SocketKey),
}

/// Datagrams that wait for a name.
#[derive(Default)]
pub(super) struct Waiting {
    datagrams: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Waiting {
    /// Keeps a datagram; false when it is dropped, as there is no room.
    fn keep(&mut self, datagram: &[u8]) -> bool {
        let fits = self.datagrams.len() < MOST_WAITING
            && self.bytes + datagram.len() <= MOST_WAITING_BYTES;
        if fits {
            self.bytes += datagram.len();
            self.datagrams.push(datagram.into());
        }
        fits
    }
}

impl Outlet {
    /// Sends a datagram, or keeps it until it can be; false when it is dropped.
    pub(super) fn send(&mut self, datagram: &[u8], cx: &mut Cx<'_>) -> bool {
        match self {
            Self::Open(socket) => {
                cx.datagram(*socket, None, &[datagram]);
                true
            }
            Self::Waiting(waiting) => waiting.keep(datagram),
        }
    }

    /// The way is there: what waited leaves.
    pub(super) fn open(&mut self, socket: SocketKey, cx: &mut Cx<'_>) {
        if let Self::Waiting(waiting) = std::mem::replace(self, Self::Open(socket)) {
            for datagram in waiting.datagrams {
                cx.datagram(socket, None, &[&datagram]);
            }
        }
    }

    /// Its socket, once it has one.
    pub(super) fn socket(&self) -> Option<SocketKey> {
        match self {
            Self::Open(socket) => Some(*socket),
            Self::Waiting(_) => None,
        }
    }
}

/// The lookups of one session's flows, and whose sockets are whose.
#[derive(Default)]
pub(super) struct Outlets {
    flows: HashMap<SocketKey, Place>,
    asked: HashMap<u32, Place>,
    ticket: u32,
}

/// What a lookup came to.
pub(super) type Looked = Result<Arc<[IpAddr]>, Failure>;

/// How opening a way began.
pub(super) enum Begun {
    /// It is open.
    Open(SocketKey),
    /// The name is being looked up: [`Outlets::resolved`] goes on.
    Waiting,
    /// It is not to be had.
    Failed(Failure),
}

impl Outlets {
    /// Begins a way to a target for a flow.
    pub(super) fn begin(
        &mut self,
        flow: Place,
        target: &Target,
        screen: Option<&Screen>,
        names: &Names,
        cx: &mut Cx<'_>,
    ) -> Begun {
        if let Some(known) = names.lookup(&target.host, cx.now) {
            return match self.associate(flow, target, &known, screen, cx) {
                Ok(socket) => Begun::Open(socket),
                Err(failure) => Begun::Failed(failure),
            };
        }
        if self.asked.len() >= MOST_LOOKUPS {
            return Begun::Failed(Failure::ResolverBusy);
        }
        self.ticket = self.ticket.wrapping_add(1);
        self.asked.insert(self.ticket, flow);
        let host = target.host.clone();
        cx.ask(self.ticket, Command::Resolve { host });
        Begun::Waiting
    }

    /// Whose lookup has ended, and how; `None` when it is of nobody's concern any more.
    pub(super) fn answered(&mut self, ticket: u32, reply: &Reply) -> Option<(Place, Looked)> {
        let flow = self.asked.remove(&ticket)?;
        let outcome = match reply {
            Reply::Resolved(Ok(addresses)) => Ok(addresses.clone()),
            Reply::Busy => Err(Failure::ResolverBusy),
            _ => Err(Failure::Unresolved),
        };
        Some((flow, outcome))
    }

    /// Opens a socket to the first address of a target that may be dialled.
    pub(super) fn associate(
        &mut self,
        flow: Place,
        target: &Target,
        addresses: &[IpAddr],
        screen: Option<&Screen>,
        cx: &mut Cx<'_>,
    ) -> Result<SocketKey, Failure> {
        let dialled = addresses.iter().map(|ip| SocketAddr::new(*ip, target.port));
        let mut permitted =
            dialled.filter(|address| screen.is_none_or(|screen| screen(target, *address)));
        let Some(address) = permitted.next() else {
            return Err(match addresses.is_empty() {
                true => Failure::Empty,
                false => Failure::Forbidden,
            });
        };
        let socket = cx.associate(address).ok_or(Failure::NoPort)?;
        self.flows.insert(socket, flow);
        Ok(socket)
    }

    /// Whose socket it is.
    pub(super) fn flow_of(&self, socket: SocketKey) -> Option<Place> {
        self.flows.get(&socket).copied()
    }

    /// The socket could not be opened; whose it was.
    pub(super) fn forget(&mut self, socket: SocketKey) -> Option<Place> {
        self.flows.remove(&socket)
    }

    /// Closes a flow's way.
    pub(super) fn close(&mut self, outlet: &Outlet, cx: &mut Cx<'_>) {
        if let Some(socket) = outlet.socket() {
            self.flows.remove(&socket);
            cx.unbind(socket);
        }
    }
}

/// Names under way for one session's flows; a flow more is refused.
const MOST_LOOKUPS: usize = 1024;

/// Datagrams of one flow that wait for its name.
const MOST_WAITING: usize = 16;

/// Bytes of them.
const MOST_WAITING_BYTES: usize = 64 * 1024;
