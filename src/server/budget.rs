//! What the descriptor limit allows: computed before anything is opened, checked, and said.
//!
//! ```text
//!   limit = reserved (store, lookups, admin address, workers, listeners, some to spare)
//!         + 2 for each connection: its own and its upstream's
//! ```
//!
//! A server that cannot have even one connection with its upstream does not start. One that is short
//! starts with less to spare, for as many connections as fit.

use std::sync::Arc;

use super::StartError;
use super::part::Common;
use crate::config::Core;
use crate::net::{Load, Quota, Usage};
use crate::sys;

/// Who needs descriptors besides connections.
pub(super) struct Needs {
    /// Worker threads.
    pub(super) workers: usize,
    /// Listening sockets of each worker.
    pub(super) listeners: usize,
    /// The admin address, with its clients; and at the least.
    pub(super) admin: (usize, usize),
    /// A service manager is given a copy of each listening socket.
    pub(super) is_kept: bool,
}

/// How the limit is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Descriptors in all.
    limit: usize,
    /// Those that are not for connections.
    reserved: usize,
    /// Connections that fit into the rest, each with its upstream's.
    allowed: usize,
}

impl Budget {
    /// Raises the limit as far as it goes, and shares it out.
    pub(super) fn draw_up(needs: &Needs) -> Result<Self, StartError> {
        if let Ok((soft, hard)) = sys::descriptor_limit()
            && soft < hard
            && let Err(error) = sys::set_descriptor_limit(hard)
        {
            log::warn!("the descriptor limit stays at {soft}: {error}");
        }
        let limit = sys::descriptor_limit().map_or(UNKNOWN, |(soft, _)| soft);
        Self::of(usize::try_from(limit).unwrap_or(usize::MAX), needs)
    }

    fn of(limit: usize, needs: &Needs) -> Result<Self, StartError> {
        let copies = usize::from(needs.is_kept);
        let workers = needs.workers * (WORKER + needs.listeners * (1 + copies));
        let (admin, least_admin) = needs.admin;
        let least = LEAST + least_admin + workers + 2;
        if limit < least {
            return Err(StartError::Descriptors {
                limit,
                least,
                workers: needs.workers,
                listeners: needs.listeners,
            });
        }
        // Where all of that does not fit, half of what is left is spared.
        let spared = least - 2 + (limit - least) / 2;
        let reserved = (OWN + admin + workers).min(spared);
        Ok(Self {
            limit,
            reserved,
            allowed: (limit - reserved) / 2,
        })
    }

    /// What all workers count together, with nothing in it.
    pub(super) fn house(&self, core: &Core) -> Common {
        Common {
            quota: Arc::new(
                Quota::with(self.most(core), core.limits.terms())
                    .pacing(core.limits.bandwidth_per_ip),
            ),
            load: Arc::new(self.load(core)),
            doors: Arc::default(),
        }
    }

    /// How many connections there may be.
    pub(super) fn most(&self, core: &Core) -> usize {
        let (limit, reserved, allowed) = (self.limit, self.reserved, self.allowed);
        let most = match core.limits.max_connections {
            0 => allowed,
            wanted if wanted > allowed => {
                log::warn!(
                    "max_connections = {wanted} is cut to {allowed}, which {limit} descriptors allow; raise `ulimit -n`"
                );
                allowed
            }
            wanted => wanted,
        };
        log::info!(
            "descriptors: {limit}, of them {reserved} reserved and 2 for each of {most} connections"
        );
        most
    }

    /// What may be used before new work is given up.
    fn load(&self, core: &Core) -> Load {
        Load::new(Usage {
            descriptors: self.limit - self.reserved,
            memory: usize::try_from(core.limits.max_buffer_memory).unwrap_or(usize::MAX),
        })
    }
}

/// A worker's poll, bell and reserve.
const WORKER: usize = 3;

/// Descriptors that are not connections: the store, the standard ones, lookups, and some to spare.
const OWN: usize = 32;

/// What a server needs of those at the least: the standard ones, the store, signals and one lookup.
const LEAST: usize = 12;

/// The limit where the system does not tell it.
const UNKNOWN: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(workers: usize, listeners: usize) -> Needs {
        Needs {
            workers,
            listeners,
            admin: (0, 0),
            is_kept: false,
        }
    }

    #[test]
    fn what_is_not_reserved_is_for_connections_and_their_upstreams() {
        let budget = Budget::of(1024, &needs(2, 3)).unwrap();
        let want = Budget {
            limit: 1024,
            reserved: 44,
            allowed: 490,
        };
        assert_eq!(budget, want);
    }

    #[test]
    fn a_short_server_has_less_to_spare_and_one_too_short_does_not_start() {
        let crowded = needs(2, 8);
        let budget = Budget::of(64, &crowded).unwrap();
        assert_eq!((budget.reserved, budget.allowed), (48, 8));
        let least = Budget::of(36, &crowded).unwrap();
        assert_eq!((least.reserved, least.allowed), (34, 1));
        let refused = Budget::of(35, &crowded).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "too few descriptors: 2 workers with 8 listeners each need at least 36, and 35 may be \
             open; raise `ulimit -n` (LimitNOFILE), or start fewer workers"
        );
        assert_eq!(refused.exit_code(), 75);
    }
}
