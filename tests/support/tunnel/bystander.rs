//! The bystander: a client with a visitor that passes a block both ways, and a ping.

use super::plan::Tunnel;
use crate::support::bystander::Rounds;

/// A loop of blocks and pings in a thread of its own.
pub struct Bystander;

impl Bystander {
    /// Starts with a client and a visitor of its own; takes one port.
    pub fn start(tunnel: &Tunnel) -> Rounds {
        Rounds::start(
            tunnel.visited(BYSTANDER),
            |visited, byte| {
                visited.expect_passing(&[byte; 1024]);
                visited.client.expect_quiet();
            },
            |visited| visited.leave(),
        )
    }
}

/// Its number as a client.
const BYSTANDER: u8 = 0xb5;
