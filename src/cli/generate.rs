//! `towpath gen`: what an installation needs besides the program, made from the program's own
//! tables.

mod bash;
mod fish;
mod man;
mod zsh;

use std::ffi::OsString;

use super::flags::{Command, Environment, Group, HELP, Line, Usage};
use super::{Invocation, unknown};
use crate::config::plain;

/// Understands the words behind `gen`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let wrong = |message: String| Usage {
        command: "gen".to_owned(),
        message,
    };
    let Some((first, rest)) = words.split_first() else {
        let what = WHAT.join(" or ");
        return Err(wrong(format!("{what}? write one of them")));
    };
    match first.to_str() {
        Some("--help" | "-h") => Ok(Invocation::Print(format!(
            "{}\n{}",
            completions_command().help(),
            man_command().help()
        ))),
        Some("completions") => parse_completions(rest, environment),
        Some("man") => parse_man(rest, environment),
        _ => Err(wrong(unknown("command", first, &WHAT))),
    }
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

const WHAT: [&str; 2] = ["completions", "man"];

const SHELLS: &str = "bash|zsh|fish";
