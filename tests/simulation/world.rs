//! A network without sockets: the engine's streams on one side, scripted peers on the other.
//!
//! Nothing happens by itself. The test decides when bytes arrive, in which pieces, when a peer
//! reads, ends, or resets, which connects succeed, and in which order readiness is reported; all
//! of it from one seeded generator, so that a run can be replayed. Reads and writes keep the
//! kernel's rules: a short read has emptied the buffer, readiness is reported once per change.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::rc::Rc;

pub mod datagrams;

use self::datagrams::{Air, SimSocket};
use towpath::net::{
    ConnKey, ListenerKey, Network, Ready, SocketKey, SocketOptions, Stream, Watched,
};

/// xorshift64*: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

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

/// The engine's end of a socket.
pub struct SimStream {
    world: Shared,
    id: usize,
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        socket.closed = true;
        // As a kernel does: closing with unread bytes is a reset, which eats what is on the way.
        if socket.aborted {
            socket.outbound.clear();
        }
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

/// A pipe that takes bytes into few slots, whatever their number: it may be full early.
pub struct SimPipe {
    bytes: VecDeque<u8>,
    slots: usize,
}

impl Stream for SimStream {
    type Pipe = SimPipe;

    fn read(&mut self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        if socket.peer_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if socket.inbound.is_empty() && !socket.end_arrived {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut count = 0;
        for slice in into {
            let part = slice.len().min(socket.inbound.len());
            for (to, from) in slice.iter_mut().zip(socket.inbound.drain(..part)) {
                *to = from;
            }
            count += part;
        }
        Ok(count)
    }

    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        assert!(!socket.shut, "bytes behind the end of the stream");
        if socket.peer_reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let held = std::mem::take(&mut socket.held_back);
        socket.outbound.extend(held);
        let mut left = socket.send_room.saturating_sub(socket.outbound.len());
        let mut count = 0;
        for slice in from {
            let part = slice.len().min(left);
            socket.outbound.extend(&slice[..part]);
            left -= part;
            count += part;
        }
        let offered: usize = from.iter().map(|slice| slice.len()).sum();
        socket.write_blocked |= count < offered;
        match count {
            0 if offered > 0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn shut(&mut self) -> io::Result<()> {
        self.world.borrow_mut().sockets[self.id].shut = true;
        Ok(())
    }

    fn connected(&mut self) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        if socket.refused {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        if socket.peer_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        socket.connecting = false;
        Ok(())
    }

    fn abort(&mut self) {
        self.world.borrow_mut().sockets[self.id].aborted = true;
    }

    fn last(&mut self, _: SocketOptions) {}

    fn splice_in(&mut self, pipe: &mut SimPipe, count: usize) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        let slot = world.slot;
        let piece = 1 + world.random.below(slot);
        let socket = &mut world.sockets[self.id];
        if socket.peer_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if socket.inbound.is_empty() && socket.end_arrived {
            return Ok(0);
        }
        if socket.inbound.is_empty() || pipe.slots == SLOTS {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // A slot for each piece: many small pieces fill the pipe long before its bytes do.
        let mut taken = 0;
        while pipe.slots < SLOTS && taken < count && !socket.inbound.is_empty() {
            let part = piece.min(count - taken).min(socket.inbound.len());
            pipe.bytes.extend(socket.inbound.drain(..part));
            pipe.slots += 1;
            taken += part;
        }
        world.spliced += taken;
        Ok(taken)
    }

    fn splice_out(&mut self, pipe: &mut SimPipe, count: usize, more: bool) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        assert!(!socket.shut, "bytes behind the end of the stream");
        if socket.peer_reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = socket
            .send_room
            .saturating_sub(socket.outbound.len() + socket.held_back.len());
        let part = count.min(pipe.bytes.len()).min(room);
        socket.write_blocked |= part < count;
        if part == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes: Vec<u8> = pipe.bytes.drain(..part).collect();
        if pipe.bytes.is_empty() {
            pipe.slots = 0;
        }
        let mut held: Vec<u8> = std::mem::take(&mut socket.held_back);
        held.extend(bytes);
        // The last bytes may be held back for those that are to follow.
        let kept = if more { held.len().min(SEGMENT) } else { 0 };
        socket.held_back = held.split_off(held.len() - kept);
        socket.outbound.extend(held);
        Ok(part)
    }

    fn push(&mut self) {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        let held = std::mem::take(&mut socket.held_back);
        socket.outbound.extend(held);
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

    fn listen(&mut self, at: SocketAddr) -> io::Result<(SimListener, SocketAddr)> {
        Ok((listen(&self.0, at)?, at))
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

/// How much a socket holds back at most.
const SEGMENT: usize = 700;
