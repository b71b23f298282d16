//! The chain role from outside: the sealed frames once more, raw clients, hops of the test's own, and
//! the real program as hop and as access server. Nothing here is shared with the product's codec.

pub mod address;
pub mod client;
pub mod datagram;
pub mod destination;
pub mod fake;
pub mod http;
pub mod names;
pub mod plan;
pub mod program;
pub mod request;
pub mod seal;
pub mod secluded;
pub mod socks;

use std::net::SocketAddr;

pub use seal::{Key, Transport};

/// One hop as its clients know it.
#[derive(Clone, Debug)]
pub struct Hop {
    pub address: SocketAddr,
    pub key: Key,
}

/// What a response says.
pub mod code {
    pub const OK: u8 = 0;
    pub const RESOLVE: u8 = 1;
    pub const REFUSED: u8 = 2;
    pub const UNREACHABLE: u8 = 3;
    pub const TIMEOUT: u8 = 4;
    pub const FORBIDDEN: u8 = 5;
    pub const OVERLOADED: u8 = 6;
    pub const PROTOCOL: u8 = 7;
}
