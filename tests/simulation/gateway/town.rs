//! A gateway of one to three workers with everybody who comes to it. What the peers do is chosen in
//! `play.rs`, what must hold when all is still is told in `model.rs`; here frames go out and come in, and
//! each that comes in must fit what is known.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use towpath::config::{Core, KEYS, Settings};
use towpath::control::resolver::{Lookup, Resolver};
use towpath::protocols::gateway::Config;
use towpath::protocols::gateway::wire::{ANSWER, CHALLENGE, Command, Dialect, answer};
use towpath::session::{Ground, Role};
use towpath::store::{Limits, Store};

use super::peer::{Dialled, Due, Fate, Heard, Peer, TAG, data, message, said, sender};
use crate::house::Shape;
use crate::row::Row;
use crate::world::{Random, Shared};

/// Everybody, and what is known of them all.
pub struct Town {
    pub row: Row,
    pub random: Random,
    pub config: Config,
    pub peers: Vec<Peer>,
    /// Clients by the ids that servers have learned.
    pub clients: HashMap<u32, usize>,
    /// How often the servers of an id have changed.
    pub changes: HashMap<u32, usize>,
    /// Grows with each look at who has entered.
    pub entries: usize,
    /// Ids that the gateway has chosen.
    pub chosen: HashSet<u32>,
    /// The gateway is stopping.
    pub stopping: bool,
}

impl Town {
    pub fn new(seed: u64, config: Config, cores: usize, depth: usize) -> Self {
        let limits = Limits {
            max_value: 1 << 20,
            max_records: 1,
            max_bytes: 1 << 20,
        };
        let resolver: Resolver<()> =
            Resolver::inline(Box::new(Nobody), Duration::ZERO, Duration::ZERO);
        let ground = Ground {
            memory: Store::in_memory(limits).unwrap().memory(),
            names: resolver.names(),
            limits: Core::read(&mut Settings::new(&[KEYS])).limits,
            addresses: Vec::new(),
            own: [].into(),
            cores: 1,
            connections: 1000,
            data_dir: std::path::PathBuf::new(),
        };
        let service = config.service(&ground);
        let seats = (0..cores).map(|core| service.seat(core as u8)).collect();
        let row = Row::new(seed, Shape::default(), depth, &config.listen(), seats);
        Self {
            row,
            random: Random::new(seed ^ 0x0009_a7e3),
            config,
            peers: Vec::new(),
            clients: HashMap::new(),
            changes: HashMap::new(),
            entries: 0,
            chosen: HashSet::new(),
            stopping: false,
        }
    }

    pub fn world(&self, peer: usize) -> Shared {
        self.row.cores[self.peers[peer].core].world.clone()
    }

    /// A client comes; `None` when nobody listens any more.
    pub fn join_client(&mut self, core: usize, dialect: Dialect) -> Option<usize> {
        let peer = self.join(core, dialect, None)?;
        // A client's first command tells its dialect.
        match dialect {
            Dialect::Document => self.ask_id(peer),
            Dialect::Fastway => self.ping(peer),
        }
        Some(peer)
    }

    /// A server comes; the challenge is still to be answered.
    pub fn join_server(&mut self, core: usize, id: u32) -> Option<usize> {
        let peer = self.join(core, self.config.server_dialect, Some(id))?;
        *self.changes.entry(id).or_default() += 1;
        Some(peer)
    }

    fn join(&mut self, core: usize, dialect: Dialect, server: Option<u32>) -> Option<usize> {
        let door = usize::from(server.is_some());
        let socket = self.row.cores[core].world.borrow_mut().connect_to(door)?;
        let now = self.row.now;
        self.peers
            .push(Peer::new((core, socket), dialect, server, now));
        Some(self.peers.len() - 1)
    }

    /// A server that has proved its key and is found by whoever dials.
    pub fn settled_server(&mut self, core: usize, id: u32) -> usize {
        let peer = self.join_server(core, id).unwrap();
        for _ in 0..3 {
            self.quiesce();
            self.read(peer, usize::MAX);
            self.world(peer)
                .borrow_mut()
                .deliver(self.peers[peer].socket, usize::MAX);
        }
        self.quiesce();
        assert!(self.peers[peer].entered.is_some());
        peer
    }

    pub fn post(&mut self, peer: usize, bytes: &[u8]) {
        let socket = self.peers[peer].socket;
        self.world(peer).borrow_mut().send(socket, bytes);
        self.peers[peer].spoke = self.row.now;
        self.peers[peer].posted += bytes.len();
    }

    pub fn say(&mut self, peer: usize, command: Command) {
        let frame = said(self.peers[peer].dialect, command);
        self.post(peer, &frame);
    }

    pub fn ask_id(&mut self, peer: usize) {
        self.peers[peer].due.push_back(Due::Open);
        self.say(peer, Command::New);
    }

    pub fn ping(&mut self, peer: usize) {
        if self.peers[peer].dialect == Dialect::Fastway {
            self.peers[peer].due.push_back(Due::Pong);
        }
        self.say(peer, Command::Ping);
    }

    /// Dials; `id` is what an endpoint of the document's dialect chooses.
    pub fn dial(&mut self, peer: usize, id: u32, remote: u32) {
        let one = &mut self.peers[peer];
        let own = one.reserved.iter().position(|&reserved| reserved == id);
        let own = own.map(|at| one.reserved.swap_remove(at));
        let fastway = one.dialect == Dialect::Fastway;
        let (targets, unknown) = self.targets(peer, remote);
        let dialled = Dialled {
            id: if fastway { 0 } else { id },
            remote,
            unknown,
            doubtful: !fastway && own.is_none(),
            newest: self.newest(remote),
            changes: self.changes.get(&remote).copied().unwrap_or(0),
            targets,
        };
        self.peers[peer].due.push_back(Due::Dialled(dialled));
        self.say(peer, Command::Dial { conn: id, remote });
    }

    /// Who is surely reached by a dial, one of them at least; and whether nobody can be.
    fn targets(&self, dialler: usize, remote: u32) -> (Vec<usize>, bool) {
        if self.peers[dialler].is_client() {
            let same = |&n: &usize| self.peers[n].server == Some(remote);
            let same: Vec<usize> = (0..self.peers.len()).filter(same).collect();
            let sure = |&n: &usize| self.peers[n].is_alive() && self.peers[n].entered.is_some();
            return (same.iter().copied().filter(sure).collect(), same.is_empty());
        }
        match self.clients.get(&remote) {
            Some(&client) if self.peers[client].is_alive() => (vec![client], false),
            _ => (Vec::new(), false),
        }
    }

    /// The server that a dial to that id reaches now, if that is sure.
    fn newest(&self, id: u32) -> Option<usize> {
        let same = (0..self.peers.len()).filter(|&n| self.peers[n].server == Some(id));
        let present: Vec<usize> = same.filter(|&n| !self.is_closed(n)).collect();
        let sure = |&n: &usize| self.peers[n].is_alive() && self.peers[n].entered.is_some();
        match present.iter().all(sure) {
            true => {
                let last = present.iter().map(|&n| self.peers[n].entered).max()?;
                let mut latest = present
                    .into_iter()
                    .filter(|&n| self.peers[n].entered == last);
                latest.next().filter(|_| latest.next().is_none())
            }
            false => None,
        }
    }

    pub fn is_closed(&self, peer: usize) -> bool {
        self.world(peer).borrow().sockets[self.peers[peer].socket].closed
    }

    /// Sends a message on a connection; the first one says who sends it.
    pub fn talk(&mut self, peer: usize, line: usize, len: usize) {
        let most = self.config.max_packet as usize - 4;
        let number = self.peers[peer].lines[line].sent.len();
        let len = if number == 0 { len.max(TAG) } else { len }.min(most);
        let frame = data(
            self.peers[peer].lines[line].id,
            &message(peer, line, number, len),
        );
        self.peers[peer].lines[line].sent.push(len);
        self.post(peer, &frame);
    }

    /// Sends data on an id of which it has no connection.
    pub fn stray(&mut self, peer: usize, id: u32, len: usize) {
        if !self.peers[peer].open.contains_key(&id) {
            *self.peers[peer].strays.entry(id).or_default() += 1;
            self.post(peer, &data(id, &vec![0xee; len]));
        }
    }

    pub fn hang_up(&mut self, peer: usize, line: usize) {
        let line = &mut self.peers[peer].lines[line];
        line.hung_up = true;
        let conn = line.id;
        self.say(peer, Command::Close { conn });
    }

    /// It ends its stream, resets it, or is about to be closed for what it has sent.
    pub fn part(&mut self, peer: usize, fate: Fate) {
        let socket = self.peers[peer].socket;
        match fate {
            Fate::Ended => self.world(peer).borrow_mut().end(socket),
            Fate::Reset => self.world(peer).borrow_mut().reset(socket),
            _ => {}
        }
        self.lose(peer, fate);
    }

    fn lose(&mut self, peer: usize, fate: Fate) {
        self.peers[peer].fate = fate;
        if let Some(id) = self.peers[peer].server {
            *self.changes.entry(id).or_default() += 1;
        }
    }

    /// A peer reads at most so much, and understands what is whole.
    pub fn read(&mut self, peer: usize, most: usize) {
        let (world, socket) = (self.world(peer), self.peers[peer].socket);
        if self.peers[peer].fate == Fate::Reset {
            return;
        }
        world.borrow_mut().receive(socket, most);
        let world = world.borrow();
        let received = &world.sockets[socket].received;
        if !self.peers[peer].speaks {
            let Some(challenge) = received.first_chunk::<CHALLENGE>() else {
                return;
            };
            let challenge = *challenge;
            drop(world);
            return self.prove(peer, challenge);
        }
        let mut heard = Vec::new();
        while let Some(frame) = self.peers[peer].next(received) {
            heard.push(frame);
        }
        drop(world);
        for frame in heard {
            self.hear(peer, frame);
        }
    }

    fn prove(&mut self, peer: usize, challenge: [u8; CHALLENGE]) {
        if !self.peers[peer].is_alive() {
            return;
        }
        let key = self.config.auth_key.as_ref();
        let key = key.map_or(&b""[..], |key| key.expose()).to_vec();
        let id = self.peers[peer].server.unwrap();
        self.peers[peer].speaks = true;
        self.peers[peer].parsed = CHALLENGE;
        self.post(peer, &answer(&challenge, &key, id));
    }

    fn hear(&mut self, peer: usize, heard: Heard) {
        let command = match heard {
            Heard::Data(id, payload) => return self.take(peer, id, &payload),
            Heard::Said(command) => command,
        };
        let one = &mut self.peers[peer];
        match command {
            Command::Open { conn } => {
                assert_eq!(one.due.pop_front(), Some(Due::Open), "peer {peer}");
                one.reserved.push(conn);
                assert!(self.chosen.insert(conn), "id {conn} was given twice");
            }
            Command::Refuse { conn, remote } => self.refused(peer, conn, remote),
            Command::Accept { conn, remote } => match one.due.front() {
                Some(Due::Dialled(dial))
                    if dial.remote == remote && [0, conn].contains(&dial.id) =>
                {
                    self.accepted(peer, conn);
                }
                _ => {
                    assert_eq!(one.dialect, Dialect::Document, "nobody was dialled");
                    self.connected(peer, conn, remote);
                }
            },
            Command::Connect { conn, remote } => self.connected(peer, conn, remote),
            Command::Close { conn } => one.end(conn),
            Command::Ping if one.dialect == Dialect::Fastway => {
                assert_eq!(one.due.pop_front(), Some(Due::Pong), "peer {peer}");
            }
            Command::Ping if one.is_alive() && !self.mutes() => self.say(peer, Command::Ping),
            Command::Ping => {}
            Command::New | Command::Dial { .. } => panic!("{command:?} from the gateway"),
        }
    }

    /// With idle timeouts, some do not answer pings.
    fn mutes(&mut self) -> bool {
        self.random.chance(10)
    }

    fn due_dial(&mut self, peer: usize) -> Dialled {
        match self.peers[peer].due.pop_front() {
            Some(Due::Dialled(dial)) => dial,
            other => panic!("peer {peer} was answered a dial while {other:?} was due"),
        }
    }

    /// As many connections as a client may have; a peer's stream tells it as the gateway saw it.
    fn is_full(&self, peer: usize) -> bool {
        let most = self.config.max_conns_per_client;
        self.peers[peer].is_client() && most > 0 && self.peers[peer].open.len() >= most
    }

    fn accepted(&mut self, peer: usize, id: u32) {
        let dial = self.due_dial(peer);
        // While another core answers a dial, a server may join the client, too.
        let dialled = |line: &&usize| self.peers[peer].lines[**line].dialled;
        let own = self.peers[peer].open.values().filter(dialled).count();
        let full = match self.row.cores.len() {
            1 => self.is_full(peer),
            _ => self.is_full(peer) && own >= self.config.max_conns_per_client,
        };
        assert!(!full, "peer {peer} has too many connections");
        if dial.id == 0 {
            assert!(self.chosen.insert(id), "id {id} was given twice");
        }
        let changes = self.changes.get(&dial.remote).copied().unwrap_or(0);
        let nobody = dial.unknown && changes == dial.changes;
        assert!(!nobody, "peer {peer} was joined with nobody");
        assert!(
            !self.stopping,
            "peer {peer} was joined by a server that stops"
        );
        let must_be = match self.peers[peer].is_client() {
            true if changes == dial.changes => dial.newest,
            true => None,
            false => self.clients.get(&dial.remote).copied(),
        };
        let line = self.peers[peer].begin(id, dial.remote, true, must_be);
        self.greet(peer, line);
    }

    fn connected(&mut self, peer: usize, id: u32, remote: u32) {
        let line = self.peers[peer].begin(id, remote, false, None);
        self.greet(peer, line);
    }

    /// The first message goes out at once, so that the other end can be told.
    fn greet(&mut self, peer: usize, line: usize) {
        if self.peers[peer].may_speak() {
            self.talk(peer, line, TAG);
        }
    }

    fn refused(&mut self, peer: usize, id: u32, remote: u32) {
        let dial = self.due_dial(peer);
        match self.peers[peer].dialect {
            Dialect::Document => assert_eq!(dial.id, id, "an answer out of turn"),
            Dialect::Fastway => assert_eq!(dial.remote, remote, "an answer out of turn"),
        }
        // Another core may find that a server has just left.
        let changes = self.changes.get(&dial.remote).copied().unwrap_or(0);
        let settled =
            changes == dial.changes && (dial.newest.is_some() || !self.peers[peer].is_client());
        let left = self.row.cores.len() > 1 && !settled;
        let reached = dial
            .targets
            .iter()
            .any(|&target| self.peers[target].is_alive());
        // A client that does not read is not dialled while too much waits for it.
        let clogged = !self.peers[peer].is_client()
            && dial.targets.iter().any(|&target| self.peers[target].lagged);
        assert!(
            dial.unknown
                || clogged
                || dial.doubtful
                || self.stopping
                || left
                || !reached
                || self.is_full(peer),
            "peer {peer} was refused for no reason: {dial:?}"
        );
    }

    /// A message came: it is the next of those that the other end has sent.
    fn take(&mut self, peer: usize, id: u32, payload: &[u8]) {
        let Some(&line) = self.peers[peer].open.get(&id) else {
            panic!("peer {peer} got data on {id}, which it does not have");
        };
        if self.peers[peer].lines[line].got == 0 {
            self.pair(peer, line, payload);
        }
        let own = &mut self.peers[peer].lines[line];
        let (number, partner) = (own.got, own.partner.unwrap());
        own.got += 1;
        let sent = &self.peers[partner.0].lines[partner.1].sent;
        let len = sent
            .get(number)
            .copied()
            .expect("more messages than were sent");
        assert!(
            payload == message(partner.0, partner.1, number, len),
            "peer {peer}: message {number} of {partner:?} on {id} is another"
        );
    }

    /// The first message tells who is at the other end, which must fit all that is known.
    fn pair(&mut self, peer: usize, line: usize, first: &[u8]) {
        assert!(first.len() >= TAG, "the first message was lost");
        let (other, its) = sender(first);
        let theirs = &mut self.peers[other].lines[its];
        assert!(
            theirs.partner.is_none_or(|known| known == (peer, line)),
            "two ends at one"
        );
        let (id, remote, must_be) = (theirs.id, theirs.remote, theirs.must_be);
        let dialled = theirs.dialled;
        let own = &mut self.peers[peer].lines[line];
        own.partner = Some((other, its));
        assert_eq!(own.id, id, "one connection, two ids");
        assert_ne!(own.dialled, dialled, "who has dialled?");
        assert!(
            must_be.is_none_or(|must| must == peer),
            "not the newest server"
        );
        assert!(
            own.must_be.is_none_or(|must| must == other),
            "not the newest server"
        );
        let (own_remote, client) = (own.remote, self.peers[peer].is_client());
        assert_ne!(client, self.peers[other].is_client(), "two of a kind");
        let ends = [(peer, remote), (other, own_remote)];
        let [(server, to_server), (client, to_client)] = match client {
            true => [ends[1], ends[0]],
            false => ends,
        };
        assert_eq!(self.peers[server].server, Some(to_server), "another server");
        let known = *self.clients.entry(to_client).or_insert(client);
        assert_eq!(known, client, "two clients of one id");
    }

    /// All that is ready is done; then who has been closed and who has entered is noted.
    pub fn quiesce(&mut self) {
        self.row.quiesce();
        self.observe();
    }

    /// Notes what can be seen of the sockets. Nobody is closed but for a reason.
    pub fn observe(&mut self) {
        self.entries += 1;
        for peer in 0..self.peers.len() {
            let world = self.world(peer);
            let (closed, emitted, untaken, blocked) = {
                let world = world.borrow();
                let socket = &world.sockets[self.peers[peer].socket];
                let (emitted, untaken) = (socket.emitted(), socket.untaken());
                (socket.closed, emitted, untaken, socket.is_blocked())
            };
            let one = &mut self.peers[peer];
            one.lagged |= blocked;
            if emitted != one.emitted {
                one.emitted = emitted;
                one.taken = self.row.now;
            }
            if closed && !std::mem::replace(&mut one.closed, true) {
                self.closed(peer);
            } else if one.may_speak() && one.posted - untaken >= ANSWER && one.entered.is_none() {
                one.entered = Some(self.entries);
            }
        }
    }

    /// The gateway has closed a peer: one that behaves only for a reason. One that has ended its
    /// stream may be closed for such a reason before the end was read.
    fn closed(&mut self, peer: usize) {
        let may = self.may_close(peer);
        match self.peers[peer].fate {
            Fate::Alive => {
                assert!(may, "peer {peer} was closed for no reason");
                self.lose(peer, Fate::Killed);
            }
            Fate::Ended | Fate::Doomed if may => self.peers[peer].fate = Fate::Killed,
            _ => {}
        }
    }

    /// Whether the gateway may have closed a peer that behaves.
    fn may_close(&self, peer: usize) -> bool {
        let (one, now) = (&self.peers[peer], self.row.now);
        let (idle, slow) = match one.is_client() {
            true => (self.config.client_idle_timeout, true),
            false => (self.config.server_idle_timeout, false),
        };
        let late = one.is_nobody() && now - one.joined >= HANDSHAKE;
        // What is still on the way was not heard.
        let (untaken, blocked) = {
            let world = self.world(peer);
            let world = world.borrow();
            let socket = &world.sockets[one.socket];
            (socket.untaken(), socket.is_blocked())
        };
        let idle = !idle.is_zero() && (untaken > 0 || now - one.spoke >= idle);
        let slow = slow && blocked && now - one.taken >= self.config.slow_receiver_timeout;
        late || idle || slow || self.stopping
    }
}

pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// There are no names to resolve.
struct Nobody;

impl Lookup for Nobody {
    fn lookup(&self, _: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        Err(std::io::Error::other("no names"))
    }
}
