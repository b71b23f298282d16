//! Letters between sessions of one core and of several, and the leave that every session takes
//! once, however it ends.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use towpath::reactor::Handle;
use towpath::session::{Cause, Close, Event, Mail};
use towpath::stats::Metric;

use super::{Actor, row, settle};
use crate::seeds;

/// Who is there, and what they have told each other.
#[derive(Default)]
struct Office {
    /// The actors by their numbers, those who have ended as well.
    there: Vec<Handle>,
    ended: Vec<usize>,
    /// How many letters went from one to another.
    sent: HashMap<(usize, usize), u32>,
    /// Of these, how many were delivered and how many came back; each has its turn.
    done: HashMap<(usize, usize), u32>,
    returned: usize,
}

impl Office {
    fn number(&self, handle: Handle) -> usize {
        self.there
            .iter()
            .position(|known| *known == handle)
            .unwrap()
    }

    /// The letter of that number is dealt with: it is the next one of those two.
    fn settle(&mut self, from: usize, to: usize, number: u32) {
        let done = self.done.entry((from, to)).or_default();
        assert_eq!(*done, number, "letters from {from} to {to} out of order");
        *done += 1;
    }
}

/// Writes to somebody for each byte that comes; ends with its connection.
fn writer(office: Rc<RefCell<Office>>) -> Actor {
    let (mut me, shared) = (0, office.clone());
    let mut actor = Actor::new(move |event, cx| {
        let mut office = office.borrow_mut();
        match event {
            Event::Accepted { .. } => {
                me = office.there.len();
                office.there.push(cx.handle);
            }
            Event::Data { rx, .. } => {
                let mut to = [0];
                rx.copy_to(0, &mut to);
                let all = rx.len();
                rx.consume(all);
                for _ in 0..all {
                    let to = usize::from(to[0]) % office.there.len();
                    let number = office.sent.entry((me, to)).or_default();
                    let mail = Mail::new(*number);
                    *number += 1;
                    cx.post(office.there[to], mail);
                }
            }
            Event::Mail { from, mail } => {
                let from = office.number(from);
                office.settle(from, me, mail.open::<u32>().unwrap());
            }
            Event::Returned { to, mail } => {
                let to = office.number(to);
                assert!(office.ended.contains(&to), "{to} is there");
                office.returned += 1;
                office.settle(me, to, mail.open::<u32>().unwrap());
            }
            Event::Eof { .. } => return Err(Close::finished()),
            _ => {}
        }
        Ok(())
    });
    actor.parting = Box::new(move |cx| {
        let me = shared.borrow().number(cx.handle);
        shared.borrow_mut().ended.push(me);
    });
    actor
}

#[test]
fn every_letter_arrives_in_its_order_or_comes_back() {
    seeds(60, |seed| {
        let office = Rc::new(RefCell::new(Office::default()));
        let shared = office.clone();
        let cores = 1 + seed as usize % 3;
        let depth = [2, 1_000][seed as usize % 2];
        let mut row = row(seed, cores, depth, move |_, _| writer(shared.clone()));
        let mut sockets = Vec::new();
        for step in 0..500 {
            match row.random.below(10) {
                0 if sockets.len() < 12 && step < 400 => {
                    let core = row.random.below(cores);
                    let socket = row.cores[core].world.borrow_mut().connect_to(0).unwrap();
                    row.quiesce();
                    sockets.push((core, socket));
                }
                1..5 if !sockets.is_empty() => {
                    let (core, socket) = sockets[row.random.below(sockets.len())];
                    let bytes = vec![row.random.below(12) as u8; 1 + row.random.below(5)];
                    row.cores[core].world.borrow_mut().send(socket, &bytes);
                    row.cores[core].world.borrow_mut().deliver(socket, 9);
                }
                5 if row.random.chance(15) && sockets.len() > 4 => {
                    let (core, socket) = sockets[row.random.below(sockets.len())];
                    row.cores[core].world.borrow_mut().end(socket);
                }
                6 => row.pass(Duration::from_millis(1)),
                _ => {}
            }
            row.step();
        }
        settle(&mut row);
        let office = office.borrow();
        for (pair, sent) in &office.sent {
            let done = office.done.get(pair).copied().unwrap_or(0);
            // What comes back to somebody who has ended meanwhile is nobody's any more.
            let gone = office.ended.contains(&pair.0) && office.ended.contains(&pair.1);
            assert!(done == *sent || gone, "{pair:?}: {done} of {sent} letters");
        }
    });
}

/// How the session of the first byte ends.
fn end(kind: u8) -> Result<(), Close> {
    match kind {
        b'f' => Err(Close::finished()),
        b'e' => Err(Close::downstream(Cause::Denied("as the test asked"))),
        b'p' => panic!("as the test asked"),
        _ => Ok(()),
    }
}

/// What was seen of the leaves.
#[derive(Default)]
struct Leaves {
    witness: Option<Handle>,
    taken: usize,
    told: usize,
}

fn leaver(leaves: Rc<RefCell<Leaves>>, shy: bool) -> Actor {
    let shared = leaves.clone();
    let own = Rc::new(RefCell::new(None));
    let known = own.clone();
    let mut actor = Actor::new(move |event, _| match event {
        Event::Accepted { conn, .. } => {
            *known.borrow_mut() = Some(conn);
            Ok(())
        }
        Event::Data { rx, .. } => {
            let kind = rx.head()[0];
            rx.consume(1);
            end(kind)
        }
        Event::Eof { .. } | Event::Stopping => Err(Close::finished()),
        Event::Lost { why, .. } => Err(Close::downstream(Cause::Io("test", why))),
        _ => Ok(()),
    });
    actor.shy = shy;
    actor.parting = Box::new(move |cx| {
        let mut leaves = shared.borrow_mut();
        leaves.taken += 1;
        if let Some(own) = *own.borrow() {
            cx.send(own, b"farewell");
        }
        if let Some(witness) = leaves.witness {
            cx.post(witness, Mail::new(()));
        }
    });
    actor
}

fn witness(leaves: Rc<RefCell<Leaves>>) -> Actor {
    Actor::new(move |event, cx| {
        match event {
            Event::Accepted { .. } => leaves.borrow_mut().witness = Some(cx.handle),
            Event::Mail { .. } => leaves.borrow_mut().told += 1,
            Event::Eof { .. } => return Err(Close::finished()),
            _ => {}
        }
        Ok(())
    })
}

#[test]
fn every_session_takes_leave_once_however_it_ends() {
    for (number, way) in ["f", "e", "p", "shy", "eof", "reset", "unwatched", "drain"]
        .into_iter()
        .enumerate()
    {
        let leaves = Rc::new(RefCell::new(Leaves::default()));
        let shared = leaves.clone();
        let cores = 1 + number % 2;
        let cast = move |_, listener| match listener {
            0 => witness(shared.clone()),
            _ => leaver(shared.clone(), way == "shy"),
        };
        let mut row = row(1, cores, 10, cast);
        let last = row.cores[cores - 1].world.clone();
        let watching = last.borrow_mut().connect_to(0).unwrap();
        settle(&mut row);
        let world = row.cores[0].world.clone();
        world.borrow_mut().failures = if way == "unwatched" { 100 } else { 0 };
        let socket = world.borrow_mut().connect_to(1).unwrap();
        row.quiesce();
        match way {
            "eof" | "shy" => world.borrow_mut().end(socket),
            "reset" => world.borrow_mut().reset(socket),
            "drain" => row.phase.drain(),
            "unwatched" => {}
            byte => world.borrow_mut().send(socket, byte.as_bytes()),
        }
        settle(&mut row);
        assert_eq!(leaves.borrow().taken, 1, "{way}");
        assert_eq!(leaves.borrow().told, 1, "{way}: what leave posts arrives");
        let broken = ["reset", "unwatched"].contains(&way);
        let farewell: &[u8] = if broken { b"" } else { b"farewell" };
        assert_eq!(world.borrow().sockets[socket].received, farewell, "{way}");
        let panicked = row.count(Metric::Panicked) == 1;
        assert!(way == "shy" || panicked == (way == "p"), "{way}");
        world.borrow_mut().end(socket);
        last.borrow_mut().end(watching);
        row.wait(row.now + Duration::from_secs(40));
        settle(&mut row);
        row.assert_empty();
    }
}
