//! One entry of a key table: everything that is true of a configuration key, said once. Parsing,
//! defaults, the flags of `serve`, the environment's names, the help text and the nearest-name
//! hints all read the same entry. The core's table is in this room, a role's table in its own.

use std::time::Duration;

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands in the file: `workers`, or `agent.max_payload` for a key of `[agent]`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default, written as a flag's value is. Empty: nothing, or for a switch off.
    pub default: &'static str,
    /// The long flag of `serve`, without dashes; none for keys that only the file can set.
    pub flag: Option<&'static str>,
    /// The short flag, for the common few.
    pub short: Option<char>,
    /// What it does: the flag's help, one sentence without a full stop.
    pub help: &'static str,
    /// It holds as it was at the start until the server starts anew, whatever is read later.
    pub is_fixed: bool,
}

/// What a key takes, with the bounds of what makes sense.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`; as a flag it needs no value.
    Switch,
    /// A whole number.
    Count {
        /// The smallest that is accepted.
        least: u64,
        /// The largest that is accepted.
        most: u64,
    },
    /// A number of bytes, with or without a unit.
    Size {
        /// The smallest that is accepted.
        least: u64,
        /// The largest that is accepted.
        most: u64,
    },
    /// A duration, always with a unit.
    Time {
        /// The shortest that is accepted.
        least: Duration,
        /// The longest that is accepted.
        most: Duration,
    },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A path, relative to the directory in which the server was started.
    Path,
    /// A file's path, or a word for what is written instead.
    Output,
    /// A range of ports, such as `20000-29999`.
    Ports,
    /// An IP address without a port.
    Ip,
    /// A list of texts; its room reads them. As flags they are given one by one or parted by
    /// commas.
    Texts,
    /// Addresses to listen on. The default holds only where no configuration file was read: in a
    /// file, a role is on when it says so.
    Addresses,
    /// A secret: text or a file in the configuration, the value itself in the environment, and
    /// never more than a file's name on the command line.
    Secret,
    /// A table whose keys are names of the user's choice; its room reads what is below.
    Tables,
    /// Any number of tables with the same keys, written as `[[path]]`; its room reads what is below.
    TableList,
}

/// Bytes by the second; 0 is no limit.
pub const BANDWIDTH: Kind = Kind::Size {
    least: 0,
    most: 1 << 40,
};

impl Key {
    /// A key that only the file can set; [`Key::flag`] and [`Key::short`] open more ways.
    pub const fn new(
        path: &'static str,
        kind: Kind,
        default: &'static str,
        help: &'static str,
    ) -> Key {
        Key {
            path,
            kind,
            default,
            flag: None,
            short: None,
            help,
            is_fixed: false,
        }
    }

    /// The same key, which a running server does not change.
    pub const fn fixed(mut self) -> Key {
        self.is_fixed = true;
        self
    }

    /// The same key with a long flag, and so with an environment variable.
    pub const fn flag(mut self, flag: &'static str) -> Key {
        self.flag = Some(flag);
        self
    }

    /// The same key with a short flag.
    pub const fn short(mut self, short: char) -> Key {
        self.short = Some(short);
        self
    }

    /// The table it stands in; empty for a key at the top.
    pub fn table(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(table, _)| table)
    }

    /// Its name within its table.
    pub fn name(&self) -> &'static str {
        self.path
            .rsplit_once('.')
            .map_or(self.path, |(_, name)| name)
    }

    /// Its environment variable, named after its flag: `TOWPATH_IDLE_TIMEOUT`. A secret's variable
    /// holds the secret itself, so it drops the `_FILE` of the flag: `TOWPATH_TOKEN`.
    pub fn environment(&self) -> Option<String> {
        let flag = self.flag?;
        let name = match self.kind {
            Kind::Secret => flag.strip_suffix("-file").unwrap_or(flag),
            _ => flag,
        };
        Some(variable(name))
    }

    /// The default as it is written in a configuration file; none for tables, which have none.
    pub fn default_in_file(&self) -> Option<String> {
        let text = self.default;
        Some(match self.kind {
            Kind::Tables | Kind::TableList => return None,
            Kind::Switch | Kind::Count { .. } => text.to_owned(),
            Kind::Texts if text.is_empty() => "[]".to_owned(),
            Kind::Addresses | Kind::Texts => format!(r#"["{}"]"#, text.replace(',', r#"", ""#)),
            Kind::Size { .. }
            | Kind::Time { .. }
            | Kind::Choice(_)
            | Kind::Path
            | Kind::Output
            | Kind::Ports
            | Kind::Ip
            | Kind::Secret => format!(r#""{text}""#),
        })
    }
}

impl Kind {
    /// The word for the value in a help text; none for a flag that needs no value.
    pub fn placeholder(&self) -> Option<&'static str> {
        Some(match self {
            Kind::Switch | Kind::Tables | Kind::TableList => return None,
            Kind::Count { .. } => "N",
            Kind::Size { .. } => "SIZE",
            Kind::Time { .. } => "TIME",
            Kind::Choice(_) => "KIND",
            Kind::Path => "DIR",
            Kind::Output => "FILE",
            Kind::Ports => "RANGE",
            Kind::Ip => "IP",
            Kind::Texts => "TEXT",
            Kind::Addresses => "ADDR",
            Kind::Secret => "FILE",
        })
    }

    pub(super) fn is_addresses(&self) -> bool {
        matches!(self, Kind::Addresses)
    }

    /// What to write, for the one who wrote something else.
    pub(super) fn wanted(&self) -> String {
        match self {
            Kind::Switch => "true or false".to_owned(),
            Kind::Count { least, .. } => format!("a whole number, such as {least}"),
            Kind::Size { .. } => r#"a size, such as "16K" or 16384"#.to_owned(),
            Kind::Time { .. } => r#"a duration, such as "5s""#.to_owned(),
            Kind::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!(r#""{word}""#)).collect();
                format!("one of: {}", words.join(", "))
            }
            Kind::Path => r#"a path, such as "data""#.to_owned(),
            Kind::Output => r#""off", "stdout" or a file's path"#.to_owned(),
            Kind::Ports => r#"a range of ports, such as "20000-29999""#.to_owned(),
            Kind::Ip => r#"an IP address, such as "192.0.2.1""#.to_owned(),
            Kind::Texts => "a list of texts".to_owned(),
            Kind::Addresses => r#"a list of addresses, such as ["127.0.0.1:7000"]"#.to_owned(),
            Kind::Secret => r#"a text, or a file such as { file = "secrets/token" }"#.to_owned(),
            Kind::Tables => "a table".to_owned(),
            Kind::TableList => "a list of tables".to_owned(),
        }
    }
}

/// One table of two lists of keys; `N` is the length of both together.
pub const fn join<const N: usize>(first: &[Key], second: &[Key]) -> [Key; N] {
    assert!(first.len() + second.len() == N, "so long are both together");
    let mut all = [Key::new("", Kind::Switch, "", ""); N];
    let mut at = 0;
    while at < N {
        all[at] = match at < first.len() {
            true => first[at],
            false => second[at - first.len()],
        };
        at += 1;
    }
    all
}

/// The environment variable of a flag.
pub fn variable(flag: &str) -> String {
    format!("TOWPATH_{}", flag.replace('-', "_").to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_path_and_the_flag() {
        let key = Key::new("limits.idle_timeout", Kind::Switch, "", "").flag("idle-timeout");
        assert_eq!((key.table(), key.name()), ("limits", "idle_timeout"));
        assert_eq!(key.environment().unwrap(), "TOWPATH_IDLE_TIMEOUT");
        let key = Key::new("token", Kind::Secret, "", "").flag("token-file");
        assert_eq!((key.table(), key.name()), ("", "token"));
        assert_eq!(key.environment().unwrap(), "TOWPATH_TOKEN");
        assert_eq!(Key::new("x", Kind::Switch, "", "").environment(), None);
    }
}
