//! What a command takes, as a table: the parser and the help text both read it. What the values
//! mean is the command's own knowledge.

use std::ffi::OsString;

use getopts::{Fail, HasArg, Matches, Occur, Options};

use super::{help, logging};
use crate::config::{nearest, plain, variable};

/// A command's face.
pub(super) struct Command {
    /// Its name after `towpath`, such as `agent update`.
    pub(super) name: &'static str,
    /// What follows the name, such as `ID SECTION [FILE] [FLAGS]`.
    pub(super) usage: &'static str,
    /// What it does, in one or two sentences.
    pub(super) about: &'static str,
    /// Its flags under their headings.
    pub(super) groups: Vec<Group>,
    /// Command lines and, where the line does not speak for itself, what they do.
    pub(super) examples: &'static [&'static str],
}

/// Flags under one heading.
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) flags: Vec<Flag>,
}

/// One flag.
#[derive(Clone)]
pub(super) struct Flag {
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    /// The word for its value; none for a switch.
    pub(super) value: Option<&'static str>,
    /// Every value that it takes, where they are few.
    pub(super) choices: &'static [&'static str],
    /// Whether it may be given more than once.
    pub(super) repeats: bool,
    /// Whether `TOWPATH_<NAME>` stands in for it.
    pub(super) in_environment: bool,
    /// What holds without it; empty where nothing does.
    pub(super) default: &'static str,
    pub(super) help: &'static str,
}

/// Looks an environment variable up. Tests pass one of their own.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A command line that asks for something that is not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// The command whose `--help` tells more; empty for the program's own.
    pub(super) command: String,
    /// What is wrong and what would be right.
    pub(super) message: String,
}

/// `towpath serve: unknown flag --workes, the nearest is --workers (see towpath serve --help)`
impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let space = if self.command.is_empty() { "" } else { " " };
        let (command, message) = (&self.command, &self.message);
        write!(
            f,
            "towpath{space}{command}: {message} (see towpath{space}{command} --help)"
        )
    }
}

/// A command line that was understood.
pub(super) enum Line<'a> {
    /// The help text was asked for.
    Help(String),
    /// The values are there.
    Values(Values<'a>),
}

/// The values of a command line; the environment stands in where a flag's table says so.
pub(super) struct Values<'a> {
    matches: Matches,
    environment: Environment<'a>,
    standing_in: Vec<&'static str>,
    arguments: Vec<String>,
}

impl Flag {
    /// A flag without a value.
    pub(super) const fn switch(long: &'static str, help: &'static str) -> Flag {
        Flag {
            long,
            short: None,
            value: None,
            choices: &[],
            repeats: false,
            in_environment: false,
            default: "",
            help,
        }
    }

    /// A flag with a value.
    pub(super) const fn value(long: &'static str, value: &'static str, help: &'static str) -> Flag {
        let mut flag = Flag::switch(long, help);
        flag.value = Some(value);
        flag
    }

    /// The same flag with a short form.
    pub(super) const fn short(mut self, short: char) -> Flag {
        self.short = Some(short);
        self
    }

    /// The same flag with what holds without it.
    pub(super) const fn default(mut self, default: &'static str) -> Flag {
        self.default = default;
        self
    }

    /// The same flag with all its values.
    pub(super) const fn choices(mut self, choices: &'static [&'static str]) -> Flag {
        self.choices = choices;
        self
    }

    /// The same flag with `TOWPATH_<NAME>` standing in for it.
    pub(super) const fn environment(mut self) -> Flag {
        self.in_environment = true;
        self
    }
}

impl Command {
    /// The help text: it ends with a line end and is at most 80 columns wide.
    pub(super) fn help(&self) -> String {
        help::command(self)
    }

    /// A usage error of this command.
    pub(super) fn wrong(&self, message: impl Into<String>) -> Usage {
        Usage {
            command: self.name.to_owned(),
            message: message.into(),
        }
    }

    /// Understands what follows the command's name.
    pub(super) fn parse<'a>(
        &self,
        words: &[OsString],
        environment: Environment<'a>,
    ) -> Result<Line<'a>, Usage> {
        let mut options = Options::new();
        for flag in self.flags() {
            let short = flag.short.map(String::from).unwrap_or_default();
            let takes = match flag.value {
                Some(_) => HasArg::Yes,
                // Only as `--pin=false`: a switch never takes the word behind it.
                None => HasArg::Maybe,
            };
            let occurs = match flag.repeats {
                true => Occur::Multi,
                false => Occur::Optional,
            };
            options.opt(&short, flag.long, "", "", takes, occurs);
        }
        let mut matches = options.parse(words).map_err(|fail| self.refuse(&fail))?;
        if matches.opt_present("help") {
            return Ok(Line::Help(self.help()));
        }
        for flag in self.flags().filter(|flag| flag.value.is_none()) {
            let mut values = matches.opt_strs(flag.long).into_iter();
            if let Some(other) = values.find(|value| !["true", "false"].contains(&value.as_str())) {
                let (long, other) = (flag.long, plain(&other));
                let message =
                    format!("--{long} is on or off; write --{long} or --{long}=false, not {other}");
                return Err(self.wrong(message));
            }
        }
        let standing_in = self.flags().filter(|flag| flag.in_environment);
        let arguments = std::mem::take(&mut matches.free);
        Ok(Line::Values(Values {
            matches,
            environment,
            standing_in: standing_in.map(|flag| flag.long).collect(),
            arguments,
        }))
    }

    /// All its flags, without the headings.
    pub(super) fn flags(&self) -> impl Iterator<Item = &Flag> {
        self.groups.iter().flat_map(|group| &group.flags)
    }

    fn refuse(&self, fail: &Fail) -> Usage {
        let dashed = |name: &str| {
            let name = plain(name);
            match name.chars().count() {
                1 => format!("-{name}"),
                _ => format!("--{name}"),
            }
        };
        self.wrong(match fail {
            Fail::UnrecognizedOption(name) => {
                let known = self.flags().map(|flag| flag.long);
                match nearest(name, known) {
                    Some(hint) => format!("unknown flag {}; the nearest is --{hint}", dashed(name)),
                    None => format!("unknown flag {}", dashed(name)),
                }
            }
            Fail::ArgumentMissing(name) => {
                let is_named = |flag: &&Flag| {
                    flag.long == name || flag.short.is_some_and(|short| name.starts_with(short))
                };
                let value = self.flags().find(is_named).and_then(|flag| flag.value);
                let value = value.unwrap_or("VALUE");
                format!("{0} needs a value; write {0} {value}", dashed(name))
            }
            Fail::OptionDuplicated(name) => {
                format!("{} is given twice; once is enough", dashed(name))
            }
            Fail::OptionMissing(name) => format!("{} is needed", dashed(name)),
            Fail::UnexpectedArgument(name) => format!("{} takes no value", dashed(name)),
        })
    }
}

impl Values<'_> {
    /// A flag's value, or its variable's.
    pub(super) fn value(&self, long: &'static str) -> Option<String> {
        self.matches.opt_str(long).or_else(|| self.variable(long))
    }

    /// Every value that a flag was given, the environment left aside.
    pub(super) fn given(&self, long: &'static str) -> Option<Vec<String>> {
        let words = self.matches.opt_strs(long);
        match (self.matches.opt_present(long), words.is_empty()) {
            (false, _) => None,
            (true, true) => Some(vec!["true".to_owned()]),
            (true, false) => Some(words),
        }
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, long: &'static str) -> bool {
        let given = self.given(long);
        given.is_some_and(|words| words.last().is_some_and(|word| word == "true"))
    }

    /// The variable of a secret that a `--NAME-file` flag would name: its own value.
    pub(super) fn environment(&self, name: &str) -> Option<OsString> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// The words that belong to no flag.
    pub(super) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    fn variable(&self, long: &'static str) -> Option<String> {
        let stands_in = self.standing_in.contains(&long);
        let value = self.environment(&variable(long)).filter(|_| stands_in)?;
        value.into_string().ok()
    }
}

/// The flag that every command has.
pub(super) const HELP: Flag = Flag::switch("help", "print this text").short('h');

/// The flag of every command that logs.
pub(super) const LOG: Flag = Flag::value(
    "log",
    "LEVEL",
    "what to log: off, error, warn, info, debug or trace; RUST_LOG says it in more detail",
)
.default("info")
.choices(logging::LEVELS);
