//! One TCP connection with a deadline on every read and write, on either side of the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::frame::{Dialect, Reply, masked};
use super::{DEADLINE, kernel, until};

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Fin,
    Reset,
}

/// A connection of the test's own.
pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    pub fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect_timeout(&address, DEADLINE).unwrap())
    }

    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { stream }
    }

    /// A second handle on the same connection, for reading and writing at once.
    pub fn twin(&self) -> Self {
        Self {
            stream: self.stream.try_clone().unwrap(),
        }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Sends to somebody who may have closed already; false when the bytes did not go.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Ends our direction, keeps the other.
    pub fn finish(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Ends our direction of a connection that may be gone already.
    pub fn try_finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with RST instead of FIN.
    pub fn reset(self) {
        let lingering = socket2::SockRef::from(&self.stream);
        lingering.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads exactly `count` bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut have = 0;
        while have < count {
            match self.stream.read(&mut bytes[have..]) {
                Ok(0) => panic!("ended after {have} of {count}: {:02x?}", &bytes[..have]),
                Ok(more) => have += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error} after {have} of {count}: {:02x?}", &bytes[..have]),
            }
        }
        bytes
    }

    /// Reads exactly `expected`.
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) -> &mut Self {
        let expected = expected.as_ref();
        let got = self.take(expected.len());
        assert_eq!(text(&got), text(expected));
        self
    }

    /// Reads some bytes, at most what fits; none at the end.
    pub fn some(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Reads everything up to the end, and how it ended.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.some(&mut buffer) {
                Ok(0) => return (bytes, End::Fin),
                Ok(more) => bytes.extend_from_slice(&buffer[..more]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return (bytes, End::Reset);
                }
                Err(error) => panic!("{error} after {}", text(&bytes)),
            }
        }
    }

    /// Nothing more comes and the other side ends with FIN.
    pub fn expect_end(&mut self) -> &mut Self {
        let (bytes, end) = self.rest();
        assert_eq!((text(&bytes).as_str(), end), ("", End::Fin));
        self
    }

    /// The connection is closed without a byte; FIN or RST, as unread bytes decide in the kernel.
    pub fn expect_closed(&mut self) -> End {
        let (bytes, end) = self.rest();
        assert_eq!(text(&bytes), "", "closed, but not without bytes");
        end
    }

    /// The other side's RST arrives.
    pub fn expect_reset(&mut self) {
        assert_eq!(self.rest().1, End::Reset);
    }

    /// Reads one frame and returns its op and its payload, checked and unmasked.
    pub fn frame(&mut self, dialect: Dialect) -> (u8, Vec<u8>) {
        let header = self.take(dialect.header());
        assert_eq!(header[..2], [0x68, 0x66], "{header:02x?}");
        assert_eq!(header[3], 1, "version of {header:02x?}");
        let mut length = [0; 8];
        length[..dialect.width()].copy_from_slice(&header[9..]);
        let length = usize::try_from(u64::from_le_bytes(length)).unwrap();
        assert!(length <= super::frame::MOST, "{header:02x?}");
        let mask = header[5..9].try_into().unwrap();
        let payload = masked(&self.take(length), mask);
        let sum = payload.iter().fold(0, |sum, byte| sum ^ byte);
        assert_eq!(sum, header[2], "checksum of {payload:02x?}");
        (header[4], payload)
    }

    /// Reads one reply of the agent service.
    pub fn reply(&mut self, dialect: Dialect) -> Reply {
        let (op, payload) = self.frame(dialect);
        assert_eq!(op, super::frame::AGENT);
        Reply::read(dialect, &payload)
    }

    /// Sends one request and reads its reply.
    pub fn ask(&mut self, dialect: Dialect, request: &[u8]) -> Reply {
        self.send(request).reply(dialect)
    }

    /// Waits until the server has taken every byte that we sent (or closed the connection), so
    /// that what is sent next arrives as a segment of its own.
    pub fn settle(&self) {
        let Ok(server) = self.stream.peer_addr() else {
            return;
        };
        let mine = self.local();
        until("the server reads what was sent", || {
            !kernel::has_unread(server, mine)
        });
    }
}

/// Bytes as an assertion should print them.
pub fn text(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(400)];
    let dots = if shown.len() < bytes.len() { "..." } else { "" };
    format!("{}{dots}", shown.escape_ascii())
}
