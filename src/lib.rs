//! Towpath: a relay server for Linux operators.

pub mod buffer;
pub mod cli;
pub mod config;
pub mod control;
pub mod net;
pub mod protocols;
pub mod reactor;
pub mod relay;
pub mod server;
pub mod session;
pub mod stats;
pub mod store;
pub mod sys;
pub mod upstream;
pub mod wire;
pub mod worker;

pub use protocols::agent::client as agent;
