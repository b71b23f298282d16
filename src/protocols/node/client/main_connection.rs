//! One main connection from its dial to its end: the request, the keepalives, and the frames of peers.
//!
//! It is not the choice of when to connect again, which is the driver's.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use prost::Message as _;

use super::super::wire::{Message, ProxyResponse, Transport, opcode};
use super::frame::Inbox;
use super::peer::{Voice, after, at_least, dial};
use super::queue::{Full, Queue};
use super::{Error, Frame};

/// A connection to the server.
///
/// Everything happens in [`MainConnection::turn`], on one thread: it waits for whatever is next, a
/// frame, room in the queue, or the time of a keepalive.
pub(super) struct MainConnection<'a> {
    voice: &'a Voice,
    stream: TcpStream,
    inbox: Inbox,
    /// A frame for which the queue has no room. Nothing is read while it waits, so TCP holds back the
    /// peers.
    waiting: Option<Frame>,
    /// The public address, once the server has said it.
    public: Option<String>,
    nonce: u64,
    asked: Instant,
    /// When the server was last known to live.
    heard: Instant,
    next_keepalive: Instant,
}

impl<'a> MainConnection<'a> {
    /// Connects and asks for the public address.
    pub(super) fn open(server: &str, voice: &'a Voice) -> Result<Self, Error> {
        let stream = dial(server, &voice.options)?;
        let timeout = at_least(voice.options.io_timeout);
        stream
            .set_write_timeout(Some(timeout))
            .map_err(Error::Broken)?;
        let now = Instant::now();
        let mut connection = Self {
            voice,
            stream,
            inbox: Inbox::default(),
            waiting: None,
            public: None,
            nonce: 0,
            asked: now,
            heard: now,
            next_keepalive: after(now, at_least(voice.options.keepalive)),
        };
        connection.send(opcode::PROXY_REQUEST)?;
        Ok(connection)
    }

    /// The connection, for the one who may have to end it from another thread.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Waits for the next thing to happen and does it. The public address, when this was its coming.
    pub(super) fn turn(&mut self, queue: &Queue) -> Result<Option<String>, Error> {
        let deadline = self.settle(Instant::now())?;
        if let Some(frame) = self.waiting.take() {
            match queue.push(frame, deadline) {
                Ok(()) => {}
                Err(Full::Closed) => return Err(Error::Stopped),
                Err(Full::Late(frame)) => self.waiting = Some(frame),
            }
            // The server's answers may lie unread behind this frame: that is no silence of its.
            self.heard = Instant::now();
            return Ok(None);
        }
        let (network, max_frame) = (self.voice.options.network, self.voice.options.max_frame);
        match self.inbox.next(network, max_frame) {
            Err(error) => Err(Error::Malformed(error)),
            Ok(Some(frame)) => Ok(self.take(frame)),
            Ok(None) => self.read(deadline).map(|()| None),
        }
    }

    /// Does what is due and says when the next thing is.
    fn settle(&mut self, now: Instant) -> Result<Instant, Error> {
        let options = &self.voice.options;
        if self.public.is_none() {
            let deadline = after(self.asked, options.io_timeout);
            return match now < deadline {
                true => Ok(deadline),
                false => Err(Error::NoAnswer(options.io_timeout)),
            };
        }
        let keepalive = at_least(options.keepalive);
        let patience = keepalive.saturating_mul(MISSES);
        let end = after(self.heard, patience);
        if now >= end {
            return Err(Error::Silent(patience));
        }
        if now >= self.next_keepalive {
            self.next_keepalive = after(now, keepalive);
            self.send(opcode::KEEPALIVE)?;
        }
        Ok(self.next_keepalive.min(end))
    }

    fn read(&mut self, deadline: Instant) -> Result<(), Error> {
        let left = at_least(deadline.saturating_duration_since(Instant::now()));
        let got = self
            .stream
            .set_read_timeout(Some(left))
            .and_then(|()| self.inbox.fill(&mut self.stream));
        match got.map_err(Error::from_io) {
            Ok(0) | Err(Error::Closed) if self.public.is_none() => Err(Error::Refused),
            Ok(0) => Err(Error::Closed),
            Ok(_) => {
                self.heard = Instant::now();
                Ok(())
            }
            // The time of whatever is due has come.
            Err(Error::Stuck) => Ok(()),
            Err(Error::Broken(error)) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Keeps the server's own words from the receiver; all else is a peer's.
    ///
    /// A peer can put on the server's name. So the first address that comes is the one that holds: the
    /// server answers the request before it lets a peer's frame pass.
    fn take(&mut self, frame: Frame) -> Option<String> {
        let Some(message) = frame.message().filter(is_the_servers) else {
            self.waiting = Some(frame);
            return None;
        };
        if message.opcode != opcode::PROXY_RESPONSE || self.public.is_some() {
            return None;
        }
        let response = ProxyResponse::decode(&message.message[..]).ok()?;
        let public = String::from_utf8(response.proxy_address).ok()?;
        // Whatever else it is, it is handed to people and in messages to other nodes.
        let is_address = public.parse::<std::net::SocketAddr>().is_ok();
        self.public = is_address.then_some(public);
        self.public.clone()
    }

    fn send(&mut self, opcode: u32) -> Result<(), Error> {
        let address = match &self.public {
            Some(public) => format!("{}{public}", Transport::Tcp.scheme()),
            None => self.voice.options.origin.clone(),
        };
        self.nonce += 1;
        let frame = self.voice.frame(&address, self.nonce, opcode, &[], false)?;
        match self.stream.write_all(&frame).map_err(Error::from_io) {
            Err(Error::Closed) if self.public.is_none() => Err(Error::Refused),
            sent => sent,
        }
    }
}

fn is_the_servers(message: &Message) -> bool {
    let is_answer = matches!(
        message.opcode,
        opcode::PROXY_RESPONSE | opcode::KEEPALIVE_RESPONSE
    );
    let net_key = message.sender.as_ref().and_then(|id| id.net_key.as_deref());
    is_answer && net_key == Some(Transport::Tcp.net_key())
}

/// Intervals of keepalives without a byte from the server after which it is taken for dead.
const MISSES: u32 = 3;
