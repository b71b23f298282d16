//! One client's connection through an access listener.
//!
//! ```text
//!   accept ─> Asking (SOCKS5, HTTP) ─> Passing ── all hops ok ──> Relaying, or Sealing ─> end
//!                  │                      │ └─ a chain is broken: the next chain
//!                  │                      └─ failed: the client is told as far as it can be ──> end
//!                  └─ UDP ASSOCIATE ─> Associated ─> end
//! ```
//!
//! What the client sends waits unread until it is connected; then it goes the way of the relay.

use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;

use super::super::passage::{Failed, Responses, Why, Wish};
use super::super::sealing::Sealing;
use super::super::wire::{Address, Side, Transport, records};
use super::association::Association;
use super::front::{Asked, Front};
use super::{Door, MOST_ASSOCIATED, stamp};
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::session::{Cause, Close, Cx, Event, Session};
use crate::stats::Metric;
use crate::upstream::{Dialling, Progress, introduce, introduction};

/// One connection of an access listener. As a relayed pair may be idle for hours, it keeps nothing
/// then but where it leads.
pub(in super::super) struct AccessSession {
    door: Rc<Door>,
    state: State,
    /// Where it leads, once that is known.
    to: Option<Address>,
    /// What failed last.
    failed: Option<(u8, Failed)>,
    /// Which of the listener's addresses the client came to.
    at: usize,
}

enum State {
    /// The first event is still to come.
    Fresh,
    Asking(SocketAddr, Front),
    /// Boxed, so that its memory is free again when it is over.
    Passing(Box<Passing>),
    Relaying(ConnKey),
    Sealing(Box<Sealing>),
    Associated(Box<Association>),
}

/// A chain that is being opened.
struct Passing {
    client: ConnKey,
    front: Front,
    /// The present chain, and a bit for each that was tried.
    route: usize,
    tried: u16,
    /// The number of the present destination, where the listener says it, and those still to be tried,
    /// the next one last.
    at: Option<usize>,
    untried: Vec<usize>,
    /// Bytes of the client have left: no other chain may have them.
    is_spent: bool,
    /// The client has ended without a byte that waits; it will not be told again.
    client_ended: bool,
    /// What was tried to be dialled, so that a late answer is known for what it is.
    attempts: u32,
    stage: Stage,
}

enum Stage {
    /// Between two tries.
    Idle,
    Dialling(Dialling),
    /// What the client has sent is about to be offered, to leave with the headers.
    Collecting(ConnKey),
    Waiting(ConnKey, Responses),
}

impl AccessSession {
    /// A session that awaits its connection.
    pub(in super::super) fn new(door: Rc<Door>, at: usize) -> Self {
        Self {
            door,
            at,
            state: State::Fresh,
            to: None,
            failed: None,
        }
    }

    fn accepted(
        &mut self,
        client: ConnKey,
        peer: SocketAddr,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let front = Front::of(self.door.protocol);
        if front != Front::Plain {
            self.state = State::Asking(peer, front);
            cx.arm(TIMER, self.door.times.handshake);
            return Ok(());
        }
        let mut untried = self.door.turns.order(cx.now);
        untried.reverse();
        self.pass(client, front, untried, cx)
    }

    fn ask(&mut self, conn: ConnKey, rx: &mut Ring, cx: &mut Cx<'_>) -> Result<(), Close> {
        let State::Asking(peer, front) = &mut self.state else {
            return Ok(());
        };
        let asked = front.read(&self.door, conn, rx, cx)?;
        let (peer, front) = (*peer, *front);
        match asked {
            None => Ok(()),
            Some(Asked::Connect(address)) => {
                self.to = Some(address);
                self.pass(conn, front, Vec::new(), cx)
            }
            Some(Asked::Associate) => {
                cx.disarm(TIMER);
                let at = self.door.bound[self.at];
                let most = self.door.access.max_flows.min(MOST_ASSOCIATED);
                let association = Association::start(at, peer, conn, most, cx)?;
                // What stands behind the request, and with it the end, is not offered again by itself.
                cx.resume(conn);
                self.state = State::Associated(Box::new(association));
                Ok(())
            }
        }
    }

    /// Begins with the first chain, and the last of the destinations.
    fn pass(
        &mut self,
        client: ConnKey,
        front: Front,
        mut untried: Vec<usize>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let random = cx.random();
        let route = self.door.routes.choose(0, random).unwrap_or_default();
        let at = untried.pop();
        if let Some(at) = at {
            self.to = self.door.to.get(at).cloned();
        }
        let passing = Passing {
            client,
            front,
            route,
            tried: 0,
            at,
            untried,
            is_spent: false,
            client_ended: false,
            attempts: 0,
            stage: Stage::Idle,
        };
        self.begin(Box::new(passing), cx)
    }

    /// Dials the first hop of a chain, or the destination.
    fn begin(&mut self, mut passing: Box<Passing>, cx: &mut Cx<'_>) -> Result<(), Close> {
        let Some(to) = &self.to else {
            return Err(Close::own(Cause::Denied("no destination")));
        };
        let route = passing.route;
        let targets = self.door.targets(route, to);
        let (dialling, progress) = Dialling::start_behind(passing.attempts, &targets, cx);
        let hops = self.door.routes.list[route].hops.len() as u32;
        match hops {
            // The dialling has its own bounds.
            0 => cx.disarm(TIMER),
            hops => cx.arm(TIMER, self.door.times.hop * (hops + 1)),
        }
        passing.tried |= 1 << route;
        passing.stage = Stage::Dialling(dialling);
        self.state = State::Passing(passing);
        self.dialled(progress, cx)
    }

    fn dialled(&mut self, progress: Progress, cx: &mut Cx<'_>) -> Result<(), Close> {
        let State::Passing(passing) = &mut self.state else {
            return Ok(());
        };
        match progress {
            Progress::Waiting => Ok(()),
            Progress::Failed(failure) => {
                let why = Why::Dial(failure);
                self.fail(None, Failed { hop: 0, why }, cx)
            }
            Progress::Connected(first) => {
                if self.door.routes.list[passing.route].hops.is_empty() {
                    return self.connected(first, None, cx);
                }
                if self.door.access.early_data && cx.unread(passing.client) > 0 {
                    passing.stage = Stage::Collecting(first);
                    cx.resume(passing.client);
                    return Ok(());
                }
                self.send_headers(first, None, cx)
            }
        }
    }

    /// All headers, and early data, leave in one write.
    fn send_headers(
        &mut self,
        first: ConnKey,
        early: Option<&mut Ring>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let (State::Passing(passing), Some(to)) = (&mut self.state, &self.to) else {
            return Ok(());
        };
        let route = &self.door.routes.list[passing.route];
        let wish = Wish {
            stamp: stamp(cx),
            probe: false,
            early: early.is_some(),
        };
        let mut out = Vec::new();
        let asked = route.seal(&mut out, to, Transport::Tcp, wish, || self.door.nonce());
        let asked = asked.ok_or(Close::own(Cause::Overload("random bytes")))?;
        cx.send(first, &out);
        if let Some(rx) = early {
            introduce(self.door.access.send_proxy, passing.client, first, cx);
            let count = rx.len();
            cx.forward(rx, first, count);
            passing.is_spent = true;
        }
        passing.stage = Stage::Waiting(first, Responses::new(asked));
        Ok(())
    }

    /// Bytes came while the chain is being opened.
    fn hear(
        &mut self,
        conn: ConnKey,
        rx: &mut Ring,
        last: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let State::Passing(passing) = &mut self.state else {
            return Ok(());
        };
        let route = &self.door.routes.list[passing.route];
        match &mut passing.stage {
            Stage::Collecting(first) if conn == passing.client => {
                let first = *first;
                self.send_headers(first, Some(rx), cx)
            }
            Stage::Waiting(first, responses) if conn == *first => match responses.read(route, rx) {
                Ok(true) => {
                    let last = responses.last();
                    self.connected(conn, last, cx)
                }
                Ok(false) if last => {
                    let (hop, why) = (responses.turn(), Why::Silent);
                    self.fail(Some(conn), Failed { hop, why }, cx)
                }
                Ok(false) => Ok(()),
                Err(failed) => self.fail(Some(conn), failed, cx),
            },
            _ => Ok(()),
        }
    }

    /// Every hop is connected.
    fn connected(
        &mut self,
        upstream: ConnKey,
        last: Option<([u8; 24], [u8; 24])>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let State::Passing(passing) = &self.state else {
            return Ok(());
        };
        let (client, front) = (passing.client, passing.front);
        let client_ended = passing.client_ended;
        // Early data have their header before them.
        let version = self.door.access.send_proxy.filter(|_| !passing.is_spent);
        if let (Some(at), Some(_)) = (passing.at, last) {
            self.door.turns.note_reached(at);
        }
        let route = &self.door.routes.list[passing.route];
        if let Stage::Dialling(dialling) = &passing.stage
            && !self.door.protocol.is_proxy()
        {
            // Several destinations have their turns in the dialling.
            self.to = Some(super::address_of(dialling.target()));
        }
        cx.disarm(TIMER);
        self.failed = None;
        front.grant(client, cx);
        let silence = self.door.times.silence;
        let throttle = &self.door.routes.throttle;
        if route.payload_key.is_some() || throttle.is_some() {
            cx.pace(client, upstream, throttle.iter().cloned().collect());
        }
        match (&route.payload_key, last) {
            (Some(key), Some((request, response))) => {
                let seals = records(key, Side::Client, &request, &response);
                let mut sealing = Sealing::start_as_client(client, upstream, seals, silence, cx);
                if let Some(header) = introduction(version, client, cx) {
                    sealing.say(&header, cx);
                }
                let early_end = match client_ended {
                    true => sealing.handle(Event::Eof { conn: client }, cx),
                    false => Ok(()),
                };
                self.state = State::Sealing(Box::new(sealing));
                return early_end;
            }
            (_, None) => {
                self.state = State::Relaying(client);
                introduce(version, client, upstream, cx);
                cx.relay(client, upstream);
            }
            _ => {
                self.state = State::Relaying(client);
                introduce(version, client, upstream, cx);
                cx.relay_within(client, upstream, silence);
            }
        }
        Ok(())
    }

    /// Goes on with the next chain, or the next destination; when there is none, the client is told.
    fn fail(
        &mut self,
        conn: Option<ConnKey>,
        failed: Failed,
        cx: &mut Cx<'_>,
    ) -> Result<(), Close> {
        let State::Passing(mut passing) = std::mem::replace(&mut self.state, State::Fresh) else {
            return Ok(());
        };
        if let Stage::Dialling(dialling) = &passing.stage {
            passing.attempts = dialling.attempts();
        }
        passing.stage = Stage::Idle;
        let (client, front, number) = (passing.client, passing.front, passing.route);
        let may_retry = !passing.is_spent;
        let routes = Rc::clone(&self.door);
        let route = &routes.routes.list[number];
        self.failed = Some((number as u8, failed));
        if let Some(conn) = conn {
            cx.close(conn);
        }
        if !route.hops.is_empty() && route.is_broken_by(failed) {
            routes.leave_out(number, failed);
            let random = cx.random();
            let next = routes.routes.choose(passing.tried, random);
            if let Some(next) = next.filter(|_| may_retry) {
                passing.route = next;
                return self.begin(passing, cx);
            }
        } else if !route.hops.is_empty() {
            // Others learn of it even where this client cannot go on.
            if let Some(at) = passing.at {
                routes.pass_over(at, number, failed, cx);
            }
            if may_retry && let Some(at) = passing.untried.pop() {
                passing.at = Some(at);
                self.to = routes.to.get(at).cloned();
                return self.begin(passing, cx);
            }
        }
        self.state = State::Passing(passing);
        cx.count(Metric::Rejected, 1);
        let told = route.tell(failed);
        front.deny(client, failed.why.code(), &told, cx);
        Err(Close::upstream(failed.why.cause()).told())
    }

    fn timer(&mut self, cx: &mut Cx<'_>) -> Result<(), Close> {
        let State::Passing(passing) = &self.state else {
            return Err(Close::downstream(Cause::Deadline("handshake")));
        };
        let (hop, conn) = match &passing.stage {
            Stage::Idle | Stage::Dialling(_) => (0, None),
            Stage::Collecting(first) => (0, Some(*first)),
            Stage::Waiting(first, responses) => (responses.turn(), Some(*first)),
        };
        let why = Why::Late;
        self.fail(conn, Failed { hop, why }, cx)
    }

    /// A connection broke, or ended before its time.
    fn lost(&mut self, conn: ConnKey, cause: Cause, cx: &mut Cx<'_>) -> Result<(), Close> {
        let client = match &self.state {
            State::Passing(passing) => {
                let hop = match &passing.stage {
                    Stage::Waiting(first, responses) if *first == conn => Some(responses.turn()),
                    Stage::Collecting(first) if *first == conn => Some(0),
                    _ => None,
                };
                if let Some(hop) = hop {
                    let why = Why::Silent;
                    return self.fail(Some(conn), Failed { hop, why }, cx);
                }
                // The client has gone; a mere end would leave the hops at it.
                if let Stage::Waiting(first, _) | Stage::Collecting(first) = &passing.stage {
                    cx.reset(*first);
                }
                passing.client
            }
            State::Relaying(client) => *client,
            _ => conn,
        };
        Err(match conn == client {
            true => Close::downstream(cause),
            false => Close::upstream(cause),
        })
    }
}

impl Session for AccessSession {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (&mut self.state, event) {
            (State::Fresh, Event::Accepted { conn, peer, .. }) => self.accepted(conn, peer, cx),
            (State::Sealing(sealing), event) => {
                close_stray(&event, Progress::Waiting, cx);
                sealing.handle(event, cx)
            }
            (State::Associated(association), event) => association.handle(&self.door, event, cx),
            (_, Event::Relayed(relayed)) => Err(relayed.into()),
            (State::Asking(..), Event::Data { conn, rx, last }) => {
                self.ask(conn, rx, cx)?;
                match &self.state {
                    State::Asking(..) if last => Err(Close::downstream(Cause::Truncated)),
                    _ => Ok(()),
                }
            }
            (State::Asking(..), Event::Eof { .. }) => Err(Close::finished()),
            (State::Asking(..), Event::Stopping) => Err(Close::own(Cause::Stopping)),
            (State::Passing(_), Event::Data { conn, rx, last }) => self.hear(conn, rx, last, cx),
            (State::Passing(passing), Event::Eof { conn }) if conn == passing.client => {
                passing.client_ended = true;
                Ok(())
            }
            (State::Passing(_), Event::Eof { conn }) => self.lost(conn, Cause::Truncated, cx),
            (_, Event::Timer { .. }) => self.timer(cx),
            (_, Event::Lost { conn, why }) => self.lost(conn, Cause::Io("connection", why), cx),
            (State::Passing(passing), event) => {
                let progress = match &mut passing.stage {
                    Stage::Dialling(dialling) => dialling.handle(&event, cx),
                    _ => Progress::Waiting,
                };
                close_stray(&event, progress, cx);
                self.dialled(progress, cx)
            }
            (_, event) => {
                close_stray(&event, Progress::Waiting, cx);
                // The client's bytes and its end wait for the relay, and a server that stops waits
                // for the session.
                Ok(())
            }
        }
    }

    fn describe(&self, out: &mut String) {
        // Writing to a string cannot fail.
        if let Some(to) = &self.to {
            let _ = write!(out, " to={to}");
        }
        if let Some((number, failed)) = &self.failed {
            let route = &self.door.routes.list[usize::from(*number)];
            if !route.hops.is_empty() {
                route.describe(*failed, out);
            }
        }
        match &self.state {
            State::Sealing(sealing) => sealing.describe(out),
            State::Associated(association) => {
                let _ = write!(out, " flows={}", association.flows());
            }
            _ => {}
        }
    }
}

/// Closes a connection that came of a try that was given up.
pub(super) fn close_stray(event: &Event<'_>, progress: Progress, cx: &mut Cx<'_>) {
    if let (Event::Connected { conn, .. }, Progress::Waiting) = (event, progress) {
        cx.close(*conn);
    }
}

/// The session's only timer, until bytes flow.
const TIMER: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_pair_costs_its_session_little() {
        assert!(
            size_of::<AccessSession>() <= 112,
            "{}",
            size_of::<AccessSession>()
        );
    }
}
