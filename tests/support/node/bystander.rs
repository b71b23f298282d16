//! The bystander: a node and its visitor that pass a frame, and a Keepalive.

use super::plan::Proxy;
use crate::support::bystander::Rounds;

/// A loop of frames and Keepalives in a thread of its own.
pub struct Bystander;

impl Bystander {
    /// Starts with a node and a visitor of its own; takes one port.
    pub fn start(proxy: &Proxy) -> Rounds {
        Rounds::start(
            proxy.visited(BYSTANDER),
            |visited, byte| {
                visited.expect_passing(&[byte; 64]);
                visited.node.expect_keepalive();
            },
            |mut visited| {
                visited.node.leave();
                visited.visitor.expect_closed();
            },
        )
    }
}

/// Its number as a node.
const BYSTANDER: u32 = 0xb057;
