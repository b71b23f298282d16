//! Sockets: what a worker does to the outside, behind two traits.
//!
//! [`Network`] and [`Stream`] are everything that the engine asks of an operating system.
//! [`Kernel`] answers with real sockets; the simulation answers with scripted ones, so that it
//! runs the very engine that ships. No protocol word occurs here.

mod adopted;
mod conn;
mod door;
mod kernel;
mod listener;
mod load;
mod pace;
mod quota;
mod udp;

use std::any::Any;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

pub use adopted::{Adoptable, adopt, adopt_datagrams, inspect};
pub use conn::{Care, Conn, ConnKey, ConnMark, Knock, LinkKey, LinkMark, Waiter};
pub use door::{Door, Doors};
pub use kernel::{
    Kernel, KernelPipe, KernelSocket, Poller, SocketOptions, bind, bind_datagrams, open, probe,
    probe_datagrams,
};
pub use listener::{Entry, FIRST_REST, Listener, ListenerKey, ListenerMark};
pub use load::{Level, Load, Usage};
pub use pace::{Bucket, Pace, Sources, Throttle};
pub use quota::{Place, Quota};
pub use udp::{
    Batch, Flushed, Home, Leaving, Line, Outgoing, PLACE, Socket, SocketKey, SocketMark, Train,
};

pub use crate::sys::{Arrival, DATAGRAMS, Departure};

/// One connected (or connecting) stream socket. Nothing here blocks.
pub trait Stream {
    /// What bulk bytes pass through without being copied to user space.
    type Pipe;

    /// One vectored read. `Ok(0)` is the end of the stream.
    fn read(&mut self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// One vectored write; may take less than offered.
    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize>;

    /// The same for bytes behind which [`Stream::shut`] follows at once: they may wait for it, to leave
    /// with it in one packet.
    fn write_last(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(from)
    }

    /// Tells the peer that no more bytes will come (FIN).
    fn shut(&mut self) -> io::Result<()>;

    /// The address here that the peer came to, where that can be told.
    fn local(&self) -> Option<SocketAddr>;

    /// How a connect ended: `Ok` when the stream is connected.
    fn connected(&mut self) -> io::Result<()>;

    /// Who the peer is; `None` where that cannot be told.
    fn peer(&self) -> Option<SocketAddr> {
        None
    }

    /// How many bytes written here the peer has not acknowledged; 0 where that cannot be told.
    fn in_flight(&self) -> usize;

    /// Keeps the system's own queue of bytes that are not sent yet to about so many.
    fn shallow(&mut self, bytes: usize);

    /// Makes the coming close a reset instead of a FIN.
    fn abort(&mut self);

    /// Has the system watch over a connection that lasts: a vanished peer is noticed. Connections
    /// that were accepted have this from their listener.
    fn last(&mut self, options: SocketOptions);

    /// Moves up to `count` bytes from the socket into the pipe. `Ok(0)` is the end of the stream;
    /// `WouldBlock` means no bytes, or no room in a pipe that is not empty.
    fn splice_in(&mut self, pipe: &mut Self::Pipe, count: usize) -> io::Result<usize>;

    /// Moves up to `count` bytes from the pipe to the socket. With `more`, a last segment that is
    /// not full may wait for the bytes that follow, or for [`Stream::push`].
    fn splice_out(&mut self, pipe: &mut Self::Pipe, count: usize, more: bool) -> io::Result<usize>;

    /// Sends what an earlier `more` has held back.
    fn push(&mut self);
}

/// One datagram socket. Nothing here blocks.
pub trait Datagrams {
    /// Takes what waits, one datagram or train into each `place` bytes of `room`; how many. Fewer
    /// than [`DATAGRAMS`] means that no more waited. An error comes alone, and takes nothing away.
    fn receive(
        &mut self,
        room: &mut [u8],
        place: usize,
        arrivals: &mut [Arrival; DATAGRAMS],
    ) -> io::Result<usize>;

    /// Sends in order, [`DATAGRAMS`] at most; how many the system took. An error concerns the first
    /// of them or, on a connected socket, an earlier one that could not be delivered.
    fn send(&mut self, leaving: Leaving<'_>) -> io::Result<usize>;
}

/// Where sockets come from.
pub trait Network {
    /// Its stream sockets.
    type Stream: Stream;
    /// Its listening sockets.
    type Listener;
    /// Its datagram sockets.
    type Socket: Datagrams;

    /// Takes one waiting connection.
    fn accept(&mut self, from: &mut Self::Listener) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Begins to connect. The outcome comes as writability of the stream, then
    /// [`Stream::connected`] tells it.
    fn dial(&mut self, to: SocketAddr) -> io::Result<Self::Stream>;

    /// Has the readiness of a stream reported, both ways, once per change.
    fn watch(&mut self, stream: &mut Self::Stream, key: ConnKey) -> io::Result<()>;

    /// Opens a listening socket; tells where, as port 0 becomes a free one.
    fn listen(
        &mut self,
        at: SocketAddr,
        sharing: Sharing,
    ) -> io::Result<(Self::Listener, SocketAddr)>;

    /// Has waiting connections reported, once per change.
    fn watch_listener(&mut self, listener: &mut Self::Listener, key: ListenerKey)
    -> io::Result<()>;

    /// Ends the watch over a listener that is about to be closed, and of which others may have a copy.
    fn forget_listener(&mut self, listener: &mut Self::Listener) {
        let _ = listener;
    }

    /// A second descriptor of a listener. An error where there is no such thing.
    fn copy_listener(&self, listener: &Self::Listener) -> io::Result<OwnedFd> {
        let _ = listener;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Ends the watch over a stream that goes to another core.
    fn release(&mut self, stream: Self::Stream) -> Parcel;

    /// Takes a stream that another core has released; it is to be watched anew. `None` when it is
    /// not of this kind of network.
    fn unpack(&mut self, parcel: Parcel) -> Option<Self::Stream>;

    /// The time by the wall clock, since the Unix epoch.
    fn unix_time(&self) -> Duration;

    /// Opens a datagram socket for this core alone; tells where, as port 0 becomes a free one.
    fn bind(&mut self, at: SocketAddr) -> io::Result<(Self::Socket, SocketAddr)>;

    /// Opens a datagram socket that speaks with one address only.
    fn associate(&mut self, to: SocketAddr) -> io::Result<Self::Socket>;

    /// Has datagrams that come, and the errors of those sent, reported once per change.
    fn watch_socket(&mut self, socket: &mut Self::Socket, key: SocketKey) -> io::Result<()>;

    /// As [`Network::forget_listener`].
    fn forget_socket(&mut self, socket: &mut Self::Socket) {
        let _ = socket;
    }

    /// As [`Network::copy_listener`].
    fn copy_socket(&self, socket: &Self::Socket) -> io::Result<OwnedFd> {
        let _ = socket;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes room for one more descriptor by closing the one in reserve; true if there was one.
    fn spend_reserve(&mut self) -> bool;

    /// Takes a descriptor into reserve again, if one can be had.
    fn restore_reserve(&mut self);

    /// A pipe for at least half of `capacity` bytes; an error when the system gives less.
    fn pipe(&mut self, capacity: usize) -> io::Result<<Self::Stream as Stream>::Pipe>;
}

/// Who else listens on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody.
    Alone,
    /// Nobody yet; other cores of this server may join.
    First,
    /// Another core of this server does.
    Join,
}

/// A stream on its way from one core to another; dropping it closes the stream.
pub struct Parcel(Box<dyn Any + Send>);

impl Parcel {
    /// Wraps what a network makes of its stream.
    pub fn new<T: Any + Send>(stream: T) -> Self {
        Self(Box::new(stream))
    }

    /// What was wrapped; `None` when it is of another type.
    pub fn open<T: Any>(self) -> Option<T> {
        self.0.downcast().ok().map(|stream| *stream)
    }
}

/// Something that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Whose readiness it is.
    pub whom: Watched,
    /// Bytes, the end of the stream, an error, or a connection to accept may be had.
    pub readable: bool,
    /// Bytes may be written, or a connect has ended.
    pub writable: bool,
    /// The peer has closed its writing side, or the whole connection.
    pub read_closed: bool,
    /// Both sides are closed, by an error or a reset.
    pub hung_up: bool,
}

/// What a worker's poll watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A stream.
    Conn(ConnKey),
    /// A listener.
    Listener(ListenerKey),
    /// A datagram socket.
    Socket(SocketKey),
    /// The mailbox's bell.
    Bell,
}
