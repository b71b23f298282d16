//! A tunnel client of our own: its control connection frame by frame, its data connections, and its
//! connections for frames.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use super::frames::Frames;
use super::wire::{
    self, Challenge, Expose, Got, TCP, TOKEN, Ticket, Uuid, Visit, answer, server_proof, status,
};
use crate::support::DEADLINE;
use crate::support::peer::{End, Peer};

/// Opens a connection of this kind and takes the challenge.
pub fn knock(server: SocketAddr, kind: u8) -> (Peer, Challenge) {
    greet(Peer::connect(server), kind)
}

/// The same on a connection that is open already.
pub fn greet(mut peer: Peer, kind: u8) -> (Peer, Challenge) {
    peer.send([b'T', b'W', b'P', b'1', kind]);
    let challenge = peer.take(32).try_into().unwrap();
    (peer, challenge)
}

/// Proves the token and demands the server's own proof; the status where that is no welcome.
pub fn prove(
    (mut peer, challenge): (Peer, Challenge),
    token: &str,
    kind: u8,
    client: &[u8; 16],
    place: &[u8],
) -> Result<Peer, u8> {
    let nonce: [u8; 32] = random();
    peer.try_send(&answer(token, kind, &challenge, &nonce, client, place));
    let reply = peer.take(33);
    if reply[0] != status::OK {
        return Err(reply[0]);
    }
    let expected = server_proof(token, &nonce, &challenge);
    assert_eq!(reply[1..], expected, "the server's proof");
    Ok(peer)
}

/// Bytes that nobody can guess.
pub fn random<const N: usize>() -> [u8; N] {
    let random = ring::rand::SystemRandom::new();
    let mut bytes = [0; N];
    ring::rand::SecureRandom::fill(&random, &mut bytes).unwrap();
    bytes
}

/// The identity of this number.
pub fn identity(number: u8) -> [u8; 16] {
    [number; 16]
}

/// A control connection that has been welcomed.
pub struct Client {
    pub peer: Peer,
    pub server: SocketAddr,
    pub id: [u8; 16],
    pub session: Uuid,
    token: String,
    requests: u32,
    /// What has come and was not asked for yet.
    pending: VecDeque<Got>,
    /// The tickets of the pool that were not used yet.
    pub tickets: VecDeque<Ticket>,
}

/// A service that has its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    pub number: u16,
    pub public: SocketAddr,
    pub epoch: u64,
    pub lease_seconds: u32,
    udp: bool,
}

impl Client {
    pub fn connect(server: SocketAddr, id: [u8; 16]) -> Self {
        let client = Self::try_connect(server, id, TOKEN);
        client.unwrap_or_else(|status| panic!("status {status} instead of a welcome"))
    }

    /// Fails with the status.
    pub fn try_connect(server: SocketAddr, id: [u8; 16], token: &str) -> Result<Self, u8> {
        let peer = prove(knock(server, b'C'), token, b'C', &id, &[])?;
        let mut client = Self {
            peer,
            server,
            id,
            session: [0; 16],
            token: token.into(),
            requests: 0,
            pending: VecDeque::new(),
            tickets: VecDeque::new(),
        };
        match client.read() {
            Some(Got::Welcome(session)) => client.session = session,
            other => panic!("{other:?} instead of Welcome"),
        }
        Ok(client)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.peer.send(bytes);
        self
    }

    /// The next frame as it comes; none at the end of the connection.
    fn read(&mut self) -> Option<Got> {
        let mut head = [0; 5];
        if !self.fill(&mut head) {
            return None;
        }
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        assert!(length <= 65_536 - 5, "a frame of {length} bytes");
        let mut body = vec![0; length as usize];
        self.fill(&mut body).then(|| Got::read(head[0], &body))
    }

    /// False where the connection ends before.
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        let mut have = 0;
        while have < bytes.len() {
            match self.peer.some(&mut bytes[have..]) {
                Ok(0) => {
                    assert_eq!(have, 0, "ended inside a frame");
                    return false;
                }
                Ok(more) => have += more,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("{error} after {have} of {} bytes", bytes.len()),
            }
        }
        true
    }

    /// The next frame that is not about the connection itself: pings are answered, and the tickets of
    /// the pool kept.
    fn next(&mut self) -> Option<Got> {
        loop {
            match self.read()? {
                Got::Ping(number) => {
                    let pong = wire::frame(wire::kind::PONG, &number.to_le_bytes());
                    self.peer.try_send(&pong);
                }
                Got::PoolWanted(tickets) => self.tickets.extend(tickets),
                other => return Some(other),
            }
        }
    }

    /// The first frame that `pick` takes; the others are kept for later. None at the end.
    pub fn try_find<T>(&mut self, mut pick: impl FnMut(&Got) -> Option<T>) -> Option<T> {
        for at in 0..self.pending.len() {
            if let Some(found) = pick(&self.pending[at]) {
                self.pending.remove(at);
                return Some(found);
            }
        }
        // Signs of life come every 15 s, so that the deadline of a read is none of this.
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}");
            let got = self.next()?;
            match pick(&got) {
                Some(found) => return Some(found),
                None => self.pending.push_back(got),
            }
        }
    }

    pub fn find<T>(&mut self, what: &str, pick: impl FnMut(&Got) -> Option<T>) -> T {
        let found = self.try_find(pick);
        found.unwrap_or_else(|| panic!("the connection ended instead of {what}"))
    }

    /// Reads up to the end of the connection.
    pub fn expect_end(&mut self) {
        self.try_find(|_| None::<()>);
    }

    /// Nothing has come that was not taken: the answer to a ping is the next.
    pub fn expect_quiet(&mut self) -> &mut Self {
        self.expect_pong();
        let rest = std::mem::take(&mut self.pending);
        assert!(rest.is_empty(), "{rest:?}");
        self
    }

    /// Whatever else comes, a ping is answered.
    pub fn expect_pong(&mut self) -> &mut Self {
        let number = u64::from_le_bytes(random());
        self.send(wire::ping(number));
        self.find("a pong", |got| (*got == Got::Pong(number)).then_some(()));
        self
    }

    /// Asks for a port; the code where it gets none.
    pub fn try_expose(&mut self, wish: Expose) -> Result<Service, u8> {
        self.requests += 1;
        let mine = self.requests;
        let wish = Expose {
            request: mine,
            ..wish
        };
        self.send(wish.frame());
        let udp = wish.transport != TCP;
        self.find("an answer", |got| match got {
            Got::Exposed {
                request,
                service,
                lease_seconds,
                epoch,
                public,
            } if *request == mine => Some(Ok(Service {
                number: *service,
                public: *public,
                epoch: *epoch,
                lease_seconds: *lease_seconds,
                udp,
            })),
            Got::Refused {
                request,
                code,
                text,
            } if *request == mine => {
                assert!(!text.is_empty(), "nothing to tell people");
                Some(Err(*code))
            }
            _ => None,
        })
    }

    pub fn expose(&mut self, wish: Expose) -> Service {
        let exposed = self.try_expose(wish);
        exposed.unwrap_or_else(|code| panic!("refused with code {code}"))
    }

    pub fn visit(&mut self) -> Visit {
        self.find("a visit", |got| match got {
            Got::Visit(visit) => Some(visit.clone()),
            _ => None,
        })
    }

    /// The visit of this visitor.
    pub fn visit_of(&mut self, visitor: &Peer) -> Visit {
        let address = visitor.local();
        self.find("a visit", |got| match got {
            Got::Visit(visit) if visit.visitor == address => Some(visit.clone()),
            _ => None,
        })
    }

    /// A visit that has come and was not taken, if there is one.
    pub fn seen_visit(&mut self) -> Option<Visit> {
        let is_visit = |got: &Got| matches!(got, Got::Visit(_));
        let at = self.pending.iter().position(is_visit)?;
        match self.pending.remove(at)? {
            Got::Visit(visit) => Some(visit),
            _ => None,
        }
    }

    /// Why this visitor is over.
    pub fn closed(&mut self, of: &Uuid) -> u8 {
        self.find("Closed", |got| match got {
            Got::Closed { uuid, reason } if uuid == of => Some(*reason),
            _ => None,
        })
    }

    /// The epoch that is void, once this service is superseded.
    pub fn superseded(&mut self, of: &Service) -> u64 {
        self.find("Superseded", |got| match got {
            Got::Superseded {
                service,
                epoch,
                text,
            } if *service == of.number => {
                assert!(text.contains("superseded"), "{text:?}");
                Some(*epoch)
            }
            _ => None,
        })
    }

    /// Opens the data connection that a visit asks for.
    pub fn attach(&self, visit: &Visit) -> Peer {
        self.attach_with(&visit.ticket, &visit.uuid)
    }

    pub fn attach_with(&self, ticket: &Ticket, uuid: &Uuid) -> Peer {
        let mut peer = Peer::connect(self.server);
        peer.send(wire::attach(ticket, uuid));
        peer
    }

    /// A connection for frames of this service, `S` or `R`; the status where it is refused.
    pub fn way(&self, kind: u8, session: &Uuid, service: u16) -> Result<Peer, u8> {
        let place = [&session[..], &service.to_le_bytes()].concat();
        let knocked = knock(self.server, kind);
        prove(knocked, &self.token, kind, &self.id, &place)
    }

    /// Both connections for frames of this service: what the client sends, what it receives.
    pub fn ways(&self, service: &Service) -> (Frames, Frames) {
        let [send, receive] = *b"SR";
        let [to, from] = [send, receive].map(|kind| {
            let way = self.way(kind, &self.session, service.number);
            let peer = way.unwrap_or_else(|status| panic!("status {status}"));
            Frames::new(peer, service.udp)
        });
        (to, from)
    }

    /// Leaves as a client does that is stopped; the server may have closed already.
    pub fn leave(mut self) {
        self.peer.try_finish();
        while self.next().is_some() {}
    }

    pub fn reset(self) {
        self.peer.reset();
    }

    /// The connection has ended in this way, whatever came before.
    pub fn end(mut self) -> End {
        self.peer.rest().1
    }
}
