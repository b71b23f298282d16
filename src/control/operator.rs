//! What an operator asks of the control thread: which ports are lent, to keep a lease, to end one. And what
//! the house asks: to let a newer process have the store.
//!
//! An errand is done at the beginning of a round, before anything is granted, and what it changes is
//! told only when it is on the disk. The answer goes wherever the errand says: the control thread
//! knows of no admin address.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Command, Control, Files, Reply, Request};
use crate::store::Refusal;

/// What is asked, and where the answer goes.
pub struct Errand {
    /// What is asked.
    pub query: Query,
    /// Takes the answer; it must not block.
    pub answer: Box<dyn FnOnce(Answer) + Send>,
}

/// A question of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// How full every pool is.
    Pools,
    /// Leases in the order of pools and ports, those behind `after`.
    Leases {
        /// Of this pool alone.
        pool: Option<String>,
        /// The pool and port behind which to begin.
        after: Option<(String, u16)>,
        /// How many at most.
        most: usize,
    },
    /// Keeps a lease from running out, or lets it run out again.
    Pin {
        /// The pool's name.
        pool: String,
        /// The port that is lent.
        port: u16,
        /// Whether it is kept.
        pinned: bool,
    },
    /// Ends a lease; whoever holds it is told that it is void.
    Release {
        /// The pool's name.
        pool: String,
        /// The port that is lent.
        port: u16,
    },
    /// Has the store's files closed or opened, for or by a newer process of the server.
    Files(Files),
}

/// What comes of a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Every pool.
    Pools(Vec<PoolFigures>),
    /// Leases, and whether there are more behind them.
    Leases(Vec<Leased>, bool),
    /// A lease was kept, let go or ended.
    Changed(Result<Kept, Refused>),
    /// The files are as they were wished, or why not.
    Files(Result<(), String>),
}

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Somebody held the lease that was ended, and is told.
    pub held: bool,
}

/// Why nothing was changed, or not for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No pool has this name.
    NoPool,
    /// The port is not lent.
    NotLent,
    /// The disk did not take it; it holds until a restart, and is tried again.
    NotStored(String),
    /// The store is with a newer process of this server, or on its way there.
    NotNow(String),
}

/// How full a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFigures {
    /// Its name.
    pub pool: &'static str,
    /// Its first port and its last.
    pub ports: (u16, u16),
    /// How many are lent.
    pub leased: usize,
    /// How many can be lent at once.
    pub free: usize,
    /// How long a lease runs that nobody holds.
    pub lease: Duration,
}

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Its pool's name.
    pub pool: &'static str,
    /// The port.
    pub port: u16,
    /// Whose it is: the role's name for it, in hexadecimal digits where it is no plain text.
    pub owner: String,
    /// Its latest epoch.
    pub epoch: u64,
    /// The session that holds it.
    pub holder: Option<crate::reactor::Handle>,
    /// It does not run out.
    pub pinned: bool,
    /// How long it still runs, when it runs.
    pub remaining: Option<Duration>,
}

/// An answer that waits for the disk.
pub(super) struct Told {
    answer: Box<dyn FnOnce(Answer) + Send>,
    kept: Kept,
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.query.fmt(f)
    }
}

impl Control {
    /// Does what the operators of this round ask, before anything else of it.
    pub(super) fn serve_operators(&mut self, batch: &mut Vec<Request>, now: Instant) {
        let is_operator = |request: &mut Request| matches!(request.command, Command::Operator(_));
        let asked: Vec<_> = batch.extract_if(.., is_operator).collect();
        for request in asked {
            if let Command::Operator(errand) = request.command {
                self.serve_operator(errand, now);
            }
        }
    }

    fn serve_operator(&mut self, errand: Errand, now: Instant) {
        let Errand { query, answer } = errand;
        match query {
            Query::Pools => answer(Answer::Pools(self.lending.pools())),
            Query::Leases { pool, after, most } => {
                let after = after.as_ref().map(|(pool, port)| (pool.as_str(), *port));
                let (rows, more) = self.lending.list(pool.as_deref(), after, most, now);
                answer(Answer::Leases(rows, more));
            }
            Query::Files(files) => self.custody.note(files, answer),
            Query::Pin { .. } | Query::Release { .. } if !self.custody.is_ours() => {
                let why = Refusal::HandedOver.to_string();
                answer(Answer::Changed(Err(Refused::NotNow(why))));
            }
            Query::Pin { pool, port, pinned } => match self.lending.pin(&pool, port, pinned, now) {
                Ok(()) => self.told.push(Told {
                    answer,
                    kept: Kept { held: false },
                }),
                Err(refused) => answer(Answer::Changed(Err(refused))),
            },
            Query::Release { pool, port } => match self.lending.release(&pool, port) {
                Ok(former) => {
                    if let Some((holder, epoch)) = former {
                        self.post(holder, Reply::Released { epoch }, now);
                    }
                    let held = former.is_some();
                    let kept = Kept { held };
                    self.told.push(Told { answer, kept });
                }
                Err(refused) => answer(Answer::Changed(Err(refused))),
            },
        }
    }

    /// The round's changes are on the disk, or not.
    pub(super) fn answer_operators(&mut self, stored: &Result<(), Refusal>) {
        for Told { answer, kept } in std::mem::take(&mut self.told) {
            answer(Answer::Changed(match stored {
                Ok(()) => Ok(kept),
                Err(refusal) => Err(Refused::NotStored(refusal.to_string())),
            }));
        }
    }
}
