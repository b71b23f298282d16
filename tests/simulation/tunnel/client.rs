//! A client of the tunnel and its visitors, spoken by the public codecs and a book of its own.

mod strangers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use towpath::config::{Core, KEYS, Settings};
use towpath::control::resolver::{Lookup, Resolver};
use towpath::protocols::tunnel::Config;
use towpath::protocols::tunnel::wire::{
    Answer, Attach, Body, CHALLENGE, Claim, ClientId, Control, Expose, Exposed, Frame, GRANT,
    Grant, Kind, Mode, Options, Place, REPLY, Reason, Receiving, Reply, Sending, Ticket, Token,
    Transport, Uuid, Visit, append_stream,
};
use towpath::session::{Ground, Role};
use towpath::store::{Limits, Store};

use crate::house::Shape;
use crate::row::Row;
use crate::world::{Random, World};

/// The client, the server, and everybody who visits.
pub struct Client {
    pub row: Row,
    pub random: Random,
    /// Its connections and visitors, each by an address that nobody else has.
    last: u16,
    control: SocketAddr,
    /// How much of what each connection has heard was read.
    read: HashMap<SocketAddr, usize>,
    deaf: HashSet<SocketAddr>,
    session: Uuid,
    exposed: Option<Exposed>,
    pub visits: Vec<Visit>,
    pub closed: Vec<(Uuid, Reason)>,
    frames: Option<[SocketAddr; 2]>,
    /// In an order that is the same in every run: what they have to say is sent in it.
    guests: BTreeMap<SocketAddr, Guest>,
    /// Visitors that the server has reset.
    broken: HashSet<Uuid>,
}

/// One visitor on the connections for frames.
struct Guest {
    uuid: Uuid,
    sending: Sending,
    receiving: Receiving,
    /// Still to be sent.
    unsent: Vec<u8>,
    /// What has come and was not passed on, and was.
    unread: Vec<u8>,
    taken: Vec<u8>,
    /// The server goes on elsewhere, by this ticket.
    ticket: Option<Ticket>,
    /// The server has said its last frame.
    moves: bool,
    /// The visitor's stream has ended.
    ended: bool,
}

const TOKEN: &[u8] = b"a token";
const CLIENT: ClientId = ClientId::new([7; 16]);
pub const VISITOR_TIMEOUT: Duration = Duration::from_secs(10);

impl Client {
    /// A server of so many cores, and a client that it has welcomed.
    pub fn new(seed: u64, cores: usize) -> Self {
        Self::limited(seed, cores, [0; 2])
    }

    /// The same, with so many bytes a second for a service and for a source address.
    pub fn limited(seed: u64, cores: usize, [per_service, per_ip]: [u64; 2]) -> Self {
        let mut settings = Settings::new(&[KEYS, towpath::protocols::tunnel::config::KEYS]);
        let mut config = Config::read(&mut settings);
        config.token = towpath::config::Secret::new(TOKEN);
        config.listen = vec!["10.0.0.1:7400".parse().unwrap()];
        config.visitor_timeout = VISITOR_TIMEOUT;
        // Without a pool each visitor has a ticket of its own.
        config.pool = 0;
        config.bandwidth_per_service = per_service;
        let limits = Limits {
            max_value: 1,
            max_records: 1,
            max_bytes: 1,
        };
        let resolver: Resolver<()> =
            Resolver::inline(Box::new(Nobody), Duration::ZERO, Duration::ZERO);
        let ground = Ground {
            memory: Store::in_memory(limits).unwrap().memory(),
            names: resolver.names(),
            limits: Core::read(&mut Settings::new(&[KEYS])).limits,
            addresses: config.listen.clone(),
            own: [].into(),
            cores,
            connections: 1000,
            data_dir: PathBuf::new(),
        };
        let service = config.service(&ground);
        let seats = (0..cores).map(|core| service.seat(core as u8)).collect();
        let shape = Shape {
            bandwidth_per_ip: per_ip,
            ..Shape::default()
        };
        let listen = config.listen();
        let row = Row::lending(seed, shape, 100, &listen, seats, config.pools());
        let mut client = Self {
            row,
            random: Random::new(seed ^ 0x0070_ae11),
            last: 0,
            control: SocketAddr::from(([0; 4], 0)),
            read: HashMap::new(),
            deaf: HashSet::new(),
            session: Uuid::NONE,
            exposed: None,
            visits: Vec::new(),
            closed: Vec::new(),
            frames: None,
            guests: BTreeMap::new(),
            broken: HashSet::new(),
        };
        client.settle();
        client.control = client.prove(Claim::Control);
        client.settle();
        assert!(!client.session.is_none(), "no welcome");
        client
    }

    /// Somebody connects to that listener of a core, or to an address there.
    fn connect(&mut self, core: usize, at: Option<SocketAddr>) -> SocketAddr {
        let mut world = self.row.cores[core].world.borrow_mut();
        let id = match at {
            None => world.connect_to(0),
            Some(at) => world.visit(at),
        };
        self.last += 1;
        let [high, low] = self.last.to_be_bytes();
        let peer = SocketAddr::from(([10, 9, high, low], 9_000));
        world.sockets[id.expect("nobody listens")].peer = peer;
        peer
    }

    /// Where a connection is at present: it may have gone to another core.
    fn find(&self, peer: SocketAddr) -> (usize, usize) {
        let mut found: Option<((bool, usize, usize), usize, usize)> = None;
        for (core, one) in self.row.cores.iter().enumerate() {
            let world = one.world.borrow();
            let sockets = world.sockets.iter().enumerate();
            for (id, socket) in sockets.filter(|(_, socket)| socket.peer == peer) {
                // What a connection has left behind is closed, and never heard anything.
                let rank = (!socket.closed, socket.emitted(), id);
                if found.is_none_or(|(best, ..)| rank > best) {
                    found = Some((rank, core, id));
                }
            }
        }
        let (_, core, id) = found.unwrap();
        (core, id)
    }

    fn with<T>(&self, peer: SocketAddr, act: impl FnOnce(&mut World, usize) -> T) -> T {
        let (core, id) = self.find(peer);
        act(&mut self.row.cores[core].world.borrow_mut(), id)
    }

    pub fn say(&self, peer: SocketAddr, bytes: &[u8]) {
        self.with(peer, |world, id| world.send(id, bytes));
    }

    pub fn end(&self, peer: SocketAddr) {
        self.with(peer, |world, id| world.end(id));
    }

    pub fn reset(&self, peer: SocketAddr) {
        self.with(peer, |world, id| world.reset(id));
    }

    pub fn is_over(&self, peer: SocketAddr) -> bool {
        self.with(peer, |world, id| {
            world.sockets[id].is_over() || world.sockets[id].aborted
        })
    }

    /// All that a connection has heard.
    pub fn heard(&self, peer: SocketAddr) -> Vec<u8> {
        self.with(peer, |world, id| world.sockets[id].received.clone())
    }

    /// A connection reads nothing for now.
    pub fn deaf(&mut self, peer: SocketAddr) {
        self.deaf.insert(peer);
    }

    pub fn hears(&mut self, peer: SocketAddr) {
        self.deaf.remove(&peer);
    }

    /// Everything arrives, and is understood, until nothing moves any more.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 4 {
            let before = self.progress();
            for core in 0..self.row.cores.len() {
                let mut world = self.row.cores[core].world.borrow_mut();
                for id in 0..world.sockets.len() {
                    world.deliver(id, usize::MAX);
                    if !self.deaf.contains(&world.sockets[id].peer) {
                        world.receive(id, usize::MAX);
                    }
                }
            }
            self.row.quiesce();
            self.listen();
            let moved = self.progress() != before;
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    /// What has come and gone so far.
    fn progress(&self) -> Vec<(usize, usize, bool)> {
        let sockets = |core: &crate::row::Core| -> Vec<_> {
            let world = core.world.borrow();
            let sockets = world.sockets.iter();
            let told = sockets.map(|one| (one.received.len(), one.untaken(), one.is_over()));
            told.collect()
        };
        self.row.cores.iter().flat_map(sockets).collect()
    }

    pub fn wait(&mut self, time: Duration) {
        let until = self.row.now + time;
        while self.row.now < until {
            self.row
                .wait(until.min(self.row.now + Duration::from_secs(1)));
            self.settle();
        }
    }

    /// Time passes in small steps, so that what is limited is never held up by what is delivered.
    pub fn flow(&mut self, time: Duration) {
        let until = self.row.now + time;
        while self.row.now < until {
            self.row.wait(self.row.now + Duration::from_millis(10));
            self.settle();
        }
    }

    /// What a connection has heard and nobody has read.
    fn unread(&self, peer: SocketAddr) -> Vec<u8> {
        let read = self.read.get(&peer).copied().unwrap_or_default();
        self.heard(peer)[read..].to_vec()
    }

    fn note_read(&mut self, peer: SocketAddr, count: usize) {
        *self.read.entry(peer).or_default() += count;
    }

    /// A connection that proves the token.
    fn prove(&mut self, claim: Claim) -> SocketAddr {
        let core = self.random.below(self.row.cores.len());
        let peer = self.connect(core, None);
        self.say(peer, &claim.kind().preamble());
        self.settle();
        let challenge: [u8; CHALLENGE] = self.unread(peer).try_into().unwrap();
        self.note_read(peer, CHALLENGE);
        let (token, nonce) = (Token::new(TOKEN), [9; 32]);
        let mut bytes = Vec::new();
        Answer::new(&token, &challenge, claim, CLIENT, nonce).encode(&mut bytes);
        self.say(peer, &bytes);
        self.settle();
        let reply = Reply::decode(&self.unread(peer)).unwrap();
        assert_eq!(reply.check(&token, &challenge, &nonce), Ok(()));
        self.note_read(peer, REPLY);
        peer
    }

    fn tell(&self, frame: &Control<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.say(self.control, &bytes);
    }

    pub fn expose(&mut self, mode: Mode) {
        self.expose_with(mode, 0);
    }

    /// The same, with a set of wishes.
    pub fn expose_with(&mut self, mode: Mode, options: u32) {
        self.tell(&Control::Expose(Expose {
            request: 5,
            transport: Transport::Tcp,
            mode,
            port: 0,
            options: Options(options),
            epoch: 0,
            name: b"web",
        }));
        self.settle();
        assert!(self.exposed.is_some(), "not exposed");
    }

    /// Reads the control connection and those for frames.
    fn listen(&mut self) {
        if self.control.port() == 0 {
            return;
        }
        let bytes = self.unread(self.control);
        let mut rest = &bytes[..];
        while let Ok(Some((frame, len))) = Control::decode(rest) {
            match frame {
                Control::Welcome { session } => self.session = session,
                Control::Exposed(exposed) => self.exposed = Some(exposed),
                Control::Visit(visit) => self.visits.push(visit),
                Control::Closed { uuid, reason } => self.closed.push((uuid, reason)),
                Control::Ping(number) => self.tell(&Control::Pong(number)),
                other => panic!("{other:?}"),
            }
            rest = &rest[len..];
        }
        let left = rest.len();
        self.note_read(self.control, bytes.len() - left);
        self.listen_frames();
    }

    fn public(&self) -> SocketAddr {
        let public = self.exposed.unwrap().public;
        let bind = "127.0.0.1".parse().unwrap();
        SocketAddr::new(bind, public.port())
    }

    /// A visitor comes by a core.
    pub fn visit(&mut self, number: usize) -> SocketAddr {
        let core = number % self.row.cores.len();
        self.connect(core, Some(self.public()))
    }

    /// A visitor comes by the core that has the service's port.
    pub fn visit_own(&mut self) -> SocketAddr {
        let core = usize::from(self.session.core());
        self.connect(core, Some(self.public()))
    }

    /// A data connection, by any core.
    pub fn attach(&mut self, ticket: Ticket, uuid: Uuid) -> SocketAddr {
        let core = self.random.below(self.row.cores.len());
        let peer = self.connect(core, None);
        self.say(peer, &Attach { ticket, uuid }.encode());
        peer
    }

    /// One for every visitor that was announced, by the visitor's address.
    pub fn attach_all(&mut self, joined: &mut HashMap<SocketAddr, SocketAddr>) {
        let mut visits = std::mem::take(&mut self.visits);
        while !visits.is_empty() {
            let visit = visits.swap_remove(self.random.below(visits.len()));
            let data = self.attach(visit.ticket, visit.uuid);
            assert!(joined.insert(visit.visitor, data).is_none(), "told twice");
        }
    }

    pub fn refuse(&self, uuid: Uuid) {
        let reason = Reason::Unreachable;
        self.tell(&Control::Closed { uuid, reason });
    }

    pub fn leave(&self) {
        self.reset(self.control);
    }

    /// All ends: nothing but the halls is left, and those when the server stops.
    pub fn finish(&mut self) {
        self.leave();
        self.leave_frames();
        self.settle();
        self.wait(Duration::from_secs(40));
        for core in &self.row.cores {
            assert_eq!(core.worker.sessions(), 1, "something besides the hall");
            let held = core.worker.holdings();
            assert_eq!((held.conns, held.links, held.blocks), (0, 0, 0));
        }
    }

    /// The two connections for frames.
    pub fn join_frames(&mut self) {
        let place = Place {
            session: self.session,
            service: self.exposed.unwrap().service,
        };
        let send = self.prove(Claim::Send(place));
        let receive = self.prove(Claim::Receive(place));
        assert_eq!(Claim::Send(place).kind(), Kind::Send);
        self.frames = Some([send, receive]);
        self.settle();
    }

    fn listen_frames(&mut self) {
        let Some([send, receive]) = self.frames else {
            return;
        };
        let bytes = self.unread(receive);
        let mut rest = &bytes[..];
        while let Some((frame, len)) = Frame::decode(rest, Transport::Tcp).unwrap() {
            rest = &rest[len..];
            if let Body::Open(visitor) = frame.body {
                let guest = Guest {
                    uuid: frame.uuid,
                    sending: Sending::new(),
                    receiving: Receiving::new(),
                    unsent: Vec::new(),
                    unread: Vec::new(),
                    taken: Vec::new(),
                    ticket: None,
                    moves: false,
                    ended: false,
                };
                assert!(self.guests.insert(visitor.address, guest).is_none());
                continue;
            }
            let guest = self.guests.values_mut().find(|one| one.uuid == frame.uuid);
            let Some(guest) = guest else { continue };
            assert!(
                !guest.moves || frame.body == Body::Reset,
                "a frame behind the last"
            );
            match frame.body {
                Body::Data(raw) => {
                    let arrived = guest.receiving.arrived(raw.len() as u32);
                    arrived.expect("the server has overdrawn its credit");
                    guest.unread.extend(raw);
                }
                Body::Move(ticket) => (guest.moves, guest.ticket) = (true, Some(ticket)),
                Body::Reset => {
                    self.broken.insert(frame.uuid);
                }
                Body::End => guest.ended = true,
                _ => {}
            }
        }
        let left = rest.len();
        self.note_read(receive, bytes.len() - left);
        let grants = self.unread(send);
        let whole = grants.len() / GRANT * GRANT;
        for grant in grants[..whole].chunks(GRANT) {
            let grant = Grant::decode(grant).unwrap().unwrap();
            let mut guests = self.guests.values_mut();
            let guest = guests.find(|one| one.uuid == grant.uuid).unwrap();
            let granted = guest.sending.granted(grant.bytes);
            granted.expect("the server grants more than it was sent");
        }
        self.note_read(send, whole);
        self.send_frames(send);
    }

    fn send_frames(&mut self, send: SocketAddr) {
        let mut bytes = Vec::new();
        for guest in self.guests.values_mut() {
            let count = guest.sending.take(guest.unsent.len());
            let part: Vec<u8> = guest.unsent.drain(..count).collect();
            append_stream(&mut bytes, guest.uuid, &part);
        }
        self.say(send, &bytes);
    }

    /// The service has so many bytes for a visitor.
    pub fn flood(&mut self, visitor: SocketAddr, count: usize) {
        let bytes = self.random.bytes(count);
        let guest = self.guests.get_mut(&visitor).expect("was announced");
        guest.unsent.extend(bytes);
        self.listen();
    }

    /// The service says something to a visitor.
    pub fn speak(&mut self, visitor: SocketAddr, bytes: &[u8]) {
        let guest = self.guests.get_mut(&visitor).expect("was announced");
        guest.unsent.extend(bytes);
        self.listen();
    }

    /// Whether the server has asked to go on elsewhere with a visitor, and waits for that.
    pub fn is_asked(&self, visitor: SocketAddr) -> bool {
        self.guests[&visitor].ticket.is_some()
    }

    /// A data connection for a visitor that is to be moved.
    pub fn follow(&mut self, visitor: SocketAddr) -> SocketAddr {
        let guest = self.guests.get_mut(&visitor).unwrap();
        let (uuid, ticket) = (guest.uuid, guest.ticket.take().unwrap());
        let data = self.attach(ticket, uuid);
        self.settle();
        data
    }

    fn answer(&mut self, visitor: SocketAddr, body: Body<'_>) {
        let [send, _] = self.frames.unwrap();
        let uuid = self.guests[&visitor].uuid;
        let mut bytes = Vec::new();
        Frame { uuid, body }.encode(&mut bytes);
        self.say(send, &bytes);
    }

    /// The client's last frame of a visitor; what it has not sent so far is for the data connection.
    pub fn moved(&mut self, visitor: SocketAddr) -> Vec<u8> {
        self.answer(visitor, Body::Moved);
        let guest = self.guests.get_mut(&visitor).unwrap();
        std::mem::take(&mut guest.unsent)
    }

    /// The client has no data connection for it: frames as before.
    pub fn stay(&mut self, visitor: SocketAddr) {
        self.answer(visitor, Body::Stay);
        let guest = self.guests.get_mut(&visitor).unwrap();
        (guest.moves, guest.ticket) = (false, None);
    }

    /// The client gives a visitor up.
    pub fn reset_frames(&mut self, visitor: SocketAddr) {
        self.answer(visitor, Body::Reset);
    }

    /// The two connections for frames break.
    pub fn leave_frames(&mut self) {
        for peer in self.frames.take().into_iter().flatten() {
            self.reset(peer);
        }
    }

    /// Whether the server has closed both.
    pub fn have_frames_ended(&self) -> bool {
        let mut frames = self.frames.into_iter().flatten();
        frames.all(|peer| self.is_over(peer))
    }

    /// Whether the end of a visitor's stream has come.
    pub fn has_ended(&self, visitor: SocketAddr) -> bool {
        self.guests[&visitor].ended
    }

    /// Whether the server has reset a visitor.
    pub fn is_broken(&self, visitor: SocketAddr) -> bool {
        self.broken.contains(&self.guests[&visitor].uuid)
    }

    /// Whether a connection was reset by the server.
    pub fn was_reset(&self, peer: SocketAddr) -> bool {
        self.with(peer, |world, id| world.sockets[id].aborted)
    }

    /// What has come of a visitor and was not passed on.
    pub fn under_way(&self, visitor: SocketAddr) -> usize {
        self.guests[&visitor].unread.len()
    }

    /// The service takes what has come of a visitor, and credit is granted back.
    pub fn take_frames(&mut self, visitor: SocketAddr) -> Vec<u8> {
        let [_, receive] = self.frames.unwrap();
        let mut all = Vec::new();
        loop {
            let guest = self.guests.get_mut(&visitor).unwrap();
            let part = std::mem::take(&mut guest.unread);
            let grant = guest.receiving.drained(part.len() as u32);
            let uuid = guest.uuid;
            guest.taken.extend(&part);
            all.extend(&part);
            if let Some(bytes) = grant {
                self.say(receive, &Grant { uuid, bytes }.encode());
            }
            if part.is_empty() {
                return all;
            }
            self.settle();
        }
    }

    /// All that the service has taken of a visitor.
    pub fn taken(&self, visitor: SocketAddr) -> Vec<u8> {
        self.guests[&visitor].taken.clone()
    }

    /// The service ends its way to a visitor.
    pub fn end_frames(&self, visitor: SocketAddr) {
        let [send, _] = self.frames.unwrap();
        let mut bytes = Vec::new();
        let (uuid, body) = (self.guests[&visitor].uuid, Body::End);
        Frame { uuid, body }.encode(&mut bytes);
        self.say(send, &bytes);
    }
}

struct Nobody;

impl Lookup for Nobody {
    fn lookup(&self, _: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        Err(std::io::Error::other("no such name"))
    }
}
