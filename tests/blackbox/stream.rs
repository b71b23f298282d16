//! Frames in a stream: cut anywhere, glued together, masked by anything; and when a connection of
//! each dialect ends.

use crate::support::backend::Backend;
use crate::support::frame::{self, AGENT, DIALECTS, Dialect, TRAFFIC};
use crate::support::server::{Server, Setup};

fn patient() -> Server {
    Setup::new().limit("handshake_timeout = \"60s\"").start()
}

#[test]
fn a_stock_connection_ends_after_its_reply_and_a_document_one_stays_open() {
    let server = patient();
    let (narrow, wide) = (Dialect::Document, Dialect::Stock);
    let mut peer = server.connect();
    peer.ask(wide, &wide.update(b"id", b"s", b"v"))
        .expect_done(b"update");
    peer.expect_end();
    let mut peer = server.connect();
    peer.ask(narrow, &narrow.update(b"id", b"s", b"w"))
        .expect_done(b"update");
    for _ in 0..20 {
        let reply = peer.ask(narrow, &narrow.query(b"id", b"s"));
        assert_eq!(reply.record(narrow).1, b"w");
    }
    peer.finish().expect_end();
}

#[test]
fn frames_in_one_segment_are_all_served_in_order() {
    let server = patient();
    for dialect in DIALECTS {
        let mut peer = server.connect();
        let mut segment = Vec::new();
        for round in 0..50_u8 {
            segment.extend(dialect.update(b"id", b"s", &[round]));
            segment.extend(dialect.query(b"id", b"s"));
        }
        segment.extend(dialect.sniff());
        peer.send(segment);
        for round in 0..50_u8 {
            peer.reply(dialect).expect_done(b"update");
            assert_eq!(peer.reply(dialect).record(dialect).1, [round]);
        }
        assert_eq!(peer.reply(dialect).command, b"sniff");
        if dialect == Dialect::Document {
            peer.finish();
        }
        peer.expect_end();
    }
}

#[test]
fn replies_of_any_size_to_frames_in_one_segment_are_all_sent() {
    let server = patient();
    for dialect in DIALECTS {
        for (size, count) in [(10, 5000), (4000, 2000), (40_000, 200), (400_000, 50)] {
            let value = vec![b'v'; size];
            server.store(b"id", b"s", &value);
            let mut peer = server.connect();
            let mut twin = peer.twin();
            let queries = dialect.query(b"id", b"s").repeat(count);
            let sending = std::thread::spawn(move || {
                twin.send(queries);
            });
            for number in 0..count {
                let (_, data) = peer.reply(dialect).record(dialect);
                assert!(data == value, "{dialect:?}, reply {number} of {size} bytes");
            }
            sending.join().unwrap();
        }
    }
}

#[test]
fn a_bad_frame_behind_good_ones_ends_the_connection_after_their_replies() {
    let server = patient();
    for dialect in DIALECTS {
        let mut peer = server.connect();
        let good = dialect.update(b"good", b"s", b"v");
        let bad = dialect.frame(9, b"what is this");
        peer.send([good, bad].concat());
        peer.reply(dialect).expect_done(b"update");
        peer.expect_closed();
        assert!(server.stored(b"good", b"s").is_some());
    }
}

#[test]
fn an_update_arrives_byte_by_byte() {
    let server = patient();
    for dialect in DIALECTS {
        let mut peer = server.connect();
        for byte in dialect.update(b"slow", b"s", b"bytes") {
            peer.send([byte]).settle();
        }
        peer.reply(dialect).expect_done(b"update");
        assert_eq!(server.stored(b"slow", b"s").as_deref(), Some(&b"bytes"[..]));
    }
}

#[test]
fn an_update_arrives_in_two_parts_cut_anywhere() {
    let server = patient();
    for dialect in DIALECTS {
        let length = dialect.update(b"cut", b"s", b"at 000").len();
        for at in 1..length {
            let data = format!("at {at:03}");
            let update = dialect.update(b"cut", b"s", data.as_bytes());
            let mut peer = server.connect();
            peer.send(&update[..at]).settle();
            peer.ask(dialect, &update[at..]).expect_done(b"update");
            assert_eq!(server.stored(b"cut", b"s"), Some(data.into_bytes()));
        }
    }
}

#[test]
fn two_frames_arrive_in_two_parts_cut_anywhere() {
    let server = patient();
    for dialect in DIALECTS {
        server.store(b"id", b"s", b"v");
        // The cut stands inside the second frame, whose first part comes with the first frame.
        let query = dialect.query(b"id", b"s");
        let both = [query.clone(), query.clone()].concat();
        for at in query.len() + 1..both.len() {
            let mut peer = server.connect();
            peer.send(&both[..at]);
            assert_eq!(peer.reply(dialect).record(dialect).1, b"v");
            peer.settle();
            peer.send(&both[at..]);
            assert_eq!(peer.reply(dialect).record(dialect).1, b"v");
        }
    }
}

#[test]
fn every_prefix_of_an_update_stores_nothing() {
    let server = patient();
    for dialect in DIALECTS {
        let update = dialect.update(b"prefix", b"s", b"value");
        for length in 0..update.len() {
            server
                .connect()
                .send(&update[..length])
                .finish()
                .expect_closed();
        }
        assert_eq!(server.stored(b"prefix", b"s"), None);
    }
}

#[test]
fn a_client_that_ends_its_direction_still_gets_its_reply() {
    let server = patient();
    for dialect in DIALECTS {
        let mut peer = server.connect();
        peer.send(dialect.update(b"id", b"s", b"v")).finish();
        peer.reply(dialect).expect_done(b"update");
        peer.expect_end();
        let mut peer = server.connect();
        peer.send(dialect.query(b"id", b"s")).finish();
        assert_eq!(peer.reply(dialect).record(dialect).1, b"v");
        peer.expect_end();
    }
}

/// Masks that make a frame of one dialect look like the other's for its first 17 bytes: the
/// upper half of a wide length, or the masked first field of a narrow payload, is 0.
#[test]
fn no_mask_confuses_the_dialects() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address)
        .limit("handshake_timeout = \"60s\"")
        .start();
    let masks = [
        [0; 4],
        [6, 0, 0, 0],
        [5, 0, 0, 0],
        [3, 0, 0, 0],
        [1, 0, 0, 0],
        [0xff; 4],
    ];
    for dialect in DIALECTS {
        for mask in masks {
            let id = [mask.as_slice(), &[dialect.width() as u8]].concat();
            let update = dialect.update_payload(&id, b"s", b"v", frame::SET);
            let mut peer = server.connect();
            let frame = dialect.frame_with(AGENT, mask, &update);
            peer.ask(dialect, &frame).expect_done(b"update");
            assert_eq!(server.stored(&id, b"s").as_deref(), Some(&b"v"[..]));
            let traffic = dialect.traffic_payload(b"svc", b"x", b"");
            let mut peer = server.connect();
            peer.send(dialect.frame_with(TRAFFIC, mask, &traffic))
                .expect(dialect.greeting());
            peer.send(b"ping").expect(b"ping").finish().expect_end();
        }
    }
}

#[test]
fn a_wide_traffic_request_may_carry_the_leading_operation() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).start();
    let mut peer = server.connect();
    // No greeting: the first bytes are the echo's.
    peer.send(frame::early_traffic(b"svc", b"x", b""))
        .send(b"early")
        .expect(b"early");
    peer.finish().expect_end();
}

#[test]
fn bytes_behind_the_last_field_are_ignored_by_wide_frames() {
    let server = patient();
    let wide = Dialect::Stock;
    let inner = [wide.binary(b"id"), wide.binary(b"s"), wide.binary(b"v")].concat();
    let inside = [inner, 0_u32.to_le_bytes().to_vec(), b"EXTRA".to_vec()].concat();
    let outside = [wide.command(b"update", &inside), b"TRAIL".to_vec()].concat();
    let mut peer = server.connect();
    peer.ask(wide, &wide.frame(AGENT, &outside))
        .expect_done(b"update");
    assert_eq!(server.stored(b"id", b"s").as_deref(), Some(&b"v"[..]));
}

#[test]
fn versions_0_and_1_and_any_request_version_are_accepted() {
    let server = patient();
    server.store(b"id", b"s", b"v");
    for dialect in DIALECTS {
        for version in [0, 1] {
            let mut query = dialect.query(b"id", b"s");
            query[3] = version;
            let reply = server.connect().ask(dialect, &query);
            assert_eq!(reply.record(dialect).1, b"v");
        }
        for version in [1_i32, -1, i32::MAX] {
            let key = [dialect.binary(b"id"), dialect.binary(b"s")].concat();
            let parts = [
                dialect.binary(b"query"),
                version.to_le_bytes().to_vec(),
                dialect.binary(&key),
            ];
            let query = dialect.frame(AGENT, &parts.concat());
            let reply = server.connect().ask(dialect, &query);
            assert_eq!(reply.record(dialect).1, b"v");
        }
    }
}
