//! A network without sockets: the engine's streams on one side, scripted peers on the other.
//!
//! Nothing happens by itself. The test decides when bytes arrive, in which pieces, when a peer
//! reads, ends, or resets, which connects succeed, and in which order readiness is reported; all
//! of it from one seeded generator, so that a run can be replayed. Reads and writes keep the
//! kernel's rules: a short read has emptied the buffer, readiness is reported once per change.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

pub mod datagrams;
mod stream;

use self::datagrams::{Air, SimSocket};
pub use self::stream::{SimPipe, SimStream};
use towpath::net::{ConnKey, ListenerKey, Network, Parcel, Ready, Sharing, SocketKey, Watched};

pub use super::random::Random;

/// One connection as the network sees it; the engine's end and the peer's.
pub struct Socket {
    pub peer: SocketAddr,
    key: Option<ConnKey>,
    /// Sent by the peer, still on the way.
    wire: VecDeque<u8>,
    /// Arrived: what the engine can read.
    inbound: VecDeque<u8>,
    peer_ended: bool,
    end_arrived: bool,
    pub peer_reset: bool,
    connecting: bool,
    refused: bool,
    /// Written by the engine, not yet read by the peer.
    outbound: VecDeque<u8>,
    /// Written with the word that more follows, not sent yet.
    held_back: Vec<u8>,
    send_room: usize,
    /// Everything that the peer has read.
    pub received: Vec<u8>,
    /// The engine has sent its end.
    pub shut: bool,
    /// The engine has closed it; by a reset if `aborted`.
    pub closed: bool,
    pub aborted: bool,
    write_blocked: bool,
    readable: bool,
    writable: bool,
}

impl Socket {
    fn new(peer: SocketAddr, connecting: bool, send_room: usize) -> Self {
        Self {
            peer,
            key: None,
            wire: VecDeque::new(),
            inbound: VecDeque::new(),
            peer_ended: false,
            end_arrived: false,
            peer_reset: false,
            connecting,
            refused: false,
            outbound: VecDeque::new(),
            held_back: Vec::new(),
            send_room,
            received: Vec::new(),
            shut: false,
            closed: false,
            aborted: false,
            write_blocked: false,
            readable: false,
            writable: !connecting,
        }
    }

    /// The peer sees nothing more from the engine: its end, and every byte before it.
    pub fn is_over(&self) -> bool {
        (self.shut || self.closed) && self.outbound.is_empty()
    }

    /// How many bytes the engine has written.
    pub fn emitted(&self) -> usize {
        self.received.len() + self.outbound.len()
    }

    /// How many bytes of the peer are still on the way.
    pub fn undelivered(&self) -> usize {
        self.wire.len()
    }

    /// How many bytes of the peer the engine has not read.
    pub fn untaken(&self) -> usize {
        self.wire.len() + self.inbound.len()
    }

    /// The engine has read all that the peer has sent.
    pub fn is_taken(&self) -> bool {
        self.untaken() == 0
    }

    /// The engine has more to write than there is room for.
    pub fn is_blocked(&self) -> bool {
        self.write_blocked
    }

    fn has_news(&self) -> bool {
        self.key.is_some() && !self.closed && (self.readable || self.writable)
    }
}

/// The network and everybody on it.
pub struct World {
    pub random: Random,
    pub sockets: Vec<Socket>,
    doors: Vec<Door>,
    /// Errors that the next accepts give.
    pub accept_errors: VecDeque<i32>,
    pub accept_calls: usize,
    /// Percent of connects, watches and pipes that fail at once.
    pub failures: usize,
    /// What the kernel takes from the engine before the peer reads, for sockets to come.
    pub send_room: usize,
    /// What the kernel keeps for the engine to read; the rest waits on the way.
    pub receive_room: usize,
    /// The most that one slot of a pipe takes.
    pub slot: usize,
    /// How many bytes the engine has put into pipes.
    pub spliced: usize,
    /// How often the engine asked for a pipe.
    pub pipe_calls: usize,
    /// Where datagrams fly.
    pub air: Air,
    /// What the wall clock says, since the Unix epoch.
    pub unix_time: Duration,
}

pub type Shared = Rc<RefCell<World>>;

/// A listening socket as the network sees it.
struct Door {
    at: SocketAddr,
    key: Option<ListenerKey>,
    backlog: VecDeque<usize>,
    news: bool,
    open: bool,
}

impl Door {
    fn has_news(&self) -> bool {
        self.news && self.open && self.key.is_some()
    }
}

/// Opens a listening socket at an address; an error when there is one already.
pub fn listen(world: &Shared, at: SocketAddr) -> io::Result<SimListener> {
    let door = world.borrow_mut().open(at)?;
    let world = Rc::clone(world);
    Ok(SimListener { world, door })
}

impl World {
    pub fn new(seed: u64) -> Shared {
        Rc::new(RefCell::new(Self {
            random: Random::new(seed),
            sockets: Vec::new(),
            doors: Vec::new(),
            accept_errors: VecDeque::new(),
            accept_calls: 0,
            failures: 0,
            send_room: SEND_BUFFER,
            receive_room: RECEIVE_BUFFER,
            slot: SLOT,
            spliced: 0,
            pipe_calls: 0,
            air: Air::default(),
            unix_time: Duration::from_secs(1_700_000_000),
        }))
    }

    fn open(&mut self, at: SocketAddr) -> io::Result<usize> {
        if self.doors.iter().any(|door| door.open && door.at == at) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.doors.push(Door {
            at,
            key: None,
            backlog: VecDeque::new(),
            news: false,
            open: true,
        });
        Ok(self.doors.len() - 1)
    }

    /// A peer connects to the engine's first listener.
    pub fn connect(&mut self) -> usize {
        self.connect_to(0).unwrap()
    }

    /// A peer connects to an address; nothing when nobody listens there.
    pub fn visit(&mut self, at: SocketAddr) -> Option<usize> {
        let listens = |door: &Door| door.open && door.at == at;
        let door = self.doors.iter().position(listens)?;
        self.connect_to(door)
    }

    /// A peer connects to the listener of that number; nothing when it is closed.
    pub fn connect_to(&mut self, door: usize) -> Option<usize> {
        if !self.doors[door].open {
            return None;
        }
        let id = self.sockets.len();
        let port = 1024 + (id % 60_000) as u16;
        let peer = SocketAddr::from(([10, 1, 0, 1], port));
        self.sockets.push(Socket::new(peer, false, self.send_room));
        self.doors[door].backlog.push_back(id);
        self.doors[door].news = true;
        Some(id)
    }

    pub fn send(&mut self, id: usize, bytes: &[u8]) {
        self.sockets[id].wire.extend(bytes);
    }

    /// The peer ends its stream after what it has sent.
    pub fn end(&mut self, id: usize) {
        self.sockets[id].peer_ended = true;
    }

    pub fn reset(&mut self, id: usize) {
        let socket = &mut self.sockets[id];
        socket.peer_reset = true;
        socket.wire.clear();
        socket.inbound.clear();
        socket.outbound.clear();
        socket.readable = true;
        socket.writable = true;
    }

    /// A connect of the engine succeeds, or is refused.
    pub fn settle_dial(&mut self, id: usize, accepted: bool) {
        let socket = &mut self.sockets[id];
        socket.refused = !accepted;
        socket.connecting = !accepted;
        socket.writable = true;
    }

    /// Some of what is on the way arrives.
    pub fn deliver(&mut self, id: usize, most: usize) {
        let receive_room = self.receive_room;
        let socket = &mut self.sockets[id];
        if socket.connecting || socket.closed {
            return;
        }
        let room = receive_room.saturating_sub(socket.inbound.len());
        let count = socket.wire.len().min(most).min(room);
        let arrived: Vec<u8> = socket.wire.drain(..count).collect();
        socket.inbound.extend(arrived);
        socket.readable |= count > 0;
        if socket.peer_ended && socket.wire.is_empty() && !socket.end_arrived {
            socket.end_arrived = true;
            socket.readable = true;
        }
    }

    /// The peer reads some of what the engine has written.
    pub fn receive(&mut self, id: usize, most: usize) {
        let socket = &mut self.sockets[id];
        let count = socket.outbound.len().min(most);
        let got: Vec<u8> = socket.outbound.drain(..count).collect();
        socket.received.extend(got);
        if count > 0 && socket.write_blocked {
            socket.write_blocked = false;
            socket.writable = true;
        }
    }

    /// Everything on the way arrives and is read.
    pub fn rush(&mut self) {
        for id in 0..self.sockets.len() {
            self.deliver(id, usize::MAX);
            self.receive(id, usize::MAX);
        }
    }

    /// Something became ready that [`World::ready`] has not told yet.
    pub fn has_news(&self) -> bool {
        self.sockets.iter().any(Socket::has_news)
            || self.doors.iter().any(Door::has_news)
            || self.air.has_news()
    }

    /// A part of what became ready, in a random order, each thing once.
    pub fn ready(&mut self) -> Vec<Ready> {
        let mut news = Vec::new();
        for id in 0..self.sockets.len() {
            if !self.sockets[id].has_news() || self.random.chance(20) {
                continue;
            }
            let socket = &mut self.sockets[id];
            let Some(key) = socket.key else { continue };
            let over = socket.peer_reset || socket.refused;
            news.push(Ready {
                whom: Watched::Conn(key),
                readable: socket.readable || over,
                writable: socket.writable || over,
                read_closed: socket.end_arrived || over,
                hung_up: over,
            });
            socket.readable = false;
            socket.writable = false;
        }
        for door in self.doors.iter_mut().filter(|door| door.has_news()) {
            let Some(key) = door.key else { continue };
            door.news = false;
            news.push(Ready {
                whom: Watched::Listener(key),
                readable: true,
                writable: false,
                read_closed: false,
                hung_up: false,
            });
        }
        news.extend(self.air.ready());
        for at in (1..news.len()).rev() {
            let other = self.random.below(at + 1);
            news.swap(at, other);
        }
        news
    }
}

/// The engine's end of a listening socket.
pub struct SimListener {
    world: Shared,
    door: usize,
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        let door = &mut world.doors[self.door];
        door.open = false;
        // Whoever was not accepted is turned away.
        for id in std::mem::take(&mut door.backlog) {
            world.sockets[id].closed = true;
        }
    }
}

/// The engine's view of the world.
pub struct SimNetwork(pub Shared);

impl SimNetwork {
    fn stream(&self, id: usize) -> SimStream {
        SimStream {
            world: Rc::clone(&self.0),
            id,
        }
    }
}

impl Network for SimNetwork {
    type Stream = SimStream;
    type Listener = SimListener;
    type Socket = SimSocket;

    fn accept(&mut self, from: &mut SimListener) -> io::Result<(SimStream, SocketAddr)> {
        let taken = {
            let mut world = self.0.borrow_mut();
            world.accept_calls += 1;
            if let Some(code) = world.accept_errors.pop_front() {
                return Err(io::Error::from_raw_os_error(code));
            }
            world.doors[from.door].backlog.pop_front()
        };
        let id = taken.ok_or(io::ErrorKind::WouldBlock)?;
        let peer = self.0.borrow().sockets[id].peer;
        Ok((self.stream(id), peer))
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<SimStream> {
        let id = {
            let mut world = self.0.borrow_mut();
            let failures = world.failures;
            if world.random.chance(failures) {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            }
            let room = world.send_room;
            world.sockets.push(Socket::new(to, true, room));
            world.sockets.len() - 1
        };
        Ok(self.stream(id))
    }

    fn watch(&mut self, stream: &mut SimStream, key: ConnKey) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        let failures = world.failures;
        if world.random.chance(failures) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        world.sockets[stream.id].key = Some(key);
        Ok(())
    }

    fn listen(&mut self, at: SocketAddr, _: Sharing) -> io::Result<(SimListener, SocketAddr)> {
        Ok((listen(&self.0, at)?, at))
    }

    /// The socket itself goes to the other world; a closed one stays in its place.
    fn release(&mut self, stream: SimStream) -> Parcel {
        let mut world = self.0.borrow_mut();
        let left = Socket::new(world.sockets[stream.id].peer, false, 0);
        let mut socket = std::mem::replace(&mut world.sockets[stream.id], left);
        socket.key = None;
        Parcel::new(socket)
    }

    fn unpack(&mut self, parcel: Parcel) -> Option<SimStream> {
        let mut socket: Socket = parcel.open()?;
        // What it holds when it comes under watch is its first news.
        socket.readable = true;
        socket.writable = true;
        let mut world = self.0.borrow_mut();
        world.sockets.push(socket);
        let id = world.sockets.len() - 1;
        drop(world);
        Some(self.stream(id))
    }

    fn unix_time(&self) -> Duration {
        self.0.borrow().unix_time
    }

    fn watch_listener(&mut self, of: &mut SimListener, key: ListenerKey) -> io::Result<()> {
        self.0.borrow_mut().doors[of.door].key = Some(key);
        Ok(())
    }

    fn bind(&mut self, at: SocketAddr) -> io::Result<(SimSocket, SocketAddr)> {
        self.open_port(at, None)
    }

    fn associate(&mut self, to: SocketAddr) -> io::Result<SimSocket> {
        let any = SocketAddr::from(([10, 0, 0, 1], 0));
        self.open_port(any, Some(to)).map(|(socket, _)| socket)
    }

    fn watch_socket(&mut self, socket: &mut SimSocket, key: SocketKey) -> io::Result<()> {
        self.watch_port(socket, key)
    }

    fn spend_reserve(&mut self) -> bool {
        false
    }

    fn restore_reserve(&mut self) {}

    fn pipe(&mut self, _capacity: usize) -> io::Result<SimPipe> {
        let mut world = self.0.borrow_mut();
        world.pipe_calls += 1;
        let failures = world.failures;
        if world.random.chance(failures) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(SimPipe {
            bytes: VecDeque::new(),
            slots: 0,
        })
    }
}

const SEND_BUFFER: usize = 5_000;
const RECEIVE_BUFFER: usize = 40_000;

/// Slots of a pipe, and the most that one of them takes unless a test says otherwise.
pub const SLOTS: usize = 16;
const SLOT: usize = 2_000;
