//! The agent role: a store of records and a traffic proxy on one port.

pub mod client;
pub mod config;
pub mod wire;

pub use config::{Config, KEYS, Route, Target};
