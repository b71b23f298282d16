//! The wire that these tests speak, held against recorded bytes, so that a test does not fail, or
//! pass, for a mistake of its own.

use crate::support::gateway::recording::{What, recorded};
use crate::support::gateway::{DIALECTS, Dialect, Got, answer, data, md5};

#[test]
fn the_digest_is_that_of_the_rfc() {
    let known = [
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"),
        (
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            "d174ab98d277d9f5a5611c2c9f419d9f",
        ),
        (
            "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
            "57edf4a22be3c955ac49da2e2107b67a",
        ),
    ];
    for (message, digest) in known {
        assert_eq!(hex(&md5::digest(message.as_bytes())), digest, "{message}");
    }
}

#[test]
fn recorded_servers_prove_their_key_as_these_do() {
    let mut proofs = 0;
    for recording in recorded() {
        for (connection, _) in recording.servers.iter().enumerate().filter(|(_, is)| **is) {
            let mut events = recording.of(connection).map(|event| &event.what);
            let (Some(What::Get(challenge)), Some(What::Send(sent))) =
                (events.next(), events.next())
            else {
                continue;
            };
            let id = u32::from_le_bytes(sent[16..].try_into().unwrap());
            let expected = answer(challenge, &recording.key, id);
            let is_wrong = recording.name.ends_with("auth_failure");
            assert_eq!(*sent == expected, !is_wrong, "{}", recording.name);
            proofs += 1;
        }
    }
    assert!(proofs > 25, "{proofs} handshakes");
    let challenge = [0xe7, 0x6a, 0x04, 0x0a, 0x5f, 0xb6, 0xb6, 0x75];
    let sent = hex(&answer(&challenge, "test key", 1));
    assert_eq!(sent, "6d532d1bb17301d40becbef0668cd7f901000000");
}

#[test]
fn recorded_gateways_send_what_these_understand() {
    let mut kinds = [0; 7];
    for recording in recorded() {
        for (connection, is_server) in recording.servers.iter().enumerate() {
            let frames = recording.of(connection).skip(usize::from(*is_server));
            for event in frames {
                let What::Get(frame) = &event.what else {
                    continue;
                };
                kinds[match recording.dialect.decode(frame) {
                    Got::Open(_) => 0,
                    Got::Accept { .. } => 1,
                    Got::Connect { .. } => 2,
                    Got::Refuse(_) => 3,
                    Got::Close(_) => 4,
                    Got::Ping => 5,
                    Got::Data(conn, payload) => {
                        assert_eq!(data(conn, &payload), *frame);
                        6
                    }
                }] += 1;
            }
        }
    }
    assert!(kinds.iter().all(|&count| count > 5), "{kinds:?}");
}

#[test]
fn recorded_endpoints_send_what_these_would() {
    let [mut known, mut others] = [0, 0];
    for recording in recorded() {
        let dialect = recording.dialect;
        for event in &recording.events {
            let What::Send(frame) = &event.what else {
                continue;
            };
            if frame.len() == 20 && frame[4..8] != [0; 4] {
                continue;
            }
            match frame == &again(dialect, frame) {
                true => known += 1,
                false => others += 1,
            }
        }
    }
    // The only others are a ping with bytes behind it.
    assert!(known > 100 && others == 1, "{known} and {others}");
}

/// The same frame, made here.
fn again(dialect: Dialect, frame: &[u8]) -> Vec<u8> {
    let word = |at| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
    let conn = word(4);
    if conn != 0 {
        return data(conn, &frame[8..]);
    }
    match (dialect, frame[8]) {
        (Dialect::Document, 0) => dialect.new_id(),
        (Dialect::Document, 2) => dialect.dial(word(9), word(13)),
        (Dialect::Fastway, 0) => dialect.dial(0, word(9)),
        (Dialect::Document, 5) | (Dialect::Fastway, 4) => dialect.close(word(9)),
        (Dialect::Document, 6) | (Dialect::Fastway, 5) => dialect.ping(),
        (_, other) => panic!("command {other} of {frame:02x?}"),
    }
}

#[test]
fn the_two_dialects_differ_in_every_command() {
    let [document, fastway] = DIALECTS;
    assert_eq!(hex(&document.new_id()), "050000000000000000");
    assert_eq!(
        hex(&document.dial(1, 99)),
        "0d00000000000000020100000063000000"
    );
    assert_eq!(hex(&fastway.dial(1, 99)), "09000000000000000063000000");
    assert_eq!(hex(&document.close(777)), "09000000000000000509030000");
    assert_eq!(hex(&fastway.close(777)), "09000000000000000409030000");
    assert_eq!(hex(&document.ping()), "050000000000000006");
    assert_eq!(hex(&fastway.ping()), "050000000000000005");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
