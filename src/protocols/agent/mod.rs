//! The agent role: a durable store of values by id and section, and a traffic proxy, on one port.

mod config;

pub use config::{Config, KEYS, Route, Target};
