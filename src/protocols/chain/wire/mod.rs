//! The chain role's bytes, and those of the programs that come to its access listeners.
//!
//! It is not the role's behaviour: it sees no socket, no clock and no configuration, and decides
//! nothing but what the bytes say.

mod address;
mod failure;
pub mod http;
mod key;
pub mod socks5;

pub use address::Address;
pub use failure::Failure;
pub use key::{Key, KeyError};
