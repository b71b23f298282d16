//! Destinations for datagrams, and ports that take none.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::support::DEADLINE;

/// A UDP socket with one habit.
pub struct Datagrams {
    pub address: SocketAddr,
    socket: Arc<UdpSocket>,
    received: Arc<AtomicUsize>,
    /// Everything that came, with whom it came from.
    came: Receiver<(SocketAddr, Vec<u8>)>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Datagrams {
    /// Calls `handle` with every datagram and its sender.
    pub fn serve(
        at: SocketAddr,
        handle: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
    ) -> Self {
        let socket = Arc::new(UdpSocket::bind(at).unwrap());
        // What comes at once must find room though this thread is late; the system cuts the size.
        let room = socket2::SockRef::from(&*socket);
        room.set_recv_buffer_size(1 << 20).unwrap();
        let address = socket.local_addr().unwrap();
        let received = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let (sender, came) = channel();
        let (own, count, stop) = (
            Arc::clone(&socket),
            Arc::clone(&received),
            Arc::clone(&stopping),
        );
        let thread = std::thread::spawn(move || {
            let hand_on = |datagram: &[u8], from| {
                count.fetch_add(1, Ordering::SeqCst);
                note(&sender, datagram, from);
                handle(&own, datagram, from);
            };
            receive(&own, &stop, hand_on);
        });
        Self {
            address,
            socket,
            received,
            came,
            stopping,
            thread: Some(thread),
        }
    }

    /// Sends back what it gets.
    pub fn echo() -> Self {
        Self::echo_at(local())
    }

    pub fn echo_at(at: SocketAddr) -> Self {
        Self::serve(at, |socket, datagram, from| {
            socket.send_to(datagram, from).unwrap();
        })
    }

    /// Never answers by itself.
    pub fn silent() -> Self {
        Self::serve(local(), |_, _, _| {})
    }

    /// How many datagrams came so far.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::SeqCst)
    }

    /// The next datagram and its sender.
    pub fn next(&self) -> (SocketAddr, Vec<u8>) {
        self.came.recv_timeout(DEADLINE).expect("no datagram came")
    }

    /// Sends to one who has sent before.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) {
        self.socket.send_to(datagram, to).unwrap();
    }
}

fn note(sender: &Sender<(SocketAddr, Vec<u8>)>, datagram: &[u8], from: SocketAddr) {
    // Nobody may be there to read it any more.
    let _ = sender.send((from, datagram.to_vec()));
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, mut hand_on: impl FnMut(&[u8], SocketAddr)) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // An ICMP error for something sent before is no datagram.
        let got = socket.recv_from(&mut buffer);
        if stop.load(Ordering::SeqCst) {
            return;
        }
        if let Ok((length, from)) = got {
            hand_on(&buffer[..length], from);
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let waker = UdpSocket::bind((self.address.ip(), 0)).unwrap();
        if waker.send_to(b"", self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// A UDP port that is taken, and where the kernel answers every stranger's datagram with an ICMP
/// error: its socket talks to one other only.
pub struct Unreceptive {
    pub address: SocketAddr,
    _sockets: [UdpSocket; 2],
}

impl Unreceptive {
    pub fn new() -> Self {
        let [socket, other] = [(); 2].map(|()| UdpSocket::bind(local()).unwrap());
        socket.connect(other.local_addr().unwrap()).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            _sockets: [socket, other],
        }
    }
}

/// Any free port on loopback.
pub fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}
