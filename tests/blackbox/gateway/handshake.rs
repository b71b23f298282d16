//! How servers prove themselves, and what happens to those who do not, who are slow, or who speak
//! something else, on both ports.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::bulk::Numbers;
use crate::support::folder::Folder;
use crate::support::gateway::bystander::Bystander;
use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::{DIALECTS, Dialect, Gateway, Got, KEY, Plan, answer, data};
use crate::support::kernel;
use crate::support::peer::Peer;
use crate::support::window::paced;

const ID: u32 = 5;

/// Makes an answer from a challenge.
type Proof<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

/// What an endpoint sends that the gateway answers at once.
fn question(dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Document => dialect.new_id(),
        Dialect::Fastway => dialect.ping(),
    }
}

/// Fails unless nobody has become the server [`ID`].
fn expect_unregistered(gateway: &Gateway) {
    gateway.client(Dialect::Fastway).expect_refused(ID);
}

#[test]
fn a_wrong_proof_is_closed_without_a_byte() {
    for dialect in DIALECTS {
        let plan = Plan::new(dialect).limit("handshake_timeout = \"60s\"");
        let gateway = plan.start();
        let (mut other, of_other) = gateway.knock();
        let wrong: [Proof<'_>; 7] = [
            &|challenge| answer(challenge, "wrong key", ID),
            &|challenge| answer(challenge, "", ID),
            &|challenge| answer(challenge, "Test key", ID),
            &|challenge| answer(challenge, "test key\0", ID),
            &|_| answer(&of_other, KEY, ID),
            &|challenge| {
                let mut bytes = answer(challenge, KEY, ID);
                bytes[15] ^= 1;
                bytes
            },
            &|_| vec![0; 20],
        ];
        for (number, make) in wrong.iter().enumerate() {
            let (mut peer, challenge) = gateway.knock();
            // What comes behind a wrong proof is not read as frames.
            peer.send([make(&challenge), question(dialect)].concat());
            eprintln!("{dialect:?}, wrong proof {number}");
            peer.expect_closed();
            expect_unregistered(&gateway);
        }
        // Nobody has used up that challenge of the other's.
        other.send(answer(&of_other, KEY, ID));
        let mut server = Endpoint::new(other, dialect);
        server.expect_quiet();
        gateway.client(Dialect::Fastway).dial(ID);
        server.joined();
    }
}

#[test]
fn a_short_proof_is_closed_with_its_sender() {
    let gateway = Gateway::new(Dialect::Fastway);
    for length in 0..20 {
        let (mut peer, challenge) = gateway.knock();
        peer.send(&answer(&challenge, KEY, ID)[..length]);
        peer.finish().expect_closed();
    }
    expect_unregistered(&gateway);
    gateway.stop();
}

#[test]
fn a_server_that_is_slow_or_silent_is_closed_at_the_deadline() {
    kernel::raise_own_descriptor_limit();
    // Those who are not slow have to be in time on any machine.
    let plan = Plan::new(Dialect::Fastway).limit("handshake_timeout = \"4s\"");
    let gateway = plan.start();
    let reference = Bystander::start(&gateway, Dialect::Fastway);
    let start = Instant::now();
    let mut held: Vec<Peer> = Vec::new();
    for number in 0..200 {
        let (mut peer, challenge) = gateway.knock();
        let bytes = answer(&challenge, KEY, ID);
        // Silent ones, and some that stop one byte before the end.
        peer.try_send(&bytes[..if number % 2 == 0 { 0 } else { 19 }]);
        held.push(peer);
    }
    for peer in &mut held {
        peer.expect_closed();
    }
    assert!(start.elapsed() >= Duration::from_secs(2));
    expect_unregistered(&gateway);
    reference.expect_undisturbed();
    gateway.stop();
}

#[test]
fn the_deadline_of_a_handshake_is_absolute() {
    let plan = Plan::new(Dialect::Fastway).limit("handshake_timeout = \"2s\"");
    let gateway = plan.start();
    let (mut peer, challenge) = gateway.knock();
    let mut bytes = answer(&challenge, KEY, ID).into_iter();
    // Twenty bytes take ten seconds, and no two of them are two seconds apart.
    paced(Duration::from_millis(500), || {
        let byte = bytes.next();
        byte.is_some_and(|byte| peer.try_send(&[byte]))
    });
    peer.expect_closed();
    expect_unregistered(&gateway);
}

#[test]
fn a_client_that_never_says_anything_whole_is_closed_as_idle() {
    kernel::raise_own_descriptor_limit();
    // Those who speak have to be in time on any machine.
    let plan = Plan::new(Dialect::Fastway).text("client_idle_timeout", "3s");
    let gateway = plan.start();
    // However slowly a frame comes, it counts as life for three times as long and no more.
    let mut slow = gateway.client(Dialect::Document);
    let dripping = std::thread::spawn(move || {
        let mut bytes = data(1, &[0; 600]).into_iter();
        paced(Duration::from_millis(100), || {
            let byte = bytes.next();
            byte.is_some_and(|byte| slow.peer().try_send(&[byte]))
        });
        slow.expect_closed();
    });
    let start = Instant::now();
    let mut held: Vec<Endpoint> = Vec::new();
    for number in 0..200 {
        let mut client = gateway.client(Dialect::Fastway);
        let frame = client.dialect.dial(0, ID);
        client.peer().try_send(&frame[..number % 13]);
        held.push(client);
    }
    for client in &mut held {
        client.expect_closed();
    }
    assert!(start.elapsed() >= Duration::from_millis(1500));
    dripping.join().unwrap();
    gateway.expect_alive();
}

#[test]
fn frames_may_follow_a_proof_in_the_same_segment() {
    for dialect in DIALECTS {
        let gateway = Gateway::new(dialect);
        let (mut peer, challenge) = gateway.knock();
        let proof = answer(&challenge, KEY, ID);
        peer.send([proof, question(dialect), question(dialect)].concat());
        let mut server = Endpoint::new(peer, dialect);
        for _ in 0..2 {
            assert!(matches!(server.got(), Got::Open(_) | Got::Ping));
        }
        gateway.client(Dialect::Fastway).dial(ID);
        server.joined();
    }
}

#[test]
fn any_key_and_any_id_will_do() {
    let keys = [
        "",
        "test key",
        "schlüssel ключ 鍵",
        "a key of more than sixty-four bytes, so that \
                 the digest needs a second block",
    ];
    for (number, key) in keys.iter().enumerate() {
        let dialect = DIALECTS[number % 2];
        let gateway = Plan::new(dialect).auth_key(key).start();
        for id in [0, 1, u32::MAX] {
            let mut pair = gateway.pair(Dialect::Fastway, id);
            pair.expect_echo();
            let client_id = pair.client_id;
            let conn = pair.server.dial(client_id);
            assert_eq!(pair.client.joined(), (conn, id));
        }
        let (mut peer, challenge) = gateway.knock();
        peer.send(answer(&challenge, "another", ID)).expect_closed();
    }
}

#[test]
fn a_key_may_come_from_a_file() {
    let folder = Folder::new();
    let file = folder.write("key", b"kept in a file\n");
    let plan = Plan::new(Dialect::Fastway)
        .auth_key("kept in a file")
        .key("auth_key", &format!("{{ file = {file:?} }}"));
    let gateway = plan.start();
    gateway.pair(Dialect::Fastway, ID).expect_echo();
}

#[test]
fn challenges_do_not_repeat() {
    let gateway = Gateway::new(Dialect::Fastway);
    let challenges: HashSet<Vec<u8>> = (0..1000).map(|_| gateway.knock().1).collect();
    assert_eq!(challenges.len(), 1000);
    for at in 0..8 {
        let values: HashSet<u8> = challenges.iter().map(|challenge| challenge[at]).collect();
        assert!(
            values.len() > 128,
            "byte {at} takes {} values",
            values.len()
        );
    }
    gateway.stop();
}

#[test]
fn strangers_on_either_port_are_closed_and_harm_nobody() {
    let gateway = Gateway::new(Dialect::Document);
    let reference = Bystander::start(&gateway, Dialect::Fastway);
    let mut strangers: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            &[7; 64],
        ]
        .concat(),
        vec![0; 64],
        vec![0xff; 64],
    ];
    let mut numbers = Numbers::new(50);
    for _ in 0..50 {
        let mut noise = numbers.bytes(64 * 1024);
        // A length that might be meant is a different case.
        noise[3] |= 0x80;
        strangers.push(noise);
    }
    for bytes in &strangers {
        let mut client = gateway.client(Dialect::Fastway);
        client.peer().try_send(bytes);
        client.expect_closed();
        let mut peer = gateway.knock().0;
        peer.try_send(bytes);
        peer.expect_closed();
    }
    expect_unregistered(&gateway);
    reference.expect_undisturbed();
    gateway.expect_alive();
    gateway.stop();
}

#[test]
fn a_reset_in_the_handshake_leaves_nothing_behind() {
    let gateway = Gateway::new(Dialect::Fastway);
    for length in 0..=20 {
        let (mut peer, challenge) = gateway.knock();
        peer.send(&answer(&challenge, KEY, ID)[..length]).settle();
        peer.reset();
        gateway.client(Dialect::Fastway).reset();
    }
    gateway.expect_alive();
    gateway.stop();
}
