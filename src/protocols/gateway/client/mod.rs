//! A blocking client of the gateway role: virtual connections through a towpath server, or through
//! any other gateway that speaks one of its dialects.
//!
//! It is for programs and commands, on threads of their own; nothing in the server calls it, because
//! nearly every call here waits for the network. Programs with a runtime of their own use the codec in
//! [`wire`].
//!
//! A server registers under an id and accepts:
//!
//! ```no_run
//! use std::thread;
//!
//! use towpath::gateway::{Connection, Error, Options, Server};
//!
//! fn main() -> Result<(), Error> {
//!     let server = Server::connect("127.0.0.1:7501", 7, b"key", Options::default())?;
//!     loop {
//!         let connection = server.accept()?;
//!         println!("client {} is here", connection.remote());
//!         thread::spawn(move || echo(&connection));
//!     }
//! }
//!
//! fn echo(connection: &Connection) -> Result<(), Error> {
//!     while let Some(message) = connection.receive()? {
//!         connection.send(&message)?;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A client dials that id:
//!
//! ```no_run
//! use towpath::gateway::{Client, Error, Options};
//!
//! fn main() -> Result<(), Error> {
//!     let client = Client::connect("127.0.0.1:7500", Options::default())?;
//!     let connection = client.dial(7)?;
//!     connection.send(b"hello")?;
//!     assert_eq!(connection.receive()?.as_deref(), Some(&b"hello"[..]));
//!     connection.close();
//!     client.close();
//!     Ok(())
//! }
//! ```
//!
//! # Threads
//!
//! [`Client`], [`Server`] and [`Connection`] are `Send` and `Sync`, and all their calls take `&self`.
//! Any number of threads may dial, accept, send and receive at once, also on one connection: a message
//! is sent whole, and received by one of those who wait. Messages of one sending thread keep their
//! order. Clients and servers can be cloned; a clone is another handle of the same TCP connection.
//!
//! Each TCP connection has two threads of its own. One reads; one writes what no caller does, such as
//! pings. They end when the last handle and the last virtual connection of it are dropped, or by
//! `close`.
//!
//! # Back-pressure
//!
//! What has come for a virtual connection and is not received yet waits in a queue of
//! [`Options::queue`] bytes. When one queue is full, nothing more is read from the gateway until
//! there is room, for this connection or any other: nothing is ever dropped, and the gateway slows
//! the senders. So a program receives on every connection that it holds, or closes it; it does not
//! wait in `dial` on the only thread that receives.
//!
//! # Ends
//!
//! Each end says Close once, of its own accord or as the answer to the other's. What came before the
//! other's Close can still be received. Dropping a [`Connection`] closes it.

mod channel;
mod connection;
mod dials;
mod error;
mod keeper;
mod link;
mod options;
mod reader;
mod table;

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::connection::Connection;
use self::error::End;
pub use self::error::Error;
use self::link::{Link, at_least_a_moment};
pub use self::options::Options;
use super::wire;
pub use super::wire::Dialect;

/// A client's TCP connection to a gateway.
#[derive(Clone)]
pub struct Client(Arc<Handle>);

impl Client {
    /// Connects to the gateway's port for clients, at the first of its addresses that takes it.
    pub fn connect(gateway: impl ToSocketAddrs, options: Options) -> Result<Self, Error> {
        let stream = open(gateway, &options)?;
        Handle::start(stream, Side::Client, options).map(Self)
    }

    /// Opens a virtual connection to a server by its id.
    pub fn dial(&self, server: u32) -> Result<Connection, Error> {
        self.0.dial(server)
    }

    /// Waits for a server to dial this client.
    pub fn accept(&self) -> Result<Connection, Error> {
        self.0.accept(None)
    }

    /// As [`Client::accept`], or [`Error::TimedOut`] when none has dialled by then.
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Connection, Error> {
        self.0.accept(Some(timeout))
    }

    /// The address of this side of the TCP connection.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.link.stream.local_addr()
    }

    /// Closes the TCP connection and all that runs on it, and returns when the gateway has closed it
    /// too, or has had a moment for it. All other calls, and those that wait, fail.
    pub fn close(&self) {
        self.0.close();
    }
}

/// A server's TCP connection to a gateway.
#[derive(Clone)]
pub struct Server(Arc<Handle>);

impl Server {
    /// Connects to the gateway's port for servers and registers under `id`.
    ///
    /// The gateway does not say whether it takes the key. If not, it closes the connection, and the
    /// first call that waits fails with [`Error::Rejected`].
    pub fn connect(
        gateway: impl ToSocketAddrs,
        id: u32,
        key: &[u8],
        options: Options,
    ) -> Result<Self, Error> {
        let mut stream = open(gateway, &options)?;
        prove(&mut stream, id, key, &options)?;
        Handle::start(stream, Side::Server, options).map(Self)
    }

    /// Opens a virtual connection to a client by its id, as [`Connection::remote`] of an earlier one
    /// told it.
    pub fn dial(&self, client: u32) -> Result<Connection, Error> {
        self.0.dial(client)
    }

    /// Waits for a client to dial this server.
    pub fn accept(&self) -> Result<Connection, Error> {
        self.0.accept(None)
    }

    /// As [`Server::accept`], or [`Error::TimedOut`] when none has dialled by then.
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Connection, Error> {
        self.0.accept(Some(timeout))
    }

    /// The address of this side of the TCP connection.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.link.stream.local_addr()
    }

    /// As [`Client::close`].
    pub fn close(&self) {
        self.0.close();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.link.stream).finish()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.0.link.stream).finish()
    }
}

/// Which kind of endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// It came to the port for clients, and the gateway gave it its id.
    Client,
    /// It came to the port for servers, and proved that it knows the key.
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// What the program holds of a link, in each of its handles. The link's threads hold only the link,
/// so that the last handle's end is the link's.
struct Handle {
    link: Arc<Link>,
}

impl Handle {
    fn start(stream: TcpStream, side: Side, options: Options) -> Result<Arc<Self>, Error> {
        let link = Link::start(stream, side, options)?;
        Ok(Arc::new(Self { link }))
    }

    fn dial(self: &Arc<Self>, remote: u32) -> Result<Connection, Error> {
        let offer = self.link.dial(remote)?;
        Ok(Connection::new(Arc::clone(self), offer))
    }

    fn accept(self: &Arc<Self>, timeout: Option<Duration>) -> Result<Connection, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let offer = self.link.accept(deadline)?;
        Ok(Connection::new(Arc::clone(self), offer))
    }

    fn close(&self) {
        self.link.finish(End::Left);
        self.link.wait_until_left();
    }
}

/// Does not wait: the link's threads say goodbye by themselves.
impl Drop for Handle {
    fn drop(&mut self) {
        self.link.finish(End::Left);
    }
}

/// A TCP connection to the first address that takes one.
fn open(gateway: impl ToSocketAddrs, options: &Options) -> Result<TcpStream, Error> {
    let addresses = gateway.to_socket_addrs().map_err(Error::Resolve)?;
    let mut last = Error::Resolve(std::io::Error::new(
        std::io::ErrorKind::NotFound,
        "an empty list",
    ));
    for address in addresses {
        let timeout = at_least_a_moment(options.connect_timeout);
        let stream = TcpStream::connect_timeout(&address, timeout)
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match stream {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Error::Connect { address, source },
        }
    }
    Err(last)
}

/// A server's half of the handshake.
fn prove(stream: &mut TcpStream, id: u32, key: &[u8], options: &Options) -> Result<(), Error> {
    let broken = |source| Error::Broken(Arc::new(source));
    let timeout = Some(at_least_a_moment(options.connect_timeout));
    stream.set_read_timeout(timeout).map_err(broken)?;
    stream.set_write_timeout(timeout).map_err(broken)?;
    let mut challenge = [0; wire::CHALLENGE];
    stream
        .read_exact(&mut challenge)
        .map_err(|_| Error::NoChallenge)?;
    let answer = wire::answer(&challenge, key, id);
    stream.write_all(&answer).map_err(broken)
}
