//! One connection's verbs: pause and resume, hold, patience, close, and listeners of one's own.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use towpath::net::ListenerKey;
use towpath::session::{Close, Event};

use super::{Actor, row, settle};
use crate::seeds;

#[test]
fn a_paused_connection_is_not_read_until_it_is_resumed() {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let shared = heard.clone();
    let cast = move |_, _| {
        let (heard, mut own) = (shared.clone(), None);
        Actor::new(move |event, cx| {
            match event {
                Event::Data { conn, rx, .. } => {
                    own = Some(conn);
                    heard.borrow_mut().push(rx.len());
                    // One byte is taken; the rest is offered again.
                    rx.consume(1);
                    cx.pause(conn);
                    cx.arm(0, Duration::from_millis(100));
                }
                Event::Timer { .. } => cx.resume(own.unwrap()),
                _ => {}
            }
            Ok(())
        })
    };
    let mut row = row(1, 1, 1, cast);
    let world = row.cores[0].world.clone();
    let socket = world.borrow_mut().connect_to(0).unwrap();
    for _ in 0..5 {
        world.borrow_mut().send(socket, b"abc");
        world.borrow_mut().deliver(socket, 3);
        row.quiesce();
    }
    assert_eq!(*heard.borrow(), [3], "it was read while it was paused");
    assert_eq!(world.borrow().sockets[socket].untaken(), 12);
    // Offered what it holds, it pauses anew; what has come meanwhile is read the next time.
    for _ in 0..60 {
        row.pass(Duration::from_millis(50));
    }
    let heard = heard.borrow();
    assert!(heard.len() >= 14, "it was not resumed: {heard:?}");
    assert!(world.borrow().sockets[socket].is_taken());
}

#[test]
fn a_connection_holds_as_much_as_it_is_told_to() {
    for hold in [1_000, 64 * 1024, 600_000] {
        let cast = move |_, _| {
            Actor::new(move |event, cx| {
                if let Event::Accepted { conn, .. } = event {
                    cx.hold(conn, hold);
                }
                Ok(())
            })
        };
        let mut row = row(1, 1, 1, cast);
        let world = row.cores[0].world.clone();
        let socket = world.borrow_mut().connect_to(0).unwrap();
        row.quiesce();
        world.borrow_mut().send(socket, &vec![7; 1_000_000]);
        for _ in 0..100 {
            world.borrow_mut().deliver(socket, usize::MAX);
            row.quiesce();
        }
        let held = 1_000_000 - world.borrow().sockets[socket].untaken();
        // One read goes past it, of four blocks at most.
        assert!(
            held >= hold && held < hold + 4 * 16 * 1024,
            "{held} of {hold}"
        );
    }
}

/// What the test knows of a connection whose peer takes some bytes now and then.
struct Watch {
    stalled: Vec<Instant>,
}

#[test]
fn a_stalled_peer_is_told_of_once_for_each_time_without_progress() {
    seeds(40, |seed| {
        let watch = Rc::new(RefCell::new(Watch {
            stalled: Vec::new(),
        }));
        let shared = watch.clone();
        let cast = move |_, _| {
            let watch = shared.clone();
            Actor::new(move |event, cx| {
                match event {
                    Event::Accepted { conn, .. } => {
                        cx.patience(conn, PATIENCE);
                        cx.send(conn, &[1; BYTES]);
                    }
                    Event::Stalled { .. } => watch.borrow_mut().stalled.push(cx.now),
                    _ => {}
                }
                Ok(())
            })
        };
        let mut row = row(seed, 1, 1, cast);
        let world = row.cores[0].world.clone();
        let socket = world.borrow_mut().connect_to(0).unwrap();
        row.quiesce();
        let (mut told, mut last, mut emitted) = (0, row.now, 0);
        for _ in 0..120 {
            let reads = row.random.chance(40);
            let most = 1 + row.random.below(2_000);
            if reads {
                world.borrow_mut().receive(socket, most);
                row.quiesce();
            }
            let now_emitted = world.borrow().sockets[socket].emitted();
            if now_emitted != emitted {
                (emitted, last) = (now_emitted, row.now);
            }
            let ahead = 1 + row.random.below(900) as u64;
            row.pass(Duration::from_millis(ahead));
            let watch = watch.borrow();
            if watch.stalled.len() > told {
                assert_eq!(watch.stalled.len(), told + 1, "told twice");
                assert!(row.now - last >= PATIENCE, "told too early");
                assert!(emitted < BYTES, "told of an empty queue");
                (told, last) = (told + 1, row.now);
            }
            let waited = row.now - last;
            assert!(
                emitted == BYTES || waited < PATIENCE + TICKS,
                "not told in time"
            );
        }
    });
}

#[test]
fn one_connection_closes_behind_its_last_bytes_and_the_other_stays() {
    let cast = |_, _| {
        let (mut client, mut upstream) = (None, None);
        Actor::new(move |event, cx| {
            match event {
                Event::Accepted { conn, .. } => {
                    client = Some(conn);
                    let to: SocketAddr = "10.9.0.1:80".parse().unwrap();
                    cx.connect(to, Duration::from_secs(5), 1);
                }
                Event::Connected { conn, .. } => upstream = Some(conn),
                Event::Data { conn, rx, .. } => {
                    let count = rx.len();
                    rx.consume(count);
                    if Some(conn) == client
                        && let Some(one) = upstream.take()
                    {
                        cx.send(one, &[5; 50_000]);
                        cx.close(one);
                    }
                    cx.send(conn, b"still here");
                }
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
    let backend = client + 1;
    world.borrow_mut().settle_dial(backend, true);
    row.quiesce();
    world.borrow_mut().send(client, b"x");
    settle(&mut row);
    assert_eq!(world.borrow().sockets[backend].received, [5; 50_000]);
    assert!(world.borrow().sockets[backend].is_over());
    world.borrow_mut().end(backend);
    world.borrow_mut().send(client, b"x");
    settle(&mut row);
    assert_eq!(
        world.borrow().sockets[client].received,
        b"still herestill here"
    );
    world.borrow_mut().end(client);
    settle(&mut row);
    row.assert_empty();
}

/// `l` listens, `u` closes the listener, `e` ends; visitors are echoed.
#[test]
fn a_session_listens_for_itself_as_long_as_it_likes() {
    let heard = Rc::new(RefCell::new(String::new()));
    let shared = heard.clone();
    let cast = move |_, _| {
        let heard = shared.clone();
        let (mut own, mut open): (_, Option<ListenerKey>) = (None, None);
        Actor::new(move |event, cx| {
            let mut heard = heard.borrow_mut();
            match event {
                Event::Accepted {
                    conn,
                    listener: None,
                    ..
                } => own = Some(conn),
                Event::Accepted { listener, .. } => {
                    assert_eq!(listener, open);
                    heard.push_str("visitor ");
                }
                Event::Listening { listener, tag } => {
                    open = Some(listener);
                    heard.push_str(&format!("listening {tag} "));
                }
                Event::Refused { tag, .. } => heard.push_str(&format!("refused {tag} ")),
                Event::Data { conn, rx, .. } => {
                    let mut byte = [0];
                    rx.copy_to(0, &mut byte);
                    let count = rx.len();
                    rx.consume(count);
                    match (&byte, Some(conn) == own) {
                        (b"l", true) => cx.listen(visited(), 3),
                        (b"u", true) => cx.unlisten(open.take().unwrap()),
                        (b"e", true) => return Err(Close::finished()),
                        _ => cx.send(conn, &byte),
                    }
                }
                _ => {}
            }
            Ok(())
        })
    };
    let mut row = row(1, 1, 1, cast);
    let world = row.cores[0].world.clone();
    let owner = world.borrow_mut().connect_to(0).unwrap();
    let mut tell = |bytes: &[u8]| {
        world.borrow_mut().send(owner, bytes);
        settle(&mut row);
    };
    assert_eq!(world.borrow_mut().visit(visited()), None);
    tell(b"l");
    let visitor = world.borrow_mut().visit(visited()).unwrap();
    world.borrow_mut().send(visitor, b"v");
    // The address is taken by the first.
    tell(b"l");
    tell(b"u");
    assert_eq!(world.borrow_mut().visit(visited()), None);
    world.borrow_mut().send(visitor, b"w");
    tell(b"l");
    assert_eq!(world.borrow().sockets[visitor].received, b"vw");
    tell(b"e");
    assert_eq!(
        world.borrow_mut().visit(visited()),
        None,
        "it outlives its session"
    );
    let all = "listening 3 visitor refused 3 listening 3 ";
    assert_eq!(*heard.borrow(), all);
    world.borrow_mut().end(visitor);
    world.borrow_mut().end(owner);
    settle(&mut row);
    row.assert_empty();
}

fn visited() -> SocketAddr {
    "10.0.0.1:9000".parse().unwrap()
}

const PATIENCE: Duration = Duration::from_secs(2);
const TICKS: Duration = Duration::from_millis(950);
const BYTES: usize = 60_000;
