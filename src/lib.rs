//! Towpath: a relay server for Linux operators.

pub mod buffer;
pub mod net;
pub mod protocols;
pub mod reactor;
pub mod store;
pub mod sys;
pub mod wire;

pub use protocols::agent::client as agent;
