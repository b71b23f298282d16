//! Another configuration for a worker at work: listeners come and go under live relays.

use std::sync::Arc;
use std::time::Duration;

use towpath::session::{Listen, Transport};
use towpath::worker::{Change, Leaving, Opened, Opening, Outcome, Renewal, Renewed, Task};

use super::engine::{house, pair};
use super::house::{DRAIN, House, IDLE, Shape};
use super::orders::Asker;
use super::seeds;
use super::world::{self, SimNetwork};

/// A renewal of the house's one service.
fn renewal(listeners: Vec<Option<usize>>, opened: Vec<Opening<SimNetwork>>) -> Renewal<SimNetwork> {
    let closed = listeners
        .iter()
        .enumerate()
        .filter(|(_, new)| new.is_none());
    let leaving = Leaving {
        listeners: closed.map(|(old, _)| (0, old)).collect(),
        routes: Vec::new(),
    };
    Renewal {
        services: vec![Change {
            service: 0,
            begins: None,
            listeners,
            opened,
            is_renewed: true,
        }],
        leaving: Arc::new(leaving),
        connections: 10_000,
        idle_timeout: IDLE,
        drain_timeout: DRAIN,
        drain_spread: Duration::ZERO,
    }
}

fn opening(house: &House, number: usize, port: u16) -> Opening<SimNetwork> {
    let listen = Listen {
        role: "agent",
        name: None,
        address: ([10, 0, 0, 1], port).into(),
        transport: Transport::Stream,
        terms: std::sync::Arc::default(),
    };
    let socket = world::listen(&house.world, listen.address).unwrap();
    Opening {
        number,
        socket: Opened::Stream(socket),
        listen,
    }
}

fn renew(house: &mut House, asker: &mut Asker, renewal: Renewal<SimNetwork>) -> Renewed {
    match asker.ask(house, Task::Renew(Box::new(renewal))) {
        Outcome::Renewed(renewed) => renewed,
        _ => panic!("another order's answer"),
    }
}

fn expect_passing(house: &mut House, ends: (usize, usize), word: &[u8]) {
    let before = house.world.borrow().sockets[ends.1].received.len();
    house.world.borrow_mut().send(ends.0, word);
    house.settle();
    assert_eq!(
        house.world.borrow().sockets[ends.1].received[before..],
        *word
    );
}

#[test]
fn a_listener_goes_another_comes_and_relays_stay_until_their_time_is_over() {
    seeds(20, |seed| {
        let mut house = house(seed, Shape::default());
        let mut asker = Asker::new();
        let old = pair(&mut house, b"-");
        // The first is the second from now on: its relay does not notice.
        let opened = vec![opening(&house, 0, 7101)];
        let renewed = renew(&mut house, &mut asker, renewal(vec![Some(1)], opened));
        assert_eq!(renewed.leaving, [0; 0]);
        assert!(renewed.failures.is_empty());
        expect_passing(&mut house, old, b"still");
        let new = house.world.borrow_mut().connect_to(1).unwrap();
        house.world.borrow_mut().send(new, b"-");
        house.settle();
        let backend = house.world.borrow().sockets.len() - 1;
        house.world.borrow_mut().settle_dial(backend, true);
        house.settle();
        // What was the first goes, by its present number.
        let gone = renewal(vec![Some(0), None], Vec::new());
        let counted = asker.ask(&mut house, Task::Count(Arc::clone(&gone.leaving)));
        assert!(matches!(counted, Outcome::Counted(counts) if counts == [1]));
        let renewed = renew(&mut house, &mut asker, gone);
        assert_eq!(renewed.leaving, [1]);
        assert!(
            house.world.borrow_mut().connect_to(0).is_none(),
            "it is closed"
        );
        expect_passing(&mut house, old, b"until its time");
        expect_passing(&mut house, (new, backend), b"for good");
        let over = house.now + DRAIN + Duration::from_millis(10);
        house.wait(over);
        house.settle();
        assert_eq!(house.worker.sessions(), 1);
        expect_passing(&mut house, (new, backend), b"still");
    });
}
