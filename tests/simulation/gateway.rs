//! The gateway among a random crowd of clients and servers, on one to three workers, and a model of
//! every virtual connection: who is joined with whom, which messages come in which order, who is
//! told of the end.

mod cases;
mod model;
mod peer;
mod play;
mod town;

use std::time::Duration;

use towpath::config::Secret;
use towpath::protocols::gateway::Config;
use towpath::protocols::gateway::wire::Dialect;

use self::peer::Fate;
use self::town::Town;
use super::seeds;
use super::world::Random;

/// A gateway that is as strict as the random numbers say.
fn config(random: &mut Random) -> Config {
    let dialects = [None, Some(Dialect::Document), Some(Dialect::Fastway)];
    let idle = [Duration::ZERO, Duration::from_secs(4)][random.below(2)];
    Config {
        clients: vec!["10.0.0.1:7500".parse().unwrap()],
        servers: vec!["10.0.0.1:7501".parse().unwrap()],
        terms: Default::default(),
        dialect: dialects[random.below(3)],
        server_dialect: [Dialect::Document, Dialect::Fastway][random.below(2)],
        auth_key: [None, Secret::new(b"the key of the town")][random.below(2)].take(),
        max_packet: [64, 5_000, 100_000][random.below(3)],
        max_conns_per_client: [0, 1, 3][random.below(3)],
        client_idle_timeout: idle,
        server_idle_timeout: idle,
        slow_receiver_timeout: Duration::from_secs(3),
        max_queue_memory: [0, 200_000, 96 << 20][random.below(3)],
    }
}

fn town(seed: u64) -> Town {
    let mut random = Random::new(seed);
    let config = config(&mut random);
    let cores = 1 + random.below(3);
    let depth = [2, 10_000, 10_000][random.below(3)];
    let town = Town::new(seed, config, cores, depth);
    for core in &town.row.cores {
        let mut world = core.world.borrow_mut();
        world.send_room = [300, 5_000, 100_000][random.below(3)];
        world.receive_room = [2_000, 40_000][random.below(2)];
    }
    town
}

#[test]
fn a_random_crowd_is_joined_as_the_model_says() {
    seeds(150, |seed| {
        let mut town = town(seed);
        for _ in 0..1_500 {
            town.step();
        }
        town.settle();
        town.check_settled();
        match town.random.below(4) {
            0 => drain(&mut town),
            1 => fall_silent(&mut town),
            _ => {}
        }
        leave(&mut town);
        town.row.assert_empty();
    });
}

/// The server stops: whoever has a connection keeps it, nobody gets another, and whoever has none
/// left is closed.
fn drain(town: &mut Town) {
    town.row.phase.drain();
    town.stopping = true;
    let second = Duration::from_secs(1);
    town.wait(second);
    for peer in 0..town.peers.len() {
        let one = &town.peers[peer];
        let idle = one.open.is_empty() && one.due.is_empty();
        assert!(
            !idle || !one.is_alive(),
            "peer {peer} has nothing to stay for"
        );
        if one.may_speak() && one.is_client() {
            town.dial(peer, 8, 0);
        }
    }
    town.settle();
    town.check_settled();
    for peer in 0..town.peers.len() {
        let mut open: Vec<usize> = town.peers[peer].open.values().copied().collect();
        open.sort_unstable();
        for line in open {
            town.hang_up(peer, line);
        }
    }
    town.settle();
    town.wait(second);
    let alive = |peer: &usize| town.peers[*peer].is_alive();
    assert_eq!((0..town.peers.len()).find(alive), None, "somebody stays");
    assert!(town.row.cores.iter().all(|core| core.worker.is_done()));
}

/// Nobody says anything any more, not even to a ping: with idle timeouts all are closed in time.
fn fall_silent(town: &mut Town) {
    let idle = town.config.client_idle_timeout;
    let alive = |town: &Town| town.peers.iter().filter(|one| one.is_alive()).count();
    let before = alive(town);
    town.wait(idle.max(Duration::from_secs(10)) + Duration::from_secs(1));
    match idle.is_zero() {
        true => assert_eq!(alive(town), before, "silence is no fault"),
        false => assert_eq!(alive(town), 0, "somebody may be silent for ever"),
    }
}

/// Everybody leaves, one way or the other.
fn leave(town: &mut Town) {
    for peer in 0..town.peers.len() {
        if town.peers[peer].is_alive() {
            let fate = [Fate::Ended, Fate::Reset][town.random.below(2)];
            town.part(peer, fate);
        }
    }
    town.settle();
    // Last bytes may linger.
    town.wait(Duration::from_secs(40));
}
