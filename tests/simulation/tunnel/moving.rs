//! A visitor that carries much begins in frames and goes on by a connection of its own: whatever falls
//! in between, its bytes are whole and in order, or it is reset.

use std::net::SocketAddr;
use std::time::Duration;

use towpath::protocols::tunnel::wire::{Mode, Options};

use super::client::{Client, VISITOR_TIMEOUT};
use crate::seeds;

/// The server's first byte on a data connection that a visitor is moved to.
const CONFIRM: u8 = 6;

/// A client that has its visitors moved, with one of them.
fn begin(seed: u64) -> (Client, SocketAddr) {
    let mut client = Client::new(seed, 3);
    client.expose_with(Mode::Mux, Options::MAY_MOVE);
    client.join_frames();
    let visitor = client.visit_own();
    client.settle();
    (client, visitor)
}

/// Talks until the server asks for the move; what was said each way.
fn talk(client: &mut Client, visitor: SocketAddr) -> [Vec<u8>; 2] {
    let mut said = [Vec::new(), Vec::new()];
    let busy = client.random.below(3);
    while !client.is_asked(visitor) {
        let (up, down) = match busy {
            0 => (40_000, 10),
            1 => (10, 40_000),
            _ => (30_000, 30_000),
        };
        let (up, down) = (client.random.bytes(up), client.random.bytes(down));
        client.say(visitor, &up);
        client.speak(visitor, &down);
        said[0].extend(up);
        said[1].extend(down);
        if client.random.chance(70) {
            client.settle();
            client.take_frames(visitor);
        }
        assert!(said[0].len() + said[1].len() < 2_000_000, "never moved");
    }
    said
}

#[test]
fn a_visitor_that_carries_much_is_moved_without_the_loss_of_a_byte() {
    seeds(60, |seed| {
        let (mut client, visitor) = begin(seed);
        let mut said = talk(&mut client, visitor);
        // Either may have more to say, or have ended, before the move is done.
        let more = client.random.bytes(50_000);
        client.say(visitor, &more);
        said[0].extend(more);
        let early_end = client.random.chance(30);
        if early_end {
            client.end(visitor);
        }
        client.settle();
        let data = client.follow(visitor);
        assert_eq!(client.heard(data), [CONFIRM]);
        // Frames of the client go on until it has seen that.
        let more = client.random.bytes(20_000);
        client.speak(visitor, &more);
        said[1].extend(more);
        client.take_frames(visitor);
        // Whichever of the two comes first.
        let (late, first) = (client.random.bytes(70_000), client.random.chance(50));
        let unsent = client.moved(visitor);
        if first {
            client.settle();
        }
        client.say(data, &[unsent, late.clone()].concat());
        said[1].extend(late);
        client.settle();
        client.take_frames(visitor);
        client.settle();
        if !early_end {
            let late = client.random.bytes(90_000);
            client.say(visitor, &late);
            said[0].extend(late);
            client.end(visitor);
        }
        client.end(data);
        client.settle();
        let heard = [client.taken(visitor), client.heard(data)[1..].to_vec()].concat();
        assert!(heard == said[0], "what the visitor has said");
        assert!(
            client.heard(visitor) == said[1],
            "what the service has said"
        );
        assert!(client.is_over(visitor) && client.is_over(data));
        assert!(!client.was_reset(visitor) && !client.is_broken(visitor));
        client.finish();
    });
}

#[test]
fn a_move_that_comes_to_nothing_resets_the_visitor() {
    seeds(60, |seed| {
        let (mut client, visitor) = begin(seed);
        talk(&mut client, visitor);
        match client.random.below(5) {
            // The client says nothing more.
            0 => client.wait(VISITOR_TIMEOUT + Duration::from_secs(1)),
            1 => client.reset_frames(visitor),
            2 => client.leave_frames(),
            // The visitor breaks: the client hears of it.
            3 => {
                client.reset(visitor);
                client.settle();
                assert!(client.is_broken(visitor));
                let data = client.follow(visitor);
                assert!(client.is_over(data) && client.heard(data).is_empty());
                return client.finish();
            }
            // The client says its last frame, and its connection breaks.
            _ => {
                let data = client.follow(visitor);
                client.reset(data);
                client.settle();
                client.moved(visitor);
            }
        }
        client.settle();
        assert!(
            client.was_reset(visitor),
            "an end that is none of the stream"
        );
        client.finish();
    });
}

#[test]
fn an_end_that_overtakes_the_clients_last_frame_is_heard_in_its_turn() {
    seeds(40, |seed| {
        let (mut client, visitor) = begin(seed);
        let mut said = talk(&mut client, visitor);
        client.settle();
        for _ in 0..40 {
            client.take_frames(visitor);
            client.settle();
        }
        let data = client.follow(visitor);
        // The service has said all that it has to say, and ends.
        client.end(data);
        client.settle();
        assert!(client.moved(visitor).is_empty());
        client.settle();
        let late = client.random.bytes(80_000);
        client.say(visitor, &late);
        said[0].extend(late);
        client.end(visitor);
        client.settle();
        let heard = [client.taken(visitor), client.heard(data)[1..].to_vec()].concat();
        assert!(heard == said[0], "what the visitor has said");
        assert!(
            client.heard(visitor) == said[1],
            "what the service has said"
        );
        assert!(client.is_over(visitor) && !client.was_reset(visitor));
        client.finish();
    });
}

#[test]
fn a_client_that_cannot_come_keeps_the_visitor_in_the_frames() {
    seeds(60, |seed| {
        let (mut client, visitor) = begin(seed);
        let mut said = talk(&mut client, visitor);
        let early_end = client.random.chance(30);
        if early_end {
            client.end(visitor);
        }
        match client.random.below(3) {
            0 => {}
            // It came, and was cut off.
            one => {
                let data = client.follow(visitor);
                match one {
                    1 => client.reset(data),
                    _ => client.end(data),
                }
                client.settle();
            }
        }
        client.stay(visitor);
        client.settle();
        if !early_end {
            let late = client.random.bytes(300_000);
            client.say(visitor, &late);
            said[0].extend(late);
            client.end(visitor);
        }
        let late = client.random.bytes(300_000);
        client.speak(visitor, &late);
        said[1].extend(late);
        for _ in 0..40 {
            client.settle();
            client.take_frames(visitor);
        }
        assert!(!client.is_asked(visitor), "asked once more");
        assert!(
            client.taken(visitor) == said[0],
            "what the visitor has said"
        );
        assert!(
            client.heard(visitor) == said[1],
            "what the service has said"
        );
        assert!(client.has_ended(visitor));
        client.end_frames(visitor);
        client.settle();
        assert!(client.is_over(visitor) && !client.was_reset(visitor));
        client.finish();
    });
}

#[test]
fn a_visitor_that_carries_little_or_is_not_to_move_stays() {
    seeds(10, |seed| {
        let (mut client, visitor) = begin(seed);
        for _ in 0..20 {
            let bytes = client.random.bytes(60_000);
            client.say(visitor, &bytes);
            client.settle();
            client.take_frames(visitor);
            client.wait(Duration::from_secs(2));
        }
        assert!(!client.is_asked(visitor), "moved for little");
        client.end(visitor);
        client.end_frames(visitor);
        client.settle();
        assert!(client.is_over(visitor));
        client.finish();
    });
}

#[test]
fn a_visitor_that_ends_before_the_frames_are_there_is_heard_all_the_same() {
    seeds(20, |seed| {
        let mut client = Client::new(seed, 2);
        client.expose_with(Mode::Mux, Options::MAY_MOVE);
        let visitors = [b"".as_slice(), b"a word"].map(|said| {
            let visitor = client.visit_own();
            client.say(visitor, said);
            client.end(visitor);
            if client.random.chance(50) {
                client.settle();
            }
            (visitor, said)
        });
        client.settle();
        client.join_frames();
        for (visitor, said) in visitors {
            assert!(client.has_ended(visitor), "an end that nobody is told of");
            assert_eq!(client.take_frames(visitor), said);
            client.speak(visitor, b"an answer");
            client.end_frames(visitor);
            client.settle();
            assert_eq!(client.heard(visitor), b"an answer");
            assert!(client.is_over(visitor));
        }
        client.finish();
    });
}

#[test]
fn a_silent_visitor_ends_at_the_idle_timeout() {
    seeds(10, |seed| {
        let (mut client, visitor) = begin(seed);
        client.say(visitor, b"hello");
        client.settle();
        client.wait(Duration::from_secs(599));
        assert!(!client.is_over(visitor));
        client.wait(Duration::from_secs(4));
        assert!(client.is_over(visitor) && client.is_broken(visitor));
        client.finish();
    });
}
