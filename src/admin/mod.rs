//! The admin address: what the server is doing, told by HTTP, and a few things to be done about it.
//!
//! It has a thread and a poll of its own. It reads counters that each worker writes for itself, and asks
//! workers and the control thread for the rest by letters; it never waits for one of them, nor they
//! for it. Nothing here is fast, and nothing here slows a relay.
//!
//! ```text
//!   clients ──> requests ──> desk ──┬─ counters, store, routes: answered at once
//!     ^         (parsed, admitted)  ├─ Order ────> a worker's box ──┐
//!     │                             ├─ Errand ───> control's box ───┤
//!     │                             └─ Wish ─────> the house's box ─┤
//!     └──── answers <──────────────────────── bell, or two seconds ─┘
//! ```
//!
//! # Decisions
//!
//! * Loopback needs no token; any other address does, and with a token loopback needs it as well. Only
//!   the page at `/` is free, for it tells nothing by itself.
//! * A request must name its host as an IP address or as `localhost`, so that no name of somebody
//!   else's leads a browser here. Without a token nothing is changed for a page.
//! * Only POST, PUT and DELETE change something, and each is one line in the log.
//! * Whoever has not answered after two seconds is left out, and the answer says so.
//! * What changes the configuration in force is done by a thread of the house (`house.rs`), one thing
//!   after the other; what is told of it is on a [`Panel`].
//!
//! **Bounds.** [`CLIENTS`] connections, one more is told 503 and closed; a head of
//! [`request::HEAD`] bytes and a body of [`request::BODY`]; one request of a client at a time, a
//! deadline for every wait ([`client`]). An answer is as long as what it tells: at most 1,000 rows.

mod client;
mod desk;
pub mod guard;
mod house;
mod metrics;
mod page;
mod panel;
pub mod request;
pub mod response;
mod status;

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use parking_lot::Mutex;
use serde_json::Value;
use slab::Slab;

use self::client::{Client, Found, Served};
use self::desk::{Desk, Outcome};
pub use self::panel::{Panel, Shown};
use self::response::{Refusal, Response};
use crate::control::{self, Request};
use crate::net::{Load, Quota};
use crate::reactor::{Address, Bell, Mailbox, mailbox};
use crate::stats::Counters;
use crate::store::Memory;
use crate::sys;
use crate::worker::{self, AccessTally, Order, Phase};

/// What the admin address tells of and acts on.
pub struct Grounds {
    /// What is told of the configuration in force.
    pub panel: Arc<Panel>,
    /// How long a request may take to come.
    pub patience: Duration,
    /// When the server was started.
    pub started: Instant,
    /// The same by the wall clock, since the Unix epoch.
    pub started_unix: Duration,
    /// Each worker's counters.
    pub counters: Vec<Arc<Counters>>,
    /// Each worker's box for orders.
    pub workers: Vec<Address<Order>>,
    /// Where questions to the control thread go.
    pub control: Sender<Request>,
    /// The agent store.
    pub memory: Memory,
    /// The server's places.
    pub quota: Arc<Quota>,
    /// What is known of the access log.
    pub access: Arc<AccessTally>,
    /// How near the server is to what it may use.
    pub load: Arc<Load>,
    /// The server's phase.
    pub phase: Arc<Phase>,
    /// Has the server drain.
    pub drain: Box<dyn Fn() + Send>,
    /// Has it read its configuration again.
    pub reload: Box<dyn Reload>,
}

/// Puts another configuration in force.
pub trait Reload: Send {
    /// Has it done, and never blocks. The answer's value is what the client is told.
    fn ask(&self, wish: Wish, answer: Answering);
}

/// Where the answer to a [`Wish`] goes, on whatever thread.
pub type Answering = Box<dyn FnOnce(Result<Value, NotReloaded>) + Send>;

/// What is to become of the configuration in force.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// It is read again and put in force, or with `dry_run` only compared.
    Reload {
        /// Nothing is to change.
        dry_run: bool,
    },
    /// The route of that name is this one, until the next reload.
    SetRoute(String, Value),
    /// No route has that name, until the next reload.
    RemoveRoute(String),
}

/// Why the configuration in force is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReloaded {
    /// This server cannot.
    Unavailable,
    /// The configuration has these mistakes; each says where.
    Mistakes(Vec<String>),
    /// The route has these.
    Malformed(Vec<String>),
    /// There is no such route.
    Unknown,
    /// Something else is in the way.
    Failed(String),
}

/// A server that reads its configuration at its start only.
pub struct NoReload;

impl Reload for NoReload {
    fn ask(&self, _wish: Wish, answer: Answering) {
        answer(Err(NotReloaded::Unavailable));
    }
}

/// The running admin thread.
pub struct Admin {
    thread: JoinHandle<()>,
    ending: Arc<AtomicBool>,
    reception: Arc<Reception>,
    bell: Arc<dyn Bell>,
}

/// Its listeners, for whoever hands them to a newer process of the server.
pub struct Reception {
    listeners: Mutex<Vec<TcpListener>>,
    /// They are to be closed.
    is_over: AtomicBool,
    bell: Arc<dyn Bell>,
}

impl Reception {
    /// A second descriptor of each.
    pub fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        let listeners = self.listeners.lock();
        let copies = listeners.iter().map(|one| one.as_fd().try_clone_to_owned());
        copies.collect()
    }

    /// Has them closed: whoever comes is somebody else's. Who is in is served on.
    pub fn close(&self) {
        self.is_over.store(true, Ordering::Release);
        self.bell.ring();
    }

    fn accept(&self, number: usize) -> io::Result<(TcpStream, SocketAddr)> {
        let listeners = self.listeners.lock();
        let listener = listeners.get(number);
        listener.map_or(Err(io::ErrorKind::WouldBlock.into()), TcpListener::accept)
    }

    /// Closes them if they are to be closed. The poll is told, as another process has copies, which would
    /// keep its entries alive.
    fn follow(&self, registry: &Registry) {
        if !self.is_over.swap(false, Ordering::AcqRel) {
            return;
        }
        for mut listener in std::mem::take(&mut *self.listeners.lock()) {
            // Failing means that it is forgotten already.
            let _ = registry.deregister(&mut listener);
        }
    }
}

/// A listener, bound before any thread starts.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

/// A listener that this process was given.
pub fn adopt(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener))
}

impl Admin {
    /// Starts it on these listeners.
    pub fn start(mut listeners: Vec<TcpListener>, grounds: Grounds) -> io::Result<Self> {
        let poll = Poll::new()?;
        let bell: Arc<dyn Bell> = Arc::new(Waker::new(poll.registry(), BELL)?);
        for (number, listener) in listeners.iter_mut().enumerate() {
            let registry = poll.registry();
            registry.register(listener, Token(number), Interest::READABLE)?;
        }
        let count = listeners.len();
        let reception = Arc::new(Reception {
            listeners: Mutex::new(listeners),
            is_over: AtomicBool::new(false),
            bell: Arc::clone(&bell),
        });
        let ending = Arc::new(AtomicBool::new(false));
        let (workers, from_workers) = mailbox(LETTERS, Arc::clone(&bell));
        let (control, from_control) = mailbox(LETTERS, Arc::clone(&bell));
        let (house, from_house) = mailbox(LETTERS, Arc::clone(&bell));
        let mut hall = Hall {
            poll,
            listeners: count,
            reception: Arc::clone(&reception),
            clients: Slab::new(),
            patience: grounds.patience,
            desk: Desk::new(grounds, workers, control, house),
            from_workers,
            from_control,
            from_house,
            again: Vec::new(),
            accept_at: None,
            spare: Vec::new(),
        };
        hall.restore_spare();
        let end = Arc::clone(&ending);
        let thread = thread::Builder::new()
            .name("admin".into())
            .spawn(move || hall.run(&end))?;
        Ok(Self {
            thread,
            ending,
            reception,
            bell,
        })
    }

    /// Its listeners.
    pub fn reception(&self) -> Arc<Reception> {
        Arc::clone(&self.reception)
    }

    /// Ends it; false when it has panicked.
    pub fn end(self) -> bool {
        self.ending.store(true, Ordering::Release);
        self.bell.ring();
        self.thread.join().is_ok()
    }
}

/// The thread's state.
struct Hall {
    poll: Poll,
    /// How many there were at the start.
    listeners: usize,
    reception: Arc<Reception>,
    clients: Slab<Client>,
    desk: Desk,
    patience: Duration,
    from_workers: Mailbox<worker::Answer>,
    from_control: Mailbox<(u64, control::Answer)>,
    from_house: Mailbox<(u64, Result<Value, NotReloaded>)>,
    /// Clients with more to do than one visit's share.
    again: Vec<usize>,
    /// When to accept again after it failed.
    accept_at: Option<Instant>,
    /// Descriptors held so that the operator is let in when all others are used up.
    spare: Vec<File>,
}

impl Hall {
    fn run(&mut self, ending: &AtomicBool) {
        let mut events = Events::with_capacity(128);
        loop {
            let wait = self.wait(Instant::now());
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    log::error!("admin: cannot wait for events: {error}");
                    return;
                }
                _ => {}
            }
            if ending.load(Ordering::Acquire) {
                return;
            }
            self.reception.follow(self.poll.registry());
            let now = Instant::now();
            for key in std::mem::take(&mut self.again) {
                self.visit(key, now);
            }
            for event in &events {
                match event.token() {
                    BELL => {}
                    Token(number) if number < self.listeners => self.accept(number, now),
                    Token(token) => self.visit(token - FIRST_CLIENT, now),
                }
            }
            self.hear(now);
            self.expire(now);
        }
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        let heard = self.from_workers.has_rung()
            || self.from_control.has_rung()
            || self.from_house.has_rung();
        if heard || !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadlines = self.clients.iter().map(|(_, client)| client.deadline());
        let next = deadlines.chain(self.accept_at).min()?;
        // Not before the deadline: the poll counts in milliseconds.
        Some(next.saturating_duration_since(now) + Duration::from_millis(1))
    }

    /// Takes in whoever waits at a listener, a bounded number of them; more make a new try soon.
    fn accept(&mut self, number: usize, now: Instant) {
        for _ in 0..TURN_ACCEPTS {
            match self.reception.accept(number) {
                Ok((stream, peer)) => self.welcome(stream, peer, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_shortage(&error) => {
                    if !self.make_room() {
                        break;
                    }
                }
                // It concerns the one who came.
                Err(_) => {}
            }
        }
        self.accept_at = Some(now + ACCEPT_AGAIN);
    }

    fn welcome(&mut self, mut stream: TcpStream, peer: SocketAddr, now: Instant) {
        // Whoever only holds a place shuts nobody out.
        if self.clients.len() >= CLIENTS && !self.drop_first(Client::silent_since) {
            return turn_away(&mut stream);
        }
        let entry = self.clients.vacant_entry();
        let key = entry.key();
        let token = Token(FIRST_CLIENT + key);
        let both = Interest::READABLE | Interest::WRITABLE;
        // One that cannot be watched is closed at once.
        if self
            .poll
            .registry()
            .register(&mut stream, token, both)
            .is_ok()
        {
            let _ = stream.set_nodelay(true);
            entry.insert(Client::new(stream, peer, self.patience, now));
        }
    }

    /// Frees a descriptor for one more client: a spare one, or that of the client that has been idle
    /// the longest.
    fn make_room(&mut self) -> bool {
        self.spare.pop().is_some() || self.drop_first(Client::idle_since)
    }

    /// Closes the client for which that is true for the longest; false when there is none.
    fn drop_first(&mut self, since: impl Fn(&Client) -> Option<Instant>) -> bool {
        let idle = self.clients.iter();
        let idle = idle.filter_map(|(key, client)| Some((since(client)?, key)));
        match idle.min() {
            Some((_, key)) => {
                self.clients.remove(key);
                true
            }
            None => false,
        }
    }

    fn restore_spare(&mut self) {
        while self.spare.len() < SPARE {
            let Ok(file) = sys::reserve_descriptor() else {
                return;
            };
            self.spare.push(file);
        }
    }

    /// Does what can be done for a client, up to its share.
    fn visit(&mut self, key: usize, now: Instant) {
        for _ in 0..TURN_REQUESTS {
            let Some(client) = self.clients.get_mut(key) else {
                return; // An event of a client that has gone in this very turn.
            };
            match client.advance(now) {
                Found::Nothing => return,
                Found::Gone => return self.drop_client(key),
                Found::Request(request, served) => {
                    let outcome = self.desk.serve(&request, now);
                    self.settle(key, served, outcome);
                }
            }
        }
        self.again.push(key);
    }

    fn settle(&mut self, key: usize, served: Served, outcome: Outcome) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        match outcome {
            Outcome::Now(response) => {
                if let Some(change) = &served.change {
                    let (peer, status) = (client.peer, response.status);
                    log::info!(
                        "admin from={peer} {} {status}",
                        crate::config::plain(change)
                    );
                }
                client.answer(&response, &served);
            }
            Outcome::Later(waiting) => client.waiting = Some((served, waiting)),
        }
    }

    /// Takes the answers of other threads.
    fn hear(&mut self, now: Instant) {
        let mut answers = Vec::new();
        let most = LETTERS;
        self.from_workers.open(most, |answer| answers.push(answer));
        for answer in answers {
            if let Some((key, served, waiting)) = self.take_waiting(answer.ticket) {
                let outcome = self.desk.hear_worker(waiting, answer.outcome, now);
                self.settle(key, served, outcome);
                self.visit(key, now);
            }
        }
        let mut answers = Vec::new();
        self.from_control.open(most, |answer| answers.push(answer));
        for (ticket, answer) in answers {
            if let Some((key, served, waiting)) = self.take_waiting(ticket) {
                let response = self.desk.hear_control(waiting, answer, now);
                self.settle(key, served, Outcome::Now(response));
                self.visit(key, now);
            }
        }
        let mut answers = Vec::new();
        self.from_house.open(most, |answer| answers.push(answer));
        for (ticket, answer) in answers {
            if let Some((key, served, _)) = self.take_waiting(ticket) {
                self.settle(key, served, Outcome::Now(house::response(answer)));
                self.visit(key, now);
            }
        }
    }

    /// The client that waits for this answer, if it still does.
    fn take_waiting(&mut self, ticket: u64) -> Option<(usize, Served, desk::Waiting)> {
        let is_it = |client: &Client| {
            let waiting = client.waiting.as_ref();
            waiting.is_some_and(|(_, waiting)| waiting.ticket == ticket)
        };
        let (key, client) = self.clients.iter_mut().find(|(_, client)| is_it(client))?;
        let (served, waiting) = client.waiting.take()?;
        Some((key, served, waiting))
    }

    /// Does what is due.
    fn expire(&mut self, now: Instant) {
        let due = self
            .clients
            .iter()
            .filter(|(_, client)| client.deadline() <= now);
        for key in due.map(|(key, _)| key).collect::<Vec<_>>() {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            if let Some((served, waiting)) = client.waiting.take() {
                let response = self.desk.give_up(waiting, now);
                self.settle(key, served, Outcome::Now(response));
                self.visit(key, now);
            } else if client.expire(now) {
                self.drop_client(key);
            }
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            for number in 0..self.listeners {
                self.accept(number, now);
            }
        }
    }

    fn drop_client(&mut self, key: usize) {
        if self.clients.try_remove(key).is_some() {
            self.restore_spare();
        }
    }
}

/// One too many: it is told so, as far as it can be without waiting for it.
fn turn_away(stream: &mut TcpStream) {
    let why = format!("{CLIENTS} connections are open already");
    let response = Response::from(Refusal::new(503, why).header("Retry-After: 1"));
    let mut bytes = Vec::new();
    response.encode(false, false, &mut bytes);
    // What it has sent is taken first: a close on unread bytes is a reset, which may come before the
    // answer.
    let _ = io::Read::read(stream, &mut [0; request::HEAD]);
    let _ = stream.write(&bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    let code = error.raw_os_error();
    code.is_some_and(|code| shortages.contains(&code))
}

/// How many clients there may be at a time.
pub const CLIENTS: usize = 32;

/// Descriptors that the admin address needs besides those of its listeners: its poll and bell, and
/// the spare ones, by which a few clients are let in whatever happens to the rest.
pub const DESCRIPTORS: usize = 2 + SPARE;

const SPARE: usize = 4;

const BELL: Token = Token(usize::MAX - 1);

/// The tokens below are the listeners'.
const FIRST_CLIENT: usize = 1 << 20;

/// Answers that may wait: a client waits for one at a time, and what comes too late makes no more.
const LETTERS: usize = 1024;

/// Requests of one client that a turn serves.
const TURN_REQUESTS: usize = 16;

/// Clients that a turn takes in at one listener.
const TURN_ACCEPTS: usize = 64;

/// How soon accepting is tried again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
