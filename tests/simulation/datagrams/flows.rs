//! Sessions with datagram sockets of their own: flows that are passed on, and ports that are bound.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use towpath::net::SocketKey;
use towpath::session::{Cause, Close, Cx, Event, Seat, Session};
use towpath::stats::Metric;

use super::super::house::{House, Shape};
use super::super::seeds;
use super::super::world::Random;
use super::{MAIN, counted, landed, payload, peer};

const UPSTREAM: &str = "10.9.0.1:53";

/// Datagrams of each source go upstream by a socket of their own, and the answers back; at most so
/// many flows, of which the oldest leaves.
#[derive(Default)]
struct Forwarder {
    main: Option<SocketKey>,
    most: usize,
    by_source: HashMap<SocketAddr, SocketKey>,
    by_socket: HashMap<SocketKey, SocketAddr>,
    oldest: VecDeque<SocketKey>,
}

impl Forwarder {
    fn flow(&mut self, source: SocketAddr, cx: &mut Cx<'_>) -> Option<SocketKey> {
        if let Some(&flow) = self.by_source.get(&source) {
            return Some(flow);
        }
        if self.oldest.len() == self.most
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.forget(oldest);
            cx.unbind(oldest);
        }
        let flow = cx.associate(UPSTREAM.parse().unwrap())?;
        self.by_source.insert(source, flow);
        self.by_socket.insert(flow, source);
        self.oldest.push_back(flow);
        Some(flow)
    }

    fn forget(&mut self, flow: SocketKey) {
        let source = self.by_socket.remove(&flow).expect("a flow of ours");
        self.by_source.remove(&source);
        self.oldest.retain(|&other| other != flow);
    }
}

impl Session for Forwarder {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Bound { socket, .. } => self.main = Some(socket),
            Event::Datagrams { socket, train } if Some(socket) == self.main => {
                match self.flow(train.from, cx) {
                    Some(flow) => cx.train(flow, None, &train),
                    None => cx.count(Metric::Ignored, train.count() as u64),
                }
                if train.payload.first() == Some(&b'P') {
                    panic!("as the test asked");
                }
            }
            Event::Datagrams { socket, train } => {
                let source = *self.by_socket.get(&socket).expect("a flow of ours");
                assert_eq!(train.from, UPSTREAM.parse().unwrap());
                for datagram in train.datagrams() {
                    cx.datagram(self.main.unwrap(), Some(source), &[b"ok ", datagram]);
                }
            }
            Event::Bounced { .. } => cx.count(Metric::Ignored, 1),
            Event::Unbound { socket, .. } if self.by_socket.contains_key(&socket) => {
                self.forget(socket);
            }
            Event::Unbound { .. } => {}
            Event::Stopping => {}
            other => panic!("unexpected {other:?}"),
        }
        Ok(())
    }

    fn describe(&self, _: &mut String) {}
}

struct ForwarderSeat(usize);

impl Seat for ForwarderSeat {
    fn accept(&mut self, _: usize) -> Box<dyn Session> {
        panic!("nobody connects")
    }

    fn datagrams(&mut self, _: usize) -> Option<Box<dyn Session>> {
        Some(Box::new(Forwarder {
            most: self.0,
            ..Forwarder::default()
        }))
    }
}

fn forwarder(seed: u64, flows: usize, most: usize) -> House {
    let shape = Shape {
        most,
        ..Shape::default()
    };
    let mut house = House::new(seed, shape, move |_, _| Box::new(ForwarderSeat(flows)));
    house.world.borrow_mut().air.longest_segment = usize::MAX;
    house.listen_datagrams().unwrap();
    house
}

/// Sources send and the upstream answers what has come to it, all at random.
fn traffic(house: &mut House, random: &mut Random, sources: usize) {
    let mut answered: HashMap<usize, usize> = HashMap::new();
    for number in 0..800 {
        let mut world = house.world.borrow_mut();
        let source = peer(random.below(sources));
        // The source's own byte leads, so that a datagram in the wrong flow is noticed.
        let mut said = payload(random, number);
        if let (Some(first), SocketAddr::V4(v4)) = (said.first_mut(), source) {
            *first = v4.ip().octets()[3];
        }
        world.throw(source, MAIN.parse().unwrap(), &said);
        for port in 1..world.air.ports.len() {
            let heard = answered.entry(port).or_default();
            let sent = &world.air.ports[port].sent;
            if sent.len() > *heard && random.chance(30) {
                let (answer, to) = (sent[*heard].payload.clone(), world.air.ports[port].address);
                *heard += 1;
                world.throw(UPSTREAM.parse().unwrap(), to, &answer);
            }
            if random.chance(1) {
                world.bounce(port);
            }
        }
        let most = random.below(6);
        world.land(most);
        drop(world);
        if random.chance(30) {
            house.turn();
        }
    }
    house.world.borrow_mut().land(usize::MAX);
    house.quiesce();
}

#[test]
fn flows_never_mix_and_lose_nothing_uncounted() {
    seeds(60, |seed| {
        let quota = [1_000, 3][seed as usize % 2];
        let mut house = forwarder(seed, 4, quota);
        let mut random = Random::new(seed ^ 0xf10);
        {
            let mut world = house.world.borrow_mut();
            world.failures = [0, 0, 20][seed as usize % 3];
            world.air.loss = 5;
            world.air.blocking = [0, 3][seed as usize / 2 % 2];
            world.air.longest_segment = [usize::MAX, 1_000][seed as usize / 4 % 2];
        }
        traffic(&mut house, &mut random, 6);
        let [received, out, dropped] = counted(&house);
        let world = house.world.borrow();
        assert_eq!(received, world.air.landed.len() as u64 - unread(&house));
        let mut answers = Vec::new();
        let mut sent = world.air.ports[0].sent.len();
        for (number, port) in world.air.ports.iter().enumerate().skip(1) {
            sent += port.sent.len();
            let leading = port.sent.iter().filter_map(|one| one.payload.first());
            let mut sources: Vec<_> = leading.collect();
            sources.dedup();
            assert!(sources.len() <= 1, "{sources:?} share flow {number}");
            answers.extend(landed(&house, number));
        }
        assert_eq!(out, sent as u64);
        let ignored = house.counters.get(Metric::Ignored);
        assert!(out + dropped <= received && received <= out + dropped + ignored);
        for answer in &world.air.ports[0].sent {
            let said = answer.payload.strip_prefix(b"ok ").expect("an answer");
            let SocketAddr::V4(to) = answer.peer else {
                panic!()
            };
            assert!(
                said.first()
                    .is_none_or(|&source| source == to.ip().octets()[3])
            );
            assert!(answers.iter().any(|other| other.payload == said));
        }
        let open = world.air.ports.iter().filter(|port| !port.closed).count();
        drop(world);
        assert_eq!(house.worker.holdings().sockets, open - 1);
        assert!(open - 1 <= quota.min(4), "{open} ports are open");
        house.phase.drain();
        house.turn();
        assert!(house.worker.is_done(), "flows are not waited for");
    });
}

/// Datagrams that landed at ports which closed before they were read.
fn unread(house: &House) -> u64 {
    house.world.borrow().air.unread() as u64
}

#[test]
fn flows_end_with_their_session_and_leave_their_places() {
    seeds(10, |seed| {
        let mut house = forwarder(seed, 3, 4);
        let to = MAIN.parse().unwrap();
        for round in 0..3 {
            for source in 0..3 {
                house.world.borrow_mut().throw(peer(source), to, b"flow");
            }
            house.world.borrow_mut().land(3);
            house.quiesce();
            assert_eq!(house.worker.holdings().sockets, 3);
            // The last flow was only asked for when the session panicked: it is never opened.
            house.world.borrow_mut().throw(peer(9), to, b"P");
            house.world.borrow_mut().land(1);
            house.quiesce();
            assert_eq!(house.worker.holdings().sockets, 0, "in round {round}");
            let world = house.world.borrow();
            assert_eq!(world.air.ports.len(), 4 + 3 * round);
            drop(world);
            house.wait(house.now + Duration::from_millis(50));
        }
        assert_eq!(house.counters.get(Metric::Shed), 0, "each place came back");
        assert_eq!(house.counters.get(Metric::DatagramsDropped), 3);
    });
}

#[test]
fn a_bounce_is_told_and_the_flow_goes_on() {
    let mut house = forwarder(1, 3, 100);
    let to = MAIN.parse().unwrap();
    for said in [&b"one"[..], b"two", b"three"] {
        house.world.borrow_mut().throw(peer(0), to, said);
        house.world.borrow_mut().land(1);
        house.quiesce();
        house.world.borrow_mut().bounce(1);
    }
    house.quiesce();
    assert_eq!(house.counters.get(Metric::Ignored), 3);
    let world = house.world.borrow();
    let sent: Vec<_> = world.air.ports[1]
        .sent
        .iter()
        .map(|one| &one.payload[..])
        .collect();
    assert_eq!(sent, [&b"one"[..], b"two", b"three"]);
}

/// Binds a port for whoever asks, tells its number, and passes on what comes there.
#[derive(Default)]
struct Landlord {
    main: Option<SocketKey>,
    /// Ports with whom they are for.
    ports: HashMap<SocketKey, SocketAddr>,
}

impl Session for Landlord {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Bound { socket, address } if self.main.is_none() => {
                assert_eq!(address, MAIN.parse().unwrap());
                self.main = Some(socket);
            }
            Event::Bound { socket, address } => {
                let port = address.port().to_be_bytes();
                cx.datagram(self.main.unwrap(), Some(self.ports[&socket]), &[&port]);
            }
            Event::Datagrams { socket, train } if Some(socket) == self.main => {
                let port = u16::from_be_bytes(train.payload.try_into().unwrap());
                let at = SocketAddr::from(([10, 0, 0, 1], port));
                let socket = cx.bind(at).expect("there is room");
                match port {
                    UNWANTED => cx.unbind(socket),
                    _ => drop(self.ports.insert(socket, train.from)),
                }
            }
            Event::Datagrams { socket, train } => {
                cx.train(self.main.unwrap(), Some(self.ports[&socket]), &train);
            }
            Event::Unbound { socket, why } => {
                assert_eq!(why, std::io::ErrorKind::AddrInUse);
                let to = self.ports.remove(&socket).expect("asked for");
                cx.datagram(self.main.unwrap(), Some(to), &[b"taken"]);
            }
            Event::Stopping => return Err(Close::own(Cause::Stopping)),
            other => panic!("unexpected {other:?}"),
        }
        Ok(())
    }

    fn describe(&self, _: &mut String) {}
}

/// A port that it changes its mind about in the very call that asks for it.
const UNWANTED: u16 = 1;

struct LandlordSeat;

impl Seat for LandlordSeat {
    fn accept(&mut self, _: usize) -> Box<dyn Session> {
        panic!("nobody connects")
    }

    fn datagrams(&mut self, _: usize) -> Option<Box<dyn Session>> {
        Some(Box::<Landlord>::default())
    }
}

#[test]
fn a_session_binds_ports_of_its_own() {
    let mut house = House::new(1, Shape::default(), |_, _| Box::new(LandlordSeat));
    house.listen_datagrams().unwrap();
    let say = |house: &mut House, peer, to: SocketAddr, said: &[u8]| {
        house.world.borrow_mut().throw(peer, to, said);
        house.world.borrow_mut().land(1);
        house.quiesce();
        let answer = house.world.borrow().air.ports[0].sent.last().cloned();
        answer.map(|answer| (answer.peer, answer.payload)).unwrap()
    };
    let main = MAIN.parse().unwrap();
    let wanted = SocketAddr::from(([10, 0, 0, 1], 9_000));
    let number = 9_000u16.to_be_bytes();
    assert_eq!(
        say(&mut house, peer(0), main, &number),
        (peer(0), number.to_vec())
    );
    assert_eq!(
        say(&mut house, peer(1), main, &number),
        (peer(1), b"taken".to_vec())
    );
    let (_, free) = say(&mut house, peer(1), main, &[0, 0]);
    assert!(free != [0, 0] && free != number);
    assert_eq!(
        say(&mut house, peer(2), wanted, b"a word"),
        (peer(0), b"a word".to_vec())
    );
    assert_eq!(house.worker.holdings().sockets, 2);
    say(&mut house, peer(2), main, &UNWANTED.to_be_bytes());
    assert_eq!(house.worker.holdings().sockets, 2);
    assert_eq!(
        house.counters.get(Metric::Panicked),
        0,
        "it is not told of it"
    );
    house.phase.drain();
    house.turn();
    assert_eq!(house.worker.holdings().sockets, 0);
    assert!(
        house
            .world
            .borrow()
            .air
            .ports
            .iter()
            .all(|port| port.closed)
    );
}
