//! A chain as it is to be: who is asked to connect to whom, and the headers that ask.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::nonces::Nonces;
use super::super::wire::binding::make_anchor;
use super::super::wire::{
    Address, Code, Flags, Key, Nonce, Request, Response, Transport, Unsealed, seal_request,
};
use super::{Error, Hop, MAX_HOPS, Options, PORT, Place, Reason};

/// A chain whose addresses are in order.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) hops: Vec<Link>,
    /// Whom the client itself connects to: the first hop or, without hops, the destination.
    pub(super) first: Address,
    pub(super) payload_key: Option<Key>,
    /// As the caller wrote it; none for a probe.
    destination: Option<String>,
}

/// One hop, and whom it is to connect to.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) key: Key,
    written: String,
    next: Address,
}

/// What a set of headers is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    pub(super) transport: Transport,
    /// Early data follows.
    pub(super) is_early: bool,
    /// The nonces are anchors.
    pub(super) is_anchor: bool,
}

impl Plan {
    /// A chain to the destination; without one, a probe of the last hop.
    pub(super) fn new(
        destination: Option<&str>,
        hops: &[Hop],
        options: &Options,
    ) -> Result<Self, Error> {
        if hops.len() > MAX_HOPS {
            return Err(Error::of_chain(Reason::TooManyHops(hops.len())));
        }
        if hops.is_empty() && (destination.is_none() || options.payload_key.is_some()) {
            return Err(Error::of_chain(Reason::NoHop));
        }
        let mut addresses = Vec::with_capacity(hops.len() + 1);
        for (index, hop) in hops.iter().enumerate() {
            let address = Address::parse_or(&hop.address, PORT).map_err(|source| Error {
                place: Place::Hop {
                    index: index + 1,
                    address: hop.address.clone(),
                },
                reason: Reason::Address(source),
            })?;
            addresses.push(address);
        }
        match destination {
            Some(text) => addresses.push(text.parse().map_err(|source| Error {
                place: Place::Destination(text.to_owned()),
                reason: Reason::Address(source),
            })?),
            // A probe's last hop connects to nobody, but a request has an address: its own.
            None => addresses.extend(addresses.last().cloned()),
        }
        let mut addresses = addresses.into_iter();
        let Some(first) = addresses.next() else {
            return Err(Error::of_chain(Reason::NoHop));
        };
        let links = hops.iter().zip(addresses).map(|(hop, next)| Link {
            key: hop.key.clone(),
            written: hop.address.clone(),
            next,
        });
        Ok(Self {
            hops: links.collect(),
            first,
            payload_key: options.payload_key.clone(),
            destination: destination.map(str::to_owned),
        })
    }

    /// Appends the headers of all hops and gives their nonces.
    pub(super) fn seal(
        &self,
        out: &mut Vec<u8>,
        purpose: Purpose,
        nonces: &mut Nonces,
    ) -> Result<Vec<Nonce>, Error> {
        let stamp = unix_ms();
        let mut used = Vec::with_capacity(self.hops.len());
        for (index, hop) in self.hops.iter().enumerate() {
            let is_last = self.is_last(index);
            let mut nonce = nonces.next().ok_or(Error::of_chain(Reason::NoRandom))?;
            if purpose.is_anchor {
                make_anchor(&mut nonce);
            }
            let request = Request {
                stamp,
                flags: Flags {
                    probe: is_last && self.destination.is_none(),
                    early: purpose.is_early,
                    sealed: is_last && self.payload_key.is_some(),
                },
                address: hop.next.clone(),
            };
            seal_request(out, &hop.key, purpose.transport, &nonce, &request);
            used.push(nonce);
        }
        Ok(used)
    }

    /// What the response of a hop, counted from 0, means if it is not good.
    pub(super) fn judge(
        &self,
        index: usize,
        opened: Result<Response, Unsealed>,
    ) -> Result<Response, Error> {
        let reason = match opened {
            Ok(response) if response.code == Code::Ok => return Ok(response),
            Ok(Response { code, .. }) => Reason::Said {
                code,
                is_last: self.is_last(index),
            },
            Err(Unsealed::Forged) => Reason::Forged,
            Err(Unsealed::Malformed { error, .. }) => Reason::Malformed(error),
        };
        Err(self.at(index, reason))
    }

    /// A failure of a hop, counted from 0; behind the last one is the destination.
    pub(super) fn at(&self, index: usize, reason: Reason) -> Error {
        let place = match (self.hops.get(index), &self.destination) {
            (Some(hop), _) => Place::Hop {
                index: index + 1,
                address: hop.written.clone(),
            },
            (None, Some(destination)) => Place::Destination(destination.clone()),
            (None, None) => Place::Chain,
        };
        Error { place, reason }
    }

    /// Every address on the way as the caller wrote it, the hops' first.
    pub(super) fn written(&self) -> (Vec<String>, Option<String>) {
        let hops = self.hops.iter().map(|hop| hop.written.clone());
        (hops.collect(), self.destination.clone())
    }

    fn is_last(&self, index: usize) -> bool {
        index + 1 == self.hops.len()
    }
}

/// Now, as requests are stamped. A clock from before 1970 is refused by the hops, as it should be.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
