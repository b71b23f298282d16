//! The start and the ordered stop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Sender, bounded};

use super::access::Access;
use super::budget::{Budget, Needs};
use super::desk::{Desk, begin_control, control_loop, start_control, worker_loop};
use super::handover::{Asker, Giver, Holdings, Program, Taking};
use super::listeners::{self, Bound};
use super::operations::{Operations, Site};
use super::part::{Common, Part};
use super::passed::Passed;
use super::reload::{self, Beginning, Caller, House, Reloader};
use super::signals::{Errands, Stopper, Watch};
use super::supervisor::Supervisor;
use super::watchdog::{Loop, Watchdog};
use super::{Plan, Source, StartError};
use crate::admin::{Admin, Panel, Shown};
use crate::config::Core;
use crate::control::resolver::{Names, Resolver};
use crate::control::{Control, Letter, Request};
use crate::net::SocketOptions;
use crate::reactor::{Address, Pulse};
use crate::session::{Ground, Listen, Service};
use crate::stats::{self, Counters, Metric};
use crate::store::{self, Memory, Store};
use crate::sys;
use crate::worker::{AccessTally, Order, Phase};

/// Runs the plan until it has drained after a signal.
///
/// Errors come before the first connection is accepted, except [`StartError::Thread`].
/// `source` reads it again when that is asked for.
pub fn run(plan: Plan, source: Source) -> Result<(), StartError> {
    let program = Program::own();
    // Before anything is opened, whose number could be one of theirs.
    let mut named = listens(&plan);
    named.push(Operations::asked(&plan.core.admin));
    let taking = Taking::find()?;
    let (passed, supervisor) = match &taking {
        Some(taking) => {
            let passed = Passed::of(taking.sockets()?, &named);
            (passed, Supervisor::silent())
        }
        None => (Passed::take(&named), Supervisor::find()),
    };
    let origin = Origin {
        passed,
        supervisor,
        taking: taking.as_ref(),
    };
    let mut running = open(plan, origin, Some(source))?;
    let program = program.map_err(|error| StartError::System("find its own program", error))?;
    let asker = running.give_by(program)?;
    let errands = Errands {
        reload: running.caller.clone(),
        reopen: running.reopening(),
        hand_over: Box::new(move || asker.ask()),
    };
    let (stopper, supervisor) = (running.stopper(), Arc::clone(&running.supervisor));
    let watch = Watch::begin(stopper.clone(), Arc::clone(&supervisor), errands)
        .map_err(|error| StartError::System("watch signals", error))?;
    let is_main = taking.is_none_or(|taking| {
        let is_main = taking.succeed(&running.crew.questions, &stopper);
        if is_main {
            supervisor.speak();
        }
        is_main
    });
    if is_main {
        running.announce()?;
    }
    let outcome = running.wait();
    watch.close();
    outcome
}

/// What a server begins with besides its plan.
struct Origin<'a> {
    passed: Passed,
    supervisor: Supervisor,
    /// The older process that it takes over from.
    taking: Option<&'a Taking>,
}

/// A server at work. Dropping it leaves it at work.
pub struct Running {
    crew: Crew,
    admin: Option<Admin>,
    reloader: Option<Reloader>,
    giver: Option<Giver>,
    /// Where reloads are asked for.
    caller: Option<Caller>,
    /// Where it listens, the admin thread too.
    listens: Vec<Listen>,
    address_file: Option<PathBuf>,
    /// What it begins with, in words.
    status: String,
    supervisor: Arc<Supervisor>,
}

impl Running {
    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        self.crew.stopper.clone()
    }

    /// Has the access log's file opened anew.
    fn reopening(&self) -> Box<dyn Fn() + Send> {
        match &self.crew.access {
            Some(access) => Box::new(access.reopening()),
            None => Box::new(|| log::info!("SIGUSR1: there is no access log to be opened anew")),
        }
    }

    /// Says where it listens, in the log and in the address file.
    pub fn announce(&self) -> Result<(), StartError> {
        listeners::announce(&self.listens, self.address_file.as_deref())?;
        log::info!("ready: {}", self.status);
        self.supervisor.ready(&self.status);
        Ok(())
    }

    /// Has a thread hand everything over when it is asked to; who asks it.
    fn give_by(&mut self, program: Program) -> Result<Asker, StartError> {
        let giver = Giver::start(Holdings {
            program,
            workers: self.crew.orders.clone(),
            control: self.crew.questions.clone(),
            reception: self.admin.as_ref().map(Admin::reception),
            stopper: self.stopper(),
            supervisor: Arc::clone(&self.supervisor),
        })?;
        let asker = giver.asker();
        self.giver = Some(giver);
        Ok(asker)
    }

    /// Waits until it has ended.
    pub fn wait(self) -> Result<(), StartError> {
        self.crew.join(self.admin, self.reloader, self.giver)
    }
}

/// Starts the plan as a part of another program: no service manager is told of it, and none of the
/// program's descriptors are taken.
pub fn start(plan: Plan) -> Result<Running, StartError> {
    let origin = Origin {
        passed: Passed::of(Vec::new(), &[]),
        supervisor: Supervisor::none(),
        taking: None,
    };
    open(plan, origin, None)
}

/// The roles that are on, at work. Of the ground only the addresses differ.
fn services(plan: &Plan, mut ground: Ground, bound: &[Bound]) -> Vec<Arc<dyn Service>> {
    let roles = plan.roles.iter().filter(|role| role.is_on());
    let mut services = Vec::new();
    for (number, role) in roles.enumerate() {
        ground.addresses = listeners::addresses(bound, number);
        services.push(role.service(&ground));
    }
    services
}

/// Where the roles that are on listen.
fn listens(plan: &Plan) -> Vec<Vec<Listen>> {
    let roles = plan.roles.iter().filter(|role| role.is_on());
    roles.map(|role| role.listen()).collect()
}

fn open(plan: Plan, origin: Origin<'_>, source: Option<Source>) -> Result<Running, StartError> {
    let taking = origin.taking;
    let listens = listens(&plan);
    let roles: Vec<_> = plan.roles.iter().filter(|role| role.is_on()).collect();
    if roles.is_empty() {
        return Err(StartError::NothingToServe);
    }
    let limits = plan.core.limits.clone();
    let workers = plan.core.worker_threads(sys::processors());
    let budget = Budget::draw_up(&Needs {
        workers,
        listeners: listens.iter().map(Vec::len).sum(),
        admin: Operations::needs(&plan.core.admin),
        is_kept: origin.supervisor.is_there(),
    })?;
    let pools: Vec<_> = roles.iter().flat_map(|role| role.pools()).collect();
    let store = || open_store(&plan, !pools.is_empty());
    // An older process keeps it open for as long as anything here can go wrong.
    let early = taking.is_none().then(store).transpose()?;
    let resolver = Resolver::new(limits.resolve_ttl, limits.resolve_timeout)
        .map_err(|error| StartError::System("start the resolver", error))?;
    let options = SocketOptions {
        user_timeout: limits.user_timeout,
        keepalive: KEEPALIVE,
    };
    let (bound, operations) = listen(&plan, &listens, workers, options, &origin)?;
    let supervisor = Arc::new(origin.supervisor);
    if let Some(taking) = taking {
        taking.await_store()?;
    }
    let store = early.map_or_else(store, Ok)?;
    let (memory, names) = (store.memory(), resolver.names());
    let house = budget.house(&plan.core);
    let own = bound.iter().map(Bound::listen).chain(operations.listens());
    let listens: Vec<_> = own.cloned().collect();
    let ground = Ground {
        memory: memory.clone(),
        names: names.clone(),
        limits,
        addresses: Vec::new(),
        own: listens.iter().map(|listen| listen.address).collect(),
        cores: workers,
        connections: house.quota.most(),
        data_dir: plan.core.data_dir.clone(),
    };
    let services = services(&plan, ground, &bound);
    let records = memory.records();
    let cast = Cast::of(&plan, services.clone(), &bound)?;

    let control = begin_control(store, resolver, pools, taking.is_some());
    let mut crew = Crew::start(&plan.core, workers, cast, &bound, options, &house, control)?;
    let most = house.quota.most();
    crew.watch_over(&supervisor)?;
    let status = format!("{workers} workers, {records} records, at most {most} connections");
    let premises = Premises {
        plan,
        bound,
        services,
        listens,
        memory,
        names,
        options,
        house,
        supervisor,
        status,
    };
    premises.occupy(crew, operations, source)
}

/// Listens at every address, and has the service manager keep the sockets.
fn listen(
    plan: &Plan,
    listens: &[Vec<Listen>],
    workers: usize,
    options: SocketOptions,
    origin: &Origin<'_>,
) -> Result<(Vec<Bound>, Operations), StartError> {
    let Origin {
        passed, supervisor, ..
    } = origin;
    let bound = listeners::bind_all(listens, workers, options, passed)?;
    let operations = Operations::bind(&plan.core.admin, passed)?;
    passed.close_rest(supervisor);
    listeners::keep(&bound, workers, supervisor);
    Ok((bound, operations))
}

/// What is open when the workers are at work.
struct Premises {
    plan: Plan,
    bound: Vec<Bound>,
    services: Vec<Arc<dyn Service>>,
    listens: Vec<Listen>,
    memory: Memory,
    names: Names,
    options: SocketOptions,
    house: Common,
    supervisor: Arc<Supervisor>,
    status: String,
}

impl Premises {
    /// Starts the admin thread, and the reloader where there is something to read again.
    fn occupy(
        self,
        crew: Crew,
        operations: Operations,
        source: Option<Source>,
    ) -> Result<Running, StartError> {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let started = started.unwrap_or_default();
        let panel = Arc::new(Panel::new(shown(&self.plan, &self.listens), started));
        let (caller, calls) = reload::calls();
        let caller = source.is_some().then_some(caller);
        let told = operations.listens().to_vec();
        let admin = operations.start(Site {
            plan: &self.plan,
            panel: &panel,
            reload: caller.clone(),
            supervisor: &self.supervisor,
            started,
            counters: &crew.counters,
            orders: &crew.orders,
            questions: crew.questions.clone(),
            memory: self.memory.clone(),
            house: &self.house,
            access: Arc::clone(&crew.tally),
            stopper: &crew.stopper,
        })?;
        let address_file = self.plan.address_file.clone();
        let supervisor = Arc::clone(&self.supervisor);
        let house = |source| {
            House::new(Beginning {
                source,
                plan: self.plan,
                bound: self.bound,
                services: self.services,
                admin: told,
                memory: self.memory,
                names: self.names,
                options: self.options,
                house: self.house,
                workers: crew.orders.clone(),
                stopper: crew.stopper.clone(),
                supervisor: self.supervisor,
                panel,
            })
        };
        let reloader = match (source.map(house), &caller) {
            (Some(house), Some(caller)) => Some(Reloader::start(house, caller.clone(), calls)?),
            _ => None,
        };
        Ok(Running {
            crew,
            admin,
            reloader,
            giver: None,
            caller,
            listens: self.listens,
            address_file,
            status: self.status,
            supervisor,
        })
    }
}

/// What the admin address tells of the plan.
fn shown(plan: &Plan, listens: &[Listen]) -> Shown {
    let on = plan.roles.iter().filter(|role| role.is_on());
    Shown {
        listeners: listens.to_vec(),
        routes: on.flat_map(|role| role.routes()).collect(),
        token: plan.core.admin.token.clone(),
    }
}

fn open_store(plan: &Plan, lends: bool) -> Result<Store, StartError> {
    let mut on = plan.roles.iter().filter(|role| role.is_on());
    match on.find_map(|role| role.store()) {
        Some(limits) => Store::open(&plan.core.data_dir, limits),
        None if lends => Store::open(&plan.core.data_dir, NO_RECORDS),
        None => Store::in_memory(NO_RECORDS),
    }
    .map_err(StartError::Store)
}

/// The threads of a running server.
struct Crew {
    workers: Vec<JoinHandle<()>>,
    control: JoinHandle<()>,
    stopper: Stopper,
    counters: Vec<Arc<Counters>>,
    /// What a watchdog looks at, until there is one.
    loops: Vec<Loop>,
    watchdog: Option<Watchdog>,
    orders: Vec<Address<Order>>,
    questions: Sender<Request>,
    access: Option<Access>,
    tally: Arc<AccessTally>,
}

impl Crew {
    /// Starts the control thread, then the workers.
    fn start(
        core: &Core,
        workers: usize,
        cast: Cast,
        bound: &[Bound],
        options: SocketOptions,
        house: &Common,
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
        let control = control(addresses);
        let mut crew = Self {
            loops: vec![control_loop(&control, questions.clone())],
            workers: Vec::new(),
            control: start_control(control, asked)?,
            stopper: Stopper::new(Arc::clone(&phase), bells),
            counters: Vec::new(),
            watchdog: None,
            orders: desks.iter().map(|desk| desk.ordering.clone()).collect(),
            questions,
            access: cast.access,
            tally: cast.tally,
        };
        for (number, desk) in desks.into_iter().enumerate() {
            let pulse = Arc::new(Pulse::default());
            crew.loops.push(worker_loop(number, &pulse, desk.bell));
            let counters = Arc::new(Counters::new(&cast.counted));
            crew.counters.push(Arc::clone(&counters));
            let part = Part {
                number,
                pin: core.pin,
                poller: desk.poller,
                kernel: desk.kernel,
                mailbox: desk.mailbox,
                post: desk.post,
                orders: desk.orders,
                cores: cores.clone(),
                services: cast.services.clone(),
                roles: cast.names.clone(),
                listeners: bound.iter().flat_map(|at| at.share(number)).collect(),
                limits: core.limits.clone(),
                buffer_memory: core.limits.max_buffer_memory as usize / workers,
                way: core.relay,
                options,
                spin: core.spin,
                pipe_size: core.pipe_size as usize,
                questions: crew.questions.clone(),
                phase: Arc::clone(&phase),
                house: house.clone(),
                counters,
                access: crew.access.as_ref().map(Access::queue),
                stopper: crew.stopper.clone(),
                pulse,
            };
            crew.workers.push(part.start()?);
        }
        Ok(crew)
    }

    /// Has a watchdog fed, where the service manager has one.
    fn watch_over(&mut self, supervisor: &Arc<Supervisor>) -> Result<(), StartError> {
        // Those of a server without a watchdog are dropped, or control would wait for questions.
        let loops = std::mem::take(&mut self.loops);
        if let Some(time) = supervisor.patience() {
            let supervisor = Arc::clone(supervisor);
            let feed = move || supervisor.alive();
            self.watchdog = Some(Watchdog::start(loops, time, feed)?);
        }
        Ok(())
    }

    /// Waits for the workers, then ends the admin thread, then waits for the control thread, which ends
    /// when nobody can ask it
    /// anything any more.
    fn join(
        self,
        admin: Option<Admin>,
        reloader: Option<Reloader>,
        giver: Option<Giver>,
    ) -> Result<(), StartError> {
        let mut outcome = Ok(());
        for worker in self.workers {
            if worker.join().is_err() {
                outcome = Err(StartError::Thread("worker"));
            }
        }
        // Every session has its record in the queue by now.
        if let Some(access) = self.access {
            access.end();
        }
        // It knows the workers' boxes, and gives up on orders when the server ends.
        if reloader.is_some_and(|reloader| !reloader.end()) {
            outcome = Err(StartError::Thread("reload"));
        }
        // It can ask control.
        if giver.is_some_and(|giver| !giver.end()) {
            outcome = Err(StartError::Thread("handover"));
        }
        // It can ask, too.
        if let Some(watchdog) = self.watchdog {
            watchdog.close();
        }
        if admin.is_some_and(|admin| !admin.end()) {
            outcome = Err(StartError::Thread("admin"));
        }
        drop(self.questions);
        if self.control.join().is_err() {
            outcome = Err(StartError::Thread("control"));
        }
        farewell(&self.counters);
        outcome
    }
}

/// The services that are on, and what the counters call their sessions.
struct Cast {
    services: Vec<Arc<dyn Service>>,
    /// Every name, each once: what the address file calls the listeners.
    counted: Vec<&'static str>,
    /// Of each service's sessions that come by no listener.
    names: Vec<&'static str>,
    /// Where what becomes of them is recorded, and how much of that there is.
    access: Option<Access>,
    tally: Arc<AccessTally>,
}

impl Cast {
    fn of(
        plan: &Plan,
        services: Vec<Arc<dyn Service>>,
        bound: &[Bound],
    ) -> Result<Self, StartError> {
        let on = plan.roles.iter().zip(super::protocols());
        let on = on.filter(|(role, _)| role.is_on());
        let tally = Arc::new(AccessTally::default());
        let mut cast = Self {
            services,
            counted: Vec::new(),
            names: Vec::new(),
            access: Access::start(&plan.core.access_log, &tally)?,
            tally,
        };
        for (number, (_, protocol)) in on.enumerate() {
            let own = listeners::roles(bound, number);
            let name = role_word(&own, protocol.name());
            for role in own.into_iter().chain([name]) {
                if !cast.counted.contains(&role) {
                    cast.counted.push(role);
                }
            }
            cast.names.push(name);
        }
        Ok(cast)
    }
}

/// What the sessions of a service are called that come by no listener: as its protocol, where one of its
/// listeners is called so or it has none.
pub(super) fn role_word(listeners: &[&'static str], protocol: &'static str) -> &'static str {
    match listeners.first() {
        Some(first) if !listeners.contains(&protocol) => first,
        _ => protocol,
    }
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

/// What a server without the agent role stores.
const NO_RECORDS: store::Limits = store::Limits {
    max_value: 0,
    max_records: 0,
    max_bytes: 0,
};
