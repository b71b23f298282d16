//! The beginning of a stream: the headers in one write, then each hop's response in its turn.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::super::nonces::Nonces;
use super::super::wire::{Nonce, Response, Transport, frame_len, open_response};
use super::dial::{at_least, connect};
use super::plan::{Plan, Purpose};
use super::{Error, Options, Reason};

/// A chain that is there.
pub(super) struct Opened {
    pub(super) tcp: TcpStream,
    /// The nonces of the last hop's request and response; none without hops.
    pub(super) last: Option<(Nonce, Nonce)>,
    /// Payload that came with the responses.
    pub(super) ahead: Vec<u8>,
}

/// Hears what happens on the way.
pub(super) trait Observer {
    /// The client's own connection is there.
    fn connected(&mut self) {}

    /// A hop, counted from 0, is connected.
    fn answered(&mut self, _index: usize, _response: &Response) {}
}

impl Observer for () {}

/// Connects, asks all hops and hears them out. `early` leaves in the same write.
pub(super) fn open(
    plan: &Plan,
    options: &Options,
    early: &[u8],
    deadline: Instant,
    observer: &mut dyn Observer,
) -> Result<Opened, Error> {
    let tcp = connect(&plan.first, options, deadline).map_err(|reason| plan.at(0, reason))?;
    observer.connected();
    let purpose = Purpose {
        transport: Transport::Tcp,
        is_early: !early.is_empty(),
        is_anchor: false,
    };
    let mut out = Vec::new();
    // Stamped only now, so that a slow connection makes no header stale.
    let asked = plan.seal(&mut out, purpose, &mut Nonces::new())?;
    out.extend_from_slice(early);
    let patience = options.handshake_timeout;
    let left = at_least(deadline.saturating_duration_since(Instant::now()));
    let written = tcp
        .set_write_timeout(Some(left))
        .and_then(|()| (&tcp).write_all(&out));
    match written {
        Ok(()) => {}
        // Who does not take the headers may have said why.
        Err(error) if is_end(&error) && !plan.hops.is_empty() => {}
        Err(error) => return Err(plan.at(0, failed(error, patience))),
    }
    let mut incoming = Incoming {
        tcp: &tcp,
        bytes: Vec::new(),
        deadline,
        patience,
    };
    let mut last = None;
    for (index, (hop, asked)) in plan.hops.iter().zip(&asked).enumerate() {
        let frame = incoming.frame().map_err(|reason| plan.at(index, reason))?;
        let opened = open_response(&hop.key, Transport::Tcp, &frame, asked);
        let nonce = opened.map(|(nonce, _)| nonce);
        let response = plan.judge(index, opened.map(|(_, response)| response))?;
        observer.answered(index, &response);
        last = nonce.ok().map(|nonce| (*asked, nonce));
    }
    let ahead = incoming.bytes;
    tcp.set_read_timeout(None)
        .and_then(|()| tcp.set_write_timeout(None))
        .map_err(|error| Error::of_chain(Reason::Broken(error)))?;
    Ok(Opened { tcp, last, ahead })
}

/// What came and is no frame yet.
struct Incoming<'a> {
    tcp: &'a TcpStream,
    bytes: Vec<u8>,
    deadline: Instant,
    patience: Duration,
}

impl Incoming<'_> {
    /// Takes the next frame. At most one block more than it needs is read.
    fn frame(&mut self) -> Result<Vec<u8>, Reason> {
        loop {
            // Nothing is authenticated yet: what has no length of a frame is no answer of a hop's.
            let length = frame_len(&self.bytes).map_err(|_| Reason::Forged)?;
            if let Some(length) = length.filter(|length| *length <= self.bytes.len()) {
                let rest = self.bytes.split_off(length);
                return Ok(std::mem::replace(&mut self.bytes, rest));
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<(), Reason> {
        let mut block = [0; BLOCK];
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Reason::NoAnswer(self.patience));
        }
        let read = self.tcp.set_read_timeout(Some(at_least(left)));
        match read.and_then(|()| self.tcp.read(&mut block)) {
            Ok(0) => Err(Reason::Silent),
            Ok(count) => {
                self.bytes.extend_from_slice(&block[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if is_end(&error) => Err(Reason::Silent),
            Err(error) => Err(failed(error, self.patience)),
        }
    }
}

fn failed(error: io::Error, patience: Duration) -> Reason {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Reason::NoAnswer(patience),
        _ => Reason::Broken(error),
    }
}

/// Whether the other side has closed the connection.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

/// Bytes of one read; all responses of an ordinary chain.
const BLOCK: usize = 4 << 10;
