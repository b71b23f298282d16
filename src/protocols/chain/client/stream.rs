//! A stream through a chain, in the clear or sealed end to end.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::wire::{MAX_RECORD, Opened, Opener, Sealer, Side, record_len, records};
use super::dial::after;
use super::plan::Plan;
use super::responses::{self, open};
use super::{Error, Hop, Options, Reason};

/// A connection to the destination, as if there were no hops between.
///
/// Its two directions end one by one, as those of a TCP stream do: [`Stream::finish`] ends what is
/// written, and a read of no bytes is the other side's end. [`Stream::split`] gives them to two threads.
#[derive(Debug)]
pub struct Stream {
    reading: ReadHalf,
    writing: WriteHalf,
}

impl Stream {
    /// Connects to `destination`, `HOST:PORT`, through the hops in their order; without hops, directly. On
    /// return every hop has said that it is connected. The destination's name is looked up by the last
    /// hop.
    pub fn connect(destination: &str, hops: &[Hop], options: &Options) -> Result<Self, Error> {
        Self::connect_with(destination, hops, options, &[])
    }

    /// As [`Stream::connect`], and writes `first`: with [`Options::early`] in one write with the headers,
    /// before any hop has answered; else when the chain is there.
    pub fn connect_with(
        destination: &str,
        hops: &[Hop],
        options: &Options,
        first: &[u8],
    ) -> Result<Self, Error> {
        let plan = Plan::new(Some(destination), hops, options)?;
        let deadline = after(Instant::now(), options.handshake_timeout);
        let is_early = options.early && options.payload_key.is_none();
        let (early, late) = match is_early {
            true => (first, &[][..]),
            false => (&[][..], first),
        };
        let opened = open(&plan, options, early, deadline, &mut ())?;
        let mut stream = Self::of(opened, &plan);
        let written = stream.write_all(late).and_then(|()| stream.flush());
        written.map_err(|error| Error::of_chain(Reason::Broken(error)))?;
        Ok(stream)
    }

    fn of(opened: responses::Opened, plan: &Plan) -> Self {
        let tcp = Arc::new(opened.tcp);
        let keyed = plan.payload_key.as_ref().zip(opened.last);
        let sealed =
            keyed.map(|(key, (request, response))| records(key, Side::Client, &request, &response));
        let (sealer, opener) = sealed.unzip();
        Self {
            reading: ReadHalf {
                tcp: Arc::clone(&tcp),
                raw: opened.ahead,
                begin: 0,
                payload: 0,
                opener,
            },
            writing: WriteHalf {
                tcp,
                sealer,
                pending: Vec::new(),
                written: 0,
                is_finished: false,
            },
        }
    }

    /// One half for each direction. The connection ends with the last of them.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (self.reading, self.writing)
    }

    /// Ends what is written; what the other side still sends can be read.
    pub fn finish(&mut self) -> io::Result<()> {
        self.writing.finish()
    }

    /// How long a read may wait; none is for ever, as it is at first.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp().set_read_timeout(timeout)
    }

    /// How long a write may wait; none is for ever, as it is at first.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp().set_write_timeout(timeout)
    }

    /// The first hop's address, or the destination's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// The connection to the first hop, for its options. Its bytes are the stream's own.
    pub fn tcp(&self) -> &TcpStream {
        &self.writing.tcp
    }
}

impl Read for Stream {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        self.reading.read(block)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writing.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writing.flush()
    }
}

/// What the destination sends.
pub struct ReadHalf {
    tcp: Arc<TcpStream>,
    /// What came and was not read: from `begin` on, `payload` bytes that can be, and behind them what is no
    /// whole record yet. At most [`HELD`] bytes.
    raw: Vec<u8>,
    begin: usize,
    payload: usize,
    opener: Option<Opener>,
}

impl ReadHalf {
    /// The connection, for its options and to end it while another thread reads.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn take(&mut self, block: &mut [u8], available: usize) -> usize {
        let count = available.min(block.len());
        block[..count].copy_from_slice(&self.raw[self.begin..self.begin + count]);
        self.begin += count;
        count
    }

    fn read_clear(&mut self, block: &mut [u8]) -> io::Result<usize> {
        let available = self.raw.len() - self.begin;
        if available > 0 {
            return Ok(self.take(block, available));
        }
        // The memory of what came with the responses is not needed any more.
        self.raw = Vec::new();
        self.begin = 0;
        (&*self.tcp).read(block)
    }

    fn read_sealed(&mut self, block: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.payload > 0 {
                let count = self.take(block, self.payload);
                self.payload -= count;
                if self.payload == 0 {
                    // What stands behind the payload is its record's tag.
                    self.begin += super::super::wire::TAG;
                }
                return Ok(count);
            }
            let Some(opener) = &mut self.opener else {
                return Ok(0);
            };
            if opener.is_closed() {
                return Ok(0);
            }
            let length = record_len(&self.raw[self.begin..]).map_err(spoilt)?;
            let end = length.map(|length| self.begin + length);
            let Some(record) = end.and_then(|end| self.raw.get_mut(self.begin..end)) else {
                self.fill()?;
                continue;
            };
            if let Opened::Payload(payload) = opener.open(record).map_err(spoilt)? {
                self.payload = payload.len();
                self.begin += super::super::wire::RECORD_HEAD;
            }
        }
    }

    /// Reads behind what is there.
    fn fill(&mut self) -> io::Result<()> {
        self.raw.drain(..self.begin);
        self.begin = 0;
        let have = self.raw.len();
        // More than the longest record, of which a part is missing.
        self.raw.resize(HELD, 0);
        let read = (&*self.tcp).read(&mut self.raw[have..]);
        self.raw.truncate(have + *read.as_ref().unwrap_or(&0));
        match read? {
            0 => {
                let message = "the sealed payload was cut short";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
            }
            _ => Ok(()),
        }
    }
}

impl Read for ReadHalf {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        if block.is_empty() {
            return Ok(0);
        }
        match self.opener {
            Some(_) => self.read_sealed(block),
            None => self.read_clear(block),
        }
    }
}

/// What goes to the destination.
pub struct WriteHalf {
    tcp: Arc<TcpStream>,
    sealer: Option<Sealer>,
    /// Records that are not wholly written, from `written` on.
    pending: Vec<u8>,
    written: usize,
    is_finished: bool,
}

impl WriteHalf {
    /// The connection, for its options and to end it while another thread writes.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Ends what is written, so that the destination reads to the end. A sealed payload that ends without
    /// this was cut short, and the last hop treats it so.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(sealer) = self.sealer.as_mut().filter(|_| !self.is_finished) {
            sealer.close(&mut self.pending);
        }
        self.is_finished = true;
        self.drain()?;
        self.tcp.shutdown(Shutdown::Write)
    }

    /// Writes what is pending. After a timeout it goes on where it was.
    fn drain(&mut self) -> io::Result<()> {
        while self.written < self.pending.len() {
            match (&*self.tcp).write(&self.pending[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.pending.clear();
        self.written = 0;
        Ok(())
    }
}

/// Sealed bytes that were taken are written by the next call, where a timeout ended this one.
impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_finished {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.drain()?;
        let Some(sealer) = &mut self.sealer else {
            return (&*self.tcp).write(bytes);
        };
        let taken = &bytes[..bytes.len().min(AT_ONCE)];
        sealer.seal(&mut self.pending, taken);
        match self.drain() {
            Err(error) if !is_timeout(&error) => Err(error),
            _ => Ok(taken.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain()
    }
}

impl fmt::Debug for ReadHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadHalf")
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WriteHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteHalf")
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}

fn spoilt(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// The most payload that one write seals.
const AT_ONCE: usize = 4 * MAX_RECORD;

/// The most bytes of records that are held: two of the longest, so that one read brings more than one.
const HELD: usize = 2 * (MAX_RECORD + 64);
