//! The load of the node role: nodes with public addresses, and the peers that send to them.
//!
//! Both live in one loop, so a sender knows what has arrived without asking over the wire, and one
//! core holds the whole generator. Frames are made once and written many at a time, so that the
//! server, not the generator, is what a run waits for; `load_percent` tells.
//!
//! ```text
//!   way.rs ──> public address, server, main connection ──> home.rs     one loop: lab.rs
//!     └────── run.rs: what is under way, what has arrived ────┘        frames: wire.rs
//!   ask.rs: ProxyRequest and its answer, of homes and alone            results: figures.rs
//! ```

mod ask;
mod figures;
mod home;
mod lab;
mod plan;
mod run;
mod way;
mod wire;

pub use lab::run;
pub use plan::{Plan, add_options, read, refuse_options};
