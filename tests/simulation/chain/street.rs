//! Houses in a row, an access listener's first and a hop's in each other one: what one dials another
//! accepts, and bytes between them go in random pieces.

use std::net::SocketAddr;
use std::time::Duration;

use towpath::config::{Core, KEYS, Settings};
use towpath::protocols::chain::wire::Key;
use towpath::protocols::chain::{self, Access, AccessProtocol, Config, Hop, Hops};
use towpath::session::{Ground, Role};
use towpath::upstream::Target;

use crate::house::{House, Shape};
use crate::world::Random;

/// The houses and what connects them.
pub struct Street {
    pub houses: Vec<House>,
    pub random: Random,
    /// Connections to destinations: the house that dialled, and its socket.
    pub reached: Vec<(usize, usize)>,
    /// Who refuses connections.
    pub refusing: Vec<SocketAddr>,
    /// Who never answers.
    pub mute: Vec<SocketAddr>,
    lines: Vec<Line>,
    seen: Vec<usize>,
}

/// A connection between two houses; each of its ends is a house and a socket.
struct Line {
    ends: [(usize, usize); 2],
    passed: [usize; 2],
    over: [bool; 2],
}

/// Where the hop of that house is.
pub fn hop_at(house: usize) -> SocketAddr {
    ([10, 9, 1, house as u8], 7300).into()
}

/// Whom all are led to.
pub fn destination() -> SocketAddr {
    ([10, 9, 9, 9], 80).into()
}

pub fn key_of(house: usize) -> Key {
    Key::from_bytes([house as u8; 32])
}

pub fn payload_key() -> Key {
    Key::from_bytes([0xee; 32])
}

pub fn target(at: SocketAddr) -> Target {
    Target {
        host: at.ip().to_string().into(),
        port: at.port(),
    }
}

/// A chain through the hops of these houses.
pub fn chain_of(houses: &[usize], is_sealed: bool) -> Hops {
    let hop = |&house: &usize| Hop {
        address: target(hop_at(house)),
        key: Some(key_of(house)),
    };
    Hops {
        hops: houses.iter().map(hop).collect(),
        weight: 1,
        payload_key: is_sealed.then(payload_key),
    }
}

/// An access listener that speaks `protocol`, with these chains.
pub fn access(protocol: AccessProtocol, chains: Vec<Hops>) -> Access {
    let listen = ["10.0.0.1:7100", "10.0.0.1:7200"].map(|at| at.parse().unwrap());
    let to = match protocol.is_proxy() {
        true => Vec::new(),
        false => vec![target(destination())],
    };
    let mut access = Access::tcp("db", listen.to_vec(), to);
    access.protocol = protocol;
    access.chains = chains;
    access.max_flows = 8;
    access
}

/// The role without listeners; private destinations are allowed.
pub fn config() -> Config {
    let mut config = Config::read(&mut Settings::new(&[KEYS, chain::config::KEYS]));
    config.listen.clear();
    config.allow.push("10.0.0.0/8:*".parse().unwrap());
    config
}

/// A house whose service is this.
pub fn house(seed: u64, config: &Config) -> House {
    let mut house = House::new(seed, Shape::default(), |memory, names| {
        let limits = Core::read(&mut Settings::new(&[KEYS])).limits;
        let addresses = vec!["10.0.0.1:7100".parse().unwrap(); 4];
        let ground = Ground {
            memory,
            names,
            limits,
            addresses,
            own: [].into(),
            cores: 1,
            connections: 1000,
            data_dir: std::path::PathBuf::new(),
        };
        config.service(&ground).seat(0)
    });
    house.worker.reside();
    house
}

/// A hop's house.
pub fn hop_house(seed: u64, number: usize, edit: impl Fn(&mut Config)) -> House {
    let mut config = config();
    config.listen = vec!["10.0.0.1:7300".parse().unwrap()];
    config.key = Some(key_of(number));
    config.payload_key = Some(payload_key());
    edit(&mut config);
    house(seed, &config)
}

impl Street {
    /// The access listener's house, and so many hops.
    pub fn new(seed: u64, hops: usize, access: Access, edit: impl Fn(&mut Config)) -> Self {
        let mut first = config();
        first.access.push(access);
        edit(&mut first);
        let mut houses = vec![house(seed, &first)];
        houses.extend((1..=hops).map(|number| hop_house(seed + number as u64, number, &edit)));
        let now = houses.iter().map(|house| house.now).max().unwrap();
        for house in &mut houses {
            house.now = now;
        }
        Self {
            seen: vec![0; houses.len()],
            houses,
            random: Random::new(seed ^ 0xc4a1),
            reached: Vec::new(),
            refusing: Vec::new(),
            mute: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// A client comes to the access listener.
    pub fn client(&mut self) -> usize {
        self.houses[0].world.borrow_mut().connect()
    }

    pub fn send(&mut self, (house, socket): (usize, usize), bytes: &[u8]) {
        self.houses[house].world.borrow_mut().send(socket, bytes);
    }

    pub fn end(&mut self, (house, socket): (usize, usize)) {
        self.houses[house].world.borrow_mut().end(socket);
    }

    pub fn reset(&mut self, (house, socket): (usize, usize)) {
        self.houses[house].world.borrow_mut().reset(socket);
    }

    pub fn received(&self, (house, socket): (usize, usize)) -> Vec<u8> {
        self.houses[house].world.borrow().sockets[socket]
            .received
            .clone()
    }

    /// How an end of the street was ended: not at all, in order, or by a reset.
    pub fn fate(&self, (house, socket): (usize, usize)) -> Fate {
        let world = self.houses[house].world.borrow();
        let socket = &world.sockets[socket];
        match (socket.aborted, socket.is_over()) {
            (true, _) => Fate::Reset,
            (false, true) => Fate::Ended,
            (false, false) => Fate::Open,
        }
    }

    /// Answers those who dial.
    fn answer(&mut self) {
        for here in 0..self.houses.len() {
            let count = self.houses[here].world.borrow().sockets.len();
            for socket in self.seen[here]..count {
                let peer = self.houses[here].world.borrow().sockets[socket].peer;
                self.seen[here] = socket + 1;
                if peer.ip().to_string() == "10.1.0.1" || self.mute.contains(&peer) {
                    continue;
                }
                let accepts = !self.refusing.contains(&peer);
                let world = self.houses[here].world.clone();
                world.borrow_mut().settle_dial(socket, accepts);
                let there = (1..self.houses.len()).find(|&number| hop_at(number) == peer);
                match there.filter(|_| accepts) {
                    Some(there) => self.link_late(here, socket, there),
                    None if accepts => self.reached.push((here, socket)),
                    None => {}
                }
            }
        }
    }

    /// A hop that did not answer before accepts at last.
    pub fn link_late(&mut self, here: usize, socket: usize, there: usize) {
        let world = self.houses[here].world.clone();
        world.borrow_mut().settle_dial(socket, true);
        let accepted = self.houses[there].world.borrow_mut().connect();
        self.lines.push(Line {
            ends: [(here, socket), (there, accepted)],
            passed: [0; 2],
            over: [false; 2],
        });
    }

    /// Moves some of what is on one line, each way.
    fn carry(&mut self, line: usize, most: usize) {
        for side in [0, 1] {
            let Line { ends, passed, over } = &mut self.lines[line];
            let (from, to) = (ends[side], ends[1 - side]);
            let (ours, theirs) = (&self.houses[from.0].world, &self.houses[to.0].world);
            let waiting = theirs.borrow().sockets[to.1].untaken();
            let mut ours = ours.borrow_mut();
            ours.receive(from.1, most.min(ROOM.saturating_sub(waiting)));
            let bytes = ours.sockets[from.1].received[passed[side]..].to_vec();
            passed[side] += bytes.len();
            let source = &ours.sockets[from.1];
            let (is_over, is_reset) = (source.is_over(), source.aborted);
            let mut theirs = theirs.borrow_mut();
            if theirs.sockets[to.1].closed {
                if !bytes.is_empty() && !source.closed {
                    ours.reset(from.1);
                }
                over[side] = true;
                continue;
            }
            theirs.send(to.1, &bytes);
            if is_over && !over[side] {
                over[side] = true;
                match is_reset {
                    true => theirs.reset(to.1),
                    false => theirs.end(to.1),
                }
            }
            theirs.deliver(to.1, most);
        }
    }

    /// Something happens somewhere.
    pub fn step(&mut self) {
        let most = 1 + self.random.below(9_000);
        match self.random.below(4) {
            0 => self.answer(),
            1 if !self.lines.is_empty() => {
                let line = self.random.below(self.lines.len());
                self.carry(line, most);
            }
            2 => {
                // The ends of the street: clients and destinations.
                let here = self.random.below(self.houses.len());
                let mut world = self.houses[here].world.borrow_mut();
                for socket in 0..world.sockets.len() {
                    let own = (here, socket);
                    if self.lines.iter().all(|line| !line.ends.contains(&own)) {
                        world.deliver(socket, most);
                        world.receive(socket, most);
                    }
                }
            }
            _ => {
                let here = self.random.below(self.houses.len());
                self.houses[here].turn();
                self.houses[here].serve_questions(1);
            }
        }
    }

    /// Everything moves until nothing does any more; time stands still.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 12 {
            let before = self.progress();
            self.answer();
            for line in 0..self.lines.len() {
                self.carry(line, usize::MAX);
            }
            for house in &mut self.houses {
                house.world.borrow_mut().rush();
                house.turn();
                house.serve_questions(usize::MAX);
            }
            quiet = if self.progress() == before {
                quiet + 1
            } else {
                0
            };
        }
    }

    fn progress(&self) -> Vec<(usize, usize, usize, usize)> {
        let of = |house: &House| {
            let world = house.world.borrow();
            let sockets = world.sockets.iter();
            let received = sockets.clone().map(|socket| socket.received.len()).sum();
            let over = sockets.filter(|socket| socket.is_over()).count();
            let sessions = house.worker.sessions();
            (received, over, sessions, world.sockets.len())
        };
        self.houses.iter().map(of).collect()
    }

    /// Time passes in all houses, and everybody acts in it.
    pub fn pass(&mut self, time: Duration) {
        let until = self.houses[0].now + time;
        while self.houses[0].now < until {
            self.settle();
            let left = until - self.houses[0].now;
            let rests = self.houses.iter().filter_map(|house| house.worker.rest());
            let step = rests.chain([left]).min().unwrap_or(left);
            for house in &mut self.houses {
                let step = step.max(Duration::from_millis(1));
                house.now += step;
                house.world.borrow_mut().unix_time += step;
                house.turn();
            }
        }
        self.settle();
    }

    /// Nothing is left in any house.
    pub fn assert_empty(&self) {
        for house in &self.houses {
            house.assert_empty();
        }
    }
}

/// How one end of the street sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Open,
    Ended,
    Reset,
}

/// Bytes that may be on their way between two houses.
const ROOM: usize = 30_000;
