//! The start and the ordered stop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::listeners::{self, Bound};
use super::part::Part;
use super::signals::{Stopper, Watch};
use super::{Plan, StartError};
use crate::config::Core;
use crate::control::resolver::Resolver;
use crate::control::{Control, Letter, Request, unix_now};
use crate::net::{self, Kernel, Poller, Quota, SocketOptions};
use crate::reactor::{self, Address, Bell, Mailbox, mailbox};
use crate::session::{Ground, Post, Service};
use crate::stats::{self, Counters, Metric};
use crate::store::{self, Store};
use crate::sys;
use crate::worker::Phase;

/// Runs the plan until it has drained after a signal.
///
/// Errors come before the first connection is accepted, except [`StartError::Thread`].
pub fn run(plan: Plan) -> Result<(), StartError> {
    let running = start(plan)?;
    let watch = Watch::start(running.stopper())
        .map_err(|error| StartError::System("watch signals", error))?;
    running.announce()?;
    let outcome = running.wait();
    watch.close();
    outcome
}

/// A server at work. Dropping it leaves it at work.
pub struct Running {
    crew: Crew,
    bound: Vec<Bound>,
    address_file: Option<PathBuf>,
    /// For the log: what it begins with.
    about: String,
}

impl Running {
    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        self.crew.stopper.clone()
    }

    /// Says where it listens, in the log and in the address file.
    pub fn announce(&self) -> Result<(), StartError> {
        listeners::announce(&self.bound, self.address_file.as_deref())?;
        log::info!("{}", self.about);
        Ok(())
    }

    /// Waits until it has ended.
    pub fn wait(self) -> Result<(), StartError> {
        self.crew.join()
    }
}

/// Starts the plan.
pub fn start(plan: Plan) -> Result<Running, StartError> {
    let roles: Vec<_> = plan.roles.iter().filter(|role| role.is_on()).collect();
    if roles.is_empty() {
        return Err(StartError::NothingToServe);
    }
    let limits = plan.core.limits.clone();
    let workers = match plan.core.workers {
        0 => sys::processors(),
        chosen => chosen,
    };
    let pools: Vec<_> = roles.iter().flat_map(|role| role.pools()).collect();
    let store = match roles.iter().find_map(|role| role.store()) {
        Some(limits) => Store::open(&plan.core.data_dir, limits),
        None if !pools.is_empty() => Store::open(&plan.core.data_dir, NO_RECORDS),
        None => Store::in_memory(NO_RECORDS),
    };
    let store = store.map_err(StartError::Store)?;
    let resolver = Resolver::new(limits.resolve_ttl, limits.resolve_timeout)
        .map_err(|error| StartError::System("start the resolver", error))?;
    let (memory, names) = (store.memory(), resolver.names());
    let options = SocketOptions {
        user_timeout: limits.user_timeout,
        keepalive: KEEPALIVE,
    };
    let listens: Vec<_> = roles.iter().map(|role| role.listen()).collect();
    let bound = listeners::bind_all(&listens, workers, options)?;
    let own = listeners::all_addresses(&bound);
    let quota = Arc::new(quota(&plan.core, workers, bound.len()));
    let mut services = Vec::new();
    for (number, role) in roles.iter().enumerate() {
        services.push(role.service(&Ground {
            memory: memory.clone(),
            names: names.clone(),
            limits: limits.clone(),
            addresses: listeners::addresses(&bound, number),
            own: Arc::clone(&own),
            cores: workers,
            connections: quota.most(),
            data_dir: plan.core.data_dir.clone(),
        }));
    }
    let records = memory.records();

    let crew = Crew::start(
        &plan.core,
        workers,
        services,
        &bound,
        options,
        &quota,
        |addresses| {
            let control = Control::new(store, resolver, addresses);
            control.lending(pools, Instant::now(), unix_now())
        },
    )?;
    let most = quota.most();
    Ok(Running {
        crew,
        bound,
        address_file: plan.address_file,
        about: format!("ready: {workers} workers, {records} records, at most {most} connections"),
    })
}

/// The threads of a running server.
struct Crew {
    workers: Vec<JoinHandle<()>>,
    control: JoinHandle<()>,
    stopper: Stopper,
    counters: Vec<Arc<Counters>>,
}

impl Crew {
    /// Starts the control thread, then the workers.
    fn start(
        core: &Core,
        workers: usize,
        services: Vec<Arc<dyn Service>>,
        bound: &[Bound],
        options: SocketOptions,
        quota: &Arc<Quota>,
        control: impl FnOnce(Vec<Address<Letter>>) -> Control,
    ) -> Result<Self, StartError> {
        let desks = (0..workers)
            .map(|_| Desk::open(options))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| StartError::System("create an event loop", error))?;
        let addresses = desks.iter().map(|desk| desk.address.clone()).collect();
        let cores: Vec<_> = desks.iter().map(|desk| desk.core.clone()).collect();
        let bells = desks.iter().map(|desk| Arc::clone(&desk.bell)).collect();
        let phase = Arc::new(Phase::default());
        let (questions, asked) = bounded(QUESTIONS);
        let mut crew = Self {
            workers: Vec::new(),
            control: start_control(control(addresses), asked)?,
            stopper: Stopper::new(Arc::clone(&phase), bells),
            counters: Vec::new(),
        };
        for (number, desk) in desks.into_iter().enumerate() {
            let counters = Arc::new(Counters::default());
            crew.counters.push(Arc::clone(&counters));
            let part = Part {
                number,
                pin: core.pin,
                poller: desk.poller,
                kernel: desk.kernel,
                mailbox: desk.mailbox,
                post: desk.post,
                cores: cores.clone(),
                services: services.clone(),
                listeners: bound.iter().filter_map(|at| at.share(number)).collect(),
                limits: core.limits.clone(),
                buffer_memory: core.limits.max_buffer_memory as usize / workers,
                way: core.relay,
                options,
                spin: core.spin,
                pipe_size: core.pipe_size as usize,
                questions: questions.clone(),
                phase: Arc::clone(&phase),
                quota: Arc::clone(quota),
                counters,
                stopper: crew.stopper.clone(),
            };
            crew.workers.push(part.start()?);
        }
        Ok(crew)
    }

    /// Waits for the workers, then for the control thread, which ends when nobody can ask it
    /// anything any more.
    fn join(self) -> Result<(), StartError> {
        let mut outcome = Ok(());
        for worker in self.workers {
            if worker.join().is_err() {
                outcome = Err(StartError::Thread("worker"));
            }
        }
        if self.control.join().is_err() {
            outcome = Err(StartError::Thread("control"));
        }
        farewell(&self.counters);
        outcome
    }
}

/// A worker's poll and mailbox, made before the threads so that they know each other.
struct Desk {
    poller: Poller,
    kernel: Kernel,
    bell: Arc<dyn Bell>,
    address: Address<Letter>,
    mailbox: Mailbox<Letter>,
    core: Address<Post>,
    post: Mailbox<Post>,
}

impl Desk {
    fn open(options: SocketOptions) -> io::Result<Self> {
        let (poller, kernel, bell) = net::open(options)?;
        let (address, mailbox) = mailbox(LETTERS, Arc::clone(&bell));
        let (core, post) = reactor::mailbox(LETTERS, Arc::clone(&bell));
        Ok(Self {
            core,
            post,
            poller,
            kernel,
            bell,
            address,
            mailbox,
        })
    }
}

fn start_control(control: Control, asked: Receiver<Request>) -> Result<JoinHandle<()>, StartError> {
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

/// After how much silence the kernel asks whether a peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Questions that may wait for the control thread; one more is answered "busy".
const QUESTIONS: usize = 65_536;

/// Letters that may wait for a worker, from control and from other workers alike; the sender keeps
/// those that do not fit.
const LETTERS: usize = 16_384;

/// Descriptors that are not connections: the store, the standard ones, lookups, and some to spare.
const OWN_DESCRIPTORS: usize = 32;

/// What a server without the agent role stores.
const NO_RECORDS: store::Limits = store::Limits {
    max_value: 0,
    max_records: 0,
    max_bytes: 0,
};
