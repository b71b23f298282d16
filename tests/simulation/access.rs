//! The chain role's plain listeners in the simulated world: when they dial, whom, and how a
//! connection ends that leads nowhere.

use std::net::SocketAddr;
use std::time::Duration;

use towpath::config::{Core, KEYS, Settings};
use towpath::protocols::chain::{self, Access, Config};
use towpath::session::{Ground, Role};
use towpath::upstream::Target;

use super::house::{CONNECT, House, Shape};
use super::seeds;

/// A house whose one listener leads to these destinations.
fn house(seed: u64, to: &[(&str, u16)]) -> House {
    let target = |&(host, port): &(&str, u16)| Target {
        host: host.into(),
        port,
    };
    let listen = vec!["10.0.0.1:7100".parse().unwrap()];
    let access = Access::tcp("db", listen, to.iter().map(target).collect());
    let mut config = Config::read(&mut Settings::new(&[KEYS, chain::config::KEYS]));
    config.listen.clear();
    config.access.push(access);
    House::new(seed, Shape::default(), |memory, names| {
        let limits = Core::read(&mut Settings::new(&[KEYS])).limits;
        assert_eq!(limits.connect_timeout, CONNECT);
        let ground = Ground {
            memory,
            names,
            limits,
            addresses: Vec::new(),
            own: [].into(),
            cores: 1,
            connections: 1000,
            data_dir: std::path::PathBuf::new(),
        };
        config.service(&ground).seat(0)
    })
}

/// Connects a client and lets the dial begin; the ids of both sockets.
fn dialling(house: &mut House) -> (usize, usize) {
    let client = house.world.borrow_mut().connect();
    house.settle();
    (client, latest(house))
}

fn latest(house: &House) -> usize {
    house.world.borrow().sockets.len() - 1
}

/// The addresses that were dialled, in their order; every other socket is a client's.
fn dialled(house: &House) -> Vec<SocketAddr> {
    let world = house.world.borrow();
    let peers = world.sockets.iter().map(|socket| socket.peer);
    peers
        .filter(|peer| peer.ip().to_string() != "10.1.0.1")
        .collect()
}

fn settle_dial(house: &mut House, id: usize, accepted: bool) {
    house.world.borrow_mut().settle_dial(id, accepted);
    house.settle();
}

/// Both ends finish, and all that they sent has arrived.
fn finish(house: &mut House, client: usize, backend: usize, up: &[u8], down: &[u8]) {
    for id in [client, backend] {
        house.world.borrow_mut().end(id);
    }
    house.settle();
    {
        let world = house.world.borrow();
        assert!(world.sockets[backend].received == up, "to the backend");
        assert!(world.sockets[client].received == down, "to the client");
        assert!(!world.sockets[client].aborted && !world.sockets[backend].aborted);
    }
    house.assert_empty();
}

/// The client ended by FIN, or by a close with nothing unread, and got no byte.
fn assert_ended_quietly(house: &House, client: usize) {
    let world = house.world.borrow();
    let socket = &world.sockets[client];
    assert!(socket.is_over() && !socket.aborted);
    assert_eq!(socket.received, b"");
}

#[test]
fn the_destination_is_dialled_before_the_client_says_a_word() {
    seeds(20, |seed| {
        let mut house = house(seed, &[("10.9.0.7", 5432)]);
        let (client, backend) = dialling(&mut house);
        assert_eq!(dialled(&house), ["10.9.0.7:5432".parse().unwrap()]);
        settle_dial(&mut house, backend, true);
        house
            .world
            .borrow_mut()
            .send(backend, b"the server speaks first");
        house.settle();
        house.world.borrow_mut().send(client, b"then the client");
        finish(
            &mut house,
            client,
            backend,
            b"then the client",
            b"the server speaks first",
        );
    });
}

/// More than the engine reads ahead, and the end behind it, at every stage of the dialling.
#[test]
fn what_the_client_sends_meanwhile_and_its_end_wait_for_the_relay() {
    seeds(40, |seed| {
        let mut house = house(seed, &[("backend.test", 80)]);
        let client = house.world.borrow_mut().connect();
        let mut sent = Vec::new();
        for round in 0..8 {
            let count = house.world.borrow_mut().random.below(40_000);
            let bytes = house.world.borrow_mut().random.bytes(count);
            house.world.borrow_mut().send(client, &bytes);
            sent.extend(bytes);
            if round == 7 {
                house.world.borrow_mut().end(client);
            }
            house.world.borrow_mut().deliver(client, 30_000);
            house.turn();
            if round == 3 {
                house.serve_questions(usize::MAX);
            }
        }
        house.settle();
        let backend = latest(&house);
        assert!(backend > client, "the dial is under way");
        settle_dial(&mut house, backend, true);
        assert!(
            house.world.borrow().sockets[backend].shut,
            "its end is passed on"
        );
        assert!(!house.world.borrow().sockets[client].shut, "one way only");
        house
            .world
            .borrow_mut()
            .send(backend, b"the answer to all of it");
        finish(
            &mut house,
            client,
            backend,
            &sent,
            b"the answer to all of it",
        );
    });
}

#[test]
fn every_address_and_every_destination_is_tried_before_the_client_is_closed() {
    for unread in [0, 10, 100_000, 500_000] {
        let mut house = house(1, &[("backend.test", 80), ("10.9.0.7", 81)]);
        let client = house.world.borrow_mut().connect();
        house.world.borrow_mut().send(client, &vec![b'x'; unread]);
        house.settle();
        for _ in 0..3 {
            let backend = latest(&house);
            settle_dial(&mut house, backend, false);
        }
        let all = ["10.9.0.1:80", "10.9.0.2:80", "10.9.0.7:81"].map(|at| at.parse().unwrap());
        assert_eq!(dialled(&house), all);
        assert_ended_quietly(&house, client);
        // A client that has more to send finds a reader, for a while.
        let shut = house.world.borrow().sockets[client].shut;
        assert_eq!(shut, unread > 65_536, "{unread} unread");
        for _ in 0..4 {
            house.pass(Duration::from_secs(1));
        }
        house.assert_empty();
    }
}

#[test]
fn destinations_take_turns_and_a_failed_one_rests() {
    let mut house = house(1, &[("10.9.0.1", 80), ("10.9.0.2", 80), ("10.9.0.3", 80)]);
    let serve = |house: &mut House, refuse: &str| {
        let before = dialled(house).len();
        let (client, mut backend) = dialling(house);
        if house.world.borrow().sockets[backend].peer == refuse.parse().unwrap() {
            settle_dial(house, backend, false);
            backend = latest(house);
        }
        settle_dial(house, backend, true);
        for id in [client, backend] {
            house.world.borrow_mut().end(id);
        }
        house.settle();
        let all = dialled(house).into_iter().map(|at| at.to_string());
        all.skip(before).collect::<Vec<_>>().join(" ")
    };
    let [one, two, three] = ["10.9.0.1:80", "10.9.0.2:80", "10.9.0.3:80"];
    assert_eq!(serve(&mut house, two), one);
    assert_eq!(serve(&mut house, two), format!("{two} {three}"));
    assert_eq!(serve(&mut house, two), three);
    assert_eq!(serve(&mut house, two), one);
    assert_eq!(serve(&mut house, two), three, "passed over");
    house.now += Duration::from_secs(5);
    assert_eq!(serve(&mut house, "0.0.0.0:0"), three);
    assert_eq!(serve(&mut house, "0.0.0.0:0"), one);
    assert_eq!(serve(&mut house, "0.0.0.0:0"), two, "rested");
    house.assert_empty();
}

#[test]
fn a_client_that_resets_ends_the_dialling() {
    let mut house = house(1, &[("10.9.0.7", 80)]);
    let (client, backend) = dialling(&mut house);
    house.world.borrow_mut().reset(client);
    house.settle();
    assert!(house.world.borrow().sockets[backend].closed);
    house.assert_empty();
}

#[test]
fn a_destination_that_never_answers_is_given_up() {
    let mut house = house(1, &[("10.9.0.7", 80)]);
    let (client, _) = dialling(&mut house);
    let start = house.now;
    while house.worker.sessions() > 0 {
        house.pass(Duration::from_secs(1));
    }
    assert!(house.now - start < CONNECT + Duration::from_secs(2));
    assert_ended_quietly(&house, client);
    house.assert_empty();
}

#[test]
fn a_stopping_server_lets_dials_and_relays_go_on() {
    let mut house = house(1, &[("10.9.0.7", 80)]);
    let relayed = dialling(&mut house);
    settle_dial(&mut house, relayed.1, true);
    let dialled = dialling(&mut house);
    house.phase.drain();
    house.settle();
    assert_eq!(house.worker.sessions(), 2);
    settle_dial(&mut house, dialled.1, true);
    for (client, backend) in [relayed, dialled] {
        house.world.borrow_mut().send(client, b"still here");
        house.world.borrow_mut().send(backend, b"still there");
        for id in [client, backend] {
            house.world.borrow_mut().end(id);
        }
        house.settle();
        let world = house.world.borrow();
        assert_eq!(world.sockets[backend].received, b"still here");
        assert_eq!(world.sockets[client].received, b"still there");
    }
    // The drain's own timer is all that is left, and it does not keep the worker.
    assert!(house.worker.is_done());
}
