//! The load of a gateway: raw clients with virtual connections, and the one server behind them.
//!
//! Both ends live in one loop, so the sender knows what has arrived without asking over the wire,
//! and one core holds the whole generator. It passes bytes in large reads and vectored writes, so
//! that the gateway, not the generator, is what a run waits for; `load_percent` tells.
//!
//! ```text
//!   client.rs ──> gateway ──> server.rs        one loop: lab.rs
//!       └── state.rs: directory, counts ──┘    frames: wire.rs, link.rs; results: figures.rs
//! ```

mod client;
mod figures;
mod lab;
mod link;
mod plan;
mod server;
mod state;
mod wire;

pub use lab::run;
pub use plan::{Plan, add_options, read, refuse_options};
