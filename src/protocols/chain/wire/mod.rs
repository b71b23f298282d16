//! The chain role's bytes, and those of the programs that come to its access listeners.
//!
//! It is not the role's behaviour: it sees no socket, no clock and no configuration, and decides
//! nothing but what the bytes say.

mod address;
mod asked;
mod header;
pub mod http;
mod key;
pub mod socks5;

pub use address::{Address, MAX_HOST};
pub use asked::Login;
pub use header::Code;
pub use key::{Key, KeyError};
