//! The man page, in roff: the tables of all commands between a few sections of its own.

use super::super::commands::{PROGRAM, rows};
use super::super::flags::{Command, Flag, Group};
use super::super::{exit, help};
use crate::server::SIGNALS;

/// The page.
pub(super) fn page() -> String {
    let mut page = Page(String::new());
    page.begin();
    page.section("COMMANDS");
    let mut before: Vec<Command> = Vec::new();
    for row in rows() {
        let command = (row.face)();
        page.command(&command, &before);
        before.push(command);
    }
    page.section("ENVIRONMENT");
    page.paragraph(
        "Every flag of serve and check has a variable, TOWPATH_ and its name with underscores, such \
         as TOWPATH_IDLE_TIMEOUT. A flag beats its variable, which beats the configuration file. \
         Flags of other commands have one where their text says so.",
    );
    for (name, meaning) in ENVIRONMENT {
        page.term(&bold(name), meaning);
    }
    page.section("FILES");
    for (name, meaning) in FILES {
        page.term(&italic(name), meaning);
    }
    page.section("SIGNALS");
    page.paragraph("What a running server does when it gets one:");
    for (names, meaning) in SIGNALS {
        page.term(&bold(names), meaning);
    }
    page.section("EXIT STATUS");
    for (code, meaning) in exit::CODES {
        page.term(&bold(&code.to_string()), meaning);
    }
    page.0
}

struct Page(String);

impl Page {
    fn begin(&mut self) {
        let version = escaped(env!("CARGO_PKG_VERSION"));
        // Left-adjusted and without hyphens: flags and addresses are to be copied.
        self.line(&format!(
            ".TH TOWPATH 1 \"\" \"towpath {version}\" \"User Commands\"\n.nh\n.ad l"
        ));
        self.section("NAME");
        self.line("towpath \\- relay server for Linux, and its clients");
        self.section("SYNOPSIS");
        self.line(".B towpath\n\\fICOMMAND\\fR [\\fIARGUMENTS\\fR] [\\fIFLAGS\\fR]");
        for flag in &PROGRAM {
            self.line(&format!(".br\n.B towpath\n\\fB\\-\\-{}\\fR", flag.long));
        }
        self.section("DESCRIPTION");
        self.paragraph(
            "towpath serve relays connections, messages and datagrams, stores values for agents and \
             lends public addresses, on one event loop for each core. The other commands are clients \
             of such a server, or tell what it would do.",
        );
    }

    fn section(&mut self, title: &str) {
        self.line(&format!(".SH {title}"));
    }

    fn command(&mut self, command: &Command, before: &[Command]) {
        let usage = format!("towpath {} {}", command.name, command.usage);
        self.line(&format!(".SS \"{}\"", escaped(usage.trim())));
        self.paragraph(command.about);
        let is_same = |other: &&Command| other.flags().map(long).eq(command.flags().map(long));
        match before.iter().find(is_same) {
            // Two commands have each some fifty of the same.
            Some(other) if command.flags().count() > 1 => {
                self.paragraph(&format!("Its flags are those of towpath {}.", other.name));
            }
            _ => self.groups(&command.groups),
        }
        if !command.examples.is_empty() {
            self.line(".PP\nExamples:\n.PP\n.RS 4\n.nf");
            for example in command.examples {
                self.line(&escaped(example));
            }
            self.line(".fi\n.RE");
        }
    }

    fn groups(&mut self, groups: &[Group]) {
        for group in groups {
            if groups.len() > 1 {
                self.line(&format!(".PP\n{}:", bold(group.title)));
            }
            for flag in &group.flags {
                let short = flag.short.map(|short| bold(&format!("-{short}")) + ", ");
                let long = bold(&format!("--{}", flag.long));
                let value = flag.value.map(|value| format!(" {}", italic(value)));
                let left = [short.unwrap_or_default(), long, value.unwrap_or_default()];
                self.term(&left.concat(), &help::meaning(flag));
            }
        }
    }

    fn paragraph(&mut self, text: &str) {
        // A heading begins a paragraph by itself.
        let last = self.0.trim_end().rsplit('\n').next().unwrap_or_default();
        let is_first = last.starts_with(".SH ") || last.starts_with(".SS ");
        let begin = if is_first { "" } else { ".PP\n" };
        self.line(&format!("{begin}{}", escaped(text)));
    }

    /// A word, which is roff already, and what it means.
    fn term(&mut self, word: &str, meaning: &str) {
        self.line(&format!(".TP\n{word}\n{}", escaped(meaning)));
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }
}

fn long(flag: &Flag) -> &'static str {
    flag.long
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", escaped(text))
}

/// A text as roff shows it; no line of it is taken for a request.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    if text.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '~' => out.push_str("\\(ti"),
            '^' => out.push_str("\\(ha"),
            '`' => out.push_str("\\(ga"),
            '"' => out.push_str("\\(dq"),
            '\'' => out.push_str("\\(aq"),
            // At this space no line ends.
            help::UNBROKEN => out.push_str("\\ "),
            other => out.push(other),
        }
    }
    out
}

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "TOWPATH_SERVER",
        "The server of a client that is given none by --server.",
    ),
    (
        "TOWPATH_TOKEN",
        "The token itself, in place of --token-file.",
    ),
    (
        "TOWPATH_KEY",
        "The gateway's key for servers itself, in place of --key-file.",
    ),
    (
        "RUST_LOG",
        "What to log, in more detail than --log, which beats it.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "Set by a service manager, which is told by them that the server is ready, that it is alive \
         and that it stops, and is given the listening sockets to keep over a crash.",
    ),
    (
        "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES",
        "Sockets that a service manager has opened: serve takes those whose address it is to listen \
         on in place of its own.",
    ),
];

const FILES: &[(&str, &str)] = &[
    (
        "conf/towpath.toml",
        "The configuration of a server that is given none by --config, where it exists.",
    ),
    (
        "/etc/towpath/towpath.toml",
        "The configuration of the system's service, towpath.service.",
    ),
    ("/var/lib/towpath", "What that service stores."),
    (
        "~/.local/state/towpath/node.key",
        "The key to which a node's address belongs, made on first use.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_as_it_is() {
        assert_eq!(escaped(".x"), "\\&.x");
        assert_eq!(escaped("a\\n 'b' -c"), "a\\en \\(aqb\\(aq \\-c");
    }

    #[test]
    fn the_page_has_every_command_and_flag_once() {
        let page = page();
        for row in rows() {
            let command = (row.face)();
            let heading = format!(".SS \"towpath {}", escaped(command.name));
            assert!(page.contains(&heading), "{heading}");
            for flag in command.flags() {
                let flag = bold(&format!("--{}", flag.long));
                assert!(page.contains(&flag), "{flag}");
            }
        }
        let once = bold("--max-connections-per-ip");
        assert_eq!(page.matches(&once).count(), 1, "not again for check");
    }
}
