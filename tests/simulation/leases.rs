//! Leases under sessions made for the test: whatever becomes of a session, what it held runs out,
//! and no port is with two owners.

use std::collections::HashMap;
use std::time::Duration;

use towpath::control::leases::{Lease, Pool};
use towpath::control::{Command, Reply};
use towpath::net::ConnKey;
use towpath::session::{Cause, Close, Cx, Event, Seat, Session};

use super::house::{House, Shape};
use super::seeds;

const LEASE: Duration = Duration::from_secs(60);
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=20_003;

/// Asks for a port for each byte that comes in, as that owner. `P` makes it panic, `E` end.
#[derive(Default)]
struct Lodger {
    client: Option<ConnKey>,
}

impl Session for Lodger {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Accepted { conn, .. } => self.client = Some(conn),
            Event::Data { rx, .. } => {
                while let Some(&byte) = rx.head().first() {
                    rx.consume(1);
                    match byte {
                        b'P' => panic!("as the test asked"),
                        b'E' => return Err(Close::finished()),
                        owner => cx.ask(u32::from(owner), lease(owner)),
                    }
                }
            }
            Event::Reply { ticket, reply } => {
                let line = match reply {
                    Reply::Leased(Lease { port, .. }) => format!("{ticket}={port} "),
                    Reply::NoPort(_) => format!("{ticket}=none "),
                    Reply::Superseded { .. } => format!("{ticket}=over "),
                    _ => format!("{ticket}=busy "),
                };
                cx.send(self.client.unwrap(), line.as_bytes());
            }
            Event::Lost { why, .. } => return Err(Close::downstream(Cause::Io("test", why))),
            Event::Eof { .. } => return Err(Close::finished()),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, _: &mut String) {}
}

fn lease(owner: u8) -> Command {
    Command::Lease {
        pool: "test",
        owner: [owner].into(),
        wanted: None,
    }
}

struct LodgerSeat;

impl Seat for LodgerSeat {
    fn accept(&mut self, _: usize) -> Box<dyn Session> {
        Box::<Lodger>::default()
    }
}

fn house(seed: u64, questions: usize) -> House {
    let shape = Shape {
        questions,
        ..Shape::default()
    };
    let mut house = House::new(seed, shape, |_, _| Box::new(LodgerSeat));
    let pool = Pool {
        name: "test",
        ports: PORTS,
        lease: LEASE,
    };
    house.control = house.control.lending(vec![pool], house.now, 1_700_000_000);
    house
}

/// What a client was told last of each owner.
fn told(house: &House, client: usize) -> HashMap<u32, String> {
    let world = house.world.borrow();
    let text = String::from_utf8_lossy(&world.sockets[client].received).into_owned();
    let words = text
        .split_whitespace()
        .map(|word| word.split_once('=').unwrap());
    words
        .map(|(owner, what)| (owner.parse().unwrap(), what.to_owned()))
        .collect()
}

/// Owners that nobody has seen before get all the ports there are.
fn assert_all_come_back(house: &mut House) {
    let client = house.world.borrow_mut().connect();
    for owner in b"wxyz" {
        house.world.borrow_mut().send(client, &[*owner]);
        house.settle();
    }
    let told = told(house, client);
    let mut ports: Vec<u16> = told.values().filter_map(|port| port.parse().ok()).collect();
    ports.sort_unstable();
    assert_eq!(ports, PORTS.collect::<Vec<u16>>(), "{told:?}");
}

/// Sessions end by the peer, by a panic, by themselves, before and after their answers, while the
/// control thread's box is full most of the time.
#[test]
fn whatever_becomes_of_a_session_its_ports_come_back() {
    seeds(60, |seed| {
        let mut house = house(seed, 2);
        let mut clients = Vec::new();
        for _ in 0..120 {
            {
                let mut world = house.world.borrow_mut();
                match world.random.below(8) {
                    0 | 1 => {
                        let client = world.connect();
                        clients.push(client);
                    }
                    2..5 if !clients.is_empty() => {
                        let at = world.random.below(clients.len());
                        let owner = b'a' + world.random.below(6) as u8;
                        world.send(clients[at], &[owner]);
                    }
                    5 | 6 if !clients.is_empty() => {
                        let at = world.random.below(clients.len());
                        let client = clients.swap_remove(at);
                        match world.random.below(3) {
                            0 => world.end(client),
                            1 => world.send(client, b"P"),
                            _ => world.send(client, b"E"),
                        }
                    }
                    _ => {}
                }
                world.rush();
            }
            house.turn();
            let most = house.world.borrow_mut().random.below(3);
            house.serve_questions(most);
        }
        for client in clients {
            house.world.borrow_mut().send(client, b"E");
        }
        house.settle();
        // What the control thread had no room for is told again.
        for _ in 0..200 {
            house.pass(Duration::from_millis(20));
            house.serve_questions(usize::MAX);
        }
        house.assert_empty();
        house.now += LEASE;
        house.serve_questions(usize::MAX);
        assert_all_come_back(&mut house);
    });
}

/// A held port stays; a newer session takes it over, and the end of the older one is nothing.
#[test]
fn the_end_of_a_superseded_session_changes_nothing() {
    let mut house = house(1, 100);
    let (old, new) = {
        let mut world = house.world.borrow_mut();
        (world.connect(), world.connect())
    };
    for client in [old, new] {
        house.world.borrow_mut().send(client, b"a");
        house.settle();
    }
    let a = u32::from(b'a');
    assert_eq!(told(&house, old)[&a], "over");
    assert_eq!(told(&house, new)[&a], "20000");
    house.world.borrow_mut().end(old);
    house.settle();
    house.now += LEASE * 2;
    let other = house.world.borrow_mut().connect();
    house.world.borrow_mut().send(other, b"bcde");
    house.settle();
    let told = told(&house, other);
    assert!(!told.values().any(|what| what == "20000"), "{told:?}");
    assert!(told.values().any(|what| what == "none"), "{told:?}");
}
