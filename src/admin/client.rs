//! One connection of the admin address: bytes in, requests out, answers back, each in its time.
//!
//! ```text
//!   Fresh, Idle ── a byte ──> Reading ── whole ──> (served) ──┬─> Writing ──> Idle
//!                                                             └─> Waiting ──> Writing
//!   a refusal, Connection: close, a deadline ──> Writing ──> Leaving: read and dropped, so that the
//!                                                            answer is not overtaken by a reset
//! ```

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::desk::Waiting;
use super::request::{self, BODY, HEAD, Request};
use super::response::{Refusal, Response};

/// A connected client.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    sent: usize,
    stage: Stage,
    since: Instant,
    /// How long a request may take to come.
    patience: Duration,
    /// The peer has ended its stream.
    ended: bool,
    /// The connection ends behind what is in the outbox.
    closing: bool,
    /// How many bytes have been dropped since it was left.
    dropped: usize,
    /// The request that is being served, and whom it waits for.
    pub(super) waiting: Option<(Served, Waiting)>,
}

/// What is kept of a request until it is answered.
pub(super) struct Served {
    /// What it is called in the log; none for one that only reads.
    pub(super) change: Option<String>,
    head_only: bool,
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Fresh,
    Idle,
    Reading,
    Waiting,
    Writing,
    Leaving,
}

/// What a look at a client's bytes has brought.
pub(super) enum Found {
    /// A request to serve.
    Request(Request, Served),
    /// Nothing to do for now.
    Nothing,
    /// It is over.
    Gone,
}

impl Client {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        patience: Duration,
        now: Instant,
    ) -> Self {
        Self {
            stream,
            peer,
            inbox: Vec::new(),
            outbox: Vec::new(),
            sent: 0,
            stage: Stage::Fresh,
            since: now,
            patience,
            ended: false,
            closing: false,
            dropped: 0,
            waiting: None,
        }
    }

    /// Reads, writes, and looks for the next request. To be called until it finds nothing.
    pub(super) fn advance(&mut self, now: Instant) -> Found {
        if self.flush().is_err() || self.fill().is_err() {
            return Found::Gone;
        }
        if self.stage == Stage::Leaving {
            return match self.ended || self.dropped > MOST_DROPPED {
                true => Found::Gone,
                false => Found::Nothing,
            };
        }
        if self.closing || self.waiting.is_some() || !self.outbox.is_empty() {
            return self.pause(now);
        }
        match request::parse(&self.inbox) {
            Ok(Some((request, used))) => {
                self.inbox.drain(..used);
                let served = Served::of(&request);
                Found::Request(request, served)
            }
            Ok(None) if self.ended => Found::Gone,
            Ok(None) => self.pause(now),
            Err(refusal) => {
                self.refuse(&refusal);
                self.advance_writing(now)
            }
        }
    }

    /// Puts an answer into the outbox.
    pub(super) fn answer(&mut self, response: &Response, served: &Served) {
        let keep = served.keep && !self.closing;
        response.encode(keep, served.head_only, &mut self.outbox);
        self.closing |= !keep;
        self.stage = Stage::Writing;
    }

    /// Answers what could not be understood; the connection ends with it, for nobody knows where the
    /// next request would begin.
    fn refuse(&mut self, refusal: &Refusal) {
        let response = Response::from(refusal.clone());
        response.encode(false, false, &mut self.outbox);
        self.closing = true;
    }

    fn advance_writing(&mut self, now: Instant) -> Found {
        match self.flush() {
            Ok(()) => self.pause(now),
            Err(_) => Found::Gone,
        }
    }

    /// Its time is over: true when it is to be dropped.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        match self.stage {
            Stage::Reading => {
                self.refuse(&Refusal::new(408, "the request took too long to come"));
                matches!(self.advance_writing(now), Found::Gone)
            }
            // Its answer is made by whoever waits, not here.
            Stage::Waiting => false,
            Stage::Fresh | Stage::Idle | Stage::Writing | Stage::Leaving => true,
        }
    }

    /// When something has to happen.
    pub(super) fn deadline(&self) -> Instant {
        let within = match self.stage {
            Stage::Fresh | Stage::Reading => self.patience,
            Stage::Idle => KEEP_ALIVE,
            Stage::Writing => WRITING,
            Stage::Leaving => LEAVING,
            Stage::Waiting => {
                return self.waiting.as_ref().map_or(self.since, |(_, on)| on.until);
            }
        };
        self.since + within
    }

    /// True when closing it costs nobody an answer; the longer it is so the better it is chosen.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.stage == Stage::Idle).then_some(self.since)
    }

    /// Since when it has nothing to be answered: it may yet ask, and holds a place meanwhile.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let is_silent = !matches!(self.stage, Stage::Waiting | Stage::Writing);
        is_silent.then_some(self.since)
    }

    /// Nothing more can be done now: notes what is waited for.
    fn pause(&mut self, now: Instant) -> Found {
        if self.closing && self.outbox.is_empty() {
            // Fails only when the peer has gone, and then there is nobody to wait for.
            if self.ended || self.stream.shutdown(Shutdown::Write).is_err() {
                return Found::Gone;
            }
            self.enter(Stage::Leaving, now);
            self.inbox = Vec::new();
            return Found::Nothing;
        }
        let stage = if !self.outbox.is_empty() {
            Stage::Writing
        } else if self.waiting.is_some() {
            Stage::Waiting
        } else if !self.inbox.is_empty() {
            Stage::Reading
        } else if self.stage == Stage::Fresh {
            Stage::Fresh
        } else {
            Stage::Idle
        };
        self.enter(stage, now);
        Found::Nothing
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        if self.stage != stage {
            self.stage = stage;
            self.since = now;
        }
    }

    /// Reads until nothing waits, or as much lies here as one request may have.
    fn fill(&mut self) -> io::Result<()> {
        let mut room = [0; 4096];
        while !self.ended && self.inbox.len() <= HEAD + BODY && self.dropped <= MOST_DROPPED {
            match self.stream.read(&mut room) {
                Ok(0) => self.ended = true,
                Ok(count) if self.stage == Stage::Leaving => self.dropped += count,
                Ok(count) => self.inbox.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.outbox.len() {
            match self.stream.write(&self.outbox[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Ok(())
    }
}

impl Served {
    fn of(request: &Request) -> Self {
        let reads = matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        let change = || format!("{} /{}", request.method, request.path.join("/"));
        Self {
            change: (!reads).then(change),
            head_only: request.method == "HEAD",
            keep: request.keep,
        }
    }
}

/// How long a client may ask nothing between two requests.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long it may take to take an answer.
const WRITING: Duration = Duration::from_secs(10);

/// How long one that is left may go on sending.
const LEAVING: Duration = Duration::from_secs(1);

/// How much it may send then.
const MOST_DROPPED: usize = 1 << 20;
