//! Towpath: a relay server for Linux operators.

pub mod buffer;
pub mod net;
pub mod reactor;
pub mod sys;
