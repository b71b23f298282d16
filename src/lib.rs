//! Towpath: a relay server for Linux operators.

pub mod protocols;
pub mod reactor;
pub mod wire;

pub use protocols::agent::client as agent;
