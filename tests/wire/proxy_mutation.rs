//! Broken SOCKS5 messages and CONNECT heads by the hundred thousand: the codecs never panic, take no
//! more than there is, and say of a beginning nothing that its end takes back.

use std::fmt::Debug;

use towpath::protocols::chain::wire::{http, socks5};

use crate::random::Random;

const SOCKS5: &[&[u8]] = &[
    b"\x05\x02\x00\x02",
    b"\x01\x03ann\x06secret",
    b"\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50",
    b"\x05\x03\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x35",
    b"\x05\x01\x00\x03\x0bexample.com\x01\xbb",
    b"\x00\x00\x00\x03\x0bexample.com\x00\x35payload",
];

const HTTP: &[&[u8]] = &[
    b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n\x16\x03",
    b"CONNECT [2001:db8::1]:80 HTTP/1.0\r\nProxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n",
    b"CONNECT 1.2.3.4:80 HTTP/1.1\r\nContent-Length: 0\r\nUser-Agent: x\r\n\r\n",
    b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
];

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            4 => {
                bytes.remove(at);
            }
            _ => bytes.extend(vec![random.next() as u8; random.below(300)]),
        }
    }
}

/// Reads a random beginning, and then all: what was read or refused at the beginning stays so.
fn judge<T: PartialEq + Debug, E: PartialEq + Debug>(
    input: &[u8],
    end: usize,
    read: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>,
) -> bool {
    // Exactly as large as the input: a read behind its end would be seen.
    let beginning: Box<[u8]> = input[..end].into();
    let (early, late) = (read(&beginning), read(input));
    if let Ok(Some((_, count))) = &late {
        assert!(*count <= input.len(), "{input:?}");
        assert_eq!(read(&input[..*count]), late, "{input:?}");
    }
    if early != Ok(None) {
        assert_eq!(early, late, "{end} of {input:?}");
    }
    matches!(late, Ok(Some(_)))
}

#[test]
fn a_hundred_thousand_broken_messages_do_no_harm() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut taken = [0_u32; 5];
    for _ in 0..100_000 {
        let mut bytes = SOCKS5[random.below(SOCKS5.len())].to_vec();
        mutate(&mut bytes, &mut random);
        let end = random.below(bytes.len() + 1);
        let datagram: Box<[u8]> = bytes.as_slice().into();
        let found = [
            judge(&bytes, end, socks5::greeting),
            judge(&bytes, end, socks5::login),
            judge(&bytes, end, socks5::request),
            socks5::datagram(&datagram).is_ok(),
        ];
        let mut head = HTTP[random.below(HTTP.len())].to_vec();
        mutate(&mut head, &mut random);
        let end = random.below(head.len() + 1);
        let connect = judge(&head, end, http::request);
        for (count, found) in taken.iter_mut().zip(found.into_iter().chain([connect])) {
            *count += u32::from(found);
        }
    }
    assert!(taken.iter().all(|count| *count > 5_000), "{taken:?}");
}
