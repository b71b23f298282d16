//! The tunnel's server on several cores, with a scripted client and visitors that come, talk, end and
//! break at random. A client that plays by its own book of the bytes says what must hold:
//!
//! * a data connection carries the bytes of the visitor that its uuid was told for, and no other's;
//! * a ticket admits once;
//! * no direction of any visitor has more under way than its credit;
//! * no visitor is left without an end, and when all have gone nothing is left.

mod client;
mod limits;
mod moving;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use towpath::protocols::tunnel::wire::{Mode, Reason};

use self::client::{Client, VISITOR_TIMEOUT};
use super::seeds;

/// A visitor, as the test knows it.
struct Visitor {
    peer: SocketAddr,
    said: Vec<u8>,
    heard: Vec<u8>,
    /// It, or its service, was reset.
    broken: bool,
}

#[test]
fn each_visitor_of_mode_direct_meets_its_own_connection() {
    seeds(40, |seed| {
        let mut client = Client::new(seed, 3);
        client.expose(Mode::Direct);
        let mut visitors = Vec::new();
        for number in 0..12 {
            let peer = client.visit(number);
            let said = client.random.bytes(1 + number * 700);
            client.say(peer, &said);
            let (heard, broken) = (Vec::new(), false);
            let visitor = Visitor {
                peer,
                said,
                heard,
                broken,
            };
            visitors.push(visitor);
            for _ in 0..client.random.below(4) {
                client.row.step();
            }
        }
        client.settle();
        let mut joined = HashMap::new();
        client.attach_all(&mut joined);
        client.settle();
        for visitor in &mut visitors {
            let Some(&data) = joined.get(&visitor.peer) else {
                panic!("{} was not announced", visitor.peer);
            };
            assert_eq!(client.heard(data), visitor.said, "another visitor's bytes");
            visitor.heard = client.random.bytes(3_000);
            if client.random.chance(25) {
                client.reset(data);
                visitor.broken = true;
            } else {
                let heard = visitor.heard.clone();
                client.say(data, &heard);
                client.end(data);
            }
        }
        client.settle();
        for visitor in &visitors {
            let heard = client.heard(visitor.peer);
            match visitor.broken {
                true => assert!(visitor.heard.starts_with(&heard)),
                false => assert_eq!(heard, visitor.heard),
            }
            client.end(visitor.peer);
        }
        client.settle();
        for visitor in &visitors {
            assert!(client.is_over(visitor.peer), "a visitor without an end");
        }
        client.finish();
    });
}

#[test]
fn a_ticket_admits_once_and_a_wrong_one_never() {
    seeds(20, |seed| {
        let mut client = Client::new(seed, 2);
        client.expose(Mode::Direct);
        let peer = client.visit(0);
        client.settle();
        let visit = client.visits.pop().unwrap();
        let wrong = client.attach(visit.ticket, towpath::protocols::tunnel::wire::Uuid::NONE);
        client.settle();
        assert!(client.is_over(wrong), "the ticket is the visitor's");
        let late = client.attach(visit.ticket, visit.uuid);
        client.settle();
        assert!(client.is_over(late) && client.heard(late).is_empty());
        // The ticket is used up, so the visitor waits for nothing and is told so in time.
        assert!(!client.is_over(peer));
        client.wait(VISITOR_TIMEOUT + Duration::from_secs(1));
        assert!(client.is_over(peer));
        assert_eq!(client.closed, [(visit.uuid, Reason::Timeout)]);
        client.finish();
    });
}

#[test]
fn a_visitor_that_the_client_cannot_serve_is_closed_at_once() {
    seeds(20, |seed| {
        let mut client = Client::new(seed, 2);
        client.expose(Mode::Direct);
        let peer = client.visit(1);
        client.settle();
        let visit = client.visits.pop().unwrap();
        client.refuse(visit.uuid);
        client.settle();
        assert!(client.is_over(peer));
        // When the client goes, whoever waits goes with it.
        let other = client.visit(0);
        client.settle();
        client.leave();
        client.settle();
        assert!(client.is_over(other));
        client.finish();
    });
}

#[test]
fn wrong_proofs_of_an_address_count_over_all_cores() {
    seeds(5, |seed| {
        let mut client = Client::new(seed, 3);
        for number in 1..10 {
            let (told, _) = client.prove_wrongly(number % 3);
            assert!(told, "{number} is one of a few");
        }
        for core in 0..3 {
            let (told, peer) = client.prove_wrongly(core);
            assert!(!told, "on core {core}");
            client.wait(Duration::from_secs(2));
            assert!(client.is_told(peer));
        }
        // Who comes from elsewhere does not notice.
        client.expose(Mode::Mux);
        client.join_frames();
        client.wait(Duration::from_secs(60));
        assert!(client.prove_wrongly(0).0, "the minute is over");
        client.finish();
    });
}

#[test]
fn bytes_behind_the_end_cost_the_client_its_frames() {
    seeds(5, |seed| {
        let mut client = Client::new(seed, 2);
        client.expose(Mode::Mux);
        client.join_frames();
        let visitor = client.visit_own();
        client.settle();
        client.speak(visitor, b"all");
        client.end_frames(visitor);
        client.settle();
        assert_eq!(client.heard(visitor), b"all");
        assert!(!client.was_reset(visitor));
        client.speak(visitor, b"and more");
        client.settle();
        assert_eq!(client.heard(visitor), b"all");
        assert!(client.was_reset(visitor) && client.have_frames_ended());
        client.finish();
    });
}

#[test]
fn credit_is_never_exceeded_and_a_slow_visitor_holds_up_nobody() {
    seeds(25, |seed| {
        let mut client = Client::new(seed, 2);
        client.expose(Mode::Mux);
        client.join_frames();
        let slow = client.visit_own();
        let fast = client.visit_own();
        client.settle();
        // Both directions of the slow one are full, and nothing of it is taken or granted.
        let much = client.random.bytes(600_000);
        client.say(slow, &much);
        client.flood(slow, 600_000);
        client.deaf(slow);
        client.settle();
        assert!(client.under_way(slow) <= 256 << 10);
        for _ in 0..5 {
            let said = client.random.bytes(100_000);
            client.say(fast, &said);
            client.settle();
            assert_eq!(client.take_frames(fast), said);
            client.flood(fast, 50_000);
            client.settle();
        }
        assert_eq!(client.heard(fast).len(), 250_000);
        client.hears(slow);
        for _ in 0..40 {
            client.take_frames(slow);
            client.settle();
        }
        assert_eq!(client.heard(slow).len(), 600_000);
        assert_eq!(client.taken(slow), much);
        for visitor in [slow, fast] {
            client.end(visitor);
            client.end_frames(visitor);
        }
        client.settle();
        assert!(client.is_over(slow) && client.is_over(fast));
        client.finish();
    });
}
