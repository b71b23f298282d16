//! The start and the ordered stop.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::net::TcpListener;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value};

use super::signals::{Stopper, Watch};
use super::{Plan, StartError};
use crate::config::Core;
use crate::control::resolver::Resolver;
use crate::control::{Control, Letter, Request};
use crate::net::{self, Kernel, Poller, Quota, SocketOptions};
use crate::protocols::agent;
use crate::reactor::{Address, Bell, Mailbox, mailbox};
use crate::session::Service;
use crate::stats::{self, Counters, Metric};
use crate::store::Store;
use crate::sys;
use crate::worker::{Phase, Setup, Worker};

/// Runs the plan until it has drained after a signal.
///
/// Errors come before the first connection is accepted, except [`StartError::Thread`].
pub fn run(plan: Plan) -> Result<(), StartError> {
    if plan.agent.listen.is_empty() {
        return Err(StartError::NothingToServe);
    }
    let core = &plan.core;
    let workers = match core.workers {
        0 => sys::processors(),
        chosen => chosen,
    };
    let store = Store::open(&core.data_dir, plan.agent.store).map_err(StartError::Store)?;
    let desks = (0..workers)
        .map(|_| Desk::open())
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| StartError::System("create an event loop", error))?;

    let resolver = Resolver::new(core.limits.resolve_ttl, core.limits.resolve_timeout)
        .map_err(|error| StartError::System("start the resolver", error))?;
    let names = resolver.names();
    let memory = store.memory();
    let records = memory.records();
    let timeouts = agent::Timeouts {
        handshake: core.limits.handshake_timeout,
        connect: core.limits.connect_timeout,
        idle: core.limits.idle_timeout,
    };
    let role = agent::Agent::new(plan.agent.clone(), timeouts, memory, names);
    let services: Vec<Arc<dyn Service>> = vec![Arc::new(role)];

    let bound = bind_all(&services, workers)?;
    let addresses = desks.iter().map(|desk| desk.address.clone()).collect();
    let bells = desks.iter().map(|desk| Arc::clone(&desk.bell)).collect();
    let (questions, asked) = bounded(QUESTIONS);
    let control = Control::new(store, resolver, addresses);
    let control = start_control(control, asked)?;

    let phase = Arc::new(Phase::default());
    let stopper = Stopper::new(Arc::clone(&phase), bells);
    let quota = Arc::new(quota(core, workers, bound.len()));
    let mut counters = Vec::new();
    let mut threads = Vec::new();
    for (number, desk) in desks.into_iter().enumerate() {
        let own = Arc::new(Counters::default());
        counters.push(Arc::clone(&own));
        let part = Part {
            number,
            pin: core.pin,
            desk,
            services: services.clone(),
            listeners: bound.iter().map(|listener| listener.share(number)).collect(),
            idle_timeout: core.limits.idle_timeout,
            drain_timeout: core.limits.drain_timeout,
            buffer_memory: core.limits.max_buffer_memory as usize / workers,
            questions: questions.clone(),
            phase: Arc::clone(&phase),
            quota: Arc::clone(&quota),
            counters: own,
            stopper: stopper.clone(),
        };
        threads.push(part.start()?);
    }
    drop(questions);
    let watch = Watch::start(stopper).map_err(|error| StartError::System("watch signals", error))?;
    announce(&bound, plan.address_file.as_deref())?;
    log::info!(
        "ready: {workers} workers, {records} records, at most {} connections",
        quota.most()
    );

    let mut outcome = Ok(());
    for thread in threads {
        if thread.join().is_err() {
            outcome = Err(StartError::Thread("worker"));
        }
    }
    if control.join().is_err() {
        outcome = Err(StartError::Thread("control"));
    }
    watch.close();
    farewell(&counters);
    outcome
}

/// A worker's poll and mailbox, made before the threads so that they know each other.
struct Desk {
    poller: Poller,
    kernel: Kernel,
    bell: Arc<dyn Bell>,
    address: Address<Letter>,
    mailbox: Mailbox<Letter>,
}

impl Desk {
    fn open() -> io::Result<Self> {
        let (poller, kernel, bell) = net::open(SOCKETS)?;
        let (address, mailbox) = mailbox(LETTERS, Arc::clone(&bell));
        Ok(Self {
            poller,
            kernel,
            bell,
            address,
            mailbox,
        })
    }
}

/// One address of one service, listened on by every core.
struct Bound {
    service: usize,
    role: &'static str,
    address: SocketAddr,
    /// One for each core.
    sockets: Vec<std::cell::Cell<Option<TcpListener>>>,
}

impl Bound {
    fn share(&self, core: usize) -> (usize, SocketAddr, Option<TcpListener>) {
        let socket = self.sockets.get(core).and_then(std::cell::Cell::take);
        (self.service, self.address, socket)
    }
}

/// Listens on every address once for each core.
fn bind_all(services: &[Arc<dyn Service>], workers: usize) -> Result<Vec<Bound>, StartError> {
    let mut bound = Vec::new();
    for (number, service) in services.iter().enumerate() {
        for &address in service.listen() {
            let role = service.role();
            let (address, sockets) = bind_cores(address, workers)
                .map_err(|error| StartError::Listen(role, address, error))?;
            bound.push(Bound {
                service: number,
                role,
                address,
                sockets: sockets.into_iter().map(|s| std::cell::Cell::new(Some(s))).collect(),
            });
        }
    }
    Ok(bound)
}

/// One listening socket for each core on the same address; port 0 becomes one chosen port.
fn bind_cores(address: SocketAddr, cores: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // Sockets that share an address would also share it with another server of the same user, who
    // would then get a part of the connections. A socket that does not share finds that out.
    let probe = net::probe(address)?;
    let chosen = probe.local_addr()?;
    drop(probe);
    let sockets = (0..cores)
        .map(|_| net::bind(chosen, SOCKETS))
        .collect::<io::Result<Vec<_>>>()?;
    Ok((chosen, sockets))
}

fn start_control(
    control: Control,
    asked: Receiver<Request>,
) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new()
        .name("control".into())
        .spawn(move || control.run(asked))
        .map_err(|error| StartError::System("start the control thread", error))
}

/// How many connections the descriptors allow: each may need a second one, to its upstream.
fn quota(core: &Core, workers: usize, listeners: usize) -> Quota {
    let limits = &core.limits;
    if let Ok((soft, hard)) = sys::descriptor_limit()
        && soft < hard
        && let Err(error) = sys::set_descriptor_limit(hard)
    {
        log::warn!("the descriptor limit stays at {soft}: {error}");
    }
    let open = sys::descriptor_limit().map_or(1024, |(soft, _)| soft as usize);
    let own = OWN_DESCRIPTORS + workers * (3 + listeners);
    let allowed = (open.saturating_sub(own) / 2).max(1);
    let most = match limits.max_connections {
        0 => allowed,
        wanted if wanted > allowed => {
            log::warn!(
                "max_connections = {wanted} is cut to {allowed}, which {open} descriptors allow; raise `ulimit -n`"
            );
            allowed
        }
        wanted => wanted,
    };
    Quota::new(most, limits.max_connections_per_ip)
}

/// What one worker's thread starts with.
struct Part {
    number: usize,
    pin: bool,
    desk: Desk,
    services: Vec<Arc<dyn Service>>,
    listeners: Vec<(usize, SocketAddr, Option<TcpListener>)>,
    idle_timeout: Duration,
    drain_timeout: Duration,
    buffer_memory: usize,
    questions: Sender<Request>,
    phase: Arc<Phase>,
    quota: Arc<Quota>,
    counters: Arc<Counters>,
    stopper: Stopper,
}

impl Part {
    fn start(self) -> Result<JoinHandle<()>, StartError> {
        let name = format!("worker-{}", self.number);
        thread::Builder::new()
            .name(name)
            .spawn(move || self.run())
            .map_err(|error| StartError::System("start a worker thread", error))
    }

    fn run(self) {
        // A worker that ends before its time leaves connections that nobody serves: the whole
        // server stops then, and its supervisor starts it anew.
        let guard = Guard(self.stopper.clone());
        if self.pin {
            match sys::pin_thread(self.number % sys::processors()) {
                Ok(cpu) => log::debug!("worker {} runs on processor {cpu}", self.number),
                Err(error) => log::warn!("worker {} is not pinned: {error}", self.number),
            }
        }
        let core = self.number as u8;
        let mut poller = self.desk.poller;
        let setup = Setup {
            core,
            idle_timeout: self.idle_timeout,
            drain_timeout: self.drain_timeout,
            buffer_memory: self.buffer_memory,
            seed: seed(),
            control: self.questions,
            mailbox: self.desk.mailbox,
            phase: self.phase,
            quota: self.quota,
            counters: self.counters,
            seats: self
                .services
                .iter()
                .map(|service| (service.role(), service.seat(core)))
                .collect(),
        };
        let mut worker = Worker::new(self.desk.kernel, setup, Instant::now());
        for (service, address, socket) in self.listeners {
            let Some(socket) = socket else { continue };
            if let Err(error) = worker.listen(socket, address, service) {
                log::error!("worker {core} cannot watch {address}: {error}");
                return;
            }
        }
        while !worker.is_done() {
            match poller.wait(worker.rest()) {
                Ok(ready) => worker.turn(Instant::now(), ready),
                Err(error) => {
                    log::error!("worker {core} cannot wait for events: {error}");
                    return;
                }
            }
        }
        std::mem::forget(guard);
    }
}

/// Stops the server when it is dropped.
struct Guard(Stopper);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A seed for masks. Without a source of randomness they are merely less random.
fn seed() -> u64 {
    let mut bytes = [1; 8];
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Says where the server listens, in the log and in the address file.
fn announce(bound: &[Bound], file: Option<&Path>) -> Result<(), StartError> {
    let mut roles: Map<String, Value> = Map::new();
    for listener in bound {
        log::info!("{} listening on {}", listener.role, listener.address);
        let list = roles
            .entry(listener.role)
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(listener.address.to_string().into());
        }
    }
    let Some(path) = file else { return Ok(()) };
    let failed = |error| StartError::AddressFile(path.to_owned(), error);
    // Renamed into place, so that whoever waits for the file never reads half of it.
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, format!("{}\n", Value::Object(roles))).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)
}

fn farewell(counters: &[Arc<Counters>]) {
    let sum = |metric| stats::sum(counters.iter().map(Arc::as_ref), metric);
    log::info!(
        "stopped: accepted={} shed={} faulted={} dialled={} relayed_bytes={}",
        sum(Metric::Accepted),
        sum(Metric::Shed),
        sum(Metric::Faulted),
        sum(Metric::Dialled),
        sum(Metric::Relayed),
    );
}

/// How long sent bytes may stay unacknowledged, and after how much silence the kernel probes.
const SOCKETS: SocketOptions = SocketOptions {
    user_timeout: Duration::from_secs(120),
    keepalive: Duration::from_secs(60),
};

/// Questions that may wait for the control thread; one more is answered "busy".
const QUESTIONS: usize = 65_536;

/// Letters that may wait for a worker; the control thread keeps those that do not fit.
const LETTERS: usize = 16_384;

/// Descriptors that are not connections: the store, the standard ones, lookups, and some to spare.
const OWN_DESCRIPTORS: usize = 32;
