//! The two keyspaces of the store, and what each holds in memory.
//!
//! They share files, journal and commits, and nothing else: no name in one can reach into the
//! other, whatever bytes a client puts into it.

use super::memory::Memory;

/// Which names a name is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keyspace {
    /// id -> section -> record of the agents.
    Records,
    /// pool -> owner -> lease, known to the control thread alone.
    Leases,
}

impl Keyspace {
    pub(super) const ALL: [Self; 2] = [Self::Records, Self::Leases];
}

/// What is in memory, by keyspace.
pub(super) struct Contents {
    pub(super) records: Memory,
    pub(super) leases: Memory,
}

impl Contents {
    pub(super) fn new() -> Self {
        Self {
            records: Memory::new(),
            leases: Memory::new(),
        }
    }

    pub(super) fn of(&self, keyspace: Keyspace) -> &Memory {
        match keyspace {
            Keyspace::Records => &self.records,
            Keyspace::Leases => &self.leases,
        }
    }

    /// True when both hold the same.
    pub(super) fn is_as(&self, other: &Contents) -> bool {
        Keyspace::ALL.into_iter().all(|keyspace| {
            let (own, others) = (self.of(keyspace), other.of(keyspace));
            let mut same = own.records() == others.records();
            own.for_each(|id, section, record| {
                same = same && others.get(id, section).as_ref() == Some(record);
            });
            same
        })
    }
}
