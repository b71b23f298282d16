//! What stands behind a route: small servers with one habit each.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::peer::Peer;

/// A listener whose every connection is handled by a thread of its own.
pub struct Backend {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Backend {
    /// Calls `handle` with each connection and its number, counted from 0.
    pub fn serve(handle: impl Fn(Peer, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self::serve_on(listener, handle)
    }

    /// The same on a listener that exists already.
    pub fn serve_on(
        listener: TcpListener,
        handle: impl Fn(Peer, usize) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let (count, stop) = (Arc::clone(&accepted), Arc::clone(&stopping));
        let handle = Arc::new(handle);
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::SeqCst);
                let handle = Arc::clone(&handle);
                let peer = Peer::new(stream.unwrap());
                std::thread::spawn(move || handle(peer, number));
            }
        });
        Self {
            address,
            accepted,
            stopping,
            acceptor: Some(acceptor),
        }
    }

    /// Sends back what it gets, and FIN after FIN.
    pub fn echo() -> Self {
        Self::serve(|peer, _| echo(peer))
    }

    /// Speaks first, then echoes.
    pub fn banner(line: &'static str) -> Self {
        Self::serve(move |mut peer, _| {
            peer.try_send(line.as_bytes());
            echo(peer);
        })
    }

    /// Reads and never answers.
    pub fn silent() -> Self {
        Self::serve(|mut peer, _| while matches!(peer.some(&mut [0; 4096]), Ok(1..)) {})
    }

    /// Closes every connection as soon as it is there.
    pub fn closes() -> Self {
        Self::serve(|_, _| {})
    }

    /// How many connections came so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // The acceptor sleeps in accept until somebody comes.
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
    }
}

/// Sends back what comes until the other side ends.
pub fn echo(mut peer: Peer) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(more @ 1..) = peer.some(&mut buffer) {
        if !peer.try_send(&buffer[..more]) {
            return;
        }
    }
    peer.try_finish();
}

/// A port that is taken but refuses connections, until it opens.
pub struct Refusing {
    socket: Socket,
    pub address: SocketAddr,
}

impl Refusing {
    pub fn new() -> Self {
        let socket = bound();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { socket, address }
    }

    /// From now on the port accepts.
    pub fn open(self) -> TcpListener {
        self.socket.listen(128).unwrap();
        self.socket.into()
    }
}

/// A port whose queue of new connections is full: the kernel drops every further SYN, so that a
/// connect to it hangs like one into a black hole.
pub struct BlackHole {
    pub address: SocketAddr,
    listener: Socket,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    pub fn new() -> Self {
        let listener = bound();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        let patience = Duration::from_millis(250);
        while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
            queued.push(stream);
            assert!(queued.len() < 16, "the queue never fills");
        }
        Self {
            address,
            listener,
            _queued: queued,
        }
    }

    /// From now on the port accepts: those first that fill the queue, and are gone, then those whose
    /// next SYN finds room.
    pub fn open(self) -> TcpListener {
        self.listener.listen(128).unwrap();
        self.listener.into()
    }
}

fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    socket
}
