//! The node role: a public address for a node behind NAT, kept over reconnects and restarts.

pub mod client;
pub mod wire;
