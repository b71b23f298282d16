//! The chain role in the simulated world: from an access listener through hops to a destination,
//! each in a house of its own.

mod datagrams;
mod hop;
mod lost;
mod routes;
mod street;

use towpath::protocols::chain::AccessProtocol;

use self::street::{Fate, Street, access, chain_of, destination, hop_at};
use super::seeds;

/// An access listener whose one chain has so many hops.
fn street(seed: u64, hops: usize, protocol: AccessProtocol, is_sealed: bool) -> Street {
    let houses: Vec<usize> = (1..=hops).collect();
    let access = access(protocol, vec![chain_of(&houses, is_sealed)]);
    Street::new(seed, hops, access, |_| {})
}

/// A client and the destination that it has reached.
fn joined(street: &mut Street) -> [(usize, usize); 2] {
    let client = street.client();
    street.settle();
    let reached = *street.reached.last().expect("the destination is reached");
    [(0, client), reached]
}

/// Random bytes both ways, in random pieces, ends in a random order, some before anybody is connected.
fn play(seed: u64, hops: usize, is_sealed: bool, early_data: bool) {
    let houses: Vec<usize> = (1..=hops).collect();
    let mut access = access(AccessProtocol::Tcp, vec![chain_of(&houses, is_sealed)]);
    access.early_data = early_data;
    let mut street = Street::new(seed, hops, access, |_| {});
    let client = (0, street.client());
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let mut ended = [false; 2];
    if street.random.chance(20) {
        // An end before anything else is an end as well.
        street.end(client);
        ended[0] = true;
    }
    for _ in 0..400 {
        let count = street.random.below(8_000);
        let bytes = street.random.bytes(count);
        match street.random.below(40) {
            0..=2 if !ended[0] => {
                street.send(client, &bytes);
                up.extend(bytes);
            }
            3..=5 if !ended[1] && !street.reached.is_empty() => {
                let destination = street.reached[0];
                street.send(destination, &bytes);
                down.extend(bytes);
            }
            6 if !ended[0] && street.random.chance(20) => {
                street.end(client);
                ended[0] = true;
            }
            7 if !ended[1] && !street.reached.is_empty() && street.random.chance(20) => {
                let destination = street.reached[0];
                street.end(destination);
                ended[1] = true;
            }
            _ => street.step(),
        }
    }
    street.settle();
    let reached = street.reached[0];
    assert_eq!(
        street.fate(client) == Fate::Ended,
        ended[1],
        "to the client"
    );
    assert_eq!(street.fate(reached) == Fate::Ended, ended[0], "from it");
    assert!(street.received(reached) == up, "to the destination");
    assert!(street.received(client) == down, "to the client");
    for (end, was) in [client, reached].into_iter().zip(ended) {
        if !was {
            street.end(end);
        }
    }
    street.settle();
    assert!(street.received(reached) == up && street.received(client) == down);
    assert_eq!(
        [client, reached].map(|end| street.fate(end)),
        [Fate::Ended; 2]
    );
    street.assert_empty();
}

#[test]
fn bytes_arrive_whole_and_in_order_through_any_number_of_hops() {
    seeds(60, |seed| play(seed, 1 + seed as usize % 3, false, false));
}

#[test]
fn early_data_arrives_as_whole() {
    seeds(30, |seed| play(seed, 1 + seed as usize % 3, false, true));
}

#[test]
fn a_sealed_payload_arrives_whole_with_its_ends() {
    seeds(60, |seed| play(seed, 1 + seed as usize % 3, true, false));
}

#[test]
fn a_reset_is_passed_on_to_the_other_end_of_the_street() {
    for (hops, is_sealed) in [(1, false), (3, false), (1, true), (2, true)] {
        for side in [0, 1] {
            let mut street = street(7, hops, AccessProtocol::Tcp, is_sealed);
            let ends = joined(&mut street);
            street.send(ends[0], b"there");
            street.send(ends[1], b"back");
            street.settle();
            street.reset(ends[side]);
            street.settle();
            assert_eq!(street.fate(ends[1 - side]), Fate::Reset, "{hops} {side}");
            street.assert_empty();
        }
    }
}

#[test]
fn the_error_of_each_hop_reaches_the_client_and_no_reset_eats_it() {
    for (hops, failing) in (1..=3).flat_map(|hops| (1..=hops).map(move |at| (hops, at))) {
        let mut street = street(3, hops, AccessProtocol::Http, false);
        street.refusing.push(match failing == hops {
            true => destination(),
            false => hop_at(failing + 1),
        });
        let client = (0, street.client());
        street.send(client, b"CONNECT 10.9.9.9:80 HTTP/1.1\r\nHost: x\r\n\r\n");
        street.settle();
        let answer = String::from_utf8(street.received(client)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        let told = format!("hop {failing} ({})", hop_at(failing));
        assert!(answer.contains(&told), "{answer} does not tell {told}");
        assert_eq!(street.fate(client), Fate::Ended);
        street.end(client);
        street.pass(std::time::Duration::from_secs(3));
        street.assert_empty();
    }
}

#[test]
fn success_is_told_when_every_hop_is_connected_and_before_any_payload() {
    seeds(20, |seed| {
        let mut street = street(seed, 3, AccessProtocol::Http, false);
        street.mute.push(hop_at(3));
        let client = (0, street.client());
        street.send(
            client,
            b"CONNECT 10.9.9.9:80 HTTP/1.1\r\nHost: x\r\n\r\nhello",
        );
        street.settle();
        assert_eq!(
            street.received(client),
            b"",
            "the third hop is not there yet"
        );
        street.mute.clear();
        let dialled = street.houses[2].world.borrow().sockets.len() - 1;
        street.link_late(2, dialled, 3);
        street.settle();
        let reached = street.reached[0];
        street.send(reached, b"welcome");
        street.settle();
        let answer = String::from_utf8(street.received(client)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nwelcome"));
        assert_eq!(street.received(reached), b"hello");
        street.end(client);
        street.end(reached);
        street.settle();
        street.assert_empty();
    });
}

/// The end stands behind a byte that nobody waits for.
#[test]
fn an_association_ends_with_its_client_whatever_that_has_said() {
    for behind in [&b""[..], b"x", b"much more"] {
        let mut street = street(1, 1, AccessProtocol::Socks5, false);
        let client = (0, street.client());
        let asked = [&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0], behind].concat();
        street.send(client, &asked);
        street.end(client);
        street.settle();
        street.pass(std::time::Duration::from_secs(3));
        assert_eq!(street.houses[0].worker.sessions(), 0, "{behind:?}");
        street.assert_empty();
    }
}
