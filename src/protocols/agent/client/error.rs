//! Why a client's request failed, in words for the person in front of it.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::wire::WireError;

/// Why a request or a route failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server's name has no address.
    Resolve(io::Error),
    /// None of the server's addresses takes a connection; this is the last one's reason.
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// The request is over [`Options::max_payload`](super::Options::max_payload); nothing was sent.
    TooLong {
        /// Bytes of its payload.
        length: usize,
        /// The limit.
        most: usize,
        /// For an update: how long a value may be beside its id and section, if any fits.
        longest_value: Option<usize>,
    },
    /// The server understood the request and did not do it.
    Refused {
        /// The request's cmd, such as `update`.
        command: String,
        /// The server's reason.
        message: String,
    },
    /// The server closed the connection before the end of its reply. So it answers what it does not
    /// know, and updates without the token that it wants.
    Closed {
        /// How many bytes of a reply had come.
        received: usize,
    },
    /// The server closed the connection before the route stood: the service is unknown, the token is
    /// wrong, the service has no such field, or its backend cannot be reached.
    NoRoute,
    /// The server did not answer in time.
    TimedOut,
    /// The connection broke.
    Broken(io::Error),
    /// The reply breaks the protocol.
    Malformed(WireError),
    /// The reply belongs to another request, or is not the "ok" that a route begins with.
    Unexpected {
        /// What came in place of the expected word.
        got: String,
    },
}

impl Error {
    /// True when the server left before it said anything, as an idle connection ends.
    pub(super) fn is_closed_early(&self) -> bool {
        matches!(self, Self::Closed { received: 0 })
    }

    /// What a failed read or write means, after `received` bytes of a reply.
    pub(super) fn from_io(error: io::Error, received: usize) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted => Self::Closed { received },
            _ => Self::Broken(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(source) => write!(f, "the server's name has no address: {source}"),
            Self::Connect { address, source } => write!(f, "cannot connect to {address}: {source}"),
            Self::TooLong {
                length,
                most,
                longest_value,
            } => {
                write!(
                    f,
                    "the request has {length} bytes, over the limit of {most}"
                )?;
                match longest_value {
                    Some(longest) => write!(
                        f,
                        "; beside this id and section a value may have at most {longest}"
                    ),
                    None => Ok(()),
                }
            }
            Self::Refused { command, message } => {
                write!(f, "the server refused the {command}: {message}")
            }
            Self::Closed { received: 0 } => {
                f.write_str("the server closed the connection without a reply")
            }
            Self::Closed { received } => {
                write!(
                    f,
                    "the server closed the connection {received} bytes into its reply"
                )
            }
            Self::NoRoute => f.write_str(
                "the server closed the connection: no such service or field, a wrong token, or \
                 its backend cannot be reached",
            ),
            Self::TimedOut => f.write_str("the server did not answer in time"),
            Self::Broken(source) => write!(f, "the connection broke: {source}"),
            Self::Malformed(source) => write!(f, "the server's reply is malformed: {source}"),
            Self::Unexpected { got } => write!(f, "the server answered {got:?}, out of place"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve(source) | Self::Connect { source, .. } | Self::Broken(source) => {
                Some(source)
            }
            Self::Malformed(source) => Some(source),
            _ => None,
        }
    }
}
