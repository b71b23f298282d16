//! Where scripted peers come in: the listener that the house opens, and those that sessions open by
//! themselves, each on a port of its own.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use towpath::net::{ListenerKey, Ready, Watched};

use super::{Shared, SimNetwork};

/// One listening socket as the network sees it.
#[derive(Default)]
struct Door {
    port: u16,
    key: Option<ListenerKey>,
    backlog: VecDeque<usize>,
    news: bool,
    closed: bool,
}

/// All of them; the house's is the first.
pub struct Doors {
    doors: Vec<Door>,
    /// Ports on which another program listens.
    pub foreign: HashSet<u16>,
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            doors: vec![Door::default()],
            foreign: HashSet::new(),
        }
    }
}

impl Doors {
    /// Somebody comes to a port, port 0 being the house's; false when nobody listens there.
    pub fn knock(&mut self, port: u16, id: usize) -> bool {
        let mut doors = self.doors.iter_mut();
        let Some(door) = doors.find(|door| door.port == port && !door.closed) else {
            return false;
        };
        door.backlog.push_back(id);
        door.news = true;
        true
    }

    pub fn is_open(&self, port: u16) -> bool {
        self.doors
            .iter()
            .any(|door| door.port == port && !door.closed)
    }

    pub fn has_news(&self) -> bool {
        self.doors.iter().any(Door::has_news)
    }

    pub fn ready(&mut self) -> Vec<Ready> {
        let doors = self.doors.iter_mut().filter(|door| door.has_news());
        doors
            .filter_map(|door| {
                door.news = false;
                Some(Ready {
                    whom: Watched::Listener(door.key?),
                    readable: true,
                    writable: false,
                    read_closed: false,
                    hung_up: false,
                })
            })
            .collect()
    }
}

impl Door {
    fn has_news(&self) -> bool {
        self.news && self.key.is_some() && !self.closed
    }
}

/// The engine's end of a door.
pub struct SimListener {
    world: Shared,
    door: usize,
}

impl SimListener {
    /// The one that the house opens.
    pub fn first(world: &Shared) -> Self {
        let world = Rc::clone(world);
        Self { world, door: 0 }
    }

    pub fn next_waiting(&self) -> Option<usize> {
        self.world.borrow_mut().doors.doors[self.door]
            .backlog
            .pop_front()
    }

    pub fn watch(&self, key: ListenerKey) {
        self.world.borrow_mut().doors.doors[self.door].key = Some(key);
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        let door = &mut world.doors.doors[self.door];
        door.closed = true;
        // As a kernel does: who waited to be accepted is reset.
        for id in std::mem::take(&mut door.backlog) {
            world.sockets[id].closed = true;
            world.sockets[id].aborted = true;
        }
    }
}

impl SimNetwork {
    pub fn open_door(&self, at: SocketAddr) -> io::Result<(SimListener, SocketAddr)> {
        let mut world = self.0.borrow_mut();
        let doors = &mut world.doors;
        if doors.is_open(at.port()) || doors.foreign.contains(&at.port()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        doors.doors.push(Door {
            port: at.port(),
            ..Door::default()
        });
        let door = doors.doors.len() - 1;
        drop(world);
        let world = Rc::clone(&self.0);
        Ok((SimListener { world, door }, at))
    }
}
