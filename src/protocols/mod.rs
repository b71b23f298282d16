//! The protocols, one room each.

pub mod agent;
