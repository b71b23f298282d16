//! Who can be dialled: servers by the ids they claim, clients by the ids they are given. It is
//! shared by all cores and asked once for each dial; frames never pass here.
//!
//! Of several servers with one id the newest is found; when it leaves, the next older one is.

use std::collections::HashMap;

use parking_lot::RwLock;

use super::ids::Ids;
use crate::reactor::Handle;

/// Which side of the gateway an endpoint is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It came to a client listener.
    Client,
    /// It came to a server listener, and has proved its key.
    Server,
}

/// Where an endpoint is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its session.
    pub(super) handle: Handle,
    /// Its place in the hall of its core.
    pub(super) seat: usize,
}

/// The endpoints of all cores. Bound: one entry for each connection, which the server bounds.
pub(super) struct Directory {
    servers: RwLock<HashMap<u32, Vec<Found>>>,
    clients: RwLock<HashMap<u32, Found>>,
    /// The ids of clients.
    names: Ids,
    /// The ids of virtual connections.
    pub(super) conns: Ids,
}

impl Directory {
    /// Nobody yet. The keys hide how ids follow each other.
    pub(super) fn new(keys: [u64; 2]) -> Self {
        Self {
            servers: RwLock::default(),
            clients: RwLock::default(),
            names: Ids::new(keys[0]),
            conns: Ids::new(keys[1]),
        }
    }

    /// Enters a client and gives it an id; `None` when there is none left.
    pub(super) fn enter_client(&self, found: Found) -> Option<u32> {
        let id = self.names.fresh()?;
        self.clients.write().insert(id, found);
        Some(id)
    }

    /// Enters a server, which is found from now on instead of older ones of its id; true when
    /// there are such.
    pub(super) fn enter_server(&self, id: u32, found: Found) -> bool {
        let mut servers = self.servers.write();
        let same = servers.entry(id).or_default();
        same.push(found);
        same.len() > 1
    }

    /// Strikes out one endpoint, and no other of the same id.
    pub(super) fn leave(&self, kind: Kind, id: u32, handle: Handle) {
        match kind {
            Kind::Client => {
                self.clients.write().remove(&id);
                self.names.free(id);
            }
            Kind::Server => {
                let mut servers = self.servers.write();
                if let Some(same) = servers.get_mut(&id) {
                    same.retain(|found| found.handle != handle);
                    if same.is_empty() {
                        servers.remove(&id);
                    }
                }
            }
        }
    }

    /// Whom an endpoint of that kind reaches by dialling `id`: clients servers, servers clients.
    pub(super) fn find(&self, dialler: Kind, id: u32) -> Option<Found> {
        match dialler {
            Kind::Client => self.servers.read().get(&id)?.last().copied(),
            Kind::Server => self.clients.read().get(&id).copied(),
        }
    }

    /// An endpoint can be found; for tests.
    pub(super) fn check(&self, kind: Kind, id: u32, found: Found) {
        let entered = match kind {
            Kind::Client => self.clients.read().get(&id) == Some(&found),
            Kind::Server => {
                let servers = self.servers.read();
                servers.get(&id).is_some_and(|same| same.contains(&found))
            }
        };
        assert!(entered, "{kind:?} {id} is nowhere");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::SessionKey;

    fn found(index: u32) -> Found {
        let session = SessionKey::from_parts(index, 1).unwrap();
        let handle = Handle { core: 0, session };
        Found {
            handle,
            seat: index as usize,
        }
    }

    #[test]
    fn the_newest_server_is_found_and_then_the_older_again() {
        let directory = Directory::new([1, 2]);
        let (old, new) = (found(1), found(2));
        assert!(!directory.enter_server(7, old));
        assert!(directory.enter_server(7, new));
        assert_eq!(directory.find(Kind::Client, 7), Some(new));
        assert_eq!(directory.find(Kind::Server, 7), None, "another name space");
        directory.leave(Kind::Server, 7, new.handle);
        assert_eq!(directory.find(Kind::Client, 7), Some(old));
        directory.leave(Kind::Server, 7, new.handle);
        assert_eq!(directory.find(Kind::Client, 7), Some(old), "left twice");
        directory.leave(Kind::Server, 7, old.handle);
        assert_eq!(directory.find(Kind::Client, 7), None);
        assert!(directory.servers.read().is_empty());
    }

    #[test]
    fn clients_have_ids_of_their_own() {
        let directory = Directory::new([1, 2]);
        let one = directory.enter_client(found(1)).unwrap();
        let two = directory.enter_client(found(2)).unwrap();
        assert_ne!(one, two);
        assert_eq!(directory.find(Kind::Server, two), Some(found(2)));
        directory.leave(Kind::Client, one, found(1).handle);
        assert_eq!(directory.find(Kind::Server, one), None);
        assert_eq!(directory.names.len(), 1);
    }
}
