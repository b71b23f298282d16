//! The layers of the configuration, and the mistakes found in them. How one value is read out of
//! the layers is the file `read`; which keys there are is told by the tables given to
//! [`Settings::new`].

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::services::Services;
use super::{Entry, Item, Key, Kind, Mistake, Place, Position, Value, file, nearest, plain};

/// Every layer of the configuration while it is read.
///
/// A read never fails: what is wrong is kept for [`Settings::finish`], and the reader gets the
/// default, so that one run finds all mistakes.
pub struct Settings {
    pub(super) tables: Vec<&'static [Key]>,
    pub(super) path: Option<Arc<Path>>,
    entries: Vec<Entry>,
    flags: Vec<(&'static str, Vec<String>)>,
    environment: Vec<(&'static str, String)>,
    /// Lines that are no TOML: what was made of them is not worth a second mistake.
    torn: Vec<usize>,
    pub(super) listeners: Vec<(SocketAddr, Traffic, &'static str)>,
    services: Option<Services>,
    mistakes: Vec<Mistake>,
    warnings: Vec<String>,
}

/// What a listener takes: one for connections and one for datagrams may have the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// TCP connections.
    Streams,
    /// UDP datagrams.
    Datagrams,
    /// Both, or what else may come to be.
    Both,
}

impl Traffic {
    /// True when two listeners cannot share an address.
    pub(super) fn meets(self, other: Traffic) -> bool {
        self == other || [self, other].contains(&Traffic::Both)
    }
}

/// A value as the first layer that has it gives it.
pub(super) struct Found {
    pub(super) key: &'static Key,
    pub(super) place: Place,
    pub(super) given: Given,
}

/// The value itself.
pub(super) enum Given {
    /// From flags or the environment: a list may have several words.
    Words(Vec<String>),
    /// From the file.
    Item(Item),
    /// From nowhere.
    Default,
}

impl Settings {
    /// Settings with the keys of these tables and no layer but the defaults.
    pub fn new(tables: &[&'static [Key]]) -> Settings {
        Settings {
            tables: tables.to_vec(),
            path: None,
            entries: Vec::new(),
            flags: Vec::new(),
            environment: Vec::new(),
            torn: Vec::new(),
            listeners: Vec::new(),
            services: None,
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Reads the file layer from a file.
    pub fn read_file(&mut self, path: &Path) {
        let mut bytes = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut bytes))
            .map_err(|error| format!("cannot be read: {error}"));
        let file: Arc<Path> = Arc::from(path);
        let (place, message) = match read {
            Err(message) => (Place::File(file), message),
            Ok(_) if bytes.len() as u64 > LONGEST_FILE => {
                let message = format!("is longer than {LONGEST_FILE} bytes");
                (Place::File(file), message)
            }
            Ok(_) => match std::str::from_utf8(&bytes) {
                Ok(text) => return self.read_text(path, text),
                Err(error) => {
                    let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                    let line = good.matches('\n').count() + 1;
                    let column = good.chars().rev().take_while(|one| *one != '\n').count() + 1;
                    let message = "this is not UTF-8 text".to_owned();
                    (Place::Line(file, Position { line, column }), message)
                }
            },
        };
        self.mistakes.push(Mistake { place, message });
    }

    /// Reads the file layer from its text; `path` is how the mistakes call it.
    pub fn read_text(&mut self, path: &Path, text: &str) {
        let (entries, mistakes) = file::parse(text);
        self.path = Some(Arc::from(path));
        for (at, message) in mistakes {
            self.mistake(at, message);
            self.torn.push(at.line);
        }
        self.check_names(&entries, "");
        self.entries = entries;
    }

    /// Reads the environment layer; `of` tells a variable's value.
    pub fn read_environment(&mut self, of: &dyn Fn(&str) -> Option<OsString>) {
        for key in self.tables.iter().copied().flatten() {
            let Some(name) = key.environment() else {
                continue;
            };
            let Some(value) = of(&name).filter(|value| !value.is_empty()) else {
                continue;
            };
            match value.into_string() {
                Ok(value) => self.environment.push((key.path, value)),
                Err(_) => self.mistakes.push(Mistake {
                    place: Place::Environment(name),
                    message: "is not UTF-8 text".to_owned(),
                }),
            }
        }
    }

    /// Adds a key to the flag layer: `words` are its values in the order in which they were given.
    pub fn set_flag(&mut self, path: &'static str, words: Vec<String>) {
        self.flags.push((path, words));
    }

    /// Notes a mistake of the file.
    pub fn mistake(&mut self, at: Position, message: String) {
        let place = match &self.path {
            Some(_) if self.torn.contains(&at.line) => return,
            Some(path) => Place::Line(Arc::clone(path), at),
            None => Place::Whole,
        };
        self.mistakes.push(Mistake { place, message });
    }

    /// Notes a mistake of the configuration as a whole, such as two keys that do not go together.
    pub fn mistake_in_whole(&mut self, message: String) {
        let place = match &self.path {
            Some(path) => Place::File(Arc::clone(path)),
            None => Place::Whole,
        };
        self.mistakes.push(Mistake { place, message });
    }

    /// Notes a mistake of a key's value at the place that the value came from, or of the whole
    /// configuration where it is the default's.
    pub fn mistake_of(&mut self, path: &'static str, message: String) {
        match self.find(path).map(|found| found.place) {
            Some(Place::Whole) | None => self.mistake_in_whole(message),
            Some(place) => self.mistake_at(place, message),
        }
    }

    /// Notes what is allowed but hardly meant.
    pub fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }

    /// Ends the reading: the warnings, or every mistake in the order of its place.
    pub fn finish(mut self) -> Result<Vec<String>, Vec<Mistake>> {
        if self.mistakes.is_empty() {
            return Ok(self.warnings);
        }
        self.mistakes.sort();
        self.mistakes.dedup();
        Err(self.mistakes)
    }

    /// How many mistakes have been found so far.
    pub fn mistakes(&self) -> usize {
        self.mistakes.len()
    }

    /// True while no mistake has been found.
    pub fn is_clean(&self) -> bool {
        self.mistakes.is_empty()
    }

    pub(super) fn mistake_at(&mut self, place: Place, message: String) {
        match place {
            Place::Line(_, at) => self.mistake(at, message),
            place => self.mistakes.push(Mistake { place, message }),
        }
    }

    /// What the host calls its ports; read when first asked.
    pub(super) fn services(&mut self) -> &Services {
        self.services.get_or_insert_with(Services::of_host)
    }

    /// The value of a key in the first layer that has it; none when the program itself asks for a
    /// key that no table has, which is noted as well.
    pub(super) fn find(&mut self, path: &'static str) -> Option<Found> {
        let Some(key) = self.key(path) else {
            self.mistake_in_whole(format!("the program has no key `{path}`"));
            return None;
        };
        let flags = self.flags.iter().find(|(known, _)| *known == path);
        if let (Some(flag), Some((_, words))) = (key.flag, flags) {
            let (place, given) = (Place::Flag(flag), Given::Words(words.clone()));
            return Some(Found { key, place, given });
        }
        let value = self.environment.iter().find(|(known, _)| *known == path);
        if let (Some(name), Some((_, value))) = (key.environment(), value) {
            let place = Place::Environment(name);
            let given = Given::Words(vec![value.clone()]);
            return Some(Found { key, place, given });
        }
        if let (Some(file), Some(item)) = (&self.path, lookup(&self.entries, path)) {
            let place = Place::Line(Arc::clone(file), item.at);
            let given = Given::Item(item.clone());
            return Some(Found { key, place, given });
        }
        Some(Found {
            key,
            place: Place::Whole,
            given: Given::Default,
        })
    }

    fn key(&self, path: &str) -> Option<&'static Key> {
        let mut keys = self.tables.iter().copied().flatten();
        keys.find(|key| key.path == path)
    }

    /// Notes every key of the file that no table knows. Recursion ends with the tables' depth.
    fn check_names(&mut self, entries: &[Entry], prefix: &str) {
        let known = self.names_below(prefix);
        for entry in entries {
            let path = format!("{prefix}{}", entry.name);
            if !known.contains(&entry.name.as_str()) {
                match self.home(&entry.name) {
                    Some(home) => {
                        let message = format!("unknown key `{}` here; {home}", entry.name);
                        self.mistake(entry.at, message);
                    }
                    None => self.unknown(entry, &self.alike(entry, prefix, &known)),
                }
                continue;
            }
            if self.key(&path).is_some() {
                continue;
            }
            match &entry.item.value {
                Value::Table(inner) => self.check_names(inner, &format!("{path}.")),
                other => {
                    let found = other.describe();
                    let message = format!(
                        "`{path}` is a table; write `[{path}]` and its keys below it; found {found}"
                    );
                    self.mistake(entry.item.at, message);
                }
            }
        }
    }

    /// The names that may follow `prefix`, which is empty or ends with a point.
    fn names_below(&self, prefix: &str) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = Vec::new();
        for key in self.tables.iter().copied().flatten() {
            let Some(rest) = key.path.strip_prefix(prefix) else {
                continue;
            };
            let name = rest.split('.').next().unwrap_or(rest);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The names that an unknown one may have been meant as: tables for a table, if there are any.
    fn alike(&self, entry: &Entry, prefix: &str, known: &[&'static str]) -> Vec<&'static str> {
        let is_table = |name: &&str| match self.key(&format!("{prefix}{name}")) {
            Some(key) => matches!(key.kind, Kind::Tables | Kind::TableList),
            None => true,
        };
        let tables: Vec<_> = known.iter().copied().filter(is_table).collect();
        match entry.item.value {
            Value::Table(_) if !tables.is_empty() => tables,
            _ => known.to_vec(),
        }
    }

    /// Where a key belongs that stands in the wrong table. Roles have addresses and secrets of
    /// their own under the same names, so those of another are no place to send anybody to.
    fn home(&self, name: &str) -> Option<String> {
        let mut keys = self.tables.iter().copied().flatten();
        let key = keys.find(|key| key.name() == name)?;
        if matches!(key.kind, Kind::Addresses | Kind::Secret) {
            return None;
        }
        Some(match key.table() {
            "" => "its place is the top of the file, before the first table".to_owned(),
            table => format!("its place is the table `[{table}]`"),
        })
    }

    /// Notes an unknown key with the nearest of those that are known there, or with all of them.
    pub(super) fn unknown(&mut self, entry: &Entry, known: &[&str]) {
        let name = plain(&entry.name);
        let (what, one) = match entry.item.value {
            Value::Table(_) => ("table", "name"),
            _ => ("key", "one"),
        };
        let message = match nearest(&entry.name, known.iter().copied()) {
            Some(hint) => format!("unknown {what} `{name}`; the nearest known {one} is `{hint}`"),
            None => format!(
                "unknown {what} `{name}`; known here: `{}`",
                known.join("`, `")
            ),
        };
        self.mistake(entry.at, message);
    }
}

fn lookup<'a>(entries: &'a [Entry], path: &str) -> Option<&'a Item> {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let item = &entries.iter().find(|entry| entry.name == name)?.item;
    match (rest, &item.value) {
        (None, _) => Some(item),
        (Some(rest), Value::Table(inner)) => lookup(inner, rest),
        (Some(_), _) => None,
    }
}

/// The longest configuration file that is read, in bytes.
const LONGEST_FILE: u64 = 16 << 20;
