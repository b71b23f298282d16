//! Datagrams through a chain: each with headers of its own, and each answered, or not, by itself.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::nonces::Nonces;
use super::super::wire::binding::{Asked, Cadence};
use super::super::wire::{
    Direction, Nonce, Transport, Unsealed, frame_len, open_datagram, seal_datagram,
};
use super::dial::resolve;
use super::plan::{Plan, Purpose};
use super::{Error, Hop, Options, Reason};

/// A flow of datagrams to the destination, as if there were no hops between. It can be shared: one
/// thread may send while another receives.
pub struct Socket {
    udp: UdpSocket,
    peer: SocketAddr,
    plan: Plan,
    sending: Mutex<Sending>,
    /// What was asked of each hop.
    asked: Mutex<Vec<Asked>>,
    /// Where a datagram is received; held by who waits for one.
    block: Mutex<Box<[u8]>>,
}

struct Sending {
    nonces: Nonces,
    cadence: Cadence,
    began: Instant,
    out: Vec<u8>,
}

/// What came.
#[derive(Debug)]
pub enum Datagram {
    /// The destination's.
    Payload(Vec<u8>),
    /// A datagram was lost, and this is why.
    Lost(Error),
}

impl Socket {
    /// A flow to `destination`, `HOST:PORT`, through the hops in their order; without hops, directly.
    /// Nothing is sent yet, so that only the first datagrams tell whether the chain is good.
    pub fn connect(destination: &str, hops: &[Hop], options: &Options) -> Result<Self, Error> {
        let plan = Plan::new(Some(destination), hops, options)?;
        let addresses = resolve(&plan.first).map_err(|reason| plan.at(0, reason))?;
        let mut last = Reason::NoHop;
        for peer in addresses {
            match bind(peer) {
                Ok(udp) => return Ok(Self::of(udp, peer, plan)),
                Err(source) => {
                    last = Reason::Connect {
                        address: peer,
                        source,
                    }
                }
            }
        }
        Err(plan.at(0, last))
    }

    /// Another flow along the same chain, for which no name is looked up again.
    pub fn another(&self) -> Result<Self, Error> {
        let (plan, address) = (self.plan.clone(), self.peer);
        match bind(address) {
            Ok(udp) => Ok(Self::of(udp, address, plan)),
            Err(source) => Err(plan.at(0, Reason::Connect { address, source })),
        }
    }

    fn of(udp: UdpSocket, peer: SocketAddr, plan: Plan) -> Self {
        let asked = vec![Asked::default(); plan.hops.len()];
        Self {
            udp,
            peer,
            plan,
            sending: Mutex::new(Sending {
                nonces: Nonces::new(),
                cadence: Cadence::default(),
                began: Instant::now(),
                out: Vec::new(),
            }),
            asked: Mutex::new(asked),
            block: Mutex::new(vec![0; BLOCK].into()),
        }
    }

    /// Sends a datagram. Whether it arrives, only an answer tells.
    pub fn send(&self, payload: &[u8]) -> Result<(), Error> {
        let mut sending = self.sending.lock();
        let Sending {
            nonces,
            cadence,
            began,
            out,
        } = &mut *sending;
        out.clear();
        let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let purpose = Purpose {
            transport: Transport::Udp,
            is_early: false,
            is_anchor: cadence.is_due(now),
        };
        let asked = self.plan.seal(out, purpose, nonces)?;
        match (&self.plan.payload_key, asked.last()) {
            (Some(key), Some(header)) => {
                let nonce = nonces.next().ok_or(Error::of_chain(Reason::NoRandom))?;
                seal_datagram(out, key, Direction::Request, header, &nonce, payload);
            }
            _ => out.extend_from_slice(payload),
        }
        if out.len() > LONGEST {
            let around = out.len() - payload.len();
            let (length, most) = (payload.len(), LONGEST.saturating_sub(around));
            return Err(Error::of_chain(Reason::TooLong { length, most }));
        }
        // Before it leaves: the answer may be quicker than we are.
        for (hop, nonce) in self.asked.lock().iter_mut().zip(&asked) {
            hop.note(nonce);
        }
        match self.udp.send(out) {
            // The answer to an earlier one, that nobody was there; this one did leave or will be missed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let sent = self.udp.send(out);
                sent.map(drop).map_err(|error| self.broken(error))
            }
            sent => sent.map(drop).map_err(|error| self.broken(error)),
        }
    }

    /// What comes next; none when nothing did within the read timeout. What is not sealed by the hops is
    /// dropped: anybody may have sent it.
    pub fn receive(&self) -> Result<Option<Datagram>, Error> {
        let mut block = self.block.lock();
        let began = Instant::now();
        loop {
            let count = match self.udp.recv(&mut block) {
                Ok(count) => count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Ok(None),
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::ConnectionRefused => {
                        let (address, source) = (self.peer, error);
                        let reason = Reason::Connect { address, source };
                        return Ok(Some(Datagram::Lost(self.plan.at(0, reason))));
                    }
                    _ => return Err(self.broken(error)),
                },
            };
            if let Some(datagram) = self.open(&block[..count]) {
                return Ok(Some(datagram));
            }
            let timeout = self
                .udp
                .read_timeout()
                .map_err(|error| self.broken(error))?;
            if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                return Ok(None);
            }
        }
    }

    /// How long [`Socket::receive`] waits; none is for ever, as it is at first.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.udp.set_read_timeout(timeout)
    }

    /// This end's own address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Takes the responses off a datagram; none if it is not the hops'.
    fn open(&self, datagram: &[u8]) -> Option<Datagram> {
        let mut rest = datagram;
        let mut last: Option<Nonce> = None;
        let mut asked = self.asked.lock();
        for (index, (hop, asked)) in self.plan.hops.iter().zip(asked.iter_mut()).enumerate() {
            let length = frame_len(rest).ok().flatten()?;
            let (frame, behind) = rest.split_at_checked(length)?;
            let opened = asked.open(&hop.key, frame);
            if opened == Err(Unsealed::Forged) {
                return None;
            }
            let nonce = opened.map(|answer| answer.nonce);
            let judged = self.plan.judge(index, opened.map(|answer| answer.response));
            if let Err(error) = judged {
                return Some(Datagram::Lost(error));
            }
            (rest, last) = (behind, nonce.ok());
        }
        drop(asked);
        let Some((key, header)) = self.plan.payload_key.as_ref().zip(last) else {
            return Some(Datagram::Payload(rest.to_vec()));
        };
        let mut payload = Vec::new();
        match open_datagram(&mut payload, key, Direction::Response, &header, rest) {
            Ok(()) => Some(Datagram::Payload(payload)),
            Err(spoilt) => {
                let index = self.plan.hops.len().saturating_sub(1);
                Some(Datagram::Lost(self.plan.at(index, Reason::Spoilt(spoilt))))
            }
        }
    }

    fn broken(&self, error: io::Error) -> Error {
        self.plan.at(0, Reason::Broken(error))
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("udp", &self.udp)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// A socket that hears its peer only.
fn bind(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any = match peer {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let udp = UdpSocket::bind(any)?;
    udp.connect(peer)?;
    Ok(udp)
}

/// More than the longest datagram, so that none is cut short.
const BLOCK: usize = 64 << 10;

/// The longest datagram that IPv4 carries, headers of hops included.
const LONGEST: usize = 65_507;
