//! Towpath: a relay server for Linux operators.

pub mod control;
pub mod reactor;
pub mod store;
