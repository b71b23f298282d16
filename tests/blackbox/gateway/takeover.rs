//! Servers that share an id: the newest is dialled, the older ones keep what they have, and serve
//! again when the newest goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::{DIALECTS, Dialect, Gateway, Got, PAIRS};

const ID: u32 = 61;

/// Dials and fails unless it is this server that hears of it.
fn expect_serving(client: &mut Endpoint, server: &mut Endpoint) -> u32 {
    let conn = client.dial(ID);
    assert_eq!(server.joined().0, conn);
    client.data(conn, b"who is it?");
    server.expect(Got::Data(conn, b"who is it?".into()));
    conn
}

#[test]
fn the_newest_server_is_dialled_and_the_older_ones_serve_again() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut client = gateway.client(of_client);
        let mut servers = Vec::new();
        let mut conns = Vec::new();
        for _ in 0..3 {
            let mut server = gateway.server(ID);
            conns.push(expect_serving(&mut client, &mut server));
            servers.push(server);
        }
        // Every one of them keeps its own connection, both ways.
        for (server, conn) in servers.iter_mut().zip(&conns) {
            client.data(*conn, b"still there?");
            server.expect(Got::Data(*conn, b"still there?".into()));
            server.data(*conn, b"still here");
            client.expect(Got::Data(*conn, b"still here".into()));
            server.expect_quiet();
        }
        for reset in [true, false] {
            let newest = servers.pop().unwrap();
            let conn = conns.pop().unwrap();
            match reset {
                true => newest.reset(),
                false => newest.leave(),
            }
            client.expect(Got::Close(conn));
            let server = servers.last_mut().unwrap();
            let conn = expect_serving(&mut client, server);
            client.close(conn).expect(Got::Close(conn));
            server.expect(Got::Close(conn));
        }
        servers.pop().unwrap().leave();
        client.expect(Got::Close(conns[0])).expect_refused(ID);
    }
}

#[test]
fn an_older_server_may_go_without_a_trace() {
    for dialect in DIALECTS {
        let gateway = Gateway::new(dialect);
        let mut client = gateway.client(dialect);
        let mut servers: Vec<Endpoint> = (0..4).map(|_| gateway.server(ID)).collect();
        // From the oldest on, and from the middle.
        for at in [0, 1, 0] {
            servers.remove(at).leave();
            let newest = servers.last_mut().unwrap();
            expect_serving(&mut client, newest);
        }
        client.expect_quiet();
        servers.pop().unwrap().reset();
        let mut closes = 0;
        while closes < 3 {
            client.closed();
            closes += 1;
        }
        client.expect_quiet().expect_refused(ID);
    }
}

/// A server that can be dialled, and is while it asks whether it can.
fn busy_server(gateway: &Gateway) -> Endpoint {
    let mut server = gateway.hasty_server(ID);
    skip_news(&mut server);
    server
}

/// Passes over what a server hears of connections, up to now.
fn skip_news(server: &mut Endpoint) {
    server.send(match server.dialect {
        Dialect::Document => server.dialect.new_id(),
        Dialect::Fastway => server.dialect.ping(),
    });
    while !matches!(server.got(), Got::Open(_) | Got::Ping) {}
}

/// Reads up to the news of this connection; late Closes of earlier ones may come before.
fn hear_of(server: &mut Endpoint, conn: u32) {
    loop {
        match server.got() {
            Got::Accept { conn: joined, .. } | Got::Connect { conn: joined, .. } => {
                assert_eq!(joined, conn);
                return;
            }
            Got::Close(other) if other != conn => {}
            other => panic!("{other:?} instead of news of {conn}"),
        }
    }
}

/// Dials without a pause until it is told to stop; then nothing of it is open any more.
fn dial_on(mut client: Endpoint, stopping: &AtomicBool) -> (Endpoint, usize) {
    let mut open: Vec<u32> = Vec::new();
    let mut accepted = 0;
    while !stopping.load(Ordering::SeqCst) {
        let id = match client.dialect {
            Dialect::Document => {
                client.send(client.dialect.new_id());
                wait(&mut client, &mut open, |got| match got {
                    Got::Open(conn) => Some(conn),
                    _ => None,
                })
            }
            Dialect::Fastway => 0,
        };
        client.send(client.dialect.dial(id, ID));
        let conn = wait(&mut client, &mut open, |got| match got {
            Got::Accept { conn, .. } => Some(Some(conn)),
            Got::Refuse(_) => Some(None),
            _ => None,
        });
        let Some(conn) = conn else {
            continue;
        };
        open.push(conn);
        accepted += 1;
        // Half of them it closes itself, the others go with their servers or here, when it has many.
        if accepted % 2 == 0 || open.len() > 8 {
            let conn = open[0];
            client.close(conn);
            wait(&mut client, &mut open, |got| {
                (got == Got::Close(conn)).then_some(())
            });
            open.retain(|one| *one != conn);
        }
    }
    for conn in &open {
        client.close(*conn);
    }
    while !open.is_empty() {
        let conn = client.closed();
        assert!(open.contains(&conn), "a second Close of {conn}");
        open.retain(|one| *one != conn);
    }
    (client, accepted)
}

/// Reads up to the frame that `is_it` wants; what comes before are Closes of open connections.
fn wait<T>(client: &mut Endpoint, open: &mut Vec<u32>, is_it: impl Fn(Got) -> Option<T>) -> T {
    loop {
        let got = client.got();
        if let Some(it) = is_it(got.clone()) {
            return it;
        }
        let Got::Close(conn) = got else {
            panic!("{got:?} in between");
        };
        assert!(open.contains(&conn), "a second Close of {conn}");
        open.retain(|one| *one != conn);
    }
}

#[test]
fn a_hundred_quick_takeovers_leave_the_id_served() {
    for (of_client, of_server) in PAIRS {
        eprintln!("{of_client:?} clients of {of_server:?} servers");
        let gateway = Gateway::new(of_server);
        let stopping = Arc::new(AtomicBool::new(false));
        let clients = [(); 2].map(|()| gateway.known_client(of_client));
        let without_servers = gateway.descriptors();
        let dialling: Vec<_> = clients
            .into_iter()
            .map(|client| {
                let stopping = Arc::clone(&stopping);
                std::thread::spawn(move || dial_on(client, &stopping))
            })
            .collect();
        let mut server = gateway.hasty_server(ID);
        for number in 0..100 {
            // The old one goes before, with, or after the coming of the new one.
            match number % 3 {
                0 => {
                    let old = std::mem::replace(&mut server, gateway.hasty_server(ID));
                    old.reset();
                }
                1 => {
                    server.peer().try_finish();
                    server = gateway.hasty_server(ID);
                }
                _ => {
                    let old = std::mem::replace(&mut server, busy_server(&gateway));
                    drop(old);
                }
            }
        }
        // The last one is alone, and the one that is served.
        let mut last = busy_server(&gateway);
        drop(server);
        stopping.store(true, Ordering::SeqCst);
        let clients: Vec<_> = dialling
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect();
        // One that has answered its challenge and left may come in behind the last.
        gateway.expect_descriptors(without_servers + 1);
        skip_news(&mut last);
        for (mut client, accepted) in clients {
            eprintln!("{accepted} dials were accepted meanwhile");
            client.expect_quiet();
            let conns: Vec<u32> = (0..16).map(|_| client.dial(ID)).collect();
            client.expect_refused(ID);
            for conn in &conns {
                hear_of(&mut last, *conn);
            }
            for conn in conns {
                last.close(conn).expect(Got::Close(conn));
                client.expect(Got::Close(conn));
            }
        }
        drop(last);
        gateway.stop();
    }
}
