//! Bytes that are no good frame: whole, byte by byte, and cut anywhere. Each is closed without a
//! byte of an answer, stores nothing, and the next client is served.

use crate::support::backend::Backend;
use crate::support::bulk::Numbers;
use crate::support::frame::{self, AGENT, DIALECTS, Dialect, TRAFFIC};
use crate::support::server::{Server, Setup};

/// A name, the bytes, and whether the server can only know at the client's end that no more comes.
struct Case {
    name: String,
    bytes: Vec<u8>,
    needs_end: bool,
}

/// A server on which no timeout ends what a rule should end.
fn patient(backend: &Backend) -> Server {
    Setup::to(backend.address)
        .limit("handshake_timeout = \"60s\"")
        .start()
}

fn case(name: &str, dialect: Dialect, bytes: Vec<u8>) -> Case {
    Case {
        name: format!("{dialect:?}: {name}"),
        bytes,
        needs_end: false,
    }
}

/// A frame of `dialect` with other bytes at `at`.
fn altered(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// Faults of the frame itself.
fn frame_faults(dialect: Dialect) -> Vec<Case> {
    let good = dialect.update(b"hostile", b"s", b"value");
    let mut cases = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| cases.push(case(name, dialect, bytes));
    add("first magic byte", altered(&good, 0, &[0x67]));
    add("second magic byte", altered(&good, 1, &[0x65]));
    add(
        "magic the other way round",
        altered(&good, 0, &[0x66, 0x68]),
    );
    add("checksum one bit off", altered(&good, 2, &[good[2] ^ 1]));
    let masked_sum = good[dialect.header()..]
        .iter()
        .fold(0, |sum, byte| sum ^ byte);
    if masked_sum != good[2] {
        add(
            "checksum over the masked bytes",
            altered(&good, 2, &[masked_sum]),
        );
    }
    for version in [2, 3, 0x80, 255] {
        add(&format!("version {version}"), altered(&good, 3, &[version]));
    }
    for op in [2, 3, 0x80, 255] {
        add(&format!("op {op}"), altered(&good, 4, &[op]));
    }
    let mut lengths = vec![524_289, 1 << 20, 1 << 31, (1 << 32) - 1];
    if dialect == Dialect::Stock {
        lengths.extend([1 << 33 | 1 << 20, 1 << 63, u64::MAX, u64::MAX - 16]);
    }
    for length in lengths {
        let bytes = dialect.length(length);
        add(&format!("length {length}"), altered(&good, 9, &bytes));
    }
    for op in [AGENT, TRAFFIC] {
        // A narrow empty frame is a prefix of a wide header, so only the end decides.
        cases.push(Case {
            needs_end: dialect == Dialect::Document,
            ..case(
                &format!("no payload, op {op}"),
                dialect,
                dialect.frame(op, b""),
            )
        });
    }
    cases
}

/// Lengths inside the payload that promise more than is there.
fn length_faults(dialect: Dialect) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, op: u8, payload: &[u8]| {
        cases.push(case(name, dialect, dialect.frame(op, payload)));
    };
    let mut lengths = vec![
        0x7fff_ffff,
        0xffff_ffff,
        0xffff_fffc,
        0x8000_0000,
        100,
        524_288,
    ];
    if dialect == Dialect::Stock {
        lengths.extend([u64::MAX, u64::MAX - 3, 1 << 63, 1 << 32]);
    }
    for length in lengths {
        let long = [dialect.length(length), b"abcdefgh".to_vec()].concat();
        let inner = [dialect.binary(b"update"), vec![0; 4], long.clone()].concat();
        let later = [
            dialect.binary(b"hostile"),
            dialect.binary(b"s"),
            long.clone(),
        ]
        .concat();
        let token = [dialect.binary(b"svc"), dialect.binary(b"x"), long.clone()].concat();
        add(&format!("command of {length}"), AGENT, &long);
        add(&format!("inner payload of {length}"), AGENT, &inner);
        add(
            &format!("id of {length}"),
            AGENT,
            &dialect.command(b"update", &long),
        );
        add(
            &format!("data of {length}"),
            AGENT,
            &dialect.command(b"update", &later),
        );
        add(
            &format!("query's id of {length}"),
            AGENT,
            &dialect.command(b"query", &long),
        );
        add(&format!("service of {length}"), TRAFFIC, &long);
        add(&format!("token of {length}"), TRAFFIC, &token);
    }
    // Two lengths whose sum passes 2^32 (2^64) and so could fit again.
    let most = match dialect {
        Dialect::Document => u64::from(u32::MAX),
        Dialect::Stock => u64::MAX,
    };
    let [half, rest] = [dialect.length(most / 2 + 1), dialect.length(most / 2 + 9)];
    let sum = [half, vec![b'a'; 8], rest, vec![b'b'; 8]].concat();
    add(
        "lengths whose sum overflows",
        AGENT,
        &dialect.command(b"update", &sum),
    );
    add("lengths whose sum overflows, traffic", TRAFFIC, &sum);
    cases
}

/// Unknown commands and missing fields.
fn field_faults(dialect: Dialect) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, op: u8, payload: &[u8]| {
        cases.push(case(name, dialect, dialect.frame(op, payload)));
    };
    for command in [
        "delete", "", "UPDATE", "updat", "updates", "query\0", "\u{fffd}",
    ] {
        let payload = dialect.command(command.as_bytes(), b"");
        add(&format!("command {command:?}"), AGENT, &payload);
    }
    let key = [dialect.binary(b"hostile"), dialect.binary(b"s")].concat();
    add(
        "update without data",
        AGENT,
        &dialect.command(b"update", &key),
    );
    add("update of nothing", AGENT, &dialect.command(b"update", b""));
    let id = dialect.binary(b"id");
    add(
        "query without section",
        AGENT,
        &dialect.command(b"query", &id),
    );
    add("query of nothing", AGENT, &dialect.command(b"query", b""));
    add("command alone", AGENT, &dialect.binary(b"update"));
    let full = dialect.traffic_payload(b"svc", b"x", b"");
    let cut = &full[..full.len() - dialect.width()];
    add("traffic without token", TRAFFIC, cut);
    cases
}

/// What speaks another protocol altogether.
fn strangers() -> Vec<Case> {
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        (
            "TLS",
            [
                &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
                &[7; 64],
            ]
            .concat(),
        ),
        ("zeros", vec![0; 64]),
        ("ones", vec![0xff; 64]),
    ];
    let mut numbers = Numbers::new(50);
    for _ in 0..50 {
        let mut noise = numbers.bytes(64 * 1024);
        // Noise that begins like a frame would be a different case.
        noise[0] = 0x69;
        cases.push(("64 KiB of noise", noise));
    }
    let named = |(name, bytes)| Case {
        name: String::from(name),
        bytes,
        needs_end: false,
    };
    cases.into_iter().map(named).collect()
}

/// The case in parts, cut where `cuts` say, each one taken by the server before the next is sent.
fn deliver(server: &Server, case: &Case, cuts: &[usize]) {
    let mut peer = server.connect();
    let mut from = 0;
    for to in cuts.iter().copied().chain([case.bytes.len()]) {
        if !peer.try_send(&case.bytes[from..to]) {
            break;
        }
        if to < case.bytes.len() {
            peer.settle();
        }
        from = to;
    }
    if case.needs_end {
        peer.try_finish();
    }
    peer.expect_closed();
}

fn expect_unharmed(server: &Server, backend: &Backend, case: &Case) {
    server.expect_alive();
    assert_eq!(server.stored(b"hostile", b"s"), None, "{}", case.name);
    assert_eq!(backend.accepted(), 0, "{}", case.name);
}

fn every_case() -> Vec<Case> {
    let faults = [frame_faults, length_faults, field_faults];
    let of_dialect = |dialect| faults.into_iter().flat_map(move |faults| faults(dialect));
    DIALECTS.into_iter().flat_map(of_dialect).collect()
}

#[test]
fn bad_frames_delivered_whole_are_closed_and_harm_nobody() {
    let backend = Backend::echo();
    let server = patient(&backend);
    for case in every_case().iter().chain(&strangers()) {
        eprintln!("{}", case.name);
        deliver(&server, case, &[]);
        expect_unharmed(&server, &backend, case);
    }
    server.stop();
}

#[test]
fn bad_frames_delivered_byte_by_byte_are_closed_and_harm_nobody() {
    let backend = Backend::echo();
    let server = patient(&backend);
    for case in every_case() {
        eprintln!("{}", case.name);
        let mut peer = server.connect();
        for byte in &case.bytes {
            if !peer.try_send(&[*byte]) {
                break;
            }
        }
        if case.needs_end {
            peer.try_finish();
        }
        peer.expect_closed();
        expect_unharmed(&server, &backend, &case);
    }
    server.stop();
}

#[test]
fn bad_frames_cut_anywhere_are_closed_and_harm_nobody() {
    let backend = Backend::echo();
    let server = patient(&backend);
    for dialect in DIALECTS {
        // The faults of lengths differ by their numbers only; one of each place is cut.
        let lengths = length_faults(dialect).into_iter().take(7);
        let others = [frame_faults(dialect), field_faults(dialect)];
        for case in others.into_iter().flatten().chain(lengths) {
            eprintln!("{}", case.name);
            for cut in 1..case.bytes.len() {
                deliver(&server, &case, &[cut]);
            }
            expect_unharmed(&server, &backend, &case);
        }
    }
    server.stop();
}

#[test]
fn a_bad_frame_is_closed_as_soon_as_it_shows() {
    let backend = Backend::echo();
    let server = patient(&backend);
    for dialect in DIALECTS {
        let good = dialect.update(b"hostile", b"s", b"value");
        let header = dialect.header();
        let too_long = altered(&good, 9, &dialect.length(524_289));
        // Only so much is sent, and the client does not end its direction.
        let parts = [
            altered(&good, 0, b"GE")[..17].to_vec(),
            too_long[..header].to_vec(),
        ];
        for part in parts {
            server.connect().send(part).expect_closed();
        }
        let mut version = altered(&good, 3, &[2]);
        version.truncate(17);
        server.connect().send(version).expect_closed();
    }
    server.expect_alive();
}

#[test]
fn random_changes_of_good_frames_never_harm_the_server() {
    let backend = Backend::echo();
    let server = patient(&backend);
    let seed = 4711;
    eprintln!("seed {seed}");
    let mut numbers = Numbers::new(seed);
    let mut frames = vec![
        frame::query_wait(b"id", b"s", 0),
        frame::remove(b"id", b"s"),
    ];
    for dialect in DIALECTS {
        frames.extend([
            dialect.query(b"id", b"s"),
            dialect.traffic(b"svc", b"x", b"t"),
        ]);
        frames.extend([
            dialect.update(b"id", b"s", b"v"),
            dialect.auth(b"t"),
            dialect.sniff(),
        ]);
    }
    for _ in 0..1500 {
        let mut frame = frames[numbers.below(frames.len())].clone();
        for _ in 0..=numbers.below(3) {
            let at = numbers.below(frame.len());
            frame[at] = numbers.next().to_le_bytes()[0];
        }
        let mut peer = server.connect();
        peer.try_send(&frame);
        // Whatever it means now, with the client's end nothing is left to wait for.
        peer.try_finish();
        peer.rest();
    }
    server.expect_alive();
    server.stop();
}
