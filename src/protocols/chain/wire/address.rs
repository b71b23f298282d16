//! Where a chain leads next: a socket address, or a name that the hop which dials it looks up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Known without asking anybody.
    Socket(SocketAddr),
    /// A name, or whatever stands for one.
    Name {
        /// 1 to 255 bytes.
        host: Box<str>,
        /// The port.
        port: u16,
    },
}

impl Address {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Socket(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }
}

/// `host:port`, an IPv6 address in brackets.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A host as a peer wrote it: an IP address in text is one, and what could be no name in a log line
/// or in another program's message is none.
pub(super) fn host(text: &[u8], port: u16) -> Option<Address> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !br#"/@[]"\"#.contains(byte);
    if !(1..=LONGEST_HOST).contains(&text.len()) || !text.iter().all(is_plain) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    match text.parse::<IpAddr>() {
        Ok(ip) => Some(Address::Socket(SocketAddr::new(ip, port))),
        Err(_) if text.contains(':') => None,
        Err(_) => Some(Address::Name {
            host: text.into(),
            port,
        }),
    }
}

/// A length has one byte wherever a host is written.
const LONGEST_HOST: usize = 255;
