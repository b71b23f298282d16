//! The gateway role: virtual connections between clients and authenticated servers.

pub mod wire;
