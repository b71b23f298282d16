//! The load program: clients and backends for measuring a relay or an agent store from outside.
//!
//! One thread runs everything, clients and backends alike, so that one pinned core holds the whole
//! generator and the server under test has the other to itself. It uses nothing of the server's
//! own code but the codec of the chain's headers: what it measures could be any relay. `bench/*.sh`
//! call it; so may anybody by hand.
//!
//! ```text
//!   client.rs ──> server under test ──> backend.rs      one loop: lab.rs
//!       └── meter.rs: counts, latencies ──┘             CPU and memory of the server: usage.rs
//! ```
//!
//! A gateway's clients and server are of another kind, with a loop of their own: `gateway/`. So are
//! nodes and their peers, `node/`, and visitors of a tunnel that come now and then, `tunnel/`. A chain's
//! connections are plain ones behind their headers, which are in `chain/`, as its datagrams are.

mod agent;
mod args;
mod backend;
mod chain;
mod client;
mod gateway;
mod histogram;
mod lab;
mod line;
mod meter;
mod node;
mod pattern;
mod report;
mod tunnel;
mod usage;

use std::io::{self, Write};
use std::process::ExitCode;

use report::Report;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match args::parse(&words) {
        Ok(args::Invocation::Help(text)) => say(&text, 0),
        Ok(args::Invocation::Run(plan)) => tell(lab::run(&plan), plan.json),
        Ok(args::Invocation::Gateway(plan)) => tell(gateway::run(&plan), plan.json),
        Ok(args::Invocation::Node(plan)) => tell(node::run(&plan), plan.json),
        Ok(args::Invocation::Tunnel(plan)) => tell(tunnel::run(&plan), plan.json),
        Ok(args::Invocation::Chain(plan)) => tell(chain::run(&plan), plan.json),
        Err(mistake) => complain(&format!("{mistake}; see load --help"), 2),
    }
}

fn tell(outcome: io::Result<Report>, json: bool) -> ExitCode {
    match outcome {
        Ok(report) if json => say(&report.json(), 0),
        Ok(report) => say(&report.line(), 0),
        Err(error) => complain(&error.to_string(), 1),
    }
}

/// Writes one text to stdout. A closed pipe is the reader's choice and no failure of ours.
fn say(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::from(code)
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "load: {text}");
    ExitCode::from(code)
}
