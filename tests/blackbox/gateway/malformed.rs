//! Frames that break the rules: their sender is closed, its partner hears of it once, and nobody
//! else notices.

use crate::support::gateway::bystander::Bystander;
use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::{DIALECTS, Dialect, Gateway, Got, MOST, Plan, command, data};

const ID: u32 = 21;

struct Case {
    name: String,
    bytes: Vec<u8>,
}

/// A frame by its two numbers, whatever is in it.
fn frame(length: u32, conn: u32, payload: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes()[..], &conn.to_le_bytes(), payload].concat()
}

fn cases(dialect: Dialect) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>| cases.push(Case { name, bytes });
    for length in 0..4 {
        add(format!("length {length}"), frame(length, 0, &[0; 16]));
        add(
            format!("length {length} alone"),
            length.to_le_bytes().to_vec(),
        );
    }
    let most = u32::try_from(MOST).unwrap();
    for length in [most + 1, 1 << 20, 1 << 31, u32::MAX - 3, u32::MAX] {
        // The gateway knows by the length alone.
        add(
            format!("length {length} alone"),
            length.to_le_bytes().to_vec(),
        );
        add(format!("length {length}"), frame(length, 7, &[0; 64]));
    }
    add("no command".into(), frame(4, 0, b""));
    let (known, of_gateway): (u8, &[u8]) = match dialect {
        Dialect::Document => (7, &[1, 3, 4]),
        Dialect::Fastway => (6, &[1, 2, 3]),
    };
    for number in (known..=255).chain(of_gateway.iter().copied()) {
        add(format!("command {number}"), command(number, &[1, 1]));
    }
    let arguments: &[(u8, usize)] = match dialect {
        Dialect::Document => &[(2, 8), (5, 4)],
        Dialect::Fastway => &[(0, 4), (4, 4)],
    };
    for &(number, needed) in arguments {
        for given in 0..needed {
            let payload = [vec![number], vec![0; given]].concat();
            add(
                format!("{given} of {needed} bytes of {number}"),
                data(0, &payload),
            );
        }
    }
    cases
}

/// Sends the case byte by byte where it is short enough for that, and all at once otherwise.
fn deliver(sender: &mut Endpoint, case: &Case, is_byte_by_byte: bool) {
    if is_byte_by_byte {
        let _ = case
            .bytes
            .iter()
            .all(|byte| sender.peer().try_send(&[*byte]));
    } else {
        sender.peer().try_send(&case.bytes);
    }
    sender.expect_closed();
}

#[test]
fn a_client_that_breaks_the_rules_loses_its_own_connections_only() {
    for of_client in DIALECTS {
        let gateway = Gateway::new(Dialect::Fastway);
        let reference = Bystander::start(&gateway, of_client);
        let mut server = gateway.server(ID);
        for case in cases(of_client) {
            for is_byte_by_byte in [false, true] {
                eprintln!("{of_client:?}: {}", case.name);
                let mut client = gateway.client(of_client);
                let conn = client.dial(ID);
                assert_eq!(server.joined().0, conn);
                deliver(&mut client, &case, is_byte_by_byte);
                server.expect(Got::Close(conn));
            }
        }
        server.expect_quiet();
        reference.expect_undisturbed();
        drop(server);
        gateway.stop();
    }
}

#[test]
fn a_server_that_breaks_the_rules_loses_its_own_connections_only() {
    for of_server in DIALECTS {
        let gateway = Gateway::new(of_server);
        let reference = Bystander::start(&gateway, Dialect::Fastway);
        let mut client = gateway.client(Dialect::Fastway);
        for case in cases(of_server) {
            eprintln!("{of_server:?}: {}", case.name);
            let mut server = gateway.server(ID);
            let conn = client.dial(ID);
            assert_eq!(server.joined().0, conn);
            deliver(&mut server, &case, false);
            client.expect(Got::Close(conn)).expect_refused(ID);
        }
        client.expect_quiet();
        reference.expect_undisturbed();
        drop(client);
        gateway.stop();
    }
}

#[test]
fn a_first_frame_that_breaks_the_rules_ends_its_sender() {
    let gateway = Gateway::new(Dialect::Fastway);
    for dialect in DIALECTS {
        let fixed = Plan::new(dialect).text("dialect", dialect.name()).start();
        for case in cases(dialect) {
            eprintln!("{dialect:?}: {}", case.name);
            deliver(&mut fixed.client(dialect), &case, false);
        }
        fixed.stop();
    }
    // Where the dialect is found out, only what is wrong in both is certain.
    for case in cases(Dialect::Document) {
        let is_length = case.name.starts_with("length") || case.name.starts_with("no command");
        let is_strange = (9..=255).any(|number| case.name == format!("command {number}"));
        if is_length || is_strange {
            eprintln!("{}", case.name);
            deliver(&mut gateway.client(Dialect::Document), &case, false);
        }
    }
    gateway.stop();
}

#[test]
fn what_was_sent_before_a_broken_frame_is_delivered() {
    for dialect in DIALECTS {
        let gateway = Gateway::new(dialect);
        let mut pair = gateway.pair(dialect, ID);
        let (conn, second) = (pair.conn, pair.dial(ID));
        let mut bytes = Vec::new();
        for number in 0..100_u8 {
            bytes.extend(data(conn, &[number]));
            bytes.extend(data(second, &[number]));
        }
        bytes.extend(command(200, &[]));
        pair.client.send(bytes).expect_closed();
        let mut next = [0_u8; 2];
        for _ in 0..200 {
            let Got::Data(on, payload) = pair.server.got() else {
                panic!("no data");
            };
            let next = &mut next[usize::from(on == second)];
            assert_eq!(payload, [*next]);
            *next += 1;
        }
        pair.server.expect_closes(&[conn, second]);
        pair.server.expect_quiet();
    }
}

#[test]
fn bytes_behind_the_arguments_are_ignored() {
    for dialect in DIALECTS {
        let gateway = Gateway::new(dialect);
        let mut pair = gateway.pair(dialect, ID);
        let longer = |frame: &[u8], more: usize| {
            let payload = [&frame[8..], &vec![0xaa; more]].concat();
            data(0, &payload)
        };
        for more in [1, 2, 3, 100] {
            let conn = match dialect {
                Dialect::Document => {
                    pair.client.send(longer(&dialect.new_id(), more));
                    let Got::Open(conn) = pair.client.got() else {
                        panic!("no Open");
                    };
                    conn
                }
                Dialect::Fastway => {
                    pair.client
                        .send(longer(&dialect.ping(), more))
                        .expect(Got::Ping);
                    0
                }
            };
            pair.client.send(longer(&dialect.dial(conn, ID), more));
            let (conn, _) = pair.server.joined();
            pair.client.expect(Got::Accept { conn, remote: ID });
            pair.client
                .send(longer(&dialect.close(conn), more))
                .expect(Got::Close(conn));
            pair.server.expect(Got::Close(conn));
        }
        pair.expect_echo();
    }
}

#[test]
fn the_greatest_length_is_what_the_configuration_says() {
    for dialect in DIALECTS {
        let gateway = Plan::new(dialect).text("max_packet", "1K").start();
        let mut pair = gateway.pair(dialect, ID);
        let conn = pair.conn;
        pair.client.data(conn, &[1; 1020]);
        pair.server.expect(Got::Data(conn, vec![1; 1020]));
        pair.client.data(conn, &[1; 1021]).expect_closed();
        pair.server.expect(Got::Close(conn)).expect_quiet();
    }
}

#[test]
fn a_flood_of_pings_is_answered_and_harms_nobody() {
    for dialect in DIALECTS {
        let gateway = Gateway::new(dialect);
        let reference = Bystander::start(&gateway, dialect);
        let mut client = gateway.known_client(dialect);
        let mut writer = client.writer();
        let count = 100_000;
        let writing = std::thread::spawn(move || {
            writer.send(dialect.ping().repeat(count));
        });
        if dialect == Dialect::Fastway {
            for _ in 0..count {
                client.expect(Got::Ping);
            }
        }
        writing.join().unwrap();
        client.expect_quiet();
        reference.expect_undisturbed();
    }
}
