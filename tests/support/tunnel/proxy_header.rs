//! PROXY protocol headers as an inside service reads them.

use std::net::{Ipv4Addr, SocketAddr};

use crate::support::peer::Peer;

/// Who came, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Reads a line of version 1.
pub fn read_v1(peer: &mut Peer) -> Header {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(peer.take(1));
        assert!(line.len() <= 107, "{}", line.escape_ascii());
    }
    let line = String::from_utf8(line).unwrap();
    let words: Vec<&str> = line.trim_end_matches("\r\n").split(' ').collect();
    let [
        "PROXY",
        "TCP4",
        source,
        destination,
        source_port,
        destination_port,
    ] = words[..]
    else {
        panic!("{line:?}");
    };
    let at = |ip: &str, port: &str| format!("{ip}:{port}").parse().unwrap();
    Header {
        source: at(source, source_port),
        destination: at(destination, destination_port),
    }
}

/// Reads a header of version 2 for streams.
pub fn read_v2(peer: &mut Peer) -> Header {
    let mut bytes = peer.take(16);
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    bytes.extend(peer.take(length));
    let (header, rest) = split_v2(&bytes, STREAM);
    assert!(rest.is_empty());
    header
}

/// Takes a header of version 2 off the front of a datagram.
pub fn split_v2(bytes: &[u8], protocol: u8) -> (Header, &[u8]) {
    let what = || format!("no header: {}", bytes.escape_ascii());
    assert!(bytes.starts_with(SIGNATURE), "{}", what());
    assert_eq!(bytes[12..14], [0x21, protocol], "{}", what());
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    assert!(length >= 12, "{}", what());
    let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let header = Header {
        source: (ip(16), port(24)).into(),
        destination: (ip(20), port(26)).into(),
    };
    (header, &bytes[16 + length..])
}

/// A stream over IPv4.
pub const STREAM: u8 = 0x11;

/// A datagram over IPv4.
pub const DATAGRAM: u8 = 0x12;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
