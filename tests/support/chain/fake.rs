//! A hop of the test's own, so that the real clients can be lied to, and so that somebody who relays
//! can say what it saw.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use super::address;
use super::request::{PROBE, Request, frame_length};
use super::seal::HEAD;
use super::{Hop, Key, Transport, code};
use crate::support::backend::{Backend, echo};
use crate::support::peer::Peer;

/// A listener that reads one request from each connection.
pub struct FakeHop {
    pub hop: Hop,
    /// Only its going matters.
    _backend: Backend,
}

impl FakeHop {
    /// Calls `handle` with each connection, its request, and its number, counted from 0.
    pub fn new(key: Key, handle: impl Fn(Peer, Request, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, key, handle)
    }

    /// The same on a listener that exists already.
    pub fn on(
        listener: TcpListener,
        key: Key,
        handle: impl Fn(Peer, Request, usize) + Send + Sync + 'static,
    ) -> Self {
        let backend = Backend::serve_on(listener, move |mut peer, number| {
            if let Some(request) = read_request(&mut peer, key) {
                handle(peer, request, number);
            }
        });
        let hop = Hop {
            address: backend.address,
            key,
        };
        Self {
            hop,
            _backend: backend,
        }
    }

    /// One that does as it is told, and writes down what it relayed.
    pub fn honest(key: Key) -> (Self, Arc<Witness>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::honest_on(listener, key)
    }

    pub fn honest_on(listener: TcpListener, key: Key) -> (Self, Arc<Witness>) {
        let witness = Arc::new(Witness::default());
        let seen = Arc::clone(&witness);
        let hop = Self::on(listener, key, move |peer, request, _| {
            serve(peer, &request, &seen);
        });
        (hop, witness)
    }
}

/// What an honest hop saw.
#[derive(Default)]
pub struct Witness {
    requests: Mutex<Vec<Request>>,
    up: Mutex<Vec<u8>>,
    down: Mutex<Vec<u8>>,
}

impl Witness {
    /// The requests that were no probes.
    pub fn requests(&self) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        let real = requests.iter().filter(|request| !is_probe(request));
        real.cloned().collect()
    }

    /// How many were probes.
    pub fn probes(&self) -> usize {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| is_probe(request)).count()
    }

    /// Everything that it passed on to the next hop, and back from there.
    pub fn relayed(&self) -> (Vec<u8>, Vec<u8>) {
        let up = self.up.lock().unwrap().clone();
        (up, self.down.lock().unwrap().clone())
    }
}

fn is_probe(request: &Request) -> bool {
    request.flags & PROBE != 0
}

fn serve(mut peer: Peer, request: &Request, seen: &Witness) {
    seen.requests.lock().unwrap().push(request.clone());
    if is_probe(request) {
        peer.try_send(&request.response(code::OK));
        echo(peer);
        return;
    }
    let to = socket_address(&request.address).expect("an address to dial");
    let Ok(stream) = std::net::TcpStream::connect(to) else {
        peer.try_send(&request.response(code::REFUSED));
        return;
    };
    let next = Peer::new(stream);
    peer.try_send(&request.response(code::OK));
    let (from, onward) = (peer.twin(), next.twin());
    std::thread::scope(|scope| {
        scope.spawn(|| pass(from, onward, &seen.up));
        pass(next, peer, &seen.down);
    });
}

fn pass(mut from: Peer, mut to: Peer, record: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(more @ 1..) = from.some(&mut buffer) {
        record.lock().unwrap().extend(&buffer[..more]);
        if !to.try_send(&buffer[..more]) {
            break;
        }
    }
    to.try_finish();
}

/// Reads one request; none when the connection ends before, or when it is under another key.
pub fn read_request(peer: &mut Peer, key: Key) -> Option<Request> {
    let mut frame = vec![0; HEAD];
    fill(peer, &mut frame)?;
    let length = frame_length(&frame);
    frame.resize(length, 0);
    fill(peer, &mut frame[HEAD..])?;
    Request::parse(key, Transport::Tcp, &frame)
}

fn fill(peer: &mut Peer, bytes: &mut [u8]) -> Option<()> {
    let mut have = 0;
    while have < bytes.len() {
        match peer.some(&mut bytes[have..]) {
            Ok(more @ 1..) => have += more,
            _ => return None,
        }
    }
    Some(())
}

/// The address of a request that has an IP address.
pub fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (port, host) = bytes
        .split_last_chunk::<2>()
        .map(|(rest, last)| (last, rest))?;
    let port = u16::from_be_bytes(*port);
    let found: SocketAddr = match host {
        [1, ip @ ..] => (<[u8; 4]>::try_from(ip).ok()?, port).into(),
        [2, ip @ ..] => (<[u8; 16]>::try_from(ip).ok()?, port).into(),
        _ => return None,
    };
    debug_assert_eq!(address::at(found), bytes);
    Some(found)
}
