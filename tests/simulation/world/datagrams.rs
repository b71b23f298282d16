//! The world's datagrams: they fly from scripted peers to the engine's ports, are lost, overtake each
//! other, bounce, and are handed over in trains, as the world's generator has it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use towpath::net::{Arrival, DATAGRAMS, Datagrams, Leaving, Ready, SocketKey, Watched};

use super::{Shared, SimNetwork, World};

/// One datagram: between a peer and the engine, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub peer: SocketAddr,
    pub payload: Vec<u8>,
}

/// A datagram socket of the engine's as the network sees it.
pub struct Port {
    pub address: SocketAddr,
    /// The only peer that it hears.
    pub connected: Option<SocketAddr>,
    key: Option<SocketKey>,
    /// Landed, and not yet taken by the engine.
    inbound: VecDeque<Datagram>,
    /// An earlier datagram could not be delivered.
    bounced: bool,
    news: bool,
    /// Everything that the engine has sent by it.
    pub sent: Vec<Datagram>,
    pub closed: bool,
}

/// All ports, and what is on its way to them.
#[derive(Default)]
pub struct Air {
    pub ports: Vec<Port>,
    flying: Vec<(SocketAddr, Datagram)>,
    /// Percent of flying datagrams that never land.
    pub loss: usize,
    /// Percent of calls to send that find no room in the system.
    pub blocking: usize,
    /// Trains of longer datagrams are refused; 0 refuses all.
    pub longest_segment: usize,
    /// Datagrams landed, with their ports, in their order.
    pub landed: Vec<(usize, Datagram)>,
    /// How often the engine called the system to receive, and to send.
    pub calls: [usize; 2],
}

impl Air {
    pub fn has_news(&self) -> bool {
        self.ports.iter().any(Port::has_news)
    }

    /// How many datagrams wait at ports that are closed, where nobody reads them.
    pub fn unread(&self) -> usize {
        self.ports.iter().map(|port| port.inbound.len()).sum()
    }

    /// Every port's news, each once.
    pub fn ready(&mut self) -> Vec<Ready> {
        let mut news = Vec::new();
        for port in self.ports.iter_mut().filter(|port| port.has_news()) {
            port.news = false;
            news.extend(port.key.map(|key| Ready {
                whom: Watched::Socket(key),
                readable: true,
                writable: false,
                read_closed: false,
                hung_up: false,
            }));
        }
        news
    }
}

impl Port {
    fn has_news(&self) -> bool {
        self.key.is_some() && self.news && !self.closed
    }
}

impl World {
    /// A peer sends a datagram to one of the engine's ports.
    pub fn throw(&mut self, peer: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let payload = payload.to_vec();
        self.air.flying.push((to, Datagram { peer, payload }));
    }

    /// Some of what flies lands, in any order; some is lost. What finds nobody is gone.
    pub fn land(&mut self, most: usize) {
        for _ in 0..most.min(self.air.flying.len()) {
            let first = match self.random.chance(70) {
                true => 0,
                false => self.random.below(self.air.flying.len()),
            };
            let (to, datagram) = self.air.flying.remove(first);
            let lost = self.air.loss;
            let heard = |port: &Port| {
                let connected = port.connected.is_none_or(|peer| peer == datagram.peer);
                !port.closed && port.address == to && connected
            };
            let port = self.air.ports.iter().position(heard);
            if let Some(port) = port.filter(|_| !self.random.chance(lost)) {
                self.air.landed.push((port, datagram.clone()));
                self.air.ports[port].inbound.push_back(datagram);
                self.air.ports[port].news = true;
            }
        }
    }

    /// A datagram that was sent by a connected port could not be delivered.
    pub fn bounce(&mut self, port: usize) {
        self.air.ports[port].bounced = true;
        self.air.ports[port].news = true;
    }
}

/// The engine's end of a port.
pub struct SimSocket {
    world: Shared,
    id: usize,
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.world.borrow_mut().air.ports[self.id].closed = true;
    }
}

impl SimNetwork {
    pub(super) fn open_port(
        &mut self,
        at: SocketAddr,
        connected: Option<SocketAddr>,
    ) -> io::Result<(SimSocket, SocketAddr)> {
        let mut world = self.0.borrow_mut();
        let failures = world.failures;
        if world.random.chance(failures) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let id = world.air.ports.len();
        let mut address = at;
        if at.port() == 0 {
            address.set_port(20_000 + id as u16);
        }
        let mut ports = world.air.ports.iter();
        if ports.any(|port| port.address == address && !port.closed) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        world.air.ports.push(Port {
            address,
            connected,
            key: None,
            inbound: VecDeque::new(),
            bounced: false,
            news: false,
            sent: Vec::new(),
            closed: false,
        });
        let world = Rc::clone(&self.0);
        Ok((SimSocket { world, id }, address))
    }

    pub(super) fn watch_port(&mut self, socket: &SimSocket, key: SocketKey) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        let failures = world.failures;
        if world.random.chance(failures) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        world.air.ports[socket.id].key = Some(key);
        Ok(())
    }
}

impl Datagrams for SimSocket {
    fn receive(
        &mut self,
        room: &mut [u8],
        place: usize,
        arrivals: &mut [Arrival; DATAGRAMS],
    ) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        world.air.calls[0] += 1;
        let port = &mut world.air.ports[self.id];
        if std::mem::take(&mut port.bounced) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mut count = 0;
        for (bytes, arrival) in room.chunks_exact_mut(place).zip(arrivals) {
            let Some(first) = port.inbound.pop_front() else {
                break;
            };
            let each = first.payload.len();
            let mut train = first.payload;
            // As the kernel joins: of one sender and one length, and a shorter one ends it.
            while train.len().is_multiple_of(each.max(1))
                && world.random.chance(60)
                && let Some(next) = port.inbound.front()
                && next.peer == first.peer
                && (1..=each).contains(&next.payload.len())
                && train.len() + next.payload.len() <= place
            {
                train.extend(&next.payload);
                port.inbound.pop_front();
            }
            let len = train.len().min(place);
            bytes[..len].copy_from_slice(&train[..len]);
            *arrival = Arrival {
                from: Some(first.peer),
                len,
                segment: if train.len() > each { each } else { 0 },
                truncated: train.len() > place,
            };
            count += 1;
        }
        match count {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn send(&mut self, leaving: Leaving<'_>) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        world.air.calls[1] += 1;
        let blocking = world.air.blocking;
        let port = &mut world.air.ports[self.id];
        if std::mem::take(&mut port.bounced) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mut count = 0;
        for one in leaving.take(DATAGRAMS) {
            let failure = if world.random.chance(blocking) {
                Some(io::ErrorKind::WouldBlock)
            } else if one.segment > world.air.longest_segment || one.payload.len() > 65_507 {
                Some(io::ErrorKind::InvalidInput)
            } else {
                None
            };
            match failure {
                Some(kind) if count == 0 => return Err(kind.into()),
                Some(_) => break,
                None => count += 1,
            }
            let peer = one.to.or(port.connected).expect("an address to send to");
            assert!(one.segment == 0 || one.payload.len() > one.segment);
            let each = match one.segment {
                0 => one.payload.len().max(1),
                segment => segment,
            };
            let empty = one.payload.is_empty().then_some(one.payload);
            let parts = empty.into_iter().chain(one.payload.chunks(each));
            port.sent.extend(parts.map(|part| Datagram {
                peer,
                payload: part.to_vec(),
            }));
        }
        Ok(count)
    }
}
