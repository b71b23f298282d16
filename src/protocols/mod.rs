//! The list of the protocols, and nothing else.

pub mod agent;
