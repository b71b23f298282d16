//! Destinations that refuse, where a listener has several: they are passed over for a while, by streams
//! and by flows of datagrams that are under way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use towpath::protocols::chain::AccessProtocol;
use towpath::stats::Metric;

use super::datagrams::{client, fly, main};
use super::street::{Fate, Street, access, chain_of, target};

/// A street of so many hops to two destinations.
fn fork(hops: usize, protocol: AccessProtocol, early_data: bool) -> Street {
    let houses: Vec<usize> = (1..=hops).collect();
    let mut access = access(protocol, vec![chain_of(&houses, false)]);
    access.to = [first(), second()].map(target).into();
    access.early_data = early_data;
    let mut street = Street::new(1, hops, access, |_| {});
    if protocol == AccessProtocol::Udp {
        for house in &mut street.houses {
            house.listen_datagrams().unwrap();
            house.settle();
        }
    }
    street
}

/// Datagrams of clients on such a street.
struct Post {
    street: Street,
    seen: HashMap<(usize, usize), usize>,
    hops: usize,
}

impl Post {
    fn new(hops: usize) -> Self {
        Self {
            street: fork(hops, AccessProtocol::Udp, false),
            seen: HashMap::new(),
            hops,
        }
    }

    /// A client sends a datagram, which goes as far as it gets.
    fn say(&mut self, who: u8, word: &[u8]) {
        let world = self.street.houses[0].world.clone();
        world.borrow_mut().throw(client(who), main(), word);
        self.carry();
    }

    fn carry(&mut self) {
        for _ in 0..2 * (self.hops + 1) {
            fly(&mut self.street, &mut self.seen);
        }
    }

    /// What a destination got.
    fn at(&self, destination: SocketAddr) -> Vec<Vec<u8>> {
        let world = self.street.houses[self.hops].world.borrow();
        let sent = world.air.ports.iter().flat_map(|port| &port.sent);
        let there = sent.filter(|one| one.peer == destination);
        there.map(|one| one.payload.clone()).collect()
    }

    /// A destination refuses what the latest socket has sent there.
    fn refuse(&mut self, destination: SocketAddr) {
        let world = self.street.houses[self.hops].world.clone();
        let port = {
            let world = world.borrow();
            let mut ports = world.air.ports.iter();
            ports.rposition(|port| port.connected == Some(destination) && !port.closed)
        };
        world.borrow_mut().bounce(port.expect("somebody has sent"));
        self.carry();
    }
}

#[test]
fn a_flow_leaves_a_destination_that_refuses_and_others_pass_it_over() {
    for hops in 0..=3 {
        let mut post = Post::new(hops);
        post.say(1, b"lost");
        assert_eq!(post.at(first()), [b"lost"], "{hops} hops");
        post.refuse(first());
        post.say(1, b"next");
        post.say(1, b"more");
        assert_eq!(post.at(second()), [b"next", b"more"], "{hops} hops");
        for who in 2..6 {
            post.say(who, b"new");
        }
        assert_eq!(post.at(second()).len(), 6, "{hops} hops");
        post.street.houses[0].now += Duration::from_secs(5);
        for who in 10..12 {
            post.say(who, b"rested");
        }
        assert_eq!(post.at(first()), [&b"lost"[..], b"rested"], "{hops} hops");
        post.say(1, b"stays");
        assert!(post.at(second()).contains(&b"stays".to_vec()));
        let counters = &post.street.houses[0].counters;
        assert_eq!(counters.get(Metric::DatagramsRefused), 1, "{hops} hops");
    }
}

#[test]
fn a_flow_stays_where_every_destination_refuses() {
    for hops in 0..=2 {
        let mut post = Post::new(hops);
        post.say(1, b"one");
        post.refuse(first());
        post.say(1, b"two");
        post.refuse(second());
        let sockets = post.street.houses[0].world.borrow().air.ports.len();
        for _ in 0..5 {
            post.say(1, b"three");
            post.refuse(second());
        }
        assert_eq!(post.at(first()).len(), 1, "{hops} hops");
        assert_eq!(post.at(second()).len(), 6, "{hops} hops");
        let after = post.street.houses[0].world.borrow().air.ports.len();
        assert_eq!(after, sockets, "no flow more");
    }
}

/// How often the last hop has dialled somebody.
fn dials(street: &Street, hops: usize, to: SocketAddr) -> usize {
    let world = street.houses[hops].world.borrow();
    let there = world.sockets.iter().filter(|socket| socket.peer == to);
    there.count()
}

/// The client whose early data may have arrived ends; the next ones are not led there for a while.
#[test]
fn a_destination_that_refuses_behind_hops_is_dialled_once_in_a_while() {
    for (hops, early_data) in [(1, true), (1, false), (3, true), (3, false)] {
        let mut street = fork(hops, AccessProtocol::Tcp, early_data);
        street.refusing.push(first());
        let mut served = 0;
        for number in 0..5 {
            let client = (0, street.client());
            street.send(client, b"hello");
            street.settle();
            if early_data && number == 0 {
                assert_eq!(street.fate(client), Fate::Ended);
                street.end(client);
                street.pass(Duration::from_secs(3));
                continue;
            }
            let reached = street.reached[served];
            served += 1;
            assert_eq!(street.received(reached), b"hello");
            street.end(client);
            street.end(reached);
            street.settle();
        }
        assert_eq!(dials(&street, hops, first()), 1, "{hops} {early_data}");
        street.refusing.clear();
        street.pass(Duration::from_secs(5));
        for _ in 0..2 {
            let client = (0, street.client());
            street.settle();
            street.end(client);
            let reached = *street.reached.last().unwrap();
            street.end(reached);
            street.settle();
        }
        assert_eq!(dials(&street, hops, first()), 2, "it has rested");
    }
}

fn first() -> SocketAddr {
    ([10, 9, 9, 1], 80).into()
}

fn second() -> SocketAddr {
    ([10, 9, 9, 2], 80).into()
}
