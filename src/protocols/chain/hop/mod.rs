//! A hop: the proxy server, for connections and for datagrams.
//!
//! What both have in common is here: who is heard at all, what may be dialled, and what is answered.
//! `session.rs` is one connection, `datagrams.rs` all datagrams of one core.
//!
//! Bounds: a header is at most 538 bytes; what a client sends before it is answered waits in its
//! connection, 64 KiB of it; connections that showed no key are kept in silence up to `max_silent` a
//! core; flows up to `max_flows` a core; nonces within `replay_memory`.

mod datagrams;
mod session;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::datagrams::HopDatagrams;
pub(super) use self::session::HopSession;
use super::complaints::Complaints;
use super::nonces::Nonces;
use super::policy::Policy;
use super::replay::{Admission, Replay};
use super::wire::{
    Address, Code, Key, Nonce, Request, Response, Transport, Unsealed, open_request, seal_response,
};
use crate::control::resolver::Names;
use crate::net::Throttle;
use crate::session::{Cx, Silence};
use crate::upstream::{Failure, Screen, Target};

/// One core's part of the hop.
pub(super) struct Hop {
    pub(super) rules: Arc<Rules>,
    pub(super) names: Names,
    /// Says what may be dialled.
    pub(super) screen: Screen,
    nonces: RefCell<Nonces>,
    /// How many connections are kept without an answer.
    silent: Rc<Cell<usize>>,
    /// What is said of datagrams, on this core by the whole role.
    pub(super) complaints: Rc<Complaints>,
}

/// The hop that the sessions of one core begin with at present.
pub(super) type PresentHop = Rc<RefCell<Rc<Hop>>>;

/// What holds for all cores.
pub(super) struct Rules {
    pub(super) key: Key,
    pub(super) payload_key: Option<Key>,
    pub(super) policy: Policy,
    pub(super) replay: Arc<Replay>,
    pub(super) header_timeout: Duration,
    pub(super) dial_timeout: Duration,
    pub(super) silence: Silence,
    pub(super) udp_idle_timeout: Duration,
    pub(super) max_flows: usize,
    pub(super) max_silent: usize,
    /// Limits the bytes of all its connections together.
    pub(super) throttle: Option<Arc<Throttle>>,
}

impl Rules {
    /// True when they say nothing else, the requests that were seen being the same.
    pub(super) fn is_like(&self, other: &Rules) -> bool {
        let times = |one: &Self| {
            let udp_idle = one.udp_idle_timeout;
            (one.header_timeout, one.dial_timeout, one.silence, udp_idle)
        };
        // Kept where the rate is the same.
        let throttle = |one: &Self| one.throttle.as_ref().map(Arc::as_ptr);
        let keys = |one: &Self| (one.key.clone(), one.payload_key.clone());
        self.policy == other.policy
            && keys(self) == keys(other)
            && times(self) == times(other)
            && (self.max_flows, self.max_silent) == (other.max_flows, other.max_silent)
            && throttle(self) == throttle(other)
    }
}

/// What a frame is to a hop.
pub(super) enum Heard {
    /// A request to be served.
    Request(Nonce, Request),
    /// From one who has the key, but to be answered by this.
    Refused(Nonce, Code),
    /// From nobody: no answer. The words are for the log.
    Stranger(&'static str),
}

impl Hop {
    pub(super) fn new(rules: Arc<Rules>, names: Names) -> Rc<Self> {
        Self::of(rules, names, Rc::default(), Rc::default())
    }

    /// The same hop by other rules.
    pub(super) fn with(&self, rules: Arc<Rules>) -> Rc<Self> {
        let (silent, complaints) = (Rc::clone(&self.silent), Rc::clone(&self.complaints));
        Self::of(rules, self.names.clone(), silent, complaints)
    }

    fn of(
        rules: Arc<Rules>,
        names: Names,
        silent: Rc<Cell<usize>>,
        complaints: Rc<Complaints>,
    ) -> Rc<Self> {
        let policy = Arc::clone(&rules);
        let screen: Screen =
            Rc::new(move |target: &Target, address| policy.policy.permits(&target.host, address));
        Rc::new(Self {
            rules,
            names,
            screen,
            nonces: RefCell::new(Nonces::new()),
            silent,
            complaints,
        })
    }

    /// Reads a whole frame. A stale or repeated one is nobody's: whoever recorded it has no key.
    pub(super) fn hear(&self, transport: Transport, frame: &[u8], cx: &mut Cx<'_>) -> Heard {
        let (nonce, request) = match open_request(&self.rules.key, transport, frame) {
            Ok(opened) => opened,
            Err(Unsealed::Forged) => return Heard::Stranger("the header is not under our key"),
            Err(Unsealed::Malformed { nonce, .. }) => {
                return Heard::Refused(nonce, Code::Protocol);
            }
        };
        let now = u64::try_from(cx.unix_time().as_millis()).unwrap_or(u64::MAX);
        match self.rules.replay.admit(&nonce, request.stamp, now) {
            Admission::Fresh => {}
            Admission::Replayed => return Heard::Stranger("the header came before"),
            Admission::Stale => return Heard::Stranger("the header's time is not ours"),
            Admission::Full => return Heard::Refused(nonce, Code::Overloaded),
        }
        if request.flags.sealed && self.rules.payload_key.is_none() {
            return Heard::Refused(nonce, Code::Protocol);
        }
        Heard::Request(nonce, request)
    }

    /// Appends the answer to a request; its nonce. `None` when the system has no random bytes.
    pub(super) fn answer(
        &self,
        out: &mut Vec<u8>,
        transport: Transport,
        request: &Nonce,
        response: Response,
    ) -> Option<Nonce> {
        let nonce = self.nonce()?;
        let key = &self.rules.key;
        seal_response(out, key, transport, &nonce, request, &response);
        Some(nonce)
    }

    /// A nonce that is used once.
    pub(super) fn nonce(&self) -> Option<Nonce> {
        self.nonces.borrow_mut().next()
    }

    /// Takes a place among those who are kept in silence, if there is one.
    fn keep_silent(&self) -> bool {
        let free = self.silent.get() < self.rules.max_silent;
        self.silent.set(self.silent.get() + usize::from(free));
        free
    }

    fn leave_silence(&self) {
        self.silent.set(self.silent.get().saturating_sub(1));
    }
}

/// An address as the dialling wants it.
pub(super) fn target_of(address: &Address) -> Target {
    match address {
        Address::Socket(address) => Target {
            host: address.ip().to_string().into(),
            port: address.port(),
        },
        Address::Name { host, port } => Target {
            host: host.clone(),
            port: *port,
        },
    }
}

/// What the client is told of a failure.
pub(super) fn code_of(failure: Failure) -> Code {
    match failure {
        Failure::Unresolved | Failure::Empty => Code::Resolve,
        Failure::Refused | Failure::Reset => Code::Refused,
        Failure::NoHost | Failure::NoNetwork => Code::Unreachable,
        Failure::TimedOut => Code::Timeout,
        Failure::Forbidden | Failure::NotPermitted => Code::Forbidden,
        Failure::ResolverBusy | Failure::NoPort => Code::Overloaded,
        Failure::Nothing | Failure::Other => Code::Internal,
    }
}

/// For the log: what stands where a header's length would is none.
const NO_LENGTH: &str = "the header has no length of ours";

/// Whole milliseconds, as a response tells them.
pub(super) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
