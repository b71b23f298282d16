//! The engine's verbs for sessions that have to do with each other: frames forwarded from one to
//! another, lines of those who wait for room, letters, and the leave that each session takes.
//!
//! The sessions are actors: closures that the test gives.

mod ends;
mod handing;
mod mail;
mod verbs;

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use towpath::net::ConnKey;
use towpath::session::{Cause, Close, Cx, Event, Listen, Seat, Session};

use super::house::Shape;
use super::row::Row;
use super::seeds;

type Play = Box<dyn FnMut(Event<'_>, &mut Cx<'_>) -> Result<(), Close>>;

/// A session that does as the test says.
struct Actor {
    play: Play,
    parting: Box<dyn FnMut(&mut Cx<'_>)>,
    /// It panics when it is to describe itself, which it is when there is a log.
    shy: bool,
}

impl Actor {
    fn new(play: impl FnMut(Event<'_>, &mut Cx<'_>) -> Result<(), Close> + 'static) -> Self {
        Self {
            play: Box::new(play),
            parting: Box::new(|_| {}),
            shy: false,
        }
    }
}

impl Session for Actor {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        (self.play)(event, cx)
    }

    fn describe(&self, _: &mut String) {
        assert!(!self.shy, "as the test asked");
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        (self.parting)(cx);
    }
}

/// Makes actors, by the number of the listener.
struct Cast(Box<dyn FnMut(usize) -> Actor>);

impl Seat for Cast {
    fn accept(&mut self, listener: usize) -> Box<dyn Session> {
        Box::new((self.0)(listener))
    }
}

/// A row with two listeners on each core, whose actors `cast` makes by core and listener.
fn row(
    seed: u64,
    cores: usize,
    depth: usize,
    cast: impl Fn(usize, usize) -> Actor + Clone + 'static,
) -> Row {
    let listen = |port: u16| Listen {
        role: "actors",
        name: None,
        transport: towpath::session::Transport::Stream,
        address: ([10, 0, 0, 1], port).into(),
        terms: Arc::default(),
    };
    let seat = |core| {
        let cast = cast.clone();
        Box::new(Cast(Box::new(move |listener| cast(core, listener)))) as Box<dyn Seat>
    };
    let seats = (0..cores).map(seat).collect();
    Row::new(
        seed,
        Shape::default(),
        depth,
        &[listen(1), listen(2)],
        seats,
    )
}

/// Everything arrives and is read until nothing moves any more.
fn settle(row: &mut Row) {
    for _ in 0..20 {
        for core in &row.cores {
            core.world.borrow_mut().rush();
        }
        row.pass(Duration::from_millis(1));
    }
}

/// Many senders and one sink with a short queue: what the test knows of the line.
#[derive(Default)]
struct Queue {
    sink: Option<ConnKey>,
    /// Those who wait, in the order in which they asked.
    line: VecDeque<usize>,
    /// Those who may have left it.
    dead: HashSet<usize>,
    senders: usize,
    turns: Vec<usize>,
    /// What was forwarded, in this order.
    sent: Vec<u8>,
    gone: bool,
}

impl Queue {
    /// A sender is told to go on: it is the first of those who wait.
    fn called(&mut self, me: usize) {
        let Some(at) = self.line.iter().position(|&who| who == me) else {
            return;
        };
        let earlier = self.line.drain(..=at).filter(|who| *who != me);
        let jumped: Vec<usize> = earlier.filter(|who| !self.dead.contains(who)).collect();
        assert!(
            self.gone || jumped.is_empty(),
            "{me} was served before {jumped:?}"
        );
        self.line.extend(jumped);
    }
}

fn sink(queue: Rc<RefCell<Queue>>) -> Actor {
    Actor::new(move |event, _| match event {
        Event::Accepted { conn, .. } => {
            queue.borrow_mut().sink = Some(conn);
            Ok(())
        }
        Event::Lost { .. } | Event::Eof { .. } => Err(Close::finished()),
        _ => Ok(()),
    })
}

fn sender(queue: Rc<RefCell<Queue>>) -> Actor {
    let mut me = 0;
    Actor::new(move |event, cx| {
        let mut queue = queue.borrow_mut();
        match event {
            Event::Accepted { .. } => {
                me = queue.senders;
                queue.senders += 1;
                // Some end of their own accord, whether they wait or not.
                if me % 5 == 4 {
                    cx.arm(0, Duration::from_millis(300));
                }
            }
            Event::Data { conn, rx, .. } => {
                queue.called(me);
                let sink = queue.sink.unwrap();
                while !rx.is_empty() {
                    if cx.unsent(sink) >= MOST {
                        queue.line.push_back(me);
                        cx.await_room(conn, sink, MOST / 2);
                        return Ok(());
                    }
                    if queue.turns.last() != Some(&me) {
                        queue.turns.push(me);
                    }
                    let count = rx.len().min(SHARE);
                    let mut bytes = vec![0; count];
                    rx.copy_to(0, &mut bytes);
                    queue.sent.extend(bytes);
                    cx.forward(rx, sink, count);
                    assert!(queue.gone || cx.unsent(sink) <= MOST + SHARE);
                }
            }
            Event::Eof { .. } => return Err(Close::finished()),
            Event::Lost { .. } | Event::Timer { .. } => {
                queue.dead.insert(me);
                let close = Cause::Deadline("as the test asked");
                return Err(Close::own(close));
            }
            _ => {}
        }
        Ok(())
    })
}

#[test]
fn those_who_wait_for_room_are_served_in_their_order() {
    seeds(60, |seed| {
        let queue = Rc::new(RefCell::new(Queue::default()));
        let shared = Wrapped(queue.clone());
        let cast = move |_, listener| match listener {
            0 => sink(shared.0.clone()),
            _ => sender(shared.0.clone()),
        };
        let mut row = row(seed, 1, 1, cast);
        let world = row.cores[0].world.clone();
        let target = world.borrow_mut().connect_to(0).unwrap();
        row.quiesce();
        let count = 2 + row.random.below(9);
        let senders: Vec<usize> = (0..count)
            .map(|_| {
                let socket = world.borrow_mut().connect_to(1).unwrap();
                row.quiesce();
                socket
            })
            .collect();
        let breaks = row.random.chance(30);
        for step in 0..600 {
            let me = row.random.below(count);
            match row.random.below(20) {
                0..6 => {
                    let bytes = vec![me as u8; row.random.below(20_000)];
                    world.borrow_mut().send(senders[me], &bytes);
                }
                6..11 => world.borrow_mut().deliver(senders[me], 8_000),
                11..16 => world.borrow_mut().receive(target, 4_000),
                16 if row.random.chance(10) => {
                    queue.borrow_mut().dead.insert(me);
                    world.borrow_mut().reset(senders[me]);
                }
                17 if breaks && step == 400 => {
                    queue.borrow_mut().gone = true;
                    world.borrow_mut().reset(target);
                }
                18 => row.pass(Duration::from_millis(5)),
                _ => {}
            }
            row.step();
        }
        for _ in 0..20 {
            settle(&mut row);
        }
        let queue = queue.borrow();
        let world = world.borrow();
        for (me, &socket) in senders.iter().enumerate() {
            let left = queue.dead.contains(&me);
            assert!(
                left || world.sockets[socket].is_taken(),
                "{me} waits for ever"
            );
        }
        if !queue.gone {
            assert!(
                world.sockets[target].received == queue.sent,
                "bytes lost or out of order"
            );
        }
    });
}

/// With more to send than there is room for, nobody gets a second turn before all got one.
#[test]
fn nobody_overtakes_those_who_wait_with_it() {
    let queue = Rc::new(RefCell::new(Queue::default()));
    let shared = Wrapped(queue.clone());
    let cast = move |_, listener| match listener {
        0 => sink(shared.0.clone()),
        _ => sender(shared.0.clone()),
    };
    let mut row = row(1, 1, 1, cast);
    let world = row.cores[0].world.clone();
    let target = world.borrow_mut().connect_to(0).unwrap();
    row.quiesce();
    // So much is read ahead that nobody's ring is empty in between.
    world.borrow_mut().receive_room = 400_000;
    for _ in 0..4 {
        let socket = world.borrow_mut().connect_to(1).unwrap();
        world.borrow_mut().send(socket, &[1; 400_000]);
        world.borrow_mut().deliver(socket, usize::MAX);
        row.quiesce();
    }
    queue.borrow_mut().turns.clear();
    for _ in 0..200 {
        world.borrow_mut().receive(target, 2_000);
        row.quiesce();
    }
    let turns = &queue.borrow().turns;
    assert!(turns.len() > 24, "{} turns", turns.len());
    for four in turns[..24].chunks_exact(4) {
        let all: HashSet<_> = four.iter().collect();
        assert_eq!(all.len(), 4, "not each once: {turns:?}");
    }
}

/// Shared by the actors of one test, all on one thread.
#[derive(Clone)]
struct Wrapped<T>(Rc<RefCell<T>>);

/// How much may be queued, and how much goes at once.
const MOST: usize = 10_000;
const SHARE: usize = 3_000;
