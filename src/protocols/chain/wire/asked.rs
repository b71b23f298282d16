//! What the clients of access listeners say whatever they speak: who they are, and where they want
//! to go.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{Address, MAX_HOST};

/// A name and a password as a client shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Any bytes.
    pub name: Vec<u8>,
    /// Any bytes.
    pub password: Vec<u8>,
}

/// Without either: a password typed into the wrong field is a secret, too.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A host as a client wrote it, an IPv6 address without brackets; none where it could be neither a
/// name nor an address, or the port is 0. An address in text is an address.
pub(super) fn address(host: &[u8], port: u16) -> Option<Address> {
    let host = std::str::from_utf8(host).ok()?;
    if port == 0 {
        return None;
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(Address::Socket(SocketAddr::new(ip, port)));
    }
    let is_of_a_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(is_of_a_host);
    is_name.then(|| Address::Name {
        host: host.into(),
        port,
    })
}
