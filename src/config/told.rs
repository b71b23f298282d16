//! What each key was given, so that two readings of a configuration can be compared: by text, as far
//! as that may be shown, else by a fingerprint. No secret is kept here; a fingerprint takes in what the
//! file of a secret says, as that may be another while its path is the same.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use super::mistake::{Place, beside};
use super::settings::Given;
use super::{Entry, Item, Key, Kind, Secret, Settings, Value};

/// A key as one reading of the configuration had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The key.
    pub path: &'static str,
    /// A running server leaves it as it was.
    pub is_fixed: bool,
    given: Shown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    Text(String),
    /// Of a secret, or of tables that may hold some.
    Print(u64),
    /// Of tables that have names: each with its fields.
    Named(Vec<(String, Fields)>),
}

type Fields = Vec<(String, Shown)>;

/// One difference between two readings.
#[derive(Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a Told,
    /// What is different, in words.
    pub words: String,
    /// The named table that is new or gone as a whole.
    pub whole: Option<String>,
}

impl Told {
    /// What changed from an earlier reading to this one.
    fn changes(&self, earlier: &Told) -> Vec<Change<'_>> {
        let change = |words, whole| Change {
            key: self,
            words,
            whole,
        };
        let path = self.path;
        let (Shown::Named(from), Shown::Named(to)) = (&earlier.given, &self.given) else {
            let words = difference(&earlier.given, &self.given);
            return vec![change(format!("{path}: {words}"), None)];
        };
        let mut changes = Vec::new();
        for (name, fields) in to {
            let Some((_, former)) = from.iter().find(|(known, _)| known == name) else {
                let words = format!("{path}: {name} added");
                changes.push(change(words, Some(name.clone())));
                continue;
            };
            for (field, from, to) in differing(former, fields) {
                let words = format!("{path} {name}: {field}: {}", difference(from, to));
                changes.push(change(words, None));
            }
        }
        let gone = |(name, _): &&(String, Fields)| !to.iter().any(|(known, _)| known == name);
        for (name, _) in from.iter().filter(gone) {
            let words = format!("{path}: {name} removed");
            changes.push(change(words, Some(name.clone())));
        }
        if changes.is_empty() {
            changes.push(change(format!("{path}: another order"), None));
        }
        changes
    }
}

/// The fields that are not the same, with what they were and are; one that is not there is nothing.
fn differing<'a>(from: &'a Fields, to: &'a Fields) -> Vec<(&'a str, &'a Shown, &'a Shown)> {
    const NOTHING: &Shown = &Shown::Text(String::new());
    let of = |fields: &'a Fields, name: &str| {
        let mut all = fields.iter();
        all.find(|(known, _)| known == name)
            .map_or(NOTHING, |(_, shown)| shown)
    };
    let mut names: Vec<&str> = from
        .iter()
        .chain(to)
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let pairs = names
        .into_iter()
        .map(|name| (name, of(from, name), of(to, name)));
    pairs.filter(|(_, from, to)| from != to).collect()
}

fn difference(from: &Shown, to: &Shown) -> String {
    let shown = |text: &str| match text {
        "" => "nothing".to_owned(),
        some => some.to_owned(),
    };
    match (from, to) {
        (Shown::Text(from), Shown::Text(to)) => format!("{} -> {}", shown(from), shown(to)),
        _ => "changed".to_owned(),
    }
}

/// What differs from an earlier reading by the same tables.
pub fn changes<'a>(earlier: &'a [Told], now: &'a [Told]) -> impl Iterator<Item = Change<'a>> {
    let pairs = earlier.iter().zip(now);
    let differing = pairs.filter(|(earlier, now)| earlier != now);
    differing.flat_map(|(earlier, now)| now.changes(earlier))
}

impl Settings {
    /// What every key is given, in the order of the tables.
    pub fn told(&mut self) -> Vec<Told> {
        let keys: Vec<&'static Key> = self.tables.iter().copied().flatten().collect();
        keys.into_iter().map(|key| self.tell(key)).collect()
    }

    fn tell(&mut self, key: &'static Key) -> Told {
        let file = self.path.clone();
        let found = self.find(key.path);
        let given = match found.as_ref().map(|found| (&found.given, &found.place)) {
            Some((Given::Item(item), _)) => show_item(key, item, file.as_deref()),
            Some((Given::Words(words), place)) => {
                let text = words.join(",");
                match key.kind {
                    Kind::Secret => {
                        // By a flag it is the name of a file.
                        let is_file = matches!(place, Place::Flag(_));
                        let path = words.last().filter(|_| is_file).map(String::as_str);
                        Shown::Print(print(&text, path.into_iter().collect(), None))
                    }
                    _ => Shown::Text(super::plain(&text)),
                }
            }
            // In a file that says nothing of it a role is off.
            _ if key.kind.is_addresses() && file.is_some() => Shown::Text(String::new()),
            _ => match key.kind {
                Kind::Tables => Shown::Print(print("", Vec::new(), None)),
                Kind::TableList => Shown::Named(Vec::new()),
                Kind::Secret => Shown::Print(print(key.default, Vec::new(), None)),
                _ => Shown::Text(super::plain(key.default)),
            },
        };
        Told {
            path: key.path,
            is_fixed: key.is_fixed,
            given,
        }
    }
}

fn show_item(key: &Key, item: &Item, file: Option<&Path>) -> Shown {
    match key.kind {
        Kind::Secret | Kind::Tables => print_of(&item.value, file),
        Kind::TableList => named(&item.value, file).unwrap_or_else(|| print_of(&item.value, file)),
        _ => Shown::Text(super::plain(&text_of(&item.value))),
    }
}

/// Tables by their names, where each has one of its own.
fn named(value: &Value, file: Option<&Path>) -> Option<Shown> {
    let Value::List(items) = value else {
        return None;
    };
    let mut tables: Vec<(String, Fields)> = Vec::with_capacity(items.len());
    for item in items {
        let Value::Table(entries) = &item.value else {
            return None;
        };
        let name = entries.iter().find(|entry| entry.name == "name")?;
        let Value::Text(name) = &name.item.value else {
            return None;
        };
        if tables.iter().any(|(known, _)| known == name) {
            return None;
        }
        let field = |entry: &Entry| {
            let shown = match is_plain(&entry.item.value) && !SECRETS.contains(&&*entry.name) {
                true => Shown::Text(super::plain(&text_of(&entry.item.value))),
                false => print_of(&entry.item.value, file),
            };
            (entry.name.clone(), shown)
        };
        tables.push((super::plain(name), entries.iter().map(field).collect()));
    }
    Some(Shown::Named(tables))
}

/// True when no table is in it, which could hold a secret.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Table(_) => false,
        Value::List(items) => items.iter().all(|item| is_plain(&item.value)),
        _ => true,
    }
}

fn text_of(value: &Value) -> String {
    let mut text = String::new();
    write_value(value, &mut text);
    text
}

fn print_of(value: &Value, file: Option<&Path>) -> Shown {
    let mut files = Vec::new();
    find_files(value, &mut files);
    Shown::Print(print(&text_of(value), files, file))
}

/// A fingerprint of a text and of the secrets in these files, which may stand beside the configuration.
fn print(text: &str, files: Vec<&str>, configuration: Option<&Path>) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    for path in files {
        // One that cannot be read is a mistake, which whoever reads the key has told of.
        if let Ok(secret) = Secret::read(&beside(configuration, path)) {
            secret.expose().hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The files of secrets: tables that name one, and nothing else.
fn find_files<'a>(value: &'a Value, files: &mut Vec<&'a str>) {
    match value {
        Value::List(items) => items.iter().for_each(|item| find_files(&item.value, files)),
        Value::Table(entries) => {
            if let [only] = entries.as_slice()
                && let ("file", Value::Text(path)) = (only.name.as_str(), &only.item.value)
            {
                return files.push(path);
            }
            let values = entries.iter().map(|entry| &entry.item.value);
            values.for_each(|value| find_files(value, files));
        }
        _ => {}
    }
}

/// Fields of named tables that are secret though they are written as texts.
const SECRETS: [&str; 4] = ["key", "payload_key", "token", "users"];

/// The same text for the same value, wherever it stands. A file's reader bounds the recursion.
fn write_value(value: &Value, out: &mut String) {
    // Writing to a text fails only where memory ends.
    let _ = match value {
        Value::Text(text) => write!(out, "{text}"),
        Value::Number(number) => write!(out, "{number}"),
        Value::Truth(truth) => write!(out, "{truth}"),
        Value::Fraction | Value::Date => write!(out, "{}", value.describe()),
        Value::List(items) => {
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write_value(&item.value, out);
            }
            Ok(())
        }
        Value::Table(entries) => {
            for entry in entries {
                let _ = write!(out, "{{{}=", entry.name);
                write_value(&entry.item.value, out);
                out.push('}');
            }
            Ok(())
        }
    };
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const KEYS: &[Key] = &[
        Key::new("a.time", Kind::Path, "5s", ""),
        Key::new("a.token", Kind::Secret, "", ""),
        Key::new("a.listen", Kind::Addresses, "127.0.0.1:1", "").fixed(),
        Key::new("b", Kind::Tables, "", ""),
        Key::new("c", Kind::TableList, "", ""),
    ];

    fn told(text: &str) -> Vec<Told> {
        let mut settings = Settings::new(&[KEYS]);
        settings.read_text(Path::new("x"), text);
        settings.told()
    }

    fn words(earlier: &[Told], now: &[Told]) -> Vec<String> {
        changes(earlier, now).map(|change| change.words).collect()
    }

    #[test]
    fn what_differs_is_told_and_where_it_stands_is_not_a_difference() {
        let first = told("[a]\ntime = \"5s\"\n[b.x]\ny = 1\n");
        assert_eq!(words(&first, &told("\n\n[b]\nx = { y = 1 }\n")), [""; 0]);
        let other = told("[a]\ntime = \"7s\"\nlisten = [\"127.0.0.1:2\", \":3\"]\n[b.x]\ny = 2\n");
        let want = [
            "a.time: 5s -> 7s",
            "a.listen: nothing -> 127.0.0.1:2,:3",
            "b: changed",
        ];
        assert_eq!(words(&first, &other), want);
        let fixed: Vec<_> = changes(&first, &other)
            .map(|change| change.key.is_fixed)
            .collect();
        assert_eq!(fixed, [false, true, false]);
    }

    #[test]
    fn named_tables_are_compared_by_their_fields() {
        let first =
            told("[[c]]\nname = \"x\"\nto = [\"h:1\"]\nkey = \"one\"\n[[c]]\nname = \"y\"\n");
        let other = "[[c]]\nname = \"z\"\n[[c]]\nname = \"x\"\nto = [\"h:2\"]\nkey = \"two\"\nvia = [{ key = \"three\" }]\n";
        let other = told(other);
        let want = [
            "c: z added",
            "c x: key: changed",
            "c x: to: h:1 -> h:2",
            "c x: via: changed",
            "c: y removed",
        ];
        assert_eq!(words(&first, &other), want);
        let whole: Vec<_> = changes(&first, &other)
            .filter_map(|change| change.whole)
            .collect();
        assert_eq!(whole, ["z", "y"]);
        let shown = format!("{other:?}");
        assert!(
            !shown.contains("two") && !shown.contains("three"),
            "{shown}"
        );
        let two = told("[[c]]\nname = \"x\"\n[[c]]\nname = \"y\"\n");
        let turned = told("[[c]]\nname = \"y\"\n[[c]]\nname = \"x\"\n");
        assert_eq!(words(&two, &turned), ["c: another order"]);
        let nameless = (told("[[c]]\nto = 1\n"), told("[[c]]\nto = 2\n"));
        assert_eq!(words(&nameless.0, &nameless.1), ["c: changed"]);
        assert_eq!(words(&told(""), &two), ["c: x added", "c: y added"]);
    }

    #[test]
    fn a_secret_in_a_file_is_another_when_the_file_says_something_else() {
        let folder = std::env::temp_dir().join(format!("towpath-told-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let (file, secret) = (folder.join("t.toml"), folder.join("secret"));
        let text =
            "[a]\ntime = \"5s\"\ntoken = { file = \"secret\" }\n[b.x]\ny = { file = \"secret\" }\n";
        std::fs::write(&file, text).unwrap();
        let read = |content: &str| {
            std::fs::write(&secret, content).unwrap();
            let mut settings = Settings::new(&[KEYS]);
            settings.read_file(&file);
            settings.told()
        };
        let (first, same, other) = (read("one\n"), read("one"), read("two"));
        assert_eq!(
            words(&first, &same),
            [""; 0],
            "the line's end is no part of it"
        );
        assert_eq!(words(&first, &other), ["a.token: changed", "b: changed"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_secret_is_never_among_the_words() {
        let (first, other) = (
            told("[a]\ntoken = \"one\"\n"),
            told("[a]\ntoken = \"two\"\n"),
        );
        assert_eq!(words(&first, &other), ["a.token: changed"]);
        assert!(!format!("{first:?}").contains("one"));
    }
}
