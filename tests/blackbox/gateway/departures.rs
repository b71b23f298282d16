//! Endpoints that go: what they had sent arrives, each partner hears of each connection once, and
//! nothing stays behind.

use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::stream::Stream;
use crate::support::gateway::{DIALECTS, Gateway, Got, PAIRS, data};
use crate::support::until;

const ID: u32 = 51;

/// How an endpoint goes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Fin,
    Reset,
    /// FIN, while it goes on reading.
    HalfClose,
}

const WAYS: [Way; 3] = [Way::Fin, Way::Reset, Way::HalfClose];

/// Lets an endpoint go; what has to stay open for that.
fn go(mut endpoint: Endpoint, way: Way) -> Option<Endpoint> {
    match way {
        // Unread bytes would make the kernel send RST.
        Way::Fin => endpoint.peer().try_finish(),
        Way::HalfClose => {
            endpoint.peer().try_finish();
            return Some(endpoint);
        }
        Way::Reset => endpoint.reset(),
    }
    None
}

#[test]
fn a_client_that_goes_is_told_once_per_connection_to_each_of_its_servers() {
    for (of_client, of_server) in PAIRS {
        for way in WAYS {
            eprintln!("{of_client:?} client of {of_server:?} servers, {way:?}");
            let gateway = Gateway::new(of_server);
            let mut servers = [gateway.server(ID), gateway.server(ID + 1)];
            let mut client = gateway.client(of_client);
            let mut bystander = gateway.client(of_client);
            let conns = [0, 1, 0, 0, 1].map(|at| (at, client.dial(ID + at)));
            let kept = bystander.dial(ID);
            for (at, conn) in conns {
                assert_eq!(servers[at as usize].joined().0, conn);
            }
            servers[0].joined();
            client.expect_quiet();
            let half = go(client, way);
            for (at, server) in (0..).zip(&mut servers) {
                let its = conns
                    .iter()
                    .filter(|(of, _)| *of == at)
                    .map(|(_, conn)| *conn);
                server.expect_closes(&its.collect::<Vec<_>>());
                server.expect_quiet();
            }
            servers[0].data(kept, b"kept");
            bystander
                .expect(Got::Data(kept, b"kept".into()))
                .expect_quiet();
            // FIN by either is the end of both directions.
            if let Some(mut client) = half {
                while client.maybe().is_some() {}
            }
            drop((servers, bystander));
            gateway.stop();
        }
    }
}

#[test]
fn a_server_that_goes_is_told_once_per_connection_to_each_of_its_clients() {
    for (of_client, of_server) in PAIRS {
        for way in WAYS {
            eprintln!("{of_server:?} server of {of_client:?} clients, {way:?}");
            let gateway = Gateway::new(of_server);
            let mut server = gateway.server(ID);
            let mut clients = [gateway.client(of_client), gateway.client(of_client)];
            let conns = [0, 1, 0, 0, 1].map(|at| {
                let conn = clients[at].dial(ID);
                assert_eq!(server.joined().0, conn);
                (at, conn)
            });
            // One that the server dialled is told of as well.
            let mut third = gateway.pair(of_client, ID + 1);
            let dialled = server.dial(third.client_id);
            assert_eq!(third.client.joined(), (dialled, ID));
            server.expect_quiet();
            let half = go(server, way);
            for (at, client) in clients.iter_mut().enumerate() {
                let its = conns
                    .iter()
                    .filter(|(of, _)| *of == at)
                    .map(|(_, conn)| *conn);
                client.expect_closes(&its.collect::<Vec<_>>());
                client.expect_quiet().expect_refused(ID);
            }
            third.client.expect(Got::Close(dialled));
            third.expect_echo();
            if let Some(mut server) = half {
                while server.maybe().is_some() {}
            }
            drop((clients, third));
            gateway.stop();
        }
    }
}

#[test]
fn what_was_sent_before_the_end_is_delivered_before_the_close() {
    for (of_client, of_server) in PAIRS {
        for is_half in [false, true] {
            let gateway = Gateway::new(of_server);
            let mut pair = gateway.pair(of_client, ID);
            let conns = [pair.conn, pair.dial(ID), pair.dial(ID)];
            let mut made = [1, 2, 3].map(|seed| Stream::between(seed, 0, 4000));
            let mut seen = [1, 2, 3].map(|seed| Stream::between(seed, 0, 4000));
            let frames = (0..300).flat_map(|number| made[number % 3].frame(conns[number % 3]));
            pair.client.send(frames.collect::<Vec<u8>>());
            let _half = go(pair.client, if is_half { Way::HalfClose } else { Way::Fin });
            let mut closed = Vec::new();
            while closed.len() < 3 {
                match pair.server.got() {
                    Got::Data(conn, payload) => {
                        let at = conns.iter().position(|one| *one == conn).unwrap();
                        assert!(!closed.contains(&conn), "data behind the Close of {conn}");
                        seen[at].check(&payload);
                    }
                    Got::Close(conn) => closed.push(conn),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(seen.map(|stream| stream.count()), [100; 3]);
            closed.sort_unstable();
            let mut all = conns.to_vec();
            all.sort_unstable();
            assert_eq!(closed, all);
            pair.server.expect_quiet();
        }
    }
}

#[test]
fn what_a_server_sent_before_its_end_is_delivered_before_the_close() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut pair = gateway.pair(of_client, ID);
        let mut made = Stream::between(9, 0, 4000);
        let mut seen = Stream::between(9, 0, 4000);
        let frames = (0..300).flat_map(|_| made.frame(pair.conn));
        pair.server.send(frames.collect::<Vec<u8>>());
        go(pair.server, Way::Fin);
        for _ in 0..300 {
            let Got::Data(_, payload) = pair.client.got() else {
                panic!("no data");
            };
            seen.check(&payload);
        }
        pair.client.expect(Got::Close(pair.conn)).expect_quiet();
    }
}

#[test]
fn a_frame_that_was_cut_by_the_end_is_not_delivered() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let frame = data(0, &[1; 1000]);
        for way in WAYS {
            for cut in [1, 4, 7, 8, 9, 500, frame.len() - 1] {
                let mut pair = gateway.pair(of_client, ID);
                let whole = data(pair.conn, b"whole");
                let part = &data(pair.conn, &[1; 1000])[..cut];
                pair.client.send([&whole, part].concat()).peer().settle();
                pair.server.expect(Got::Data(pair.conn, b"whole".into()));
                let _half = go(pair.client, way);
                pair.server.expect(Got::Close(pair.conn)).expect_quiet();
            }
        }
    }
}

#[test]
fn endpoints_may_go_at_any_time_and_leave_nothing() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        for way in WAYS {
            // A client that asked and did not wait, each time with a server that stays or goes.
            for number in 0..20 {
                // One id each, or a late dial would reach the next server.
                let id = ID + number;
                let mut server = gateway.server(id);
                let mut client = gateway.client(of_client);
                let conn = match client.dialect.name() {
                    "document" => client.open(),
                    _ => 0,
                };
                client.send(client.dialect.dial(conn, id));
                if number % 2 == 0 {
                    server.peer().try_finish();
                }
                drop(go(client, way));
                drop(go(server, way));
            }
            gateway.server.expect_open(0);
        }
        gateway.expect_alive();
        gateway.stop();
    }
}

#[test]
fn both_ends_may_go_at_once() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        for (first, second) in [
            (Way::Fin, Way::Reset),
            (Way::Reset, Way::Fin),
            (Way::Reset, Way::Reset),
        ] {
            for _ in 0..20 {
                let mut pair = gateway.pair(of_client, ID);
                pair.client.data(pair.conn, &[1; 10_000]);
                pair.server.data(pair.conn, &[1; 10_000]);
                go(pair.client, first);
                go(pair.server, second);
            }
        }
        gateway.expect_alive();
        gateway.stop();
    }
}

#[test]
fn a_server_that_has_gone_can_come_back() {
    for dialect in DIALECTS {
        let gateway = Gateway::new(dialect);
        let mut client = gateway.client(dialect);
        for way in [Way::Fin, Way::Reset].repeat(5) {
            let mut server = gateway.server(ID);
            let conn = client.dial(ID);
            assert_eq!(server.joined().0, conn);
            go(server, way);
            client.expect(Got::Close(conn));
            until("the dial is refused", || match client.try_dial(ID) {
                Some(conn) => {
                    client.expect(Got::Close(conn));
                    false
                }
                None => true,
            });
        }
    }
}
