//! Why there is no chain, or no datagram: which hop it was, and what it was.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::wire::{AddressError, Code, Spoilt};
use super::MAX_HOPS;
use crate::wire::WireError;

/// A failure, and its place.
///
/// `hop 2 (nyc.example:7300): destination refused the connection`
#[derive(Debug)]
pub struct Error {
    /// Where it was.
    pub place: Place,
    /// What it was.
    pub reason: Reason,
}

/// Where on a chain something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A hop.
    Hop {
        /// Which one, counted from 1.
        index: usize,
        /// Its address as the caller wrote it.
        address: String,
    },
    /// The destination, as the caller wrote it.
    Destination(String),
    /// No one place.
    Chain,
}

/// Why a chain failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The hop's own answer.
    Said {
        /// What it says.
        code: Code,
        /// Whether it was to connect to the destination, and not to another hop.
        is_last: bool,
    },
    /// The text is no address.
    Address(AddressError),
    /// The name has no address.
    Resolve(io::Error),
    /// None of the addresses takes a connection; this is the last one's reason.
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// The hop closed the connection instead of answering. So it treats whom it does not know.
    Silent,
    /// The hop did not answer in time.
    NoAnswer(Duration),
    /// What came is no answer under the hop's key to the request.
    Forged,
    /// The hop's answer is malformed.
    Malformed(WireError),
    /// The payload is not sealed under the payload key.
    Spoilt(Spoilt),
    /// The connection broke.
    Broken(io::Error),
    /// The datagram does not fit behind its headers; nothing was sent.
    TooLong {
        /// Its bytes.
        length: usize,
        /// The most that fit.
        most: usize,
    },
    /// There are more hops than [`MAX_HOPS`].
    TooManyHops(usize),
    /// There is no hop where one is needed: to seal the payload for, or to probe.
    NoHop,
    /// The system gives no random bytes.
    NoRandom,
}

impl Error {
    /// Which hop it was, counted from 1.
    pub const fn hop(&self) -> Option<usize> {
        match self.place {
            Place::Hop { index, .. } => Some(index),
            Place::Destination(_) | Place::Chain => None,
        }
    }

    /// The hop's own answer, if it is one.
    pub const fn code(&self) -> Option<Code> {
        match self.reason {
            Reason::Said { code, .. } => Some(code),
            _ => None,
        }
    }

    pub(super) const fn of_chain(reason: Reason) -> Self {
        let place = Place::Chain;
        Self { place, reason }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Hop { index, address } => write!(f, "hop {index} ({address}): {}", self.reason),
            Place::Destination(address) => write!(f, "destination ({address}): {}", self.reason),
            Place::Chain => self.reason.fmt(f),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said { code, is_last } => f.write_str(match is_last {
                true => code.text(),
                false => code.text_of_inner(),
            }),
            Self::Address(source) => source.fmt(f),
            Self::Resolve(source) => write!(f, "the name has no address: {source}"),
            Self::Connect { address, source } => write!(f, "cannot connect to {address}: {source}"),
            Self::Silent => f.write_str("closed the connection without a word; is the key right?"),
            Self::NoAnswer(patience) => write!(f, "did not answer within {patience:?}"),
            Self::Forged => {
                f.write_str("its answer is not sealed under the key; is the key right?")
            }
            Self::Malformed(source) => write!(f, "its answer is malformed: {source}"),
            Self::Spoilt(source) => source.fmt(f),
            Self::Broken(source) => write!(f, "the connection broke: {source}"),
            Self::TooLong { length, most } => {
                write!(
                    f,
                    "the datagram has {length} bytes, but {most} fit behind its headers"
                )
            }
            Self::TooManyHops(count) => write!(f, "{count} hops are more than {MAX_HOPS}"),
            Self::NoHop => f.write_str("the chain has no hop"),
            Self::NoRandom => f.write_str("the system gives no random bytes"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::Resolve(source) | Reason::Connect { source, .. } | Reason::Broken(source) => {
                Some(source)
            }
            Reason::Address(source) => Some(source),
            Reason::Malformed(source) => Some(source),
            Reason::Spoilt(source) => Some(source),
            _ => None,
        }
    }
}
