//! The recorded conversations of the node role: every frame decodes, is encoded again to the same
//! bytes, waits at every prefix, and the server's answers are made byte for byte.

use prost::Message as _;
use towpath::protocols::node::wire::{
    Demand, HEAD, Head, Identity, MAX_FRAME, Message, NETWORK_ID, ProxyResponse, Speaker,
    Transport, Untrusted, append_datagram, append_frame, control_message, decode_datagram, hash,
    opcode, verify,
};

use crate::vectors::{self, Line, unhex};

/// Every frame in a stream; panics where it is none.
fn split(mut bytes: &[u8]) -> Vec<(Head, &[u8])> {
    let mut frames = Vec::new();
    while let Some(head) = Head::decode(bytes, NETWORK_ID, MAX_FRAME).unwrap() {
        let (frame, rest) = bytes.split_at(head.frame_len());
        frames.push((head, &frame[HEAD..]));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "a part of a frame is left");
    frames
}

/// Lines of well-formed frames: of every scenario over TCP but those about broken ones.
fn frames() -> Vec<Line> {
    let about_broken = ["node/malformed_before_registration", "node/udp"];
    let lines = vectors::files("node")
        .into_iter()
        .filter(|name| !about_broken.contains(&name.as_str()))
        .flat_map(|name| vectors::lines(&name))
        .filter(|line| !line.bytes.is_empty())
        .filter(|line| !BROKEN.iter().any(|broken| line.note.contains(broken)));
    lines.collect()
}

/// What the notes say of frames whose heads are wrong, which end early, or whose body is no message
/// as it stands.
const BROKEN: [&str; 6] = [
    "length 0",
    "header network id wrong",
    "all but the last byte",
    "not protobuf",
    "gzip body",
    "still compressed",
];

#[test]
fn every_recorded_frame_comes_back_byte_for_byte() {
    let mut count = 0;
    for line in frames() {
        for (head, body) in split(&line.bytes) {
            let Ok(message) = Message::decode(body) else {
                // The same body as in the line that says so, on the peer's side.
                assert!(body.starts_with(&[0xff, 0xfe]), "{line:?}");
                continue;
            };
            assert_eq!(message.encode_to_vec(), body, "{line:?}");
            let mut again = Vec::new();
            append_frame(&mut again, NETWORK_ID, &message);
            let written = Head {
                compression: 1,
                ..head
            };
            assert_eq!(again[..HEAD], written.encode());
            assert_eq!(again[HEAD..], *body);
            count += 1;
        }
    }
    assert!(count > 120, "only {count} frames");
}

#[test]
fn every_prefix_of_a_recorded_head_waits() {
    for line in frames() {
        for end in 0..HEAD {
            let head = Head::decode(&line.bytes[..end], NETWORK_ID, MAX_FRAME);
            assert_eq!(head, Ok(None), "{line:?}");
        }
    }
}

#[test]
fn what_nodes_sent_passes_and_what_was_refused_does_not() {
    for line in vectors::lines("node/malformed_before_registration") {
        if !line.is_sent || line.bytes.is_empty() {
            continue;
        }
        let judged = Head::decode(&line.bytes, NETWORK_ID, MAX_FRAME)
            .and_then(|_| control_message(&line.bytes[HEAD..], Some(NETWORK_ID)));
        let passes = ["present but empty", "extra fields", "not UTF-8"];
        let want = passes.iter().any(|what| line.note.contains(what));
        assert_eq!(judged.is_ok(), want, "{line:?}: {judged:?}");
    }
}

/// The server's side of a scenario: for each of its own frames, the one that we would write.
#[test]
fn the_servers_answers_are_made_byte_for_byte() {
    let mut count = 0;
    for line in frames().into_iter().filter(|line| !line.is_sent) {
        for (_, body) in split(&line.bytes) {
            let demand = control_message(body, Some(NETWORK_ID));
            let Ok(demand) = demand else { continue };
            if demand.net_key != Transport::Tcp.net_key() {
                continue;
            }
            assert_eq!(answer(Transport::Tcp, body, &demand), line.bytes);
            count += 1;
        }
    }
    assert!(count > 40, "only {count} answers");
    for line in vectors::lines("node/udp") {
        let Ok(body) = decode_datagram(&line.bytes) else {
            continue;
        };
        let demand = control_message(body, None).unwrap();
        let response = ProxyResponse::decode(demand.message).unwrap_or_default();
        // An answer without an address is one of those that we do not repeat.
        let is_empty = demand.opcode == opcode::PROXY_RESPONSE && response.proxy_address.is_empty();
        if demand.net_key == Transport::Udp.net_key() && !is_empty {
            assert_eq!(answer(Transport::Udp, body, &demand), line.bytes);
        }
    }
}

/// Says what was said, from what it says: address, nonce and lease.
fn answer(transport: Transport, body: &[u8], said: &Demand<'_>) -> Vec<u8> {
    let address = std::str::from_utf8(said.address).unwrap();
    let public = address.strip_prefix(transport.scheme()).unwrap();
    let speaker = Speaker::new(transport, NETWORK_ID, public.parse().unwrap());
    let mut out = Vec::new();
    match said.opcode {
        opcode::KEEPALIVE_RESPONSE => speaker.keepalive_response(&mut out, said.nonce),
        opcode::PROXY_RESPONSE => {
            let message = Message::decode(body).unwrap();
            let response = ProxyResponse::decode(&message.message[..]).unwrap();
            let lease = String::from_utf8(response.proxy_address).unwrap();
            let lease = lease.parse().unwrap();
            speaker.response(&mut out, said.nonce, &Demand::default(), lease);
        }
        other => panic!("opcode {other}"),
    }
    out
}

#[test]
fn recorded_datagrams_come_back_byte_for_byte() {
    let mut count = 0;
    for line in vectors::lines("node/udp") {
        if line.bytes.is_empty() || line.bytes == b"raw junk" {
            continue;
        }
        let body = decode_datagram(&line.bytes).unwrap();
        assert!(control_message(body, None).is_ok());
        let message = Message::decode(body).unwrap();
        let mut again = Vec::new();
        append_datagram(&mut again, &message).unwrap();
        assert_eq!(again, line.bytes);
        count += 1;
    }
    assert!(count > 10, "only {count} datagrams");
    assert!(decode_datagram(b"raw junk").is_err());
}

#[test]
fn the_recorded_signature_holds_and_the_other_frames_have_none() {
    let mut signed = 0;
    for line in frames() {
        for (_, body) in split(&line.bytes) {
            let Ok(demand) = control_message(body, None) else {
                continue;
            };
            match verify(&demand) {
                Ok(()) => signed += 1,
                Err(untrusted) => assert_eq!(untrusted, Untrusted::Unsigned, "{line:?}"),
            }
        }
    }
    // Three messages, each as its sender wrote it and as the node got it.
    assert_eq!(signed, 6);
}

/// How nodes in use come by their ids.
#[test]
fn recorded_ids_are_hashes_of_key_and_address() {
    let lines = vectors::lines("node/request_response");
    let demand = control_message(&lines[0].bytes[HEAD..], Some(NETWORK_ID)).unwrap();
    assert_eq!(demand.opcode, opcode::PROXY_REQUEST);
    assert_eq!(demand.id, hash(&[demand.net_key]));
    let connection_id = hash(&[demand.net_key, b"tcp://127.0.0.1:7001"]);
    assert_eq!(demand.connection_id, connection_id);
    let text = "d34fc8789bdd6c42e0c795cd16aa96b7a4c9627daccc1b07e8f7a264aa40dfa9";
    assert_eq!(connection_id[..], unhex(text));
}

#[test]
fn one_node_is_one_identity_and_nodes_without_an_id_are_two() {
    let identities = |name: &str| {
        let mut found: Vec<Identity> = Vec::new();
        for line in vectors::lines(name) {
            if !line.is_sent || !line.role.starts_with("node") {
                continue;
            }
            for (_, body) in split(&line.bytes) {
                let demand = control_message(body, Some(NETWORK_ID)).unwrap();
                let identity = Identity::of(&demand, Transport::Tcp);
                if !found.contains(&identity) {
                    found.push(identity);
                }
            }
        }
        found.len()
    };
    // Its address in the Keepalive is another than in the ProxyRequest.
    assert_eq!(identities("node/request_response"), 1);
    assert_eq!(identities("node/lease_expired"), 1);
    assert_eq!(identities("node/empty_connection_id"), 2);
}
