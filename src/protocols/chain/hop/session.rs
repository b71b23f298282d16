//! One connection that came to the hop.
//!
//! ```text
//!   accept ─> Header ─ own frame ─> Dialling ─ connected: ok ─> Relaying, or Sealing ─> end
//!               │  │                   └─ not: code, FIN, what still comes is dropped ──> end
//!               │  ├─ a probe: ok ─> Echoing ─> end
//!               │  ├─ malformed, overloaded: code, FIN ──> end
//!               │  └─ no key, stale, repeated ─> Silent ─ 5 to 15 s ──> end without a byte
//!               └─ header_timeout, end of stream ──> end without a byte
//! ```
//!
//! What follows the header is not looked at: it waits in the connection and goes the way of the relay.

use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::sealing::Sealing;
use super::super::wire::{
    Address, Code, HEAD, MAX_LENGTH, Nonce, Request, Response, Side, Transport, frame_len, records,
};
use super::{Heard, Hop, NO_LENGTH, code_of, millis, target_of};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::session::{Cause, Close, Cx, Event, Session};
use crate::upstream::{Dialling, Progress, Targets};

/// One connection of the hop. As a relayed pair may be idle for hours, it keeps little then.
pub(in super::super) struct HopSession {
    hop: Rc<Hop>,
    state: State,
    /// Where it leads, once that is known.
    to: Option<Address>,
}

enum State {
    Fresh,
    Header,
    /// Boxed, so that its memory is free again when it is over.
    Dialling(Box<Dial>),
    Relaying(ConnKey),
    Sealing(Box<Sealing>),
    /// A probe: what comes is sent back.
    Echoing,
    /// Nobody: what comes is dropped.
    Silent(&'static str),
}

/// A request that is being served.
struct Dial {
    client: ConnKey,
    dialling: Dialling,
    nonce: Nonce,
    is_sealed: bool,
    /// The client has ended without a byte that waits; it will not be told again.
    client_ended: bool,
    since: Instant,
}

impl HopSession {
    /// A session that awaits its connection.
    pub(in super::super) fn new(hop: Rc<Hop>) -> Self {
        Self {
            hop,
            state: State::Fresh,
            to: None,
        }
    }

    /// Takes the own header off the stream when it is whole.
    fn read_header(
        &mut self,
        conn: ConnKey,
        rx: &mut Ring,
        last: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let mut frame = [0; HEAD + MAX_LENGTH];
        let known = rx.copy_to(0, &mut frame);
        let len = match frame_len(&frame[..known]) {
            Ok(Some(len)) if len <= known => len,
            Ok(_) if last => return Err(Close::downstream(Cause::Truncated)),
            Ok(_) => return Ok(()),
            Err(_) => {
                rx.consume(rx.len());
                return self.fall_silent(NO_LENGTH, cx);
            }
        };
        match self.hop.hear(Transport::Tcp, &frame[..len], cx) {
            Heard::Stranger(why) => {
                rx.consume(rx.len());
                self.fall_silent(why, cx)
            }
            Heard::Refused(nonce, code) => {
                rx.consume(len);
                self.refuse(conn, &nonce, code, Duration::ZERO, cx)
            }
            Heard::Request(nonce, request) => {
                rx.consume(len);
                cx.disarm(TIMER);
                self.serve(conn, nonce, request, cx)
            }
        }
    }

    fn serve(
        &mut self,
        client: ConnKey,
        nonce: Nonce,
        request: Request,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        if request.flags.probe {
            self.tell(client, &nonce, Code::Ok, Duration::ZERO, cx)?;
            self.state = State::Echoing;
            cx.arm(TIMER, self.hop.rules.header_timeout);
            cx.resume(client);
            return Ok(());
        }
        let rules = &self.hop.rules;
        let targets = Targets::screened(
            target_of(&request.address),
            rules.dial_timeout,
            self.hop.names.clone(),
            Rc::clone(&self.hop.screen),
        );
        self.to = Some(request.address);
        let (dialling, progress) = Dialling::start(&targets, cx);
        self.state = State::Dialling(Box::new(Dial {
            client,
            dialling,
            nonce,
            is_sealed: request.flags.sealed,
            client_ended: false,
            since: cx.now,
        }));
        self.dialled(progress, cx)
    }

    fn dialled(&mut self, progress: Progress, cx: &mut Cx<'_>) -> Result<(), Close> {
        let State::Dialling(dial) = &self.state else {
            return Ok(());
        };
        let (client, nonce, is_sealed) = (dial.client, dial.nonce, dial.is_sealed);
        let client_ended = dial.client_ended;
        let took = cx.now.saturating_duration_since(dial.since);
        match progress {
            Progress::Waiting => Ok(()),
            Progress::Failed(failure) => {
                let code = code_of(failure);
                self.tell(client, &nonce, code, took, cx)?;
                Err(Close::upstream(failure.into()).told())
            }
            Progress::Connected(upstream) => {
                let answered = self.tell(client, &nonce, Code::Ok, took, cx)?;
                let rules = &self.hop.rules;
                if is_sealed || rules.throttle.is_some() {
                    cx.pace(client, upstream, rules.throttle.iter().cloned().collect());
                }
                match rules.payload_key.as_ref().filter(|_| is_sealed) {
                    None => {
                        self.state = State::Relaying(client);
                        cx.relay_within(client, upstream, rules.silence);
                    }
                    Some(key) => {
                        let seals = records(key, Side::Hop, &nonce, &answered);
                        let mut sealing =
                            Sealing::start(client, upstream, seals, rules.silence, cx);
                        let early_end = match client_ended {
                            true => sealing.handle(Event::Eof { conn: client }, cx),
                            false => Ok(()),
                        };
                        self.state = State::Sealing(Box::new(sealing));
                        return early_end;
                    }
                }
                Ok(())
            }
        }
    }

    /// Ends with an answer: no reset may eat it.
    fn refuse(
        &self,
        conn: ConnKey,
        nonce: &Nonce,
        code: Code,
        took: Duration,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        self.tell(conn, nonce, code, took, cx)?;
        Err(Close::downstream(match code {
            Code::Overloaded => Cause::Overload("nonces"),
            _ => Cause::Denied("the header is malformed, or wants a payload key"),
        })
        .told())
    }

    /// Answers; the nonce of the answer.
    fn tell(
        &self,
        conn: ConnKey,
        request: &Nonce,
        code: Code,
        took: Duration,
        cx: &mut Cx<'_>,
    ) -> Result<Nonce, Close> {
        let dial = millis(took);
        let response = Response { code, dial };
        let mut frame = Vec::new();
        let nonce = self
            .hop
            .answer(&mut frame, Transport::Tcp, request, response);
        let nonce = nonce.ok_or(Close::own(Cause::Overload("random bytes")))?;
        cx.send(conn, &frame);
        Ok(nonce)
    }

    /// From now on nothing is answered, and the connection stays for a random time: nobody learns
    /// what was wrong, nor after how many bytes it was.
    fn fall_silent(&mut self, why: &'static str, cx: &mut Cx<'_>) -> Result<(), Close> {
        if !self.hop.keep_silent() {
            return Err(Close::downstream(Cause::Denied(why)));
        }
        self.state = State::Silent(why);
        let spread = SILENCE_MOST - SILENCE_LEAST;
        let part = (cx.random() >> 32) as u32;
        cx.arm(
            TIMER,
            SILENCE_LEAST + spread.mul_f64(f64::from(part) / f64::from(u32::MAX)),
        );
        Ok(())
    }

    fn timer(&self) -> Result<(), Close> {
        Err(match self.state {
            State::Silent(why) => Close::downstream(Cause::Denied(why)),
            State::Echoing => Close::finished(),
            _ => Close::downstream(Cause::Deadline("handshake")),
        })
    }
}

impl Session for HopSession {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (&mut self.state, event) {
            (State::Fresh, Event::Accepted { .. }) => {
                self.state = State::Header;
                cx.arm(TIMER, self.hop.rules.header_timeout);
                Ok(())
            }
            (State::Header, Event::Data { conn, rx, last }) => self.read_header(conn, rx, last, cx),
            (State::Sealing(sealing), event) => sealing.handle(event, cx),
            (State::Echoing, Event::Data { conn, rx, .. }) => {
                echo(conn, rx, cx);
                Ok(())
            }
            (State::Silent(_), Event::Data { rx, .. }) => {
                rx.consume(rx.len());
                Ok(())
            }
            (State::Silent(why), Event::Eof { .. }) => Err(Close::downstream(Cause::Denied(why))),
            (State::Echoing, Event::Eof { .. }) => Err(Close::finished()),
            (State::Header, Event::Eof { .. }) => Err(Close::finished()),
            (_, Event::Timer { .. }) => self.timer(),
            (_, Event::Relayed(relayed)) => Err(relayed.into()),
            (State::Relaying(client), Event::Lost { conn, why }) if conn != *client => {
                Err(Close::upstream(Cause::Io("connection", why)))
            }
            (_, Event::Lost { why, .. }) => Err(Close::downstream(Cause::Io("connection", why))),
            // Nobody has asked for anything yet.
            (State::Header | State::Silent(_) | State::Echoing, Event::Stopping) => {
                Err(Close::own(Cause::Stopping))
            }
            (State::Dialling(dial), Event::Eof { conn }) if conn == dial.client => {
                dial.client_ended = true;
                Ok(())
            }
            (State::Dialling(dial), event) => {
                let progress = dial.dialling.handle(&event, cx);
                self.dialled(progress, cx)
            }
            _ => Ok(()),
        }
    }

    fn describe(&self, out: &mut String) {
        if let Some(to) = &self.to {
            // Writing to a string cannot fail.
            let _ = write!(out, " to={to}");
        }
        if let State::Sealing(sealing) = &self.state {
            sealing.describe(out);
        }
    }

    fn leave(&mut self, _: &mut Cx<'_>) {
        if let State::Silent(_) = self.state {
            self.hop.leave_silence();
        }
    }
}

/// Sends back what a probe has sent, as it takes it.
fn echo(conn: ConnKey, rx: &mut Ring, cx: &mut Cx<'_>) {
    let room = cx.room(conn, ECHO);
    let count = rx.len().min(room);
    cx.forward(rx, conn, count);
    if !rx.is_empty() {
        cx.await_room(conn, conn, ECHO / 2);
    }
}

/// The session's only timer, until bytes flow.
const TIMER: u8 = 0;

/// How long a connection without a key is kept at least.
const SILENCE_LEAST: Duration = Duration::from_secs(5);

/// How long it is kept at most.
const SILENCE_MOST: Duration = Duration::from_secs(15);

/// Bytes of a probe's echo that may wait to be taken.
const ECHO: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_pair_costs_its_session_little() {
        assert!(size_of::<HopSession>() <= 72, "{}", size_of::<HopSession>());
    }
}
