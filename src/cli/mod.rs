//! The command line: words in, an exit code out.
//!
//! ```text
//!   words --> Invocation (typed, nothing done yet) --> run --> exit code
//!                |                                      |
//!                +-- help, version: stdout, 0           +-- serve: server::run
//!                +-- usage error: stderr, 2             +-- the others: blocking clients
//! ```
//!
//! One file for each command; `commands` lists them all, `flags` and `help` know what every command
//! line has in common. This
//! room owns stdout and stderr: no other room prints. Only `main` calls it.

mod admin;
mod agent;
mod backoff;
mod chain;
mod check;
mod commands;
mod exit;
mod expose;
mod flags;
mod gateway;
mod generate;
mod help;
mod logging;
mod node;
mod output;
mod plan;
mod pump;
mod route;
mod serve;

use std::ffi::OsString;

use exit::Failure;
use flags::{Environment, Usage};

use crate::config::{nearest, plain};

/// Runs the program with the words behind its name; the result is its exit code.
pub fn run(words: &[OsString]) -> u8 {
    let environment = |name: &str| std::env::var_os(name);
    let done = Invocation::parse(words, &environment)
        .map_err(Failure::from)
        .and_then(|invocation| invocation.run(&environment));
    match done {
        Ok(()) => exit::OK,
        Err(failure) => {
            for line in &failure.lines {
                output::say(line);
            }
            failure.code
        }
    }
}

/// What a command line asks for.
enum Invocation {
    /// A text on stdout: help, or the version.
    Print(String),
    Serve(plan::Request),
    Check(plan::Request),
    Update(agent::Update),
    Query(agent::Query),
    Route(route::Request),
    Echo(gateway::Echo),
    Dial(gateway::Dial),
    Node(node::Request),
    Send(node::Send),
    Chain(chain::Request),
    ChainTest(chain::Trial),
    Generate,
    Expose(expose::Request),
    Operate(admin::Request),
}

impl Invocation {
    fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
        let Some((first, rest)) = words.split_first() else {
            return Err(wrong("no command given".to_owned()));
        };
        match first.to_str() {
            Some("--help" | "-h") => Ok(Invocation::Print(commands::overview())),
            Some("--version" | "-V") => Ok(Invocation::Print(VERSION.to_owned())),
            Some("serve") => Ok(match plan::ask(&serve::command(), rest, environment)? {
                plan::Asked::Help(text) => Invocation::Print(text),
                plan::Asked::Plan(request) => Invocation::Serve(request),
            }),
            Some("check") => Ok(match plan::ask(&check::command(), rest, environment)? {
                plan::Asked::Help(text) => Invocation::Print(text),
                plan::Asked::Plan(request) => Invocation::Check(request),
            }),
            Some("agent") => agent::parse(rest, environment),
            Some("route") => route::parse(rest, environment),
            Some("gateway") => gateway::parse(rest, environment),
            Some("node") => node::parse(rest, environment),
            Some("chain") => chain::parse(rest, environment),
            Some("expose") => expose::parse(rest, environment),
            Some("gen") => generate::parse(rest, environment),
            Some("status") => admin::parse("status", rest, environment),
            Some("top") => admin::parse("top", rest, environment),
            Some("kick") => admin::parse("kick", rest, environment),
            Some("drain") => admin::parse("drain", rest, environment),
            Some("reload") => admin::parse("reload", rest, environment),
            _ => Err(wrong(unknown("command", first, &commands::names()))),
        }
    }

    fn run(self, environment: Environment<'_>) -> Result<(), Failure> {
        match self {
            Invocation::Print(text) => output::print(text.as_bytes()),
            Invocation::Serve(request) => serve::run(&request, environment),
            Invocation::Check(request) => check::run(&request, environment),
            Invocation::Update(update) => agent::update(&update),
            Invocation::Query(query) => agent::query(&query),
            Invocation::Route(request) => route::run(request),
            Invocation::Echo(echo) => echo.run(),
            Invocation::Dial(dial) => dial.run(),
            Invocation::Node(request) => node::run(&request),
            Invocation::Send(request) => node::send(&request),
            Invocation::Chain(request) => chain::run(&request),
            Invocation::ChainTest(trial) => trial.run(),
            Invocation::Generate => generate::run(),
            Invocation::Expose(request) => expose::run(request),
            Invocation::Operate(request) => admin::run(&request),
        }
    }
}

/// What to say about a word that is no command, or a flag where a command should be.
fn unknown(what: &str, word: &OsString, known: &[&'static str]) -> String {
    let word = plain(&word.to_string_lossy());
    let what = if word.starts_with('-') { "flag" } else { what };
    match nearest(&word, known.iter().copied()) {
        Some(hint) => format!("unknown {what} {word}; the nearest is {hint}"),
        None => format!("unknown {what} {word}; known: {}", known.join(", ")),
    }
}

fn wrong(message: String) -> Usage {
    Usage {
        command: String::new(),
        message,
    }
}

const VERSION: &str = concat!("towpath ", env!("CARGO_PKG_VERSION"), "\n");

#[cfg(test)]
mod tests;
