//! The node role among nodes and visitors that come, go, stall and misbehave at random; a model says
//! what each of them may have seen.
//!
//! * A visitor's frames reach one main connection, one of the node whose address it came to, whole, in
//!   order, none twice; and all of them, where nobody broke off.
//! * A node has one address, and no two nodes have the same.
//! * Who asked last has the visitors; the end of an older connection changes nothing.
//! * Nothing is ever written to a visitor.

mod rules;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use towpath::config::Limits;
use towpath::protocols::node::Config;
use towpath::protocols::node::wire::{
    HEAD, Head, Id, Message, NETWORK_ID, Transport, append_frame, control_message, opcode,
};
use towpath::session::{Ground, Role};

use super::house::{CONNECT, DRAIN, HANDSHAKE, House, IDLE, Shape};
use super::seeds;
use super::world::{self, Random, SimListener};

const LEASE: Duration = Duration::from_secs(3_600);
const KEEPALIVE: Duration = Duration::from_secs(180);
const MAX_FRAME: u32 = 300_000;
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=20_009;

/// Nodes, and who visits them.
struct Town {
    house: House,
    random: Random,
    mains: Vec<Main>,
    visitors: Vec<Visitor>,
    /// The address of each node, as it was told.
    addresses: HashMap<usize, u16>,
    /// Time passes while things are under way, so that some of them may be late.
    is_hasty: bool,
    /// Ports of another program, and its hold on them.
    foreign: Vec<(u16, SimListener)>,
}

/// A main connection.
struct Main {
    socket: usize,
    node: usize,
    /// It has asked for its address.
    asked: bool,
    /// It has ended, was reset, or sent what it must not.
    broken: bool,
}

/// A connection to a node's address.
struct Visitor {
    socket: usize,
    node: usize,
    /// The bodies of the frames that it has sent, whole ones.
    sent: Vec<Vec<u8>>,
    /// It was reset, or sent something else besides.
    broken: bool,
    ended: bool,
}

/// A house whose service is the node role, as `change` would have it.
fn house(seed: u64, shape: Shape, change: impl FnOnce(&mut Config)) -> House {
    let mut config = Config {
        listen: vec!["10.0.0.1:7200".parse().unwrap()],
        terms: Default::default(),
        public_ip: [192, 0, 2, 1].into(),
        bind_ip: [10, 0, 0, 1].into(),
        ports: PORTS,
        network_id: NETWORK_ID,
        lease: LEASE,
        keepalive_timeout: KEEPALIVE,
        max_frame: MAX_FRAME,
        max_visitors: 1_000,
        max_unregistered: 1_000,
        // For one and a half of the longest.
        max_frame_memory: 450_000,
        allow_keys: Vec::new(),
    };
    change(&mut config);
    let pools = config.pools();
    let mut house = House::new(seed, shape, |memory, names| {
        let limits = Limits {
            max_connections: 0,
            max_connections_per_ip: 0,
            bandwidth_per_ip: 0,
            connection_rate: 0,
            connection_rate_per_ip: 0,
            handshake_timeout: HANDSHAKE,
            connect_timeout: CONNECT,
            idle_timeout: IDLE,
            user_timeout: IDLE,
            drain_timeout: DRAIN,
            drain_spread: Duration::ZERO,
            max_buffer_memory: 0,
            resolve_ttl: Duration::from_secs(10),
            resolve_timeout: Duration::from_secs(5),
        };
        let ground = Ground {
            memory,
            names,
            limits,
            addresses: config.listen.repeat(2),
            own: [].into(),
            cores: 1,
            connections: 1000,
            data_dir: std::path::PathBuf::new(),
        };
        config.service(&ground).seat(0)
    });
    house.control = house.control.lending(pools, house.now, 1_700_000_000);
    house
}

/// A message of a node to the server, framed.
fn message(node: usize, opcode: u32) -> Vec<u8> {
    let mut out = Vec::new();
    append_frame(&mut out, NETWORK_ID, &unframed(node, opcode));
    out
}

/// A message of a node. Nodes with odd numbers have no `connection_id`.
fn unframed(node: usize, opcode: u32) -> Message {
    let connection_id = match node % 2 {
        0 => format!("node {node}").into_bytes(),
        _ => Vec::new(),
    };
    Message {
        sender: Some(Id {
            net_key: Some(vec![node as u8; 32]),
            address: format!("tcp://10.2.0.{node}:1").into_bytes(),
            connection_id,
            ..Id::default()
        }),
        opcode,
        net_id: NETWORK_ID,
        ..Message::default()
    }
}

/// A frame with any body.
fn frame(body: &[u8]) -> Vec<u8> {
    let head = Head {
        network: NETWORK_ID,
        compression: 0x0102,
        length: body.len() as u32,
    };
    let mut out = head.encode().to_vec();
    out.extend(body);
    out
}

/// What a main connection has received: whole frames, those from the server apart.
struct Received {
    /// The port of the last answer.
    port: Option<u16>,
    answers: usize,
    keepalives: usize,
    /// Bodies of visitors' frames.
    passed: Vec<Vec<u8>>,
}

fn received(bytes: &[u8]) -> Received {
    let mut all = Received {
        port: None,
        answers: 0,
        keepalives: 0,
        passed: Vec::new(),
    };
    let mut rest = bytes;
    while let Some(head) = Head::decode(rest, NETWORK_ID, MAX_FRAME).unwrap() {
        let Some((frame, behind)) = rest.split_at_checked(head.frame_len()) else {
            break;
        };
        rest = behind;
        let body = &frame[HEAD..];
        if body.first() == Some(&MARK) {
            assert_eq!(head.compression, 0x0102, "the head was touched");
            all.passed.push(body.to_vec());
            continue;
        }
        let said = control_message(body, Some(NETWORK_ID)).unwrap();
        assert_eq!(said.net_key, Transport::Tcp.net_key());
        assert_eq!(said.address, b"tcp://192.0.2.1:7200");
        match said.opcode {
            opcode::PROXY_RESPONSE => {
                let text = String::from_utf8(said.message[2..].to_vec()).unwrap();
                let (ip, port) = text.split_once(':').unwrap();
                assert_eq!(ip, "192.0.2.1");
                all.port = Some(port.parse().unwrap());
                all.answers += 1;
            }
            opcode::KEEPALIVE_RESPONSE => all.keepalives += 1,
            other => panic!("the server said {other}"),
        }
        assert_eq!(said.nonce as usize, all.answers + all.keepalives);
    }
    all
}

impl Town {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x0070_7771);
        let shape = Shape {
            questions: if random.chance(20) { 3 } else { 10_000 },
            ..Shape::default()
        };
        let house = house(seed, shape, |_| {});
        {
            let mut world = house.world.borrow_mut();
            world.send_room = [300, 5_000, 200_000][random.below(3)];
        }
        let foreign: &[u16] = if random.chance(30) {
            &[20_000, 20_003]
        } else {
            &[]
        };
        let foreign = foreign.iter().map(|&port| {
            let held = world::listen(&house.world, local(port)).unwrap();
            (port, held)
        });
        let foreign = foreign.collect();
        Self {
            house,
            foreign,
            is_hasty: random.chance(30),
            random,
            mains: Vec::new(),
            visitors: Vec::new(),
            addresses: HashMap::new(),
        }
    }

    /// One thing happens.
    fn step(&mut self) {
        match self.random.below(100) {
            0..6 => self.arrive(),
            6..14 => self.ask(),
            14..17 => self.keep_alive(),
            17..24 => self.visit(),
            24..40 => self.talk(),
            40..60 => self.deliver(),
            60..80 => self.receive(),
            80 => self.break_main(),
            81..84 => self.break_visitor(),
            84..94 => {
                let most = self.random.below(4);
                self.house.serve_questions(most);
            }
            94..96 if self.is_hasty => {
                let most = 1 + self.random.below(3_000) as u64;
                return self.house.pass(Duration::from_millis(most));
            }
            _ => {}
        }
        self.house.turn();
        self.note_addresses();
    }

    fn arrive(&mut self) {
        let socket = self.house.world.borrow_mut().connect();
        self.mains.push(Main {
            socket,
            node: self.random.below(5),
            asked: false,
            broken: false,
        });
    }

    fn ask(&mut self) {
        if self.mains.is_empty() {
            return;
        }
        let at = self.random.below(self.mains.len());
        self.send_main(at, opcode::PROXY_REQUEST);
        self.mains[at].asked = true;
    }

    fn keep_alive(&mut self) {
        if !self.mains.is_empty() {
            let at = self.random.below(self.mains.len());
            let opcode = [opcode::KEEPALIVE, opcode::PING, opcode::APPLICATION];
            let opcode = opcode[self.random.below(3)];
            self.send_main(at, opcode);
        }
    }

    fn send_main(&mut self, at: usize, opcode: u32) {
        let main = &self.mains[at];
        let bytes = message(main.node, opcode);
        self.house.world.borrow_mut().send(main.socket, &bytes);
    }

    fn visit(&mut self) {
        let node = self.random.below(5);
        let Some(&port) = self.addresses.get(&node) else {
            return;
        };
        let Some(socket) = self.house.world.borrow_mut().visit(local(port)) else {
            return;
        };
        self.visitors.push(Visitor {
            socket,
            node,
            sent: Vec::new(),
            broken: false,
            ended: false,
        });
    }

    /// A visitor sends a frame.
    fn talk(&mut self) {
        if self.visitors.is_empty() {
            return;
        }
        let at = self.random.below(self.visitors.len());
        let most = [20, 20, 2_000, 70_000, 150_000, 290_000][self.random.below(6)];
        let count = self.random.below(most);
        let visitor = &mut self.visitors[at];
        if visitor.ended || visitor.broken {
            return;
        }
        let mut body = vec![MARK, at as u8, visitor.sent.len() as u8];
        body.extend(self.random.bytes(count));
        let mut world = self.house.world.borrow_mut();
        world.send(visitor.socket, &frame(&body));
        visitor.sent.push(body);
    }

    fn deliver(&mut self) {
        let mut world = self.house.world.borrow_mut();
        if !world.sockets.is_empty() {
            let socket = self.random.below(world.sockets.len());
            let most = [1, 12, 500, 50_000][self.random.below(4)];
            world.deliver(socket, 1 + self.random.below(most));
        }
    }

    fn receive(&mut self) {
        let mut world = self.house.world.borrow_mut();
        if !world.sockets.is_empty() {
            let socket = self.random.below(world.sockets.len());
            world.receive(socket, 1 + self.random.below(100_000));
        }
    }

    fn break_main(&mut self) {
        if self.mains.is_empty() {
            return;
        }
        let at = self.random.below(self.mains.len());
        let main = &mut self.mains[at];
        if main.broken {
            return;
        }
        main.broken = true;
        let mut world = self.house.world.borrow_mut();
        match self.random.below(3) {
            0 => world.reset(main.socket),
            1 => world.end(main.socket),
            _ => world.send(main.socket, b"GET / HTTP/1.1"),
        }
    }

    fn break_visitor(&mut self) {
        if self.visitors.is_empty() {
            return;
        }
        let at = self.random.below(self.visitors.len());
        let visitor = &mut self.visitors[at];
        if visitor.ended || visitor.broken {
            return;
        }
        let mut world = self.house.world.borrow_mut();
        match self.random.below(5) {
            0 => {
                visitor.broken = true;
                world.reset(visitor.socket);
            }
            1 => {
                // A length out of bounds, behind whole frames.
                let mut bad = frame(b"");
                bad[6..].copy_from_slice(&u32::MAX.to_be_bytes());
                world.send(visitor.socket, &bad);
                visitor.ended = true;
            }
            2 => {
                // The end inside a frame: the part is dropped.
                let part = frame(&[MARK; 100]);
                world.send(visitor.socket, &part[..60]);
                world.end(visitor.socket);
                visitor.ended = true;
            }
            _ => {
                world.end(visitor.socket);
                visitor.ended = true;
            }
        }
    }

    fn received(&self, main: &Main) -> Received {
        received(&self.house.world.borrow().sockets[main.socket].received)
    }

    /// Each node is told one address, and it is nobody else's.
    fn note_addresses(&mut self) {
        for at in 0..self.mains.len() {
            let node = self.mains[at].node;
            let Some(port) = self.received(&self.mains[at]).port else {
                continue;
            };
            assert!(PORTS.contains(&port));
            assert!(!self.foreign.iter().any(|(held, _)| *held == port));
            let told = *self.addresses.entry(node).or_insert(port);
            assert_eq!(told, port, "node {node} has moved");
        }
        let mut ports: Vec<u16> = self.addresses.values().copied().collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), self.addresses.len(), "two nodes share a port");
    }

    /// Every visitor's frames against what the main connections have received.
    fn judge(&self) {
        let mut seen: HashMap<u8, (usize, usize)> = HashMap::new();
        for (at, main) in self.mains.iter().enumerate() {
            for body in self.received(main).passed {
                let visitor = &self.visitors[usize::from(body[1])];
                assert_eq!(visitor.node, main.node, "a frame went to another node");
                let (whose, next) = seen.entry(body[1]).or_insert((at, 0));
                assert_eq!(*whose, at, "a visitor's frames went two ways");
                assert!(visitor.sent[*next] == body, "not what was sent");
                *next += 1;
            }
        }
        let world = self.house.world.borrow();
        for (at, visitor) in self.visitors.iter().enumerate() {
            let socket = &world.sockets[visitor.socket];
            assert_eq!(socket.emitted(), 0, "a visitor was told something");
            let Some(&(main, count)) = seen.get(&(at as u8)) else {
                continue;
            };
            // A node is closed with its request when the control thread is busy, too.
            let main = &self.mains[main];
            let gone = main.broken || world.sockets[main.socket].closed;
            if !self.is_hasty && !visitor.broken && !gone {
                assert_eq!(count, visitor.sent.len(), "frames were lost");
            }
        }
    }

    /// The newest connection of each node gets new visitors; nobody else does.
    fn probe(&mut self) {
        for node in 0..5 {
            let open = |main: &&Main| {
                let world = self.house.world.borrow();
                main.node == node && !main.broken && !world.sockets[main.socket].closed
            };
            let Some(newest) = self.mains.iter().rfind(open) else {
                continue;
            };
            let (socket, asked) = (newest.socket, newest.asked);
            let request = message(node, opcode::PROXY_REQUEST);
            self.house.world.borrow_mut().send(socket, &request);
            // A port of another program may be tried for a while.
            self.wait(Duration::from_secs(3));
            let world = self.house.world.borrow();
            let port = received(&world.sockets[socket].received).port;
            drop(world);
            let Some(port) = port else {
                assert!(!asked || self.is_hasty, "an asking node has no address");
                continue;
            };
            let visitor = self.house.world.borrow_mut().visit(local(port)).unwrap();
            let body = [MARK, 0xfe, 0xfe, node as u8];
            self.house.world.borrow_mut().send(visitor, &frame(&body));
            self.settle();
            let world = self.house.world.borrow();
            let bytes = &world.sockets[socket].received;
            let last = received(bytes).passed.pop();
            assert_eq!(last.as_deref(), Some(&body[..]), "the newest is not it");
        }
    }

    /// All that can move has moved, but for ports that are tried again.
    fn settle(&mut self) {
        self.wait(Duration::from_millis(60));
    }

    /// Time passes, and everybody acts in it.
    fn wait(&mut self, time: Duration) {
        let until = self.house.now + time;
        while self.house.now < until {
            self.house.settle();
            self.house.pass(until - self.house.now);
        }
        self.house.settle();
    }
}

#[test]
fn frames_reach_the_right_node_whole_in_order_and_once() {
    seeds(120, |seed| {
        let mut town = Town::new(seed);
        for _ in 0..500 {
            town.step();
        }
        town.settle();
        town.judge();
        town.note_addresses();
        town.probe();
        for main in &town.mains {
            town.house.world.borrow_mut().end(main.socket);
        }
        town.settle();
        {
            let world = town.house.world.borrow();
            for visitor in &town.visitors {
                let socket = &world.sockets[visitor.socket];
                assert!(socket.is_over(), "a visitor outlives its node");
            }
        }
        town.foreign.clear();
        for port in PORTS {
            let free = world::listen(&town.house.world, local(port)).is_ok();
            assert!(free, "{port} is still listened on");
        }
        town.wait(Duration::from_secs(40));
        town.house.assert_empty();
    });
}

/// Where a leased port listens.
fn local(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

/// First byte of the body of every visitor's frame; no message begins with it.
const MARK: u8 = 0xff;
