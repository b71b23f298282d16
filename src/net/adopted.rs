//! Sockets that somebody else has opened for us: a service manager, or this server in an earlier
//! life. They are looked at before they are taken, and get the options that our own have.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use mio::net::TcpListener;
use socket2::{SockRef, Socket, Type};

use super::kernel::{KernelSocket, SocketOptions, prepare_datagrams};

/// What a descriptor from outside is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoptable {
    /// A listening socket for connections, bound here.
    Listener(SocketAddr),
    /// A socket for datagrams from anybody, bound here.
    Datagrams(SocketAddr),
    /// Something else, which nobody here has a use for.
    Neither,
}

/// Looks at a descriptor, which stays as it is.
pub fn inspect(descriptor: BorrowedFd<'_>) -> Adoptable {
    let socket = SockRef::from(&descriptor);
    let bound = socket.local_addr().ok().and_then(|at| at.as_socket());
    match (bound, socket.r#type().ok()) {
        (Some(at), Some(Type::STREAM)) if socket.is_listener().unwrap_or(false) => {
            Adoptable::Listener(at)
        }
        // A connected one hears its one peer only.
        (Some(at), Some(Type::DGRAM)) if at.port() != 0 && socket.peer_addr().is_err() => {
            Adoptable::Datagrams(at)
        }
        _ => Adoptable::Neither,
    }
}

/// Takes a listening socket; what it accepts has the options that it would have had from one of our
/// own.
pub fn adopt(descriptor: OwnedFd, options: SocketOptions) -> io::Result<TcpListener> {
    let socket = Socket::from(descriptor);
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    options.take(socket)
}

/// Takes a datagram socket.
pub fn adopt_datagrams(descriptor: OwnedFd) -> io::Result<KernelSocket> {
    let socket = Socket::from(descriptor);
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    prepare_datagrams(&socket)?;
    let unbound = || io::Error::other("it is bound to no IP address");
    let at = socket.local_addr()?.as_socket().ok_or_else(unbound)?;
    Ok(KernelSocket::new(socket, at))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;

    const OPTIONS: SocketOptions = SocketOptions {
        user_timeout: Duration::from_secs(60),
        keepalive: Duration::from_secs(60),
    };

    #[test]
    fn what_has_no_use_is_told_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        assert_eq!(inspect(listener.as_fd()), Adoptable::Listener(at));
        let stream = TcpStream::connect(at).unwrap();
        assert_eq!(inspect(stream.as_fd()), Adoptable::Neither);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        assert_eq!(inspect(socket.as_fd()), Adoptable::Datagrams(at));
        socket.connect(at).unwrap();
        assert_eq!(inspect(socket.as_fd()), Adoptable::Neither);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(inspect(file.as_fd()), Adoptable::Neither);
    }

    #[test]
    fn a_listener_from_outside_gets_what_ours_have() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let adopted = adopt(listener.into(), OPTIONS).unwrap();
        let none = adopted.accept().err().unwrap();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        let _client = TcpStream::connect(at).unwrap();
        // Its last word of the handshake may still be on its way.
        let start = Instant::now();
        let (stream, _) = loop {
            match adopted.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(start.elapsed() < Duration::from_secs(20), "nobody comes");
                    std::thread::yield_now();
                }
                accepted => break accepted.unwrap(),
            }
        };
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        let timeout = socket.tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(OPTIONS.user_timeout));
    }

    #[test]
    fn a_datagram_socket_from_outside_does_not_block() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let adopted = adopt_datagrams(socket.into()).unwrap();
        assert_eq!(adopted.address().unwrap(), at);
    }
}
