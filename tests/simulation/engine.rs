//! The engine alone, under sessions made for the test: relays in both directions, panics, accept
//! errors, used-up budgets, draining.

use std::net::SocketAddr;
use std::time::Duration;

use towpath::config::Way;
use towpath::net::ConnKey;
use towpath::session::{Cause, Close, Cx, Event, Seat, Session};
use towpath::stats::Metric;

use super::house::{House, IDLE, Shape};
use super::seeds;

/// Dials one backend and relays; `P` as the first byte makes it panic.
#[derive(Default)]
struct Plain {
    client: Option<ConnKey>,
}

impl Session for Plain {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Accepted { conn, .. } => self.client = Some(conn),
            Event::Data { rx, .. } if self.client.is_some() && rx.head()[0] == b'P' => {
                panic!("as the test asked")
            }
            Event::Data { .. } => {
                let to: SocketAddr = "10.9.0.1:80".parse().unwrap();
                cx.connect(to, Duration::from_secs(5), 1);
            }
            Event::Connected { conn, .. } => cx.relay(self.client.unwrap(), conn),
            Event::Refused { .. } => return Err(Close::upstream(Cause::Unreachable("refused"))),
            Event::Lost { why, .. } => return Err(Close::downstream(Cause::Io("test", why))),
            Event::Eof { .. } | Event::Relayed(_) => return Err(Close::finished()),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, _: &mut String) {}
}

struct PlainSeat;

impl Seat for PlainSeat {
    fn accept(&mut self, _: usize) -> Box<dyn Session> {
        Box::<Plain>::default()
    }
}

/// A house whose every session relays to one backend.
pub fn house(seed: u64, shape: Shape) -> House {
    House::new(seed, shape, |_, _| Box::new(PlainSeat))
}

/// A pair whose client has sent `first`; the ids of both sockets.
pub fn pair(house: &mut House, first: &[u8]) -> (usize, usize) {
    let client = house.world.borrow_mut().connect();
    house.world.borrow_mut().send(client, first);
    house.settle();
    let backend = house.world.borrow().sockets.len() - 1;
    house.world.borrow_mut().settle_dial(backend, true);
    house.settle();
    (client, backend)
}

/// Both ends send, read, stall and end at random; every byte arrives, in order, both ways.
#[test]
fn a_relay_loses_nothing_whatever_the_pieces_and_stalls() {
    seeds(150, |seed| {
        let shape = Shape {
            way: [Way::Auto, Way::Copy, Way::Splice][seed as usize % 3],
            ..Shape::default()
        };
        let mut house = house(seed, shape);
        let (client, backend) = pair(&mut house, b"-");
        // From here on some pipes cannot be made.
        house.world.borrow_mut().failures = 30;
        let mut sent = [b"-".to_vec(), Vec::new()];
        let ends = [client, backend];
        let mut ended = [false; 2];
        for _ in 0..400 {
            {
                let mut world = house.world.borrow_mut();
                let side = world.random.below(2);
                match world.random.below(10) {
                    0..3 if !ended[side] => {
                        let count = world.random.below(30_000);
                        let bytes = world.random.bytes(count);
                        world.send(ends[side], &bytes);
                        sent[side].extend(bytes);
                    }
                    3..6 => {
                        let most = world.random.below(20_000);
                        world.deliver(ends[side], most);
                    }
                    6..9 => {
                        let most = world.random.below(8_000);
                        world.receive(ends[side], most);
                    }
                    9 if world.random.chance(3) => {
                        world.end(ends[side]);
                        ended[side] = true;
                    }
                    _ => {}
                }
            }
            house.turn();
        }
        for end in ends {
            house.world.borrow_mut().end(end);
        }
        house.settle();
        {
            let world = house.world.borrow();
            assert!(world.sockets[backend].received == sent[0], "to the backend");
            assert!(world.sockets[client].received == sent[1], "to the client");
            assert!(!world.sockets[client].aborted && !world.sockets[backend].aborted);
        }
        house.assert_empty();
    });
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    seeds(20, |seed| {
        let mut house = house(seed, Shape::default());
        let (client, backend) = pair(&mut house, b"question");
        house.world.borrow_mut().end(client);
        house.settle();
        assert!(
            house.world.borrow().sockets[backend].shut,
            "the end was passed on"
        );
        assert!(!house.world.borrow().sockets[client].shut);
        let answer = vec![7; 100_000];
        house.world.borrow_mut().send(backend, &answer);
        house.settle();
        house.world.borrow_mut().end(backend);
        house.settle();
        assert!(house.world.borrow().sockets[client].received == answer);
        house.assert_empty();
    });
}

#[test]
fn a_reset_of_one_end_is_a_reset_of_the_other() {
    seeds(50, |seed| {
        for side in 0..2 {
            let mut house = house(seed, Shape::default());
            let (client, backend) = pair(&mut house, b"-");
            let ends = [client, backend];
            house.world.borrow_mut().send(ends[1 - side], &[1; 50_000]);
            house.turn();
            house.world.borrow_mut().reset(ends[side]);
            house.settle();
            assert!(house.world.borrow().sockets[ends[1 - side]].aborted);
            house.assert_empty();
        }
    });
}

#[test]
fn an_idle_pair_ends_after_the_idle_timeout_and_an_active_one_does_not() {
    let mut house = house(1, Shape::default());
    let (client, backend) = pair(&mut house, b"-");
    for _ in 0..5 {
        let until = house.now + IDLE / 2;
        while house.now < until {
            house.pass(until - house.now);
        }
        assert_eq!(house.worker.sessions(), 1);
        house.world.borrow_mut().send(backend, b"alive");
        house.settle();
    }
    let until = house.now + IDLE + Duration::from_secs(1);
    while house.now < until {
        house.pass(until - house.now);
    }
    assert_eq!(
        house.world.borrow().sockets[client].received,
        b"alivealivealivealivealive"
    );
    house.assert_empty();
}

#[test]
fn a_panic_ends_its_own_session_alone() {
    let mut house = house(1, Shape::default());
    let (client, backend) = pair(&mut house, b"-");
    let bad = house.world.borrow_mut().connect();
    house.world.borrow_mut().send(bad, b"P");
    house.settle();
    assert!(house.world.borrow().sockets[bad].closed);
    assert_eq!(house.counters.get(Metric::Panicked), 1);
    house.world.borrow_mut().send(client, b"still here");
    house.settle();
    assert_eq!(
        house.world.borrow().sockets[backend].received,
        b"-still here"
    );
}

#[test]
fn accept_errors_make_the_listener_rest_and_never_spin() {
    for code in [
        libc_code::EMFILE,
        libc_code::ENFILE,
        libc_code::ENOBUFS,
        libc_code::ENOMEM,
        libc_code::ECONNABORTED,
    ] {
        let mut house = house(1, Shape::default());
        house.world.borrow_mut().accept_errors = vec![code; 1000].into();
        let client = house.world.borrow_mut().connect();
        house.settle();
        let start = house.now;
        while house.now < start + Duration::from_secs(10) {
            house.pass(Duration::from_secs(1));
        }
        let calls = house.world.borrow().accept_calls;
        // A broken connection says nothing about the next one, so a few are tried in a row.
        let most = match code {
            libc_code::ECONNABORTED => 1000,
            _ => 60,
        };
        assert!(calls <= most, "{calls} accepts in ten seconds");
        house.world.borrow_mut().accept_errors.clear();
        let start = house.now;
        while house.now < start + Duration::from_secs(1) {
            house.pass(Duration::from_secs(1));
        }
        house.world.borrow_mut().send(client, b"P");
        house.settle();
        assert!(
            house.world.borrow().sockets[client].closed,
            "served after all"
        );
    }
}

#[test]
fn errors_of_one_connection_do_not_stop_the_next_ones() {
    let mut house = house(1, Shape::default());
    house.world.borrow_mut().accept_errors =
        vec![libc_code::ECONNABORTED, libc_code::EPROTO].into();
    let (_, _) = pair(&mut house, b"-");
    assert_eq!(house.worker.sessions(), 1);
    assert_eq!(house.counters.get(Metric::Rested), 0);
}

#[test]
fn at_the_cap_clients_wait_and_are_served_when_a_place_is_free() {
    let shape = Shape {
        most: 1,
        ..Shape::default()
    };
    let mut house = house(1, shape);
    let (first, backend) = pair(&mut house, b"-");
    let second = house.world.borrow_mut().connect();
    house.world.borrow_mut().send(second, b"P");
    house.settle();
    assert!(!house.world.borrow().sockets[second].closed);
    house.world.borrow_mut().end(first);
    house.world.borrow_mut().end(backend);
    house.settle();
    assert!(
        house.world.borrow().sockets[second].closed,
        "served without a timer"
    );
    house.assert_empty();
}

/// Many pairs with a pool of a few blocks: whoever finds it used up waits, and nothing is lost.
#[test]
fn a_used_up_budget_pauses_reading_and_loses_nothing() {
    seeds(20, |seed| {
        let shape = Shape {
            buffer_memory: 0,
            ..Shape::default()
        };
        let mut house = house(seed, shape);
        let pairs: Vec<_> = (0..40).map(|_| pair(&mut house, b"-")).collect();
        let payload = house.world.borrow_mut().random.bytes(60_000);
        for &(client, _) in &pairs {
            let mut world = house.world.borrow_mut();
            world.send(client, &payload);
            world.end(client);
        }
        for round in 0..4_000 {
            {
                let mut world = house.world.borrow_mut();
                let (client, backend) = pairs[world.random.below(pairs.len())];
                world.deliver(client, 10_000);
                // The first half of the time nobody reads.
                if round > 2_000 {
                    world.receive(backend, 3_000);
                }
            }
            house.turn();
        }
        house.settle();
        for &(client, backend) in &pairs {
            let mut world = house.world.borrow_mut();
            assert!(
                world.sockets[backend].received[1..] == payload,
                "pair of {client}"
            );
            world.end(backend);
        }
        house.settle();
        house.assert_empty();
    });
}

#[test]
fn draining_ends_when_the_last_session_does_or_its_time_is_up() {
    for patient in [true, false] {
        let mut house = house(1, Shape::default());
        let (client, backend) = pair(&mut house, b"-");
        house.phase.drain();
        house.turn();
        assert!(!house.worker.is_done());
        house.world.borrow_mut().send(backend, b"last words");
        house.settle();
        assert_eq!(house.world.borrow().sockets[client].received, b"last words");
        if patient {
            house.world.borrow_mut().end(client);
            house.world.borrow_mut().end(backend);
            house.settle();
        } else {
            let until = house.now + super::house::DRAIN + Duration::from_secs(1);
            while house.now < until {
                house.pass(until - house.now);
            }
        }
        assert!(house.worker.is_done());
    }
}

/// Error numbers as Linux has them.
mod libc_code {
    pub const ENFILE: i32 = 23;
    pub const EMFILE: i32 = 24;
    pub const ENOMEM: i32 = 12;
    pub const ECONNABORTED: i32 = 103;
    pub const ENOBUFS: i32 = 105;
    pub const EPROTO: i32 = 71;
}
