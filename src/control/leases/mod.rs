//! Ports on loan: which owner has which port of a range, and for how long.
//!
//! A [`Book`] is the table of one [`Pool`]. It binds no socket, reads no clock, writes no file,
//! and knows neither what an owner is nor who holds a lease: the control thread does, and asks it.
//!
//! ```text
//!              acquire                    leave                  the lease has run out
//!   no lease ──────────> held (epoch n) ────────> left ──────────────────────────> no lease
//!                          │   ^   │                │
//!            foreign: moved│   │   │acquire: n+1    │acquire: the same port, epoch n+1
//!              to another  └───┘   └──> held <──────┘
//!
//!   port:    free ──> leased ──> free          behind all others that are free
//!                       └──────> foreign ──> free      after a minute, then two, ... an hour
//! ```
//!
//! * **Newest wins.** Whoever acquires has the lease; the epoch of the former holder is void, and
//!   nothing that is done under it changes anything.
//! * **A held lease does not run out.** It runs from [`Book::leave`] on, for the pool's lease.
//! * **A port belongs to one owner, and an owner has one port.** No port outside of the range is
//!   ever given.
//! * **Durable before it is told.** The caller writes [`Book::unsaved`] and then says
//!   [`Book::saved`]; or [`Book::revert`], which takes back what was granted and could not be
//!   written, so that the former holder has it again.
//!
//! **Cost.** Every operation is a fixed number of steps, whatever the size of the range and however
//! much of it is in use: a hash map finds the owner, a linked queue the port, a timer wheel what is
//! due. Only [`Book::list`] walks over all.
//!
//! **Bounds.** As many leases as ports, with owners of at most [`MAX_OWNER`] bytes; of changes that
//! are not on the disk as many as leases, and those of one round.

mod book;
mod free;
mod row;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use book::{Book, Granted, Listed};

/// A range of ports that a role lends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What commands, the store and the log call it; the store finds its leases again by it.
    pub name: &'static str,
    /// The ports, both ends among them; port 0 is none.
    pub ports: RangeInclusive<u16>,
    /// How long an owner that has left keeps its port.
    pub lease: Duration,
}

/// A port that an owner has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The port, on whatever address the pool is for.
    pub port: u16,
    /// Greater than that of every lease that the pool gave since the start or has on the disk;
    /// newest wins.
    pub epoch: u64,
    /// True when the owner had this port already.
    pub renewed: bool,
}

/// Why there is no port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPort {
    /// Every port of the range is lent, or held by another program.
    Full,
    /// The wanted port is lent to another owner, or was held by another program.
    Taken,
    /// The wanted port is not in the range.
    Outside,
    /// The owner's name is longer than [`MAX_OWNER`].
    LongOwner,
    /// The epoch is void: somebody newer has the lease, or nobody.
    Superseded,
    /// The disk did not take the lease, for the reason given.
    NotStored(Arc<str>),
}

impl fmt::Display for NoPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("no port is free"),
            Self::Taken => f.write_str("the wanted port is taken"),
            Self::Outside => f.write_str("the wanted port is not in the range"),
            Self::LongOwner => write!(f, "the owner's name is over {MAX_OWNER} bytes"),
            Self::Superseded => f.write_str("somebody newer has the lease"),
            Self::NotStored(reason) => write!(f, "no lease: {reason}"),
        }
    }
}

impl std::error::Error for NoPort {}

/// The longest name of an owner, in bytes.
pub const MAX_OWNER: usize = 128;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
