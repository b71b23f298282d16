//! The bystander: a client and a server that echo 64 bytes.

use super::{Dialect, Gateway, Got};
use crate::support::bystander::Rounds;

/// An echo loop in a thread of its own.
pub struct Bystander;

impl Bystander {
    /// Starts with a server and a client of its own.
    pub fn start(gateway: &Gateway, dialect: Dialect) -> Rounds {
        Rounds::start(
            gateway.pair(dialect, BYSTANDER),
            |pair, byte| {
                let block = vec![byte; 64];
                pair.client.data(pair.conn, &block);
                pair.server.expect(Got::Data(pair.conn, block.clone()));
                pair.server.data(pair.conn, &block);
                pair.client.expect(Got::Data(pair.conn, block));
            },
            |mut pair| pair.expect_close(),
        )
    }
}

/// The id of its server.
const BYSTANDER: u32 = 0xb057_a4de;
