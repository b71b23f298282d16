//! The real network: non-blocking sockets under one edge-triggered poll for each core.
//!
//! Every socket is registered once, for both directions, when it comes; epoll is never told
//! anything about it again. Options that a listener passes on to what it accepts are set on the
//! listener, so that accepting is one system call.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::{
    Arrival, ConnKey, DATAGRAMS, Datagrams, Departure, Leaving, ListenerKey, Network, Parcel,
    Ready, Sharing, SocketKey, Stream, Watched,
};
use crate::reactor::{Bell, Key};
use crate::sys;

/// What every socket is given.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// How long sent bytes may stay unacknowledged before the connection counts as lost.
    pub user_timeout: Duration,
    /// After how much silence the kernel probes whether the peer is still there.
    pub keepalive: Duration,
}

/// One core's sockets, as its worker makes and watches them.
pub struct Kernel {
    registry: Registry,
    options: SocketOptions,
    reserve: Option<File>,
}

/// One core's poll: what the loop sleeps in.
pub struct Poller {
    poll: Poll,
    events: Events,
}

/// A poll, the sockets under it, and the bell that ends its sleep.
pub fn open(options: SocketOptions) -> io::Result<(Poller, Kernel, Arc<dyn Bell>)> {
    let poll = Poll::new()?;
    let bell = Arc::new(Waker::new(poll.registry(), BELL)?);
    let kernel = Kernel {
        registry: poll.registry().try_clone()?,
        options,
        reserve: Some(sys::reserve_descriptor()?),
    };
    let poller = Poller {
        poll,
        events: Events::with_capacity(EVENTS),
    };
    Ok((poller, kernel, bell))
}

impl Poller {
    /// Sleeps until something is ready or `timeout` has passed (rounded up to a millisecond), and
    /// gives what is ready, at most [`EVENTS`] things. Before it sleeps it looks again and again
    /// for as long as `spin`: that saves the time that falling asleep and waking up take.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        spin: Duration,
    ) -> io::Result<impl Iterator<Item = Ready> + '_> {
        let sleeps = timeout.is_none_or(|timeout| !timeout.is_zero());
        if sleeps && !spin.is_zero() {
            let end = Instant::now() + spin;
            loop {
                self.poll(Some(Duration::ZERO))?;
                if !self.events.is_empty() || Instant::now() >= end {
                    break;
                }
            }
        }
        if spin.is_zero() || !sleeps || self.events.is_empty() {
            self.poll(timeout)?;
        }
        Ok(self.events.iter().filter_map(ready))
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

impl Network for Kernel {
    type Stream = TcpStream;
    type Listener = TcpListener;
    type Socket = KernelSocket;

    fn accept(&mut self, from: &mut TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        from.accept()
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<TcpStream> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }

    fn watch(&mut self, stream: &mut TcpStream, key: ConnKey) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(stream, token(key, CONN), both)
    }

    fn listen(
        &mut self,
        at: SocketAddr,
        sharing: Sharing,
    ) -> io::Result<(TcpListener, SocketAddr)> {
        // The first finds out whether somebody else has the address, with whom it would be shared.
        let at = match sharing {
            Sharing::First => probe(at)?.local_addr()?,
            Sharing::Alone | Sharing::Join => at,
        };
        let listener = self.options.listener(at, sharing != Sharing::Alone)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    fn watch_listener(&mut self, listener: &mut TcpListener, key: ListenerKey) -> io::Result<()> {
        let token = token(key, LISTENER);
        self.registry.register(listener, token, Interest::READABLE)
    }

    fn forget_listener(&mut self, listener: &mut TcpListener) {
        // As for a stream: failing means that it is forgotten already.
        let _ = self.registry.deregister(listener);
    }

    fn copy_listener(&self, listener: &TcpListener) -> io::Result<OwnedFd> {
        listener.as_fd().try_clone_to_owned()
    }

    fn release(&mut self, mut stream: TcpStream) -> Parcel {
        // Failing means that the poll has forgotten it already.
        let _ = self.registry.deregister(&mut stream);
        Parcel::new(stream)
    }

    fn unpack(&mut self, parcel: Parcel) -> Option<TcpStream> {
        parcel.open()
    }

    fn unix_time(&self) -> Duration {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default()
    }

    fn bind(&mut self, at: SocketAddr) -> io::Result<(KernelSocket, SocketAddr)> {
        let socket = KernelSocket::bind(at, false)?;
        let address = socket.address()?;
        Ok((socket, address))
    }

    fn associate(&mut self, to: SocketAddr) -> io::Result<KernelSocket> {
        let socket = datagram_socket(to)?;
        socket.connect(&to.into())?;
        Ok(KernelSocket::new(socket, to))
    }

    fn watch_socket(&mut self, socket: &mut KernelSocket, key: SocketKey) -> io::Result<()> {
        let token = token(key, SOCKET);
        self.registry
            .register(&mut socket.socket, token, Interest::READABLE)
    }

    fn forget_socket(&mut self, socket: &mut KernelSocket) {
        let _ = self.registry.deregister(&mut socket.socket);
    }

    fn copy_socket(&self, socket: &KernelSocket) -> io::Result<OwnedFd> {
        socket.as_fd().try_clone_to_owned()
    }

    fn spend_reserve(&mut self) -> bool {
        self.reserve.take().is_some()
    }

    fn restore_reserve(&mut self) {
        if self.reserve.is_none() {
            self.reserve = sys::reserve_descriptor().ok();
        }
    }

    fn pipe(&mut self, capacity: usize) -> io::Result<KernelPipe> {
        let (reading, writing) = sys::pipe()?;
        // A user whose share of pipe pages is used up is refused the size, and a new pipe may be
        // as small as two pages: then copying is the better way.
        let given = sys::set_pipe_capacity(writing.as_fd(), capacity)?;
        if given < capacity / 2 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(KernelPipe { reading, writing })
    }
}

/// Both ends of a kernel pipe.
pub struct KernelPipe {
    reading: OwnedFd,
    writing: OwnedFd,
}

impl Stream for TcpStream {
    type Pipe = KernelPipe;

    fn read(&mut self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        // One slice goes by `recv`, which costs the kernel less than `readv`.
        match into {
            [one] => io::Read::read(self, one),
            many => self.read_vectored(many),
        }
    }

    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        match from {
            [one] => io::Write::write(self, one),
            many => self.write_vectored(many),
        }
    }

    fn write_last(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
        let socket = SockRef::from(&*self);
        match from {
            [one] => socket.send_with_flags(one, flags),
            many => socket.send_vectored_with_flags(many, flags),
        }
    }

    fn shut(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn local(&self) -> Option<SocketAddr> {
        self.local_addr().ok()
    }

    fn connected(&mut self) -> io::Result<()> {
        match self.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    fn in_flight(&self) -> usize {
        sys::unacknowledged(self.as_fd()).unwrap_or(0)
    }

    fn shallow(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // Failing means that the socket is gone already.
        let _ = SockRef::from(&*self).set_tcp_notsent_lowat(bytes);
    }

    fn abort(&mut self) {
        // Failing means that the socket is gone already.
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }

    fn last(&mut self, options: SocketOptions) {
        // Failing means that the socket is gone already.
        let _ = options.watch_over(&SockRef::from(&*self));
    }

    fn splice_in(&mut self, pipe: &mut KernelPipe, count: usize) -> io::Result<usize> {
        sys::splice(self.as_fd(), pipe.writing.as_fd(), count, false)
    }

    fn splice_out(&mut self, pipe: &mut KernelPipe, count: usize, more: bool) -> io::Result<usize> {
        sys::splice(pipe.reading.as_fd(), self.as_fd(), count, more)
    }

    fn push(&mut self) {
        // Setting the option again sends what is held back, though it is set already. It fails
        // only on a socket that is gone.
        let _ = self.set_nodelay(true);
    }
}

/// A datagram socket of the system's.
pub struct KernelSocket {
    socket: UdpSocket,
    is_v6: bool,
}

impl KernelSocket {
    pub(super) fn new(socket: Socket, at: SocketAddr) -> Self {
        Self {
            socket: UdpSocket::from_std(socket.into()),
            is_v6: at.is_ipv6(),
        }
    }

    /// A socket that is bound to an address. With `shared`, more of them may be.
    fn bind(at: SocketAddr, shared: bool) -> io::Result<Self> {
        let socket = datagram_socket(at)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&at.into())?;
        Ok(Self::new(socket, at))
    }

    /// Where it is bound.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl AsFd for KernelSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Datagrams for KernelSocket {
    fn receive(
        &mut self,
        room: &mut [u8],
        place: usize,
        arrivals: &mut [Arrival; DATAGRAMS],
    ) -> io::Result<usize> {
        sys::receive_datagrams(self.socket.as_fd(), room, place, arrivals)
    }

    fn send(&mut self, leaving: Leaving<'_>) -> io::Result<usize> {
        // An IPv6 socket takes an IPv4 address only in IPv6's clothes.
        let fitting = leaving.map(|one| Departure {
            to: one.to.map(|to| match to {
                SocketAddr::V4(v4) if self.is_v6 => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
                _ => to,
            }),
            ..one
        });
        sys::send_datagrams(self.socket.as_fd(), fitting)
    }
}

/// A datagram socket of that address's family, with all that is asked of one.
fn datagram_socket(at: SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(at), kind, Some(Protocol::UDP))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    prepare_datagrams(&socket)?;
    Ok(socket)
}

/// What every datagram socket is given, whoever has opened it.
pub(super) fn prepare_datagrams(socket: &Socket) -> io::Result<()> {
    // The system does not size these by itself, as it does for streams, and what finds no room in
    // them is lost. It cuts the sizes to what its administrator allows.
    socket.set_recv_buffer_size(DATAGRAM_BUFFER)?;
    socket.set_send_buffer_size(DATAGRAM_BUFFER)?;
    // Without it the datagrams of a train come one by one, which is slower and no less right.
    let _ = sys::join_datagrams(socket.as_fd());
    Ok(())
}

impl SocketOptions {
    fn watch_over(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(self.keepalive))
    }

    /// A listening socket that passes these options on to what it accepts. With `shared`, more of
    /// them may be bound to the same address.
    fn listener(&self, at: SocketAddr, shared: bool) -> io::Result<TcpListener> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(at), kind, Some(Protocol::TCP))?;
        if at.is_ipv6() {
            // `[::]` serves IPv4 as well, and says so whatever the system's default is.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&at.into())?;
        self.take(socket)
    }

    /// Makes a bound socket a listening one with these options. One that listens already gets them,
    /// too; connections that wait at it do not.
    pub(super) fn take(&self, socket: Socket) -> io::Result<TcpListener> {
        socket.set_tcp_nodelay(true)?;
        self.watch_over(&socket)?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from_std(socket.into()))
    }
}

/// A listening socket for one core; every core binds one of its own to the same address, and the
/// system spreads the connections over them.
///
/// Errors are the system's: address in use, permission, no such address.
pub fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<TcpListener> {
    options.listener(address, true)
}

/// A socket bound to `address` alone: it fails where [`bind`] would share the address with another
/// server, and finds out which port 0 becomes.
pub fn probe(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let kind = Type::STREAM.cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of an earlier run that linger are no obstacle; a listening socket is.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)?;
    Ok(socket.into())
}

/// A datagram socket for one core; every core binds one of its own to the same address, and the
/// system gives each sender's datagrams to one and the same of them.
pub fn bind_datagrams(address: SocketAddr) -> io::Result<KernelSocket> {
    KernelSocket::bind(address, true)
}

/// As [`probe`], for datagrams.
pub fn probe_datagrams(address: SocketAddr) -> io::Result<KernelSocket> {
    KernelSocket::bind(address, false)
}

/// Key and kind in one word: generation, then two bits of kind, then the slot.
fn token<M>(key: Key<M>, kind: usize) -> Token {
    Token((key.generation() as usize) << 32 | kind << INDEX_BITS | key.index() as usize)
}

fn ready(event: &Event) -> Option<Ready> {
    let Token(token) = event.token();
    let whom = if event.token() == BELL {
        Watched::Bell
    } else {
        let index = token as u32 & ((1 << INDEX_BITS) - 1);
        let generation = (token >> 32) as u32;
        match token >> INDEX_BITS & 3 {
            LISTENER => Watched::Listener(Key::from_parts(index, generation)?),
            SOCKET => Watched::Socket(Key::from_parts(index, generation)?),
            _ => Watched::Conn(Key::from_parts(index, generation)?),
        }
    };
    let read_closed = event.is_read_closed();
    Some(Ready {
        whom,
        readable: event.is_readable() || read_closed || event.is_error(),
        writable: event.is_writable() || event.is_error(),
        read_closed: read_closed || event.is_error(),
        hung_up: event.is_error() || (read_closed && event.is_write_closed()),
    })
}

const CONN: usize = 0;
const LISTENER: usize = 1;
const SOCKET: usize = 2;

/// No table of a worker has more slots than these bits can tell.
const INDEX_BITS: u32 = 30;

/// Generation 0 is no key's, so no key's token equals this one.
const BELL: Token = Token(0);

/// The most events of one poll: a turn stays short, and the rest waits for the next.
const EVENTS: usize = 512;

/// Connections that may wait for their accept; the system cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What the system may keep of a socket's datagrams, each way.
const DATAGRAM_BUFFER: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: SocketOptions = SocketOptions {
        user_timeout: Duration::from_secs(60),
        keepalive: Duration::from_secs(60),
    };

    #[test]
    fn tokens_keep_key_and_kind_apart() {
        let key = Key::<()>::from_parts(7, u32::MAX).unwrap();
        let [conn, listener, socket] = [CONN, LISTENER, SOCKET].map(|kind| token(key, kind));
        assert!(conn != listener && listener != socket && socket != conn);
        assert_eq!((conn.0 as u32, conn.0 >> 32), (7, u32::MAX as usize));
    }

    #[test]
    fn a_refused_connect_is_reported_as_such() {
        // Bound, so that nobody else listens there.
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        bound.bind(&any.into()).unwrap();
        let nobody = bound.local_addr().unwrap().as_socket().unwrap();
        let (mut poller, mut kernel, _bell) = open(OPTIONS).unwrap();
        let mut stream = kernel.dial(nobody).unwrap();
        let key = Key::from_parts(3, 5).unwrap();
        kernel.watch(&mut stream, key).unwrap();
        let mut wait = || {
            let time = Some(Duration::from_secs(10));
            poller.wait(time, Duration::ZERO).unwrap().next()
        };
        // A sleep may be interrupted once.
        let ready = wait().or_else(wait).unwrap();
        assert_eq!(ready.whom, Watched::Conn(key));
        assert!(ready.writable && ready.hung_up);
        let refused = stream.connected().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn the_bell_ends_a_sleep() {
        let (mut poller, _kernel, bell) = open(OPTIONS).unwrap();
        // A bell that is dropped is silent, so this thread keeps it, as a mailbox does.
        let rung = Arc::clone(&bell);
        let ringer = std::thread::spawn(move || rung.ring());
        let got: Vec<_> = poller.wait(None, Duration::ZERO).unwrap().collect();
        ringer.join().unwrap();
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].whom, Watched::Bell);
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), OPTIONS).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Its last word of the handshake may still be on its way.
        let start = Instant::now();
        let (stream, _) = loop {
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(start.elapsed() < Duration::from_secs(20), "nobody comes");
                    std::thread::yield_now();
                }
                accepted => break accepted.unwrap(),
            }
        };
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        let timeout = socket.tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(OPTIONS.user_timeout));
    }
}
