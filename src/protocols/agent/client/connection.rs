//! One connection of a client: dialling, deadlines, replies taken whole.
//!
//! It is not the choice of when to connect again, which is the client's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::super::wire::{self, Answer};
use super::{Error, Options};

/// A stream with what has come and is not read yet.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// Whether the server has taken the token on this connection.
    pub(super) is_authorised: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            is_authorised: false,
        }
    }

    /// The bare stream, without this room's timeouts.
    pub(super) fn into_stream(self) -> Result<TcpStream, Error> {
        let calm = || {
            self.stream.set_read_timeout(None)?;
            self.stream.set_write_timeout(None)
        };
        calm().map_err(Error::Broken)?;
        Ok(self.stream)
    }

    /// Writes all of it.
    pub(super) fn send(&mut self, mut bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
        while !bytes.is_empty() {
            let left = deadline.left()?;
            let sent = self
                .stream
                .set_write_timeout(Some(left))
                .and_then(|()| self.stream.write(bytes));
            match sent {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::from_io(error, 0)),
            }
        }
        Ok(())
    }

    /// Reads until a whole reply to `command` is there, and `read` takes from it what is wanted.
    pub(super) fn receive<T>(
        &mut self,
        options: &Options,
        deadline: Deadline,
        command: &[u8],
        read: &impl Fn(&Answer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut scratch = Vec::new();
        let mut room = [0; 16 * 1024];
        loop {
            let (dialect, most) = (options.dialect, options.max_payload);
            let answer = wire::decode_reply(&self.received, dialect, most, &mut scratch);
            if let Some(answer) = answer.map_err(Error::Malformed)? {
                self.received.drain(..answer.consumed);
                return judge(&answer, command).and_then(|()| read(&answer));
            }
            let count = self.read(&mut room, deadline)?;
            if count == 0 {
                let received = self.received.len();
                return Err(Error::Closed { received });
            }
            self.received.extend(room.iter().take(count));
        }
    }

    /// Takes the two bytes that say that the route stands, and not one of the backend's behind them.
    pub(super) fn wait_for_ok(&mut self, deadline: Deadline) -> Result<(), Error> {
        let mut word = [0; wire::OK.len()];
        let mut filled = 0;
        while let Some(room @ [_, ..]) = word.get_mut(filled..) {
            match self.read(room, deadline) {
                Ok(0) | Err(Error::Closed { .. }) => return Err(Error::NoRoute),
                Ok(count) => filled += count,
                Err(error) => return Err(error),
            }
        }
        if word == *wire::OK {
            return Ok(());
        }
        Err(Error::Unexpected {
            got: String::from_utf8_lossy(&word).into_owned(),
        })
    }

    /// What has come, 0 at the end of the stream.
    fn read(&mut self, room: &mut [u8], deadline: Deadline) -> Result<usize, Error> {
        loop {
            let left = deadline.left()?;
            let got = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(room));
            match got {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::from_io(error, self.received.len())),
            }
        }
    }
}

/// Whether the answer is the one to `command`, and a good one.
fn judge(answer: &Answer<'_>, command: &[u8]) -> Result<(), Error> {
    if answer.command != command {
        return Err(Error::Unexpected {
            got: String::from_utf8_lossy(answer.command).into_owned(),
        });
    }
    if answer.code == 0 {
        return Ok(());
    }
    Err(Error::Refused {
        command: String::from_utf8_lossy(command).into_owned(),
        message: String::from_utf8_lossy(answer.message).into_owned(),
    })
}

/// All addresses of a server, at least one.
pub(super) fn resolve(server: impl ToSocketAddrs) -> Result<Vec<SocketAddr>, Error> {
    let addresses: Vec<_> = server.to_socket_addrs().map_err(Error::Resolve)?.collect();
    if addresses.is_empty() {
        let nothing = io::Error::new(io::ErrorKind::NotFound, "an empty list");
        return Err(Error::Resolve(nothing));
    }
    Ok(addresses)
}

/// A connection to the first address that takes one.
pub(super) fn dial(addresses: &[SocketAddr], options: &Options) -> Result<TcpStream, Error> {
    let mut last = Error::Resolve(io::ErrorKind::NotFound.into());
    for &address in addresses {
        // A timeout of zero is no connection at all, and the system's call refuses it.
        let timeout = options.connect_timeout.max(Duration::from_millis(1));
        let stream = TcpStream::connect_timeout(&address, timeout)
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match stream {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Error::Connect { address, source },
        }
    }
    Err(last)
}

/// When a request is given up; `None` lies beyond the clock's end.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    pub(super) fn after(patience: Duration) -> Self {
        Self(Instant::now().checked_add(patience))
    }

    /// What is left of it, never zero, which would mean "forever" to a socket.
    fn left(self) -> Result<Duration, Error> {
        let Some(end) = self.0 else {
            return Ok(Duration::MAX);
        };
        match end.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(Error::TimedOut),
        }
    }
}
