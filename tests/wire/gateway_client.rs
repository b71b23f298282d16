//! The client library at its edges: many threads, late answers, full queues, gateways that misbehave.

use std::io::{ErrorKind, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use towpath::gateway::{Client, Connection, Error, Options, Server};
use towpath::protocols::gateway::wire::{Command, Dialect, Head};

use crate::gateway_peer::{PATIENCE, Peer, serve};

const DOCUMENT: Dialect = Dialect::Document;
const FASTWAY: Dialect = Dialect::Fastway;

/// Without pings, which would come between what a script expects.
fn options(dialect: Dialect) -> Options {
    Options {
        dialect,
        ping_interval: Duration::ZERO,
        ..Options::default()
    }
}

/// Takes a fastway dial and accepts it as `conn`.
fn join(peer: &mut Peer, conn: u32, remote: u32) {
    peer.expect(FASTWAY, Command::Dial { conn: 0, remote });
    peer.tell(FASTWAY, Command::Accept { conn, remote });
}

#[test]
fn handles_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Client>();
    crosses::<Server>();
    crosses::<Connection>();
    crosses::<Error>();
}

#[test]
fn threads_that_dial_at_once_get_what_they_dialled() {
    let (address, gateway) = serve(|mut peer| {
        let mut dialled = Vec::new();
        while dialled.len() < 16 {
            let (_, payload) = peer.frame().unwrap();
            match FASTWAY.decode(&payload).unwrap() {
                Command::Dial { remote, .. } => dialled.push(remote),
                other => panic!("{other:?}"),
            }
        }
        // The last come first; every third server is not there.
        for &remote in dialled.iter().rev() {
            let (conn, refuse) = (remote + 1000, remote % 3 == 0);
            let accept = Command::Accept { conn, remote };
            let refusal = Command::Refuse { conn: 0, remote };
            peer.tell(FASTWAY, if refuse { refusal } else { accept });
        }
        while peer.frame().is_some() {}
    });
    let client = Client::connect(address, options(FASTWAY)).unwrap();
    thread::scope(|scope| {
        for remote in 1..=16 {
            let client = &client;
            scope.spawn(move || match client.dial(remote) {
                Ok(end) => assert_eq!((end.id(), end.remote()), (remote + 1000, remote)),
                Err(error) => assert!(remote % 3 == 0, "{remote}: {error}"),
            });
        }
    });
    client.close();
    gateway.join().unwrap();
}

#[test]
fn threads_of_the_document_share_the_ids_that_they_asked_for() {
    let (address, gateway) = serve(|mut peer| {
        let (mut next, mut joined) = (0, 0);
        while joined < 16 {
            let (_, payload) = peer.frame().unwrap();
            match DOCUMENT.decode(&payload).unwrap() {
                Command::New => {
                    next += 1;
                    peer.tell(DOCUMENT, Command::Open { conn: next });
                }
                Command::Dial { conn, remote } => {
                    joined += 1;
                    peer.tell(DOCUMENT, Command::Accept { conn, remote });
                }
                other => panic!("{other:?}"),
            }
        }
        while peer.frame().is_some() {}
    });
    let client = Client::connect(address, options(DOCUMENT)).unwrap();
    let ends: Vec<Connection> = thread::scope(|scope| {
        let dials: Vec<_> = (1..=16)
            .map(|remote| {
                scope.spawn({
                    let client = &client;
                    move || client.dial(remote)
                })
            })
            .collect();
        let joined = dials.into_iter().map(|dial| dial.join().unwrap().unwrap());
        joined.collect()
    });
    let mut ids: Vec<u32> = ends.iter().map(Connection::id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=16).collect::<Vec<_>>());
    assert!((1..=16).eq(ends.iter().map(Connection::remote)));
    drop((ends, client));
    gateway.join().unwrap();
}

#[test]
fn an_accept_that_comes_too_late_is_closed() {
    let (told, is_late) = mpsc::channel();
    let (address, gateway) = serve(move |mut peer| {
        let (mut last, mut closed) = (0, Vec::new());
        while let Some((_, payload)) = peer.frame() {
            match FASTWAY.decode(&payload).unwrap() {
                Command::Dial { remote, .. } => {
                    if last == 0 {
                        is_late.recv().unwrap();
                    }
                    last += 1;
                    peer.tell(FASTWAY, Command::Accept { conn: last, remote });
                }
                Command::Close { conn } => closed.push(conn),
                other => panic!("{other:?}"),
            }
        }
        assert!(last >= 2);
        closed.sort_unstable();
        assert_eq!(closed, (1..=last).collect::<Vec<_>>());
    });
    let client = Client::connect(
        address,
        Options {
            dial_timeout: Duration::from_millis(50),
            ..options(FASTWAY)
        },
    )
    .unwrap();
    assert!(matches!(client.dial(7), Err(Error::TimedOut)));
    told.send(()).unwrap();
    // A dial on a busy machine may come too late again; it may not get the answer of one before it.
    let (mut id, mut dials) = (None, 1);
    while id.is_none() {
        dials += 1;
        match client.dial(7) {
            Ok(end) => id = Some(end.id()),
            Err(Error::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(id, Some(dials));
    drop(client);
    gateway.join().unwrap();
}

#[test]
fn what_nobody_accepts_is_closed() {
    let (told, is_full) = mpsc::channel();
    let (address, gateway) = serve(move |mut peer| {
        assert_eq!(peer.admit(b"key"), 7);
        for conn in 1..=3 {
            peer.tell(FASTWAY, Command::Connect { conn, remote: 5 });
        }
        peer.expect(FASTWAY, Command::Close { conn: 3 });
        told.send(()).unwrap();
        // Messages for ids that nobody knows are answered, and dropped.
        peer.message(3, b"lost");
        peer.expect(FASTWAY, Command::Close { conn: 3 });
        peer.message(1, b"kept");
        peer.tell(FASTWAY, Command::Close { conn: 1 });
        peer.expect(FASTWAY, Command::Close { conn: 1 });
        peer.expect(FASTWAY, Command::Close { conn: 2 });
        peer.expect_end();
    });
    let server = Server::connect(
        address,
        7,
        b"key",
        Options {
            backlog: 2,
            ..options(FASTWAY)
        },
    )
    .unwrap();
    is_full.recv_timeout(PATIENCE).unwrap();
    let end = server.accept().unwrap();
    assert_eq!((end.id(), end.remote()), (1, 5));
    assert_eq!(end.receive().unwrap().unwrap(), b"kept");
    assert_eq!(end.receive().unwrap(), None);
    drop(end);
    server.close();
    gateway.join().unwrap();
}

#[test]
fn what_comes_after_the_own_close_is_dropped_without_a_word() {
    let (address, gateway) = serve(|mut peer| {
        join(&mut peer, 1, 7);
        peer.expect(FASTWAY, Command::Close { conn: 1 });
        peer.message(1, b"on its way");
        peer.tell(FASTWAY, Command::Close { conn: 1 });
        peer.tell(FASTWAY, Command::Close { conn: 1 });
        join(&mut peer, 1, 8);
        peer.message(1, b"new");
        peer.expect(FASTWAY, Command::Close { conn: 1 });
        peer.expect_end();
    });
    let client = Client::connect(address, options(FASTWAY)).unwrap();
    let old = client.dial(7).unwrap();
    old.close();
    assert_eq!(old.receive().unwrap(), None);
    // The id is in use again, by another: the old handle has no hold on it.
    let new = client.dial(8).unwrap();
    drop(old);
    assert_eq!(new.receive().unwrap().unwrap(), b"new");
    new.close();
    client.close();
    gateway.join().unwrap();
}

#[test]
fn the_last_handle_closes_the_link() {
    let (address, gateway) = serve(|mut peer| {
        join(&mut peer, 1, 7);
        peer.expect_message(1, b"last words");
        peer.expect(FASTWAY, Command::Close { conn: 1 });
        peer.expect_end();
    });
    let client = Client::connect(address, options(FASTWAY)).unwrap();
    let end = client.clone().dial(7).unwrap();
    drop(client);
    end.send(b"last words").unwrap();
    drop(end);
    gateway.join().unwrap();
}

#[test]
fn the_fastway_dialect_pings_and_takes_the_answers() {
    let (address, gateway) = serve(|mut peer| {
        for _ in 0..3 {
            peer.expect(FASTWAY, Command::Ping);
            peer.tell(FASTWAY, Command::Ping);
        }
        peer.tell(FASTWAY, Command::Connect { conn: 1, remote: 7 });
        while peer.frame().is_some() {}
    });
    let client = Client::connect(
        address,
        Options {
            ping_interval: Duration::from_millis(5),
            ..options(FASTWAY)
        },
    )
    .unwrap();
    assert_eq!(client.accept_timeout(PATIENCE).unwrap().remote(), 7);
    drop(client);
    gateway.join().unwrap();
}

#[test]
fn a_full_queue_stops_the_reading_and_nothing_is_lost() {
    const COUNT: usize = 1000;
    const SIZE: usize = 64 << 10;
    let (told, has_stalled) = mpsc::channel();
    let (address, gateway) = serve(move |mut peer| {
        join(&mut peer, 1, 7);
        let mut stream = Vec::new();
        for at in 0..COUNT {
            stream.extend(Head::new(1, SIZE).unwrap().encode());
            stream.extend(vec![at as u8; SIZE]);
        }
        // What a client that stopped reading leaves room for in the system is far less than this.
        let mut rest = &stream[..];
        peer.stream.set_nonblocking(true).unwrap();
        let (mut is_told, mut idle) = (false, 0);
        while !rest.is_empty() {
            match peer.stream.write(rest) {
                Ok(count) => (rest, idle) = (&rest[count..], 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    peer.stream.set_nonblocking(false).unwrap();
                    let pause = Some(Duration::from_millis(100));
                    peer.stream.set_write_timeout(pause).unwrap();
                    idle += 1;
                }
                Err(error) => panic!("{error}"),
            }
            if idle > 3 && !is_told {
                told.send(stream.len() - rest.len()).unwrap();
                is_told = true;
            }
        }
        assert!(is_told, "the client read on");
        peer.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        peer.tell(FASTWAY, Command::Close { conn: 1 });
        peer.expect(FASTWAY, Command::Close { conn: 1 });
        peer.expect_end();
    });
    let client = Client::connect(
        address,
        Options {
            queue: 4 * SIZE,
            ..options(FASTWAY)
        },
    )
    .unwrap();
    let end = client.dial(7).unwrap();
    has_stalled.recv_timeout(PATIENCE).unwrap();
    for at in 0..COUNT {
        let message = end.receive().unwrap().unwrap();
        assert!(message == vec![at as u8; SIZE], "message {at}");
    }
    assert_eq!(end.receive().unwrap(), None);
    client.close();
    gateway.join().unwrap();
}

#[test]
fn a_sender_without_room_does_not_stop_the_receiving() {
    let (told, is_received) = mpsc::channel();
    let (address, gateway) = serve(move |mut peer| {
        peer.expect(DOCUMENT, Command::New);
        peer.tell(DOCUMENT, Command::Open { conn: 1 });
        peer.expect(DOCUMENT, Command::Dial { conn: 1, remote: 7 });
        peer.tell(DOCUMENT, Command::Accept { conn: 1, remote: 7 });
        // Nothing is read until the client has received all this, a ping among it.
        peer.tell(DOCUMENT, Command::Ping);
        for _ in 0..100 {
            peer.message(1, &[7; 10_000]);
        }
        is_received.recv_timeout(PATIENCE).unwrap();
        let (mut messages, mut pongs, mut closes) = (0, 0, 0);
        while let Some((conn, payload)) = peer.frame() {
            match (conn, DOCUMENT.decode(&payload)) {
                (1, _) => messages += 1,
                (_, Ok(Command::Ping)) => pongs += 1,
                (_, Ok(Command::Close { conn: 1 })) => closes += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((messages, pongs, closes), (400, 1, 1));
    });
    let client = Client::connect(address, options(DOCUMENT)).unwrap();
    let end = client.dial(7).unwrap();
    thread::scope(|scope| {
        // More than the system takes for a gateway that does not read.
        scope.spawn(|| (0..400).for_each(|_| end.send(&[9; 100_000]).unwrap()));
        for _ in 0..100 {
            assert_eq!(end.receive().unwrap().unwrap().len(), 10_000);
        }
        told.send(()).unwrap();
    });
    end.close();
    client.close();
    gateway.join().unwrap();
}

#[test]
fn a_gateway_that_takes_nothing_is_given_up() {
    let (told, is_over) = mpsc::channel::<()>();
    let (address, gateway) = serve(move |mut peer| {
        join(&mut peer, 1, 7);
        let _ = is_over.recv_timeout(PATIENCE);
    });
    let client = Client::connect(
        address,
        Options {
            send_timeout: Duration::from_millis(50),
            ..options(FASTWAY)
        },
    )
    .unwrap();
    let end = client.dial(7).unwrap();
    let error = loop {
        if let Err(error) = end.send(&[0; 500_000]) {
            break error;
        }
    };
    // Either the frame was cut, which ends the link, or not one byte of it went.
    assert!(
        matches!(error, Error::Broken(_) | Error::TimedOut),
        "{error:?}"
    );
    drop((end, client));
    told.send(()).unwrap();
    gateway.join().unwrap();
}

#[test]
fn only_what_fits_a_packet_is_sent() {
    let (address, gateway) = serve(|mut peer| {
        join(&mut peer, 1, 7);
        peer.expect_message(1, b"1234");
        peer.expect(FASTWAY, Command::Close { conn: 1 });
        peer.expect_end();
    });
    let client = Client::connect(
        address,
        Options {
            // Room for the gateway's commands, and no more.
            max_packet: 13,
            ..options(FASTWAY)
        },
    )
    .unwrap();
    let end = client.dial(7).unwrap();
    let error = end.send(b"1234567890").unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLong {
                length: 10,
                most: 9
            }
        ),
        "{error:?}"
    );
    end.send(b"1234").unwrap();
    drop(end);
    client.close();
    gateway.join().unwrap();
}

#[test]
fn a_gateway_that_breaks_the_protocol_is_left() {
    let cut = Dialect::Fastway.frame(Command::Close { conn: 1 });
    for (bytes, words) in [
        (
            &[3, 0, 0, 0, 0, 0, 0, 0][..],
            "connection id needs 4 bytes but 3",
        ),
        (&[1, 0, 8, 0, 1, 0, 0, 0], "packet is 524289 bytes long"),
        (
            &[5, 0, 0, 0, 0, 0, 0, 0, 9],
            "command has the unknown value 9",
        ),
        (&[4, 0, 0, 0, 0, 0, 0, 0], "command needs 1 bytes but 0"),
        (
            &[9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
            "command has the unknown value 0",
        ),
        (&cut.as_ref()[..11], "it ended in the middle of a frame"),
    ] {
        let bytes = bytes.to_vec();
        let (address, gateway) = serve(move |mut peer| {
            join(&mut peer, 1, 7);
            peer.write(&bytes);
        });
        let client = Client::connect(address, options(FASTWAY)).unwrap();
        let end = client.dial(7).unwrap();
        let error = end.receive().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(end.send(b"x").unwrap_err().to_string(), error);
        gateway.join().unwrap();
    }
}

#[test]
fn a_silent_gateway_is_given_up_when_that_is_asked_for() {
    let (address, gateway) = serve(|mut peer| peer.expect_end());
    let client = Client::connect(
        address,
        Options {
            silence_timeout: Some(Duration::from_millis(20)),
            ..options(FASTWAY)
        },
    )
    .unwrap();
    let error = client.accept().unwrap_err();
    assert_eq!(error.to_string(), "nothing came from the gateway for 20ms");
    gateway.join().unwrap();
}

#[test]
fn a_port_that_challenges_nobody_is_not_for_servers() {
    let (address, gateway) = serve(drop);
    let error = Server::connect(address, 7, b"", options(DOCUMENT)).unwrap_err();
    assert!(matches!(error, Error::NoChallenge), "{error:?}");
    gateway.join().unwrap();
}

#[test]
fn a_call_with_a_deadline_can_be_repeated() {
    let (told, may_go_on) = mpsc::channel();
    let (address, gateway) = serve(move |mut peer| {
        join(&mut peer, 1, 7);
        may_go_on.recv().unwrap();
        peer.message(1, b"late");
        peer.tell(FASTWAY, Command::Connect { conn: 2, remote: 8 });
        while peer.frame().is_some() {}
    });
    let client = Client::connect(address, options(FASTWAY)).unwrap();
    let end = client.dial(7).unwrap();
    let moment = Duration::from_millis(1);
    assert!(matches!(end.receive_timeout(moment), Err(Error::TimedOut)));
    assert!(matches!(
        client.accept_timeout(moment),
        Err(Error::TimedOut)
    ));
    told.send(()).unwrap();
    assert_eq!(end.receive_timeout(PATIENCE).unwrap().unwrap(), b"late");
    assert_eq!(client.accept_timeout(PATIENCE).unwrap().id(), 2);
    drop((end, client));
    gateway.join().unwrap();
}
