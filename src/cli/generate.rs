//! `towpath gen`: secrets to start with.

use std::ffi::OsString;

use super::exit::{FAILED, Failure};
use super::flags::{Command, Environment, Group, HELP, Line, Usage};
use super::{Invocation, output, unknown};
use crate::chain::random_key;
use crate::config::plain;

/// Understands the words behind `gen`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    match values.arguments() {
        [] => Err(command.wrong("key or token? write one of them")),
        [one] if WHAT.contains(&one.as_str()) => Ok(Invocation::Generate),
        [one] => Err(command.wrong(unknown("secret", &one.into(), &WHAT))),
        [one, other, ..] => {
            let (one, other) = (plain(one), plain(other));
            let message = format!("makes one secret, but got {one} and {other}");
            Err(command.wrong(message))
        }
    }
}

/// Prints 32 random bytes. A key and a token are the same; what tells them apart is who reads them.
pub(super) fn run() -> Result<(), Failure> {
    let Some(key) = random_key() else {
        let line = "towpath gen: the system gives no random bytes";
        return Err(Failure::new(FAILED, line));
    };
    output::print(format!("{}\n", key.to_base64()).as_bytes())
}

fn command() -> Command {
    Command {
        name: "gen",
        usage: "key|token",
        about: "Prints a new secret: 32 random bytes in base64. A key is what the hops of a chain and \
                their clients share; a token is what a server wants to be shown.",
        groups: vec![Group {
            title: "Flags",
            flags: vec![HELP],
        }],
        examples: &["(umask 077; towpath gen key > hop.key)"],
    }
}

const WHAT: [&str; 2] = ["key", "token"];
