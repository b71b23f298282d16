//! `towpath serve`: reads the plan, starts the log, and hands over to the server.

use log::{info, warn};

use super::exit::Failure;
use super::flags::{Command, Environment};
use super::{logging, plan};
use crate::server;
use crate::sys;

/// The command's face.
pub(super) fn command() -> Command {
    Command {
        name: "serve",
        usage: "[FLAGS]",
        about: ABOUT,
        groups: plan::groups(),
        examples: EXAMPLES,
    }
}

/// Serves until the server is told to stop and everything open has ended.
pub(super) fn run(request: &plan::Request, environment: Environment<'_>) -> Result<(), Failure> {
    let reading = plan::read(request, environment)
        .map_err(|mistakes| Failure::of_mistakes("serve", &mistakes))?;
    // The log runs as long as this guard lives: its last lines come out before the exit code.
    let _logging = logging::start(request.log.as_deref());
    match &reading.file {
        Some(path) => info!("configuration from {}", path.display()),
        None => info!("no configuration file; serving with the defaults"),
    }
    for warning in &reading.warnings {
        warn!("{warning}");
    }
    if !reading.plan.core.debuggable
        && let Err(error) = sys::forbid_debugging()
    {
        warn!("a crash may leave a core file, secrets in it: {error}");
    }
    let again = request.clone();
    let source = move || {
        let reading = plan::read(&again, &|name| std::env::var_os(name))?;
        Ok((reading.plan, reading.warnings))
    };
    server::run(reading.plan, Box::new(source))
        .map_err(|error| Failure::new(error.exit_code(), format!("towpath serve: {error}")))
}

const ABOUT: &str = "Runs the server: every role that has an address to listen on. A flag beats \
                     the environment (TOWPATH_<FLAG>, such as TOWPATH_IDLE_TIMEOUT), which beats the \
                     configuration file, which beats the default. TIME is like 250ms, 5s, 3m or 12h, \
                     SIZE like 16K, 8M or 1G, ADDR like 127.0.0.1:7100 or [::1]:7100, :7100 for every \
                     interface, or off; more of them by commas or by repeating the flag. A secret is \
                     named by its file, or is itself in the environment: TOWPATH_TOKEN is what agents \
                     must show before an update, in place of --token-file. Exits 2 where only flags \
                     are wrong, 78 for a mistake in the configuration.";

const EXAMPLES: &[&str] = &[
    "towpath serve",
    "towpath serve --config /etc/towpath.toml --log debug",
    "towpath serve --agent 127.0.0.1:0 --address-file addresses.json",
    "TOWPATH_IDLE_TIMEOUT=1h towpath serve --workers 4 --pin",
];
