//! Several workers that write to each other, each on a simulated network of its own, stepped by
//! hand in a random order under one clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use towpath::control::leases::Pool;
use towpath::control::resolver::{Lookup, Resolver};
use towpath::control::{Control, Letter, Request};
use towpath::net::{Load, Quota};
use towpath::reactor::{Address, mailbox};
use towpath::session::{Listen, Seat};
use towpath::stats::{Counters, Metric};
use towpath::store::{Limits, Store};
use towpath::worker::{Holdings, Phase, Setup, Worker};

use super::house::{DRAIN, IDLE, OPTIONS, Shape, Silent};
use super::world::{self, Random, Shared, SimNetwork, World};

/// The workers.
pub struct Row {
    /// Who lends ports, where somebody does.
    lender: Option<Lender>,
    pub cores: Vec<Core>,
    pub phase: Arc<Phase>,
    pub now: Instant,
    pub random: Random,
}

/// A control thread's state, stepped when the workers are at rest.
struct Lender {
    control: Control,
    questions: Receiver<Request>,
    unix: i64,
}

/// One worker and its network.
pub struct Core {
    pub world: Shared,
    pub worker: Worker<SimNetwork>,
    pub counters: Arc<Counters>,
}

impl Row {
    /// As many workers as there are seats. Each listens at all of `listen`, which the seat knows by
    /// their numbers; its box has room for `depth` letters.
    pub fn new(
        seed: u64,
        shape: Shape,
        depth: usize,
        listen: &[Listen],
        seats: Vec<Box<dyn Seat>>,
    ) -> Self {
        Self::lending(seed, shape, depth, listen, seats, Vec::new())
    }

    /// The same, with ports to lend.
    pub fn lending(
        seed: u64,
        shape: Shape,
        depth: usize,
        listen: &[Listen],
        seats: Vec<Box<dyn Seat>>,
        pools: Vec<Pool>,
    ) -> Self {
        let now = Instant::now();
        let (asking, questions) = bounded(shape.questions);
        let letters = seats.iter().map(|_| mailbox(10_000, Arc::new(Silent)));
        let (addresses, mut letters): (Vec<_>, VecDeque<_>) = letters.unzip();
        let lender = (!pools.is_empty()).then(|| Lender {
            control: control(addresses).lending(pools, now, UNIX),
            questions,
            unix: UNIX,
        });
        let phase = Arc::new(Phase::default());
        let quota = Arc::new(Quota::new(shape.most, 0).pacing(shape.bandwidth_per_ip));
        let boxes = seats.iter().map(|_| mailbox(depth, Arc::new(Silent)));
        let (cores, boxes): (Vec<_>, Vec<_>) = boxes.unzip();
        let found = |(core, (seat, post)): (usize, (Box<dyn Seat>, _))| {
            let world = World::new(seed.wrapping_mul(31).wrapping_add(core as u64));
            let counters = Arc::new(Counters::default());
            let setup = Setup {
                core: core as u8,
                handshake_timeout: Duration::from_secs(5),
                idle_timeout: IDLE,
                drain_timeout: DRAIN,
                drain_spread: Duration::ZERO,
                buffer_memory: shape.buffer_memory,
                way: shape.way,
                socket_options: OPTIONS,
                pipe_size: 1 << 20,
                seed: seed + core as u64,
                control: asking.clone(),
                mailbox: letters.pop_front().unwrap(),
                post,
                orders: mailbox(1, Arc::new(Silent)).1,
                cores: cores.clone(),
                phase: Arc::clone(&phase),
                quota: Arc::clone(&quota),
                doors: Arc::default(),
                load: Arc::new(Load::new(Default::default())),
                counters: Arc::clone(&counters),
                seats: vec![seat],
                roles: vec!["agent"],
            };
            let mut worker = Worker::new(SimNetwork(world.clone()), setup, now);
            for (number, listen) in listen.iter().enumerate() {
                let socket = world::listen(&world, listen.address).unwrap();
                worker.listen(socket, listen.clone(), 0, number).unwrap();
            }
            worker.reside();
            Core {
                world,
                worker,
                counters,
            }
        };
        Self {
            lender,
            cores: seats
                .into_iter()
                .zip(boxes)
                .enumerate()
                .map(found)
                .collect(),
            phase,
            now,
            random: Random::new(seed ^ 0x0b0e),
        }
    }

    /// One turn of one worker over a part of what is ready there.
    pub fn turn(&mut self, core: usize) {
        let Core { world, worker, .. } = &mut self.cores[core];
        let ready = world.borrow_mut().ready();
        worker.turn(self.now, ready);
        worker.check();
    }

    /// One turn of somebody.
    pub fn step(&mut self) {
        let core = self.random.below(self.cores.len());
        self.turn(core);
    }

    /// Turns in a random order until all that is ready has been told and done; time stands still.
    pub fn quiesce(&mut self) {
        let mut most = 10_000 * self.cores.len();
        loop {
            while let Some(core) = self.busy() {
                self.turn(core);
                most -= 1;
                assert!(most > 0, "the workers never come to rest");
            }
            if !self.lend() {
                return;
            }
        }
    }

    /// The control thread serves what it was asked; false when that is nothing.
    fn lend(&mut self) -> bool {
        let Some(lender) = &mut self.lender else {
            return false;
        };
        let mut batch: Vec<_> = lender.questions.try_iter().collect();
        let asked = !batch.is_empty();
        lender.unix += 1;
        lender.control.step(&mut batch, self.now, lender.unix);
        asked
    }

    /// Somebody who has something to do at this very time.
    fn busy(&mut self) -> Option<usize> {
        let count = self.cores.len();
        let first = self.random.below(count);
        (0..count).map(|n| (first + n) % count).find(|&core| {
            let Core { world, worker, .. } = &self.cores[core];
            world.borrow().has_news() || worker.rest() == Some(Duration::ZERO)
        })
    }

    /// Time passes, at most up to the first deadline of a worker; then all come to rest.
    pub fn pass(&mut self, most: Duration) {
        let rests = self.cores.iter().filter_map(|core| core.worker.rest());
        let rest = rests.min().unwrap_or(most);
        let step = rest.min(most).max(Duration::from_millis(1));
        self.now += step;
        for core in &self.cores {
            core.world.borrow_mut().unix_time += step;
        }
        for core in 0..self.cores.len() {
            self.turn(core);
        }
        self.quiesce();
    }

    /// Time passes up to `until`, with turns at each deadline.
    pub fn wait(&mut self, until: Instant) {
        while self.now < until {
            self.pass(until - self.now);
        }
    }

    /// How often something was counted on all cores.
    pub fn count(&self, metric: Metric) -> u64 {
        let counts = self.cores.iter().map(|core| core.counters.get(metric));
        counts.sum()
    }

    /// Nothing is left of any session.
    pub fn assert_empty(&self) {
        for (number, core) in self.cores.iter().enumerate() {
            assert_eq!(core.worker.sessions(), 0, "sessions left on {number}");
            let left = core.worker.holdings();
            assert_eq!(left, Holdings::default(), "leaked on {number}");
            for (id, socket) in core.world.borrow().sockets.iter().enumerate() {
                assert!(socket.closed, "socket {id} of {number} was never closed");
            }
        }
    }
}

fn control(addresses: Vec<Address<Letter>>) -> Control {
    let limits = Limits {
        max_value: 1 << 20,
        max_records: 1,
        max_bytes: 1 << 20,
    };
    let resolver = Resolver::inline(Box::new(Nobody), Duration::ZERO, Duration::ZERO);
    Control::new(Store::in_memory(limits).unwrap(), resolver, addresses)
}

/// No name has an address.
struct Nobody;

impl Lookup for Nobody {
    fn lookup(&self, _: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        Err(std::io::Error::other("no such name"))
    }
}

const UNIX: i64 = 1_700_000_000;
