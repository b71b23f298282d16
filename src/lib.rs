//! Towpath: a relay server for Linux operators.

pub mod reactor;
pub mod store;
