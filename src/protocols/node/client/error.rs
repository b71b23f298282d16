//! Why a node has no public address, or a peer cannot be sent to, in words for the person in front of
//! it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::wire::WireError;

/// Why a connection to the server or to a peer failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The name has no address.
    Resolve(io::Error),
    /// None of the addresses takes a connection; this is the last one's reason.
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// The server closed the connection before it gave an address. So it answers whom it does not
    /// serve, and when it has no address left.
    Refused,
    /// The other side closed the connection.
    Closed,
    /// The server did not give an address in time.
    NoAnswer(Duration),
    /// Nothing has come from the server for this long, though keepalives were sent.
    Silent(Duration),
    /// What the other side does not take within [`Options::io_timeout`](super::Options::io_timeout).
    Stuck,
    /// The connection broke.
    Broken(io::Error),
    /// The server's bytes break the protocol.
    Malformed(WireError),
    /// The message is over [`Options::max_frame`](super::Options::max_frame); nothing was sent.
    TooLong {
        /// Bytes of its frame's body.
        length: usize,
        /// The limit.
        most: usize,
    },
    /// The system has no thread for the connection.
    NoThread(io::Error),
    /// The node was closed on this side.
    Stopped,
}

impl Error {
    /// What a failed read or write means.
    pub(super) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Stuck,
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted => Self::Closed,
            _ => Self::Broken(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(source) => write!(f, "the name has no address: {source}"),
            Self::Connect { address, source } => write!(f, "cannot connect to {address}: {source}"),
            Self::Refused => f.write_str(
                "the server closed the connection without giving an address: it has none left, or \
                 does not serve this node",
            ),
            Self::Closed => f.write_str("the other side closed the connection"),
            Self::NoAnswer(patience) => {
                write!(f, "the server gave no address within {patience:?}")
            }
            Self::Silent(patience) => write!(f, "the server was silent for {patience:?}"),
            Self::Stuck => f.write_str("the other side does not take what is sent"),
            Self::Broken(source) => write!(f, "the connection broke: {source}"),
            Self::Malformed(source) => write!(f, "the server's bytes are malformed: {source}"),
            Self::TooLong { length, most } => {
                write!(
                    f,
                    "the message has {length} bytes, over the limit of {most}"
                )
            }
            Self::NoThread(source) => write!(f, "no thread for the connection: {source}"),
            Self::Stopped => f.write_str("the node was closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve(source)
            | Self::Connect { source, .. }
            | Self::Broken(source)
            | Self::NoThread(source) => Some(source),
            Self::Malformed(source) => Some(source),
            _ => None,
        }
    }
}
