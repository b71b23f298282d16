//! Help texts: grouped, aligned, and never wider than a terminal of 80 columns.

use super::flags::{Command, Flag};
use crate::config::variable;

/// The help of one command.
pub(super) fn command(command: &Command) -> String {
    let mut text = String::new();
    wrap(&mut text, command.about, 0);
    text.push_str("\nUsage:\n");
    let line = format!("towpath {} {}", command.name, command.usage);
    indented(&mut text, line.trim(), 2, 10);
    for group in &command.groups {
        text.push_str(&format!("\n{}:\n", group.title));
        for flag in &group.flags {
            self::flag(&mut text, flag);
        }
    }
    if !command.examples.is_empty() {
        text.push_str("\nExamples:\n");
        for line in command.examples {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

/// A name on the left and its meaning on the right, at the column of all the others.
pub(super) fn row(text: &mut String, left: &str, right: &str) {
    text.push_str(left);
    let width = left.chars().count();
    if width + 2 > COLUMN {
        text.push('\n');
        text.push_str(&" ".repeat(COLUMN));
    } else {
        text.push_str(&" ".repeat(COLUMN - width));
    }
    wrap(text, right, COLUMN);
}

fn flag(text: &mut String, flag: &Flag) {
    let short = match flag.short {
        Some(short) => format!("-{short}, "),
        None => "    ".to_owned(),
    };
    let value = flag
        .value
        .map(|word| format!(" {word}"))
        .unwrap_or_default();
    let help = meaning(flag);
    row(text, &format!("  {short}--{}{value}", flag.long), &help);
}

/// All that is said of a flag.
pub(super) fn meaning(flag: &Flag) -> String {
    let mut help = flag.help.to_owned();
    if flag.in_environment {
        help.push_str(&format!(", or {}", variable(flag.long)));
    }
    if !flag.default.is_empty() {
        // The first space does not break, so that a short default stays in one piece.
        help.push_str(&format!(" [default:{UNBROKEN}{}]", flag.default));
    }
    help
}

/// Puts words into lines; the first begins where the text stands, the others at `column`.
fn wrap(text: &mut String, words: &str, column: usize) {
    let mut width = column;
    for word in words.split(' ') {
        let length = word.chars().count();
        if width > column && width + 1 + length > WIDTH {
            text.push('\n');
            text.push_str(&" ".repeat(column));
            width = column;
        }
        if width > column {
            text.push(' ');
            width += 1;
        }
        text.push_str(&word.replace(UNBROKEN, " "));
        width += length;
    }
    text.push('\n');
}

fn indented(text: &mut String, words: &str, first: usize, column: usize) {
    let mut wrapped = String::new();
    wrap(&mut wrapped, words, column);
    text.push_str(&" ".repeat(first));
    text.push_str(&wrapped);
}

/// Where the meanings begin.
const COLUMN: usize = 32;

/// Stands for a space at which no line ends.
pub(super) const UNBROKEN: char = '\u{a0}';

/// The widest line.
const WIDTH: usize = 79;
