//! Frames as TCP delivers them: byte by byte, cut anywhere, many at once.

use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::stream::Stream;
use crate::support::gateway::{DIALECTS, Dialect, Gateway, Got, KEY, PAIRS, answer, data};

const ID: u32 = 0x0102_0304;

/// Sends every byte as a segment of its own.
fn trickle(endpoint: &mut Endpoint, bytes: &[u8]) {
    for byte in bytes {
        endpoint.send([*byte]).peer().settle();
    }
}

/// A server whose handshake came byte by byte.
fn trickled_server(gateway: &Gateway, dialect: Dialect) -> Endpoint {
    let (peer, challenge) = gateway.knock();
    let mut server = Endpoint::new(peer, dialect);
    trickle(&mut server, &answer(&challenge, KEY, ID));
    server.expect_quiet();
    server
}

#[test]
fn whole_conversations_go_byte_by_byte() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut server = trickled_server(&gateway, of_server);
        let mut client = gateway.client(of_client);
        let conn = match of_client {
            Dialect::Document => {
                trickle(&mut client, &of_client.new_id());
                let Got::Open(conn) = client.got() else {
                    panic!("no Open");
                };
                conn
            }
            Dialect::Fastway => 0,
        };
        trickle(&mut client, &of_client.dial(conn, ID));
        let Got::Accept { conn, remote: ID } = client.got() else {
            panic!("no Accept");
        };
        assert_eq!(server.joined().0, conn);
        trickle(&mut client, &data(conn, b"slowly there"));
        server.expect(Got::Data(conn, b"slowly there".into()));
        trickle(&mut server, &data(conn, b"and back"));
        client.expect(Got::Data(conn, b"and back".into()));
        trickle(&mut client, &data(conn, b""));
        server.expect(Got::Data(conn, Vec::new()));
        trickle(&mut client, &of_client.close(conn));
        client.expect(Got::Close(conn));
        server.expect(Got::Close(conn));
    }
}

#[test]
fn a_frame_may_be_cut_anywhere() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut pair = gateway.pair(of_client, ID);
        let conn = pair.conn;
        let frame = data(conn, b"0123456789");
        for cut in 1..frame.len() {
            pair.client.send(&frame[..cut]).peer().settle();
            pair.client.send(&frame[cut..]);
            assert_eq!(
                pair.server.next_frame().as_ref(),
                Some(&frame),
                "cut at {cut}"
            );
            pair.server.send(&frame[..cut]).peer().settle();
            pair.server.send(&frame[cut..]);
            assert_eq!(
                pair.client.next_frame().as_ref(),
                Some(&frame),
                "cut at {cut}"
            );
        }
        for cut in 1..of_client.close(0).len() {
            let conn = pair.dial(ID);
            let close = of_client.close(conn);
            // The part before the cut comes together with a whole frame.
            pair.client
                .send([&data(conn, b"x")[..], &close[..cut]].concat());
            pair.client.peer().settle();
            pair.client.send(&close[cut..]).expect(Got::Close(conn));
            pair.server
                .expect(Got::Data(conn, b"x".into()))
                .expect(Got::Close(conn));
        }
    }
}

#[test]
fn a_dial_may_be_cut_anywhere() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut server = gateway.server(ID);
        for cut in 1..of_client.dial(0, 0).len() {
            // A client of its own, so that the first command is what is cut.
            let mut client = gateway.client(of_client);
            let conn = match of_client {
                Dialect::Document => client.open(),
                Dialect::Fastway => 0,
            };
            let dial = of_client.dial(conn, ID);
            client.send(&dial[..cut]).peer().settle();
            client.send(&dial[cut..]);
            let (conn, client_id) = server.joined();
            client.expect(Got::Accept { conn, remote: ID });
            client.leave();
            server.expect(Got::Close(conn)).expect_refused(client_id);
        }
    }
}

#[test]
fn a_handshake_may_be_cut_anywhere() {
    for dialect in DIALECTS {
        let gateway = Gateway::new(dialect);
        for cut in 1..24 {
            let (mut peer, challenge) = gateway.knock();
            let proof = answer(&challenge, KEY, ID);
            let first = match dialect {
                Dialect::Document => dialect.new_id(),
                Dialect::Fastway => dialect.ping(),
            };
            let bytes = [proof, first].concat();
            peer.send(&bytes[..cut]).settle();
            peer.send(&bytes[cut..]);
            let mut server = Endpoint::new(peer, dialect);
            assert!(
                matches!(server.got(), Got::Open(_) | Got::Ping),
                "cut at {cut}"
            );
        }
    }
}

#[test]
fn many_frames_may_come_in_one_segment() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut pair = gateway.pair(of_client, ID);
        let second = pair.dial(ID);
        let conns = [pair.conn, second];
        let mut made = [3, 4].map(|seed| Stream::between(seed, 0, 40));
        let mut seen = [3, 4].map(|seed| Stream::between(seed, 0, 40));
        for _ in 0..20 {
            let frames: Vec<u8> = (0..1000)
                .flat_map(|number| made[number % 2].frame(conns[number % 2]))
                .collect();
            pair.client.send(frames);
            for _ in 0..1000 {
                let Got::Data(conn, payload) = pair.server.got() else {
                    panic!("no data");
                };
                // One client's connections to one server share its order of sending, or take turns.
                let at = conns.iter().position(|one| *one == conn).unwrap();
                seen[at].check(&payload);
            }
        }
        assert_eq!(seen.map(|stream| stream.count()), [10_000, 10_000]);
    }
}

#[test]
fn a_large_frame_may_come_in_small_parts_among_small_ones() {
    for of_server in DIALECTS {
        let gateway = Gateway::new(of_server);
        let mut pair = gateway.pair(Dialect::Fastway, ID);
        let conn = pair.conn;
        let large = data(conn, &vec![7; 300_000]);
        let bytes = [data(conn, b"before"), large.clone(), data(conn, b"behind")].concat();
        for part in bytes.chunks(9973) {
            pair.client.send(part).peer().settle();
        }
        pair.server.expect(Got::Data(conn, b"before".into()));
        assert!(pair.server.next_frame() == Some(large));
        pair.server.expect(Got::Data(conn, b"behind".into()));
    }
}
