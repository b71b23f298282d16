//! Why a call of the client failed, in words for the person in front of it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Side;
use crate::wire::WireError;

/// Why a call failed. After the variants that speak of the gateway's connection every call on the
/// same handle fails alike, and a program that wants to go on connects anew.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The gateway's name has no address.
    Resolve(io::Error),
    /// None of the gateway's addresses takes a connection; this is the last one's reason.
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// The gateway sent no challenge, as one does that takes this for its clients' port.
    NoChallenge,
    /// The system has no thread for the connection.
    NoThread(io::Error),
    /// Nobody under this id is there, or the gateway's limit of virtual connections is reached.
    Refused {
        /// Which side refused to be dialled: a client dials servers, a server dials clients.
        callee: Side,
        /// The id that was dialled.
        remote: u32,
    },
    /// So many dials wait for their answers already.
    Busy {
        /// How many may.
        most: usize,
    },
    /// The message is over [`Options::max_packet`](super::Options::max_packet); nothing was sent.
    TooLong {
        /// Bytes of the message.
        length: usize,
        /// The most it may have.
        most: usize,
    },
    /// It did not happen in time; the call may be repeated.
    TimedOut,
    /// The virtual connection has ended, so that nothing can be sent on it.
    Closed,
    /// This program closed the gateway's connection.
    Left,
    /// The gateway closed its connection.
    GatewayClosed,
    /// The gateway closed its connection before it said anything to this server, as it does when the
    /// key is wrong.
    Rejected,
    /// Nothing came from the gateway for [`Options::silence_timeout`](super::Options::silence_timeout).
    Silent(Duration),
    /// The gateway's connection broke.
    Broken(Arc<io::Error>),
    /// What the gateway sent breaks the protocol, as it does when the dialect is the wrong one.
    Malformed(WireError),
}

/// Why a link to a gateway is over. Every later call on it tells the same.
#[derive(Clone, Debug)]
pub(super) enum End {
    Left,
    GatewayClosed,
    Rejected,
    Silent(Duration),
    Broken(Arc<io::Error>),
    Malformed(WireError),
}

impl From<End> for Error {
    fn from(end: End) -> Self {
        match end {
            End::Left => Self::Left,
            End::GatewayClosed => Self::GatewayClosed,
            End::Rejected => Self::Rejected,
            End::Silent(time) => Self::Silent(time),
            End::Broken(source) => Self::Broken(source),
            End::Malformed(source) => Self::Malformed(source),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(source) => write!(f, "the gateway's name has no address: {source}"),
            Self::Connect { address, source } => write!(f, "cannot connect to {address}: {source}"),
            Self::NoChallenge => {
                f.write_str("the gateway sent no challenge; is this its port for servers?")
            }
            Self::NoThread(source) => write!(f, "no thread for the connection: {source}"),
            Self::Refused { callee, remote } => write!(
                f,
                "{callee} {remote} is not there, or there are as many connections as may be"
            ),
            Self::Busy { most } => write!(f, "{most} dials wait for their answers already"),
            Self::TooLong { length, most } => {
                write!(
                    f,
                    "the message has {length} bytes, over the limit of {most}"
                )
            }
            Self::TimedOut => f.write_str("the gateway did not answer in time"),
            Self::Closed => f.write_str("the virtual connection has ended"),
            Self::Left => f.write_str("the connection to the gateway was closed by this program"),
            Self::GatewayClosed => f.write_str("the gateway closed the connection"),
            Self::Rejected => {
                f.write_str("the gateway closed the connection without a word; is the key right?")
            }
            Self::Silent(time) => write!(f, "nothing came from the gateway for {time:?}"),
            Self::Broken(source) => write!(f, "the connection to the gateway broke: {source}"),
            Self::Malformed(source) => write!(
                f,
                "the gateway breaks the protocol: {source}; is the dialect right?"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve(source) | Self::Connect { source, .. } | Self::NoThread(source) => {
                Some(source)
            }
            Self::Broken(source) => Some(source.as_ref()),
            Self::Malformed(source) => Some(source),
            _ => None,
        }
    }
}
