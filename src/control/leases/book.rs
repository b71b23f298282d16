//! The table of one pool; see the room's page for its states.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::free::FreeList;
use super::row::Row;
use super::{Lease, MAX_OWNER, NoPort, Pool};
use crate::reactor::{TimerKey, Wheel};

/// The leases of one pool. `H` is what the caller wants to know of who holds a lease.
pub struct Book<H> {
    pool: Pool,
    /// One for each port, from the first of the range on.
    places: Box<[Place<H>]>,
    free: FreeList,
    owners: HashMap<Arc<[u8]>, usize>,
    timers: Wheel<usize>,
    /// The latest epoch that was given.
    epoch: u64,
    /// The owners whose lease is other here than on the disk.
    unsaved: HashSet<Arc<[u8]>>,
    /// What was granted since the last time that all was saved, the oldest first.
    grants: Vec<Grant<H>>,
}

/// A port of the range.
struct Place<H> {
    state: State<H>,
    timer: Option<TimerKey>,
    /// How often another program was found on it since a lease of it came to its end.
    strikes: u32,
}

enum State<H> {
    Free,
    Leased(Entry<H>),
    /// Another program was found on it; its timer frees it.
    Foreign,
}

/// A lease.
struct Entry<H> {
    owner: Arc<[u8]>,
    epoch: u64,
    pinned: bool,
    holder: Option<H>,
    /// When it runs out; never while it is held or pinned.
    until: Option<Instant>,
}

/// How to take back what was granted.
struct Grant<H> {
    owner: Arc<[u8]>,
    before: Option<(usize, Entry<H>)>,
    was_unsaved: bool,
}

/// A lease that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted<H> {
    /// The lease.
    pub lease: Lease,
    /// Who held it until now, and under which epoch; that one is void.
    pub ousted: Option<(H, u64)>,
}

/// One lease in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The port.
    pub port: u16,
    /// Whose it is.
    pub owner: &'a [u8],
    /// Its latest epoch.
    pub epoch: u64,
    /// True while somebody holds it.
    pub held: bool,
    /// True when it does not run out.
    pub pinned: bool,
    /// How long it still runs, when it runs.
    pub remaining: Option<Duration>,
}

/// What the owners ask for.
impl<H: Copy> Book<H> {
    /// An empty book, for a pool with at least one port and without port 0.
    pub fn new(pool: Pool, now: Instant) -> Self {
        assert!(*pool.ports.start() > 0, "port 0 cannot be lent");
        assert!(!pool.ports.is_empty(), "a pool has a port");
        let place = |_| Place {
            state: State::Free,
            timer: None,
            strikes: 0,
        };
        let size = pool.ports.len();
        Self {
            pool,
            places: (0..size).map(place).collect(),
            free: FreeList::full(size),
            owners: HashMap::new(),
            timers: Wheel::new(now),
            epoch: 0,
            unsaved: HashSet::new(),
            grants: Vec::new(),
        }
    }

    /// Gives the owner its port, or, when it has none, the one that has been free the longest.
    ///
    /// With `wanted` it gets that port and no other, and what it had before becomes free; when the
    /// wanted one is not to be had, all stays as it was.
    pub fn acquire(
        &mut self,
        owner: &[u8],
        wanted: Option<u16>,
        holder: H,
        now: Instant,
    ) -> Result<Granted<H>, NoPort> {
        if owner.len() > MAX_OWNER {
            return Err(NoPort::LongOwner);
        }
        let at = self.choose(owner, wanted)?;
        Ok(self.grant(owner, at, holder, now))
    }

    /// The holder has gone: the lease runs out in the pool's time from now. Says which port that is
    /// and who held it; `None`, and nothing is changed, when the epoch is void.
    pub fn leave(&mut self, owner: &[u8], epoch: u64, now: Instant) -> Option<(u16, H)> {
        let at = self.place_of(owner, epoch)?;
        let holder = self.entry(at)?.holder?;
        self.places[at].strikes = 0;
        let until = now + self.pool.lease;
        self.change(at, now, |entry| {
            entry.until = (!entry.pinned).then_some(until);
            entry.holder = None;
        });
        Some((self.port_of(at), holder))
    }

    /// Another program was found on the owner's port: it gets another one, and nobody gets that
    /// port for a while. When there is no other the lease stays as it was.
    pub fn foreign(
        &mut self,
        owner: &[u8],
        epoch: u64,
        holder: H,
        now: Instant,
    ) -> Result<Granted<H>, NoPort> {
        let at = self.place_of(owner, epoch).ok_or(NoPort::Superseded)?;
        let other = self.free.first().ok_or(NoPort::Full)?;
        let granted = self.grant(owner, other, holder, now);
        self.set_aside(at, now);
        Ok(granted)
    }

    fn choose(&self, owner: &[u8], wanted: Option<u16>) -> Result<usize, NoPort> {
        let own = self.owners.get(owner).copied();
        let Some(port) = wanted else {
            return own.or(self.free.first()).ok_or(NoPort::Full);
        };
        let at = self.place_at(port).ok_or(NoPort::Outside)?;
        match own == Some(at) || self.free.has(at) {
            true => Ok(at),
            false => Err(NoPort::Taken),
        }
    }

    /// Makes the place, which is free or the owner's already, the owner's.
    fn grant(&mut self, owner: &[u8], at: usize, holder: H, now: Instant) -> Granted<H> {
        let was = self.owners.get(owner).copied();
        let before = was.and_then(|was| Some((was, self.take_out(was)?)));
        let owner = match &before {
            Some((_, entry)) => Arc::clone(&entry.owner),
            None => Arc::from(owner),
        };
        self.epoch += 1;
        let entry = Entry {
            owner: Arc::clone(&owner),
            epoch: self.epoch,
            pinned: before.as_ref().is_some_and(|(_, entry)| entry.pinned),
            holder: Some(holder),
            until: None,
        };
        self.put_in(at, entry, now);
        let former = before.as_ref().map(|(_, entry)| entry);
        let granted = Granted {
            lease: Lease {
                port: self.port_of(at),
                epoch: self.epoch,
                renewed: was == Some(at),
            },
            ousted: former.and_then(|entry| Some((entry.holder?, entry.epoch))),
        };
        self.grants.push(Grant {
            was_unsaved: !self.unsaved.insert(Arc::clone(&owner)),
            owner,
            before,
        });
        granted
    }

    fn set_aside(&mut self, at: usize, now: Instant) {
        let place = &mut self.places[at];
        let doublings = place.strikes.min(LONGEST_FOREIGN);
        place.strikes = doublings + 1;
        place.state = State::Foreign;
        place.timer = self.timers.arm(now, FOREIGN * (1 << doublings), at);
        self.free.remove(at);
    }
}

/// What time and the operator do.
impl<H: Copy> Book<H> {
    /// Frees what is due: leases that have run out, of which it tells, and ports that are tried
    /// anew. It costs as much as is due.
    pub fn expire(&mut self, now: Instant, mut ended: impl FnMut(u16, &[u8])) {
        let mut due = Vec::new();
        self.timers.expire(now, |_, at| due.push(at));
        for at in due {
            self.places[at].timer = None;
            match &self.places[at].state {
                State::Free => {}
                State::Foreign => {
                    self.places[at].state = State::Free;
                    self.free.push(at);
                }
                State::Leased(_) => {
                    if let Some(entry) = self.take_out(at) {
                        ended(self.port_of(at), &entry.owner);
                        self.unsaved.insert(entry.owner);
                    }
                }
            }
        }
    }

    /// When [`Book::expire`] has something to do, or earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// Ends the lease of a port, whoever has it. `None` when nobody has; the inner one is who held
    /// it, and under which epoch.
    pub fn release(&mut self, port: u16) -> Option<Option<(H, u64)>> {
        let entry = self.take_out(self.place_at(port)?)?;
        let held = entry.holder.map(|holder| (holder, entry.epoch));
        self.unsaved.insert(entry.owner);
        Some(held)
    }

    /// Keeps a lease from running out, or lets it run out again, from now on. False when nobody
    /// has the port.
    pub fn pin(&mut self, port: u16, pinned: bool, now: Instant) -> bool {
        let Some(at) = self.place_at(port) else {
            return false;
        };
        let until = now + self.pool.lease;
        self.change(at, now, |entry| {
            entry.pinned = pinned;
            let runs = !pinned && entry.holder.is_none();
            entry.until = runs.then_some(until);
        })
    }

    /// Who holds the lease of a port: the owner, the epoch, and the holder.
    pub fn holder(&self, port: u16) -> Option<(&Arc<[u8]>, u64, H)> {
        let entry = self.entry(self.place_at(port)?)?;
        Some((&entry.owner, entry.epoch, entry.holder?))
    }

    /// Every lease, in the order of the ports.
    pub fn list(&self, now: Instant) -> impl Iterator<Item = Listed<'_>> {
        let places = 0..self.places.len();
        places.filter_map(move |at| {
            let entry = self.entry(at)?;
            let runs = |until: Instant| until.saturating_duration_since(now);
            Some(Listed {
                port: self.port_of(at),
                owner: &entry.owner,
                epoch: entry.epoch,
                held: entry.holder.is_some(),
                pinned: entry.pinned,
                remaining: entry.until.map(runs),
            })
        })
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// True when nothing is lent.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// How many ports can be given at once.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// What it lends.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

/// What has to be on the disk.
impl<H: Copy> Book<H> {
    /// Takes a lease over from the store, `elapsed` seconds of the wall clock after it was written
    /// there. A row that is none, or of a port that is not in the range any more, is dropped, and
    /// false is returned.
    pub fn restore(&mut self, owner: &[u8], row: &[u8], elapsed: i64, now: Instant) -> bool {
        // Written anew in any case: what was held is left now, and the time that has passed must
        // not be taken off once more by the next restart.
        let owner: Arc<[u8]> = owner.into();
        self.unsaved.insert(Arc::clone(&owner));
        let Some(row) = Row::decode(row) else {
            return false;
        };
        let Some(at) = self.place_at(row.port).filter(|at| self.free.has(*at)) else {
            return false;
        };
        self.epoch = self.epoch.max(row.epoch);
        let until = now + row.remaining_after(elapsed, self.pool.lease);
        let entry = Entry {
            owner,
            epoch: row.epoch,
            pinned: row.pinned,
            holder: None,
            until: (!row.pinned).then_some(until),
        };
        self.put_in(at, entry, now);
        true
    }

    /// True when something is not on the disk.
    pub fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// Tells every change since [`Book::saved`]: the owner, and its row, or `None` when its lease
    /// has ended.
    pub fn unsaved(&self, now: Instant, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        for owner in &self.unsaved {
            let lease = self.owners.get(owner).copied();
            let row = lease.and_then(|at| Some(self.row(at, self.entry(at)?, now)));
            match row {
                Some(row) => each(owner, Some(&row.encode())),
                None => each(owner, None),
            }
        }
    }

    fn row(&self, at: usize, entry: &Entry<H>, now: Instant) -> Row {
        let runs = |until: Instant| until.saturating_duration_since(now);
        let remaining = match entry.holder {
            Some(_) => None,
            None => Some(entry.until.map_or(self.pool.lease, runs)),
        };
        Row {
            port: self.port_of(at),
            epoch: entry.epoch,
            pinned: entry.pinned,
            remaining,
        }
    }

    /// All that [`Book::unsaved`] told is on the disk.
    pub fn saved(&mut self) {
        self.unsaved.clear();
        self.grants.clear();
    }

    /// The disk took nothing: what was granted is taken back, and who held it before holds it
    /// again. Leases that were left or have ended stay so, and await the next time.
    pub fn revert(&mut self, now: Instant) {
        while let Some(grant) = self.grants.pop() {
            if let Some(at) = self.owners.get(&grant.owner).copied() {
                self.take_out(at);
            }
            if let Some((at, entry)) = grant.before {
                self.put_in(at, entry, now);
            }
            if !grant.was_unsaved {
                self.unsaved.remove(&grant.owner);
            }
        }
    }
}

/// The moves that all others are made of.
impl<H: Copy> Book<H> {
    /// Ends the lease at a place, which becomes free.
    fn take_out(&mut self, at: usize) -> Option<Entry<H>> {
        let place = &mut self.places[at];
        let entry = match std::mem::replace(&mut place.state, State::Free) {
            State::Leased(entry) => entry,
            other => {
                place.state = other;
                return None;
            }
        };
        if let Some(timer) = place.timer.take() {
            self.timers.cancel(timer);
        }
        self.owners.remove(&entry.owner);
        self.free.push(at);
        Some(entry)
    }

    /// Begins a lease at a place that nobody has.
    fn put_in(&mut self, at: usize, entry: Entry<H>, now: Instant) {
        self.free.remove(at);
        let place = &mut self.places[at];
        if let Some(timer) = place.timer.take() {
            self.timers.cancel(timer);
        }
        if let Some(until) = entry.until {
            let after = until.saturating_duration_since(now);
            place.timer = self.timers.arm(now, after, at);
        }
        self.owners.insert(Arc::clone(&entry.owner), at);
        place.state = State::Leased(entry);
    }

    /// Changes a lease in its place; false when there is none.
    fn change(&mut self, at: usize, now: Instant, change: impl FnOnce(&mut Entry<H>)) -> bool {
        let Some(mut entry) = self.take_out(at) else {
            return false;
        };
        change(&mut entry);
        self.unsaved.insert(Arc::clone(&entry.owner));
        self.put_in(at, entry, now);
        true
    }

    fn entry(&self, at: usize) -> Option<&Entry<H>> {
        match &self.places[at].state {
            State::Leased(entry) => Some(entry),
            State::Free | State::Foreign => None,
        }
    }

    /// Where the owner's lease is, if that is its epoch and somebody holds it.
    fn place_of(&self, owner: &[u8], epoch: u64) -> Option<usize> {
        let at = self.owners.get(owner).copied()?;
        let entry = self.entry(at)?;
        (entry.epoch == epoch && entry.holder.is_some()).then_some(at)
    }

    fn place_at(&self, port: u16) -> Option<usize> {
        let is_in = self.pool.ports.contains(&port);
        is_in.then(|| usize::from(port - self.pool.ports.start()))
    }

    fn port_of(&self, at: usize) -> u16 {
        // A place is below the size of the range, so this stays in it.
        self.pool.ports.start() + at as u16
    }

    /// What is true between any two calls.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut leased = 0;
        for (at, place) in self.places.iter().enumerate() {
            let is_free = matches!(place.state, State::Free);
            assert_eq!(self.free.has(at), is_free, "place {at} in the queue");
            let runs = match &place.state {
                State::Free => false,
                State::Foreign => true,
                State::Leased(entry) => {
                    leased += 1;
                    assert_eq!(self.owners.get(&entry.owner), Some(&at));
                    assert!(entry.epoch <= self.epoch);
                    let keeps = entry.pinned || entry.holder.is_some();
                    assert_eq!(entry.until.is_none(), keeps);
                    !keeps
                }
            };
            assert_eq!(place.timer.is_some(), runs, "timer of place {at}");
        }
        assert_eq!(self.owners.len(), leased);
        let timers = self.places.iter().filter(|place| place.timer.is_some());
        assert_eq!(self.timers.len(), timers.count());
    }
}

/// How long a port on which another program was found is not given to anybody, the first time.
const FOREIGN: Duration = Duration::from_secs(60);
/// It doubles so often, to about an hour.
const LONGEST_FOREIGN: u32 = 6;
