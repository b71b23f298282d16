//! One worker and one control thread's state, stepped by hand, on a simulated network.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use towpath::config::{Terms, Way};
use towpath::control::resolver::{Lookup, Names, Resolver};
use towpath::control::{Command, Control, Request};
use towpath::net::{Load, Network, Quota, SocketOptions, Usage};
use towpath::reactor::{Address, Bell, Handle, SessionKey, mailbox};
use towpath::session::{Listen, Seat, Transport};
use towpath::stats::Counters;
use towpath::store::{Change, Limits, Memory, Store, Update};
use towpath::worker::{Order, Phase, Setup, Worker};

use super::world::{self, Shared, SimNetwork, World};

pub const HANDSHAKE: Duration = Duration::from_secs(5);
pub const CONNECT: Duration = Duration::from_secs(5);
pub const IDLE: Duration = Duration::from_secs(600);
pub const DRAIN: Duration = Duration::from_secs(30);

pub const OPTIONS: SocketOptions = SocketOptions {
    user_timeout: IDLE,
    keepalive: IDLE,
};

pub struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

/// What a test steps.
pub struct House {
    pub world: Shared,
    pub worker: Worker<SimNetwork>,
    pub control: Control,
    pub phase: Arc<Phase>,
    pub counters: Arc<Counters>,
    pub load: Arc<Load>,
    /// The worker's box for orders.
    pub ordering: Address<Order<SimNetwork>>,
    questions: Receiver<Request>,
    pub now: Instant,
    unix: i64,
}

/// What varies between tests.
pub struct Shape {
    pub most: usize,
    pub buffer_memory: usize,
    pub questions: usize,
    pub way: Way,
    pub drain_spread: Duration,
    /// What holds at the listener.
    pub terms: Terms,
    /// What may be used before new work is given up.
    pub room: Usage,
    /// Bytes a second each way for each source address; 0 is no limit.
    pub bandwidth_per_ip: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            most: 10_000,
            buffer_memory: 64 << 20,
            questions: 10_000,
            way: Way::Auto,
            drain_spread: Duration::ZERO,
            terms: Terms::default(),
            room: Usage::default(),
            bandwidth_per_ip: 0,
        }
    }
}

impl House {
    /// A house whose one service has the seat that `seat` makes. The listener is open.
    pub fn new(seed: u64, shape: Shape, seat: impl FnOnce(Memory, Names) -> Box<dyn Seat>) -> Self {
        let limits = Limits {
            max_value: 1 << 20,
            max_records: 1_000_000,
            max_bytes: 1 << 30,
        };
        let store = Store::in_memory(limits).unwrap();
        let (ttl, timeout) = (Duration::from_secs(10), Duration::from_secs(5));
        let resolver = Resolver::inline(Box::new(Book), ttl, timeout);
        let (memory, names) = (store.memory(), resolver.names());
        let (address, mailbox) = mailbox(10_000, Arc::new(Silent));
        let control = Control::new(store, resolver, vec![address]);
        let (core, post) = towpath::reactor::mailbox(10_000, Arc::new(Silent));
        let (ordering, orders) = towpath::reactor::mailbox(16, Arc::new(Silent));
        let (asking, questions) = bounded(shape.questions);
        let phase = Arc::new(Phase::default());
        let counters = Arc::new(Counters::new(&["agent"]));
        let world = World::new(seed);
        let load = Arc::new(Load::new(shape.room));
        let setup = Setup {
            core: 0,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: IDLE,
            drain_timeout: DRAIN,
            drain_spread: shape.drain_spread,
            buffer_memory: shape.buffer_memory,
            way: shape.way,
            socket_options: OPTIONS,
            pipe_size: 1 << 20,
            seed,
            control: asking,
            mailbox,
            post,
            orders,
            cores: vec![core],
            phase: Arc::clone(&phase),
            quota: Arc::new(Quota::new(shape.most, 0)),
            doors: Arc::default(),
            load: Arc::clone(&load),
            counters: Arc::clone(&counters),
            seats: vec![seat(memory, names)],
            roles: vec!["agent"],
        };
        let now = Instant::now();
        let mut worker = Worker::new(SimNetwork(world.clone()), setup, now);
        let listen = Listen {
            role: "agent",
            name: None,
            address: "10.0.0.1:7100".parse().unwrap(),
            transport: Transport::Stream,
            terms: Arc::new(shape.terms),
        };
        let socket = world::listen(&world, listen.address).unwrap();
        worker.listen(socket, listen, 0, 0).unwrap();
        Self {
            world,
            worker,
            control,
            phase,
            counters,
            load,
            ordering,
            questions,
            now,
            unix: 1_700_000_000,
        }
    }

    /// Opens the datagram listener number 1 of the house's service on port 7200.
    pub fn listen_datagrams(&mut self) -> std::io::Result<()> {
        let listen = Listen {
            role: "agent",
            name: None,
            address: "10.0.0.1:7200".parse().unwrap(),
            transport: Transport::Datagram,
            terms: Arc::default(),
        };
        let mut network = SimNetwork(self.world.clone());
        let (socket, _) = network.bind(listen.address)?;
        self.worker.listen_datagrams(socket, listen, 0, 1)
    }

    /// One turn over a part of what is ready.
    pub fn turn(&mut self) {
        let ready = self.world.borrow_mut().ready();
        self.worker.turn(self.now, ready);
        self.worker.check();
    }

    /// The control thread serves some of the questions.
    pub fn serve_questions(&mut self, most: usize) {
        let mut batch: Vec<Request> = self.questions.try_iter().take(most).collect();
        self.unix += 1;
        self.control.step(&mut batch, self.now, self.unix);
    }

    /// Time passes, at most up to the engine's next deadline: nothing may come late by itself.
    pub fn pass(&mut self, most: Duration) {
        let rest = self.worker.rest().unwrap_or(most);
        let step = rest.min(most).max(Duration::from_millis(1));
        self.now += step;
        self.world.borrow_mut().unix_time += step;
        self.turn();
    }

    /// The control thread has been given every question.
    pub fn has_caught_up(&self) -> bool {
        self.questions.is_empty()
    }

    /// Turns until all that is ready has been told and done; time stands still.
    pub fn quiesce(&mut self) {
        for _ in 0..10_000 {
            if !self.world.borrow().has_news() && self.worker.rest() != Some(Duration::ZERO) {
                return;
            }
            self.turn();
        }
        panic!("the worker never comes to rest");
    }

    /// Time passes up to `until`, with a turn at each of the engine's deadlines.
    pub fn wait(&mut self, until: Instant) {
        while self.now < until {
            self.pass(until - self.now);
        }
    }

    /// Everything is delivered, answered and read until nothing moves any more; time stands still.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 20 {
            let before = self.progress();
            self.world.borrow_mut().rush();
            self.turn();
            self.serve_questions(usize::MAX);
            quiet = if self.progress() == before {
                quiet + 1
            } else {
                0
            };
        }
    }

    fn progress(&self) -> (usize, usize, usize) {
        let world = self.world.borrow();
        let received = world
            .sockets
            .iter()
            .map(|socket| socket.received.len())
            .sum();
        let over = world
            .sockets
            .iter()
            .filter(|socket| socket.is_over())
            .count();
        (received, over, self.worker.sessions())
    }

    /// True when the control thread would tell somebody of a change of this record. Sets it.
    pub fn is_awaited(&mut self, id: &[u8], section: &[u8]) -> bool {
        let update = Update {
            id: id.into(),
            section: section.into(),
            change: Change::Set(Box::default()),
        };
        // No worker has this core, so the update's own answer goes nowhere.
        let session = SessionKey::from_parts(0, 1).unwrap();
        let nobody = Handle { core: 9, session };
        let mut batch = vec![Request {
            from: nobody,
            ticket: 0,
            command: Command::Update(update),
        }];
        self.quiesce();
        self.control.step(&mut batch, self.now, self.unix);
        self.worker.rest() == Some(Duration::ZERO)
    }

    /// Nothing is left of any session: tables, timers and blocks are back where they began.
    pub fn assert_empty(&self) {
        assert_eq!(self.worker.sessions(), 0, "sessions left");
        let left = self.worker.holdings();
        assert_eq!(
            left,
            towpath::worker::Holdings::default(),
            "something leaked"
        );
        let world = self.world.borrow();
        for (id, socket) in world.sockets.iter().enumerate() {
            assert!(socket.closed, "socket {id} was never closed");
        }
        let ports = world.air.ports.iter();
        assert!(
            ports.clone().all(|port| port.closed),
            "a port was never closed"
        );
    }
}

/// The only name there is.
struct Book;

impl Lookup for Book {
    fn lookup(&self, host: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        match host {
            "backend.test" => Ok(vec![[10, 9, 0, 1].into(), [10, 9, 0, 2].into()]),
            _ => Err(std::io::Error::other("no such name")),
        }
    }
}
