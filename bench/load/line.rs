//! A socket that remembers whether it is worth reading or writing, so that the generator makes no
//! call that is known to answer "not now".

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::chain::Seals;

/// One connection of the generator, client's or backend's.
pub struct Line {
    stream: TcpStream,
    readable: bool,
    writable: bool,
    ended: bool,
    seals: Option<Box<Seals>>,
}

impl Line {
    /// Begins to connect. The first write is tried at once: on loopback it mostly succeeds.
    pub fn connect(target: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(target)?;
        stream.set_nodelay(true)?;
        Ok(Self::new(stream))
    }

    /// Wraps an accepted connection.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            readable: false,
            writable: true,
            ended: false,
            seals: None,
        }
    }

    /// From now on what is written is sealed, and what is read was.
    pub fn seal(&mut self, seals: Option<Seals>) {
        self.seals = seals.map(Box::new);
    }

    /// Registers for both directions, edge-triggered, once for good.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.stream, token, both)
    }

    /// Takes note of an event. One that was meant for a closed connection in the same slot does no
    /// harm: the next call answers "not now".
    pub fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed();
        self.writable |= event.is_writable();
        self.ended |= event.is_read_closed();
    }

    /// Reads; `None` is "not now", 0 the end. A read that does not fill the buffer has drained the
    /// socket, unless the end is on its way.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(mut seals) = self.seals.take() else {
            return self.read_bare(buffer);
        };
        let count = self.read_sealed(&mut seals, buffer);
        self.seals = Some(seals);
        count
    }

    /// What waits to be written leaves first: its writer may do nothing but wait for an answer.
    fn read_sealed(&mut self, seals: &mut Seals, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.flush(seals)?;
        let mut block = [0; 16 * 1024];
        loop {
            if let Some(count) = seals.take(buffer) {
                return Ok(Some(count));
            }
            match self.read_bare(&mut block)? {
                None => return Ok(None),
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(count) => seals.feed(block.get(..count).unwrap_or_default())?,
            }
        }
    }

    fn read_bare(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.readable {
            return Ok(None);
        }
        match self.stream.read(buffer) {
            Ok(count) => {
                self.readable = self.ended || count == buffer.len();
                Ok(Some(count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes; `None` is "not now".
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let Some(mut seals) = self.seals.take() else {
            return self.write_by(|stream| stream.write(bytes));
        };
        let taken = match self.flush(&mut seals) {
            Ok(true) => {
                let taken = seals.seal(bytes);
                self.flush(&mut seals).map(|_| Some(taken))
            }
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        self.seals = Some(seals);
        taken
    }

    /// Writes what was sealed; false when some of it has to wait.
    fn flush(&mut self, seals: &mut Seals) -> io::Result<bool> {
        while !seals.pending().is_empty() {
            match self.write_by(|stream| stream.write(seals.pending()))? {
                None => return Ok(false),
                Some(count) => seals.written(count),
            }
        }
        Ok(true)
    }

    /// Writes several pieces in one call; `None` is "not now".
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        self.write_by(|stream| stream.write_vectored(slices))
    }

    fn write_by(
        &mut self,
        write: impl FnOnce(&mut TcpStream) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        if !self.writable {
            return Ok(None);
        }
        match write(&mut self.stream) {
            Ok(count) => Ok(Some(count)),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::NotConnected
                ) =>
            {
                self.writable = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
