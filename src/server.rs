//! Boot: opens what a plan names, starts the threads, and stops them in order.
//!
//! ```text
//!   main ── store, listeners ──> control thread ──> workers (one per core) ──> ready
//!     │                                ^   questions, answers   ^
//!     └─ SIGTERM, SIGINT: drain; the second: stop ──────────────┘
//!        SIGHUP ──> reloader ──> another configuration for the workers
//!        SIGUSR2 ──> giver ──> a newer process, then as SIGTERM (`handover`)
//!   stop: workers end first, then the admin thread, which tells of them until then, then the control
//!         thread, which has everything on disk by then
//! ```
//!
//! Under a service manager (`supervisor`), sockets may be older than the process (`passed`), and each is
//! put into its store as soon as it is bound; `watchdog` tells it that every loop goes round.
//!
//! Everything that can be wrong with the machine is found here, before the first connection.

mod access;
mod boot;
mod budget;
mod desk;
pub mod expose;
mod handover;
mod listeners;
mod operations;
mod part;
mod passed;
mod reload;
mod signals;
mod supervisor;
mod watchdog;

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::config::{Core, Mistake, Told};
use crate::protocols::PROTOCOLS;
use crate::session::{Listen, Protocol, Role};
use crate::store::OpenError;

pub use boot::{Running, run, start};
pub use signals::{SIGNALS, Stopper, Watch};

/// Every protocol that this server can speak, in the order of the help text.
pub fn protocols() -> &'static [&'static dyn Protocol] {
    PROTOCOLS
}

/// What a server is to do.
#[derive(Debug)]
pub struct Plan {
    /// The server's own part.
    pub core: Core,
    /// Every protocol with its configuration, those that are off among them.
    pub roles: Vec<Box<dyn Role>>,
    /// What every key was given, to be compared with what a later reading gives it.
    pub told: Vec<Told>,
    /// Where the bound addresses are written once every listener is bound.
    pub address_file: Option<PathBuf>,
}

/// Reads the plan again, as it was read at the start; and what is allowed but hardly meant.
pub type Source = Box<dyn Fn() -> Result<(Plan, Vec<String>), Vec<Mistake>> + Send>;

/// Why a server did not start, or ended other than by a signal.
#[derive(Debug)]
pub enum StartError {
    /// No role has a listen address.
    NothingToServe,
    /// An address could not be listened on.
    Listen(Listen, io::Error),
    /// The store could not be opened.
    Store(OpenError),
    /// The access log could not be opened.
    AccessLog(PathBuf, io::Error),
    /// The address file could not be written.
    AddressFile(PathBuf, io::Error),
    /// The system refused something that every start needs.
    System(&'static str, io::Error),
    /// The descriptor limit leaves no room for a single connection.
    Descriptors {
        /// How many may be open.
        limit: usize,
        /// How many there must be at the least.
        least: usize,
        /// For so many worker threads,
        workers: usize,
        /// each with so many listening sockets.
        listeners: usize,
    },
    /// A thread of the server ended by a panic, which the log shows.
    Thread(&'static str),
    /// An older process of this server was to hand over to this one, and that came to nothing.
    Handover(String),
}

impl StartError {
    /// The exit code that tells a supervisor what to do about it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NothingToServe => 78,
            Self::AccessLog(_, error) if is_no_place(error) => 78,
            Self::Store(error) => error.exit_code(),
            Self::Listen(_, error)
            | Self::AccessLog(_, error)
            | Self::AddressFile(_, error)
            | Self::System(_, error) => match error.kind() {
                io::ErrorKind::AddrInUse => 75,
                io::ErrorKind::PermissionDenied => 77,
                _ if is_shortage(error) => 75,
                _ => 1,
            },
            Self::Descriptors { .. } => 75,
            Self::Thread(_) | Self::Handover(_) => 1,
        }
    }
}

/// A path that can hold no file: it will not be otherwise at the next try.
fn is_no_place(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::NotFound,
        io::ErrorKind::NotADirectory,
        io::ErrorKind::IsADirectory,
    ];
    kinds.contains(&error.kind())
}

/// Something that there may be enough of at the next try.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN];
    error
        .raw_os_error()
        .is_some_and(|code| shortages.contains(&code))
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToServe => {
                f.write_str("nothing to serve: no role has an address to listen on")
            }
            Self::Listen(at, error) => {
                let purpose = at.transport.purpose();
                write!(f, "{at} cannot listen on {}{purpose}: {error}", at.address)
            }
            Self::Store(error) => error.fmt(f),
            Self::AccessLog(path, error) => {
                write!(f, "cannot open the access log {}: {error}", path.display())
            }
            Self::AddressFile(path, error) => {
                write!(
                    f,
                    "cannot write the address file {}: {error}",
                    path.display()
                )
            }
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Descriptors {
                limit,
                least,
                workers,
                listeners,
            } => write!(
                f,
                "too few descriptors: {workers} workers with {listeners} listeners each need at least \
                 {least}, and {limit} may be open; raise `ulimit -n` (LimitNOFILE), or start fewer workers"
            ),
            Self::Thread(name) => write!(f, "the {name} thread panicked"),
            Self::Handover(why) => write!(f, "nothing is taken over: {why}"),
        }
    }
}

impl std::error::Error for StartError {}
