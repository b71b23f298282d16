//! Bulk in the simulated world: the switch between ring and pipe at every byte around it, pipes that
//! are full, used up or not to be had, and pairs that end or break while a pipe holds bytes.
//!
//! Sockets hold the last bytes of a splice back until they are pushed or followed, as the kernel
//! does, and time stands still while a house settles: a byte that would wait for the next one, or
//! for a timer, never arrives here, and its test fails.

use towpath::config::Way;

use super::engine::{house, pair};
use super::house::{House, Shape};
use super::seeds;
use super::world::{Random, SLOTS};

const WAYS: [Way; 3] = [Way::Auto, Way::Copy, Way::Splice];

/// One block; one and two, after which a direction is bulk; what a ring holds before its direction
/// stops reading; a turn's budget; the largest pipe.
const MARKS: [usize; 5] = [16 << 10, 48 << 10, 64 << 10, 256 << 10, 1 << 20];

fn shape(way: Way) -> Shape {
    Shape {
        way,
        ..Shape::default()
    }
}

/// A pair with sockets as large as a real kernel's, so that full reads happen; both sockets' ids.
fn roomy(seed: u64, way: Way) -> (House, [usize; 2]) {
    let mut house = house(seed, shape(way));
    {
        let mut world = house.world.borrow_mut();
        world.send_room = [20_000, 300_000, 2 << 20][seed as usize % 3];
        world.receive_room = [100_000, 1 << 20, 2 << 20][seed as usize / 3 % 3];
        world.slot = 64 << 10;
    }
    let (client, backend) = pair(&mut house, b"-");
    house.world.borrow_mut().sockets[backend].received.clear();
    (house, [client, backend])
}

/// Bytes of which no two neighbourhoods are alike.
fn payload(count: usize) -> Vec<u8> {
    Random::new(count as u64).bytes(count)
}

/// `to` has read exactly `sent` and, since the house is settled, nothing is held for it.
fn expect(house: &House, to: usize, sent: &[u8], what: &str) {
    let (holdings, world) = (house.worker.holdings(), house.world.borrow());
    let received = &world.sockets[to].received;
    assert_eq!(received.len(), sent.len(), "{what}: bytes are missing");
    assert!(received == sent, "{what}: other bytes");
    assert_eq!(
        (holdings.blocks, holdings.pipes),
        (0, 0),
        "{what}: an idle pair holds memory"
    );
}

/// Sends in one piece and settles; time does not pass.
fn send(house: &mut House, from: usize, bytes: &[u8]) {
    house.world.borrow_mut().send(from, bytes);
    house.settle();
}

/// Everything arrives at the engine, nobody reads.
fn press(house: &mut House, from: usize) {
    for _ in 0..50 {
        house.world.borrow_mut().deliver(from, usize::MAX);
        house.quiesce();
    }
}

/// Both ends finish; nothing is left.
fn finish(house: &mut House, ends: [usize; 2]) {
    for end in ends {
        house.world.borrow_mut().end(end);
    }
    house.settle();
    house.assert_empty();
}

#[test]
fn every_size_around_a_mark_arrives_without_a_timer() {
    seeds(9, |seed| {
        for (way, mark) in WAYS.iter().flat_map(|way| MARKS.map(|mark| (*way, mark))) {
            for size in mark - 2..=mark + 2 {
                let (mut house, ends) = roomy(seed, way);
                let (start, bytes) = (house.now, payload(size));
                for side in [0, 1] {
                    send(&mut house, ends[side], &bytes);
                    expect(&house, ends[1 - side], &bytes, &format!("{way:?}, {size}"));
                }
                assert_eq!(house.now, start);
                finish(&mut house, ends);
            }
        }
    });
}

/// The second part arrives while the first is at any point of its way.
#[test]
fn a_cut_at_every_byte_around_a_mark_changes_nothing() {
    seeds(2, |seed| {
        for way in WAYS {
            let cuts = MARKS[..4].iter().flat_map(|mark| mark - 9..mark + 9);
            for cut in cuts {
                let (mut house, ends) = roomy(seed, way);
                let bytes = payload(300_000);
                house.world.borrow_mut().send(ends[0], &bytes);
                house.world.borrow_mut().deliver(ends[0], cut);
                house.turn();
                house.settle();
                expect(&house, ends[1], &bytes, &format!("{way:?}, cut at {cut}"));
            }
        }
    });
}

#[test]
fn tails_of_every_size_follow_bulk_at_once() {
    seeds(6, |seed| {
        for way in WAYS {
            let (mut house, ends) = roomy(seed, way);
            let mut sent = payload(400_000);
            send(&mut house, ends[0], &sent);
            let start = house.now;
            let around = MARKS.iter().flat_map(|mark| mark - 1..=mark + 1);
            for tail in (1..40).chain(690..710).chain(around) {
                let tail = payload(tail);
                send(&mut house, ends[0], &tail);
                sent.extend(&tail);
                expect(&house, ends[1], &sent, &format!("tail of {}", tail.len()));
            }
            assert_eq!(house.now, start);
            let spliced = house.world.borrow().spliced;
            assert_eq!(spliced > 0, way != Way::Copy, "{way:?}: {spliced}");
        }
    });
}

/// Slots are used up long before the pipe's bytes are, so "would block" means both that there is no
/// room and that there is nothing to read.
#[test]
fn a_full_pipe_stops_its_source_and_loses_nothing() {
    seeds(30, |seed| {
        let mut house = house(seed, shape(Way::Splice));
        let slot = [1, 7, 500, 2_000][seed as usize % 4];
        house.world.borrow_mut().slot = slot;
        let (client, backend) = pair(&mut house, b"-");
        let bytes = payload(30_000);
        house.world.borrow_mut().send(client, &bytes);
        press(&mut house, client);
        assert_eq!(house.worker.holdings().pipes, 1, "the pipe is held");
        let taken = house.world.borrow().spliced;
        assert!(taken <= 5_000 + SLOTS * slot * 2, "{taken} for a full pipe");
        // The reader takes little by little; each piece makes room for the next.
        while house.world.borrow().sockets[backend].received.len() < 20_000 {
            let piece = 1 + house.world.borrow_mut().random.below(4_000);
            house.world.borrow_mut().receive(backend, piece);
            house.quiesce();
        }
        house.settle();
        assert!(house.world.borrow().sockets[backend].received[1..] == bytes);
        finish(&mut house, [client, backend]);
    });
}

#[test]
fn with_all_pipes_lent_the_others_copy_and_all_bytes_arrive() {
    seeds(10, |seed| {
        let shape = Shape {
            buffer_memory: 0,
            way: [Way::Auto, Way::Splice][seed as usize % 2],
            ..Shape::default()
        };
        let mut house = house(seed, shape);
        {
            let mut world = house.world.borrow_mut();
            // The sockets take enough for a direction to become bulk before they are full.
            (world.send_room, world.receive_room, world.slot) = (100_000, 400_000, 20_000);
        }
        let pairs: Vec<_> = (0..10).map(|_| pair(&mut house, b"-")).collect();
        let bytes = payload(600_000);
        for &(client, backend) in &pairs {
            house.world.borrow_mut().send(client, &bytes);
            press(&mut house, client);
            house.world.borrow_mut().receive(backend, 1);
        }
        assert_eq!(house.worker.holdings().pipes, 4, "all that there may be");
        house.settle();
        for &(client, backend) in &pairs {
            let mut world = house.world.borrow_mut();
            assert!(world.sockets[backend].received[1..] == bytes, "{client}");
            world.end(client);
            world.end(backend);
        }
        house.settle();
        house.assert_empty();
    });
}

#[test]
fn a_system_that_gives_no_pipe_or_only_some_is_served_by_copies() {
    seeds(12, |seed| {
        for (way, failures) in [(Way::Auto, 100), (Way::Splice, 100), (Way::Splice, 60)] {
            let (mut house, ends) = roomy(seed, way);
            house.world.borrow_mut().failures = failures;
            let mut sent = Vec::new();
            for size in [300_000, 5, 70_000, 1, 1 << 20] {
                let bytes = payload(size);
                send(&mut house, ends[0], &bytes);
                sent.extend(bytes);
                expect(&house, ends[1], &sent, &format!("{way:?}, {failures} %"));
            }
            {
                let world = house.world.borrow();
                assert!(world.pipe_calls > 0, "a pipe was wanted");
                assert!(world.spliced == 0 || failures < 100);
            }
            finish(&mut house, ends);
        }
    });
}

/// A pair whose pipe holds bytes for a backend that does not read, and what was sent.
fn held(seed: u64) -> (House, [usize; 2], Vec<u8>) {
    let mut house = house(seed, shape(Way::Splice));
    let (client, backend) = pair(&mut house, b"-");
    house.world.borrow_mut().sockets[backend].received.clear();
    let bytes = payload(6_000 + seed as usize);
    house.world.borrow_mut().send(client, &bytes);
    press(&mut house, client);
    assert_eq!(house.worker.holdings().pipes, 1);
    (house, [client, backend], bytes)
}

#[test]
fn a_half_close_waits_for_what_the_pipe_holds() {
    seeds(30, |seed| {
        let (mut house, ends, bytes) = held(seed);
        house.world.borrow_mut().end(ends[0]);
        press(&mut house, ends[0]);
        assert!(!house.world.borrow().sockets[ends[1]].shut, "bytes first");
        house.settle();
        expect(&house, ends[1], &bytes, "before the end");
        assert!(house.world.borrow().sockets[ends[1]].shut);
        let answer = payload(200_000);
        send(&mut house, ends[1], &answer);
        expect(&house, ends[0], &answer, "after the end of the other way");
        finish(&mut house, ends);
    });
}

#[test]
fn a_reset_while_a_pipe_holds_bytes_leaks_nothing() {
    seeds(30, |seed| {
        for side in [0, 1] {
            let (mut house, ends, bytes) = held(seed);
            house.world.borrow_mut().reset(ends[side]);
            house.quiesce();
            house.settle();
            {
                let world = house.world.borrow();
                assert!(world.sockets[ends[1 - side]].aborted, "passed on");
                let received = &world.sockets[ends[1]].received;
                assert!(bytes.starts_with(received), "and no other bytes before");
            }
            house.assert_empty();
        }
    });
}

#[test]
fn bulk_turns_interactive_and_bulk_again() {
    seeds(12, |seed| {
        // A ring that a small socket never empties is never left for a pipe, so none of those.
        let (mut house, ends) = roomy(3 * seed + 1, Way::Auto);
        let mut sent = Vec::new();
        let mut spliced = 0;
        for round in 0..3 {
            let mut say = |house: &mut House, size: usize| {
                let bytes = payload(size);
                send(house, ends[0], &bytes);
                sent.extend(bytes);
                expect(house, ends[1], &sent, &format!("{size} in round {round}"));
                let all = house.world.borrow().spliced;
                let new = all - spliced;
                spliced = all;
                new
            };
            assert!(say(&mut house, 900_000) > 0, "bulk is spliced");
            for _ in 0..6 {
                say(&mut house, 64);
            }
            for size in [64, 1, 16_383, 64] {
                assert_eq!(say(&mut house, size), 0, "little is copied");
            }
        }
        finish(&mut house, ends);
    });
}
