//! Random lives of a book beside a plain model of it: two maps and a walk over all for everything.
//!
//! After each step both must tell the same leases; whatever port the book picks must be one that
//! the model calls free. A failure names its seed, with which it happens again.

use std::collections::BTreeMap;
use std::time::Instant;

use super::*;

const LEASE: Duration = Duration::from_secs(100);
const FIRST: u16 = 500;
const PORTS: u16 = 7;
const OWNERS: u64 = 10;

#[derive(Clone, Debug, PartialEq)]
struct Known {
    port: u16,
    epoch: u64,
    holder: Option<u64>,
    pinned: bool,
    until: Option<Instant>,
}

#[derive(Clone, Default)]
struct Model {
    leases: BTreeMap<u8, Known>,
    foreign: BTreeMap<u16, (Instant, u32)>,
    strikes: BTreeMap<u16, u32>,
}

impl Model {
    fn is_free(&self, port: u16) -> bool {
        let is_lent = self.leases.values().any(|known| known.port == port);
        !is_lent && !self.foreign.contains_key(&port)
    }

    fn free(&self) -> usize {
        (FIRST..FIRST + PORTS)
            .filter(|port| self.is_free(*port))
            .count()
    }

    fn expire(&mut self, now: Instant) {
        let runs = |until: Option<Instant>| until.is_none_or(|until| until > now);
        self.leases.retain(|_, known| runs(known.until));
        self.foreign.retain(|_, (until, _)| *until > now);
    }
}

/// A row on the disk: the wall clock when it was written, and its bytes.
type Disk = BTreeMap<Vec<u8>, (i64, Vec<u8>)>;

struct Life {
    seed: u64,
    random: u64,
    book: Book<u64>,
    model: Model,
    /// The model as the disk has it.
    saved: Model,
    disk: Disk,
    now: Instant,
    unix: i64,
    latest_epoch: u64,
    tickets: u64,
}

fn pool() -> Pool {
    Pool {
        name: "pool",
        ports: FIRST..=FIRST + PORTS - 1,
        lease: LEASE,
    }
}

impl Life {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            seed,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            book: Book::new(pool(), now),
            model: Model::default(),
            saved: Model::default(),
            disk: Disk::new(),
            now,
            unix: 1_700_000_000,
            latest_epoch: 0,
            tickets: 0,
        }
    }

    fn below(&mut self, most: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % most
    }

    fn step(&mut self) {
        match self.below(16) {
            0..=4 => self.acquire(),
            5..=7 => self.leave(),
            8 => self.foreign(),
            9 => self.pin_or_release(),
            10..=12 => self.pass_time(),
            13 => self.save(),
            14 => self.fail_to_save(),
            _ => self.crash(),
        }
        self.compare();
    }

    fn acquire(&mut self) {
        let owner = self.below(OWNERS) as u8;
        let wanted = match self.below(4) {
            0 => Some(FIRST - 1 + self.below(u64::from(PORTS) + 2) as u16),
            _ => None,
        };
        self.tickets += 1;
        let outcome = self.book.acquire(&[owner], wanted, self.tickets, self.now);
        let own = self.model.leases.get(&owner).cloned();
        let own_port = own.as_ref().map(|known| known.port);
        let expected = match wanted {
            Some(port) if !pool().ports.contains(&port) => Err(NoPort::Outside),
            Some(port) if own_port != Some(port) && !self.model.is_free(port) => Err(NoPort::Taken),
            Some(port) => Ok(Some(port)),
            None if own_port.is_none() && self.model.free() == 0 => Err(NoPort::Full),
            None => Ok(own_port),
        };
        let expected = match expected {
            Err(why) => return assert_eq!(outcome, Err(why), "seed {}", self.seed),
            Ok(port) => port,
        };
        self.follow_grant(owner, outcome.unwrap(), expected);
    }

    fn follow_grant(&mut self, owner: u8, granted: Granted<u64>, expected: Option<u16>) {
        let Granted { lease, ousted } = granted;
        let own = self.model.leases.remove(&owner);
        let is_right = match expected {
            Some(port) => lease.port == port,
            None => self.model.is_free(lease.port),
        };
        assert!(is_right, "seed {}: {lease:?} for {expected:?}", self.seed);
        assert!(pool().ports.contains(&lease.port), "seed {}", self.seed);
        assert!(lease.epoch > self.latest_epoch, "seed {}", self.seed);
        self.latest_epoch = lease.epoch;
        let same = own.as_ref().is_some_and(|own| own.port == lease.port);
        assert_eq!(lease.renewed, same, "seed {}", self.seed);
        let former = own.as_ref().and_then(|own| Some((own.holder?, own.epoch)));
        assert_eq!(ousted, former, "seed {}", self.seed);
        let known = Known {
            port: lease.port,
            epoch: lease.epoch,
            holder: Some(self.tickets),
            pinned: own.is_some_and(|own| own.pinned),
            until: None,
        };
        self.model.leases.insert(owner, known);
    }

    /// Somebody's right epoch, or one that may be void.
    fn claim(&mut self) -> (u8, u64, bool) {
        let owner = self.below(OWNERS) as u8;
        let known = self.model.leases.get(&owner);
        let current = known.filter(|known| known.holder.is_some());
        let current = current.map(|known| known.epoch);
        let epoch = match self.below(3) {
            0 => self.below(self.latest_epoch + 2),
            _ => current.unwrap_or(0),
        };
        (owner, epoch, current == Some(epoch))
    }

    fn leave(&mut self) {
        let (owner, epoch, is_current) = self.claim();
        let left = self.book.leave(&[owner], epoch, self.now);
        assert_eq!(left.is_some(), is_current, "seed {}", self.seed);
        if let Some(known) = self.model.leases.get_mut(&owner).filter(|_| is_current) {
            assert_eq!(left, known.holder.map(|holder| (known.port, holder)));
            known.holder = None;
            known.until = (!known.pinned).then_some(self.now + LEASE);
            self.model.strikes.remove(&known.port);
        }
    }

    fn foreign(&mut self) {
        let (owner, epoch, is_current) = self.claim();
        let full = self.model.free() == 0;
        self.tickets += 1;
        let outcome = self.book.foreign(&[owner], epoch, self.tickets, self.now);
        if !is_current || full {
            let why = if is_current {
                NoPort::Full
            } else {
                NoPort::Superseded
            };
            return assert_eq!(outcome, Err(why), "seed {}", self.seed);
        }
        let port = self.model.leases[&owner].port;
        self.follow_grant_elsewhere(owner, outcome.unwrap(), port);
        let strikes = self.model.strikes.entry(port).or_default();
        let until = self.now + Duration::from_secs(60 << (*strikes).min(6));
        *strikes += 1;
        self.model.foreign.insert(port, (until, *strikes));
    }

    fn follow_grant_elsewhere(&mut self, owner: u8, granted: Granted<u64>, from: u16) {
        assert_ne!(granted.lease.port, from, "seed {}", self.seed);
        self.follow_grant(owner, granted, None);
    }

    fn pin_or_release(&mut self) {
        let port = FIRST + self.below(u64::from(PORTS)) as u16;
        let lent = self
            .model
            .leases
            .iter()
            .find(|(_, known)| known.port == port);
        let owner = lent.map(|(owner, _)| *owner);
        let choice = self.below(3);
        if choice == 0 {
            let released = self.book.release(port);
            assert_eq!(released.is_some(), owner.is_some(), "seed {}", self.seed);
            owner.and_then(|owner| self.model.leases.remove(&owner));
            return;
        }
        let pinned = choice == 1;
        let done = self.book.pin(port, pinned, self.now);
        assert_eq!(done, owner.is_some(), "seed {}", self.seed);
        if let Some(known) = owner.and_then(|owner| self.model.leases.get_mut(&owner)) {
            known.pinned = pinned;
            let runs = !pinned && known.holder.is_none();
            known.until = runs.then_some(self.now + LEASE);
        }
    }

    fn pass_time(&mut self) {
        let seconds = self.below(60);
        self.now += Duration::from_secs(seconds);
        self.unix += seconds as i64;
        self.model.expire(self.now);
        self.book.expire(self.now, |_, _| {});
    }

    fn save(&mut self) {
        let (disk, unix) = (&mut self.disk, self.unix);
        self.book.unsaved(self.now, |owner, row| {
            match row {
                Some(row) => disk.insert(owner.to_vec(), (unix, row.to_vec())),
                None => disk.remove(owner),
            };
        });
        self.book.saved();
        assert!(!self.book.has_unsaved());
        self.saved = self.model.clone();
        assert_eq!(self.disk.len(), self.model.leases.len());
    }

    /// A round that only grants, and whose commit fails.
    fn fail_to_save(&mut self) {
        self.save();
        for _ in 0..self.below(6) {
            self.acquire();
            self.compare();
        }
        self.model = self.saved.clone();
        self.book.revert(self.now);
        assert!(!self.book.has_unsaved(), "seed {}", self.seed);
    }

    /// The process ends here and now; the clock may be wrong when it is back.
    fn crash(&mut self) {
        let away = self.below(80);
        self.now += Duration::from_secs(away);
        self.unix += away as i64;
        if self.below(4) == 0 {
            self.unix += (self.below(3) as i64 - 1) * 24 * 3600;
        }
        self.book = Book::new(pool(), self.now);
        self.model = Model::default();
        // An epoch that never came to the disk was told to nobody.
        let epochs = self.saved.leases.values().map(|known| known.epoch);
        self.latest_epoch = epochs.max().unwrap_or(0);
        for (owner, (written, bytes)) in &self.disk {
            let row = row::Row::decode(bytes).unwrap();
            let elapsed = self.unix - written;
            assert!(self.book.restore(owner, bytes, elapsed, self.now));
            let known = &self.saved.leases[&owner[0]];
            assert_eq!(known.holder.is_none(), row.remaining.is_some());
            let remaining = row.remaining_after(elapsed, LEASE);
            let known = Known {
                holder: None,
                until: (!known.pinned).then_some(self.now + remaining),
                ..known.clone()
            };
            self.model.leases.insert(owner[0], known);
        }
        // As the control thread does: the first thing is to write it all anew.
        self.save();
    }

    fn compare(&self) {
        self.book.check();
        let mut listed = BTreeMap::new();
        for one in self.book.list(self.now) {
            let until = one.remaining.map(|remaining| self.now + remaining);
            let told = (one.port, one.epoch, one.held, one.pinned, until);
            assert!(listed.insert(one.owner[0], told).is_none());
        }
        let known = self.model.leases.iter().map(|(owner, known)| {
            let held = known.holder.is_some();
            let until = known.until.map(|until| until.max(self.now));
            (*owner, (known.port, known.epoch, held, known.pinned, until))
        });
        assert_eq!(listed, known.collect(), "seed {}", self.seed);
        assert_eq!(self.book.free(), self.model.free(), "seed {}", self.seed);
    }
}

#[test]
fn random_lives_equal_the_model() {
    for seed in 1..=150 {
        let mut life = Life::new(seed);
        for _ in 0..400 {
            life.step();
        }
        // When everybody has left and nothing is pinned, every port comes back.
        for port in FIRST..FIRST + PORTS {
            life.book.pin(port, false, life.now);
            let held = life.book.holder(port);
            if let Some((owner, epoch)) = held.map(|(owner, epoch, _)| (owner.clone(), epoch)) {
                life.book.leave(&owner, epoch, life.now).unwrap();
            }
        }
        life.book
            .expire(life.now + LEASE + Duration::from_secs(3841), |_, _| {});
        life.book.check();
        assert_eq!(life.book.free(), usize::from(PORTS), "seed {seed}");
    }
}
