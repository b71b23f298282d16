//! Connections belong to their two ends: nobody else closes them or speaks on them, and who tries
//! keeps its own link.

use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::{Dialect, Gateway, Got, PAIRS, Pair, data};

const ID: u32 = 11;

/// A victim pair, and two that are no part of it: a client and a server.
struct Scene {
    gateway: Gateway,
    victims: Pair,
    intruders: [Endpoint; 2],
}

fn scenes() -> impl Iterator<Item = Scene> {
    PAIRS.into_iter().map(|(of_client, of_server)| {
        let gateway = Gateway::new(of_server);
        let victims = gateway.pair(of_client, ID);
        let intruders = [gateway.known_client(of_client), gateway.server(ID + 1)];
        Scene {
            gateway,
            victims,
            intruders,
        }
    })
}

/// Fails unless the victims got nothing and still talk.
fn expect_unaffected(victims: &mut Pair) {
    victims.client.expect_quiet();
    victims.server.expect_quiet();
    victims.expect_echo();
}

#[test]
fn a_foreign_close_is_ignored() {
    for mut scene in scenes() {
        for intruder in &mut scene.intruders {
            intruder.close(scene.victims.conn).expect_quiet();
            expect_unaffected(&mut scene.victims);
            for conn in [0, 1, 777, u32::MAX] {
                intruder.close(conn);
            }
            intruder.expect_quiet();
        }
        scene.victims.expect_close();
        scene.gateway.expect_alive();
    }
}

#[test]
fn foreign_data_is_answered_like_an_unknown_id() {
    for mut scene in scenes() {
        let conn = scene.victims.conn;
        for intruder in &mut scene.intruders {
            for payload in [&b""[..], b"nobody", &[0; 100_000]] {
                intruder.data(conn, payload).expect(Got::Close(conn));
                intruder.expect_quiet();
                expect_unaffected(&mut scene.victims);
            }
        }
        scene.victims.expect_close();
    }
}

#[test]
fn unknown_ids_are_answered_with_one_close_each() {
    for mut scene in scenes() {
        for intruder in &mut scene.intruders {
            for id in [12_345, 1, 4_294_967_295] {
                intruder
                    .data(id, b"nobody")
                    .expect(Got::Close(id))
                    .expect_quiet();
            }
            let batch = [(77, 5), (88, 0), (77, 0), (99, 3), (88, 9)];
            let batch = batch.map(|(id, size)| data(id, &vec![1; size]));
            intruder.send(batch.concat());
            intruder.expect_closes(&[77, 88, 99]);
            intruder.expect_quiet();
        }
        expect_unaffected(&mut scene.victims);
    }
}

#[test]
fn a_batch_on_a_foreign_id_is_answered_once() {
    for mut scene in scenes() {
        let conn = scene.victims.conn;
        for intruder in &mut scene.intruders {
            intruder.send(data(conn, b"again").repeat(100));
            intruder.expect(Got::Close(conn)).expect_quiet();
        }
        expect_unaffected(&mut scene.victims);
    }
}

#[test]
fn a_flood_on_an_unknown_id_costs_few_answers() {
    for mut scene in scenes() {
        for intruder in &mut scene.intruders {
            let frames = 20_000;
            let flood = data(77, &[0; 56]).repeat(frames);
            let mut writer = intruder.writer();
            let dialect = intruder.dialect;
            let writing = std::thread::spawn(move || {
                writer.send(flood).send(match dialect {
                    Dialect::Document => dialect.new_id(),
                    Dialect::Fastway => dialect.ping(),
                });
            });
            let mut closes = 0;
            while let Got::Close(id) = intruder.got() {
                assert_eq!(id, 77);
                closes += 1;
            }
            writing.join().unwrap();
            // A batch is what one turn took: some sixty bytes make a frame here.
            assert!((1..frames / 10).contains(&closes), "{closes} answers");
        }
        expect_unaffected(&mut scene.victims);
    }
}

#[test]
fn data_behind_a_close_is_answered_and_not_delivered() {
    for mut scene in scenes() {
        let conn = scene.victims.conn;
        let victims = &mut scene.victims;
        let late = data(conn, b"late");
        let close = victims.client.dialect.close(conn);
        victims
            .client
            .send([data(conn, b"in time"), close, late].concat());
        // One for its own Close, and perhaps one for what came behind it in the same batch.
        victims.client.expect(Got::Close(conn));
        let more = victims.client.closes_before_quiet();
        assert!(more.is_empty() || more == [conn], "{more:?}");
        victims.server.expect(Got::Data(conn, b"in time".into()));
        victims.server.expect(Got::Close(conn)).expect_quiet();
        // The libraries close what they see closed; that is no news to anybody.
        victims.server.close(conn).close(conn).expect_quiet();
        victims.client.close(conn).expect_quiet();
        victims.server.data(conn, b"later").expect(Got::Close(conn));
        victims.client.expect_quiet();
    }
}

#[test]
fn a_connection_id_of_somebody_else_cannot_be_dialled() {
    for mut scene in scenes().filter(|scene| scene.victims.client.dialect == Dialect::Document) {
        let conn = scene.victims.conn;
        let mut other = scene.gateway.client(Dialect::Document);
        let opened = other.open();
        let [intruder, _] = &mut scene.intruders;
        for id in [conn, opened] {
            intruder.send(intruder.dialect.dial(id, ID));
            intruder.expect(Got::Refuse(id)).expect_quiet();
        }
        expect_unaffected(&mut scene.victims);
        // The one to whom it was given still can.
        let dial = other.dialect.dial(opened, ID);
        let accept = Got::Accept {
            conn: opened,
            remote: ID,
        };
        other.send(dial).expect(accept);
        assert_eq!(scene.victims.server.joined().0, opened);
        // And nobody can while it is in use, its owner included.
        for client in [&mut other, &mut scene.victims.client] {
            for id in [conn, opened] {
                client.send(client.dialect.dial(id, ID));
                client.expect(Got::Refuse(id)).expect_quiet();
            }
        }
        expect_unaffected(&mut scene.victims);
        other.data(opened, b"still mine");
        let mine = Got::Data(opened, b"still mine".into());
        scene.victims.server.expect(mine).expect_quiet();
    }
}

#[test]
fn a_server_cannot_dial_with_an_id_of_somebody_else() {
    let gateway = Gateway::new(Dialect::Document);
    let mut victims = gateway.pair(Dialect::Fastway, ID);
    let (conn, client_id) = (victims.conn, victims.client_id);
    let mut other = gateway.server(ID + 1);
    other.send(other.dialect.dial(conn, client_id));
    other.expect(Got::Refuse(conn)).expect_quiet();
    expect_unaffected(&mut victims);
}

#[test]
fn connection_ids_cannot_be_guessed_from_ones_own() {
    let gateway = Gateway::new(Dialect::Fastway);
    let mut server = gateway.server(ID);
    let mut victim = gateway.client(Dialect::Fastway);
    let conn = victim.dial(ID);
    server.joined();
    let mut intruder = gateway.client(Dialect::Fastway);
    let own = intruder.dial(ID);
    server.joined();
    assert!(own.abs_diff(conn) > 16, "{own} stands next to {conn}");
}
