//! The command line: words in, an exit code out.
//!
//! ```text
//!   words --> Invocation (typed, nothing done yet) --> run --> exit code
//!                |                                      |
//!                +-- help, version: stdout, 0           +-- serve: server::run
//!                +-- usage error: stderr, 2             +-- the others: blocking clients
//! ```
//!
//! One file for each command; `flags` and `help` know what every command line has in common. This
//! room owns stdout and stderr: no other room prints. Only `main` calls it.

mod agent;
mod backoff;
mod check;
mod exit;
mod expose;
mod flags;
mod gateway;
mod help;
mod logging;
mod node;
mod output;
mod plan;
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
    Expose(expose::Request),
}

impl Invocation {
    fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
        let Some((first, rest)) = words.split_first() else {
            return Err(wrong("no command given".to_owned()));
        };
        match first.to_str() {
            Some("--help" | "-h") => Ok(Invocation::Print(overview())),
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
            Some("expose") => expose::parse(rest, environment),
            _ => Err(wrong(unknown("command", first, &NAMES))),
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
            Invocation::Expose(request) => expose::run(request),
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

fn overview() -> String {
    let mut text = String::from(
        "A relay server for Linux, and its clients.\n\nUsage:\n  towpath COMMAND [ARGUMENTS] [FLAGS]\n",
    );
    for (title, rows) in OVERVIEW {
        text.push_str(&format!("\n{title}:\n"));
        for (left, right) in *rows {
            help::row(&mut text, &format!("  {left}"), right);
        }
    }
    text
}

/// Every command and flag of the program itself, for the hints.
const NAMES: [&str; 9] = [
    "serve",
    "check",
    "agent",
    "route",
    "gateway",
    "node",
    "expose",
    "--help",
    "--version",
];

const VERSION: &str = concat!("towpath ", env!("CARGO_PKG_VERSION"), "\n");

const OVERVIEW: &[(&str, &[(&str, &str)])] = &[
    (
        "Server",
        &[
            ("serve", "run every role that has an address to listen on"),
            (
                "check",
                "say what serve would do, or every mistake in its configuration",
            ),
        ],
    ),
    (
        "Clients",
        &[
            (
                "agent update ID SECTION [FILE]",
                "store a value, from FILE or stdin",
            ),
            ("agent query ID SECTION", "print a value"),
            (
                "route FIELD --service NAME",
                "reach a host behind the server, by a local port or stdin and stdout",
            ),
            (
                "gateway echo --id N",
                "be a server of a gateway that sends every message back",
            ),
            (
                "gateway dial SERVER_ID",
                "exchange messages with a server of a gateway, by stdin and stdout",
            ),
            (
                "node [--forward ADDR]",
                "get a public address and print what peers send there",
            ),
            ("node send PUBLIC_ADDR", "send lines to a node"),
            (
                "expose [NAME=]LOCAL...",
                "give services of this host a public port",
            ),
        ],
    ),
    (
        "Flags",
        &[
            ("-h, --help", "print this text; behind a command, its own"),
            ("-V, --version", "print the version"),
        ],
    ),
];

#[cfg(test)]
mod tests;
