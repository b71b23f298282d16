//! Towpath: a relay server for Linux operators.

pub mod config;
pub mod protocols;
pub mod reactor;
pub mod store;
