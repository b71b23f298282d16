//! The load of the tunnel role: visitors who come now and then, to a service that speaks first.
//!
//! What a stream, a request or an idle visitor costs is told by the other modes, since a public port
//! is to them a relay like any other. Here is what only a tunnel has: a connection that must be asked
//! for when a visitor is there already, or that was opened ahead of it. Visitors therefore leave a gap
//! between them, in which such connections can be opened again.
//!
//! ```text
//!   visitor ──connect──> public port ── tunnel ──> service     one loop: lab.rs
//!           <─────────── its first byte ────────── accept      results: figures.rs
//! ```

mod figures;
mod lab;
mod plan;

pub use lab::run;
pub use plan::{Plan, add_options, read, refuse_options};
