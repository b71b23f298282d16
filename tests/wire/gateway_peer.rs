//! A gateway of a few lines, which plays one connection by a script.
//!
//! It speaks by the codec; the codec is held against recorded bytes elsewhere. Its thread is joined, so
//! that a script not played to its end fails the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use towpath::protocols::gateway::wire::{self, Command, Dialect, HEAD, Head};

/// How long anything may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `script` on a thread for the one connection to a port of its own.
pub fn serve(script: impl FnOnce(Peer) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let play = move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        script(Peer { stream });
    };
    (address, thread::spawn(play))
}

/// The gateway's end of one connection.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    /// Lets a server prove itself, and returns its id.
    pub fn admit(&mut self, key: &[u8]) -> u32 {
        let challenge = *b"12345678";
        self.write(&challenge);
        let answer = self.read().unwrap();
        wire::verify(&challenge, key, &answer).unwrap()
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn tell(&mut self, dialect: Dialect, command: Command) {
        self.write(dialect.frame(command).as_ref());
    }

    pub fn message(&mut self, conn: u32, message: &[u8]) {
        let head = Head::new(conn, message.len()).unwrap();
        self.write(&[&head.encode(), message].concat());
    }

    /// Waits for a command; anything else fails.
    pub fn expect(&mut self, dialect: Dialect, want: Command) {
        let (conn, payload) = self.frame().unwrap();
        assert_eq!(conn, 0, "a message in place of {want:?}: {payload:?}");
        assert_eq!(dialect.decode(&payload), Ok(want));
    }

    /// Waits for a message; anything else fails.
    pub fn expect_message(&mut self, conn: u32, want: &[u8]) {
        let (from, payload) = self.frame().unwrap();
        assert_eq!(
            (from, payload.escape_ascii().to_string()),
            (conn, want.escape_ascii().to_string())
        );
    }

    /// Asserts that nothing more comes before the endpoint leaves.
    pub fn expect_end(&mut self) {
        assert_eq!(self.frame(), None);
    }

    /// One frame's id and payload, none at the end.
    pub fn frame(&mut self) -> Option<(u32, Vec<u8>)> {
        let head = self.read::<HEAD>()?;
        let head = Head::decode(&head, u32::MAX).unwrap();
        let mut payload = vec![0; head.payload_len()];
        self.stream.read_exact(&mut payload).unwrap();
        Some((head.conn, payload))
    }

    /// So many bytes; none at the end.
    pub fn read<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        if self.stream.read(&mut bytes[..1]).unwrap() == 0 {
            return None;
        }
        self.stream.read_exact(&mut bytes[1..]).unwrap();
        Some(bytes)
    }
}
