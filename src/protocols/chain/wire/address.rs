//! Where a chain leads next: a socket address, or a name that the hop which dials it looks up.

use std::fmt;
use std::net::SocketAddr;

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

/// The longest host, in bytes.
pub const MAX_HOST: usize = 255;
