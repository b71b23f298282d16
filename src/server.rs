//! Boot: the threads and listeners of a plan, and their ordered stop.

use std::fmt;
use std::path::PathBuf;

use crate::config::Core;
use crate::protocols::agent;

/// What a server is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server's own part.
    pub core: Core,
    /// The agent role.
    pub agent: agent::Config,
    /// Where the bound addresses are written once every listener is bound.
    pub address_file: Option<PathBuf>,
}

/// Why a server did not start.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    /// The exit code that tells a supervisor whether to try again.
    pub fn exit_code(&self) -> u8 {
        1
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs the plan until it is drained.
pub fn run(plan: Plan) -> Result<(), StartError> {
    let listeners = plan.agent.listen.len();
    Err(StartError(format!("no engine for {listeners} listeners")))
}
