//! `towpath gen`: secrets to start with, and what an installation has besides the program, made from
//! the program's own tables.

mod bash;
mod fish;
mod man;
mod zsh;

use std::ffi::OsString;

use super::exit::{FAILED, Failure};
use super::flags::{Command, Environment, Group, HELP, Line, Usage};
use super::{Invocation, output, unknown};
use crate::chain::random_key;
use crate::config::plain;

/// Understands the words behind `gen`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let wrong = |message: String| Usage {
        command: "gen".to_owned(),
        message,
    };
    let Some((first, rest)) = words.split_first() else {
        let what = WHAT.join(", ");
        return Err(wrong(format!("write one of {what}")));
    };
    match first.to_str() {
        Some("--help" | "-h") => Ok(Invocation::Print(format!(
            "{}\n{}\n{}",
            secret_command().help(),
            completions_command().help(),
            man_command().help()
        ))),
        Some("completions") => parse_completions(rest, environment),
        Some("man") => parse_man(rest, environment),
        Some(word) if SECRETS.contains(&word) => parse_secret(words, environment),
        _ => Err(wrong(unknown("command", first, &WHAT))),
    }
}

fn parse_secret(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = secret_command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    match values.arguments() {
        [one, other, ..] => {
            let (one, other) = (plain(one), plain(other));
            let message = format!("makes one secret, but got {one} and {other}");
            Err(command.wrong(message))
        }
        _ => Ok(Invocation::Generate),
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

fn parse_completions(
    words: &[OsString],
    environment: Environment<'_>,
) -> Result<Invocation, Usage> {
    let command = completions_command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    let [shell] = values.arguments() else {
        let count = values.arguments().len();
        let message = format!("takes one of {SHELLS}, but got {count} words");
        return Err(command.wrong(message));
    };
    match shell.as_str() {
        "bash" => Ok(Invocation::Print(bash::script())),
        "zsh" => Ok(Invocation::Print(zsh::script())),
        "fish" => Ok(Invocation::Print(fish::script())),
        other => {
            let other = plain(other);
            Err(command.wrong(format!("{other} is no shell of these: {SHELLS}")))
        }
    }
}

fn parse_man(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = man_command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    match values.arguments() {
        [] => Ok(Invocation::Print(man::page())),
        [word, ..] => {
            let word = plain(word);
            Err(command.wrong(format!("takes no argument, but got {word}")))
        }
    }
}

/// The face of `gen key` and `gen token`.
pub(super) fn secret_command() -> Command {
    Command {
        name: "gen",
        usage: "key|token",
        about: "Prints a new secret: 32 random bytes in base64. A key is what the hops of a chain and \
                their clients share; a token is what a server wants to be shown.",
        groups: flags(),
        examples: &["(umask 077; towpath gen key > hop.key)"],
    }
}

/// The face of `gen completions`.
pub(super) fn completions_command() -> Command {
    Command {
        name: "gen completions",
        usage: SHELLS,
        about: "Prints a script by which a shell completes the words of towpath's command lines. \
                make install puts all three where the shells look for them.",
        groups: flags(),
        examples: &[
            "source <(towpath gen completions bash)",
            "towpath gen completions fish > ~/.config/fish/completions/towpath.fish",
        ],
    }
}

/// The face of `gen man`.
pub(super) fn man_command() -> Command {
    Command {
        name: "gen man",
        usage: "",
        about: "Prints the man page: every command with its flags, and what is true of all of them.",
        groups: flags(),
        examples: &["towpath gen man > towpath.1; man ./towpath.1"],
    }
}

fn flags() -> Vec<Group> {
    vec![Group {
        title: "Flags",
        flags: vec![HELP],
    }]
}

const WHAT: [&str; 4] = ["key", "token", "completions", "man"];

const SECRETS: [&str; 2] = ["key", "token"];

const SHELLS: &str = "bash|zsh|fish";
