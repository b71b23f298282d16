//! Connections that go from one session to another, sessions that begin others, and residents.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use towpath::reactor::Handle;
use towpath::session::{Close, Event, Mail, Resident, Seat, Session};

use super::super::house::{House, Shape};
use super::super::row::Row;
use super::{Actor, row, seeds};

/// What the test knows of those who echo what they are handed.
#[derive(Default)]
struct Hall {
    keepers: Vec<Handle>,
    handed: usize,
    returned: usize,
    ended: usize,
}

/// Echoes every connection that is handed to it, each to its end.
fn keeper(hall: Rc<RefCell<Hall>>) -> Actor {
    Actor::new(move |event, cx| {
        match event {
            Event::Accepted { .. } => hall.borrow_mut().keepers.push(cx.handle),
            Event::Handed { mail, .. } => {
                assert_eq!(mail.open::<&str>(), Some("for you"));
                hall.borrow_mut().handed += 1;
            }
            Event::Data { conn, rx, .. } => {
                let count = rx.len();
                cx.forward(rx, conn, count);
            }
            Event::Eof { conn } => {
                hall.borrow_mut().ended += 1;
                cx.close(conn);
            }
            _ => {}
        }
        Ok(())
    })
}

/// Reads one byte, which says whom the rest is for, and hands the connection on unread.
fn porter(hall: Rc<RefCell<Hall>>, greets: bool) -> Actor {
    let mut done = false;
    Actor::new(move |event, cx| {
        match event {
            Event::Data { conn, rx, .. } if !done => {
                done = true;
                let mut first = [0];
                rx.copy_to(0, &mut first);
                rx.consume(1);
                if greets {
                    cx.send(conn, b"!");
                }
                let keepers = &hall.borrow().keepers;
                let to = keepers[usize::from(first[0]) % keepers.len()];
                cx.hand(conn, to, Mail::new("for you"));
                cx.arm(0, Duration::from_secs(1));
            }
            Event::Data { .. } => panic!("bytes of a connection that was handed on"),
            Event::Returned { .. } => hall.borrow_mut().returned += 1,
            // It stays for a while, so that what comes back is heard of.
            Event::Timer { .. } => return Err(Close::finished()),
            _ => {}
        }
        Ok(())
    })
}

fn hall_of(seed: u64, cores: usize, greets: bool) -> (Row, Rc<RefCell<Hall>>) {
    let hall = Rc::new(RefCell::new(Hall::default()));
    let shared = hall.clone();
    let mut row = row(seed, cores, 1_000, move |_, listener| match listener {
        0 => keeper(shared.clone()),
        _ => porter(shared.clone(), greets),
    });
    for core in 0..cores {
        row.cores[core].world.borrow_mut().connect_to(0).unwrap();
        row.quiesce();
    }
    (row, hall)
}

/// A few bytes of somebody arrive, or are read.
fn nudge(row: &mut Row) {
    let core = row.random.below(row.cores.len());
    let (whom, most) = (row.random.below(1_000), 1 + row.random.below(700));
    let mut world = row.cores[core].world.borrow_mut();
    let id = whom % world.sockets.len();
    world.deliver(id, most);
    world.receive(id, most);
}

fn rush(row: &mut Row) {
    for _ in 0..200 {
        for core in &row.cores {
            core.world.borrow_mut().rush();
        }
        row.quiesce();
    }
}

#[test]
fn a_connection_that_is_handed_on_loses_no_byte_on_any_core() {
    seeds(60, |seed| {
        let cores = 1 + seed as usize % 3;
        let greets = seed % 2 == 0;
        let (mut row, hall) = hall_of(seed, cores, greets);
        let mut expected = Vec::new();
        for number in 0..20_u8 {
            let core = row.random.below(cores);
            let whom = row.random.below(cores) as u8;
            let payload = vec![number; 1 + row.random.below(30_000)];
            let mut world = row.cores[core].world.borrow_mut();
            let id = world.connect_to(1).unwrap();
            world.send(id, &[whom]);
            world.send(id, &payload);
            world.end(id);
            let greeting = if greets { &b"!"[..] } else { b"" };
            expected.push([greeting, &payload].concat());
        }
        for _ in 0..400 {
            nudge(&mut row);
            row.step();
        }
        rush(&mut row);
        assert_eq!(hall.borrow().handed, expected.len());
        assert_eq!(hall.borrow().ended, expected.len());
        let mut received = Vec::new();
        for core in &row.cores {
            let world = core.world.borrow();
            let some = world.sockets.iter().filter(|one| !one.received.is_empty());
            received.extend(some.map(|one| one.received.clone()));
        }
        received.sort();
        expected.sort();
        assert!(received == expected, "bytes were lost or mixed up");
    });
}

#[test]
fn a_connection_for_somebody_who_has_gone_is_closed_and_the_words_come_back() {
    seeds(20, |seed| {
        let cores = 1 + seed as usize % 2;
        let (mut row, hall) = hall_of(seed, cores, false);
        let gone = Handle {
            session: hall.borrow().keepers[0].session,
            core: (cores - 1) as u8,
        };
        // A slot that nobody is in any more: its generation is an old one.
        let session = gone.session;
        let late = towpath::reactor::SessionKey::from_parts(
            session.index(),
            session.generation().wrapping_add(1).max(1),
        );
        hall.borrow_mut().keepers = vec![Handle {
            session: late.unwrap(),
            ..gone
        }];
        let id = row.cores[0].world.borrow_mut().connect_to(1).unwrap();
        row.cores[0].world.borrow_mut().send(id, b"\0rest");
        rush(&mut row);
        assert_eq!(hall.borrow().returned, 1);
        assert_eq!(hall.borrow().handed, 0);
        let closed = |row: &Row| {
            let worlds = row.cores.iter().map(|core| core.world.borrow());
            worlds
                .map(|world| world.sockets.iter().filter(|one| one.closed).count())
                .sum::<usize>()
        };
        assert!(closed(&row) >= 1);
    });
}

/// A seat with one resident, which begins a session for each letter of its name and ends.
struct Inn {
    log: Rc<RefCell<Vec<String>>>,
}

impl Seat for Inn {
    fn accept(&mut self, _: usize) -> Box<dyn Session> {
        Box::new(Actor::new(|_, _| Ok(())))
    }

    fn resident(&mut self, number: usize) -> Option<Resident> {
        let log = Rc::clone(&self.log);
        let session = Actor::new(move |event, cx| match event {
            Event::Opened => {
                log.borrow_mut().push("resident".into());
                for _ in 0..2 {
                    let guests = Rc::clone(&log);
                    let guest = Actor::new(move |event, _| match event {
                        Event::Opened => {
                            guests.borrow_mut().push("guest".into());
                            Ok(())
                        }
                        _ => Err(Close::finished()),
                    });
                    let found = cx.spawn(Box::new(guest)).map(|handle| handle.core);
                    assert_eq!(found, Some(0));
                }
                cx.arm(0, Duration::from_secs(1));
                Ok(())
            }
            _ => Err(Close::finished()),
        });
        (number == 0).then(|| Resident {
            tenure: 0,
            name: "inn".into(),
            session: Box::new(session),
        })
    }
}

#[test]
fn a_resident_begins_by_itself_and_comes_again() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let seat = Inn { log: log.clone() };
    let mut house = House::new(1, Shape::default(), |_, _| Box::new(seat));
    house.worker.reside();
    house.quiesce();
    assert_eq!(*log.borrow(), ["resident", "guest", "guest"]);
    assert_eq!(house.worker.sessions(), 3);
    let end = house.now + Duration::from_millis(1_500);
    house.wait(end);
    assert_eq!(log.borrow().len(), 6, "it came again, and its guests");
    // Nobody waits for it when the server stops, but for its guests they do.
    house.phase.drain();
    house.turn();
    house.quiesce();
    assert!(house.worker.is_done(), "{} left", house.worker.sessions());
}

#[test]
fn a_session_begins_no_other_beyond_the_cap() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let shared = log.clone();
    let shape = Shape {
        most: 3,
        ..Shape::default()
    };
    let cast = move |_, _| {
        let shared = shared.clone();
        Actor::new(move |event, cx| {
            if let Event::Accepted { .. } = event {
                for _ in 0..5 {
                    let begun = cx.spawn(Box::new(Actor::new(|_, _| Ok(()))));
                    shared.borrow_mut().push(begun.is_some());
                }
            }
            Ok(())
        })
    };
    let seat = super::Cast(Box::new(move |listener| cast(0, listener)));
    let mut house = House::new(1, shape, |_, _| Box::new(seat));
    house.world.borrow_mut().connect();
    house.quiesce();
    assert_eq!(*log.borrow(), [true, true, false, false, false]);
}
