//! The chain role's bytes as they are for ever, one example of each kind, and what every example is
//! not: a part of itself, another one's, or its own mirror image.

use towpath::protocols::chain::wire::{
    Code, Direction, Flags, Key, Nonce, Opened, Request, Response, Side, Spoilt, Transport,
    Unsealed, frame_len, open_datagram, open_request, open_response, record_len, records,
    seal_datagram, seal_request, seal_response,
};

use crate::vectors::unhex;

/// 0, 1, 2, ...
fn key() -> Key {
    Key::from_bytes(std::array::from_fn(|at| at as u8))
}

/// 64, 65, 66, ...
fn request_nonce() -> Nonce {
    std::array::from_fn(|at| 64 + at as u8)
}

/// 128, 129, 130, ...
fn response_nonce() -> Nonce {
    std::array::from_fn(|at| 128 + at as u8)
}

fn request(address: &str, flags: Flags) -> Request {
    Request {
        stamp: 1_700_000_000_123,
        flags,
        address: address.parse().unwrap(),
    }
}

fn tcp_request() -> Request {
    request("db.internal:5432", Flags::default())
}

fn udp_request() -> Request {
    let flags = Flags {
        probe: true,
        early: false,
        sealed: true,
    };
    request("[2001:db8::1]:53", flags)
}

const TCP_RESPONSE: Response = Response {
    code: Code::Refused,
    dial: 258,
};

const UDP_RESPONSE: Response = Response {
    code: Code::Ok,
    dial: 7,
};

fn sealed_request(transport: Transport, request: &Request) -> Vec<u8> {
    let mut out = Vec::new();
    seal_request(&mut out, &key(), transport, &request_nonce(), request);
    out
}

fn sealed_response(transport: Transport, response: &Response) -> Vec<u8> {
    let mut out = Vec::new();
    let (nonce, request) = (response_nonce(), request_nonce());
    seal_response(&mut out, &key(), transport, &nonce, &request, response);
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn same(ours: &[u8], recorded: &str) {
    assert_eq!(hex(ours), recorded.split_whitespace().collect::<String>());
}

#[test]
fn headers_are_as_recorded() {
    let frames = [
        sealed_request(Transport::Tcp, &tcp_request()),
        sealed_request(Transport::Udp, &udp_request()),
        sealed_response(Transport::Tcp, &TCP_RESPONSE),
        sealed_response(Transport::Udp, &UDP_RESPONSE),
    ];
    for (frame, recorded) in frames.iter().zip([
        TCP_REQUEST_HEX,
        UDP_REQUEST_HEX,
        TCP_RESPONSE_HEX,
        UDP_RESPONSE_HEX,
    ]) {
        same(frame, recorded);
    }
    let opened = open_request(&key(), Transport::Tcp, &frames[0]);
    assert_eq!(opened, Ok((request_nonce(), tcp_request())));
    let opened = open_request(&key(), Transport::Udp, &frames[1]);
    assert_eq!(opened, Ok((request_nonce(), udp_request())));
    let opened = open_response(&key(), Transport::Tcp, &frames[2], &request_nonce());
    assert_eq!(opened, Ok((response_nonce(), TCP_RESPONSE)));
    let opened = open_response(&key(), Transport::Udp, &frames[3], &request_nonce());
    assert_eq!(opened, Ok((response_nonce(), UDP_RESPONSE)));
}

#[test]
fn payload_is_as_recorded() {
    let (request, response) = (request_nonce(), response_nonce());
    for (side, recorded) in [
        (Side::Client, CLIENT_RECORDS_HEX),
        (Side::Hop, HOP_RECORDS_HEX),
    ] {
        let (mut sealer, _) = records(&key(), side, &request, &response);
        let mut out = Vec::new();
        sealer.seal(&mut out, b"hello");
        sealer.close(&mut out);
        same(&out, recorded);
        let other = match side {
            Side::Client => Side::Hop,
            Side::Hop => Side::Client,
        };
        let (_, mut opener) = records(&key(), other, &request, &response);
        let length = record_len(&out).unwrap().unwrap();
        let (first, close) = out.split_at_mut(length);
        assert_eq!(opener.open(first), Ok(Opened::Payload(b"hello")));
        assert_eq!(opener.open(close), Ok(Opened::Close));
    }
    let mut out = Vec::new();
    let direction = Direction::Request;
    seal_datagram(&mut out, &key(), direction, &request, &response, b"hello");
    same(&out, DATAGRAM_HEX);
    let mut payload = Vec::new();
    let opened = open_datagram(&mut payload, &key(), direction, &request, &out);
    assert_eq!((opened, payload.as_slice()), (Ok(()), &b"hello"[..]));
}

#[test]
fn a_part_of_a_frame_is_not_yet_one() {
    for recorded in [
        TCP_REQUEST_HEX,
        UDP_REQUEST_HEX,
        TCP_RESPONSE_HEX,
        UDP_RESPONSE_HEX,
    ] {
        let frame = unhex(&recorded.split_whitespace().collect::<String>());
        for end in 0..frame.len() {
            match frame_len(&frame[..end]).unwrap() {
                None => assert!(end < 26),
                Some(length) => assert!(end >= 26 && length == frame.len()),
            }
            assert!(open_request(&key(), Transport::Tcp, &frame[..end]).is_err());
        }
        // More than the frame is none either: whoever calls has cut it off the stream.
        let longer = [&frame[..], &[0]].concat();
        assert!(open_request(&key(), Transport::Tcp, &longer).is_err());
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let request = sealed_request(Transport::Tcp, &tcp_request());
    let response = sealed_response(Transport::Udp, &UDP_RESPONSE);
    for bit in 0..request.len() * 8 {
        let mut frame = request.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        let opened = open_request(&key(), Transport::Tcp, &frame);
        assert_eq!(opened, Err(Unsealed::Forged));
    }
    for bit in 0..response.len() * 8 {
        let mut frame = response.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        let opened = open_response(&key(), Transport::Udp, &frame, &request_nonce());
        assert_eq!(opened, Err(Unsealed::Forged));
    }
}

#[test]
fn a_frame_holds_in_its_own_place_only() {
    let other_key = Key::from_bytes([9; 32]);
    let tcp = sealed_request(Transport::Tcp, &tcp_request());
    let udp = sealed_request(Transport::Udp, &udp_request());
    let forged = Err(Unsealed::Forged);
    // Another hop's, another transport's.
    assert_eq!(open_request(&other_key, Transport::Tcp, &tcp), forged);
    assert_eq!(open_request(&key(), Transport::Udp, &tcp), forged);
    assert_eq!(open_request(&key(), Transport::Tcp, &udp), forged);

    let tcp_response = sealed_response(Transport::Tcp, &TCP_RESPONSE);
    let udp_response = sealed_response(Transport::Udp, &UDP_RESPONSE);
    let forged = Err(Unsealed::Forged);
    let open = |key: &Key, transport, frame: &[u8], request: &Nonce| {
        open_response(key, transport, frame, request)
    };
    let nonce = request_nonce();
    assert!(open(&key(), Transport::Tcp, &tcp_response, &nonce).is_ok());
    assert_eq!(
        open(&other_key, Transport::Tcp, &tcp_response, &nonce),
        forged
    );
    assert_eq!(open(&key(), Transport::Udp, &tcp_response, &nonce), forged);
    assert_eq!(open(&key(), Transport::Tcp, &udp_response, &nonce), forged);
    // The answer to another request.
    assert_eq!(
        open(&key(), Transport::Tcp, &tcp_response, &response_nonce()),
        forged
    );
    // Sent back to who made it, in both directions.
    assert_eq!(open(&key(), Transport::Tcp, &tcp, &nonce), forged);
    let reflected = open_request(&key(), Transport::Tcp, &tcp_response);
    assert_eq!(reflected, Err(Unsealed::Forged));
}

#[test]
fn payload_under_other_nonces_or_keys_is_refused() {
    let (request, response) = (request_nonce(), response_nonce());
    let (mut sealer, _) = records(&key(), Side::Client, &request, &response);
    let mut record = Vec::new();
    sealer.seal(&mut record, b"hello");
    let other_key = Key::from_bytes([9; 32]);
    for (key, request, response) in [
        (&other_key, &request, &response),
        (&key(), &response, &response),
        (&key(), &request, &request),
    ] {
        let (_, mut opener) = records(key, Side::Hop, request, response);
        assert_eq!(opener.open(&mut record.clone()), Err(Spoilt::Forged));
    }
}

const TCP_REQUEST_HEX: &str = "\
    404142434445464748494a4b4c4d4e4f50515253545556570028d43904fb1f05116d8ff78cdacdb2 \
    0cfce6dfdfaa723546a24167df1d1635ab552fc1213ea47f370d";
const UDP_REQUEST_HEX: &str = "\
    404142434445464748494a4b4c4d4e4f5051525354555657002cd43904fb1f05116d8af6a7bfa224 \
    659292baadc41359539a6a30fd7007c69df311b8ac5e0b6734e35278fa80";
const TCP_RESPONSE_HEX: &str = "\
    808182838485868788898a8b8c8d8e8f9091929394959697001540ee5958e5050cbb794664b98ed0 \
    9e19c4e0d4aa88";
const UDP_RESPONSE_HEX: &str = "\
    808182838485868788898a8b8c8d8e8f9091929394959697001542ee5959e00d2fa3ee64bdb94849 \
    16eeb8e0f98ac3";
const CLIENT_RECORDS_HEX: &str = "\
    0015918cc785d946f955ec253f63ff8245a12cd6b8b6d400104d092a503ffde8e22bd344b12c43b7 \
    a9";
const HOP_RECORDS_HEX: &str = "\
    0015afd5500adb6d3aaf0dc8bca3dd707f4bfdb39194770010e7cae18acddbc030565728b1212e68 \
    7d";
const DATAGRAM_HEX: &str = "\
    808182838485868788898a8b8c8d8e8f90919293949596972a8b35358850653cf107fbdd51f07429 \
    c5ad3a4397";
