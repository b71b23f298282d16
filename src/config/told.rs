//! What each key was given, so that two readings of a configuration can be compared: by text, as far
//! as that may be shown, else by a fingerprint. No secret is kept here.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::settings::Given;
use super::{Key, Kind, Settings, Value};

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
}

impl Told {
    /// What changed from an earlier reading to this one, in words.
    fn change(&self, earlier: &Told) -> String {
        let path = self.path;
        match (&earlier.given, &self.given) {
            (Shown::Text(from), Shown::Text(to)) => {
                let shown = |text: &str| match text {
                    "" => "nothing".to_owned(),
                    some => some.to_owned(),
                };
                format!("{path}: {} -> {}", shown(from), shown(to))
            }
            _ => format!("{path}: changed"),
        }
    }
}

/// The keys that differ from an earlier reading by the same tables, each with its change in words.
pub fn changes<'a>(
    earlier: &'a [Told],
    now: &'a [Told],
) -> impl Iterator<Item = (&'a Told, String)> {
    let pairs = earlier.iter().zip(now);
    let differing = pairs.filter(|(earlier, now)| earlier != now);
    differing.map(|(earlier, now)| (now, now.change(earlier)))
}

impl Settings {
    /// What every key is given, in the order of the tables.
    pub fn told(&mut self) -> Vec<Told> {
        let keys: Vec<&'static Key> = self.tables.iter().copied().flatten().collect();
        keys.into_iter().map(|key| self.tell(key)).collect()
    }

    fn tell(&mut self, key: &'static Key) -> Told {
        let given = self.find(key.path).map(|found| found.given);
        let text = match given {
            Some(Given::Words(words)) => words.join(","),
            Some(Given::Item(item)) => {
                let mut text = String::new();
                write_value(&item.value, &mut text);
                text
            }
            // In a file that says nothing of it a role is off.
            _ if key.kind.is_addresses() && self.path.is_some() => String::new(),
            _ => key.default.to_owned(),
        };
        let given = match key.kind {
            Kind::Secret | Kind::Tables | Kind::TableList => {
                let mut hasher = DefaultHasher::new();
                text.hash(&mut hasher);
                Shown::Print(hasher.finish())
            }
            _ => Shown::Text(super::plain(&text)),
        };
        Told {
            path: key.path,
            is_fixed: key.is_fixed,
            given,
        }
    }
}

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
    ];

    fn told(text: &str) -> Vec<Told> {
        let mut settings = Settings::new(&[KEYS]);
        settings.read_text(Path::new("x"), text);
        settings.told()
    }

    fn words(earlier: &[Told], now: &[Told]) -> Vec<String> {
        changes(earlier, now).map(|(_, words)| words).collect()
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
            .map(|(key, _)| key.is_fixed)
            .collect();
        assert_eq!(fixed, [false, true, false]);
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
