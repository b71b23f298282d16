//! How connections end: relays under bounds of their own, resets that a session asks for, and words
//! that a peer is told last.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use towpath::session::{Cause, Close, Event, RelayEnd, Relayed, Silence};

use super::{Actor, row, settle};
use crate::row::Row;

/// A pair that is relayed within its own silence, and what its session was told of the end.
type Told = Rc<RefCell<Option<Relayed>>>;

fn relayed() -> (Row, usize, usize, Told) {
    let told = Told::default();
    let shared = told.clone();
    let cast = move |_, _| {
        let (mut client, told) = (None, shared.clone());
        Actor::new(move |event, cx| match event {
            Event::Accepted { conn, .. } => {
                client = Some(conn);
                let to: SocketAddr = "10.9.0.1:80".parse().unwrap();
                cx.connect(to, Duration::from_secs(5), 1);
                Ok(())
            }
            Event::Connected { conn, .. } => {
                cx.relay_within(client.unwrap(), conn, SILENCE);
                Ok(())
            }
            Event::Relayed(relayed) => {
                *told.borrow_mut() = Some(relayed);
                Err(relayed.into())
            }
            _ => Ok(()),
        })
    };
    let mut row = row(1, 1, 1, cast);
    let world = row.cores[0].world.clone();
    let client = world.borrow_mut().connect_to(0).unwrap();
    row.quiesce();
    world.borrow_mut().settle_dial(client + 1, true);
    settle(&mut row);
    (row, client, client + 1, told)
}

/// After how long the pair has ended, in steps of 50 ms.
fn lasted(row: &mut Row, told: &Told) -> Duration {
    let start = row.now;
    while told.borrow().is_none() {
        row.wait(row.now + Duration::from_millis(50));
        assert!(row.now - start < SILENCE.idle * 4, "it never ends");
    }
    row.now - start
}

fn wait(row: &mut Row, time: Duration) {
    row.wait(row.now + time);
}

fn assert_about(took: Duration, want: Duration) {
    assert!(
        took + SLACK >= want && took <= want + SLACK,
        "{took:?} is not {want:?}"
    );
}

#[test]
fn a_relay_ends_when_it_was_silent_for_as_long_as_it_may_be() {
    let (mut row, client, backend, told) = relayed();
    let world = row.cores[0].world.clone();
    for _ in 0..6 {
        for _ in 0..100 {
            wait(&mut row, Duration::from_millis(50));
        }
        world.borrow_mut().send(client, b"still here");
        settle(&mut row);
    }
    assert!(told.borrow().is_none(), "bytes keep it");
    assert_about(lasted(&mut row, &told), SILENCE.idle);
    let relayed = told.borrow().unwrap();
    assert_eq!((relayed.moved, relayed.end), ([60, 0], RelayEnd::Idle));
    assert!(world.borrow().sockets[backend].closed);
    row.assert_empty();
}

#[test]
fn a_relay_that_is_half_closed_may_be_silent_for_less() {
    for side in [0, 1] {
        let (mut row, client, backend, told) = relayed();
        let world = row.cores[0].world.clone();
        let ends = [client, backend];
        world.borrow_mut().end(ends[side]);
        settle(&mut row);
        assert!(world.borrow().sockets[ends[1 - side]].shut);
        // The way that is open goes on for as long as it is used.
        for _ in 0..6 {
            wait(&mut row, SILENCE.half_closed / 2);
            world.borrow_mut().send(ends[1 - side], b"and on");
            settle(&mut row);
        }
        assert!(told.borrow().is_none(), "bytes keep it");
        assert_about(lasted(&mut row, &told), SILENCE.half_closed);
        assert_eq!(told.borrow().unwrap().end, RelayEnd::Idle);
        assert_eq!(world.borrow().sockets[ends[side]].received.len(), 36);
        row.assert_empty();
    }
}

#[test]
fn a_session_resets_one_connection_and_keeps_the_other() {
    let lost = Rc::new(RefCell::new(0));
    let shared = lost.clone();
    let cast = move |_, _| {
        let (mut upstream, lost) = (None, shared.clone());
        Actor::new(move |event, cx| {
            match event {
                Event::Accepted { .. } => {
                    let to: SocketAddr = "10.9.0.1:80".parse().unwrap();
                    cx.connect(to, Duration::from_secs(5), 1);
                }
                Event::Connected { conn, .. } => upstream = Some(conn),
                Event::Data { conn, rx, .. } => {
                    rx.consume(rx.len());
                    if let Some(one) = upstream.take() {
                        cx.send(one, &[5; 50_000]);
                        cx.reset(one);
                        // A name that is no more is no harm.
                        cx.reset(one);
                    }
                    cx.send(conn, b"still here");
                }
                Event::Lost { .. } => *lost.borrow_mut() += 1,
                Event::Eof { .. } => return Err(Close::finished()),
                _ => {}
            }
            Ok(())
        })
    };
    let mut row = row(1, 1, 1, cast);
    let world = row.cores[0].world.clone();
    let client = world.borrow_mut().connect_to(0).unwrap();
    row.quiesce();
    world.borrow_mut().settle_dial(client + 1, true);
    row.quiesce();
    world.borrow_mut().send(client, b"x");
    settle(&mut row);
    {
        let world = world.borrow();
        let backend = &world.sockets[client + 1];
        assert!(backend.aborted && backend.closed);
        assert!(!world.sockets[client].aborted);
        assert_eq!(world.sockets[client].received, b"still here");
    }
    assert_eq!(*lost.borrow(), 0, "its own doing is no news");
    world.borrow_mut().end(client);
    settle(&mut row);
    row.assert_empty();
}

/// A session that says so many bytes to whoever speaks, and ends.
fn refusing(words: usize) -> (Row, usize) {
    let cast = move |_, _| {
        Actor::new(move |event, cx| match event {
            Event::Data { conn, .. } => {
                cx.send(conn, &vec![7; words]);
                Err(Close::downstream(Cause::Denied("as the test asked")).told())
            }
            _ => Ok(()),
        })
    };
    let row = row(1, 1, 1, cast);
    let world = row.cores[0].world.clone();
    let client = world.borrow_mut().connect_to(0).unwrap();
    world.borrow_mut().send(client, b"a request and more");
    (row, client)
}

#[test]
fn who_was_told_why_has_time_to_read_it() {
    for says_more in [false, true] {
        let (mut row, client) = refusing(100);
        settle(&mut row);
        let world = row.cores[0].world.clone();
        if says_more {
            world.borrow_mut().send(client, &[1; 500_000]);
            settle(&mut row);
        }
        {
            let world = world.borrow();
            let socket = &world.sockets[client];
            assert_eq!(socket.received, [7; 100]);
            assert!(socket.shut && !socket.closed && !socket.aborted);
            assert!(socket.is_taken(), "what comes still is read");
        }
        if says_more {
            wait(&mut row, Duration::from_millis(1_500));
            assert!(!world.borrow().sockets[client].closed);
            wait(&mut row, Duration::from_millis(700));
        } else {
            world.borrow_mut().end(client);
            settle(&mut row);
        }
        assert!(world.borrow().sockets[client].closed);
        row.assert_empty();
    }
}

#[test]
fn words_that_nobody_takes_end_by_a_reset_and_not_as_if_they_were_all() {
    let (mut row, client) = refusing(50_000);
    let world = row.cores[0].world.clone();
    world.borrow_mut().deliver(client, usize::MAX);
    row.quiesce();
    for _ in 0..31 {
        wait(&mut row, Duration::from_secs(1));
    }
    let world = world.borrow();
    assert!(world.sockets[client].closed && world.sockets[client].aborted);
    row.assert_empty();
}

const SILENCE: Silence = Silence {
    idle: Duration::from_secs(8),
    half_closed: Duration::from_secs(2),
};

const SLACK: Duration = Duration::from_millis(600);
