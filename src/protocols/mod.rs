//! The list of protocols, nothing else: one room and one entry each.

pub mod agent;
pub mod chain;
pub mod gateway;
pub mod node;
pub mod tunnel;

use crate::session::Protocol;

/// Every protocol that the server can speak, in the order of the help text.
pub const PROTOCOLS: &[&dyn Protocol] = &[
    &agent::Agent,
    &chain::Chain,
    &node::Node,
    &tunnel::Tunnel,
    &gateway::Gateway,
];
