//! A blocking client of the agent role: records and routes of a towpath server, or of any other
//! that speaks its protocol.
//!
//! It is for programs and commands, on threads of their own; nothing in the server calls it, because
//! every call here waits for the network.
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use std::time::Duration;
//!
//! use towpath::agent::{self, Client, Options};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut client = Client::connect("127.0.0.1:7100", Options::default())?;
//!     client.update(b"dev1", b"status", b"hello")?;
//!     let record = client.query(b"dev1", b"status")?.ok_or("somebody removed it")?;
//!     assert_eq!(record.data, b"hello");
//!
//!     // Returns as soon as somebody stores the record, or with `None` after ten seconds.
//!     let reply = client.query_wait(b"dev1", b"reply", Duration::from_secs(10))?;
//!     println!("reply: {reply:?}");
//!
//!     // A connection to whatever the server's service "demo" has under "github".
//!     let mut route = agent::route("127.0.0.1:7100", b"demo", b"github", b"", &Options::default())?;
//!     route.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
//!     let mut page = Vec::new();
//!     route.read_to_end(&mut page)?;
//!     Ok(())
//! }
//! ```

mod connection;
mod error;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use self::connection::{Connection, Deadline};
pub use self::error::Error;
pub use super::wire::Dialect;
use super::wire::{self, AgentRequest, Answer, MAX_PAYLOAD, NOT_EXISTED, REMOVE, Request, SET};

/// A server's store of records, as one caller sees it.
///
/// A client is `Send` and `Sync`, but its calls take `&mut self`: one request at a time. Threads that
/// ask at once each take a [`Client::clone`], which opens a connection of its own.
///
/// A stock server closes the connection after each reply, so in that dialect every request has its
/// own; in the document's dialect one connection serves them all. A connection that the server closed
/// while it lay idle is opened again and the request repeated once, which is safe, since repeating an
/// update or a query changes nothing.
#[derive(Debug)]
pub struct Client {
    addresses: Vec<SocketAddr>,
    options: Options,
    idle: Option<Connection>,
    masks: Masks,
}

impl Client {
    /// Resolves the server's name, once for the client's life, and opens a connection to the first of
    /// its addresses that takes one.
    pub fn connect(server: impl ToSocketAddrs, options: Options) -> Result<Self, Error> {
        let addresses = connection::resolve(server)?;
        let stream = connection::dial(&addresses, &options)?;
        Ok(Self {
            addresses,
            options,
            idle: Some(Connection::new(stream)),
            masks: Masks::new(),
        })
    }

    /// Stores `data`; on return it is on the server's disk, if the server is a towpath.
    pub fn update(&mut self, id: &[u8], section: &[u8], data: &[u8]) -> Result<(), Error> {
        let request = AgentRequest::Update {
            id,
            section,
            data,
            op: SET,
        };
        self.ask(request, Duration::ZERO, |_| Ok(()))
    }

    /// Drops the record, if there is one.
    ///
    /// In the document's dialect this uses an extension of towpath's: other servers that speak
    /// it would store an empty record.
    pub fn remove(&mut self, id: &[u8], section: &[u8]) -> Result<(), Error> {
        let request = AgentRequest::Update {
            id,
            section,
            data: &[],
            op: REMOVE,
        };
        self.ask(request, Duration::ZERO, |_| Ok(()))
    }

    /// The record as it is now; `None` when there is none.
    pub fn query(&mut self, id: &[u8], section: &[u8]) -> Result<Option<Record>, Error> {
        self.query_seconds(id, section, 0)
    }

    /// The record as it is now, or as it is first stored within `wait`; `None` after that.
    ///
    /// The wait travels in whole seconds, so a part of one is rounded up. A server caps the wait of
    /// one request; the client asks again for what is left.
    pub fn query_wait(
        &mut self,
        id: &[u8],
        section: &[u8],
        wait: Duration,
    ) -> Result<Option<Record>, Error> {
        let began = Instant::now();
        loop {
            let left = wait.saturating_sub(began.elapsed());
            let asked = Instant::now();
            let record = self.query_seconds(id, section, whole_seconds(left))?;
            let is_over = began.elapsed() >= wait;
            // A server that does not wait at all would be asked in a spin.
            let did_wait = asked.elapsed() >= LEAST_WAIT;
            if record.is_some() || is_over || !did_wait {
                return Ok(record);
            }
        }
    }

    /// The address under which the server sees this client, as text.
    pub fn sniff(&mut self) -> Result<String, Error> {
        self.ask(AgentRequest::Sniff, Duration::ZERO, |answer| {
            let host = answer.host().map_err(Error::Malformed)?;
            Ok(String::from_utf8_lossy(host).into_owned())
        })
    }

    fn query_seconds(
        &mut self,
        id: &[u8],
        section: &[u8],
        wait: i32,
    ) -> Result<Option<Record>, Error> {
        let request = AgentRequest::Query { id, section, wait };
        let patience = Duration::from_secs(u64::from(wait.unsigned_abs()));
        let answer = self.ask(request, patience, |answer| {
            let (timestamp, data) = answer.record().map_err(Error::Malformed)?;
            let data = data.to_vec();
            Ok(Record { timestamp, data })
        });
        match answer {
            Ok(record) => Ok(Some(record)),
            Err(Error::Refused { message, .. }) if message.as_bytes() == NOT_EXISTED => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and reads its reply, on the idle connection or, when that turns out to be
    /// dead or there is none, on a new one.
    fn ask<T>(
        &mut self,
        request: AgentRequest<'_>,
        patience: Duration,
        read: impl Fn(&Answer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // A connection is put back only after a reply was read to its end: whatever else happened,
        // the bytes of a late reply must not be taken for the next one.
        if let Some(connection) = self.idle.take() {
            match self.ask_on(connection, request, patience, &read) {
                Err(error) if error.is_closed_early() => {}
                settled => return settled,
            }
        }
        let connection = Connection::new(connection::dial(&self.addresses, &self.options)?);
        self.ask_on(connection, request, patience, &read)
    }

    fn ask_on<T>(
        &mut self,
        mut connection: Connection,
        request: AgentRequest<'_>,
        patience: Duration,
        read: impl Fn(&Answer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let options = &self.options;
        let deadline = Deadline::after(options.io_timeout.saturating_add(patience));
        let is_update = matches!(request, AgentRequest::Update { .. });
        let auth = match &options.token {
            Some(token) if is_update && !connection.is_authorised => {
                Some(AgentRequest::Auth { token })
            }
            _ => None,
        };
        // One write for both: a stock connection ends when nothing follows a reply.
        let mut out = Vec::new();
        for request in auth.into_iter().chain([request]) {
            let request = Request::Agent(request);
            self.masks.append(&mut out, options, request)?;
        }
        connection.send(&out, deadline)?;
        if let Some(auth) = auth {
            connection.receive(options, deadline, auth.command(), &|_| Ok(()))?;
            connection.is_authorised = true;
        }
        let answer = connection.receive(options, deadline, request.command(), &read);
        let is_in_step = matches!(answer, Ok(_) | Err(Error::Refused { .. }));
        if is_in_step && options.dialect == Dialect::Document {
            self.idle = Some(connection);
        }
        answer
    }
}

/// Shares addresses and options, not the connection.
impl Clone for Client {
    fn clone(&self) -> Self {
        Self {
            addresses: self.addresses.clone(),
            options: self.options.clone(),
            idle: None,
            masks: Masks::new(),
        }
    }
}

/// Opens a route: a connection to what the server has under `field` of `service`, or under its field
/// `default`. Bytes written to the stream reach the backend, and the backend's come back.
///
/// `token` is the service's, empty when it has none; [`Options::token`] plays no part. On return the
/// backend is connected, within [`Options::io_timeout`]. In [`Dialect::Document`] the server does not
/// say so: the call returns at once, and a route that failed shows as a stream that ends.
pub fn route(
    server: impl ToSocketAddrs,
    service: &[u8],
    field: &[u8],
    token: &[u8],
    options: &Options,
) -> Result<TcpStream, Error> {
    let stream = connection::dial(&connection::resolve(server)?, options)?;
    let deadline = Deadline::after(options.io_timeout);
    let request = Request::Traffic {
        service,
        field,
        token,
        leading_operation: options.dialect == Dialect::Document,
    };
    let mut out = Vec::new();
    Masks::new().append(&mut out, options, request)?;
    let mut connection = Connection::new(stream);
    connection.send(&out, deadline)?;
    if options.dialect == Dialect::Stock {
        connection.wait_for_ok(deadline)?;
    }
    connection.into_stream()
}

/// How a client behaves. `..Options::default()` fills in what is not of interest.
#[derive(Clone)]
pub struct Options {
    /// The most that connecting to one address may take. 5 s by default.
    pub connect_timeout: Duration,
    /// The most that sending a request and receiving its reply may take, beyond the wait that the
    /// request itself asks for. 30 s by default.
    pub io_timeout: Duration,
    /// Shown before updates when set: the server's `[agent] token`. It travels unencrypted.
    pub token: Option<Vec<u8>>,
    /// Which dialect to speak. [`Dialect::Stock`] by default.
    pub dialect: Dialect,
    /// The largest payload to send or receive: the server's `[agent] max_payload`. 512 KiB by
    /// default, as the protocol has it.
    pub max_payload: usize,
}

impl Options {
    /// The longest value that fits beside these names, in bytes: [`Options::max_payload`] without
    /// what the frame's other fields take; 0 when the names alone are too long.
    pub fn longest_value(&self, id: &[u8], section: &[u8]) -> usize {
        let update = Request::Agent(AgentRequest::Update {
            id,
            section,
            data: &[],
            op: SET,
        });
        let mut frame = Vec::new();
        wire::encode_request(&mut frame, self.dialect, [0; 4], &update);
        let others = frame.len() - self.dialect.header_len();
        self.max_payload.saturating_sub(others)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            io_timeout: Duration::from_secs(30),
            token: None,
            dialect: Dialect::Stock,
            max_payload: MAX_PAYLOAD,
        }
    }
}

/// Without the token.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("connect_timeout", &self.connect_timeout)
            .field("io_timeout", &self.io_timeout)
            .field("token", &self.token.as_ref().map(|_| "(secret)"))
            .field("dialect", &self.dialect)
            .field("max_payload", &self.max_payload)
            .finish()
    }
}

/// What a query found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was last stored, in seconds since 1970 by the server's clock.
    pub timestamp: i64,
    /// What was stored.
    pub data: Vec<u8>,
}

/// Gives every frame a mask of its own. Masks hide nothing, so they need not be hard to guess.
#[derive(Debug)]
struct Masks(u64);

impl Masks {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    fn append(
        &mut self,
        out: &mut Vec<u8>,
        options: &Options,
        request: Request<'_>,
    ) -> Result<(), Error> {
        // SplitMix64 by Steele, Lea and Flood: any state is as good as any other.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mask = ((mixed >> 32) as u32).to_le_bytes();
        let start = out.len();
        wire::encode_request(out, options.dialect, mask, &request);
        let length = out.len() - start - options.dialect.header_len();
        if length > options.max_payload {
            let most = options.max_payload;
            let longest_value = match request {
                Request::Agent(AgentRequest::Update { data, .. }) => {
                    (data.len() + most).checked_sub(length)
                }
                _ => None,
            };
            return Err(Error::TooLong {
                length,
                most,
                longest_value,
            });
        }
        Ok(())
    }
}

/// Rounded up, so that a caller never waits less than it asked for.
fn whole_seconds(wait: Duration) -> i32 {
    let part = u64::from(wait.subsec_nanos() > 0);
    i32::try_from(wait.as_secs().saturating_add(part)).unwrap_or(i32::MAX)
}

/// The shortest wait that counts as one: half of the shortest that can be asked for.
const LEAST_WAIT: Duration = Duration::from_millis(500);
