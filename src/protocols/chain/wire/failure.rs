//! What went wrong at a hop of a chain, as far as anybody is told.

use std::fmt;

/// A kind of failure. Which hop it was is known by whose response said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The name could not be looked up.
    Resolve,
    /// Whom the hop dialled took no connection.
    Refused,
    /// There is no way there.
    Unreachable,
    /// Nobody answered in time.
    Timeout,
    /// The hop's policy says no.
    Forbidden,
    /// The hop had no room for one more.
    Overloaded,
    /// What came is not the protocol.
    Protocol,
    /// The hop failed by itself.
    Internal,
    /// The hop and its client have different keys.
    Auth,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "the name of the destination is not known",
            Self::Refused => "destination refused the connection",
            Self::Unreachable => "destination cannot be reached",
            Self::Timeout => "destination did not answer in time",
            Self::Forbidden => "destination is forbidden",
            Self::Overloaded => "overloaded",
            Self::Protocol => "broke the protocol",
            Self::Internal => "failed by itself",
            Self::Auth => "does not know the key",
        })
    }
}
