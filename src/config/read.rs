//! How one value is read out of the layers: by the key's kind, with the place of every mistake.
//! What stands below a table whose names are the user's own is read in the file `items`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::settings::{Found, Given, Traffic};
use super::value::bare_duration;
use super::{
    Key, Kind, Place, Position, Secret, Settings, Value, address, duration, plain, ports,
    show_duration, show_size, size,
};

/// Keys of the tables.
impl Settings {
    /// A switch.
    pub fn switch(&mut self, path: &'static str) -> bool {
        self.scalar(path, |key, raw| switch(&key.kind, raw))
            .unwrap_or_default()
    }

    /// A whole number.
    pub fn count(&mut self, path: &'static str) -> usize {
        self.scalar(path, |key, raw| count(&key.kind, raw))
            .unwrap_or_default()
    }

    /// A number of bytes.
    pub fn size(&mut self, path: &'static str) -> u64 {
        self.scalar(path, |key, raw| bytes(&key.kind, raw))
            .unwrap_or_default()
    }

    /// A duration.
    pub fn time(&mut self, path: &'static str) -> Duration {
        self.scalar(path, |key, raw| time(&key.kind, raw))
            .unwrap_or_default()
    }

    /// One of a few words.
    pub fn choice(&mut self, path: &'static str) -> &'static str {
        self.scalar(path, |key, raw| choice(&key.kind, raw))
            .unwrap_or_default()
    }

    /// A path.
    pub fn path(&mut self, path: &'static str) -> PathBuf {
        self.scalar(path, |key, raw| match raw {
            Raw::Word(text) if !text.is_empty() => Ok(PathBuf::from(text)),
            Raw::Item(Value::Text(text)) if !text.is_empty() => Ok(PathBuf::from(text)),
            raw => Err(wrong(&key.kind, raw)),
        })
        .unwrap_or_default()
    }

    /// A range of ports; none only when the key's own default is no range.
    pub fn ports(&mut self, path: &'static str) -> Option<RangeInclusive<u16>> {
        self.scalar(path, |key, raw| match raw {
            Raw::Word(text) => ports(text),
            Raw::Item(Value::Text(text)) => ports(text),
            raw => Err(wrong(&key.kind, raw)),
        })
    }

    /// An IP address; none where the key's default is empty and nothing else is given.
    pub fn ip(&mut self, path: &'static str) -> Option<IpAddr> {
        let ip = self.scalar(path, |key, raw| {
            let text = match raw {
                Raw::Word(text) => text,
                Raw::Item(Value::Text(text)) => text,
                raw => return Err(wrong(&key.kind, raw)),
            };
            if text.is_empty() && key.default.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|_| wrong(&key.kind, raw))
        });
        ip.flatten()
    }

    /// A list of texts, in the order of the file.
    pub fn texts(&mut self, path: &'static str) -> Vec<String> {
        self.texts_as(path, |text| Ok(text.to_owned()))
    }

    /// A list of texts that stand for something else; what is wrong with one is told with its own
    /// place.
    pub fn texts_as<T>(
        &mut self,
        path: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(found) = self.find(path) else {
            return Vec::new();
        };
        let mut values = Vec::new();
        // An empty word of a flag or a variable is none; in a list of the file it is a slip.
        let is_list =
            matches!(&found.given, Given::Item(item) if matches!(item.value, Value::List(_)));
        for (place, text) in self.listed(&found) {
            match read(&text) {
                _ if text.is_empty() && !is_list => {}
                Ok(value) => values.push(value),
                Err(message) => self.mistake_at(place, named(&found, &message)),
            }
        }
        values
    }

    /// Addresses to listen on; empty means that the role is off. An address that another listener
    /// has already is a mistake, port 0 excepted.
    pub fn addresses(&mut self, path: &'static str) -> Vec<SocketAddr> {
        let Some(found) = self.find(path) else {
            return Vec::new();
        };
        let texts = self.listed(&found);
        let parted = texts.iter().partition::<Vec<_>, _>(|(_, t)| t == "off");
        let (offs, texts): (Vec<_>, Vec<_>) = parted;
        if let (Some((place, _)), false) = (offs.first(), texts.is_empty()) {
            let message = r#""off" stands alone; leave it out or the addresses"#;
            self.mistake_at(place.clone(), named(&found, message));
        }
        let mut addresses = Vec::new();
        for (place, text) in texts {
            let claim = |address| self.claim(address, Traffic::Both, found.key.path);
            let checked = address(text).and_then(claim);
            match checked {
                Ok(address) => addresses.push(address),
                Err(message) => self.mistake_at(place.clone(), named(&found, &message)),
            }
        }
        addresses
    }

    /// The texts of a list, each with its place.
    fn listed(&mut self, found: &Found) -> Vec<(Place, String)> {
        let words = |words: &mut dyn Iterator<Item = &str>| {
            let texts = words.flat_map(|word| word.split(','));
            texts
                .map(|text| (found.place.clone(), text.trim().to_owned()))
                .collect()
        };
        match &found.given {
            Given::Words(given) => words(&mut given.iter().map(String::as_str)),
            // A file turns roles on by naming their addresses, so without a word it stays off.
            Given::Default if self.path.is_some() && found.key.kind.is_addresses() => Vec::new(),
            Given::Default => words(&mut Some(found.key.default).into_iter()),
            Given::Item(item) => {
                let items = match &item.value {
                    Value::List(items) => items.as_slice(),
                    _ => std::slice::from_ref(item),
                };
                let mut texts = Vec::new();
                for item in items {
                    match (&item.value, self.place(item.at)) {
                        (Value::Text(text), place) => texts.push((place, text.clone())),
                        (other, place) => {
                            let message = wrong(&found.key.kind, Raw::Item(other));
                            self.mistake_at(place, named(found, &message));
                        }
                    }
                }
                texts
            }
        }
    }

    pub(super) fn claim(
        &mut self,
        address: SocketAddr,
        traffic: Traffic,
        path: &'static str,
    ) -> Result<SocketAddr, String> {
        let mut known = self.listeners.iter();
        let taken = known.find(|(at, known, _)| *at == address && known.meets(traffic));
        if let (Some((_, _, by)), true) = (taken, address.port() > 0) {
            return Err(format!("{address} is named twice; `{by}` has it already"));
        }
        self.listeners.push((address, traffic, path));
        Ok(address)
    }

    /// A secret; none when it is empty.
    pub fn secret(&mut self, path: &'static str) -> Option<Secret> {
        let found = self.find(path)?;
        let secret = match (&found.given, &found.place) {
            (Given::Item(item), _) => return self.secret_of(item, found.key.name()),
            (Given::Default, _) => return None,
            (Given::Words(words), Place::Flag(_)) => {
                let file = words.last().map_or("", String::as_str);
                Secret::read(Path::new(file)).map(Some)
            }
            (Given::Words(words), _) => Ok(words.last().and_then(|w| Secret::new(w.as_bytes()))),
        };
        secret.unwrap_or_else(|message| {
            self.mistake_at(found.place, message);
            None
        })
    }

    fn scalar<T>(
        &mut self,
        path: &'static str,
        read: impl Fn(&Key, Raw<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let found = self.find(path)?;
        let default = Raw::Word(found.key.default);
        let raw = match &found.given {
            Given::Words(words) => words.last().map_or(default, |word| Raw::Word(word)),
            Given::Item(item) => Raw::Item(&item.value),
            Given::Default => default,
        };
        match read(found.key, raw) {
            Ok(value) => Some(value),
            Err(message) => {
                let message = named(&found, &message);
                self.mistake_at(found.place, message);
                read(found.key, default).ok()
            }
        }
    }
    fn place(&self, at: Position) -> Place {
        match &self.path {
            Some(path) => Place::Line(Arc::clone(path), at),
            None => Place::Whole,
        }
    }
}

/// One value of one layer: a word of a flag or variable, or a value of the file.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    Word(&'a str),
    Item(&'a Value),
}

pub(super) fn switch(kind: &Kind, raw: Raw<'_>) -> Result<bool, String> {
    match raw {
        Raw::Word("true") | Raw::Item(Value::Truth(true)) => Ok(true),
        Raw::Word("false" | "") | Raw::Item(Value::Truth(false)) => Ok(false),
        raw => Err(wrong(kind, raw)),
    }
}

pub(super) fn count(kind: &Kind, raw: Raw<'_>) -> Result<usize, String> {
    let number = match raw {
        Raw::Word(word) => word.parse().map_err(|_| wrong(kind, raw))?,
        Raw::Item(Value::Number(number)) => *number,
        raw => return Err(wrong(kind, raw)),
    };
    let Kind::Count { least, most } = *kind else {
        return Err(wrong(kind, raw));
    };
    let number = within(number, least, most, |n| n.to_string())?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}

pub(super) fn bytes(kind: &Kind, raw: Raw<'_>) -> Result<u64, String> {
    let bytes = match raw {
        Raw::Word(word) => i128::from(size(word)?),
        Raw::Item(Value::Text(text)) => i128::from(size(text)?),
        Raw::Item(Value::Number(number)) => *number,
        raw => return Err(wrong(kind, raw)),
    };
    match *kind {
        Kind::Size { least, most } => within(bytes, least, most, show_size),
        _ => Err(wrong(kind, raw)),
    }
}

pub(super) fn time(kind: &Kind, raw: Raw<'_>) -> Result<Duration, String> {
    let time = match raw {
        Raw::Word(word) => duration(word)?,
        Raw::Item(Value::Text(text)) => duration(text)?,
        Raw::Item(Value::Number(number)) => return Err(bare_duration(*number)),
        raw => return Err(wrong(kind, raw)),
    };
    match *kind {
        Kind::Time { least, most } if time < least || time > most => Err(format!(
            "must be from {} to {}; found {}",
            show_duration(least),
            show_duration(most),
            show_duration(time)
        )),
        Kind::Time { .. } => Ok(time),
        _ => Err(wrong(kind, raw)),
    }
}

pub(super) fn choice(kind: &Kind, raw: Raw<'_>) -> Result<&'static str, String> {
    let word = match raw {
        Raw::Word(word) => word,
        Raw::Item(Value::Text(text)) => text,
        raw => return Err(wrong(kind, raw)),
    };
    let known = match kind {
        Kind::Choice(words) => words.iter().copied().find(|known| *known == word),
        _ => None,
    };
    known.ok_or_else(|| wrong(kind, raw))
}

/// What to say when a value is of another kind than its key.
fn wrong(kind: &Kind, raw: Raw<'_>) -> String {
    let found = match raw {
        Raw::Word(word) => format!(r#""{}""#, plain(word)),
        Raw::Item(value) => value.describe(),
    };
    format!("wants {}; found {found}", kind.wanted())
}

/// A flag and a variable name their key by themselves; in a file the message does.
fn named(found: &Found, message: &str) -> String {
    match found.place {
        Place::Flag(_) | Place::Environment(_) => message.to_owned(),
        _ => format!("`{}`: {message}", found.key.name()),
    }
}

fn within(number: i128, least: u64, most: u64, show: fn(u64) -> String) -> Result<u64, String> {
    match u64::try_from(number) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!(
            "must be from {} to {}; found {number}",
            show(least),
            show(most)
        )),
    }
}
