//! The PROXY protocol's header: tells the inside service who the visitor is, and which public address
//! it came to. Version 1 is a line of text, version 2 is binary and knows datagrams, too.

use std::net::{IpAddr, SocketAddr};

use super::super::config::ProxyProtocol;

/// The header of a visitor.
pub(super) fn header(
    version: ProxyProtocol,
    is_udp: bool,
    visitor: SocketAddr,
    public: SocketAddr,
) -> Vec<u8> {
    let (from, to) = same_family(visitor, public);
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() { 4 } else { 6 };
            let (source, target) = (from.ip(), to.ip());
            let ports = format!("{} {}", from.port(), to.port());
            format!("PROXY TCP{family} {source} {target} {ports}\r\n").into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut bytes = SIGNATURE.to_vec();
            let family = if from.is_ipv4() { 0x10 } else { 0x20 };
            let transport = if is_udp { 2 } else { 1 };
            let len: u16 = if from.is_ipv4() { 12 } else { 36 };
            bytes.extend([PROXY, family | transport]);
            bytes.extend(len.to_be_bytes());
            for address in [from, to] {
                match address.ip() {
                    IpAddr::V4(ip) => bytes.extend(ip.octets()),
                    IpAddr::V6(ip) => bytes.extend(ip.octets()),
                }
            }
            for address in [from, to] {
                bytes.extend(address.port().to_be_bytes());
            }
            bytes
        }
    }
}

/// A header has one family: where the two differ, the IPv4 address is written as an IPv6 one.
fn same_family(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let mapped = |at: SocketAddr| match at.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), at.port()),
        IpAddr::V6(_) => at,
    };
    let (a, b) = (plain(a), plain(b));
    match a.is_ipv4() == b.is_ipv4() {
        true => (a, b),
        false => (mapped(a), mapped(b)),
    }
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, on behalf of somebody.
const PROXY: u8 = 0x21;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_line_for_each_family() {
        let line =
            |a, b| String::from_utf8(header(ProxyProtocol::V1, false, at(a), at(b))).unwrap();
        assert_eq!(
            line("10.0.0.9:5120", "192.0.2.1:80"),
            "PROXY TCP4 10.0.0.9 192.0.2.1 5120 80\r\n"
        );
        assert_eq!(
            line("[2001:db8::1]:1", "[::1]:65535"),
            "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"
        );
        assert_eq!(
            line("[::ffff:10.0.0.9]:1", "10.0.0.1:2"),
            "PROXY TCP4 10.0.0.9 10.0.0.1 1 2\r\n"
        );
        assert_eq!(
            line("[2001:db8::1]:1", "10.0.0.1:2"),
            "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 1 2\r\n"
        );
    }

    #[test]
    fn the_binary_header_as_the_specification_has_it() {
        let bytes = header(
            ProxyProtocol::V2,
            false,
            at("10.0.0.9:258"),
            at("192.0.2.1:80"),
        );
        let mut want = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        want.extend([10, 0, 0, 9, 192, 0, 2, 1, 1, 2, 0, 80]);
        assert_eq!(bytes, want);
        let bytes = header(ProxyProtocol::V2, true, at("[::1]:1"), at("[::2]:2"));
        assert_eq!((&bytes[12..16], bytes.len()), (&b"\x21\x22\0\x24"[..], 52));
    }
}
