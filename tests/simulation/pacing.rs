//! Relays at a bandwidth limit, in virtual time: the rate, both ways and by copy and splice; pairs that
//! share a limit; and that whoever is not limited moves as ever.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use towpath::config::Way;
use towpath::net::{ConnKey, Throttle};
use towpath::session::{Close, Cx, Event, Seat, Session};
use towpath::stats::Metric;

use super::house::{House, Shape};
use super::seeds;

/// Dials one backend and relays, limited by what it is given.
struct Limited {
    throttles: Vec<Arc<Throttle>>,
    client: Option<ConnKey>,
}

impl Session for Limited {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Accepted { conn, .. } => {
                self.client = Some(conn);
                let to: SocketAddr = "10.9.0.1:80".parse().unwrap();
                cx.connect(to, Duration::from_secs(5), 1);
            }
            Event::Connected { conn, .. } => {
                let client = self.client.unwrap();
                if !self.throttles.is_empty() {
                    cx.pace(client, conn, self.throttles.clone());
                }
                cx.relay(client, conn);
            }
            Event::Relayed(relayed) => return Err(relayed.into()),
            Event::Lost { .. } => return Err(Close::finished()),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, _: &mut String) {}
}

/// What limits each session, by its turn.
struct Limits(Vec<Vec<Arc<Throttle>>>);

impl Seat for Limits {
    fn accept(&mut self, _: usize) -> Box<dyn Session> {
        Box::new(Limited {
            throttles: self.0.remove(0),
            client: None,
        })
    }
}

/// A house with a pair for each list of throttles; the sockets of each.
fn house(seed: u64, way: Way, throttles: &[Vec<Arc<Throttle>>]) -> (House, Vec<[usize; 2]>) {
    let shape = Shape {
        way,
        ..Shape::default()
    };
    let seat = Limits(throttles.to_vec());
    let mut house = House::new(seed, shape, |_, _| Box::new(seat));
    {
        let mut world = house.world.borrow_mut();
        world.send_room = 1 << 20;
        world.receive_room = 1 << 20;
        world.slot = 64 << 10;
    }
    let mut pairs = Vec::new();
    for _ in throttles {
        let client = house.world.borrow_mut().connect();
        house.settle();
        let backend = house.world.borrow().sockets.len() - 1;
        house.world.borrow_mut().settle_dial(backend, true);
        house.settle();
        pairs.push([client, backend]);
    }
    (house, pairs)
}

/// Keeps these sockets' peers sending for so long; what the other end of each has read.
fn flood(house: &mut House, ways: &[(usize, usize)], time: Duration) -> Vec<usize> {
    let chunk = vec![7; 256 << 10];
    let until = house.now + time;
    let read = |house: &House, to: usize| house.world.borrow().sockets[to].received.len();
    let before: Vec<_> = ways.iter().map(|(_, to)| read(house, *to)).collect();
    while house.now < until {
        for &(from, _) in ways {
            let mut world = house.world.borrow_mut();
            while world.sockets[from].undelivered() < chunk.len() {
                world.send(from, &chunk);
            }
            world.deliver(from, usize::MAX);
        }
        house.world.borrow_mut().rush();
        house.turn();
        // What is ready may be told a turn later.
        let left = until.saturating_duration_since(house.now);
        house.pass(left.min(Duration::from_millis(2)));
    }
    let after = ways.iter().map(|(_, to)| read(house, *to));
    after
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

/// That so many bytes are the rate over that time, within 5 %.
fn expect_rate(moved: usize, rate: u64, time: Duration, what: &str) {
    let ratio = moved as f64 / (rate as f64 * time.as_secs_f64());
    assert!((0.95..1.05).contains(&ratio), "{what}: {ratio} of the rate");
}

const RATE: u64 = 4_000_000;

#[test]
fn a_limited_relay_keeps_its_rate_both_ways_however_its_bytes_move() {
    seeds(1, |seed| {
        for way in [Way::Auto, Way::Copy, Way::Splice] {
            let throttle = Throttle::since(RATE, Instant::now());
            let (mut house, pairs) = house(seed, way, &[vec![throttle]]);
            let [client, backend] = pairs[0];
            let ways = [(client, backend), (backend, client)];
            let time = Duration::from_secs(3);
            let moved = flood(&mut house, &ways, time);
            for (moved, to) in moved.into_iter().zip(["backend", "client"]) {
                expect_rate(moved, RATE, time, &format!("{way:?} to the {to}"));
            }
            let spliced = house.world.borrow().spliced;
            let least = if way == Way::Copy { 0 } else { 15_000_000 };
            assert!(spliced >= least, "{way:?}: {spliced} bytes were spliced");
            assert!(way != Way::Copy || spliced == 0);
            assert!(house.counters.get(Metric::PaceWaits) > 0);
            end(&mut house, &pairs);
        }
    });
}

/// Both ends of all pairs finish; what was sent arrives, and nothing is left.
fn end(house: &mut House, pairs: &[[usize; 2]]) {
    for socket in pairs.iter().flatten() {
        house.world.borrow_mut().end(*socket);
    }
    // What lies in the sockets leaves at the rate, too.
    for _ in 0..200 {
        house.settle();
        house.wait(house.now + Duration::from_millis(20));
    }
    house.settle();
    house.assert_empty();
}

#[test]
fn pairs_of_one_limit_share_it_and_the_others_are_untouched() {
    seeds(1, |seed| {
        let throttle = Throttle::since(RATE, Instant::now());
        let mut throttles = vec![vec![throttle]; 5];
        throttles.push(Vec::new());
        let (mut house, pairs) = house(seed, Way::Auto, &throttles);
        let ways: Vec<_> = pairs.iter().map(|pair| (pair[0], pair[1])).collect();
        let time = Duration::from_secs(3);
        let moved = flood(&mut house, &ways, time);
        let (limited, free) = moved.split_at(5);
        expect_rate(limited.iter().sum(), RATE, time, "all five");
        for one in limited {
            let share = *one as f64 * 5.0 / (RATE as f64 * 3.0);
            assert!((0.8..1.2).contains(&share), "{limited:?}");
        }
        assert!(free[0] > 5 * RATE as usize, "{moved:?}");
        end(&mut house, &pairs);
    });
}

#[test]
fn of_two_limits_the_narrow_one_decides() {
    seeds(1, |seed| {
        let start = Instant::now();
        let (wide, narrow) = (
            Throttle::since(RATE, start),
            Throttle::since(RATE / 4, start),
        );
        let throttles = [vec![Arc::clone(&wide), narrow], vec![wide]];
        let (mut house, pairs) = house(seed, Way::Auto, &throttles);
        let ways: Vec<_> = pairs.iter().map(|pair| (pair[0], pair[1])).collect();
        let time = Duration::from_secs(4);
        let moved = flood(&mut house, &ways, time);
        expect_rate(moved[0], RATE / 4, time, "the narrow one");
        expect_rate(moved.iter().sum(), RATE, time, "both");
        end(&mut house, &pairs);
    });
}

/// Pairs that break while they wait for their limit leave neither a timer nor a debt.
#[test]
fn a_pair_that_breaks_while_it_waits_leaves_nothing() {
    seeds(5, |seed| {
        let throttle = Throttle::since(RATE / 4, Instant::now());
        let throttles = vec![vec![throttle]; 4];
        let (mut house, pairs) = house(seed, Way::Auto, &throttles);
        let ways: Vec<_> = pairs.iter().map(|pair| (pair[0], pair[1])).collect();
        flood(&mut house, &ways, Duration::from_millis(300));
        for pair in &pairs[1..] {
            let side = house.world.borrow_mut().random.below(2);
            house.world.borrow_mut().reset(pair[side]);
        }
        // A reset stands behind the bytes that came before it, whose turn comes.
        for _ in 0..10 {
            house.wait(house.now + Duration::from_millis(200));
            house.settle();
        }
        assert_eq!(house.worker.holdings().links, 1);
        let time = Duration::from_secs(2);
        let moved = flood(&mut house, &ways[..1], time);
        expect_rate(moved[0], RATE / 4, time, "the one that is left");
        end(&mut house, &pairs[..1]);
    });
}
