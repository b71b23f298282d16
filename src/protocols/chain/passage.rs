//! The way through a chain: the headers for its hops, and what their responses say.
//!
//! It is plain state over bytes; sessions own the connection, and say the time.

use std::fmt::Write;

use super::hop::{code_of, target_of};
use super::nonces::Nonces;
use super::wire::binding::{Asked, Cadence, make_anchor};
use super::wire::{
    Address, Code, Direction, Flags, HEAD, Key, MAX_LENGTH, Nonce, Request, Transport, Unsealed,
    frame_len, open_datagram, open_response, seal_datagram, seal_request,
};
use crate::buffer::Ring;
use crate::session::Cause;
use crate::upstream::{Failure, Target};

/// The hops of one chain, as the configuration has them.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) hops: Vec<Station>,
    pub(super) payload_key: Option<Key>,
    pub(super) weight: u32,
}

/// One hop.
#[derive(Debug)]
pub(super) struct Station {
    pub(super) target: Target,
    pub(super) address: Address,
    pub(super) key: Key,
}

/// What a set of headers asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    /// Milliseconds since 1970.
    pub(super) stamp: u64,
    /// Nothing but an answer of the last hop.
    pub(super) probe: bool,
    /// Payload follows at once.
    pub(super) early: bool,
}

/// Which hop a failure is of, counted from 0, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) hop: usize,
    pub(super) why: Why,
}

/// What is wrong with a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It says so itself.
    Said(Code),
    /// It, or what is behind it, closed the connection without an answer.
    Silent,
    /// No answer came in time.
    Late,
    /// What came is not under its key.
    Forged,
    /// It could not be connected to; only the first is dialled by us.
    Dial(Failure),
}

/// Who is to be passed over for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// A hop that the one before it does not reach.
    Chain,
    Destination,
    Nobody,
}

impl Route {
    /// Appends the headers of all hops; their nonces. `None` when the system has no random bytes.
    pub(super) fn seal(
        &self,
        out: &mut Vec<u8>,
        destination: &Address,
        transport: Transport,
        wish: Wish,
        mut nonce: impl FnMut() -> Option<Nonce>,
    ) -> Option<Vec<Nonce>> {
        let mut asked = Vec::with_capacity(self.hops.len());
        for (at, hop) in self.hops.iter().enumerate() {
            let next = self.hops.get(at + 1);
            let request = Request {
                stamp: wish.stamp,
                flags: Flags {
                    probe: wish.probe && next.is_none(),
                    early: wish.early,
                    sealed: self.payload_key.is_some() && next.is_none() && !wish.probe,
                },
                address: next.map_or(destination, |next| &next.address).clone(),
            };
            let nonce = nonce()?;
            seal_request(out, &hop.key, transport, &nonce, &request);
            asked.push(nonce);
        }
        Some(asked)
    }

    /// What an operator and a client are told of a failure: `hop 2 (nyc.example:7300): destination
    /// refused the connection`.
    pub(super) fn tell(&self, failed: Failed) -> String {
        let address = match self.hops.get(failed.hop) {
            Some(hop) => hop.target.to_string(),
            // There is nobody but the destination that it could be of.
            None => match failed.why {
                Why::Dial(failure) => return words_of_destination(failure).to_owned(),
                why => return why.words(true).to_owned(),
            },
        };
        let is_last = failed.hop + 1 == self.hops.len();
        let words = failed.why.words(is_last);
        format!("hop {} ({address}): {words}", failed.hop + 1)
    }

    /// Who is to be passed over for a datagram that was lost. Neither one that did not understand, or had
    /// no room, nor whoever is at hand when what came is not under the key, which anybody may send.
    pub(super) fn blame(&self, failed: Failed) -> Blame {
        let (code, is_last) = match failed.why {
            Why::Said(code) => (code, failed.hop + 1 == self.hops.len()),
            Why::Dial(failure) => (code_of(failure), self.hops.is_empty()),
            Why::Silent | Why::Late | Why::Forged => return Blame::Nobody,
        };
        match code {
            Code::Resolve | Code::Refused | Code::Unreachable | Code::Timeout | Code::Forbidden => {
                match is_last {
                    true => Blame::Destination,
                    false => Blame::Chain,
                }
            }
            Code::Ok | Code::Overloaded | Code::Protocol | Code::Internal => Blame::Nobody,
        }
    }

    /// Appends ` hop=2 at=nyc.example:7300 code=refused`; without hops the code alone.
    pub(super) fn describe(&self, failed: Failed, out: &mut String) {
        // Writing to a string cannot fail.
        if let Some(hop) = self.hops.get(failed.hop) {
            let _ = write!(out, " hop={} at={}", failed.hop + 1, hop.target);
        }
        let _ = write!(out, " code={}", failed.why.code().name());
    }

    /// True when the chain itself is broken, and not what lies behind it.
    pub(super) fn is_broken_by(&self, failed: Failed) -> bool {
        let is_last = failed.hop + 1 == self.hops.len();
        match failed.why {
            Why::Said(Code::Overloaded | Code::Internal | Code::Protocol) => true,
            Why::Said(_) => !is_last,
            Why::Silent | Why::Late | Why::Forged | Why::Dial(_) => true,
        }
    }
}

/// Why the destination was not connected to from here: as the last hop would say it.
fn words_of_destination(failure: Failure) -> &'static str {
    match code_of(failure) {
        Code::Overloaded | Code::Internal => "destination could not be connected to",
        code => code.text(),
    }
}

impl Why {
    /// The kind that it is told as to clients who know codes.
    pub(super) fn code(self) -> Code {
        match self {
            Self::Said(code) => code,
            Self::Dial(failure) => code_of(failure),
            Self::Silent | Self::Forged => Code::Internal,
            Self::Late => Code::Timeout,
        }
    }

    /// For the log: why nobody was reached.
    pub(super) fn cause(self) -> Cause {
        match self {
            Self::Dial(failure) => failure.into(),
            Self::Said(Code::Forbidden) => Failure::Forbidden.into(),
            Self::Said(code) => Cause::Unreachable(code.name()),
            Self::Silent => Cause::Unreachable("closed without an answer"),
            Self::Forged => Cause::Unreachable("answered under another key"),
            Self::Late => Cause::Unreachable("no answer in time"),
        }
    }

    fn words(self, is_last: bool) -> &'static str {
        match self {
            Self::Said(code) if is_last => code.text(),
            Self::Said(code) => code.text_of_inner(),
            Self::Silent => "closed the connection without a word; is the key right?",
            Self::Late => "did not answer in time",
            Self::Forged => "its answer is not sealed under the key; is the key right?",
            Self::Dial(failure) => match code_of(failure) {
                Code::Resolve => "name could not be resolved",
                Code::Refused => "refused the connection",
                Code::Timeout => "did not answer in time",
                Code::Unreachable => "is unreachable",
                Code::Forbidden => "is forbidden",
                _ => "could not be connected to",
            },
        }
    }
}

/// The responses of a chain's hops on a stream, in their order.
#[derive(Debug)]
pub(super) struct Responses {
    asked: Vec<Nonce>,
    heard: usize,
    /// The last hop's response.
    last: Nonce,
}

impl Responses {
    pub(super) fn new(asked: Vec<Nonce>) -> Self {
        Self {
            asked,
            heard: 0,
            last: [0; 24],
        }
    }

    /// Takes what is whole off the stream: true when all hops have said that they are connected. What
    /// is behind stays.
    pub(super) fn read(&mut self, route: &Route, rx: &mut Ring) -> Result<bool, Failed> {
        while let (Some(hop), Some(asked)) =
            (route.hops.get(self.heard), self.asked.get(self.heard))
        {
            let fail = |why| Failed {
                hop: self.heard,
                why,
            };
            let mut frame = [0; HEAD + MAX_LENGTH];
            let known = rx.copy_to(0, &mut frame);
            let len = match frame_len(&frame[..known]) {
                Ok(Some(len)) if len <= known => len,
                Ok(_) => return Ok(false),
                Err(_) => return Err(fail(Why::Forged)),
            };
            let opened = open_response(&hop.key, Transport::Tcp, &frame[..len], asked);
            rx.consume(len);
            let (nonce, response) = opened.map_err(|unsealed| {
                fail(match unsealed {
                    Unsealed::Forged => Why::Forged,
                    Unsealed::Malformed { .. } => Why::Said(Code::Protocol),
                })
            })?;
            if response.code != Code::Ok {
                return Err(fail(Why::Said(response.code)));
            }
            self.heard += 1;
            self.last = nonce;
        }
        Ok(true)
    }

    /// The hop whose turn it is, counted from 0.
    pub(super) fn turn(&self) -> usize {
        self.heard.min(self.asked.len().saturating_sub(1))
    }

    /// The nonces of the last hop's headers, for the payload's seal.
    pub(super) fn last(&self) -> Option<(Nonce, Nonce)> {
        self.asked.last().map(|asked| (*asked, self.last))
    }
}

/// One flow of datagrams through a chain.
pub(super) struct Flight {
    destination: Address,
    cadence: Cadence,
    /// What was asked of each hop.
    asked: Vec<Asked>,
}

impl Flight {
    pub(super) fn new(route: &Route, destination: Address) -> Self {
        Self {
            destination,
            cadence: Cadence::default(),
            asked: vec![Asked::default(); route.hops.len()],
        }
    }

    /// Whom it leads to.
    pub(super) fn destination(&self) -> &Address {
        &self.destination
    }

    /// Where its datagrams are sent: the first hop, or the destination.
    pub(super) fn first(&self, route: &Route) -> Target {
        match route.hops.first() {
            Some(hop) => hop.target.clone(),
            None => target_of(&self.destination),
        }
    }

    /// Appends the datagram that carries a payload. `None` when the system has no random bytes.
    pub(super) fn wrap(
        &mut self,
        route: &Route,
        out: &mut Vec<u8>,
        stamp: u64,
        nonces: &mut Nonces,
        payload: &[u8],
    ) -> Option<()> {
        let is_anchor = self.cadence.is_due(stamp);
        let wish = Wish {
            stamp,
            ..Wish::default()
        };
        let fresh = || {
            let mut nonce = nonces.next()?;
            if is_anchor {
                make_anchor(&mut nonce);
            }
            Some(nonce)
        };
        let asked = route.seal(out, &self.destination, Transport::Udp, wish, fresh)?;
        for (hop, nonce) in self.asked.iter_mut().zip(&asked) {
            hop.note(nonce);
        }
        match (&route.payload_key, asked.last()) {
            (Some(key), Some(header)) => {
                let nonce = nonces.next()?;
                seal_datagram(out, key, Direction::Request, header, &nonce, payload);
            }
            _ => out.extend_from_slice(payload),
        }
        Some(())
    }

    /// The payload of a datagram that came; `scratch` is for one that is sealed.
    pub(super) fn unwrap<'a>(
        &mut self,
        route: &Route,
        datagram: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Failed> {
        let mut rest = datagram;
        let mut last = None;
        for (at, (hop, asked)) in route.hops.iter().zip(&mut self.asked).enumerate() {
            let fail = |why| Failed { hop: at, why };
            let len = frame_len(rest).ok().flatten().unwrap_or(usize::MAX);
            let (frame, behind) = rest.split_at_checked(len).ok_or(fail(Why::Forged))?;
            let answer = asked.open(&hop.key, frame).map_err(|_| fail(Why::Forged))?;
            if answer.response.code != Code::Ok {
                return Err(fail(Why::Said(answer.response.code)));
            }
            (rest, last) = (behind, Some(answer.nonce));
        }
        let (Some(key), Some(header)) = (&route.payload_key, last) else {
            return Ok(rest);
        };
        scratch.clear();
        let hop = route.hops.len() - 1;
        let why = Why::Forged;
        open_datagram(scratch, key, Direction::Response, &header, rest)
            .map_err(|_| Failed { hop, why })?;
        Ok(scratch)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn route(hops: u8) -> Route {
        let station = |number| {
            let at: std::net::SocketAddr = ([10, 0, 0, number], 7300).into();
            let address = Address::Socket(at);
            Station {
                target: target_of(&address),
                address,
                key: Key::from_bytes([number; 32]),
            }
        };
        Route {
            hops: (1..=hops).map(station).collect(),
            payload_key: None,
            weight: 1,
        }
    }

    fn dialled(why: io::ErrorKind) -> Failed {
        let why = Why::Dial(why.into());
        Failed { hop: 0, why }
    }

    #[test]
    fn without_hops_the_destination_is_told_of_as_by_a_hop() {
        let kinds = [
            (io::ErrorKind::ConnectionRefused, Code::Refused),
            (io::ErrorKind::TimedOut, Code::Timeout),
            (io::ErrorKind::HostUnreachable, Code::Unreachable),
            // A route that swallows what goes there.
            (io::ErrorKind::InvalidInput, Code::Unreachable),
            (io::ErrorKind::PermissionDenied, Code::Forbidden),
        ];
        for (kind, code) in kinds {
            assert_eq!(dialled(kind).why.code(), code);
            assert_eq!(route(0).tell(dialled(kind)), code.text());
        }
        for failure in [Failure::NoPort, Failure::Other] {
            let why = Why::Dial(failure);
            let told = route(0).tell(Failed { hop: 0, why });
            assert_eq!(told, "destination could not be connected to");
        }
        let told = route(1).tell(dialled(io::ErrorKind::ConnectionRefused));
        assert_eq!(told, "hop 1 (10.0.0.1:7300): refused the connection");
    }

    #[test]
    fn a_lost_datagram_is_blamed_on_who_was_not_reached() {
        let said = |hop, code| Failed {
            hop,
            why: Why::Said(code),
        };
        let refused = dialled(io::ErrorKind::ConnectionRefused);
        assert_eq!(route(0).blame(refused), Blame::Destination);
        assert_eq!(route(2).blame(refused), Blame::Chain);
        assert_eq!(route(2).blame(said(0, Code::Refused)), Blame::Chain);
        assert_eq!(route(2).blame(said(1, Code::Refused)), Blame::Destination);
        for code in [Code::Overloaded, Code::Protocol, Code::Internal] {
            assert_eq!(route(2).blame(said(1, code)), Blame::Nobody);
        }
        let forged = Failed {
            hop: 1,
            why: Why::Forged,
        };
        assert_eq!(route(2).blame(forged), Blame::Nobody);
        // One that is too long, or for which this host has no room, says nothing of whom it was for.
        let long = dialled(io::ErrorKind::Other);
        assert_eq!(
            [0, 2].map(|hops| route(hops).blame(long)),
            [Blame::Nobody; 2]
        );
    }

    #[test]
    fn the_log_names_the_hop_its_address_and_the_code() {
        let mut line = String::new();
        let why = Why::Said(Code::Refused);
        route(2).describe(Failed { hop: 1, why }, &mut line);
        assert_eq!(line, " hop=2 at=10.0.0.2:7300 code=refused");
        line.clear();
        route(0).describe(dialled(io::ErrorKind::TimedOut), &mut line);
        assert_eq!(line, " code=timeout");
    }
}
