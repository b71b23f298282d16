//! The gateway role: virtual connections between clients and authenticated servers.

pub mod client;
pub mod wire;
