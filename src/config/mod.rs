//! The configuration: a TOML file, the environment and the flags, read as one thing.
//!
//! ```text
//!   key tables --+--> flags of `serve`, its help          (cli)
//!                +--> TOWPATH_* names
//!                +--> known keys, nearest-name hints
//!                v
//!   flag > environment > file > default --> Settings --> Core, and each role's Config
//!                                              |
//!                                              +--> every mistake at once, each with its place
//! ```
//!
//! A key is told once, in a table of [`Key`]s: [`KEYS`] for the core, and one table in the room of
//! each role. This room knows no role; it opens no socket, resolves no name and logs nothing.
//! `cli` gathers the layers, and each role reads its own part by [`Settings`].
//!
//! An environment variable that is set but empty counts as not set. Of all layers the first that
//! names a key decides it whole: a list is replaced, never added to.

mod admin;
mod core;
mod file;
mod items;
mod key;
mod mistake;
mod nearest;
mod read;
mod secret;
mod services;
mod settings;
mod terms;
mod told;
mod value;

pub use self::admin::{Admin, KEYS as ADMIN_KEYS};
pub use self::core::{AccessLog, AccessTarget, Core, KEYS, Limits, LogFormat, Way};
pub use file::{Entry, Item, Value};
pub use key::{BANDWIDTH, Key, Kind, join, variable};
pub use mistake::{Mistake, Place, Position, plain};
pub use nearest::nearest;
pub use secret::Secret;
pub use settings::{Settings, Traffic};
pub use terms::{CONNECTIONS, RATE, SEND_PROXY, TERMS, Terms, network};
pub use told::{Change, Told, changes};
pub use value::{
    address, duration, ports, show_bandwidth, show_duration, show_ports, show_size, size,
};
