//! A blocking client of the node role: a public address from a towpath server, or any other that
//! speaks its protocol, and what peers send to it.
//!
//! It is for programs and commands, on threads of their own; nothing in the server calls it, because
//! calls here wait for the network.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use towpath::node::{Event, Key, Node, Options};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // The address belongs to the key: a program that starts again gets the same one.
//!     let key = Arc::new(Key::at(Path::new("node.key"))?);
//!     let node = Node::connect("127.0.0.1:7200", key, Options::default(), |event| match event {
//!         Event::Connected { public, .. } => println!("reached at {public}"),
//!         Event::Lost { why, pause } => println!("lost: {why}; again in {pause:?}"),
//!         _ => {}
//!     })?;
//!
//!     // What a peer sends is answered over a connection to the peer's own public address.
//!     while let Some(frame) = node.receive() {
//!         let Some(message) = frame.message() else {
//!             continue;
//!         };
//!         println!("opcode {}: {} bytes", message.opcode, message.message.len());
//!         if let Some(sender) = message.sender {
//!             let mut peer = node.dial(&String::from_utf8(sender.address)?)?;
//!             peer.send(b"thank you")?;
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Threads
//!
//! ```text
//!   receive() <── queue, bounded by bytes <── the node's thread <── main connection <── server
//!   observer  <── called with events ──────────────┘ │
//!                                                    └── a keepalive every 15 s ──────> server
//! ```
//!
//! While nobody receives, the queue fills and the thread reads no further, so that the peers are held
//! back; the keepalives go on.

mod driver;
mod error;
mod frame;
mod key;
mod main_connection;
mod peer;
mod queue;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use self::driver::{Driver, Shared};
pub use self::error::Error;
pub use self::frame::Frame;
pub use self::key::{Key, SEED};
pub use self::peer::Peer;
use self::peer::Voice;
pub use super::wire::opcode;
use super::wire::{MAX_FRAME, NETWORK_ID, Transport};

/// A node with a public address.
///
/// It reconnects by itself, with pauses of full jitter of up to 15 seconds, until it is dropped or
/// closed. Its methods take `&self`: threads may share it.
pub struct Node {
    shared: Arc<Shared>,
    voice: Voice,
}

impl Node {
    /// Connects to `server`, a `HOST:PORT` that is resolved anew for every connection, and waits for
    /// the public address. Only this first time a failure is an error.
    ///
    /// `observe` is called on the node's own thread, which does nothing else meanwhile: it should be
    /// quick.
    pub fn connect(
        server: impl Into<String>,
        key: Arc<Key>,
        options: Options,
        observe: impl FnMut(&Event<'_>) + Send + 'static,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(options.queue_bytes));
        let voice = Voice { key, options };
        let (first, is_there) = bounded(1);
        let driver = Driver {
            shared: Arc::clone(&shared),
            server: server.into(),
            voice: voice.clone(),
            observe,
            first: Some(first),
        };
        let thread = thread::Builder::new().name("node".to_owned());
        thread
            .spawn(move || driver.run())
            .map_err(Error::NoThread)?;
        match is_there.recv() {
            Ok(Ok(())) => Ok(Self { shared, voice }),
            Ok(Err(error)) => Err(error),
            // The thread has ended without a word, as by a panic of the observer.
            Err(_) => Err(Error::Stopped),
        }
    }

    /// Where peers reach this node: `IP:PORT`, the last one that the server gave. It changes only
    /// when the server has forgotten the node; [`Event::Connected`] tells.
    pub fn public_address(&self) -> String {
        self.shared.public()
    }

    /// What peers sent, in the server's order, waiting for it. None once the node is closed and all
    /// was taken.
    pub fn receive(&self) -> Option<Frame> {
        self.shared.queue.pop(None)
    }

    /// As [`Node::receive`], for at most `wait`.
    pub fn receive_timeout(&self, wait: Duration) -> Option<Frame> {
        self.shared.queue.pop(Instant::now().checked_add(wait))
    }

    /// Connects to a peer's public address, `IP:PORT` or `tcp://IP:PORT`. What is sent there names
    /// this node's public address as the one to answer to.
    pub fn dial(&self, peer: &str) -> Result<Peer, Error> {
        let address = format!("{}{}", Transport::Tcp.scheme(), self.public_address());
        Peer::dial(peer, address, self.voice.clone())
    }

    /// Ends the node. The server remembers its address for the time of the lease.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("public_address", &self.public_address())
            .finish_non_exhaustive()
    }
}

/// Connects to a peer's public address without a node of one's own. `answer_to` is the public address
/// that the peer is to answer to, if there is any.
pub fn dial(
    peer: &str,
    answer_to: Option<&str>,
    key: Arc<Key>,
    options: Options,
) -> Result<Peer, Error> {
    let address = match answer_to {
        Some(address) => format!("{}{address}", Transport::Tcp.scheme()),
        None => options.origin.clone(),
    };
    Peer::dial(peer, address, Voice { key, options })
}

/// How a node behaves. `..Options::default()` fills in what is not of interest.
#[derive(Clone, Debug)]
pub struct Options {
    /// The network that server and peers belong to. [`NETWORK_ID`] by default.
    pub network: u32,
    /// The node's own address, as it is named before it has a public one. It is hashed into the id that
    /// the server knows the node by: with another origin the same key has another address. Never
    /// empty; `tcp://0.0.0.0:0` by default.
    pub origin: String,
    /// Whether messages are signed, for a server that has a list of keys. Off by default.
    pub sign: bool,
    /// The pause between keepalives; three of them without a byte from the server, and it is taken
    /// for dead. 15 s by default.
    pub keepalive: Duration,
    /// The most that connecting to one address may take. 5 s by default.
    pub connect_timeout: Duration,
    /// The most that the server may take to give the address, or anybody to take what is sent. 10 s
    /// by default.
    pub io_timeout: Duration,
    /// The largest body of a frame. 16 MiB by default.
    pub max_frame: u32,
    /// Bytes of frames that wait to be received; a frame that is larger than that waits alone.
    /// 8 MiB by default.
    pub queue_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            network: NETWORK_ID,
            origin: "tcp://0.0.0.0:0".to_owned(),
            sign: false,
            keepalive: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            io_timeout: Duration::from_secs(10),
            max_frame: MAX_FRAME,
            queue_bytes: 8 << 20,
        }
    }
}

/// What happens to a node.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The server has given the address.
    Connected {
        /// The address, `IP:PORT`.
        public: &'a str,
        /// Whether it is another one than before, or the first.
        is_new: bool,
    },
    /// The connection has ended.
    Lost {
        /// How.
        why: &'a Error,
        /// How long until the next one is tried.
        pause: Duration,
    },
    /// A connection could not be made, or gave no address.
    Failed {
        /// Why.
        why: &'a Error,
        /// How long until the next one is tried.
        pause: Duration,
    },
}
