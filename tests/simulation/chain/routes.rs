//! An access listener with several chains: which are tried, which are left out, and that a late
//! answer of one is not taken for another's.

use std::time::Duration;

use towpath::protocols::chain::AccessProtocol;

use super::street::{Fate, Street, access, chain_of, hop_at};
use crate::seeds;

/// Two chains of one hop each. The probes' first round is over.
fn fork(seed: u64, mute: bool) -> Street {
    let chains = vec![chain_of(&[1], false), chain_of(&[2], false)];
    let mut access = access(AccessProtocol::Tcp, chains);
    access.probe_interval = PROBE;
    let mut street = Street::new(seed, 2, access, |config| {
        config.dial_timeout = Duration::from_secs(1);
    });
    match mute {
        true => street.mute.push(hop_at(1)),
        false => street.refusing.push(hop_at(1)),
    }
    street
}

/// The prober is not among the sessions that a client has.
fn drain(mut street: Street) {
    for house in &mut street.houses {
        house.phase.drain();
    }
    street.settle();
    street.pass(Duration::from_secs(31));
    street.assert_empty();
}

#[test]
fn a_broken_chain_is_left_out_and_a_probe_brings_it_back() {
    seeds(10, |seed| {
        let mut street = fork(seed, false);
        street.pass(Duration::from_millis(100));
        let dials = |street: &Street| {
            let world = street.houses[0].world.borrow();
            let first = |socket: &&crate::world::Socket| socket.peer == hop_at(1);
            world.sockets.iter().filter(first).count()
        };
        let before = dials(&street);
        assert_eq!(before, 1, "the first probe has been refused");
        for turn in 0..8 {
            let client = (0, street.client());
            street.settle();
            let reached = street.reached[turn];
            street.send(client, b"hello");
            street.settle();
            assert_eq!(street.received(reached), b"hello");
            street.end(client);
            street.end(reached);
            street.settle();
        }
        assert_eq!(dials(&street), before, "it was left out");
        street.refusing.clear();
        street.pass(PROBE + Duration::from_secs(1));
        let probed = dials(&street);
        assert!(probed > before, "it was probed");
        for _ in 0..40 {
            let client = (0, street.client());
            street.settle();
            street.end(client);
            let reached = *street.reached.last().unwrap();
            street.end(reached);
            street.settle();
        }
        assert!(dials(&street) > probed, "it takes part again");
        drain(street);
    });
}

#[test]
fn a_hop_that_connects_too_late_is_closed_and_no_other_is_taken_for_it() {
    seeds(20, |seed| {
        let mut street = fork(seed, true);
        // Before any probe has ended, some clients begin with the first chain.
        let clients: Vec<_> = (0..6).map(|_| (0, street.client())).collect();
        street.settle();
        street.mute.push(hop_at(2));
        street.pass(Duration::from_millis(2_300));
        // The first tries were given up; now those who were dialled answer, in any order.
        let count = street.houses[0].world.borrow().sockets.len();
        let late = |peer| (peer == hop_at(1)).then_some(1);
        for socket in 0..count {
            let there = late(street.houses[0].world.borrow().sockets[socket].peer);
            if let Some(there) = there {
                street.link_late(0, socket, there);
            }
        }
        street.mute.clear();
        street.settle();
        for client in &clients {
            street.send(*client, b"hello");
        }
        street.pass(Duration::from_secs(10));
        for reached in &street.reached {
            let got = street.received(*reached);
            assert!(got == b"hello" || got.is_empty(), "{got:?}");
        }
        // Nobody hangs: each has reached the destination, or has been told that it has not.
        let served = street.reached.iter();
        let served = served.filter(|&&reached| street.received(reached) == b"hello");
        let denied = clients
            .iter()
            .filter(|&&one| street.fate(one) != Fate::Open);
        assert_eq!(served.count() + denied.count(), clients.len());
        let everyone = [&clients[..], &street.reached[..]].concat();
        for one in everyone {
            street.end(one);
        }
        street.settle();
        street.pass(Duration::from_secs(20));
        assert!(street.houses[0].worker.sessions() <= 1, "the prober alone");
        let open = street.houses[0].worker.holdings().conns;
        assert!(open <= 1, "late connections are held: {open}");
        drain(street);
    });
}

const PROBE: Duration = Duration::from_secs(30);
