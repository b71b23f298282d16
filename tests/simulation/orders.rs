//! Orders of the house: sessions listed and ended from outside, closes spread over a drain.

use std::sync::Arc;
use std::time::Duration;

use towpath::reactor::{Address, Mailbox, SessionKey, mailbox};
use towpath::stats::{Reason, sum_roles};
use towpath::worker::{Answer, Filter, Order, Outcome, Page, Task};

use super::engine::{house, pair};
use super::house::{DRAIN, House, Shape, Silent};
use super::seeds;
use super::world::SimNetwork;

pub struct Asker {
    address: Address<Answer>,
    answers: Mailbox<Answer>,
}

impl Asker {
    pub fn new() -> Self {
        let (address, answers) = mailbox(64, Arc::new(Silent));
        Self { address, answers }
    }

    pub fn ask(&mut self, house: &mut House, task: Task<SimNetwork>) -> Outcome {
        let order = Order {
            ticket: 7,
            task,
            answer: self.address.clone(),
        };
        assert!(house.ordering.post(order).is_ok());
        house.quiesce();
        let mut heard = Vec::new();
        self.answers.open(64, |answer| heard.push(answer));
        assert_eq!(heard.len(), 1);
        assert_eq!((heard[0].core, heard[0].ticket), (0, 7));
        heard.remove(0).outcome
    }

    fn list(&mut self, house: &mut House, from: u32, most: usize) -> Page {
        let filter = Filter::default();
        match self.ask(house, Task::List { from, most, filter }) {
            Outcome::Listed(page) => page,
            _ => panic!("another order's answer"),
        }
    }

    fn kick(&mut self, house: &mut House, session: SessionKey) -> bool {
        matches!(self.ask(house, Task::Kick(session)), Outcome::Kicked(true))
    }
}

#[test]
fn a_walk_over_many_goes_in_steps_and_finds_each_once() {
    let mut house = house(1, Shape::default());
    let mut asker = Asker::new();
    for _ in 0..3000 {
        house.world.borrow_mut().connect();
    }
    house.settle();
    let mut seen = std::collections::HashSet::new();
    let (mut from, mut steps) = (0, 0);
    loop {
        let page = asker.list(&mut house, from, 700);
        assert!(page.rows.len() <= 128, "a step is bounded");
        assert!(page.rows.iter().all(|row| seen.insert(row.id)));
        steps += 1;
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(seen.len(), 3000);
    assert!(steps >= 3000 / 128);
}

#[test]
fn a_kick_ends_one_relay_and_its_bytes_are_known_until_then() {
    seeds(30, |seed| {
        let mut house = house(seed, Shape::default());
        let mut asker = Asker::new();
        let pairs: Vec<_> = (0..4).map(|_| pair(&mut house, b"-")).collect();
        let (client, backend) = pairs[2];
        house.world.borrow_mut().send(client, &[1; 999]);
        house.world.borrow_mut().send(backend, &[2; 50]);
        house.settle();
        let rows = asker.list(&mut house, 0, 100).rows;
        let row = rows.iter().find(|row| row.moved == [1000, 50]);
        let row = row.unwrap_or_else(|| panic!("{rows:?}")).clone();
        assert_eq!((row.role, row.connections), ("agent", 2));
        // Now and then something is under way when it comes.
        let rushed = seed % 2 == 0;
        if rushed {
            house.world.borrow_mut().send_room = 0;
            house.world.borrow_mut().send(client, &vec![3; 300_000]);
            house.world.borrow_mut().deliver(client, 300_000);
            house.turn();
        }
        assert!(asker.kick(&mut house, row.id.session));
        assert!(!asker.kick(&mut house, row.id.session), "only once");
        house.settle();
        {
            let world = house.world.borrow();
            for end in [client, backend] {
                assert!(world.sockets[end].closed);
                assert!(rushed || !world.sockets[end].aborted, "all had arrived");
            }
        }
        // The slot goes to the next, whom the old name does not reach.
        pair(&mut house, b"-");
        assert!(!asker.kick(&mut house, row.id.session));
        assert_eq!(house.worker.sessions(), 4);
        let roles = sum_roles([&*house.counters]);
        assert_eq!(roles[0].ended[Reason::Kicked as usize], 1);
        assert_eq!((roles[0].open, roles[0].opened), (4, 5));
        for row in asker.list(&mut house, 0, 100).rows {
            assert!(asker.kick(&mut house, row.id.session));
        }
        house.settle();
        house.assert_empty();
    });
}

#[test]
fn a_drain_with_a_spread_closes_each_at_its_time() {
    seeds(10, |seed| {
        let spread = Duration::from_secs(10);
        let mut house = house(
            seed,
            Shape {
                drain_spread: spread,
                ..Shape::default()
            },
        );
        for _ in 0..60 {
            pair(&mut house, b"-");
        }
        house.phase.drain();
        house.turn();
        assert_eq!(house.worker.sessions(), 60, "nobody is closed at once");
        let start = house.now;
        let mut left = Vec::new();
        for second in 1..=10 {
            house.wait(start + Duration::from_secs(second));
            left.push(house.worker.sessions());
        }
        assert!(left[1] < 60 && left[4] > 5 && left[4] < 55, "{left:?}");
        assert_eq!(left[9], 0, "{left:?}");
        house.settle();
        assert!(house.worker.is_done());
        // The drain's own timer is all that is left, until it has fired.
        house.wait(start + DRAIN);
        house.assert_empty();
    });
}
