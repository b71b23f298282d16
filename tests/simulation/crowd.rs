//! The agent role among a random crowd: clients of all kinds and their backends act in random
//! order, and a model says what each of them must have seen when all have left.
//!
//! The clock stands still while bytes move: before time passes, everything that is ready has been
//! told. So each deadline is known to the tick of the timer wheel, whatever the order of events.

mod model;

use std::time::{Duration, Instant};

use towpath::config::Secret;
use towpath::protocols::agent::config::Route;

use self::model::{Fate, Plan};
use super::agent::{house, route};
use super::house::{House, Shape};
use super::seeds;
use super::world::Random;

/// A crowd at work.
struct Crowd {
    house: House,
    random: Random,
    clients: Vec<Client>,
    backends: Vec<Backend>,
    /// What was noticed of each socket of the world.
    notes: Vec<Note>,
    /// Ends of moments in which the control thread had no question left.
    caught_up: Vec<Instant>,
    weather: Weather,
}

/// What makes one world harder than another.
#[derive(Clone, Copy)]
struct Weather {
    /// Percent of connects and watches that fail.
    failures: usize,
    /// The channel to the control thread is so short that it may be found full.
    is_busy: bool,
    /// The buffer pool is so small that reading may pause: then nothing happens at a known time.
    is_tight: bool,
}

struct Client {
    plan: Plan,
    /// Sent when it joins; the bytes that follow are a traffic client's.
    script: Vec<u8>,
    /// What a traffic client has sent behind its frame.
    payload: Vec<u8>,
    socket: Option<usize>,
    ended: bool,
    reset: bool,
    /// Closed before it could say anything, by a fault of the network.
    shed: bool,
}

struct Backend {
    socket: usize,
    client: usize,
    /// Nothing until it is known how the connect ends, which may be never.
    accepted: Option<bool>,
    sent: Vec<u8>,
    ended: bool,
    reset: bool,
}

/// When things happened to a socket.
#[derive(Clone, Copy)]
struct Note {
    since: Instant,
    /// The last byte of the client's script arrived.
    delivered: Option<Instant>,
    /// The engine wrote its last byte so far.
    answered: Option<Instant>,
    closed: Option<Instant>,
    /// The engine's end of the stream, or its close.
    shut: Option<Instant>,
    /// The peer ended its stream.
    left: Option<Instant>,
    emitted: usize,
}

impl Crowd {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x00c0_ffee);
        let weather = Weather {
            failures: if random.chance(25) { 10 } else { 0 },
            is_busy: random.chance(25),
            is_tight: random.chance(25),
        };
        let count = 5 + random.below(26);
        let plans: Vec<Plan> = (0..count)
            .map(|number| Plan::random(number, count, &mut random))
            .collect();
        let clients: Vec<Client> = plans
            .into_iter()
            .enumerate()
            .map(|(number, plan)| Client::new(number, plan, &mut random))
            .collect();
        let mut routes: Vec<Route> = Vec::new();
        for (number, client) in clients.iter().enumerate() {
            if let Plan::Traffic { fate, .. } = &client.plan {
                routes.push(fate.route(number));
            }
        }
        let shape = Shape {
            questions: if weather.is_busy { 2 } else { 10_000 },
            buffer_memory: if weather.is_tight { 0 } else { 64 << 20 },
            ..Shape::default()
        };
        let house = house(seed, shape, routes);
        {
            let mut world = house.world.borrow_mut();
            world.failures = weather.failures;
            world.send_room = [300, 5_000, 1 << 20][random.below(3)];
        }
        Self {
            house,
            random,
            clients,
            backends: Vec::new(),
            notes: Vec::new(),
            caught_up: Vec::new(),
            weather,
        }
    }

    /// One thing happens.
    fn step(&mut self) {
        match self.random.below(100) {
            0..8 => self.join(),
            8..40 => self.deliver(),
            40..62 => self.receive(),
            62..66 => self.end(),
            66 => self.reset(),
            67..76 => self.settle_dial(),
            76..88 => {
                let most = self.random.below(5);
                self.house.serve_questions(most);
            }
            88..94 => self.talk(),
            _ => return self.pass(),
        }
        self.turn();
    }

    fn turn(&mut self) {
        self.house.turn();
        self.observe();
    }

    /// A client that has not come yet comes, and sends its script.
    fn join(&mut self) {
        let absent: Vec<usize> = (0..self.clients.len())
            .filter(|&number| self.clients[number].socket.is_none())
            .collect();
        if absent.is_empty() {
            return;
        }
        let number = absent[self.random.below(absent.len())];
        let client = &mut self.clients[number];
        let socket = {
            let mut world = self.house.world.borrow_mut();
            let socket = world.connect();
            world.send(socket, &client.script);
            world.send(socket, &client.payload);
            socket
        };
        client.socket = Some(socket);
        self.notes.push(Note::new(self.house.now));
        self.turn();
        let closed = self.house.world.borrow().sockets[socket].closed;
        self.clients[number].shed = closed;
        assert!(!closed || self.weather.failures > 0, "closed at once");
    }

    /// A piece of what somebody has sent arrives.
    fn deliver(&mut self) {
        if self.notes.is_empty() {
            return;
        }
        let socket = self.random.below(self.notes.len());
        let most = [1, 30, 1_000, 50_000][self.random.below(4)];
        let most = 1 + self.random.below(most);
        self.deliver_to(socket, most);
    }

    fn deliver_to(&mut self, socket: usize, most: usize) {
        let mut world = self.house.world.borrow_mut();
        world.deliver(socket, most);
        let left = world.sockets[socket].undelivered();
        let owner = self.clients.iter().find(|one| one.socket == Some(socket));
        if owner.is_some_and(|client| left <= client.payload.len()) {
            self.notes[socket].delivered.get_or_insert(self.house.now);
        }
    }

    /// Somebody reads a piece.
    fn receive(&mut self) {
        if self.notes.is_empty() {
            return;
        }
        let socket = self.random.below(self.notes.len());
        let most = 1 + self.random.below(20_000);
        self.house.world.borrow_mut().receive(socket, most);
    }

    fn end(&mut self) {
        let number = self.random.below(self.clients.len() + self.backends.len());
        match number.checked_sub(self.clients.len()) {
            None => self.end_client(number),
            Some(number) => self.end_backend(number),
        }
    }

    fn end_client(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if let (Some(socket), true) = (client.socket, client.plan.may_end()) {
            client.ended = true;
            self.notes[socket].left.get_or_insert(self.house.now);
            self.house.world.borrow_mut().end(socket);
        }
    }

    fn end_backend(&mut self, number: usize) {
        let backend = &mut self.backends[number];
        if backend.accepted == Some(true) {
            backend.ended = true;
            self.house.world.borrow_mut().end(backend.socket);
        }
    }

    fn reset(&mut self) {
        let number = self.random.below(self.clients.len() + self.backends.len());
        let socket = match number.checked_sub(self.clients.len()) {
            None => {
                let client = &mut self.clients[number];
                client.reset |= client.socket.is_some();
                client.socket
            }
            Some(number) => {
                let backend = &mut self.backends[number];
                backend.reset = true;
                Some(backend.socket)
            }
        };
        if let Some(socket) = socket {
            self.house.world.borrow_mut().reset(socket);
        }
    }

    /// A connect succeeds or is refused; some are left to their timeout.
    fn settle_dial(&mut self) {
        if !self.backends.is_empty() {
            let number = self.random.below(self.backends.len());
            self.decide(number);
        }
    }

    fn decide(&mut self, number: usize) {
        let patient = self.random.chance(15);
        let backend = &mut self.backends[number];
        let mut world = self.house.world.borrow_mut();
        if backend.accepted.is_some() || patient || world.sockets[backend.socket].closed {
            return;
        }
        let accepted = self.random.chance(70);
        backend.accepted = Some(accepted);
        world.settle_dial(backend.socket, accepted);
        if accepted {
            let count = self.random.below(40_000);
            backend.sent = self.random.bytes(count);
            world.send(backend.socket, &backend.sent);
        }
    }

    /// An end of a relay (or of what may become one) says something more.
    fn talk(&mut self) {
        let count = self.random.below(10_000);
        let bytes = self.random.bytes(count);
        let number = self.random.below(self.clients.len() + self.backends.len());
        let mut world = self.house.world.borrow_mut();
        match number.checked_sub(self.clients.len()) {
            None => {
                let client = &mut self.clients[number];
                let talks = matches!(client.plan, Plan::Traffic { .. }) && !client.ended;
                if let (Some(socket), true) = (client.socket, talks) {
                    world.send(socket, &bytes);
                    client.payload.extend(bytes);
                }
            }
            Some(number) => {
                let backend = &mut self.backends[number];
                if backend.accepted == Some(true) && !backend.ended {
                    world.send(backend.socket, &bytes);
                    backend.sent.extend(bytes);
                }
            }
        }
    }

    /// Time passes; what arrives at the new time is told in the same turn as the timers.
    fn pass(&mut self) {
        self.quiesce();
        self.end_moment();
        let most = [5, 20, 100, 100, 500, 3_000][self.random.below(6)];
        let most = Duration::from_millis(1 + self.random.below(most) as u64);
        let rest = self.house.worker.rest().unwrap_or(most);
        self.house.now += rest.min(most).max(Duration::from_millis(1));
        self.deliver();
        self.turn();
    }

    fn end_moment(&mut self) {
        if self.house.has_caught_up() {
            self.caught_up.push(self.house.now);
        }
    }

    fn quiesce(&mut self) {
        self.house.quiesce();
        self.observe();
    }

    /// Notes what has become visible since the last look, and meets new backends.
    fn observe(&mut self) {
        let now = self.house.now;
        let world = self.house.world.borrow();
        for socket in self.notes.len()..world.sockets.len() {
            let port = usize::from(world.sockets[socket].peer.port());
            self.notes.push(Note::new(now));
            self.backends.push(Backend {
                socket,
                client: port / 2 - FIRST_PORT / 2,
                accepted: None,
                sent: Vec::new(),
                ended: false,
                reset: false,
            });
        }
        for (note, socket) in self.notes.iter_mut().zip(&world.sockets) {
            if socket.emitted() > note.emitted {
                note.emitted = socket.emitted();
                note.answered = Some(now);
            }
            if socket.closed || socket.shut {
                note.shut.get_or_insert(now);
            }
            if socket.closed {
                note.closed.get_or_insert(now);
            }
        }
    }

    /// Everybody comes, everything arrives, those who may end do, and time passes until the last
    /// deadline is over.
    fn finish(&mut self) {
        while self.clients.iter().any(|client| client.socket.is_none()) {
            self.join();
        }
        for _ in 0..2_000 {
            self.rush();
            self.end_moment();
            let left = self.house.worker.holdings();
            if self.house.worker.sessions() == 0 && left == Default::default() {
                return;
            }
            let rest = self.house.worker.rest().expect("nothing will ever end it");
            self.house.now += rest.max(Duration::from_millis(1));
            self.turn();
        }
        panic!("somebody never leaves");
    }

    /// All that can happen without time passing.
    fn rush(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let before: usize = self.notes.iter().map(|note| note.emitted).sum();
            let dials = self.backends.len();
            for number in 0..self.clients.len() {
                self.end_client(number);
            }
            for number in 0..self.backends.len() {
                self.decide(number);
                self.end_backend(number);
            }
            for socket in 0..self.notes.len() {
                self.deliver_to(socket, usize::MAX);
                self.house.world.borrow_mut().receive(socket, usize::MAX);
            }
            self.quiesce();
            self.house.serve_questions(usize::MAX);
            self.quiesce();
            let after: usize = self.notes.iter().map(|note| note.emitted).sum();
            let still = before == after && dials == self.backends.len();
            quiet = if still { quiet + 1 } else { 0 };
        }
    }
}

impl Client {
    fn new(number: usize, plan: Plan, random: &mut Random) -> Self {
        let script = plan.script(number, random);
        let payload = match plan {
            Plan::Traffic { .. } => {
                let count = random.below(20_000);
                random.bytes(count)
            }
            _ => Vec::new(),
        };
        Self {
            plan,
            script,
            payload,
            socket: None,
            ended: false,
            reset: false,
            shed: false,
        }
    }
}

impl Note {
    fn new(since: Instant) -> Self {
        Self {
            since,
            delivered: None,
            answered: None,
            closed: None,
            shut: None,
            left: None,
            emitted: 0,
        }
    }
}

impl Fate {
    /// The service of the client of that number. Its backends' ports tell whose they are.
    fn route(&self, number: usize) -> Route {
        let port = (FIRST_PORT + 2 * number) as u16;
        let name = format!("s{number}");
        let mut route = match self {
            Fate::Unresolved => route(&name, &[("nowhere.test", port)]),
            Fate::Named => route(&name, &[("backend.test", port)]),
            Fate::Two => route(&name, &[("10.9.0.1", port), ("10.9.0.2", port + 1)]),
            _ => route(&name, &[("10.9.0.1", port)]),
        };
        match self {
            Fate::Token { .. } => route.token = Secret::new(b"sesame"),
            Fate::NoField => route.fields[0].0 = "other".into(),
            _ => {}
        }
        route
    }
}

#[test]
fn a_random_crowd_sees_what_the_model_says() {
    seeds(120, |seed| {
        let mut crowd = Crowd::new(seed);
        for _ in 0..400 {
            crowd.step();
        }
        crowd.finish();
        crowd.judge();
        crowd.house.assert_empty();
        if !crowd.weather.is_busy {
            // With a full channel the end of a watch may be lost; the place's next user ends it.
            for number in 0..crowd.clients.len() {
                let id = model::id_of(number);
                assert!(!crowd.house.is_awaited(&id, model::AWAITED), "a watch left");
            }
        }
    });
}

/// Even, so that a client's two ports are its own.
const FIRST_PORT: usize = 2_000;
