//! Both sides prove that they know the token, and neither says it.
//!
//! The server's proof does not cover its status byte: whoever can change that byte on the way can end
//! the connection as well. A refusal is therefore believed as it comes, a welcome only with its proof.

use std::fmt;

use ring::hmac;

use super::{CLIENT_ID, ClientId, Kind, Status, UUID, Uuid};
use crate::wire::{Reader, WireError};

/// The secret that servers and clients share, ready for use.
#[derive(Clone)]
pub struct Token(hmac::Key);

impl Token {
    /// The token of these bytes, as they stand in the configuration. Empty is one, too.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    fn prove(&self, message: &[u8]) -> [u8; PROOF] {
        let mut proof = [0; PROOF];
        let tag = hmac::sign(&self.0, message);
        // Both are 32 bytes; a zip cannot go wrong where a copy could.
        proof
            .iter_mut()
            .zip(tag.as_ref())
            .for_each(|(to, from)| *to = *from);
        proof
    }

    /// In a time that does not depend on how much of the proof is right.
    fn is_proved(&self, message: &[u8], proof: &[u8; PROOF]) -> bool {
        hmac::verify(&self.0, message, proof).is_ok()
    }
}

/// Without the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// Which service a connection for frames belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The control connection's session, as its Welcome told it.
    pub session: Uuid,
    /// The service's number there, as its Exposed told it.
    pub service: u16,
}

/// What a client claims its connection to be; the proof covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// A control connection.
    Control,
    /// Frames to the server, of this service.
    Send(Place),
    /// Frames from the server, of this service.
    Receive(Place),
}

impl Claim {
    /// The kind of connection, as the preamble said it.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Control => Kind::Control,
            Self::Send(_) => Kind::Send,
            Self::Receive(_) => Kind::Receive,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        if let Self::Send(place) | Self::Receive(place) = self {
            out.extend_from_slice(place.session.as_bytes());
            out.extend_from_slice(&place.service.to_le_bytes());
        }
    }
}

/// The client's answer to the server's challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who the client says it is. Whoever knows the token may say anything here.
    pub client: ClientId,
    /// What the server has to prove the token with.
    pub nonce: [u8; NONCE],
    /// What the connection is for.
    pub claim: Claim,
    proof: [u8; PROOF],
}

impl Answer {
    /// Answers a challenge. The nonce is random and used once.
    pub fn new(
        token: &Token,
        challenge: &[u8; CHALLENGE],
        claim: Claim,
        client: ClientId,
        nonce: [u8; NONCE],
    ) -> Self {
        let mut answer = Self {
            client,
            nonce,
            claim,
            proof: [0; PROOF],
        };
        answer.proof = token.prove(&answer.message(challenge));
        answer
    }

    /// Reads an answer on a connection of this kind; `Ok(None)` is "not yet". A data connection has
    /// none.
    pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let Some(bytes) = bytes.get(..Self::len(kind)?) else {
            return Ok(None);
        };
        let mut reader = Reader::new(bytes);
        let client = ClientId::new(reader.array("client id")?);
        let nonce = reader.array("nonce")?;
        let proof = reader.array("proof")?;
        let mut place = || {
            Ok(Place {
                session: Uuid::from_bytes(reader.array("session")?),
                service: reader.u16_le("service")?,
            })
        };
        let claim = match kind {
            Kind::Send => Claim::Send(place()?),
            Kind::Receive => Claim::Receive(place()?),
            Kind::Control | Kind::Data => Claim::Control,
        };
        Ok(Some(Self {
            client,
            nonce,
            claim,
            proof,
        }))
    }

    /// Bytes of an answer on a connection of this kind.
    pub const fn len(kind: Kind) -> Result<usize, WireError> {
        match kind {
            Kind::Control => Ok(CLIENT_ID + NONCE + PROOF),
            Kind::Send | Kind::Receive => Ok(CLIENT_ID + NONCE + PROOF + PLACE),
            Kind::Data => Err(WireError::BadValue {
                field: "connection kind",
                value: kind.byte() as u64,
            }),
        }
    }

    /// Appends the answer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.client.as_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.proof);
        self.claim.write(out);
    }

    /// Whether the client knows the token, and has answered this challenge.
    pub fn is_proved(&self, token: &Token, challenge: &[u8; CHALLENGE]) -> bool {
        token.is_proved(&self.message(challenge), &self.proof)
    }

    fn message(&self, challenge: &[u8; CHALLENGE]) -> Vec<u8> {
        let kind = [self.claim.kind().byte()];
        let parts = [
            CLIENT_LABEL,
            &kind,
            challenge,
            &self.nonce,
            self.client.as_bytes(),
        ];
        let mut message = parts.concat();
        self.claim.write(&mut message);
        message
    }
}

/// How the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it says.
    pub status: Status,
    proof: [u8; PROOF],
}

impl Reply {
    /// To a client that has proved the token; only to such a one.
    pub fn proved(
        status: Status,
        token: &Token,
        challenge: &[u8; CHALLENGE],
        nonce: &[u8; NONCE],
    ) -> Self {
        let proof = token.prove(&server_message(challenge, nonce));
        Self { status, proof }
    }

    /// A refusal to somebody who has not.
    pub const fn unproved(status: Status) -> Self {
        let proof = [0; PROOF];
        Self { status, proof }
    }

    /// Reads a reply; `None` is "not yet".
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[status], rest) = bytes.split_first_chunk()?;
        Some(Self {
            status: Status::from_byte(status),
            proof: *rest.first_chunk()?,
        })
    }

    /// The bytes of this reply.
    pub fn encode(&self) -> [u8; REPLY] {
        let mut bytes = [0; REPLY];
        let (status, proof) = bytes.split_at_mut(1);
        status.copy_from_slice(&[self.status.byte()]);
        proof.copy_from_slice(&self.proof);
        bytes
    }

    /// The client's judgement: welcome, and by a server that knows the token, or why not.
    pub fn check(
        &self,
        token: &Token,
        challenge: &[u8; CHALLENGE],
        nonce: &[u8; NONCE],
    ) -> Result<(), Denied> {
        match self.status {
            Status::Ok if self.is_proved(token, challenge, nonce) => Ok(()),
            Status::Ok => Err(Denied::Impostor),
            status => Err(Denied::Refused(status)),
        }
    }

    /// Whether the server knows the token. Of a refusal it need not be true.
    pub fn is_proved(
        &self,
        token: &Token,
        challenge: &[u8; CHALLENGE],
        nonce: &[u8; NONCE],
    ) -> bool {
        token.is_proved(&server_message(challenge, nonce), &self.proof)
    }
}

fn server_message(challenge: &[u8; CHALLENGE], nonce: &[u8; NONCE]) -> Vec<u8> {
    [SERVER_LABEL, nonce, challenge].concat()
}

/// Why a client goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The server says no.
    Refused(Status),
    /// The server says yes and does not know the token.
    Impostor,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => status.fmt(f),
            Self::Impostor => f.write_str("the server does not know the token"),
        }
    }
}

impl std::error::Error for Denied {}

/// Bytes of the server's challenge.
pub const CHALLENGE: usize = 32;

/// Bytes of the client's nonce.
pub const NONCE: usize = 32;

/// Bytes of a proof.
pub const PROOF: usize = 32;

/// Bytes of a [`Reply`].
pub const REPLY: usize = 1 + PROOF;

const PLACE: usize = UUID + 2;

/// Behind it comes a kind, in the other one a space: no proof of one side is one of the other.
const CLIENT_LABEL: &[u8] = b"towpath tunnel 1";

const SERVER_LABEL: &[u8] = b"towpath tunnel 1 server";
