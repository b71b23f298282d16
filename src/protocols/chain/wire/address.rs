//! Where a hop is to connect: as text, and as it stands in a request.
//!
//! A name is not looked up here, and whether an address may be dialled is the hop's decision about
//! what it dials, not about what is written here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::wire::{Reader, WireError, Writer};

/// A host and a port, which is never 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address.
    Socket(SocketAddr),
    /// A name that the hop looks up.
    Name {
        /// 1 to [`MAX_HOST`] letters, digits, `-`, `.` and `_`.
        host: Box<str>,
        /// The port.
        port: u16,
    },
}

impl Address {
    /// Reads `HOST:PORT`, or `HOST` alone with `port` for its port. An IPv6 address stands in brackets.
    pub fn parse_or(text: &str, port: u16) -> Result<Self, AddressError> {
        Self::split(text, Some(port))
    }

    fn split(text: &str, default: Option<u16>) -> Result<Self, AddressError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(inside) => {
                let (host, rest) = inside.split_once(']').ok_or(AddressError::Bracket)?;
                match rest.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if rest.is_empty() => (host, None),
                    None => return Err(AddressError::Bracket),
                }
            }
            None => match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => return Err(AddressError::Bare),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            // `parse` would take a sign.
            Some(port) if !port.starts_with('+') => port.parse().ok().filter(|port| *port > 0),
            Some(_) => None,
            None => Some(default.ok_or(AddressError::NoPort)?),
        };
        let port = port.ok_or(AddressError::Port)?;
        if text.starts_with('[') {
            // A zone, as in `fe80::1%2`, means something on one machine only, and does not parse here.
            let host: Ipv6Addr = host.parse().map_err(|_| AddressError::Bracket)?;
            return Ok(Self::Socket(SocketAddr::from((host, port))));
        }
        match host.parse::<Ipv4Addr>() {
            Ok(host) => Ok(Self::Socket(SocketAddr::from((host, port)))),
            Err(_) => Self::named(host, port),
        }
    }

    fn named(host: &str, port: u16) -> Result<Self, AddressError> {
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        if host.len() > MAX_HOST {
            return Err(AddressError::HostTooLong { length: host.len() });
        }
        if !host.bytes().all(is_of_a_host) {
            return Err(AddressError::Host);
        }
        let host = host.into();
        Ok(Self::Name { host, port })
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Socket(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Socket(address) => match address.ip() {
                IpAddr::V4(ip) => {
                    writer.u8(IP4);
                    writer.bytes(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    writer.u8(IP6);
                    writer.bytes(&ip.octets());
                }
            },
            Self::Name { host, .. } => {
                // A longer host is a mistake of ours, which the hop refuses; it never leaves the frame's
                // bounds.
                let host = &host.as_bytes()[..host.len().min(MAX_HOST)];
                writer.u8(NAME);
                writer.u8(u8::try_from(host.len()).unwrap_or(u8::MAX));
                writer.bytes(host);
            }
        }
        writer.bytes(&self.port().to_be_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let host = match reader.u8("address kind")? {
            IP4 => Ok(IpAddr::from(reader.array::<4>("ip4")?)),
            IP6 => Ok(IpAddr::from(reader.array::<16>("ip6")?)),
            NAME => {
                let length = usize::from(reader.u8("host length")?);
                Err(host(reader.bytes("host", length)?)?)
            }
            kind => {
                let (field, value) = ("address kind", kind.into());
                return Err(WireError::BadValue { field, value });
            }
        };
        let port = u16::from_be_bytes(reader.array("port")?);
        if port == 0 {
            let (field, value) = ("port", 0);
            return Err(WireError::BadValue { field, value });
        }
        Ok(match host {
            Ok(ip) => Self::Socket(SocketAddr::new(ip, port)),
            Err(host) => Self::Name {
                host: host.into(),
                port,
            },
        })
    }
}

fn host(bytes: &[u8]) -> Result<&str, WireError> {
    if bytes.is_empty() {
        return Err(WireError::Missing { field: "host" });
    }
    let (field, strange) = ("host", bytes.iter().find(|byte| !is_of_a_host(**byte)));
    if let Some(&byte) = strange {
        let value = byte.into();
        return Err(WireError::BadValue { field, value });
    }
    // ASCII throughout, so that it is text.
    str::from_utf8(bytes).map_err(|_| WireError::BadValue { field, value: 0 })
}

/// What names in use are made of. Anything else could mean something to what the name goes through:
/// a resolver, a log, a terminal.
const fn is_of_a_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// Reads `HOST:PORT` or `[IPV6]:PORT`.
impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::split(text, None)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A port of 0 is not refused here, but by whoever reads the request.
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// There is no port.
    NoPort,
    /// The port is no number from 1 to 65535.
    Port,
    /// There is nothing before the port.
    NoHost,
    /// The host is longer than [`MAX_HOST`].
    HostTooLong {
        /// Its bytes.
        length: usize,
    },
    /// The host has characters that no name has.
    Host,
    /// An IPv6 address stands without brackets.
    Bare,
    /// In the brackets is no IPv6 address, or something stands behind them.
    Bracket,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPort => f.write_str("it has no port; write HOST:PORT"),
            Self::Port => f.write_str("its port is a number from 1 to 65535"),
            Self::NoHost => f.write_str("it has no host; write HOST:PORT"),
            Self::HostTooLong { length } => {
                write!(
                    f,
                    "its host is {length} bytes long, over the limit of {MAX_HOST}"
                )
            }
            Self::Host => {
                f.write_str("its host has a character that is no letter, digit, - . or _")
            }
            Self::Bare => f.write_str("an IPv6 address stands in brackets, like [::1]:7300"),
            Self::Bracket => f.write_str("brackets hold an IPv6 address, like [::1]:7300"),
        }
    }
}

impl std::error::Error for AddressError {}

/// The longest host, in bytes.
pub const MAX_HOST: usize = 255;

const IP4: u8 = 1;
const IP6: u8 = 2;
const NAME: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(address: &Address) -> Vec<u8> {
        let mut out = Vec::new();
        address.encode(&mut Writer::new(&mut out));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Address, WireError> {
        let mut reader = Reader::new(bytes);
        let address = Address::decode(&mut reader)?;
        reader.finish()?;
        Ok(address)
    }

    #[test]
    fn text_and_bytes_come_back() {
        let longest = format!("{}:1", "a".repeat(MAX_HOST));
        for text in [
            "127.0.0.1:80",
            "[::1]:7300",
            "db.internal:5432",
            "a_b-c:65535",
            &longest,
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(decode(&bytes(&address)), Ok(address));
        }
        let v4: Address = "1.2.3.4:258".parse().unwrap();
        assert_eq!(bytes(&v4), [1, 1, 2, 3, 4, 1, 2]);
        let name: Address = "ab:3".parse().unwrap();
        assert_eq!(bytes(&name), [3, 2, b'a', b'b', 0, 3]);
    }

    #[test]
    fn a_port_may_be_left_out_where_there_is_a_default() {
        for (text, want) in [("a", "a:7300"), ("[::1]", "[::1]:7300"), ("a:1", "a:1")] {
            assert_eq!(Address::parse_or(text, 7300).unwrap().to_string(), want);
        }
    }

    #[test]
    fn wrong_texts_are_told_apart() {
        use AddressError::*;
        let too_long = format!("{}:1", "a".repeat(256));
        for (text, want) in [
            ("a", NoPort),
            ("", NoPort),
            ("[::1]", NoPort),
            ("a:0", Port),
            ("a:", Port),
            ("a:+1", Port),
            ("a:65536", Port),
            (":1", NoHost),
            (&too_long, HostTooLong { length: 256 }),
            ("a b:1", Host),
            ("b\u{fc}cher:1", Host),
            ("::1:80", Bare),
            ("[::1:80", Bracket),
            ("[a]:80", Bracket),
            ("[::1]80", Bracket),
            ("[fe80::1%2]:80", Bracket),
        ] {
            assert_eq!(text.parse::<Address>(), Err(want), "{text}");
        }
    }

    #[test]
    fn wrong_bytes_are_refused_with_their_field() {
        let bad = |field, value| Err(WireError::BadValue { field, value });
        assert_eq!(decode(&[0]), bad("address kind", 0));
        assert_eq!(decode(&[4]), bad("address kind", 4));
        assert_eq!(decode(&[1, 1, 2, 3, 4, 0, 0]), bad("port", 0));
        assert_eq!(
            decode(&[3, 0, 0, 1]),
            Err(WireError::Missing { field: "host" })
        );
        assert_eq!(decode(&[3, 1, b'\n', 0, 1]), bad("host", 10));
        assert_eq!(decode(&[3, 1, 0xff, 0, 1]), bad("host", 255));
        let whole = [3, 2, b'a', b'b', 0, 3];
        for end in 0..whole.len() {
            assert!(matches!(
                decode(&whole[..end]),
                Err(WireError::Truncated { .. })
            ));
        }
    }
}
