//! What virtual connections do when all is well, for every pair of dialects.

use crate::support::bulk::Numbers;
use crate::support::gateway::{
    DIALECTS, Dialect, Gateway, Got, MOST_PAYLOAD, PAIRS, Plan, command, data,
};

const ID: u32 = 42;

#[test]
fn every_pair_of_dialects_dials_echoes_and_closes_from_either_end() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut pair = gateway.pair(of_client, ID);
        for size in [0, 1, 64, MOST_PAYLOAD] {
            let payload = Numbers::new(size as u64).bytes(size);
            let conn = pair.conn;
            pair.client.data(conn, &payload);
            pair.server.expect(Got::Data(conn, payload.clone()));
            pair.server.data(conn, &payload);
            pair.client.expect(Got::Data(conn, payload));
        }
        pair.expect_close();
        let conn = pair.dial(ID);
        pair.server.close(conn);
        pair.client.expect(Got::Close(conn)).expect_quiet();
        pair.server.expect(Got::Close(conn)).expect_quiet();
        drop(pair);
        gateway.stop();
    }
}

#[test]
fn every_pair_of_dialects_lets_a_server_dial_a_client() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut pair = gateway.pair(of_client, ID);
        let first = pair.conn;
        for closer in 0..2 {
            let conn = pair.server.dial(pair.client_id);
            assert_ne!(conn, first);
            assert_eq!(pair.client.joined(), (conn, ID));
            pair.server
                .data(conn, b"from server")
                .data(first, b"on the first");
            pair.client.expect(Got::Data(conn, b"from server".into()));
            pair.client.expect(Got::Data(first, b"on the first".into()));
            pair.client.data(conn, b"from client");
            pair.server.expect(Got::Data(conn, b"from client".into()));
            match closer {
                0 => pair.server.close(conn),
                _ => pair.client.close(conn),
            };
            pair.client.expect(Got::Close(conn)).expect_quiet();
            pair.server.expect(Got::Close(conn)).expect_quiet();
        }
        pair.expect_echo();
    }
}

#[test]
fn a_dial_of_nobody_is_refused_and_costs_nothing() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut client = gateway.client(of_client);
        // More often than the client may have connections.
        for _ in 0..20 {
            client.expect_refused(99);
        }
        let mut server = gateway.server(ID);
        server.expect_refused(4242);
        let conn = client.dial(ID);
        let (joined, client_id) = server.joined();
        assert_eq!(joined, conn);
        client.leave();
        server.expect(Got::Close(conn)).expect_refused(client_id);
        // Servers are no clients: the ids of one are not those of the other.
        server.expect_refused(ID);
    }
}

#[test]
fn ids_tell_the_ends_and_the_connections_apart() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut server = gateway.server(ID);
        let mut other = gateway.server(ID + 1);
        let mut clients = [gateway.client(of_client), gateway.client(of_client)];
        let mut ids = Vec::new();
        let mut conns = Vec::new();
        for client in &mut clients {
            let conn = client.dial(ID);
            let (joined, id) = server.joined();
            assert_eq!(joined, conn);
            let elsewhere = client.dial(ID + 1);
            assert_eq!(other.joined(), (elsewhere, id), "the client keeps its id");
            ids.push(id);
            conns.extend([conn, elsewhere]);
        }
        assert_ne!(ids[0], ids[1]);
        conns.sort_unstable();
        conns.dedup();
        assert_eq!(conns.len(), 4, "no two connections have one id");
    }
}

#[test]
fn connections_to_several_servers_do_not_mix() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut servers: Vec<_> = (0..3).map(|id| gateway.server(id)).collect();
        let mut client = gateway.client(of_client);
        let conns: Vec<u32> = (0..3).map(|id| client.dial(id)).collect();
        for (server, conn) in servers.iter_mut().zip(&conns) {
            assert_eq!(server.joined().0, *conn);
        }
        let round: Vec<u8> = (0..30)
            .flat_map(|number: usize| data(conns[number % 3], &[number.to_le_bytes()[0]]))
            .collect();
        client.send(round);
        for number in 0..30_u8 {
            let at = usize::from(number) % 3;
            servers[at].expect(Got::Data(conns[at], vec![number]));
            servers[at].data(conns[at], &[number]);
        }
        let mut next = [0_u8, 1, 2];
        for _ in 0..30 {
            let Got::Data(conn, payload) = client.got() else {
                panic!("no data");
            };
            let at = conns.iter().position(|one| *one == conn).unwrap();
            assert_eq!(payload, [next[at]], "order on {conn}");
            next[at] += 3;
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    for of_server in DIALECTS {
        let gateway = Gateway::new(of_server);
        let mut servers = [gateway.server(1), gateway.server(2)];
        let dialect = Dialect::Fastway;
        let mut client = gateway.client(dialect);
        let dials = [1, 9, 2, 9, 1].map(|id| dialect.dial(0, id)).concat();
        client.send([dials, dialect.ping()].concat());
        let mut accepted = Vec::new();
        for id in [1, 9, 2, 9, 1] {
            match client.got() {
                Got::Accept { conn, remote } if id != 9 => {
                    assert_eq!(remote, id);
                    accepted.push(conn);
                }
                Got::Refuse(9) if id == 9 => {}
                other => panic!("{other:?} for the dial of {id}"),
            }
        }
        client.expect(Got::Ping);
        assert_eq!(servers[0].joined().0, accepted[0]);
        assert_eq!(servers[1].joined().0, accepted[1]);
        assert_eq!(servers[0].joined().0, accepted[2]);
        let dialect = Dialect::Document;
        let mut client = gateway.client(dialect);
        client.send(dialect.new_id().repeat(3));
        let conns = [0; 3].map(|_| match client.got() {
            Got::Open(conn) => conn,
            other => panic!("{other:?}"),
        });
        let dials = [(0, 1), (1, 9), (2, 2)].map(|(at, id)| dialect.dial(conns[at], id));
        client.send(dials.concat());
        let accept = |conn, remote| Got::Accept { conn, remote };
        client
            .expect(accept(conns[0], 1))
            .expect(Got::Refuse(conns[1]));
        client.expect(accept(conns[2], 2));
        assert_eq!(servers[0].joined().0, conns[0]);
        assert_eq!(servers[1].joined().0, conns[2]);
    }
}

#[test]
fn a_dialling_server_hears_accept_before_any_data() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut pair = gateway.pair(of_client, ID);
        let (rounds, client_id) = (300, pair.client_id);
        let mut client = pair.client;
        // Answers at once, as the libraries' applications do.
        let answering = std::thread::spawn(move || {
            for _ in 0..rounds {
                let (conn, _) = client.joined();
                client.data(conn, b"at once").close(conn);
                client.expect(Got::Close(conn));
            }
            client
        });
        for _ in 0..rounds {
            let conn = pair.server.dial(client_id);
            pair.server.expect(Got::Data(conn, b"at once".into()));
            pair.server.expect(Got::Close(conn));
        }
        answering.join().unwrap();
    }
}

#[test]
fn a_dialling_client_hears_accept_before_any_data() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut server = gateway.server(ID);
        let rounds = 300;
        let answering = std::thread::spawn(move || {
            for _ in 0..rounds {
                let (conn, _) = server.joined();
                server.data(conn, b"at once").close(conn);
                server.expect(Got::Close(conn));
            }
            server
        });
        let mut client = gateway.client(of_client);
        for _ in 0..rounds {
            let conn = client.dial(ID);
            client.expect(Got::Data(conn, b"at once".into()));
            client.expect(Got::Close(conn));
        }
        answering.join().unwrap();
    }
}

#[test]
fn data_frames_are_passed_on_to_the_byte() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut pair = gateway.pair(of_client, ID);
        for size in [0, 1, 5, 4096, 100_000] {
            // Payloads that look like frames and commands of their own.
            let mut payload = command(4, &[pair.conn]).repeat(size / 13 + 1);
            payload.truncate(size);
            let frame = data(pair.conn, &payload);
            pair.client.send(&frame);
            assert!(pair.server.next_frame().as_ref() == Some(&frame));
            pair.server.send(&frame);
            assert!(pair.client.next_frame().as_ref() == Some(&frame));
        }
    }
}

#[test]
fn a_first_command_tells_the_dialect() {
    let gateway = Gateway::new(Dialect::Fastway);
    let _server = gateway.server(ID);
    for dialect in DIALECTS {
        gateway.client(dialect).dial(ID);
    }
    // The libraries in use may ping before they dial.
    let mut client = gateway.client(Dialect::Fastway);
    client.ping().expect(Got::Ping).ping().expect(Got::Ping);
    client.dial(ID);
    // The dialect stays what it was: New is a Dial without its argument.
    let mut client = gateway.known_client(Dialect::Fastway);
    client.send(Dialect::Document.new_id()).expect_closed();
    // And a Dial of the other dialect is a New with bytes behind it.
    let mut client = gateway.known_client(Dialect::Document);
    client.send(Dialect::Fastway.dial(0, ID));
    assert!(matches!(client.got(), Got::Open(_)));
}

#[test]
fn a_fixed_dialect_is_not_guessed() {
    let fixed = |dialect: Dialect| {
        let plan = Plan::new(Dialect::Fastway).text("dialect", dialect.name());
        plan.start()
    };
    let gateway = fixed(Dialect::Document);
    let mut client = gateway.client(Dialect::Document);
    client.send(Dialect::Fastway.dial(0, ID));
    assert!(matches!(client.got(), Got::Open(_)));
    let gateway = fixed(Dialect::Fastway);
    let mut client = gateway.client(Dialect::Fastway);
    client.send(Dialect::Document.new_id()).expect_closed();
    gateway.pair(Dialect::Fastway, ID).expect_echo();
}
