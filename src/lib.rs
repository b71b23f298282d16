//! Towpath: a relay server for Linux operators.

pub mod cli;
pub mod config;
pub mod protocols;
pub mod reactor;
pub mod server;
pub mod store;
pub mod wire;

pub use protocols::agent::client as agent;
