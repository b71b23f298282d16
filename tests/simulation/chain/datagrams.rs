//! Datagrams through a hop, and through a chain of them: what is lost is lost, what arrives is whole,
//! and flows end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use towpath::protocols::chain::wire::binding::Asked;
use towpath::protocols::chain::wire::{
    Address, Code, Flags, Key, RESPONSE_FRAME, Request, Transport, seal_request,
};
use towpath::protocols::chain::{AccessProtocol, Config};
use towpath::stats::Metric;

use super::street::{Street, access, chain_of, destination, hop_at, hop_house, key_of};
use crate::house::House;
use crate::seeds;

/// A hop and those who send datagrams to it.
struct Post {
    house: House,
    made: u16,
    /// What each client has asked.
    asked: HashMap<SocketAddr, Asked>,
}

impl Post {
    fn new(seed: u64, edit: impl Fn(&mut Config)) -> Self {
        let mut house = hop_house(seed, 1, |config| {
            config.udp_idle_timeout = IDLE;
            config.max_flows = 4;
            edit(config);
        });
        house.listen_datagrams().unwrap();
        house.settle();
        Self {
            house,
            made: 0,
            asked: HashMap::new(),
        }
    }

    fn stamp(&self) -> u64 {
        self.house.world.borrow().unix_time.as_millis() as u64
    }

    fn packet(&mut self, from: SocketAddr, key: &Key, stamp: u64, to: Address) -> Vec<u8> {
        self.made += 1;
        // An anchor, so that the hop's answers are bound to it.
        let mut nonce = [0; 24];
        nonce[1..3].copy_from_slice(&self.made.to_be_bytes());
        let asked = self.asked.entry(from).or_default();
        asked.note(&nonce);
        let request = Request {
            stamp,
            flags: Flags::default(),
            address: to,
        };
        let mut packet = Vec::new();
        seal_request(&mut packet, key, Transport::Udp, &nonce, &request);
        packet
    }

    /// A client has a payload passed on.
    fn pass_on(&mut self, from: SocketAddr, to: Address, payload: &[u8]) {
        let stamp = self.stamp();
        let mut packet = self.packet(from, &key_of(1), stamp, to);
        packet.extend(payload);
        self.throw(from, &packet);
    }

    fn throw(&mut self, from: SocketAddr, packet: &[u8]) {
        let mut world = self.house.world.borrow_mut();
        world.throw(from, main(), packet);
        world.land(usize::MAX);
        drop(world);
        self.house.quiesce();
    }

    /// What has left to a destination, by any port.
    fn arrived(&self, at: SocketAddr) -> Vec<Vec<u8>> {
        let world = self.house.world.borrow();
        let sent = world.air.ports.iter().flat_map(|port| &port.sent);
        let there = sent.filter(|datagram| datagram.peer == at);
        there.map(|datagram| datagram.payload.clone()).collect()
    }

    fn open_ports(&self) -> usize {
        let world = self.house.world.borrow();
        let open = |port: &&crate::world::datagrams::Port| !port.closed && port.connected.is_some();
        world.air.ports.iter().filter(open).count()
    }

    fn wait(&mut self, time: Duration) {
        let until = self.house.now + time;
        while self.house.now < until {
            self.house.quiesce();
            self.house.pass(until - self.house.now);
        }
        self.house.quiesce();
    }
}

#[test]
fn a_datagram_is_passed_on_and_answered_or_lost_but_never_altered_or_given_to_another() {
    seeds(40, |seed| {
        let mut post = Post::new(seed, |_| {});
        post.house.world.borrow_mut().air.loss = 20;
        let mut sent: HashMap<SocketAddr, Vec<Vec<u8>>> = HashMap::new();
        for _ in 0..60 {
            let who = client(post.house.world.borrow_mut().random.below(3) as u8);
            let payload = {
                let random = &mut post.house.world.borrow_mut().random;
                let count = random.below(1400);
                random.bytes(count)
            };
            sent.entry(who).or_default().push(payload.clone());
            post.pass_on(who, Address::Socket(destination()), &payload);
            // The destination answers by what it got.
            let mut world = post.house.world.borrow_mut();
            let last = world.air.ports.iter().enumerate();
            let echoes: Vec<_> = last
                .filter(|(_, port)| port.connected == Some(destination()))
                .filter_map(|(_, port)| Some((port.address, port.sent.last()?.payload.clone())))
                .collect();
            for (address, payload) in echoes {
                world.throw(destination(), address, &payload);
            }
            world.land(usize::MAX);
            drop(world);
            post.house.quiesce();
        }
        let all: Vec<_> = sent.values().flatten().cloned().collect();
        let arrived = post.arrived(destination());
        assert!(arrived.len() > 20 && arrived.len() <= all.len());
        assert!(arrived.iter().all(|payload| all.contains(payload)));
        for (who, own) in &sent {
            let asked = post.asked.get_mut(who).unwrap();
            let answers = {
                let world = post.house.world.borrow();
                let sent = world.air.ports[0].sent.iter();
                let theirs = sent.filter(|datagram| datagram.peer == *who);
                theirs.map(|one| one.payload.clone()).collect::<Vec<_>>()
            };
            for answer in answers {
                let (frame, payload) = answer.split_at(RESPONSE_FRAME);
                let opened = asked.open(&key_of(1), frame).unwrap();
                assert_eq!(opened.response.code, Code::Ok);
                assert!(own.iter().any(|sent| sent == payload), "another's answer");
            }
        }
        post.wait(IDLE * 2);
        assert_eq!(post.open_ports(), 0);
    });
}

#[test]
fn flows_are_as_many_as_they_may_and_end_when_they_are_idle() {
    let mut post = Post::new(1, |_| {});
    for number in 0..6 {
        post.pass_on(client(number), Address::Socket(destination()), b"x");
        assert_eq!(post.open_ports(), usize::from(number + 1).min(4));
    }
    for _ in 0..6 {
        post.wait(IDLE / 2);
        post.pass_on(client(5), Address::Socket(destination()), b"x");
    }
    assert_eq!(post.open_ports(), 1, "the one that is used stays");
    post.wait(IDLE * 2);
    assert_eq!(post.open_ports(), 0);
    assert_eq!(post.arrived(destination()).len(), 12);
}

#[test]
fn a_flow_whose_name_is_looked_up_holds_nobody_up() {
    let mut post = Post::new(1, |_| {});
    let name = Address::Name {
        host: "backend.test".into(),
        port: 53,
    };
    let resolved: SocketAddr = "10.9.0.1:53".parse().unwrap();
    for number in 0..20_u8 {
        post.pass_on(client(1), name.clone(), &[number]);
        post.pass_on(client(2), Address::Socket(destination()), &[number]);
        assert_eq!(post.arrived(destination()).len(), usize::from(number) + 1);
    }
    assert_eq!(post.arrived(resolved).len(), 0);
    post.house.serve_questions(usize::MAX);
    post.house.quiesce();
    let first: Vec<Vec<u8>> = (0..16).map(|number| vec![number]).collect();
    assert_eq!(
        post.arrived(resolved),
        first,
        "as many as are kept, in order"
    );
    let nowhere = Address::Name {
        host: "nowhere.test".into(),
        port: 53,
    };
    post.pass_on(client(3), nowhere, b"x");
    post.house.serve_questions(usize::MAX);
    post.house.quiesce();
    let answers = post.arrived(client(3));
    let asked = post.asked.get_mut(&client(3)).unwrap();
    let answer = asked.open(&key_of(1), &answers[0]).unwrap();
    assert_eq!(answer.response.code, Code::Resolve);
}

#[test]
fn who_shows_no_key_no_time_or_an_old_header_gets_no_answer() {
    let mut post = Post::new(1, |_| {});
    let (stamp, to) = (post.stamp(), Address::Socket(destination()));
    let wrong = post.packet(client(1), &key_of(2), stamp, to.clone());
    let stale = post.packet(client(1), &key_of(1), stamp - 31_000, to.clone());
    let good = post.packet(client(1), &key_of(1), stamp, to);
    let mut bent = good.clone();
    bent[40] ^= 1;
    post.throw(client(1), &good);
    assert_eq!(post.arrived(destination()).len(), 1);
    for packet in [&wrong, &stale, &good, &bent, &good[..30].to_vec(), &vec![]] {
        post.throw(client(1), packet);
        post.throw(client(2), packet);
    }
    assert_eq!(post.arrived(destination()).len(), 1);
    assert_eq!(post.house.world.borrow().air.ports[0].sent.len(), 0);
    let counted = |metric| post.house.counters.get(metric);
    assert_eq!(counted(Metric::DatagramsDenied), 12);
    assert_eq!(counted(Metric::Unlogged), 0, "the second is not over");
    post.wait(Duration::from_secs(31));
    let left_out = post.house.counters.get(Metric::Unlogged);
    assert_eq!(left_out, 0, "there were no more than four of a kind");
    for _ in 0..50 {
        post.throw(client(1), &wrong);
    }
    post.wait(Duration::from_secs(31));
    assert_eq!(post.house.counters.get(Metric::Unlogged), 46);
}

/// Carries what was sent in any house to whom it was sent; the destination sends everything back.
pub fn fly(street: &mut Street, seen: &mut HashMap<(usize, usize), usize>) {
    for here in 0..street.houses.len() {
        let sent: Vec<_> = {
            let world = street.houses[here].world.borrow();
            let ports = world.air.ports.iter().enumerate();
            let new = ports.flat_map(|(number, port)| {
                let known = seen.insert((here, number), port.sent.len());
                let new = port.sent[known.unwrap_or(0)..].to_vec();
                new.into_iter().map(move |one| (number, port.address, one))
            });
            new.collect()
        };
        for (number, address, one) in sent {
            let hop = (1..street.houses.len()).find(|&house| hop_at(house) == one.peer);
            let back = one.peer.ip().to_string();
            let back = (0..street.houses.len()).find(|house| back == format!("10.2.{house}.1"));
            let (there, from, to) = match (hop, back) {
                (Some(there), _) => {
                    let from = SocketAddr::from(([10, 2, here as u8, 1], number as u16));
                    (there, from, main())
                }
                (_, Some(there)) => {
                    let port = usize::from(one.peer.port());
                    let to = street.houses[there].world.borrow().air.ports[port].address;
                    (there, hop_at(here), to)
                }
                _ if one.peer == destination() => (here, destination(), address),
                _ => continue,
            };
            let world = street.houses[there].world.clone();
            world.borrow_mut().throw(from, to, &one.payload);
        }
    }
    for house in &mut street.houses {
        house.world.borrow_mut().land(usize::MAX);
        house.quiesce();
    }
}

#[test]
fn datagrams_come_back_through_a_chain_whole_and_to_whom_they_belong() {
    seeds(24, |seed| {
        let hops = 1 + seed as usize % 3;
        let (is_sealed, loss) = (seed % 2 == 0, [0, 15][seed as usize / 6 % 2]);
        let houses: Vec<usize> = (1..=hops).collect();
        let access = access(AccessProtocol::Udp, vec![chain_of(&houses, is_sealed)]);
        let mut street = Street::new(seed, hops, access, |config| {
            config.udp_idle_timeout = IDLE;
        });
        for house in &mut street.houses {
            house.listen_datagrams().unwrap();
            house.settle();
            house.world.borrow_mut().air.loss = loss;
        }
        let mut seen = HashMap::new();
        let mut sent = Vec::new();
        for round in 0..40_u8 {
            let who = client(street.random.below(4) as u8);
            let count = street.random.below(1200);
            let mut payload = street.random.bytes(count);
            payload.push(round);
            let world = street.houses[0].world.clone();
            world.borrow_mut().throw(who, main(), &payload);
            sent.push((who, payload));
            for _ in 0..2 * hops + 4 {
                fly(&mut street, &mut seen);
            }
        }
        let came: Vec<_> = {
            let world = street.houses[0].world.borrow();
            let all = world.air.ports[0].sent.iter();
            all.map(|one| (one.peer, one.payload.clone())).collect()
        };
        assert!(
            came.iter().all(|one| sent.contains(one)),
            "altered, or another's"
        );
        match loss {
            0 => assert_eq!(came, sent),
            _ => assert!(came.len() > 2 && came.len() < sent.len(), "{}", came.len()),
        }
        street.pass(IDLE * 2);
        for house in &street.houses {
            assert_eq!(house.worker.holdings().sockets, 0, "flows are left");
        }
    });
}

pub fn client(number: u8) -> SocketAddr {
    ([10, 7, 0, number], 4000).into()
}

/// Where all listen for datagrams.
pub fn main() -> SocketAddr {
    ([10, 0, 0, 1], 7200).into()
}

const IDLE: Duration = Duration::from_secs(4);
