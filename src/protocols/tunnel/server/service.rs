//! A client's services: asked of the control thread, listened to on all cores, lost to somebody newer.
//!
//! ```text
//!   Expose ──> Asking ── Leased ──> First: own core ──> Joining: the others ──> Open: Exposed
//!                ^                    │ in use, and the client's own before: again in a moment
//!                └──── ForeignPort ───┘ in use by another program
//!
//!   Superseded, Released, Withdraw, the end ──> its listeners close first, then the client is told
//! ```

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::mux::{End, Mux};
use super::super::wire::{
    Control as Frame, Expose, Exposed, Mode, Name, Place, Refusal, SUPERSEDED, Transport,
};
use super::super::{TCP_POOL, UDP_POOL, owner, refusal};
use super::control::{Control, RETRY};
use super::datagrams::Datagrams;
use super::trunk::Trunk;
use super::words::{Share, Word};
use crate::control::leases::{Lease, NoPort};
use crate::control::{Command, Reply};
use crate::net::Sharing;
use crate::reactor::Handle;
use crate::session::{Cause, Close, Cx, Mail, Session};

/// One service of a client.
pub(super) struct Service {
    pub(super) name: Name,
    pub(super) transport: Transport,
    mode: Mode,
    may_move: bool,
    owner: Box<[u8]>,
    request: u32,
    wanted: Option<u16>,
    any_port_will_do: bool,
    former: u64,
    stage: Stage,
    share: Option<Arc<Share>>,
    /// Who serves its visitors' frames, and listens for them.
    server: Option<Handle>,
    /// Ports that turned out to be held by other programs.
    foreign: u32,
    /// It was withdrawn before it was there.
    is_over: bool,
}

enum Stage {
    Asking,
    /// The port is being listened on by the first.
    First(Lease, Instant),
    /// It was in use, and is to be tried again.
    Again(Lease, Instant),
    /// So many others are to listen, too.
    Joining(Lease, usize),
    Open(Lease),
}

impl Service {
    /// Whether each visitor has a connection of its own.
    pub(super) fn is_direct(&self) -> bool {
        (self.transport, self.mode) == (Transport::Tcp, Mode::Direct)
    }

    fn pool(&self) -> &'static str {
        match self.transport {
            Transport::Tcp => TCP_POOL,
            Transport::Udp => UDP_POOL,
        }
    }

    fn lease(&self) -> Option<Lease> {
        match self.stage {
            Stage::Asking => None,
            Stage::First(lease, _)
            | Stage::Again(lease, _)
            | Stage::Joining(lease, _)
            | Stage::Open(lease) => Some(lease),
        }
    }

    fn ask(&self, number: u16, wanted: Option<u16>, cx: &mut Cx<'_>) {
        let command = Command::Lease {
            pool: self.pool(),
            owner: self.owner.clone(),
            wanted,
        };
        cx.ask(number.into(), command);
    }
}

impl Control {
    /// The client wants a service exposed.
    pub(super) fn expose(&mut self, expose: &Expose<'_>, cx: &mut Cx<'_>) {
        if let Err(code) = self.try_expose(expose, cx) {
            self.refuse(expose.request, code, cx);
        }
    }

    fn try_expose(&mut self, expose: &Expose<'_>, cx: &mut Cx<'_>) -> Result<(), Refusal> {
        let name = Name::new(expose.name).ok_or(Refusal::BadName)?;
        if expose.options.has_unknown() {
            return Err(Refusal::Unsupported);
        }
        if self.draining {
            return Err(Refusal::Draining);
        }
        if self.services.values().any(|known| known.name == name) {
            return Err(Refusal::AlreadyExposed);
        }
        let number = self.last.checked_add(1);
        let full = self.services.len() >= self.lobby.rules().max_services;
        let number = number.filter(|_| !full).ok_or(Refusal::TooManyServices)?;
        let owner = owner(&self.client, &name);
        if self.lobby.is_void(&owner, expose.epoch) {
            return Err(Refusal::Superseded);
        }
        let service = Service {
            name,
            transport: expose.transport,
            mode: expose.mode,
            may_move: expose.options.may_move(),
            owner: owner.into(),
            request: expose.request,
            wanted: (expose.port > 0).then_some(expose.port),
            any_port_will_do: expose.options.any_port_will_do(),
            former: expose.epoch,
            stage: Stage::Asking,
            share: None,
            server: None,
            foreign: 0,
            is_over: false,
        };
        service.ask(number, service.wanted, cx);
        self.last = number;
        self.services.insert(number, service);
        Ok(())
    }

    fn refuse(&self, request: u32, code: Refusal, cx: &mut Cx<'_>) {
        let (handle, client, word) = (cx.handle, self.client, code.word());
        log::info!("tunnel {handle} client={client} request={request} refused: {word}");
        let text = code.to_string();
        let text = text.as_str();
        self.say(
            &Frame::Refused {
                request,
                code,
                text,
            },
            cx,
        );
    }

    /// Takes an answer of the control thread.
    pub(super) fn hear(&mut self, ticket: u32, reply: Reply, cx: &mut Cx<'_>) -> Result<(), Close> {
        let number = u16::try_from(ticket).unwrap_or_default();
        let Some(service) = self.services.get_mut(&number) else {
            return Ok(());
        };
        match reply {
            Reply::Superseded { epoch } => {
                let current = service.lease().is_some_and(|lease| lease.epoch == epoch);
                return match current {
                    true => self.superseded(number, epoch, cx),
                    false => Ok(()),
                };
            }
            Reply::Released { epoch } => {
                let current = service.lease().is_some_and(|lease| lease.epoch == epoch);
                if current {
                    self.released(number, cx);
                }
            }
            Reply::Leased(lease) => self.leased(number, lease, cx),
            Reply::NoPort(NoPort::Taken | NoPort::Outside)
                if service.any_port_will_do && service.wanted.is_some() =>
            {
                service.wanted = None;
                service.ask(number, None, cx);
            }
            Reply::NoPort(why) => self.fail(number, refusal(&why), cx),
            Reply::Busy => self.fail(number, Refusal::Overloaded, cx),
            _ => {}
        }
        Ok(())
    }

    fn leased(&mut self, number: u16, lease: Lease, cx: &mut Cx<'_>) {
        let most = self.lobby.rules().max_visitors;
        let client = self.client;
        let Some(service) = self.services.get_mut(&number) else {
            return;
        };
        service.stage = Stage::First(lease, cx.now);
        self.lobby
            .note_line(&service.owner, service.former, lease.epoch, cx.now);
        if service.is_over {
            return self.drop_service(number, cx);
        }
        let known = (service.name.clone(), client);
        let rate = self.lobby.rules().bandwidth_per_service;
        let share = Share::new(known, number, cx.handle, service.may_move, most);
        let share = share.limited_to(rate);
        let share = Arc::new(share);
        service.share = Some(Arc::clone(&share));
        let (transport, mode, known) = (service.transport, service.mode, service.server);
        let server = known.or_else(|| match (transport, mode) {
            (Transport::Tcp, Mode::Direct) => self.lobby.halls(cx.handle.core).0,
            (transport, mode) => self.employ(transport, mode, share, cx),
        });
        let Some(server) = server else {
            return self.fail(number, Refusal::Overloaded, cx);
        };
        if let Some(service) = self.services.get_mut(&number) {
            service.server = Some(server);
        }
        if (transport, mode) != (Transport::Tcp, Mode::Direct) {
            let place = self.place(number);
            self.lobby.enter_place(place, client, server);
        }
        self.listen(number, cx);
    }

    /// Begins the session that serves the frames of a service's visitors.
    fn employ(
        &self,
        transport: Transport,
        mode: Mode,
        share: Arc<Share>,
        cx: &mut Cx<'_>,
    ) -> Option<Handle> {
        let lobby = Arc::clone(&self.lobby);
        let session: Box<dyn Session> = match transport {
            Transport::Tcp => Box::new(Trunk::new(lobby, share, Mux::new(End::Server))),
            Transport::Udp => Box::new(Datagrams::new(lobby, share, mode)),
        };
        cx.spawn(session)
    }

    fn place(&self, service: u16) -> Place {
        let session = self.session;
        Place { session, service }
    }

    /// Has the first of them listen.
    fn listen(&mut self, number: u16, cx: &mut Cx<'_>) {
        let Some(service) = self.services.get(&number) else {
            return;
        };
        if let (Some(server), Some(share), Some(lease)) =
            (service.server, &service.share, service.lease())
        {
            let share = Arc::clone(share);
            let [at, _] = self.lobby.rules().addresses(lease.port);
            let sharing = match service.is_direct() {
                true => Sharing::First,
                false => Sharing::Alone,
            };
            cx.post(server, Mail::new(Word::Open { share, at, sharing }));
        }
    }

    /// Whoever is to listen does, or cannot.
    pub(super) fn opened(
        &mut self,
        number: u16,
        outcome: Result<(), io::ErrorKind>,
        cx: &mut Cx<'_>,
    ) {
        let Some(service) = self.services.get_mut(&number) else {
            return;
        };
        match (&mut service.stage, outcome) {
            (Stage::First(lease, _), Ok(())) => {
                let lease = *lease;
                let others = match service.is_direct() {
                    true => self.lobby.halls(cx.handle.core).1,
                    false => Vec::new(),
                };
                service.stage = Stage::Joining(lease, others.len());
                let [at, _] = self.lobby.rules().addresses(lease.port);
                for hall in &others {
                    if let Some(share) = &service.share {
                        let (share, sharing) = (Arc::clone(share), Sharing::Join);
                        cx.post(*hall, Mail::new(Word::Open { share, at, sharing }));
                    }
                }
                if others.is_empty() {
                    self.exposed(number, cx);
                }
            }
            (Stage::First(lease, since), Err(why)) => {
                let (lease, since) = (*lease, *since);
                self.in_use(number, lease, since, why, cx);
            }
            (Stage::Joining(_, left), outcome) => {
                if let Err(why) = outcome {
                    let (handle, name) = (cx.handle, &service.name);
                    log::warn!("tunnel {handle} service={name}: a core does not listen: {why}");
                }
                *left -= 1;
                if *left == 0 {
                    self.exposed(number, cx);
                }
            }
            _ => {}
        }
    }

    /// The leased port could not be listened on.
    fn in_use(
        &mut self,
        number: u16,
        lease: Lease,
        since: Instant,
        why: io::ErrorKind,
        cx: &mut Cx<'_>,
    ) {
        let Some(service) = self.services.get_mut(&number) else {
            return;
        };
        let waited = cx.now.saturating_duration_since(since);
        let code = match why {
            io::ErrorKind::AddrInUse => None,
            io::ErrorKind::PermissionDenied => Some(Refusal::PortNotAllowed),
            _ => Some(Refusal::Overloaded),
        };
        if let Some(code) = code {
            return self.fail(number, code, cx);
        }
        if (lease.renewed || service.wanted.is_some()) && waited < TAKE_OVER {
            // Most likely it is an older connection of the client, which is about to hear of this.
            service.stage = Stage::Again(lease, since);
            if !self.retries {
                self.retries = true;
                cx.arm(RETRY, PAUSE);
            }
            return;
        }
        if service.wanted.is_some() && !service.any_port_will_do {
            return self.fail(number, Refusal::PortTaken, cx);
        }
        if service.foreign >= MOST_FOREIGN {
            return self.fail(number, Refusal::NoPorts, cx);
        }
        service.foreign += 1;
        service.stage = Stage::Asking;
        let command = Command::ForeignPort {
            pool: service.pool(),
            owner: service.owner.clone(),
            epoch: lease.epoch,
        };
        cx.ask(number.into(), command);
    }

    /// Tries those ports again that were in use.
    pub(super) fn retry(&mut self, cx: &mut Cx<'_>) {
        self.retries = false;
        let mut again = Vec::new();
        for (number, service) in &mut self.services {
            if let Stage::Again(lease, since) = service.stage {
                service.stage = Stage::First(lease, since);
                again.push(*number);
            }
        }
        for number in again {
            self.listen(number, cx);
        }
    }

    /// All listen: the client is told.
    fn exposed(&mut self, number: u16, cx: &mut Cx<'_>) {
        let Some(service) = self.services.get_mut(&number) else {
            return;
        };
        let Some(lease) = service.lease() else { return };
        service.stage = Stage::Open(lease);
        let rules = self.lobby.rules();
        let [_, public] = rules.addresses(lease.port);
        let (handle, client, name) = (cx.handle, self.client, &service.name);
        let (transport, known) = (service.transport, ["new", "renewed"]);
        let known = known[usize::from(lease.renewed)];
        log::info!("tunnel {handle} client={client} service={name} {transport}={public} {known}");
        let exposed = Exposed {
            request: service.request,
            service: number,
            lease_seconds: u32::try_from(rules.lease.as_secs()).unwrap_or(u32::MAX),
            epoch: lease.epoch,
            public,
        };
        self.say(&Frame::Exposed(exposed), cx);
    }

    /// A request comes to nothing.
    fn fail(&mut self, number: u16, code: Refusal, cx: &mut Cx<'_>) {
        if let Some(service) = self.services.get(&number) {
            self.refuse(service.request, code, cx);
            self.drop_service(number, cx);
        }
    }

    /// The client does not want a service any more.
    pub(super) fn withdraw(&mut self, number: u16, cx: &mut Cx<'_>) {
        if let Some(service) = self.services.get_mut(&number) {
            match service.stage {
                // The answer is on its way, and must be heard before the lease can be left.
                Stage::Asking => service.is_over = true,
                _ => self.drop_service(number, cx),
            }
        }
    }

    /// A service's lease is not the client's any more: nobody listens for it, and it is taken out.
    fn lose_service(&mut self, number: u16, cx: &mut Cx<'_>) -> Option<Service> {
        self.close_service(number, cx);
        self.refuse_visitors(Some(number), cx);
        self.services.remove(&number)
    }

    /// An operator has ended the lease: the client may ask anew, on this very connection.
    fn released(&mut self, number: u16, cx: &mut Cx<'_>) {
        if let Some(service) = self.lose_service(number, cx) {
            self.refuse(service.request, Refusal::Released, cx);
        }
    }

    /// Somebody newer has the lease.
    fn superseded(&mut self, number: u16, epoch: u64, cx: &mut Cx<'_>) -> Result<(), Close> {
        let Some(service) = self.lose_service(number, cx) else {
            return Ok(());
        };
        let (handle, client, name) = (cx.handle, self.client, &service.name);
        log::info!("tunnel {handle} client={client} service={name} superseded");
        match service.stage {
            Stage::Open(_) => self.say(
                &Frame::Superseded {
                    service: number,
                    epoch,
                    text: SUPERSEDED,
                },
                cx,
            ),
            _ => self.refuse(service.request, Refusal::Superseded, cx),
        }
        match self.services.is_empty() {
            true => Err(Close::own(Cause::Denied("superseded")).told()),
            false => Ok(()),
        }
    }

    /// A service is over, and its lease runs out from now on.
    fn drop_service(&mut self, number: u16, cx: &mut Cx<'_>) {
        if let Some(service) = self.lose_service(number, cx)
            && let Some(lease) = service.lease()
        {
            let leave = Command::Leave {
                pool: service.pool(),
                owner: service.owner,
                epoch: lease.epoch,
            };
            // Should the control thread have no room, the lease is left when the client goes.
            cx.ask(u32::MAX, leave);
        }
    }

    /// Has nobody listen for a service any more.
    pub(super) fn close_service(&mut self, number: u16, cx: &mut Cx<'_>) {
        let Some(service) = self.services.get(&number) else {
            return;
        };
        self.lobby.leave_place(&self.place(number));
        let others = match service.is_direct() {
            true => self.lobby.halls(cx.handle.core).1,
            false => Vec::new(),
        };
        for server in service.server.into_iter().chain(others) {
            cx.post(server, Mail::new(Word::Close { number }));
        }
    }
}

/// How long the client's own former connection may take to stop listening.
const TAKE_OVER: Duration = Duration::from_secs(2);

/// How soon a port that is in use for a moment is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// Ports of other programs that one request may meet.
const MOST_FOREIGN: u32 = 32;
