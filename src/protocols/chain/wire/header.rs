//! What a hop answers, as far as the codecs of access listeners need it.

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The hop is connected.
    Ok,
    /// The name has no address.
    Resolve,
    /// Nobody listens there.
    Refused,
    /// No way leads there.
    Unreachable,
    /// There was no answer in time.
    Timeout,
    /// The hop's rules forbid it.
    Forbidden,
    /// The hop has no room.
    Overloaded,
    /// The request is not understood.
    Protocol,
    /// The hop has failed.
    Internal,
}

impl Code {
    /// Every code, in the order of their bytes.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Resolve,
        Self::Refused,
        Self::Unreachable,
        Self::Timeout,
        Self::Forbidden,
        Self::Overloaded,
        Self::Protocol,
        Self::Internal,
    ];
}
