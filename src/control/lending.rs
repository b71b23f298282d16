//! The control thread's part with leases: a book for each pool, and who is to be told what.
//!
//! It decides nothing about ports, which the books do, and writes nothing: it gathers a round's
//! changes for the one commit that the control thread makes, and its outcome is the answer.
//!
//! ```text
//!   Lease, ForeignPort ──> book ──┬─ no port: answered at once
//!   Leave, Ended, time ──> book ──┴─ changes ──> commit ──┬─ done:   Leased, Superseded
//!                                                         └─ failed: all that was granted is
//!                                                                    taken back, NoPort
//! ```

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::leases::{Book, Granted, NoPort, Pool};
use super::{Asker, Leased, PoolFigures, Refused, Reply};
use crate::reactor::Handle;
use crate::store::{Change, Refusal, Store, Update};

/// The books, and what waits for the disk.
#[derive(Default)]
pub(super) struct Lending {
    /// One for each pool; a server has a handful of them.
    books: Vec<Book<Asker>>,
    /// Every port that a session may hold, so that all can be left when it ends. Those that it was
    /// superseded on stand here until then, too: at most the ports of all pools for each session.
    held: HashMap<Handle, Ports>,
    /// What the round granted, the oldest first; at most a round of them.
    granted: Vec<(Asker, Granted<Asker>)>,
    /// Who left since the first of them: when they are taken back it may be the leaver that holds the
    /// lease again. At most a round.
    left: Vec<Left>,
    /// Why the disk took nothing the last time, and until when it is left alone.
    failure: Option<(Instant, Arc<str>)>,
}

/// A departure.
enum Left {
    Lease(&'static str, Box<[u8]>, u64),
    Session(Handle, Ports),
}

/// Ports, each with the number of its pool.
type Ports = HashSet<(usize, u16)>;

impl Lending {
    /// Opens a book for each pool, with the leases that the store has for it. Leases of other
    /// pools stay where they are: their role may be on again at the next start.
    pub(super) fn open(pools: Vec<Pool>, store: &Store, now: Instant, unix: i64) -> Self {
        let mut books: Vec<_> = pools.into_iter().map(|pool| Book::new(pool, now)).collect();
        let mut dropped = 0;
        store.leases(|pool, owner, record| {
            let is_of = |book: &&mut Book<Asker>| book.pool().name.as_bytes() == pool;
            if let Some(book) = books.iter_mut().find(is_of) {
                let elapsed = unix.saturating_sub(record.timestamp);
                dropped += usize::from(!book.restore(owner, &record.data, elapsed, now));
            }
        });
        if dropped > 0 {
            log::warn!("leases: {dropped} were not of their pool's ports any more and have ended");
        }
        for book in &books {
            let (name, ports) = (book.pool().name, &book.pool().ports);
            let (leases, (first, last)) = (book.len(), (ports.start(), ports.end()));
            log::info!("leases: pool={name} ports={first}-{last} leases={leases}");
        }
        Self {
            books,
            ..Self::default()
        }
    }

    /// Gives the owner its port or another one; a refusal is to be told at once.
    pub(super) fn acquire(
        &mut self,
        asker: Asker,
        pool: &str,
        owner: &[u8],
        wanted: Option<u16>,
        now: Instant,
    ) -> Result<(), NoPort> {
        self.check_disk(now)?;
        let (number, book) = self.book(pool)?;
        let granted = book.acquire(owner, wanted, asker, now)?;
        self.note(asker, number, granted);
        Ok(())
    }

    /// Gives the owner another port in the place of one that another program has.
    pub(super) fn foreign(
        &mut self,
        asker: Asker,
        pool: &str,
        owner: &[u8],
        epoch: u64,
        now: Instant,
    ) -> Result<(), NoPort> {
        self.check_disk(now)?;
        let (number, book) = self.book(pool)?;
        let granted = book.foreign(owner, epoch, asker, now)?;
        log::warn!(
            "leases: a port of pool={pool} is held by another program, port={} is given for it",
            granted.lease.port
        );
        self.note(asker, number, granted);
        Ok(())
    }

    /// The holder leaves the lease; with a void epoch nothing happens.
    pub(super) fn leave(&mut self, pool: &'static str, owner: Box<[u8]>, epoch: u64, now: Instant) {
        self.leave_lease(pool, &owner, epoch, now);
        if !self.granted.is_empty() {
            self.left.push(Left::Lease(pool, owner, epoch));
        }
    }

    fn leave_lease(&mut self, pool: &str, owner: &[u8], epoch: u64, now: Instant) {
        let Ok((number, book)) = self.book(pool) else {
            return;
        };
        let Some((port, holder)) = book.leave(owner, epoch, now) else {
            return;
        };
        if let Entry::Occupied(mut held) = self.held.entry(holder.from) {
            held.get_mut().remove(&(number, port));
            if held.get().is_empty() {
                held.remove();
            }
        }
    }

    /// The session has ended: all that it holds is left.
    pub(super) fn end(&mut self, session: Handle, now: Instant) {
        let Some(ports) = self.held.remove(&session) else {
            return;
        };
        self.leave_ports(session, &ports, now);
        if !self.granted.is_empty() {
            self.left.push(Left::Session(session, ports));
        }
    }

    fn leave_ports(&mut self, session: Handle, ports: &Ports, now: Instant) {
        for &(number, port) in ports {
            let Some(book) = self.books.get_mut(number) else {
                continue;
            };
            if let Some((owner, epoch, holder)) = book.holder(port)
                && holder.from == session
            {
                let owner = Arc::clone(owner);
                book.leave(&owner, epoch, now);
            }
        }
    }

    /// How full the pools are.
    pub(super) fn pools(&self) -> Vec<PoolFigures> {
        let figures = |book: &Book<Asker>| PoolFigures {
            pool: book.pool().name,
            ports: (*book.pool().ports.start(), *book.pool().ports.end()),
            leased: book.len(),
            free: book.free(),
            lease: book.pool().lease,
        };
        self.books.iter().map(figures).collect()
    }

    /// At most `most` leases, of one pool or of all, behind a pool's port; and whether there are more.
    /// It walks over the ports of the pools once.
    pub(super) fn list(
        &self,
        pool: Option<&str>,
        after: Option<(&str, u16)>,
        most: usize,
        now: Instant,
    ) -> (Vec<Leased>, bool) {
        let first = after.and_then(|(pool, _)| self.number(pool)).unwrap_or(0);
        let mut rows = Vec::new();
        for (number, book) in self.books.iter().enumerate().skip(first) {
            let name = book.pool().name;
            if pool.is_some_and(|pool| pool != name) {
                continue;
            }
            let behind = after.filter(|_| number == first).map(|(_, port)| port);
            for listed in book.list(now) {
                if behind.is_some_and(|port| listed.port <= port) {
                    continue;
                }
                if rows.len() == most {
                    return (rows, true);
                }
                rows.push(Leased {
                    pool: name,
                    port: listed.port,
                    owner: show_owner(listed.owner),
                    epoch: listed.epoch,
                    holder: book.holder(listed.port).map(|(_, _, holder)| holder.from),
                    pinned: listed.pinned,
                    remaining: listed.remaining,
                });
            }
        }
        (rows, false)
    }

    /// Keeps a lease, or lets it run out again.
    pub(super) fn pin(
        &mut self,
        pool: &str,
        port: u16,
        pinned: bool,
        now: Instant,
    ) -> Result<(), Refused> {
        let number = self.number(pool).ok_or(Refused::NoPool)?;
        match self.books[number].pin(port, pinned, now) {
            true => Ok(()),
            false => Err(Refused::NotLent),
        }
    }

    /// Ends a lease; who held it, and under which epoch.
    pub(super) fn release(
        &mut self,
        pool: &str,
        port: u16,
    ) -> Result<Option<(Asker, u64)>, Refused> {
        let number = self.number(pool).ok_or(Refused::NoPool)?;
        self.books[number].release(port).ok_or(Refused::NotLent)
    }

    fn number(&self, pool: &str) -> Option<usize> {
        self.books.iter().position(|book| book.pool().name == pool)
    }

    /// Ends the leases that are due.
    pub(super) fn expire(&mut self, now: Instant) {
        for book in &mut self.books {
            let name = book.pool().name;
            book.expire(now, |port, owner| {
                let owner = owner.escape_ascii();
                log::debug!("leases: ended pool={name} port={port} owner={owner}");
            });
        }
    }

    /// When there is something to do though nobody asks.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let unsaved = self.books.iter().any(Book::has_unsaved);
        let due = self.books.iter().filter_map(Book::next_deadline).min();
        let retry = self.failure.as_ref().map_or(now, |(until, _)| *until);
        let write = unsaved.then_some(retry);
        due.into_iter().chain(write).min()
    }

    /// What is to be written, for [`Store::apply_all`]; if it is anything, [`Lending::settle`] must
    /// follow.
    pub(super) fn unsaved(&self, now: Instant) -> Vec<Update> {
        let mut updates = Vec::new();
        if self.check_disk(now).is_err() {
            return updates;
        }
        for book in &self.books {
            let pool = book.pool().name.as_bytes();
            book.unsaved(now, |owner, row| {
                updates.push(Update {
                    id: pool.into(),
                    section: owner.into(),
                    change: row.map_or(Change::Remove, |row| Change::Set(row.into())),
                });
            });
        }
        updates
    }

    /// The outcome of writing it: who is to be told what.
    pub(super) fn settle(
        &mut self,
        outcome: &Result<(), Refusal>,
        now: Instant,
    ) -> Vec<(Asker, Reply)> {
        let granted = std::mem::take(&mut self.granted);
        match outcome {
            Ok(()) => self.confirm(granted),
            Err(refusal) => self.take_back(granted, refusal, now),
        }
    }

    fn confirm(&mut self, granted: Vec<(Asker, Granted<Asker>)>) -> Vec<(Asker, Reply)> {
        self.failure = None;
        self.left.clear();
        self.books.iter_mut().for_each(Book::saved);
        let mut told = Vec::new();
        for (asker, Granted { lease, ousted }) in granted {
            if let Some((former, epoch)) = ousted
                && former.from != asker.from
            {
                told.push((former, Reply::Superseded { epoch }));
            }
            told.push((asker, Reply::Leased(lease)));
        }
        told
    }

    fn take_back(
        &mut self,
        granted: Vec<(Asker, Granted<Asker>)>,
        refusal: &Refusal,
        now: Instant,
    ) -> Vec<(Asker, Reply)> {
        let reason: Arc<str> = refusal.to_string().into();
        self.failure = Some((now + RETRY, Arc::clone(&reason)));
        self.books.iter_mut().for_each(|book| book.revert(now));
        for left in std::mem::take(&mut self.left) {
            match left {
                Left::Lease(pool, owner, epoch) => self.leave_lease(pool, &owner, epoch, now),
                Left::Session(session, ports) => self.leave_ports(session, &ports, now),
            }
        }
        let refused = NoPort::NotStored(reason);
        let askers = granted.into_iter().map(|(asker, _)| asker);
        askers
            .map(|asker| (asker, Reply::NoPort(refused.clone())))
            .collect()
    }

    /// Nothing is granted that the disk will not take anyway.
    fn check_disk(&self, now: Instant) -> Result<(), NoPort> {
        match &self.failure {
            Some((until, reason)) if now < *until => Err(NoPort::NotStored(Arc::clone(reason))),
            _ => Ok(()),
        }
    }

    fn note(&mut self, asker: Asker, pool: usize, granted: Granted<Asker>) {
        let held = self.held.entry(asker.from).or_default();
        held.insert((pool, granted.lease.port));
        self.granted.push((asker, granted));
    }

    fn book(&mut self, pool: &str) -> Result<(usize, &mut Book<Asker>), NoPort> {
        let mut books = self.books.iter_mut().enumerate();
        let found = books.find(|(_, book)| book.pool().name == pool);
        found.ok_or_else(|| {
            log::error!("leases: no role has declared the pool {pool}");
            NoPort::Full
        })
    }
}

/// An owner as text where it is text, else in hexadecimal digits, as the log shows identities.
fn show_owner(owner: &[u8]) -> String {
    match std::str::from_utf8(owner) {
        Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            text.into()
        }
        _ => owner.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// How soon the disk is tried again: it takes no more than one try a second.
const RETRY: Duration = Duration::from_secs(1);
