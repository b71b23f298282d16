//! The control thread: owns what is slow or shared, so that nothing on a worker ever blocks.
//!
//! It serves requests from all workers in rounds. It touches no socket, knows no protocol, and
//! keeps no session: a reply to a session that has left is dropped by its worker.
//!
//! ```text
//!   workers ── Request ──> [channel] ── a round ──┬─ lookups, watches: answered first
//!      ^                                          └─ updates, leases: one commit, one sync
//!      └──────── Letter ── [box of each worker] ── Stored, Changed, Resolved, Leased
//! ```
//!
//! What comes in while a commit is under way makes the next round, and a round that follows a busy
//! one waits a moment for more: under load many updates share one sync, and a lone one waits for
//! none but its own.
//!
//! **Bounds.** A round takes at most [`ROUND`] requests and stops at [`ROUND_BYTES`] of updates.
//! Each request is answered by one letter at most, and a lease that changes hands has one more, to
//! its former holder. Letters that find a worker's box full wait in
//! its outbox, and while one of those holds [`ROUND`] or more, no request is taken in. So
//!
//! ```text
//!   letters waiting <= workers x ROUND + 2 ROUND + watchers + lookups waiting
//!                      (before a round)   (it)     <= 2^18     <= 2^16
//! ```

mod custody;
pub mod leases;
mod lending;
mod operator;
pub mod resolver;
mod watchers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, after, never, select};

use crate::reactor::{Address, Handle, Outbox, Pulse, SessionKey};
use crate::store::{Change, Memory, Name, Refusal, Store, Update};
use custody::Custody;
pub use custody::Files;
use leases::{Lease, NoPort, Pool};
use lending::Lending;
use operator::Told;
pub use operator::{Answer, Errand, Kept, Leased, PoolFigures, Query, Refused};
use resolver::{Found, Names, Outcome, Resolver};
use watchers::Watchers;

/// What a session asks for, from any worker.
#[derive(Debug)]
pub struct Request {
    /// Who asks, and gets the reply.
    pub from: Handle,
    /// Comes back in the reply, so that a session knows which question it belongs to.
    pub ticket: u32,
    /// What is to be done.
    pub command: Command,
}

impl Request {
    /// Asks for a round of the loop, and for no answer.
    pub fn wake() -> Option<Request> {
        Self::of_nobody(Command::Wake)
    }

    /// An errand of the house; the answer goes where that says.
    pub fn errand(errand: Errand) -> Option<Request> {
        Self::of_nobody(Command::Operator(errand))
    }

    fn of_nobody(command: Command) -> Option<Request> {
        let session = SessionKey::from_parts(0, 1)?;
        Some(Request {
            from: Handle { core: 0, session },
            ticket: 0,
            command,
        })
    }
}

/// The things that only the control thread does.
#[derive(Debug)]
pub enum Command {
    /// Changes a record; answered by [`Reply::Stored`] when it is on disk.
    Update(Update),
    /// Waits for a record to be there; answered by [`Reply::Changed`] at once when it is, else
    /// when an update sets it, or by [`Reply::Busy`] when too many wait. A session watches one
    /// record at a time: a new watch ends the former.
    Watch {
        /// The record's first-level key.
        id: Box<[u8]>,
        /// The record's second-level key.
        section: Box<[u8]>,
    },
    /// Ends a watch; has no reply. A `Changed` may be on its way already.
    Unwatch {
        /// As it was watched.
        id: Box<[u8]>,
        /// As it was watched.
        section: Box<[u8]>,
    },
    /// Asks for a port of a pool; answered, when it is on the disk, by [`Reply::Leased`] with the
    /// port that the owner had before where there is one, or by [`Reply::NoPort`]. Whoever held
    /// it until then is told [`Reply::Superseded`]. The session has it until [`Command::Leave`].
    Lease {
        /// The name of the pool.
        pool: &'static str,
        /// Whose the port is to be, over connections and restarts.
        owner: Box<[u8]>,
        /// This port and no other.
        wanted: Option<u16>,
    },
    /// The port of a lease is held by another program; answered as [`Command::Lease`] is, with
    /// another port.
    ForeignPort {
        /// As it was asked for.
        pool: &'static str,
        /// As it was asked for.
        owner: Box<[u8]>,
        /// The lease's.
        epoch: u64,
    },
    /// The lease runs out from now on; has no reply, and does nothing when somebody newer has the
    /// lease.
    Leave {
        /// As it was asked for.
        pool: &'static str,
        /// As it was asked for.
        owner: Box<[u8]>,
        /// The lease's.
        epoch: u64,
    },
    /// The session has ended: whatever leases it holds run out from now on, those among them whose
    /// answer it has not heard. Has no reply.
    Ended,
    /// Makes the loop go round, for whoever looks at its pulse. Has no reply.
    Wake,
    /// What an operator asks about leases; answered where the errand says.
    Operator(Errand),
    /// Looks a name up; answered by [`Reply::Resolved`] within the timeout.
    Resolve {
        /// A name, or an address written out.
        host: Box<str>,
    },
}

/// What comes of a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The update is on disk and seen by queries, or why not.
    Stored(Result<(), Refusal>),
    /// The watched record is there; the watch has ended.
    Changed,
    /// The owner has this port, and that is on the disk.
    Leased(Lease),
    /// Why there is no port; nothing has changed.
    NoPort(NoPort),
    /// Somebody newer has the lease that was told with this ticket. The port is to be given up at
    /// once; nothing else has to be done.
    Superseded {
        /// The epoch that is void now.
        epoch: u64,
    },
    /// An operator has ended the lease that was told with this ticket, so that it is nobody's. The port is
    /// to be given up at once; it may be asked for anew.
    Released {
        /// The epoch that is void now.
        epoch: u64,
    },
    /// The addresses of the host, or why there are none.
    Resolved(Result<Arc<[IpAddr]>, resolver::Failure>),
    /// There is no room for this watch.
    Busy,
}

/// A reply in the box of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The session on that worker.
    pub to: SessionKey,
    /// The request's ticket.
    pub ticket: u32,
    /// What came of it.
    pub reply: Reply,
}

/// Who is to be told, and with which ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    from: Handle,
    ticket: u32,
}

/// The control thread's state; [`Control::run`] is its body.
pub struct Control {
    store: Store,
    memory: Memory,
    resolver: Resolver<Asker>,
    watchers: Watchers,
    lending: Lending,
    custody: Custody,
    outboxes: Vec<Outbox<Letter>>,
    recoveries: u64,
    pulse: Arc<Pulse>,
    /// What operators are told when the round's changes are on the disk.
    told: Vec<Told>,
    /// How many updates the last round had.
    last_updates: usize,
}

impl Control {
    /// `workers` are the boxes of all workers, in the order of their cores.
    pub fn new(store: Store, resolver: Resolver<Asker>, workers: Vec<Address<Letter>>) -> Self {
        let boxes = workers.into_iter().enumerate();
        Self {
            memory: store.memory(),
            recoveries: store.recoveries(),
            last_updates: 0,
            pulse: Arc::default(),
            told: Vec::new(),
            store,
            resolver,
            watchers: Watchers::default(),
            lending: Lending::default(),
            custody: Custody::default(),
            outboxes: boxes.map(|(core, at)| Outbox::new(core, at)).collect(),
        }
    }

    /// The same, with ports to lend. What the store has of the pools' leases is theirs again.
    pub fn lending(mut self, pools: Vec<Pool>, now: Instant, unix: i64) -> Self {
        self.lending = Lending::open(pools, &self.store, now, unix);
        self
    }

    /// What shows whether it still goes round: it beats once a round.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// The store's records, for the workers.
    pub fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// The resolver's cache, for the workers.
    pub fn names(&self) -> Names {
        self.resolver.names()
    }

    /// Serves until every sender of `requests` is gone and all that they sent is done. The
    /// workers therefore end first, and the store is closed when this returns.
    pub fn run(mut self, requests: Receiver<Request>) {
        let mut round = Vec::new();
        let mut open = true;
        while open {
            open = self.wait(&requests, &mut round);
            if self.last_updates >= MANY {
                // Where many update at once, those who come within a moment share the sync.
                std::thread::sleep(GATHER);
            }
            if !self.is_clogged() {
                fill(&mut round, &requests);
            }
            self.step(&mut round, Instant::now(), unix_now());
            self.pulse.beat();
        }
        self.pulse.end();
        // Nothing more can come. Whoever still has room gets the last replies.
        let now = Instant::now();
        self.outboxes.iter_mut().for_each(|one| one.flush(now));
    }

    /// Sleeps until there is something to do; false when no request can come any more.
    fn wait(&mut self, requests: &Receiver<Request>, round: &mut Vec<Request>) -> bool {
        let now = Instant::now();
        let shut = never();
        let intake = if self.is_clogged() { &shut } else { requests };
        let alarm = match self.next_deadline(now) {
            Some(at) => after(at.saturating_duration_since(now)),
            None => never(),
        };
        let mut heard = None;
        select! {
            recv(intake) -> request => match request {
                Ok(request) => round.push(request),
                Err(_) => return false,
            },
            recv(self.resolver.found()) -> found => heard = Some(found.ok()),
            recv(alarm) -> _ => {}
        }
        match heard {
            Some(Some(found)) => self.hear(found, now),
            Some(None) => self.resolver.fall_silent(),
            None => {}
        }
        true
    }

    /// Does one round of requests, and all that is due at `now`. It never blocks but for the
    /// disk, in the one commit of the round's updates. `batch` is left empty.
    pub fn step(&mut self, batch: &mut Vec<Request>, now: Instant, unix: i64) {
        for outbox in &mut self.outboxes {
            outbox.flush(now);
        }
        if self.custody.is_ours() {
            self.lending.expire(now);
        }
        let mut updates = Vec::new();
        let mut askers = Vec::new();
        self.serve_operators(batch, now);
        self.screen(batch, now);
        for Request {
            from,
            ticket,
            command,
        } in batch.drain(..)
        {
            let asker = Asker { from, ticket };
            match command {
                Command::Update(update) => {
                    updates.push(update);
                    askers.push(asker);
                }
                other => self.serve(asker, other, now),
            }
        }
        self.look_after_lookups(now);
        let leases = match self.custody.is_ours() {
            true => self.lending.unsaved(now),
            false => Vec::new(),
        };
        self.last_updates = updates.len() + leases.len();
        // The disk may take its time from here on; whoever did not ask for it is served.
        let mut leased = Ok(());
        if self.last_updates > 0 {
            leased = self.apply(&updates, &askers, &leases, now, unix);
        }
        self.answer_operators(&leased);
        self.change_hands(now, unix);
    }

    /// When [`Control::step`] has something to do even if no request comes.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let is_waiting = self.outboxes.iter().any(|one| one.waiting() > 0);
        let retry = is_waiting.then(|| now + RETRY);
        let lending = self.lending.next_deadline(now);
        let lending = lending.filter(|_| self.custody.is_ours());
        let behind = self.custody.is_behind().then_some(now);
        [retry, lending, behind, self.resolver.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// True while a worker's letters pile up: then no request is taken in.
    pub fn is_clogged(&self) -> bool {
        self.outboxes.iter().any(|one| one.waiting() >= ROUND)
    }

    fn serve(&mut self, asker: Asker, command: Command, now: Instant) {
        match command {
            // An update is the round's, which gathers them, and operators are served before all; of a
            // wake the round itself is what was asked for. What has to wait is not here (`custody`).
            Command::Update(_) | Command::Operator(_) | Command::Wake => {}
            Command::Watch { id, section } => self.watch(asker, &id, &section, now),
            Command::Unwatch { id, section } => self.watchers.remove(asker.from, &id, &section),
            Command::Lease {
                pool,
                owner,
                wanted,
            } => {
                let asked = self.lending.acquire(asker, pool, &owner, wanted, now);
                self.refuse(asker, asked, now);
            }
            Command::ForeignPort { pool, owner, epoch } => {
                let asked = self.lending.foreign(asker, pool, &owner, epoch, now);
                self.refuse(asker, asked, now);
            }
            Command::Leave { pool, owner, epoch } => self.lending.leave(pool, owner, epoch, now),
            Command::Ended => self.lending.end(asker.from, now),
            Command::Resolve { host } => self.resolve(asker, &host, now),
        }
    }

    /// What is granted is told when it is on the disk.
    fn refuse(&mut self, asker: Asker, asked: Result<(), NoPort>, now: Instant) {
        if let Err(no_port) = asked {
            self.post(asker, Reply::NoPort(no_port), now);
        }
    }

    fn watch(&mut self, asker: Asker, id: &[u8], section: &[u8], now: Instant) {
        // The session found nothing when it looked; an update may have come in between.
        if self.memory.has(id, section) {
            self.watchers.end(asker.from);
            self.post(asker, Reply::Changed, now);
        } else if !self.watchers.add(asker, id, section) {
            self.post(asker, Reply::Busy, now);
        }
    }

    fn resolve(&mut self, asker: Asker, host: &str, now: Instant) {
        if let Some(outcome) = self.resolver.ask(host, asker, now) {
            self.post(asker, Reply::Resolved(outcome), now);
        }
    }

    fn look_after_lookups(&mut self, now: Instant) {
        // No more can have come in than were asked, so this ends.
        while let Ok(found) = self.resolver.found().try_recv() {
            self.hear(found, now);
        }
        let mut told = Vec::new();
        self.resolver
            .expire(now, |asker, outcome| told.push((asker, outcome)));
        self.tell(told, now);
    }

    fn hear(&mut self, found: Found, now: Instant) {
        let mut told = Vec::new();
        self.resolver
            .finish(found, now, |asker, outcome| told.push((asker, outcome)));
        self.tell(told, now);
    }

    fn tell(&mut self, told: Vec<(Asker, Outcome)>, now: Instant) {
        for (asker, outcome) in told {
            self.post(asker, Reply::Resolved(outcome), now);
        }
    }

    fn apply(
        &mut self,
        updates: &[Update],
        askers: &[Asker],
        leases: &[Update],
        now: Instant,
        unix: i64,
    ) -> Result<(), Refusal> {
        let (answers, leased) = self.store.apply_all(updates, leases, unix);
        if !leases.is_empty() {
            for (asker, reply) in self.lending.settle(&leased, now) {
                self.post(asker, reply, now);
            }
        }
        for (asker, answer) in askers.iter().zip(&answers) {
            self.post(*asker, Reply::Stored(answer.clone()), now);
        }
        if self.watchers.len() == 0 {
            return leased;
        }
        for (update, answer) in updates.iter().zip(&answers) {
            if answer.is_ok() && matches!(update.change, Change::Set(_)) {
                self.wake(&(&*update.id, &*update.section), now);
            }
        }
        if self.recoveries != self.store.recoveries() {
            self.recoveries = self.store.recoveries();
            self.wake_all_found(now);
        }
        leased
    }

    /// Wakes whoever waits for a record that came out of a recovery.
    fn wake_all_found(&mut self, now: Instant) {
        for key in self.watchers.keys() {
            if self.memory.has(key.id(), key.section()) {
                self.wake(key.as_ref(), now);
            }
        }
    }

    fn wake(&mut self, name: &dyn Name, now: Instant) {
        for watcher in self.watchers.take(name) {
            self.post(watcher, Reply::Changed, now);
        }
    }

    fn post(&mut self, asker: Asker, reply: Reply, now: Instant) {
        let letter = Letter {
            to: asker.from.session,
            ticket: asker.ticket,
            reply,
        };
        // A core that no worker has cannot ask.
        if let Some(outbox) = self.outboxes.get_mut(usize::from(asker.from.core)) {
            outbox.post(letter, now);
        }
    }
}

/// Takes in what lies ready, up to a round.
fn fill(round: &mut Vec<Request>, requests: &Receiver<Request>) {
    let mut bytes = round.iter().map(bytes_of).sum::<usize>();
    while round.len() < ROUND && bytes < ROUND_BYTES {
        let Ok(request) = requests.try_recv() else {
            break;
        };
        bytes += bytes_of(&request);
        round.push(request);
    }
}

/// What a request adds to the commit of its round.
fn bytes_of(request: &Request) -> usize {
    match &request.command {
        Command::Update(Update {
            id,
            section,
            change: Change::Set(data),
        }) => id.len() + section.len() + data.len(),
        _ => 0,
    }
}

/// The wall clock in whole seconds, negative before 1970.
pub fn unix_now() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(error) => -(error.duration().as_secs() as i64),
    }
}

/// Requests of a round, and the letters in one outbox from which on none is taken in.
pub const ROUND: usize = 1024;
/// Bytes of updates after which a round takes in no more: what one commit holds in memory.
pub const ROUND_BYTES: usize = 8 << 20;
/// From so many updates in one round on, the next one waits for more: a lone client never waits.
const MANY: usize = 4;
/// How long it waits: less than a sync takes, and long enough for a turn of every worker.
const GATHER: Duration = Duration::from_micros(100);
/// How soon letters that found no room are tried again.
const RETRY: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests;
