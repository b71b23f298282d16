//! A connection that came to the tunnel port: who is it, and where does it belong?
//!
//! ```text
//!   Hello ──D──> Attaching ── ticket ──> handed to whom it was opened for
//!     └─C,S,R──> Proving ──┬─ proved, C ──> Control: this session goes on as that
//!                          ├─ proved, S or R ──> handed to whoever serves the frames
//!                          └─ wrong ──> told, late where the address has done so often
//! ```
//!
//! Nothing is allocated for a connection but itself until it has proved that it knows the token, or has
//! shown a ticket; and all of that has to be done within `handshake_timeout`.

use std::cell::RefCell;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::super::frames::drop_half;
use super::super::tickets::Wanted;
use super::super::wire::{
    ATTACH, Answer, Attach, CHALLENGE, Claim, Hello, Kind, PREAMBLE, Reply, Status,
};
use super::control::Control;
use super::desk::Desk;
use super::lobby::Lobby;
use super::words::Word;
use super::wrongs::Patience;
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::session::{Cause, Close, Cx, Event, Mail, Session};

/// The session of a connection to the tunnel port.
pub(super) struct Entrance {
    desk: Rc<RefCell<Desk>>,
    lobby: Arc<Lobby>,
    stage: Stage,
    peer: Option<SocketAddr>,
    /// Its place among those that have proved nothing.
    place: Option<u64>,
    /// For the log: what it turned out to be.
    word: &'static str,
}

enum Stage {
    Fresh,
    Hello,
    Attaching,
    Proving(Kind, [u8; CHALLENGE]),
    /// It will be told that its proof is wrong.
    Late(ConnKey),
    Control(Box<Control>),
    Handed,
}

impl Entrance {
    pub(super) fn new(desk: Rc<RefCell<Desk>>) -> Self {
        let lobby = Arc::clone(&desk.borrow().lobby);
        Self {
            desk,
            lobby,
            stage: Stage::Fresh,
            peer: None,
            place: None,
            word: "unproved",
        }
    }

    fn begin(&mut self, peer: SocketAddr, cx: &mut Cx<'_>) -> Result<(), Close> {
        self.peer = Some(peer);
        if self.lobby.wrongs.patience(peer.ip(), cx.now) == Patience::None {
            return Err(denied("too many wrong tokens"));
        }
        let (place, oldest) = self.desk.borrow_mut().arrive(cx.handle);
        self.place = Some(place);
        if let Some(oldest) = oldest {
            cx.post(oldest, Mail::new(Word::MakeRoom));
        }
        cx.arm(DEADLINE, self.lobby.rules().handshake_timeout);
        self.stage = Stage::Hello;
        Ok(())
    }

    fn read(&mut self, conn: ConnKey, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        loop {
            match &self.stage {
                Stage::Hello => {
                    let mut bytes = [0; PREAMBLE];
                    let have = rx.copy_to(0, &mut bytes);
                    let Some(hello) = Hello::decode(&bytes[..have])? else {
                        return Ok(());
                    };
                    rx.consume(PREAMBLE);
                    self.greet(conn, hello, cx)?;
                }
                Stage::Attaching => {
                    let mut bytes = [0; ATTACH];
                    let have = rx.copy_to(0, &mut bytes);
                    let Some(attach) = Attach::decode(&bytes[..have]) else {
                        return Ok(());
                    };
                    rx.consume(ATTACH);
                    return self.attach(conn, &attach, cx);
                }
                Stage::Proving(kind, challenge) => {
                    let (kind, challenge) = (*kind, *challenge);
                    let mut bytes = vec![0; Answer::len(kind)?];
                    let have = rx.copy_to(0, &mut bytes);
                    let Some(answer) = Answer::decode(kind, &bytes[..have])? else {
                        return Ok(());
                    };
                    rx.consume(bytes.len());
                    self.judge(conn, &answer, &challenge, cx)?;
                }
                Stage::Control(_) => {
                    let Stage::Control(control) = &mut self.stage else {
                        return Ok(());
                    };
                    return control.read(rx, cx);
                }
                Stage::Fresh | Stage::Late(_) | Stage::Handed => return Ok(()),
            }
        }
    }

    fn greet(&mut self, conn: ConnKey, hello: Hello, cx: &mut Cx<'_>) -> Result<(), Close> {
        if let Hello::Known(Kind::Data) = hello {
            self.stage = Stage::Attaching;
            return Ok(());
        }
        let Some(challenge) = self.lobby.random() else {
            return Err(Close::own(Cause::Overload("no random bytes")));
        };
        cx.send(conn, &challenge);
        match hello {
            Hello::Known(kind) => {
                self.stage = Stage::Proving(kind, challenge);
                Ok(())
            }
            Hello::Foreign(_) => {
                cx.send(conn, &Reply::unproved(Status::BadVersion).encode());
                Err(denied("another version").told())
            }
        }
    }

    /// A data connection shows its ticket.
    fn attach(&mut self, conn: ConnKey, attach: &Attach, cx: &mut Cx<'_>) -> Result<(), Close> {
        let tickets = &self.lobby.tickets;
        let Some(purpose) = tickets.take(&attach.ticket, attach.uuid, cx.now) else {
            return Err(denied("no such ticket"));
        };
        self.word = match purpose.wanted {
            Wanted::Visit { .. } => "data",
            Wanted::Pool => "pooled",
        };
        self.hand_over(conn, purpose.to, Word::Data, cx)
    }

    fn hand_over(
        &mut self,
        conn: ConnKey,
        to: crate::reactor::Handle,
        word: Word,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        self.settle();
        self.stage = Stage::Handed;
        cx.hand(conn, to, Mail::new(word));
        Err(Close::handed_on())
    }

    /// Takes a client's proof.
    fn judge(
        &mut self,
        conn: ConnKey,
        answer: &Answer,
        challenge: &[u8; CHALLENGE],
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let lobby = Arc::clone(&self.lobby);
        let rules = lobby.rules();
        let token = &rules.token;
        if !answer.is_proved(token, challenge) {
            return self.refuse(conn, cx);
        }
        let reply = |status| Reply::proved(status, token, challenge, &answer.nonce).encode();
        self.settle();
        match answer.claim {
            Claim::Control => {
                let full = {
                    let mut desk = self.desk.borrow_mut();
                    let full = desk.clients >= lobby.rules().max_clients;
                    desk.clients += usize::from(!full);
                    full
                };
                if full {
                    cx.send(conn, &reply(Status::Overloaded));
                    return Err(Close::own(Cause::Overload("clients")).told());
                }
                self.word = "control";
                cx.send(conn, &reply(Status::Ok));
                cx.disarm(DEADLINE);
                let desk = Rc::clone(&self.desk);
                let control = Control::begin(desk, conn, answer.client, cx)?;
                self.stage = Stage::Control(Box::new(control));
                Ok(())
            }
            Claim::Send(place) | Claim::Receive(place) => {
                self.word = "frames";
                let Some(to) = lobby.place(&place, &answer.client) else {
                    cx.send(conn, &reply(Status::UnknownPlace));
                    return Err(denied("no such session or service").told());
                };
                cx.send(conn, &reply(Status::Ok));
                self.hand_over(conn, to, Word::Frames(answer.claim.kind()), cx)
            }
        }
    }

    /// The proof is wrong.
    fn refuse(&mut self, conn: ConnKey, cx: &mut Cx<'_>) -> Result<(), Close> {
        let patience = match self.peer {
            Some(peer) => {
                self.lobby.wrongs.note(peer.ip(), cx.now);
                self.lobby.wrongs.patience(peer.ip(), cx.now)
            }
            None => Patience::Usual,
        };
        if patience == Patience::Usual {
            return self.tell_wrong(conn, cx);
        }
        // It stays among the unproved meanwhile.
        self.stage = Stage::Late(conn);
        cx.arm(DEADLINE, PENANCE.min(self.lobby.rules().handshake_timeout));
        Ok(())
    }

    fn tell_wrong(&self, conn: ConnKey, cx: &mut Cx<'_>) -> Result<(), Close> {
        cx.send(conn, &Reply::unproved(Status::WrongToken).encode());
        Err(denied("wrong token").told())
    }

    fn expire(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        match self.stage {
            Stage::Late(conn) => self.tell_wrong(conn, cx),
            _ => Err(Close::downstream(Cause::Deadline("handshake"))),
        }
    }

    fn settle(&mut self) {
        if let Some(place) = self.place.take() {
            self.desk.borrow_mut().settle(place);
        }
    }
}

impl Session for Entrance {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Accepted { peer, .. } => return self.begin(peer, cx),
            Event::Data { conn, rx, last } if !self.is_foreign(conn) => {
                self.read(conn, rx, cx)?;
                let holds_back = match &self.stage {
                    Stage::Control(control) => control.holds_back(cx),
                    _ => false,
                };
                drop_half(rx, last && !holds_back);
                return Ok(());
            }
            other => {
                if let Stage::Control(control) = &mut self.stage {
                    return control.handle(other, cx);
                }
                match other {
                    Event::Timer { .. } => return self.expire(cx),
                    Event::Eof { .. } => return Err(Close::downstream(Cause::Truncated)),
                    Event::Lost { why, .. } => {
                        return Err(Close::downstream(Cause::Io("handshake", why)));
                    }
                    Event::Mail { .. } => {
                        return Err(Close::own(Cause::Overload("unproved connections")));
                    }
                    Event::Stopping => return Err(Close::own(Cause::Stopping)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(out, " {}", self.word);
        if let Stage::Control(control) = &self.stage {
            control.describe(out);
        }
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.settle();
        if let Stage::Control(control) = &mut self.stage {
            control.leave(cx);
        }
    }
}

impl Entrance {
    /// Whether a connection is one of the control connection's pool.
    fn is_foreign(&self, conn: ConnKey) -> bool {
        match &self.stage {
            Stage::Control(control) => !control.is_own(conn),
            _ => false,
        }
    }
}

fn denied(why: &'static str) -> Close {
    Close::downstream(Cause::Denied(why))
}

/// The handshake takes too long; later it is the control connection's.
const DEADLINE: u8 = 0;

/// How much later an address is told that its proof is wrong, when it has done so often.
const PENANCE: Duration = Duration::from_secs(1);
