//! Single cases that a random crowd meets seldom.

use std::time::Duration;

use towpath::protocols::gateway::Config;
use towpath::protocols::gateway::wire::{Command, Dialect};

use super::peer::Fate;
use super::town::Town;

/// A gateway that bounds little; all speak the document's dialect.
fn plain() -> Config {
    Config {
        clients: vec!["10.0.0.1:7500".parse().unwrap()],
        servers: vec!["10.0.0.1:7501".parse().unwrap()],
        terms: Default::default(),
        dialect: Some(Dialect::Document),
        server_dialect: Dialect::Document,
        auth_key: None,
        max_packet: 20_000,
        max_conns_per_client: 2,
        client_idle_timeout: Duration::ZERO,
        server_idle_timeout: Duration::ZERO,
        slow_receiver_timeout: Duration::from_secs(3),
        max_queue_memory: 1 << 20,
    }
}

/// A client on core 0, joined with a server on the last core.
fn joined(cores: usize) -> (Town, usize, usize) {
    let mut town = Town::new(1, plain(), cores, 10_000);
    let server = town.settled_server(cores - 1, 7);
    let client = town.join_client(0, Dialect::Document).unwrap();
    town.dial(client, 1, 7);
    town.settle();
    assert!(town.peers[client].open.contains_key(&1));
    (town, client, server)
}

/// Offers far more to a peer that reads nothing than may be queued for it.
fn flood(town: &mut Town, from: usize, to: usize) {
    town.peers[to].stalled = true;
    for _ in 0..150 {
        town.talk(from, 0, 10_000);
    }
    deliver(town, from);
    let socket = town.peers[from].socket;
    let held = town.world(from).borrow().sockets[socket].untaken();
    assert!(held > 50_000, "the sender is not held");
}

/// All that a peer has sent arrives; nobody reads what comes of it.
fn deliver(town: &mut Town, peer: usize) {
    for _ in 0..200 {
        let socket = town.peers[peer].socket;
        town.world(peer).borrow_mut().deliver(socket, usize::MAX);
        town.quiesce();
    }
}

/// Whoever is held because its receiver has no room is read on when the receiver goes, on the same
/// core or on another.
#[test]
fn a_held_sender_goes_on_when_its_receiver_has_gone() {
    for cores in [1, 2] {
        for fate in [Fate::Reset, Fate::Alive] {
            let (mut town, client, server) = joined(cores);
            flood(&mut town, client, server);
            match fate {
                Fate::Reset => town.part(server, Fate::Reset),
                _ => {
                    town.hang_up(server, 0);
                    deliver(&mut town, server);
                }
            }
            town.settle();
            town.check_settled();
            assert!(town.peers[client].lines[0].ended);
        }
    }
}

/// An id of the peers' own choice is another's only when both cores have forgotten its first owner.
#[test]
fn an_id_that_the_other_core_still_knows_is_not_given_again() {
    let (mut town, first, server) = joined(2);
    let second = town.join_client(1, Dialect::Document).unwrap();
    let other = town.settled_server(1, 8);
    town.settle();
    town.hang_up(first, 0);
    let socket = town.peers[first].socket;
    town.world(first).borrow_mut().deliver(socket, usize::MAX);
    while !town.world(first).borrow().sockets[socket].is_taken() {
        town.row.turn(0);
    }
    // The word of the end is on its way to the other core, where the id comes first.
    town.dial(second, 1, 8);
    let socket = town.peers[second].socket;
    town.world(second).borrow_mut().deliver(socket, usize::MAX);
    town.row.turn(1);
    town.settle();
    town.check_settled();
    assert!(town.peers[server].open.is_empty(), "the end was not told");
    town.part(server, Fate::Ended);
    town.settle();
    town.check_settled();
    // Now it is free.
    if town.peers[second].open.is_empty() {
        town.dial(second, 1, 8);
        town.settle();
    }
    assert!(town.peers[second].open.contains_key(&1));
    assert!(town.peers[other].open.contains_key(&1));
}

/// However much is offered to a peer that reads nothing, no more waits for it than may.
#[test]
fn a_stalled_receiver_bounds_what_waits_for_it() {
    let config = plain();
    let frame = config.max_packet as usize;
    for cores in [1, 2] {
        for to_server in [true, false] {
            let (mut town, client, server) = joined(cores);
            let (from, to) = if to_server {
                (client, server)
            } else {
                (server, client)
            };
            flood(&mut town, from, to);
            let blocks = town
                .row
                .cores
                .iter()
                .map(|core| core.worker.holdings().blocks);
            let held = blocks.sum::<usize>() * 16 * 1024;
            // What was read of the sender's and not taken, and the beginnings and ends of rings.
            let read = 5 * QUANTUM + 4 * 16 * 1024;
            let queue = match to_server {
                true => QUANTUM + frame,
                false => config.max_queue_memory + QUANTUM + frame,
            };
            let most = read + queue + if cores > 1 { QUANTUM + frame } else { 0 };
            assert!(held <= most, "{held} bytes are held, at most {most} may be");
            // Its own commands are taken all the same, and others go on.
            let third = town.join_client(0, Dialect::Document).unwrap();
            let fourth = town.settled_server(cores - 1, 9);
            town.dial(third, 2, 9);
            for peer in [third, fourth, third] {
                deliver(&mut town, peer);
                town.read(peer, usize::MAX);
            }
            assert!(
                town.peers[third].open.contains_key(&2),
                "others are held, too"
            );
            town.settle();
            town.check_settled();
        }
    }
}

/// Each slot of a client's comes back, however its connections end.
#[test]
fn no_slot_is_lost_however_connections_end() {
    for cores in 1..=3 {
        let mut town = Town::new(cores as u64, plain(), cores, 10_000);
        let client = town.join_client(0, Dialect::Document).unwrap();
        for round in 0..100 {
            let server = town.settled_server(round % cores, 7);
            // One more than it may have.
            for id in 1..=3 {
                town.dial(client, id, 7);
            }
            match round % 4 {
                // The server goes while it is dialled.
                0 => town.part(server, Fate::Reset),
                1 => {
                    town.settle();
                    assert_eq!(town.peers[client].open.len(), 2, "in round {round}");
                    town.say(client, Command::Close { conn: 1 });
                    town.say(client, Command::Close { conn: 2 });
                    for line in town.peers[client].open.clone().into_values() {
                        town.peers[client].lines[line].hung_up = true;
                    }
                }
                2 => town.settle(),
                _ => {
                    let socket = town.peers[client].socket;
                    town.world(client).borrow_mut().deliver(socket, 20);
                    town.row.step();
                }
            }
            if town.peers[server].is_alive() {
                town.part(server, Fate::Ended);
            }
            town.settle();
            town.check_settled();
            assert!(town.peers[client].open.is_empty());
        }
    }
}

const QUANTUM: usize = 64 * 1024;
