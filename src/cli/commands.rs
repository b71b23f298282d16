//! Every command, once: the overview, the hints, the man page and the shells' completions read this
//! list, and the table of the command that each row names.

use super::flags::{Command, Flag, HELP};
use super::{admin, agent, chain, check, expose, gateway, generate, help, node, route, serve};

/// A command's row.
pub(super) struct Row {
    /// Its face.
    pub(super) face: fn() -> Command,
    /// What it does, in a few words.
    pub(super) summary: &'static str,
}

/// Every command under its heading, in the order of the overview.
pub(super) const COMMANDS: &[(&str, &[Row])] = &[
    (
        "Server",
        &[
            Row {
                face: serve::command,
                summary: "run every role that has an address to listen on",
            },
            Row {
                face: check::command,
                summary: "say what serve would do, or every mistake in its configuration",
            },
        ],
    ),
    (
        "Clients",
        &[
            Row {
                face: agent::update_command,
                summary: "store a value, from FILE or stdin",
            },
            Row {
                face: agent::query_command,
                summary: "print a value",
            },
            Row {
                face: route::command,
                summary: "reach a host behind the server, by a local port or stdin and stdout",
            },
            Row {
                face: gateway::echo_command,
                summary: "be a server of a gateway that sends every message back",
            },
            Row {
                face: gateway::dial_command,
                summary: "exchange messages with a server of a gateway, by stdin and stdout",
            },
            Row {
                face: node::command,
                summary: "get a public address and print what peers send there",
            },
            Row {
                face: node::send_command,
                summary: "send lines to a node",
            },
            Row {
                face: chain::command,
                summary: "reach a destination through proxy servers, by a local port or stdin and stdout",
            },
            Row {
                face: chain::test_command,
                summary: "try a chain, and say how far it reaches",
            },
            Row {
                face: expose::command,
                summary: "give services of this host a public port",
            },
        ],
    ),
    (
        "Operators",
        &[
            Row {
                face: || admin::command("status"),
                summary: "say what a server is doing",
            },
            Row {
                face: || admin::command("top"),
                summary: "show its sessions, anew each second",
            },
            Row {
                face: || admin::command("kick"),
                summary: "end one session",
            },
            Row {
                face: || admin::command("reload"),
                summary: "have it read its configuration again",
            },
            Row {
                face: || admin::command("drain"),
                summary: "have it take nothing new, finish what is open, and exit",
            },
        ],
    ),
    (
        "Setting up",
        &[
            Row {
                face: generate::secret_command,
                summary: "print 32 random bytes in base64",
            },
            Row {
                face: generate::completions_command,
                summary: "print what completes this command line in a shell",
            },
            Row {
                face: generate::man_command,
                summary: "print the man page",
            },
        ],
    ),
];

/// The flags of the program itself.
pub(super) const PROGRAM: [Flag; 2] = [
    Flag {
        help: "print this text; behind a command, its own",
        ..HELP
    },
    Flag::switch("version", "print the version").short('V'),
];

/// Every row, without the headings.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    COMMANDS.iter().flat_map(|(_, rows)| *rows)
}

/// The text of `towpath --help`.
pub(super) fn overview() -> String {
    let mut text = String::from(
        "A relay server for Linux, and its clients.\n\nUsage:\n  towpath COMMAND [ARGUMENTS] [FLAGS]\n",
    );
    for (title, rows) in COMMANDS {
        text.push_str(&format!("\n{title}:\n"));
        for row in *rows {
            let command = (row.face)();
            let usage = command.usage.trim_end_matches("[FLAGS]");
            let left = format!("  {} {usage}", command.name);
            help::row(&mut text, left.trim_end(), row.summary);
        }
    }
    text.push_str("\nFlags:\n");
    for flag in &PROGRAM {
        let short = flag.short.map(|short| format!("-{short}, "));
        let left = format!("  {}--{}", short.unwrap_or_default(), flag.long);
        help::row(&mut text, &left, flag.help);
    }
    text
}

/// Every first word of a command line, for the hints.
pub(super) fn names() -> Vec<&'static str> {
    let root = places().swap_remove(0);
    let mut names: Vec<_> = root.words.iter().map(|(word, _)| *word).collect();
    names.extend(["--help", "--version"]);
    names
}

/// A place on the command line, behind all the words that name a command there.
pub(super) struct Place {
    /// Those words, each behind a space: nothing at the start, then ` agent`, ` agent update`.
    pub(super) path: String,
    /// Which words may go on from here, and what each is for.
    pub(super) words: Vec<(&'static str, String)>,
    /// What may stand here as an argument.
    pub(super) operand: Wanted,
    /// The flags that may stand here.
    pub(super) flags: Vec<Flag>,
}

/// What a flag or an argument wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing.
    Nothing,
    /// One of these words.
    Words(Vec<&'static str>),
    /// A file.
    File,
    /// A folder.
    Folder,
    /// Something of the user's own, which this names.
    Own(&'static str),
}

/// Every place, the start first and each before those that lead on from it.
pub(super) fn places() -> Vec<Place> {
    let mut places = vec![Place::new(String::new(), PROGRAM.to_vec())];
    for row in rows() {
        let command = (row.face)();
        let mut path = String::new();
        for word in command.name.split(' ') {
            let before = path.clone();
            path.push(' ');
            path.push_str(word);
            let is_whole = path[1..] == *command.name;
            let Some(place) = places.iter_mut().find(|place| place.path == before) else {
                continue;
            };
            match place.words.iter_mut().find(|(known, _)| *known == word) {
                // What is a command of its own is told already.
                Some(_) if is_command(&path) => {}
                Some((_, about)) => about.push_str(&format!(" or {}", last(command.name))),
                None if is_whole => place.words.push((word, row.summary.to_owned())),
                None => place.words.push((word, last(command.name).to_owned())),
            }
            if !places.iter().any(|place| place.path == path) {
                places.push(Place::new(path.clone(), vec![HELP]));
            }
        }
        if let Some(place) = places.iter_mut().find(|place| place.path == path) {
            place.operand = operand(command.usage);
            place.flags = command.flags().cloned().collect();
        }
    }
    places
}

impl Place {
    fn new(path: String, flags: Vec<Flag>) -> Self {
        Self {
            path,
            words: Vec::new(),
            operand: Wanted::Nothing,
            flags,
        }
    }
}

impl Flag {
    /// What its value is.
    pub(super) fn wanted(&self) -> Wanted {
        match (self.value, self.choices) {
            (None, _) => Wanted::Nothing,
            (Some(word), []) => named(word),
            (Some(_), choices) => Wanted::Words(choices.to_vec()),
        }
    }
}

fn is_command(path: &str) -> bool {
    rows().any(|row| path.strip_prefix(' ') == Some((row.face)().name))
}

/// The word of a command's name that nothing follows.
fn last(name: &'static str) -> &'static str {
    name.rsplit(' ').next().unwrap_or(name)
}

/// What a usage line's arguments are: of several, what can be completed.
fn operand(usage: &'static str) -> Wanted {
    let mut words = usage.split(' ');
    let mut found = Wanted::Nothing;
    while let Some(word) = words.next() {
        if word.trim_start_matches('[').starts_with('-') {
            // Its value, where it has one, is no argument.
            if !word.ends_with(']') {
                words.next();
            }
            continue;
        }
        let bare = word.trim_matches(['[', ']', '.']);
        let is_better = matches!(found, Wanted::Nothing | Wanted::Own(_));
        if bare != "FLAGS" && is_better {
            found = match bare.contains('|') {
                true => Wanted::Words(bare.split('|').collect()),
                false => named(bare),
            };
        }
    }
    found
}

fn named(placeholder: &'static str) -> Wanted {
    match placeholder {
        "" => Wanted::Nothing,
        "FILE" => Wanted::File,
        "DIR" => Wanted::Folder,
        other => Wanted::Own(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lead_from_the_start_to_every_command() {
        let places = places();
        let paths: Vec<_> = places.iter().map(|place| place.path.as_str()).collect();
        assert_eq!(paths[..4], ["", " serve", " check", " agent"]);
        for row in rows() {
            let path = format!(" {}", (row.face)().name);
            assert!(paths.contains(&path.as_str()), "{path}");
        }
        let agent = &places[3];
        let words: Vec<_> = agent.words.iter().map(|(word, _)| *word).collect();
        assert_eq!(words, ["update", "query"]);
        assert_eq!(agent.flags.len(), 1);
        let of_start = |name| places[0].words.iter().find(|(word, _)| *word == name);
        assert_eq!(of_start("agent").unwrap().1, "update or query");
        let node = of_start("node").unwrap();
        assert_eq!(
            node.1,
            "get a public address and print what peers send there"
        );
    }

    #[test]
    fn a_usage_line_tells_what_is_completed() {
        assert_eq!(operand("ID SECTION [FILE] [FLAGS]"), Wanted::File);
        let words = Wanted::Words(vec!["bash", "zsh"]);
        assert_eq!(operand("bash|zsh"), words);
        assert_eq!(operand("[FLAGS]"), Wanted::Nothing);
        let own = Wanted::Own("DESTINATION");
        assert_eq!(
            operand("DESTINATION --key-file FILE... [--dry] [FLAGS]"),
            own
        );
    }
}
