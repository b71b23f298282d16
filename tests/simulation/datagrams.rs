//! Datagrams in the simulated world: an echo under loss, overtaking, refused trains and a system
//! without room; and what becomes of a listener when its session fails or the server stops.
//!
//! What landed is known, so a model says to the byte what must have been sent, by which port and in
//! which order; what is missing must have been counted.

mod flows;

use std::net::SocketAddr;
use std::time::Duration;

use towpath::net::SocketKey;
use towpath::session::{Cause, Close, Cx, Event, Seat, Session};
use towpath::stats::Metric;

use super::house::{House, Shape};
use super::seeds;
use super::world::Random;
use super::world::datagrams::Datagram;

const MAIN: &str = "10.0.0.1:7200";

/// Sends everything back, whole trains or datagram by datagram. Payload that begins with `P` makes
/// it panic, with `E` end, with `M` say it many times over.
struct Echo {
    main: Option<SocketKey>,
    by_one: bool,
    /// It ends as soon as it begins.
    is_doomed: bool,
}

impl Session for Echo {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Bound { socket, address } => {
                assert_eq!(address, MAIN.parse().unwrap());
                self.main = Some(socket);
                match self.is_doomed {
                    true => Err(Close::own(Cause::Overload("test"))),
                    false => Ok(()),
                }
            }
            Event::Datagrams { socket, train } => {
                assert_eq!(Some(socket), self.main);
                match train.payload.first() {
                    Some(b'P') => panic!("as the test asked"),
                    Some(b'E') => return Err(Close::finished()),
                    Some(b'M') => {
                        for _ in 0..100 {
                            cx.datagram(socket, Some(train.from), &[train.payload]);
                        }
                    }
                    _ if self.by_one => {
                        for datagram in train.datagrams() {
                            let cut = datagram.len() / 3;
                            let parts = [&datagram[..cut], &datagram[cut..]];
                            cx.datagram(socket, Some(train.from), &parts);
                        }
                    }
                    _ => cx.train(socket, Some(train.from), &train),
                }
                Ok(())
            }
            Event::Stopping => Err(Close::own(Cause::Stopping)),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn describe(&self, _: &mut String) {}
}

struct EchoSeat {
    by_one: bool,
    is_doomed: bool,
}

impl Seat for EchoSeat {
    fn accept(&mut self, _: usize) -> Box<dyn Session> {
        panic!("nobody connects")
    }

    fn datagrams(&mut self, listener: usize) -> Option<Box<dyn Session>> {
        let Self { by_one, is_doomed } = *self;
        (listener == 1).then(|| {
            Box::new(Echo {
                main: None,
                by_one,
                is_doomed,
            }) as _
        })
    }
}

fn echo(seed: u64, is_doomed: bool) -> House {
    let by_one = seed.is_multiple_of(2);
    let seat = move |_, _| Box::new(EchoSeat { by_one, is_doomed }) as _;
    let mut house = House::new(seed, Shape::default(), seat);
    house.world.borrow_mut().air.longest_segment = usize::MAX;
    house.listen_datagrams().unwrap();
    house
}

fn peer(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 2, 0, 1 + number as u8], 4_000))
}

/// A payload of a length that often comes again, as trains need.
fn payload(random: &mut Random, number: u32) -> Vec<u8> {
    let len = [0, 1, 40, 40, 40, 1_200, 1_200, 1_200, 65_507][random.below(9)];
    let mut payload = vec![b'a'; len];
    let tag = number.to_be_bytes().map(|byte| byte | 0x80);
    let at = len.saturating_sub(tag.len());
    payload[at..].copy_from_slice(&tag[..len.min(tag.len())]);
    payload
}

fn counted(house: &House) -> [u64; 3] {
    let metrics = [
        Metric::DatagramsIn,
        Metric::DatagramsOut,
        Metric::DatagramsDropped,
    ];
    metrics.map(|metric| house.counters.get(metric))
}

/// True when `part` is `whole` with some left out.
fn is_part(part: &[Datagram], whole: &[Datagram]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|one| rest.any(|other| other == one))
}

fn landed(house: &House, port: usize) -> Vec<Datagram> {
    let world = house.world.borrow();
    let landed = world.air.landed.iter().filter(|(at, _)| *at == port);
    landed.map(|(_, datagram)| datagram.clone()).collect()
}

#[test]
fn an_echo_loses_nothing_uncounted_and_keeps_the_order() {
    seeds(60, |seed| {
        let mut house = echo(seed, false);
        let mut random = Random::new(seed ^ 0xec40);
        {
            let air = &mut house.world.borrow_mut().air;
            air.loss = [0, 10][seed as usize % 2];
            air.blocking = [0, 0, 5][seed as usize % 3];
            air.longest_segment = [usize::MAX, 1_000, 0][seed as usize / 3 % 3];
        }
        let to = MAIN.parse().unwrap();
        for number in 0..600 {
            let (from, payload) = (peer(random.below(3)), payload(&mut random, number));
            house.world.borrow_mut().throw(from, to, &payload);
            if random.chance(10) {
                let most = random.below(80);
                house.world.borrow_mut().land(most);
                house.turn();
            }
        }
        house.world.borrow_mut().land(usize::MAX);
        house.quiesce();
        let landed = landed(&house, 0);
        let sent = house.world.borrow().air.ports[0].sent.clone();
        let [received, out, dropped] = counted(&house);
        assert_eq!(received, landed.len() as u64);
        assert_eq!(out, sent.len() as u64);
        assert_eq!(out + dropped, received, "every one is sent or counted");
        assert!(is_part(&sent, &landed), "other bytes, or another order");
        assert!(dropped == 0 || house.world.borrow().air.blocking > 0);
        house.phase.drain();
        house.turn();
        assert!(house.worker.is_done());
        assert_eq!(house.worker.sessions(), 0);
        assert!(house.world.borrow().air.ports[0].closed);
    });
}

#[test]
fn trains_spare_calls() {
    let calls = |longest_segment, len: usize| {
        let mut house = echo(2, false);
        house.world.borrow_mut().air.longest_segment = longest_segment;
        for _ in 0..512 {
            let mut world = house.world.borrow_mut();
            world.throw(peer(0), MAIN.parse().unwrap(), &vec![b'a'; len]);
        }
        house.world.borrow_mut().land(usize::MAX);
        house.quiesce();
        assert_eq!(counted(&house), [512, 512, 0]);
        house.world.borrow().air.calls[1]
    };
    assert_eq!(calls(usize::MAX, 100), 1, "all in one call");
    let single = calls(0, 100);
    assert!((16..=20).contains(&single), "{single} calls for 16 batches");
}

/// What can never be sent is dropped and counted, and what follows it is sent.
#[test]
fn one_call_of_a_session_that_says_too_much_is_cut() {
    let mut house = echo(1, false);
    let long = [b"M".to_vec(), vec![7; 60_000]].concat();
    let to = MAIN.parse().unwrap();
    house.world.borrow_mut().throw(peer(0), to, &long);
    house.world.borrow_mut().throw(peer(1), to, b"short");
    house.world.borrow_mut().land(2);
    house.quiesce();
    let [_, out, dropped] = counted(&house);
    assert_eq!(out + dropped, 101);
    assert!((30..60).contains(&dropped), "{dropped} of 100");
    let sent = house.world.borrow().air.ports[0].sent.clone();
    assert!(sent.iter().any(|one| one.payload == b"short"));
}

/// What waits to leave is bounded for one call, so it leaves between the calls when it is much.
#[test]
fn calls_that_say_much_one_after_the_other_lose_nothing() {
    let mut house = echo(1, false);
    for len in [25_000, 30_000, 35_000] {
        let long = [b"M".to_vec(), vec![7; len]].concat();
        let mut world = house.world.borrow_mut();
        world.throw(peer(0), MAIN.parse().unwrap(), &long);
    }
    house.world.borrow_mut().land(3);
    house.turn();
    assert_eq!(counted(&house), [3, 300, 0]);
}

/// What a session leaves behind in a batch that was taken for it is lost, and counted.
#[test]
fn the_rest_of_a_batch_goes_nowhere_when_its_session_ends() {
    let mut house = echo(1, false);
    for said in [&b"E"[..], b"after", b"afterwards"] {
        let mut world = house.world.borrow_mut();
        world.throw(peer(0), MAIN.parse().unwrap(), said);
        world.land(1);
    }
    house.turn();
    assert_eq!(counted(&house), [3, 0, 2]);
}

#[test]
fn a_flood_of_empty_datagrams_takes_its_share_and_no_more() {
    let mut house = echo(1, false);
    for _ in 0..5_000 {
        let mut world = house.world.borrow_mut();
        world.throw(peer(0), MAIN.parse().unwrap(), b"");
    }
    house.world.borrow_mut().land(usize::MAX);
    house.turn();
    let [first, _, _] = counted(&house);
    assert_eq!(first, 512, "in one turn");
    house.quiesce();
    assert_eq!(counted(&house), [5_000, 5_000, 0]);
    // Memory that nobody needs any more is given back, and then no timer is left.
    house.wait(house.now + Duration::from_secs(5));
    assert_eq!(house.worker.rest(), None);
}

#[test]
fn a_datagram_that_was_cut_is_dropped_and_counted() {
    let mut house = echo(1, false);
    let to = MAIN.parse().unwrap();
    for len in [10, 65_537, 11] {
        house
            .world
            .borrow_mut()
            .throw(peer(0), to, &vec![b'a'; len]);
        house.world.borrow_mut().land(1);
    }
    house.quiesce();
    let world = house.world.borrow();
    let sent = world.air.ports[0].sent.iter().map(|one| one.payload.len());
    assert_eq!(sent.collect::<Vec<_>>(), [10, 11]);
    assert_eq!(counted(&house), [3, 2, 1]);
}

#[test]
fn a_session_that_fails_is_replaced_and_its_port_stays() {
    seeds(4, |seed| {
        let mut house = echo(seed, false);
        let to = MAIN.parse().unwrap();
        let mut served = 0;
        for fault in [&b"P"[..], b"E", b"P"] {
            for payload in [b"before", fault] {
                house.world.borrow_mut().throw(peer(0), to, payload);
                house.world.borrow_mut().land(1);
                house.quiesce();
            }
            assert_eq!(house.worker.sessions(), 0);
            house.world.borrow_mut().throw(peer(0), to, b"after");
            house.world.borrow_mut().land(1);
            house.quiesce();
            served += 2;
            assert_eq!(counted(&house)[1], served - 1, "nobody is there yet");
            house.wait(house.now + Duration::from_millis(50));
            assert_eq!(house.worker.sessions(), 1);
            assert_eq!(counted(&house)[1], served, "what waited is served");
        }
        assert_eq!(house.counters.get(Metric::Panicked), 2);
        assert!(!house.world.borrow().air.ports[0].closed);
    });
}

#[test]
fn a_session_that_always_fails_costs_little_and_ends_with_the_server() {
    let mut house = echo(1, true);
    let end = house.now + Duration::from_secs(1);
    let mut turns = 0;
    while house.now < end {
        house.pass(end - house.now);
        turns += 1;
    }
    let ended = house.counters.get(Metric::Ended);
    assert!((20..=100).contains(&ended), "{ended} sessions a second");
    assert!(turns < 300, "{turns} turns a second");
    house.phase.drain();
    house.turn();
    assert!(house.worker.is_done());
    house.wait(house.now + Duration::from_secs(5));
    assert!(house.world.borrow().air.ports[0].closed);
}

#[test]
fn a_service_that_takes_no_datagrams_is_told_at_the_start() {
    let mut house = super::engine::house(1, Shape::default());
    assert!(house.listen_datagrams().is_err());
    assert!(house.world.borrow().air.ports[0].closed);
    house.turn();
    house.assert_empty();
}
