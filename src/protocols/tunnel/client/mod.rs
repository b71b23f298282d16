//! The client's side of the tunnel, on the same event loop: `towpath expose`, and `[[expose]]` of a
//! server's configuration.
//!
//! ```text
//!   Link: control connection ── Visit, PoolWanted ──> Errand: one visitor
//!     │   to one server                                 local service <── relay ──> data connection
//!     └── mux: Trunk, UDP: Datagrams: all visitors of a service, by frames
//! ```
//!
//! A link lives as long as the process: it dials, proves the token, exposes its services, and when the
//! connection is lost does all of that again after a pause with full jitter. Visitors that are being
//! served do not mind.
//!
//! What happens is told by [`Event`]s, in the order in which it happens, to whoever gave the function:
//! the log of a server, or a program.
//!
//! # Decisions
//!
//! * A token that the server refuses, and a server that does not know the token, end a program's
//!   link for good; a server's goes on trying, since nobody watches it.
//! * A service that is superseded ends for good, and so does one that is refused for what it asks. One
//!   that is refused for want of a port ends where it never had one, and is asked for again, with pauses,
//!   where it had; a server that is overloaded or stopping is asked again in any case, and so is one
//!   whose operator has released the port.
//! * The pauses' ceiling doubles from 0.1 to 4 seconds, so that a client is back within five seconds
//!   of its server, however long that was away; of a server's link that is denied it is 30 seconds.
//! * Links live on core 0, and their visitors with them.

mod datagrams;
mod errand;
mod guest;
mod joining;
mod link;
mod trunk;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use self::link::Link;
use super::config::{Expose, Exposure};
use super::identity;
use super::wire::{ClientId, Name, Refusal, Token};
use crate::reactor::Handle;
use crate::session::{
    Cause, Close, Cx, Ground, Listen, Mail, Resident, Role, Seat, Service, Session,
};
use crate::upstream::{Target, Targets};

/// What happens to a client, for people and for programs.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The server has taken the client.
    Connected,
    /// A service has its public address.
    Exposed {
        /// The service.
        name: Name,
        /// Where visitors go.
        public: SocketAddr,
    },
    /// A service gets no address, for good or until it is asked for again.
    Refused {
        /// The service.
        name: Name,
        /// Why.
        why: Refusal,
        /// When it is asked for again; none is never.
        pause: Option<Duration>,
    },
    /// A newer client has the service, for good.
    Superseded {
        /// The service.
        name: Name,
        /// What the server says.
        text: Box<str>,
    },
    /// There is no connection to the server.
    Lost {
        /// Why.
        why: Box<str>,
        /// When it is tried again.
        pause: Duration,
    },
    /// The server will not have this client, for good.
    Denied {
        /// Why.
        why: Box<str>,
    },
    /// The server is stopping.
    Draining,
    /// A visitor could not be served, as the inside service was not there.
    Unreachable {
        /// The service.
        name: Name,
        /// Why.
        why: &'static str,
    },
    /// A connection to the server for a service's visitors was refused, or closed before it was proved.
    Failed {
        /// The service.
        name: Name,
        /// Why.
        why: Box<str>,
    },
    /// Nothing is left to do: every service has ended for good.
    Ended,
}

/// Who is told what happens.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// Clients without a server's side: what `towpath expose` runs.
pub struct Clients {
    /// Each a client of one server.
    pub exposes: Vec<Expose>,
    /// Who is told.
    pub tell: Tell,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clients({:?})", self.exposes)
    }
}

impl Role for Clients {
    fn listen(&self) -> Vec<Listen> {
        Vec::new()
    }

    fn is_on(&self) -> bool {
        !self.exposes.is_empty()
    }

    fn show(&self, _out: &mut String) {}

    fn service(&self, ground: &Ground) -> Arc<dyn Service> {
        let tell = |_: &Expose| Arc::clone(&self.tell);
        Arc::new(Agency::new(&self.exposes, ground, false, tell))
    }
}

/// The clients of a process at work.
pub(super) struct Agency {
    links: Vec<Ready>,
}

/// One of them, with all that its sessions are made of.
struct Ready {
    expose: Expose,
    client: ClientId,
    tell: Tell,
    persists: bool,
    names: crate::control::resolver::Names,
    limits: crate::config::Limits,
    /// The same for as long as it is the same client.
    tenure: u64,
}

impl Agency {
    /// The clients of these servers; one whose identity cannot be read is left out, and that is told.
    pub(super) fn new(
        exposes: &[Expose],
        ground: &Ground,
        persists: bool,
        tell: impl Fn(&Expose) -> Tell,
    ) -> Self {
        let mut links = Vec::new();
        for expose in exposes {
            let own = ground.data_dir.join("expose.id");
            let path = expose.identity.as_ref().unwrap_or(&own);
            let tell = tell(expose);
            match identity::at(path) {
                Ok(client) => links.push(Ready {
                    expose: expose.clone(),
                    client,
                    tell,
                    persists,
                    names: ground.names.clone(),
                    limits: ground.limits.clone(),
                    tenure: links.len() as u64,
                }),
                Err(error) => {
                    let path = path.display();
                    let why = format!("the identity {path} cannot be used: {error}");
                    log::error!("expose on {}: {why}", expose.server);
                    tell(Event::Denied { why: why.into() });
                }
            }
        }
        Self { links }
    }

    /// The same behind another one: whoever was there already, and is to be as it was, is the same
    /// client.
    pub(super) fn behind(mut self, former: &Agency) -> Self {
        let tenures = former.links.iter().map(|link| link.tenure);
        let mut next = tenures.max().map_or(0, |last| last + 1);
        for link in &mut self.links {
            let known = former.links.iter().find(|known| link.is_like(known));
            link.tenure = known.map_or(next, |known| known.tenure);
            next += u64::from(known.is_none());
        }
        self
    }

    /// The same once more, for another core.
    pub(super) fn again(&self) -> Self {
        let links = self.links.iter().map(Ready::again).collect();
        Self { links }
    }

    /// The session of that number on this core.
    pub(super) fn resident(&self, core: u8, number: usize) -> Option<Resident> {
        let ready = self.links.get(number).filter(|_| core == 0)?;
        let session: Box<dyn Session> = Box::new(Link::new(Rules::new(ready)));
        let name = "expose".to_owned();
        Some(Resident {
            name,
            tenure: ready.tenure,
            session,
        })
    }
}

impl Service for Agency {
    fn seat(&self, core: u8) -> Box<dyn Seat> {
        let agency = self.again();
        Box::new(Booth { agency, core })
    }
}

impl Ready {
    /// True when its session would do nothing else.
    fn is_like(&self, other: &Self) -> bool {
        let of = |one: &Self| {
            let limits = &one.limits;
            (one.client, limits.connect_timeout, limits.handshake_timeout)
        };
        self.expose == other.expose && of(self) == of(other)
    }

    fn again(&self) -> Self {
        Self {
            expose: self.expose.clone(),
            client: self.client,
            tell: Arc::clone(&self.tell),
            persists: self.persists,
            names: self.names.clone(),
            limits: self.limits.clone(),
            tenure: self.tenure,
        }
    }
}

/// For who comes where nobody listens: lets go at once.
pub(super) fn nothing() -> Box<dyn Session> {
    Box::new(errand::Nothing)
}

/// Writes what happens to a client of this server into the log.
pub(super) fn log(server: &str, event: &Event) {
    let told = format!("expose on {server}: {event}");
    match event {
        Event::Connected | Event::Exposed { .. } | Event::Draining => log::info!("{told}"),
        _ => log::warn!("{told}"),
    }
}

/// One line for each.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Exposed { name, public } => write!(f, "{name} has the public address {public}"),
            Self::Refused { name, why, pause } => {
                write!(f, "{name} is refused: {why} ({})", why.word())?;
                match pause {
                    Some(pause) => write!(f, "; again in {}", Rounded(*pause)),
                    None => Ok(()),
                }
            }
            Self::Superseded { name, text } => write!(f, "{name}: {text}"),
            Self::Lost { why, pause } => {
                write!(f, "no connection: {why}; again in {}", Rounded(*pause))
            }
            Self::Denied { why } => write!(f, "refused for good: {why}"),
            Self::Draining => f.write_str("the server is stopping"),
            Self::Unreachable { name, why } => {
                write!(f, "{name}: the inside service cannot be reached: {why}")
            }
            Self::Failed { name, why } => {
                write!(f, "{name}: a connection for its visitors has failed: {why}")
            }
            Self::Ended => f.write_str("nothing is left to do"),
        }
    }
}

/// A pause as people read it.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// One core's part of them.
struct Booth {
    agency: Agency,
    core: u8,
}

impl Seat for Booth {
    fn accept(&mut self, _listener: usize) -> Box<dyn Session> {
        nothing()
    }

    fn resident(&mut self, number: usize) -> Option<Resident> {
        self.agency.resident(self.core, number)
    }
}

/// What the sessions of one client share.
struct Rules {
    server: Rc<Targets>,
    token: Token,
    client: ClientId,
    services: Vec<Exposure>,
    locals: Vec<Rc<Targets>>,
    handshake_timeout: Duration,
    persists: bool,
    random: SystemRandom,
    tell: Tell,
    /// The services that have their address, by their numbers on the present control connection.
    routes: RefCell<HashMap<u16, Route>>,
}

/// Where the visitors of a service go.
#[derive(Clone, Copy)]
struct Route {
    /// Which of the client's services.
    at: usize,
    public: SocketAddr,
}

impl Rules {
    fn new(ready: &Ready) -> Rc<Self> {
        let expose = &ready.expose;
        let timeout = ready.limits.connect_timeout;
        let targets =
            |target: &Target| Targets::new(vec![target.clone()], timeout, ready.names.clone());
        let token = expose
            .token
            .as_ref()
            .map_or(&[][..], |token| token.expose());
        Rc::new(Self {
            server: targets(&expose.server),
            token: Token::new(token),
            client: ready.client,
            locals: expose
                .services
                .iter()
                .map(|one| targets(&one.local))
                .collect(),
            services: expose.services.clone(),
            handshake_timeout: ready.limits.handshake_timeout,
            persists: ready.persists,
            random: SystemRandom::new(),
            tell: Arc::clone(&ready.tell),
            routes: RefCell::default(),
        })
    }

    fn random<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).ok().map(|()| bytes)
    }

    fn tell(&self, event: Event) {
        (self.tell)(event);
    }

    fn route(&self, service: u16) -> Option<Route> {
        self.routes.borrow().get(&service).copied()
    }
}

/// Tells a link why a connection for visitors has come to nothing, where that is news: a place that the
/// server does not know any more is another control connection's.
fn tell_failure(link: Handle, at: Option<usize>, close: &Close, cx: &mut Cx<'_>) {
    let why = match close.cause {
        Cause::Stopping | Cause::Finished | Cause::Denied("unknown place") => return,
        Cause::Truncated => "the server has closed it".into(),
        cause => cause.to_string().into(),
    };
    cx.post(link, Mail::new(Word::Failed { at, why }));
}

/// What the sessions of a client tell each other.
enum Word {
    /// To the link: a visitor cannot be served.
    Unserved {
        uuid: super::wire::Uuid,
        at: usize,
        why: &'static str,
    },
    /// To the link: a connection for visitors of a service, or for the pool, has come to nothing.
    Failed { at: Option<usize>, why: Box<str> },
    /// From the link: what was served so far may end, nothing new comes.
    End,
}
