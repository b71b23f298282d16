//! The client's connections for the frames of one service: dialled and proved one after the other.
//!
//! ```text
//!   S: dial ─> preamble ─> challenge ─> answer ─> welcome ──> R: the same ──> Joined
//! ```

use std::rc::Rc;

use super::super::wire::{
    Answer, CHALLENGE, Claim, Denied, NONCE, Place, REPLY, Reply, Status, Uuid,
};
use super::Rules;
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::session::{Cause, Close, Cx, Event};
use crate::upstream::{Dialling, Progress};

/// Two connections on their way.
pub(super) struct Joining {
    rules: Rc<Rules>,
    place: Place,
    dialling: Option<Dialling>,
    /// The one that sends, once it is welcome.
    sending: Option<ConnKey>,
    present: Option<(ConnKey, Proof)>,
}

enum Proof {
    Awaited,
    Given([u8; CHALLENGE], [u8; NONCE]),
}

/// How far it has come.
pub(super) enum Joined {
    NotYet,
    /// The one to send by and the one to receive by.
    Both(ConnKey, ConnKey),
}

impl Joining {
    pub(super) fn start(
        rules: &Rc<Rules>,
        (session, service): (Uuid, u16),
        cx: &mut Cx<'_>,
    ) -> (Self, Result<(), Close>) {
        let mut joining = Self {
            rules: Rc::clone(rules),
            place: Place { session, service },
            dialling: None,
            sending: None,
            present: None,
        };
        cx.arm(super::trunk::PATIENCE, rules.handshake_timeout * 4);
        let dialled = joining.dial(cx);
        (joining, dialled)
    }

    /// Whether a connection is one of these.
    pub(super) fn is_own(&self, conn: ConnKey) -> bool {
        let present = self.present.as_ref().map(|(conn, _)| *conn);
        [self.sending, present].contains(&Some(conn))
    }

    /// Gives both up.
    pub(super) fn abandon(self, cx: &mut Cx<'_>) {
        let present = self.present.map(|(conn, _)| conn);
        for conn in self.sending.into_iter().chain(present) {
            cx.close(conn);
        }
    }

    fn dial(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let (dialling, progress) = Dialling::start(&self.rules.server, cx);
        self.dialling = Some(dialling);
        self.advance(progress, cx)
    }

    fn claim(&self) -> Claim {
        match self.sending {
            None => Claim::Send(self.place),
            Some(_) => Claim::Receive(self.place),
        }
    }

    fn advance(&mut self, progress: Progress, cx: &mut Cx<'_>) -> Result<(), Close> {
        match progress {
            Progress::Waiting => Ok(()),
            Progress::Connected(conn) => {
                self.dialling = None;
                cx.send(conn, &self.claim().kind().preamble());
                self.present = Some((conn, Proof::Awaited));
                Ok(())
            }
            Progress::Failed(why) => Err(Close::upstream(why.into())),
        }
    }

    /// Takes an event that may be of the connect.
    pub(super) fn handle(&mut self, event: &Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        let Some(dialling) = &mut self.dialling else {
            return Ok(());
        };
        let progress = dialling.handle(event, cx);
        self.advance(progress, cx)
    }

    /// Reads what the server says to one of them.
    pub(super) fn read(&mut self, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<Joined, Close> {
        let claim = self.claim();
        let Some((conn, proof)) = &mut self.present else {
            return Ok(Joined::NotYet);
        };
        let conn = *conn;
        if let Proof::Awaited = proof {
            let mut challenge = [0; CHALLENGE];
            if rx.copy_to(0, &mut challenge) < CHALLENGE {
                return Ok(Joined::NotYet);
            }
            rx.consume(CHALLENGE);
            let Some(nonce) = self.rules.random() else {
                return Err(Close::own(Cause::Overload("no random bytes")));
            };
            let (token, client) = (&self.rules.token, self.rules.client);
            let answer = Answer::new(token, &challenge, claim, client, nonce);
            let mut bytes = Vec::new();
            answer.encode(&mut bytes);
            cx.send(conn, &bytes);
            *proof = Proof::Given(challenge, nonce);
        }
        let Proof::Given(challenge, nonce) = proof else {
            return Ok(Joined::NotYet);
        };
        let mut bytes = [0; REPLY];
        let have = rx.copy_to(0, &mut bytes);
        let Some(reply) = Reply::decode(&bytes[..have]) else {
            return Ok(Joined::NotYet);
        };
        rx.consume(REPLY);
        let checked = reply.check(&self.rules.token, challenge, nonce);
        checked.map_err(|denied| {
            let word = match denied {
                Denied::Refused(Status::UnknownPlace) => "unknown place",
                Denied::Refused(_) => "connection for frames",
                Denied::Impostor => "the server does not know the token",
            };
            Close::upstream(Cause::Denied(word))
        })?;
        self.present = None;
        match self.sending {
            Some(sending) => Ok(Joined::Both(sending, conn)),
            None => {
                self.sending = Some(conn);
                self.dial(cx)?;
                Ok(Joined::NotYet)
            }
        }
    }
}
