//! Sending: the frames that a node makes, and its connection to a peer's public address.
//!
//! Nothing ever comes back on such a connection. A peer answers by connecting to the address that the
//! message names as its sender's.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;

use super::super::wire::{self, Bytes, Message, append_frame, opcode, signed_digest};
use super::{Error, Key, Options};

/// Makes frames in a node's name.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    pub(super) key: Arc<Key>,
    pub(super) options: Options,
}

impl Voice {
    /// The frame of a message from a node that is reached at `address`.
    pub(super) fn frame(
        &self,
        address: &str,
        nonce: u64,
        opcode: u32,
        message: &[u8],
        is_reply: bool,
    ) -> Result<Vec<u8>, Error> {
        let options = &self.options;
        let sender = self.key.sender(address, &options.origin);
        let signature = match options.sign {
            true => self
                .key
                .sign(&signed_digest(&sender.address, &sender.id, message)),
            false => Vec::new(),
        };
        let message = Message {
            message: message.to_vec(),
            sender: Some(sender),
            signature,
            message_nonce: nonce,
            reply_flag: is_reply,
            opcode,
            net_id: options.network,
            ..Message::default()
        };
        let length = message.encoded_len();
        let most = usize::try_from(options.max_frame).unwrap_or(usize::MAX);
        if length > most {
            return Err(Error::TooLong { length, most });
        }
        let mut out = Vec::with_capacity(wire::HEAD + length);
        append_frame(&mut out, options.network, &message);
        Ok(out)
    }
}

/// A connection to a peer's public address. What was written may still be lost where the peer is gone;
/// only an answer says that it came.
pub struct Peer {
    stream: TcpStream,
    voice: Voice,
    /// Where the peer's answers are to go.
    address: String,
    nonce: u64,
}

impl Peer {
    pub(super) fn dial(to: &str, address: String, voice: Voice) -> Result<Self, Error> {
        let to = to.strip_prefix("tcp://").unwrap_or(to);
        let stream = dial(to, &voice.options)?;
        let timeout = Some(at_least(voice.options.io_timeout));
        stream.set_write_timeout(timeout).map_err(Error::Broken)?;
        Ok(Self {
            stream,
            voice,
            address,
            nonce: 0,
        })
    }

    /// Sends data, as a [`Bytes`] message.
    pub fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        let data = data.to_vec();
        self.send_message(opcode::BYTES, &Bytes { data }.encode_to_vec())
    }

    /// Sends a message of any opcode.
    pub fn send_message(&mut self, opcode: u32, message: &[u8]) -> Result<(), Error> {
        self.write(opcode, message, false)
    }

    /// Sends a message of any opcode that is marked as a reply.
    pub fn reply(&mut self, opcode: u32, message: &[u8]) -> Result<(), Error> {
        self.write(opcode, message, true)
    }

    /// Ends the connection and waits, for at most [`Options::io_timeout`], until the server has taken
    /// everything and ends it too. An error says that some of it may be lost.
    pub fn finish(mut self) -> Result<(), Error> {
        let timeout = Some(at_least(self.voice.options.io_timeout));
        self.stream
            .shutdown(Shutdown::Write)
            .and_then(|()| self.stream.set_read_timeout(timeout))
            // Nothing is ever said here, so that this is the end.
            .and_then(|()| self.stream.read(&mut [0]).map(drop))
            .map_err(Error::from_io)
    }

    /// After an error a part of the frame may have gone, and the connection is of no more use.
    fn write(&mut self, opcode: u32, message: &[u8], is_reply: bool) -> Result<(), Error> {
        let nonce = self.nonce + 1;
        let frame = self
            .voice
            .frame(&self.address, nonce, opcode, message, is_reply)?;
        self.stream.write_all(&frame).map_err(Error::from_io)?;
        self.nonce = nonce;
        Ok(())
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("stream", &self.stream)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A connection to the first address of a name that takes one.
pub(super) fn dial(to: &str, options: &Options) -> Result<TcpStream, Error> {
    let mut last = Error::Resolve(io::ErrorKind::NotFound.into());
    let addresses: Vec<SocketAddr> = to.to_socket_addrs().map_err(Error::Resolve)?.collect();
    for address in addresses {
        let stream = TcpStream::connect_timeout(&address, at_least(options.connect_timeout))
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match stream {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Error::Connect { address, source },
        }
    }
    Err(last)
}

/// A timeout of zero is none at all to the system, which refuses it.
pub(super) fn at_least(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}

/// A time to come; what lies beyond the clock's end is a year away.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now + YEAR)
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
