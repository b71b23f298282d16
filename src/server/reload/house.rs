//! Puts another configuration in force: everything that can fail first, then all of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use serde_json::Value;

use super::super::budget::{Budget, Needs};
use super::super::listeners::{self, Bound, Opened as Socket, Share};
use super::super::operations::Operations;
use super::super::part::Common;
use super::super::signals::Stopper;
use super::super::supervisor::Supervisor;
use super::super::{Plan, Source, boot};
use super::difference::{Difference, InForce, Occupant, Place, compare, live_core};
use super::words::{report, words};
use crate::admin::{NotReloaded, Panel, Shown, Wish};
use crate::config::{Core, Entry, Position, Settings, Told};
use crate::control::resolver::Names;
use crate::net::{Kernel, SocketOptions};
use crate::reactor::{Address, Bell, Mailbox, mailbox};
use crate::session::{Ground, Listen, Role, Service};
use crate::store::Memory;
use crate::worker::{
    Answer, Change, Leaving, Opened, Opening, Order, Outcome, Renewal, Renewed, Task,
};

/// What the reloader is given.
pub(in super::super) struct Beginning {
    pub(in super::super) source: Source,
    pub(in super::super) plan: Plan,
    pub(in super::super) bound: Vec<Bound>,
    pub(in super::super) services: Vec<Arc<dyn Service>>,
    /// Where the admin address listens.
    pub(in super::super) admin: Vec<Listen>,
    pub(in super::super) memory: Memory,
    pub(in super::super) names: Names,
    pub(in super::super) options: SocketOptions,
    pub(in super::super) house: Common,
    pub(in super::super) workers: Vec<Address<Order>>,
    pub(in super::super) stopper: Stopper,
    pub(in super::super) supervisor: Arc<Supervisor>,
    pub(in super::super) panel: Arc<Panel>,
}

/// The configuration in force, and what is needed to put another in its place.
pub(in super::super) struct House {
    force: InForce,
    /// The names of the pools that are lent from.
    pools: Vec<&'static str>,
    /// The store keeps what a role asks of it.
    keeps_records: bool,
    services: Vec<Arc<dyn Service>>,
    address_file: Option<PathBuf>,
    source: Source,
    admin: Vec<Listen>,
    memory: Memory,
    names: Names,
    options: SocketOptions,
    common: Common,
    workers: Vec<Address<Order>>,
    stopper: Stopper,
    supervisor: Arc<Supervisor>,
    panel: Arc<Panel>,
    answers: Mailbox<Answer>,
    answering: Address<Answer>,
    rung: Receiver<()>,
    tickets: u64,
}

/// Wakes the reloader when a worker has answered.
struct Ring(crossbeam_channel::Sender<()>);

impl Bell for Ring {
    fn ring(&self) {
        // One that is full has rung.
        let _ = self.0.try_send(());
    }
}

impl House {
    pub(in super::super) fn new(beginning: Beginning) -> Self {
        let Beginning { plan, bound, .. } = beginning;
        let on = plan.roles.iter().filter(|role| role.is_on());
        let pools = on.clone().flat_map(|role| role.pools());
        let pools = pools.map(|pool| pool.name).collect();
        let keeps_records = on.clone().any(|role| role.store().is_some());
        let mut next = 0;
        let mut roles = Vec::new();
        let protocols = super::super::protocols().iter();
        for (role, protocol) in plan.roles.into_iter().zip(protocols) {
            let service = role.is_on().then_some(next);
            next += usize::from(service.is_some());
            let own = bound.iter().filter(|at| Some(at.service()) == service);
            let places = role.listen().into_iter().zip(own);
            roles.push(Occupant {
                places: places
                    .map(|(asked, at)| Place {
                        asked,
                        bound: at.listen().clone(),
                    })
                    .collect(),
                keys: protocol.keys(),
                name: protocol.name(),
                service,
                role,
            });
        }
        let (ring, rung) = bounded(1);
        let (answering, answers) = mailbox(ANSWERS, Arc::new(Ring(ring)));
        Self {
            force: InForce {
                core: plan.core,
                roles,
                told: plan.told,
            },
            pools,
            keeps_records,
            services: beginning.services,
            address_file: plan.address_file,
            source: beginning.source,
            admin: beginning.admin,
            memory: beginning.memory,
            names: beginning.names,
            options: beginning.options,
            common: beginning.house,
            workers: beginning.workers,
            stopper: beginning.stopper,
            supervisor: beginning.supervisor,
            panel: beginning.panel,
            answers,
            answering,
            rung,
            tickets: 0,
        }
    }

    /// Does what is wished.
    pub(super) fn grant(&mut self, wish: Wish) -> Result<Value, NotReloaded> {
        if self.stopper.is_ending() {
            let why = "the server drains; nothing is changed any more";
            return Err(NotReloaded::Failed(why.to_owned()));
        }
        match wish {
            Wish::Reload { dry_run } => self.reload(dry_run),
            Wish::SetRoute(name, body) => self.set_route(&name, Some(&body)),
            Wish::RemoveRoute(name) => self.set_route(&name, None),
        }
    }

    fn reload(&mut self, dry_run: bool) -> Result<Value, NotReloaded> {
        let outcome = self.try_reload(dry_run);
        if dry_run {
            return outcome;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.panel
            .note_reload(outcome.is_ok(), now.unwrap_or_default());
        match &outcome {
            Ok(_) => {}
            Err(NotReloaded::Mistakes(mistakes)) => {
                for mistake in mistakes {
                    log::error!("reload: {mistake}");
                }
                let count = mistakes.len();
                log::error!("reload: mistakes={count}; what was in force stays in force");
            }
            Err(NotReloaded::Failed(why)) => {
                log::error!("reload: {why}; what was in force stays in force");
            }
            Err(_) => {}
        }
        outcome
    }

    fn try_reload(&mut self, dry_run: bool) -> Result<Value, NotReloaded> {
        let (plan, warnings) = (self.source)().map_err(|mistakes| {
            NotReloaded::Mistakes(mistakes.iter().map(ToString::to_string).collect())
        })?;
        if !dry_run {
            warnings.iter().for_each(|warning| log::warn!("{warning}"));
        }
        let (core, kept) = live_core(&self.force.core, &plan.core);
        let roles: Vec<&dyn Role> = plan.roles.iter().map(AsRef::as_ref).collect();
        let mut difference = self.compare(&plan.core, &roles, &plan.told);
        difference.held.extend(kept);
        if dry_run {
            let leaving = Arc::new(std::mem::take(&mut difference.leaving));
            let count = self
                .workers
                .iter()
                .map(|_| Task::Count(Arc::clone(&leaving)));
            let count = count.collect();
            let counts = self.order(count);
            difference.leaving = Arc::try_unwrap(leaving).unwrap_or_default();
            return Ok(difference.tell(true, &counts.leaving));
        }
        if difference.is_none() {
            log::info!("reload: nothing has changed");
            return Ok(difference.tell(false, &[]));
        }
        let roles = plan.roles.into_iter().map(Some).collect();
        self.put_in_force((core, roles, plan.told), difference, "reload")
    }

    /// Puts a route in force, or none of that name.
    fn set_route(&mut self, name: &str, body: Option<&Value>) -> Result<Value, NotReloaded> {
        let entry = body.map(|body| Entry {
            name: name.to_owned(),
            at: Position::default(),
            item: words(body),
        });
        let mut roles = Vec::new();
        for occupant in &self.force.roles {
            let mut settings = Settings::new(&[occupant.keys]);
            let role = &occupant.role;
            let other = role.reroute(name, entry.as_ref(), &mut settings);
            if other.is_some() {
                let rows = role.routes();
                if entry.is_none() && !rows.iter().any(|row| row.name == name) {
                    return Err(NotReloaded::Unknown);
                }
                if !role.is_on() {
                    let why = format!("{} is off, and its routes with it", occupant.name);
                    return Err(NotReloaded::Failed(why));
                }
                if entry.is_some() && rows.len() >= MOST_ROUTES {
                    let why = format!("there are {MOST_ROUTES} routes already");
                    return Err(NotReloaded::Failed(why));
                }
            }
            settings.finish().map_err(|mistakes| {
                NotReloaded::Malformed(mistakes.into_iter().map(|one| one.message).collect())
            })?;
            roles.push(other);
        }
        let pairs = roles.iter().zip(&self.force.roles);
        let others: Vec<&dyn Role> = pairs
            .map(|(other, former)| other.as_deref().unwrap_or(former.role.as_ref()))
            .collect();
        let (core, told) = (self.force.core.clone(), self.force.told.clone());
        let difference = self.compare(&core, &others, &told);
        let mut done = match difference.is_none() {
            true => difference.tell(false, &[]),
            false => self.put_in_force((core, roles, told), difference, "route by hand")?,
        };
        done["route"] = name.into();
        Ok(done)
    }

    fn compare(&self, core: &Core, roles: &[&dyn Role], told: &[Told]) -> Difference {
        let may_begin = |role: &dyn Role| {
            let is_lent = |name| self.pools.contains(&name);
            match role.is_on() {
                true if !role.pools().iter().all(|pool| is_lent(pool.name)) => {
                    Err("its ports are not lent by this process; to turn it on")
                }
                true if role.store().is_some() && !self.keeps_records => {
                    Err("its store is not open in this process; to turn it on")
                }
                _ => Ok(()),
            }
        };
        compare(&self.force, core, roles, told, &may_begin)
    }

    /// Does it. An error comes before anything has changed.
    fn put_in_force(
        &mut self,
        (core, roles, told): Other,
        mut difference: Difference,
        what: &str,
    ) -> Result<Value, NotReloaded> {
        let roles: Vec<_> = roles
            .into_iter()
            .zip(&difference.roles)
            .map(|(role, change)| role.filter(|_| !change.is_held))
            .collect();
        let bound = self.bind(&roles, &difference)?;
        let leaving = Arc::new(std::mem::take(&mut difference.leaving));
        let is_elsewhere = difference.roles.iter().any(|change| change.moves());
        let has_other_limits = core.limits != self.force.core.limits;
        let closed = self.move_places(&difference, &bound);
        self.force.core = core;
        self.set_quota();
        let mut changes = Vec::new();
        for (number, role) in roles.into_iter().enumerate() {
            let change = &difference.roles[number];
            if let Some(role) = role {
                self.force.roles[number].role = role;
            }
            if change.is_changed || change.moves() || is_elsewhere || has_other_limits {
                changes.extend(self.renew(number, &difference));
            }
        }
        self.set_doors();
        listeners::keep(&bound, self.workers.len(), &self.supervisor);
        let renewal = |core| self.renewal(core, &changes, &bound, &leaving);
        let tasks = (0..self.workers.len()).map(|core| Task::Renew(Box::new(renewal(core))));
        let tasks = tasks.collect();
        let renewed = self.order(tasks);
        self.supervisor.release(&closed);
        self.told(told, &difference);
        self.show(&bound);
        difference.leaving = Arc::try_unwrap(leaving).unwrap_or_default();
        let told = difference.tell(false, &renewed.leaving);
        report(what, &difference.items, &difference.held, &renewed);
        Ok(told)
    }

    /// Binds what is to open.
    fn bind(
        &self,
        roles: &[Option<Box<dyn Role>>],
        difference: &Difference,
    ) -> Result<Vec<Bound>, NotReloaded> {
        let places = self.force.roles.iter().zip(&difference.roles);
        let closing: Vec<Listen> = places
            .flat_map(|(role, change)| role.places.iter().zip(&change.stays))
            .filter(|(_, stays)| stays.is_none())
            .map(|(place, _)| place.bound.clone())
            .collect();
        let mut opening = Vec::new();
        for (number, (role, change)) in roles.iter().zip(&difference.roles).enumerate() {
            let role = role.as_ref().unwrap_or(&self.force.roles[number].role);
            let listens = role.listen();
            let own = change
                .opens
                .iter()
                .filter_map(|&at| Some((at, listens.get(at)?.clone())));
            opening.push(own.collect());
        }
        let cores = self.workers.len();
        listeners::bind_more(&opening, cores, self.options, &closing)
            .map_err(|error| NotReloaded::Failed(error.to_string()))
    }

    /// Notes where every role listens from now on; what closes.
    fn move_places(&mut self, difference: &Difference, bound: &[Bound]) -> Vec<Listen> {
        let mut closed = Vec::new();
        let roles = self.force.roles.iter_mut().zip(&difference.roles);
        for (number, (role, change)) in roles.enumerate() {
            let mut places: Vec<(usize, Place)> = Vec::new();
            for (place, stays) in std::mem::take(&mut role.places)
                .into_iter()
                .zip(&change.stays)
            {
                match stays {
                    Some(new) => places.push((*new, place)),
                    None => closed.push(place.bound),
                }
            }
            for at in bound.iter().filter(|at| at.service() == number) {
                let (asked, bound) = (at.asked().clone(), at.listen().clone());
                places.push((at.number(), Place { asked, bound }));
            }
            places.sort_by_key(|(number, _)| *number);
            role.places = places.into_iter().map(|(_, place)| place).collect();
        }
        closed
    }

    fn set_quota(&self) {
        let places = self.force.roles.iter().map(|role| role.places.len());
        let (listeners, core) = (places.sum(), &self.force.core);
        let cores = self.workers.len();
        let budget = Budget::draw_up(&Needs {
            workers: cores,
            listeners,
            admin: Operations::needs(&core.admin),
            is_kept: self.supervisor.is_there(),
        });
        match budget {
            Ok(budget) => self
                .common
                .quota
                .set(budget.most(core), core.limits.terms()),
            Err(error) => log::warn!("reload: the bound of connections stays: {error}"),
        }
        let sources = self.common.quota.sources();
        sources.set(core.limits.bandwidth_per_ip);
    }

    /// Has new terms hold at the doors of the roles that are on; who is in stays in.
    fn set_doors(&self) {
        for role in &self.force.roles {
            let Some(service) = role.service else {
                continue;
            };
            for listen in role.role.listen() {
                let name = listen.name.as_deref();
                let door = self.common.doors.at(service, name, &listen.terms);
                door.set((*listen.terms).clone());
            }
        }
    }

    /// Has a role's service take its configuration, or begin with it; what the workers have to do.
    fn renew(&mut self, number: usize, difference: &Difference) -> Option<Shift> {
        let ground = self.ground(number);
        let role = &mut self.force.roles[number];
        // What listens where is told anew, too: who asked for port 0 stays with the one that was bound.
        for (place, listen) in role.places.iter_mut().zip(role.role.listen()) {
            place.asked = listen;
        }
        let mut shift = Shift {
            role: number,
            service: self.services.len(),
            begins: None,
            stays: difference.roles[number].stays.clone(),
        };
        match role.service {
            Some(service) => {
                shift.service = service;
                self.services[service].renew(role.role.as_ref(), &ground);
            }
            None if !role.role.is_on() => return None,
            None => {
                let service = role.role.service(&ground);
                role.service = Some(shift.service);
                let words: Vec<_> = role.places.iter().map(|place| place.asked.role).collect();
                let word = boot::role_word(&words, role.name);
                self.services.push(Arc::clone(&service));
                shift.begins = Some((service, word));
            }
        }
        Some(shift)
    }

    fn ground(&self, number: usize) -> Ground {
        let places = self.force.roles.iter().flat_map(|role| &role.places);
        let bound = places.map(|place| &place.bound).chain(&self.admin);
        let own = &self.force.roles[number].places;
        Ground {
            memory: self.memory.clone(),
            names: self.names.clone(),
            limits: self.force.core.limits.clone(),
            addresses: own.iter().map(|place| place.bound.address).collect(),
            own: bound.map(|listen| listen.address).collect(),
            cores: self.workers.len(),
            connections: self.common.quota.most(),
            data_dir: self.force.core.data_dir.clone(),
        }
    }

    /// One core's part.
    fn renewal(
        &self,
        core: usize,
        shifts: &[Shift],
        bound: &[Bound],
        leaving: &Arc<Leaving>,
    ) -> Renewal {
        let change = |shift: &Shift| {
            let own = bound.iter().filter(|at| at.service() == shift.role);
            Change {
                service: shift.service,
                begins: shift.begins.clone(),
                listeners: shift.stays.clone(),
                opened: own.flat_map(|at| at.share(core)).map(opening).collect(),
                is_renewed: true,
            }
        };
        let limits = &self.force.core.limits;
        Renewal {
            services: shifts.iter().map(change).collect(),
            leaving: Arc::clone(leaving),
            connections: self.common.quota.most(),
            idle_timeout: limits.idle_timeout,
            drain_timeout: limits.drain_timeout,
            drain_spread: limits.drain_spread,
        }
    }

    /// Gives every worker an order and waits for what all of them say.
    fn order(&mut self, tasks: Vec<Task>) -> Renewed {
        self.tickets += 1;
        let until = Instant::now() + PATIENCE;
        let mut renewed = Renewed::default();
        let mut missing = 0;
        for (worker, task) in self.workers.iter().zip(tasks) {
            let mut order = Order {
                ticket: self.tickets,
                task,
                answer: self.answering.clone(),
            };
            missing += 1;
            // Its box is full of the orders of the admin address's clients, which it is doing.
            while let Err(back) = worker.post(order) {
                if Instant::now() >= until || self.stopper.is_ending() {
                    break;
                }
                order = back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        while missing > 0 && Instant::now() < until && !self.stopper.is_ending() {
            if let Err(RecvTimeoutError::Disconnected) = self.rung.recv_timeout(LOOK) {
                break;
            }
            let ticket = self.tickets;
            self.answers.open(ANSWERS, |answer| {
                let more = match answer.outcome {
                    _ if answer.ticket != ticket => return,
                    Outcome::Renewed(more) => more,
                    Outcome::Counted(leaving) => Renewed {
                        leaving,
                        failures: Vec::new(),
                    },
                    _ => Renewed::default(),
                };
                renewed.add(more);
                missing -= 1;
            });
        }
        if missing > 0 {
            let why = format!("{missing} cores have not answered yet");
            renewed.failures.push(why);
        }
        renewed
    }

    /// Notes the keys that are in force: those that are held are as they were.
    fn told(&mut self, told: Vec<Told>, difference: &Difference) {
        let roles = &self.force.roles;
        let is_held = |path: &str| {
            let mut held = roles.iter().zip(&difference.roles);
            held.any(|(role, change)| {
                change.is_held && role.keys.iter().any(|key| key.path == path)
            })
        };
        for (known, now) in self.force.told.iter_mut().zip(told) {
            if !now.is_fixed && !is_held(now.path) {
                *known = now;
            }
        }
    }

    /// Tells where the server listens now, and where its roles lead.
    fn show(&self, opened: &[Bound]) {
        let places = self.force.roles.iter().flat_map(|role| &role.places);
        let bound = places.map(|place| &place.bound).chain(&self.admin);
        let listeners: Vec<Listen> = bound.cloned().collect();
        listeners::say(opened.iter().map(Bound::listen));
        if let Some(file) = &self.address_file
            && let Err(error) = listeners::write(&listeners, file)
        {
            log::error!("reload: {error}");
        }
        let on = self.force.roles.iter().filter(|role| role.role.is_on());
        self.panel.show(Shown {
            listeners,
            routes: on.flat_map(|role| role.role.routes()).collect(),
            token: self.force.core.admin.token.clone(),
        });
    }
}

/// Another configuration: its core as far as it can be in force, its roles, nothing for one that stays
/// as it is, and what its keys were given.
type Other = (Core, Vec<Option<Box<dyn Role>>>, Vec<Told>);

/// What the workers have to do for one role.
struct Shift {
    role: usize,
    service: usize,
    begins: Option<(Arc<dyn Service>, &'static str)>,
    stays: Vec<Option<usize>>,
}

fn opening(share: Share) -> Opening<Kernel> {
    Opening {
        number: share.number,
        listen: share.listen,
        socket: match share.socket {
            Socket::Stream(socket) => Opened::Stream(socket),
            Socket::Datagram(socket) => Opened::Datagram(socket),
        },
    }
}

/// Answers of workers that may wait; each has one order at a time.
const ANSWERS: usize = 1024;

/// How long workers may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it is looked whether the server ends meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Routes that there may be when one is set by hand.
const MOST_ROUTES: usize = 10_000;
