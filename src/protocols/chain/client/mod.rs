//! The proxy client: a program's own chain, to any destination, by streams and datagrams.
//!
//! The client defines the chain; the hops know of each other only what it tells them. It is for programs
//! and commands, on threads of their own; nothing in the server calls it, because every call here waits
//! for the network.
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! use towpath::chain::{Hop, Key, Options, Stream};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let key = Key::from_base64(&std::fs::read_to_string("hop.key")?)?;
//!     let hops = [
//!         Hop::new("fra.example:7300", key.clone()),
//!         Hop::new("nyc.example:7300", key),
//!     ];
//!     let mut stream = Stream::connect("db.internal:5432", &hops, &Options::default())?;
//!     stream.write_all(b"question")?;
//!     stream.finish()?;
//!     let mut answer = Vec::new();
//!     stream.read_to_end(&mut answer)?;
//!     Ok(())
//! }
//! ```
//!
//! [`Stream`] is that; [`Socket`] is the same for datagrams; [`test()`] and [`probe`] tell how far a chain
//! reaches, and how fast.

mod dial;
mod error;
mod plan;
mod responses;
mod socket;
mod stream;
mod trial;

use std::fmt;
use std::time::Duration;

pub use self::error::{Error, Place, Reason};
pub use self::socket::{Datagram, Socket};
pub use self::stream::{ReadHalf, Stream, WriteHalf};
pub use self::trial::{Report, Step, probe, test};
pub use super::nonces::random_key;
pub use super::wire::{Address, AddressError, Code, Key, KeyError};

/// One hop of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// `HOST:PORT`, or `HOST` alone for [`PORT`]. The first hop's name is looked up here, every other
    /// one's by the hop before it.
    pub address: String,
    /// The key that the hop shares with its clients.
    pub key: Key,
}

impl Hop {
    /// A hop at this address.
    pub fn new(address: impl Into<String>, key: Key) -> Self {
        let address = address.into();
        Self { address, key }
    }
}

/// How a client behaves. `..Options::default()` fills in what is not of interest.
#[derive(Clone)]
pub struct Options {
    /// The most that connecting to one address of the first hop may take. 5 s by default.
    pub connect_timeout: Duration,
    /// The most that the whole chain may take to be there. 30 s by default.
    pub handshake_timeout: Duration,
    /// Whether the first payload leaves with the headers, before any hop has answered
    /// ([`Stream::connect_with`]). It saves a round trip along the whole chain, and a chain that fails
    /// may have delivered it all the same. Without effect where the payload is sealed. Off by default.
    pub early: bool,
    /// The payload key of the last hop: the payload is sealed between here and there, and the hops
    /// between them carry it blindly. None by default.
    pub payload_key: Option<Key>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(30),
            early: false,
            payload_key: None,
        }
    }
}

/// Without the key.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("connect_timeout", &self.connect_timeout)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("early", &self.early)
            .field("payload_key", &self.payload_key)
            .finish()
    }
}

/// The port of a hop whose address names none.
pub const PORT: u16 = 7300;

/// The most hops of a chain.
pub const MAX_HOPS: usize = 64;
