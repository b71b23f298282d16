//! The agent store as its clients see it: what is stored is read back, exactly and in bounds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::folder::Folder;
use crate::support::frame::{self, AGENT, DIALECTS, Dialect, MOST};
use crate::support::server::Setup;

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[test]
fn a_value_stored_in_one_dialect_is_read_in_both() {
    let server = Setup::new().start();
    for writer in DIALECTS {
        let id = format!("{writer:?}");
        let before = unix_seconds();
        let update = writer.update(id.as_bytes(), b"status", b"hello");
        server.connect().ask(writer, &update).expect_done(b"update");
        for reader in DIALECTS {
            let reply = server
                .connect()
                .ask(reader, &reader.query(id.as_bytes(), b"status"));
            let (timestamp, data) = reply.record(reader);
            assert_eq!((reply.code, data.as_slice()), (0, &b"hello"[..]));
            assert!(
                (before..=unix_seconds()).contains(&timestamp),
                "{timestamp}"
            );
        }
    }
    server.stop();
}

#[test]
fn a_key_that_is_not_there_answers_not_existed() {
    let server = Setup::new().start();
    server.store(b"id", b"section", b"value");
    for dialect in DIALECTS {
        for (id, section) in [
            (&b"id"[..], &b"other"[..]),
            (b"other", b"section"),
            (b"", b""),
        ] {
            let reply = server.connect().ask(dialect, &dialect.query(id, section));
            reply.expect_missing(dialect);
        }
    }
}

#[test]
fn five_hundred_ids_with_three_sections_each_read_back_exactly() {
    let server = Setup::new().start();
    let narrow = Dialect::Document;
    let value = |id: u32, section: u32| format!("value of {id}/{section}").into_bytes();
    let key = |id: u32, section: u32| (format!("device-{id}"), format!("section-{section}"));
    // Several writers at once share the disk's syncs.
    let mut writers: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for id in 0..500 {
        for section in 0..3 {
            let (name, part) = key(id, section);
            let update = narrow.update(name.as_bytes(), part.as_bytes(), &value(id, section));
            writers[id as usize % 20].send(update);
        }
    }
    for writer in &mut writers {
        for _ in 0..75 {
            writer.reply(narrow).expect_done(b"update");
        }
    }
    let mut reader = server.connect();
    for id in 0..500 {
        for section in 0..3 {
            let (name, part) = key(id, section);
            let query = narrow.query(name.as_bytes(), part.as_bytes());
            let (_, data) = reader.ask(narrow, &query).record(narrow);
            assert_eq!(data, value(id, section));
        }
    }
    server.stop();
}

#[test]
fn removing_a_key_leaves_its_neighbours() {
    let server = Setup::new().start();
    let wide = Dialect::Stock;
    server.store(b"id", b"one", b"1");
    server.store(b"id", b"two", b"2");
    server
        .connect()
        .ask(wide, &frame::remove(b"id", b"one"))
        .expect_done(b"update");
    assert_eq!(server.stored(b"id", b"one"), None);
    assert_eq!(server.stored(b"id", b"two").as_deref(), Some(&b"2"[..]));
    // What is not there can be removed too.
    server
        .connect()
        .ask(wide, &frame::remove(b"id", b"one"))
        .expect_done(b"update");
}

#[test]
fn an_unknown_update_op_succeeds_without_effect() {
    let server = Setup::new().start();
    let wide = Dialect::Stock;
    server.store(b"id", b"section", b"kept");
    for op in [2, 7, u32::MAX] {
        let payload = wide.update_payload(b"id", b"section", b"new", op);
        server
            .connect()
            .ask(wide, &wide.frame(AGENT, &payload))
            .expect_done(b"update");
        assert_eq!(
            server.stored(b"id", b"section").as_deref(),
            Some(&b"kept"[..])
        );
    }
}

#[test]
fn keys_of_any_bytes_are_told_apart() {
    let server = Setup::new().start();
    let long = vec![b'k'; 64 * 1024];
    let longer = vec![b'k'; 64 * 1024 + 1];
    let keys: [&[u8]; 10] = [
        b"",
        b"\0",
        b"\0\0",
        b"\xff\xfe",
        b"\xc3\x28",
        b"../../etc",
        b"/",
        b"a\nb",
        &long,
        &longer,
    ];
    for (number, id) in keys.iter().enumerate() {
        for (other, section) in keys.iter().enumerate() {
            server.store(id, section, format!("{number}/{other}").as_bytes());
        }
    }
    for (number, id) in keys.iter().enumerate() {
        for (other, section) in keys.iter().enumerate() {
            let expected = format!("{number}/{other}").into_bytes();
            assert_eq!(server.stored(id, section), Some(expected));
        }
    }
}

#[test]
fn the_largest_payload_is_accepted_and_served_back() {
    let server = Setup::new().start();
    for dialect in DIALECTS {
        let overhead = dialect
            .update_payload(b"large", b"one", b"", frame::SET)
            .len();
        let data: Vec<u8> = (0..MOST - overhead).map(|at| (at % 251) as u8).collect();
        let payload = dialect.update_payload(b"large", b"one", &data, frame::SET);
        assert_eq!(payload.len(), MOST);
        let mut peer = server.connect();
        peer.ask(dialect, &dialect.frame(AGENT, &payload))
            .expect_done(b"update");
        let reply = server
            .connect()
            .ask(dialect, &dialect.query(b"large", b"one"));
        assert!(
            reply.record(dialect).1 == data,
            "{dialect:?}: other bytes came back"
        );
    }
}

#[test]
fn a_payload_one_byte_too_long_is_closed_at_its_header() {
    let server = Setup::new().limit("handshake_timeout = \"60s\"").start();
    for dialect in DIALECTS {
        let mut header = dialect.frame(AGENT, b"");
        header.truncate(9);
        header.extend(dialect.length(MOST as u64 + 1));
        server.connect().send(header).expect_closed();
    }
    server.expect_alive();
}

#[test]
fn the_largest_payload_is_a_setting() {
    let server = Setup::new().agent("max_payload = \"1K\"").start();
    for dialect in DIALECTS {
        let overhead = dialect.update_payload(b"id", b"s", b"", frame::SET).len();
        let fitting = dialect.update(b"id", b"s", &vec![b'v'; 1024 - overhead]);
        server
            .connect()
            .ask(dialect, &fitting)
            .expect_done(b"update");
        let over = dialect.update(b"id", b"s", &vec![b'w'; 1025 - overhead]);
        server
            .connect()
            .send(&over[..dialect.header()])
            .expect_closed();
    }
}

#[test]
fn a_value_that_no_narrow_reply_could_carry_is_refused() {
    let server = Setup::new().start();
    let narrow = Dialect::Document;
    // With a key of one byte each, this update is as large as a frame may be, its reply larger.
    let data = vec![b'v'; MOST - narrow.update_payload(b"i", b"", b"", frame::SET).len()];
    let reply = server
        .connect()
        .ask(narrow, &narrow.update(b"i", b"", &data));
    reply.expect_refused(b"update");
    assert_eq!(server.stored(b"i", b""), None);
    server.expect_alive();
}

#[test]
fn each_limit_of_the_store_refuses_with_a_message() {
    let narrow = Dialect::Document;
    let limits = [
        ("max_value = \"1K\"", vec![(b"a", 1024)], (b"b", 1025)),
        ("max_records = 2", vec![(b"a", 1), (b"b", 1)], (b"c", 1)),
        (
            "max_bytes = \"4K\"",
            vec![(b"a", 1500), (b"b", 1500)],
            (b"c", 1500),
        ),
    ];
    for (line, fitting, (refused, length)) in limits {
        let server = Setup::new().agent(line).start();
        let mut peer = server.connect();
        for (id, length) in &fitting {
            let update = narrow.update(*id, b"s", &vec![b'v'; *length]);
            peer.ask(narrow, &update).expect_done(b"update");
        }
        let over = narrow.update(refused, b"s", &vec![b'v'; length]);
        peer.ask(narrow, &over).expect_refused(b"update");
        // The refusal changed nothing, and the connection and what is stored live on.
        assert_eq!(server.stored(refused, b"s"), None, "{line}");
        let (id, length) = fitting[0];
        peer.ask(narrow, &narrow.update(id, b"s", &vec![b'w'; length]))
            .expect_done(b"update");
        assert_eq!(server.stored(id, b"s"), Some(vec![b'w'; length]), "{line}");
        // What a removal frees is free.
        let wide = Dialect::Stock;
        server
            .connect()
            .ask(wide, &frame::remove(id, b"s"))
            .expect_done(b"update");
        if !line.contains("max_value") {
            peer.ask(narrow, &over).expect_done(b"update");
        }
    }
}

#[test]
fn what_is_stored_survives_a_restart() {
    let folder = Arc::new(Folder::new());
    let setup = Setup::new().folder(&folder);
    let first = setup.start();
    first.store(b"kept", b"s", b"v");
    first.store(b"gone", b"s", b"v");
    let narrow = Dialect::Document;
    let query = narrow.query(b"kept", b"s");
    let before = first.connect().ask(narrow, &query).record(narrow);
    let request = frame::remove(b"gone", b"s");
    first
        .connect()
        .ask(Dialect::Stock, &request)
        .expect_done(b"update");
    first.stop();
    let second = setup.start();
    assert_eq!(before.1, b"v");
    assert_eq!(second.connect().ask(narrow, &query).record(narrow), before);
    assert_eq!(second.stored(b"gone", b"s"), None);
    second.stop();
}

#[test]
fn sniff_tells_an_address_of_the_client() {
    let server = Setup::new().start();
    for dialect in DIALECTS {
        let reply = server.connect().ask(dialect, &dialect.sniff());
        assert_eq!((reply.command.as_slice(), reply.code), (&b"sniff"[..], 0));
        let (length, host) = reply.payload.split_at(dialect.width());
        assert_eq!(length, dialect.length(host.len() as u64));
        let host = std::str::from_utf8(host).unwrap();
        assert!(host.parse::<IpAddr>().is_ok(), "{host}");
    }
}

#[test]
fn updates_of_many_clients_at_once_are_all_kept() {
    let server = Setup::new().start();
    std::thread::scope(|scope| {
        for client in 0..16_u8 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..20_u8 {
                    server.store(&[client], &[round], &[client, round]);
                }
            });
        }
    });
    for client in 0..16_u8 {
        for round in 0..20_u8 {
            assert_eq!(
                server.stored(&[client], &[round]),
                Some(vec![client, round])
            );
        }
    }
}
