//! Towpath: a relay server for Linux. This page is the tour of the crate; what the program does for
//! its user is told in `README.md`.
//!
//! A process runs one event loop for each core. A loop owns its sockets and knows no protocol;
//! protocols are sessions, state machines that own no socket and read no clock; codecs see bytes
//! and nothing else. Once a session has joined two connections, their bytes no longer touch
//! protocol code. A control thread owns everything that is slow or shared: the store on disk, the
//! lookup of names, and the ports that are lent ([`control::leases`]).
//!
//! For programs, the crate is a client: [`agent`], [`chain`], [`gateway`], [`node`] and [`tunnel`] are the
//! blocking client libraries of these roles. The other rooms are public so that the tests, the simulation and the
//! bench reach them.
//!
//! # Threads
//!
//! ```text
//!   main: arguments, configuration, boot, waits           log: lines to stderr
//!   signals: SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2     ^ bounded channel, from all threads
//!   access log: records to a file, where there is one      ^ bounded queue, from all workers
//!   watchdog: looks whether all loops go round, if systemd has one
//!   handover: starts a newer process when it is asked to, and gives it the sockets and the store
//!   admin: HTTP on a poll of its own; orders to workers, errands to control, wishes to reload, all
//!      │      answered by bell
//!   reload: holds the configuration in force, and puts another in its place: one order to each worker
//!      │ phase (an atomic), then the bells
//!      v
//!   worker 0   worker 1  ...  worker N-1                  one per core; each with a listening
//!      │ ^        │ ^            │ ^                      socket of its own per address
//!      │ └────────┼─┴────────────┼─┴── letters + bell ──┐
//!      │          │              │                      │
//!      └──────────┴──────────────┴── questions ───> control ── jobs ──> 4 resolver threads
//!                                                    │   ^ ───────────── found ─────┘
//!                                                    └── one commit, one sync a round ──> disk
//! ```
//!
//! What crosses between threads, and nothing else does:
//!
//! | what | from, to | bound, and what happens beyond it |
//! |---|---|---|
//! | [`control::Request`], the questions | workers to control | 65,536; the session is answered "busy" |
//! | [`control::Letter`] with a bell ([`reactor::mailbox`]) | control to one worker | 16,384 in the box; more wait in an outbox, and while that holds a round's worth no question is taken |
//! | [`session::Post`], with a bell | one worker's session to another's | 16,384 in the box; more wait with the sender, whose sessions bound what they have under way |
//! | the tunnel's tickets | issued and used by workers | 2^20, and a share for each client; the visitor is refused |
//! | the tunnel's lobby: halls, places for frames, epochs | read and written by workers, when services come and go | one hall for each core, one place for each service, as many owners as ports |
//! | the gateway's directory of endpoints and ids | read and written by workers, at dials and comings and goings | one entry for each endpoint, connection and reserved id |
//! | [`store::Memory`] | written by control, read by workers | `max_records`, `max_bytes`; the update is refused |
//! | [`control::resolver::Names`] | written by control, read by workers | 4,096 hosts; the oldest answer leaves |
//! | [`net::Throttle`], a bucket of bytes each way for each limit | all workers | one for each limited route, listener and service; [`net::Sources`] as many as addresses are relayed for, twice |
//! | [`net::Quota`] | all workers | `max_connections`; the listener rests, a socket for datagrams is refused |
//! | [`net::Door`], one for each role and one for all | all workers | a count and a rate for each source address that is bounded; told there |
//! | [`net::Load`] | all workers; read by the admin thread | two sums; new work is given up in steps |
//! | [`reactor::Pulse`] | beaten by workers and control, read by the watchdog | one for each loop |
//! | [`worker::Phase`] | signals, the admin thread and the handover to workers | three values, and whether a newer process has the sockets |
//! | [`worker::Order`], and its answer | the admin thread, the reloader and the handover to one worker, and back | 256 in the box, 1,024 answers; the operator is told that a part is missing |
//! | [`admin::Wish`], and its answer | the admin thread to the reloader, and back; signals, without one | 128; the operator is told that too many wait. Reloads among them are done by one |
//! | [`session::Current`], what a service holds for its seats | set by the reloader, read by workers at a [`worker::Renewal`] and by the tunnel's sessions | one value; the former one lives as long as a session has it |
//! | [`admin::Panel`] | written by the reloader, read by the admin thread | one value |
//! | [`control::Errand`], and its answer | the admin thread and the handover to control, and back | as a question; 1,024 answers |
//! | [`admin::Reception`], the admin address's listeners | the handover to the admin thread | those of the configuration |
//! | a request for a handover | signals to the handover | one; another is told that it is under way |
//! | [`stats::Counters`] | each written by its worker, read by the admin thread and at the end | one set per core |
//! | log lines | all to the log thread | 4,096; counted as lost |
//! | records of sessions ([`worker::AccessQueue`]) | all workers to the access log's writer | 4,096 and 1 MiB; counted as lost |
//!
//! Relayed bytes, datagrams, timers and sessions never leave the core that took them in. Frames between
//! endpoints of different cores do, in letters: a run of frames each, as much as the other side has
//! granted. A connection does when its session hands it to another core's, before it is relayed: the
//! descriptor and what was read and not taken travel in a letter.
//!
//! # The life of a connection
//!
//! 1. The kernel gives it to one core's listening socket. [`worker`] accepts it, takes a place in the
//!    [`net::Quota`] and at the role's [`net::Door`], which may have it say first for whom it comes
//!    ([`wire::proxy`]), and has the service's [`session::Seat`] make a [`session::Session`].
//! 2. What happens is told to the session as a [`session::Event`]. The session decodes frames (the
//!    `wire` room of its protocol, on top of [`wire`]) and asks for what it wants through
//!    [`session::Cx`]; each wish is a [`session::Action`], performed when the call is over.
//! 3. What could take long is asked of [`control`], and the answer comes as an event in a later turn.
//!    An upstream is dialled by [`upstream`], a part that sessions share.
//! 4. Frames that are passed on as they are go from ring to ring (`forward`), to a connection of any
//!    session of the core; whose receiver has no room stands in line for it (`await_room`).
//!    `relay(a, b)` makes a [`relay::Link`]. From here on one pump moves the bytes of both directions
//!    through the rings of [`buffer`], or through kernel pipes when they are many; half-close and
//!    back-pressure are the pump's. The session hears the totals when both directions have ended.
//! 5. The session ends with one [`session::Close`], which is its one line in the log. What is still to
//!    be written leaves first; then keys, timers, blocks and descriptors are free in the same turn.
//!
//! Datagrams have no connection to live: each core has a socket of its own at a listener's address, the
//! system gives a sender's datagrams to one and the same of them, and one session for each socket hears
//! them all. It opens a connected socket for each flow, by [`session::Cx::associate`]; datagrams of one
//! length pass through as a train, received, handed on and sent as one ([`net::Train`]).
//!
//! # Rooms and floors
//!
//! A room imports from lower floors only, and from itself. The table is the one in
//! `tests/tidy/rules.rs`.
//!
//! | floor | rooms | may import |
//! |---|---|---|
//! | 0 ground | [`sys`] [`mod@wire`] [`stats`] [`config`] | std and other crates |
//! | 1 material | [`buffer`] [`reactor`] [`store`] | 0 |
//! | 2 sockets | [`net`] | 0 to 1 |
//! | 3 motion | [`relay`] [`control`] | 0 to 2 |
//! | 4 contract | [`session`] | 0 to 3 |
//! | 4½ parts | [`upstream`] [`runs`] | 0 to 4 |
//! | 5 protocols | [`protocols`] | 0 to 4½; never another protocol, `mio`, `socket2` or `libc` |
//! | 6 engine | [`worker`] | 0 to 4; it has heard of no protocol, and of no part |
//! | 7 house | [`admin`] [`server`] [`cli`] `main` `lib` | all; no other floor reads the list of protocols |
//!
//! A new protocol is a folder below [`protocols`] and one entry in its list. If `worker` or `session`
//! must change for it, the contract lacks a verb, and the verb is for all.
//!
//! # Invariants
//!
//! Kept by `tests/tidy.rs`, which fails when one is broken:
//!
//! * Rooms keep to their floors, and only the house reads the list of protocols.
//! * [`mod@wire`] and every protocol's `wire` see no socket, no clock, no file and no log.
//! * A protocol uses no socket, no thread and no clock; only its blocking client does.
//! * [`reactor`] and [`net`] contain no protocol word.
//! * No `unsafe` outside [`sys`], and none there without its `SAFETY` comment.
//! * No `Arc<Mutex>`: threads share what the table above lists, and nothing else.
//! * No test sleeps to wait for something; it waits for the thing itself, with a deadline.
//!
//! Kept by review:
//!
//! * A session never calls the system, never reads the clock (`Cx::now` is the turn's time), and
//!   never blocks. Nothing else on a worker blocks, either: disk and lookups belong to [`control`].
//! * Codecs are total: any bytes give a value, an error or "not yet" (`Ok(None)`), and nothing is
//!   allocated on the word of a length before its bytes have come.
//! * Every loop and every queue has a stated bound. Besides those of the table above: a turn reads
//!   256 KiB per connection, accepts 64 per listener, and takes 512 datagrams or 256 KiB, and a batch
//!   more, per datagram socket ([`worker`]); datagrams wait to leave in 4 MiB a core for one call of a
//!   session at most, and those that the system does not take then are dropped and counted
//!   ([`net::Outgoing`]); a direction holds
//!   [`relay::HOLD`] unwritten bytes in its ring before it reads no further, or one kernel pipe; a core
//!   lends blocks and pipes within its share of `max_buffer_memory`, and one block to each connection
//!   beyond it ([`buffer::Pool`], [`buffer::Pipes`]); a round of the control thread
//!   takes [`control::ROUND`] requests or [`control::ROUND_BYTES`] of updates; a pool lends as many
//!   ports as it has. What sessions queue they bound themselves; each role's first page says how.
//! * A stale event cannot reach a reused slot: every [`reactor::Key`] carries a generation.
//! * An update is answered with success only after its commit is synced, and is seen by queries only
//!   after that ([`store`]). A lease of a port is told only after that, too, and ends with its
//!   session at the latest: from then on it runs out ([`control::leases`]).
//! * Another configuration is in force whole or not at all: what can fail, the reading and the binding,
//!   is done before anything changes, and each worker takes it over in one turn ([`worker::Renewal`]).
//!   What it does not name is not touched; nothing of a former one is kept when no session has it.
//! * Of two processes of a server one writes to the store: the newer one changes nothing before the older one
//!   has given it up for good, and no update is acknowledged in between ([`control::Files`]).
//! * A worker never ends because of a peer. A panic in a session ends that session alone; the panic
//!   of a whole thread stops the server, so that its supervisor starts it anew.
//! * Secrets and payload never reach the log ([`config::Secret`] prints as `(secret)`).
//!
//! # Absent on purpose
//!
//! * **An async runtime.** The loop is a few hundred lines that a test can run turn by turn with a
//!   clock of its own; a scheduler and futures between a socket and its session could not be.
//! * **Threads per connection, and pools of them.** Connections stay on the core that accepted them;
//!   pools are for what blocks, and that is four lookups at a time.
//! * **`Arc<Mutex>` on the data plane.** Workers share reads, not state: the store's and the
//!   resolver's maps and the gateway's directory lie behind locks held for one lookup or one insert,
//!   and a door's locks are taken only where there is a bound for each source address.
//! * **io_uring.** Measured on relays like this one it saved nothing on bulk and cost three times the
//!   CPU for connect, request, close.
//! * **Buffers per connection.** A connection takes blocks from its core's pool while bytes wait in
//!   it and gives them back; an idle one holds none.
//! * **Claims of zero copy.** Bulk passes through kernel pipes and is not copied to user space. All
//!   else is copied once in and once out, straight into the ring that it is written from: below some
//!   64 KiB in flight that is cheaper than two splices.
//! * **sockmap.** It halved the CPU of small messages, and was far slower for bulk and under load.
//! * **`MSG_ZEROCOPY`.** It pays for large sends of memory that stays put; ring blocks are reused at
//!   once, and would have to wait for its completions.
//! * **`TCP_FASTOPEN`, `TCP_DEFER_ACCEPT`, `TCP_NOTSENT_LOWAT`.** No gain where it was measured.
//! * **`SO_RCVLOWAT`.** A mark below which bytes are not reported needs a timer to release the last of
//!   them; and under load a splice brings a whole pipe of 1 MiB without it.
//! * **`SO_RCVBUF`.** A size set by hand turns the kernel's own tuning off, and was slower.
//! * **Level-triggered polling, and changing an interest.** Every socket is registered once, for both
//!   directions; a short read says that it is dry.
//! * **A mirrored ring.** Two mappings per ring gained nothing over blocks and vectored calls.
//! * **A cache in front of the store.** The store's memory is the whole store.

pub mod admin;
pub mod buffer;
pub mod cli;
pub mod config;
pub mod control;
pub mod net;
pub mod protocols;
pub mod reactor;
pub mod relay;
pub mod runs;
pub mod server;
pub mod session;
pub mod stats;
pub mod store;
pub mod sys;
pub mod upstream;
pub mod wire;
pub mod worker;

pub use protocols::agent::client as agent;
pub use protocols::chain::client as chain;
pub use protocols::gateway::client as gateway;
pub use protocols::node::client as node;
pub use server::expose as tunnel;

/// Has the README's Rust examples compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
