//! The address inside a request: a type, the host, the port.

use std::net::{IpAddr, SocketAddr};

/// An IP address and a port.
pub fn at(address: SocketAddr) -> Vec<u8> {
    let (kind, host) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let port = address.port().to_be_bytes();
    [&[kind][..], &host, &port].concat()
}

/// The same from text, such as `10.0.0.1:80` and `[::1]:80`.
pub fn ip(text: &str) -> Vec<u8> {
    at(text.parse().unwrap())
}

/// A host by its name.
pub fn named(host: &str, port: u16) -> Vec<u8> {
    name(host.as_bytes(), port)
}

/// A host by bytes that need not be a name.
pub fn name(host: &[u8], port: u16) -> Vec<u8> {
    let length = u8::try_from(host.len()).unwrap();
    [&[3, length][..], host, &port.to_be_bytes()].concat()
}

/// A name that no resolver asks anybody about: its label is too long to be one.
pub const NO_NAME: &str = concat!(
    "a-label-of-more-than-sixty-three-bytes-which-no-question-to-a-name-server",
    "-can-hold.example"
);
