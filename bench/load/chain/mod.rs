//! The load of the chain role: the chain's client, and the destination behind its last hop.
//!
//! Connections have the loads that plain ones have, and run in the same loop: what is here is what
//! comes before their payload, and around it. Datagrams have a loop of their own. Headers and seals
//! are made by the server's own codec: there is no other, and a second one would measure the same.
//!
//! ```text
//!   client.rs ── way.rs: headers, responses ──> hops ──> backend.rs     loop: lab.rs
//!      └─ line.rs ── seals.rs: the payload's records
//!   datagrams.rs: clients and the echo behind the chain                 loop: its own
//! ```

mod datagrams;
mod plan;
mod seals;
#[cfg(test)]
mod tests;
mod way;

pub use datagrams::run;
pub use plan::{Plan, add_options, read, refuse_options};
pub use seals::Seals;
pub use way::{Answers, Way};
