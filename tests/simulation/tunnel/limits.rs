//! Visitors of a service at a bandwidth limit, in virtual time: in the frames and behind a move, each
//! way, and short ones of one source that come one after the other.

use std::net::SocketAddr;
use std::time::Duration;

use towpath::protocols::tunnel::wire::{Mode, Options};

use super::client::Client;
use crate::seeds;

/// Bytes a second.
const RATE: u64 = 400_000;

/// Under one of the two limits.
const LIMITS: [[u64; 2]; 2] = [[RATE, 0], [0, RATE]];

/// That so many bytes passed in that time at the limit: within 5 %, and what a bucket and a read hold.
fn expect_rate(moved: usize, time: Duration, what: &str) {
    let wanted = RATE as f64 * time.as_secs_f64();
    let slack = 0.05 * wanted + 60_000.0;
    let distance = (moved as f64 - wanted).abs();
    assert!(distance < slack, "{what}: {moved} instead of {wanted}");
}

fn begin(seed: u64, limits: [u64; 2], options: u32) -> (Client, SocketAddr) {
    let mut client = Client::limited(seed, 2, limits);
    client.expose_with(Mode::Mux, options);
    client.join_frames();
    let visitor = client.visit_own();
    client.settle();
    (client, visitor)
}

#[test]
fn what_comes_in_frames_keeps_to_the_limit_and_its_end_comes_last() {
    seeds(2, |seed| {
        for limits in LIMITS {
            let (mut client, visitor) = begin(seed, limits, 0);
            let other = client.visit_own();
            client.settle();
            let time = Duration::from_secs(4);
            let said = client.random.bytes(2_800_000);
            client.speak(visitor, &said);
            client.flow(time);
            let heard = client.heard(visitor).len();
            expect_rate(heard, time, &format!("down, {limits:?}"));
            if limits[0] == 0 {
                // Another source has its own limit, and does not stand behind this one.
                client.speak(other, b"to another");
                client.settle();
                assert_eq!(client.heard(other), b"to another");
            }
            // The end comes while bytes before it wait for their time.
            client.flow(Duration::from_secs(3) - Duration::from_millis(500));
            client.end_frames(visitor);
            client.end(visitor);
            client.settle();
            assert!(!client.is_over(visitor), "bytes are still to come");
            client.flow(Duration::from_secs(2));
            assert!(client.heard(visitor) == said, "all of it, {limits:?}");
            assert!(client.is_over(visitor) && !client.was_reset(visitor));
            client.finish();
        }
    });
}

#[test]
fn what_a_visitor_in_frames_sends_keeps_to_the_limit() {
    seeds(2, |seed| {
        for limits in LIMITS {
            let (mut client, visitor) = begin(seed, limits, 0);
            let (time, said) = (Duration::from_secs(4), client.random.bytes(2_400_000));
            client.say(visitor, &said);
            let mut taken = 0;
            for _ in 0..100 {
                client.flow(time / 100);
                taken += client.take_frames(visitor).len();
            }
            expect_rate(taken, time, &format!("up, {limits:?}"));
            client.finish();
        }
    });
}

#[test]
fn a_visitor_that_was_moved_is_limited_as_before() {
    seeds(2, |seed| {
        for limits in LIMITS {
            let (mut client, visitor) = begin(seed, limits, Options::MAY_MOVE);
            let mut said = client.random.bytes(600_000);
            client.speak(visitor, &said);
            for _ in 0..300 {
                if client.is_asked(visitor) {
                    break;
                }
                client.flow(Duration::from_millis(10));
            }
            let data = client.follow(visitor);
            let unsent = client.moved(visitor);
            client.settle();
            let (time, before) = (Duration::from_secs(4), client.heard(visitor).len());
            let more = client.random.bytes(3_600_000);
            said.extend(&more);
            client.say(data, &[unsent, more].concat());
            client.flow(time);
            let heard = client.heard(visitor);
            assert!(said.starts_with(&heard), "out of order");
            expect_rate(heard.len() - before, time, &format!("down, {limits:?}"));
            let said = client.random.bytes(3_600_000);
            let before = client.heard(data).len();
            client.say(visitor, &said);
            client.flow(time);
            let moved = client.heard(data).len() - before;
            expect_rate(moved, time, &format!("up, {limits:?}"));
            client.reset(visitor);
            client.settle();
            client.finish();
        }
    });
}

#[test]
fn short_visits_of_one_source_are_limited_together() {
    seeds(2, |seed| {
        let mut client = Client::limited(seed, 2, [0, RATE]);
        client.expose(Mode::Mux);
        client.join_frames();
        let mut visitors = Vec::new();
        for _ in 0..10 {
            let visitor = client.visit_shared();
            client.settle();
            client.flood(visitor, 200_000);
            client.settle();
            client.end_frames(visitor);
            client.end(visitor);
            visitors.push(visitor);
        }
        let time = Duration::from_secs(3);
        client.flow(time);
        let heard: usize = visitors.iter().map(|one| client.heard(*one).len()).sum();
        expect_rate(heard, time, "all together");
        // A portion that is not used up costs its time, too.
        client.flow(2 * time);
        for visitor in visitors {
            assert_eq!(client.heard(visitor).len(), 200_000);
            assert!(client.is_over(visitor) && !client.was_reset(visitor));
        }
        client.finish();
    });
}
