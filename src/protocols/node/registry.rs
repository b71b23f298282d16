//! Which identities are registered, on all cores: asked by a keepalive on a connection that has not
//! registered its identity itself, and by nothing else; frames never pass here.
//!
//! Who has the lease is decided by the control thread; here is only that somebody has it.

use std::collections::HashMap;

use parking_lot::RwLock;

use super::wire::Identity;

/// The registered identities with the epoch of each one's lease. Bound: one for each lease, so
/// one for each port.
#[derive(Default)]
pub(super) struct Registry(RwLock<HashMap<Identity, u64>>);

impl Registry {
    /// Enters a registration; an older one does not replace a newer one.
    pub(super) fn enter(&self, identity: Identity, epoch: u64) {
        let mut registered = self.0.write();
        let newest = registered.entry(identity).or_default();
        *newest = epoch.max(*newest);
    }

    /// Strikes out a registration; the end of an older one changes nothing.
    pub(super) fn leave(&self, identity: &Identity, epoch: u64) {
        let mut registered = self.0.write();
        if registered.get(identity) == Some(&epoch) {
            registered.remove(identity);
        }
    }

    /// Whether somebody has registered it.
    pub(super) fn has(&self, identity: &Identity) -> bool {
        self.0.read().contains_key(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::node::wire::{Demand, Transport};

    #[test]
    fn the_end_of_an_older_registration_changes_nothing() {
        let registry = Registry::default();
        let demand = Demand {
            connection_id: b"node",
            ..Demand::default()
        };
        let node = Identity::of(&demand, Transport::Tcp);
        assert!(!registry.has(&node));
        registry.enter(node, 4);
        registry.enter(node, 7);
        // A slower core is late with the older one.
        registry.enter(node, 4);
        registry.leave(&node, 4);
        assert!(registry.has(&node));
        registry.leave(&node, 7);
        assert!(!registry.has(&node));
        assert!(registry.0.read().is_empty());
    }
}
