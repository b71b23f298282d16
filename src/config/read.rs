//! How one value is read out of the layers: by the key's kind, with the place of every mistake.
//! The first half is for keys of the tables; the second for what stands below a table whose names
//! are the user's own.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::mistake::beside;
use super::settings::{Found, Given};
use super::value::bare_duration;
use super::{
    Entry, Item, Key, Kind, Place, Position, Secret, Settings, Value, address, duration, plain,
    ports, show_duration, show_size, size,
};

/// Keys of the tables.
impl Settings {
    /// A switch.
    pub fn switch(&mut self, path: &'static str) -> bool {
        self.scalar(path, |key, raw| match raw {
            Raw::Word("true") | Raw::Item(Value::Truth(true)) => Ok(true),
            Raw::Word("false" | "") | Raw::Item(Value::Truth(false)) => Ok(false),
            raw => Err(wrong(key, raw)),
        })
        .unwrap_or_default()
    }

    /// A whole number.
    pub fn count(&mut self, path: &'static str) -> usize {
        let count = self.scalar(path, |key, raw| {
            let number = match raw {
                Raw::Word(word) => word.parse().map_err(|_| wrong(key, raw))?,
                Raw::Item(Value::Number(number)) => *number,
                raw => return Err(wrong(key, raw)),
            };
            match key.kind {
                Kind::Count { least, most } => within(number, least, most, |n| n.to_string()),
                _ => Err(wrong(key, raw)),
            }
        });
        usize::try_from(count.unwrap_or_default()).unwrap_or(usize::MAX)
    }

    /// A number of bytes.
    pub fn size(&mut self, path: &'static str) -> u64 {
        self.scalar(path, |key, raw| {
            let bytes = match raw {
                Raw::Word(word) => i128::from(size(word)?),
                Raw::Item(Value::Text(text)) => i128::from(size(text)?),
                Raw::Item(Value::Number(number)) => *number,
                raw => return Err(wrong(key, raw)),
            };
            match key.kind {
                Kind::Size { least, most } => within(bytes, least, most, show_size),
                _ => Err(wrong(key, raw)),
            }
        })
        .unwrap_or_default()
    }

    /// A duration.
    pub fn time(&mut self, path: &'static str) -> Duration {
        self.scalar(path, |key, raw| {
            let time = match raw {
                Raw::Word(word) => duration(word)?,
                Raw::Item(Value::Text(text)) => duration(text)?,
                Raw::Item(Value::Number(number)) => return Err(bare_duration(*number)),
                raw => return Err(wrong(key, raw)),
            };
            match key.kind {
                Kind::Time { least, most } if time < least || time > most => Err(format!(
                    "must be from {} to {}; found {}",
                    show_duration(least),
                    show_duration(most),
                    show_duration(time)
                )),
                Kind::Time { .. } => Ok(time),
                _ => Err(wrong(key, raw)),
            }
        })
        .unwrap_or_default()
    }

    /// One of a few words.
    pub fn choice(&mut self, path: &'static str) -> &'static str {
        self.scalar(path, |key, raw| {
            let word = match raw {
                Raw::Word(word) => word,
                Raw::Item(Value::Text(text)) => text,
                raw => return Err(wrong(key, raw)),
            };
            match key.kind {
                Kind::Choice(words) => words.iter().copied().find(|known| *known == word),
                _ => None,
            }
            .ok_or_else(|| wrong(key, raw))
        })
        .unwrap_or_default()
    }

    /// A path.
    pub fn path(&mut self, path: &'static str) -> PathBuf {
        self.scalar(path, |key, raw| match raw {
            Raw::Word(text) if !text.is_empty() => Ok(PathBuf::from(text)),
            Raw::Item(Value::Text(text)) if !text.is_empty() => Ok(PathBuf::from(text)),
            raw => Err(wrong(key, raw)),
        })
        .unwrap_or_default()
    }

    /// A range of ports; none only when the key's own default is no range.
    pub fn ports(&mut self, path: &'static str) -> Option<RangeInclusive<u16>> {
        self.scalar(path, |key, raw| match raw {
            Raw::Word(text) => ports(text),
            Raw::Item(Value::Text(text)) => ports(text),
            raw => Err(wrong(key, raw)),
        })
    }

    /// An IP address; none where the key's default is empty and nothing else is given.
    pub fn ip(&mut self, path: &'static str) -> Option<IpAddr> {
        let ip = self.scalar(path, |key, raw| {
            let text = match raw {
                Raw::Word(text) => text,
                Raw::Item(Value::Text(text)) => text,
                raw => return Err(wrong(key, raw)),
            };
            if text.is_empty() && key.default.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|_| wrong(key, raw))
        });
        ip.flatten()
    }

    /// A list of texts, in the order of the file.
    pub fn texts(&mut self, path: &'static str) -> Vec<String> {
        let Some(found) = self.find(path) else {
            return Vec::new();
        };
        let texts = self.listed(&found).into_iter().map(|(_, text)| text);
        texts.filter(|text| !text.is_empty()).collect()
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
            let checked = address(text).and_then(|address| self.claim(address, found.key.path));
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
            Given::Default if self.path.is_some() => Vec::new(),
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
                            let message = wrong(found.key, Raw::Item(other));
                            self.mistake_at(place, named(found, &message));
                        }
                    }
                }
                texts
            }
        }
    }

    fn claim(&mut self, address: SocketAddr, path: &'static str) -> Result<SocketAddr, String> {
        let taken = self.listeners.iter().find(|(known, _)| *known == address);
        if let (Some((_, by)), true) = (taken, address.port() > 0) {
            return Err(format!("{address} is named twice; `{by}` has it already"));
        }
        self.listeners.push((address, path));
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
}

/// What stands below a table whose names are the user's own.
impl Settings {
    /// The entries of such a table, in the order of the file.
    pub fn tables(&mut self, path: &'static str) -> Vec<Entry> {
        let Some(found) = self.find(path) else {
            return Vec::new();
        };
        match found.given {
            Given::Item(Item {
                value: Value::Table(entries),
                ..
            }) => entries,
            Given::Item(item) => {
                let message = format!(
                    "`{path}` is a table; write `[{path}.NAME]`; found {}",
                    item.value.describe()
                );
                self.mistake(item.at, message);
                Vec::new()
            }
            Given::Words(_) | Given::Default => Vec::new(),
        }
    }

    /// The tables of a [`Kind::TableList`], in the order of the file; `fields` reads each.
    pub fn table_list(&mut self, path: &'static str) -> Vec<Item> {
        let given = self.find(path).map(|found| found.given);
        let Some(Given::Item(item)) = given else {
            return Vec::new();
        };
        match item.value {
            Value::List(items) => items,
            other => {
                let found = other.describe();
                let message = format!("write `[[{path}]]` for each of them; found {found}");
                self.mistake(item.at, message);
                Vec::new()
            }
        }
    }

    /// Addresses to listen on, one or a list, in a table of the user's own; a mistake where there
    /// is none. An address that another listener has already is one, too, port 0 excepted. `path`
    /// is what the next listener is told of them.
    pub fn addresses_of(&mut self, item: &Item, name: &str, path: &'static str) -> Vec<SocketAddr> {
        let items = match &item.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(item),
        };
        if items.is_empty() {
            let wanted = Kind::Addresses.wanted();
            self.mistake(item.at, format!("`{name}`: wants {wanted}; found none"));
        }
        let mut addresses = Vec::new();
        for item in items {
            let checked = match &item.value {
                Value::Text(text) => address(text).and_then(|address| self.claim(address, path)),
                other => Err(format!(
                    r#"wants an address, such as "127.0.0.1:7000"; found {}"#,
                    other.describe()
                )),
            };
            match checked {
                Ok(address) => addresses.push(address),
                Err(message) => self.mistake(item.at, format!("`{name}`: {message}")),
            }
        }
        addresses
    }

    /// Whom to dial: `host:port`, an IPv6 address in brackets, the port a number or the name of a
    /// TCP service. Nothing is looked up.
    pub fn destination_of(&mut self, item: &Item, name: &str) -> Option<(String, u16)> {
        let checked = match &item.value {
            Value::Text(text) => self.destination(text),
            other => Err(format!(
                r#"wants a destination, such as "example.com:80"; found {}"#,
                other.describe()
            )),
        };
        checked
            .map_err(|message| self.mistake(item.at, format!("`{name}`: {message}")))
            .ok()
    }

    fn destination(&mut self, text: &str) -> Result<(String, u16), String> {
        let wrong = || {
            let shown = plain(text);
            format!(
                r#""{shown}" is not a destination; write a host and a port, like "example.com:http", "10.0.0.1:80" or "[::1]:80""#
            )
        };
        let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match name.strip_prefix('[') {
            Some(rest) => {
                let address = rest.strip_suffix(']').map(str::parse::<Ipv6Addr>);
                let Some(Ok(address)) = address else {
                    return Err(wrong());
                };
                address.to_string()
            }
            None if name.is_empty() || name.contains(':') || port.is_empty() => return Err(wrong()),
            None => host(name)?,
        };
        Ok((host, self.port(port)?))
    }

    /// The values of a table that has these keys and no other; none where one is not given. When
    /// the item is no table at all, `example` shows what it should be.
    pub fn fields<const N: usize>(
        &mut self,
        item: &Item,
        names: [&str; N],
        example: &str,
    ) -> Option<[Option<Item>; N]> {
        let Value::Table(entries) = &item.value else {
            let found = item.value.describe();
            self.mistake(item.at, format!("write {example}; found {found}"));
            return None;
        };
        let mut fields = [const { None }; N];
        for entry in entries {
            match names.iter().position(|name| *name == entry.name) {
                Some(index) => fields[index] = Some(entry.item.clone()),
                None => self.unknown(entry, &names),
            }
        }
        Some(fields)
    }

    /// A secret written in the file: a text, or `{ file = "..." }` relative to the file's folder.
    pub fn secret_of(&mut self, item: &Item, name: &str) -> Option<Secret> {
        if let Value::Text(text) = &item.value {
            return Secret::new(text.as_bytes());
        }
        let example = format!("`{name}` as {}", Kind::Secret.wanted());
        let [file] = self.fields(item, ["file"], &example)?;
        let Some(file) = file else {
            self.mistake(item.at, format!("write {example}; found no `file`"));
            return None;
        };
        let Value::Text(path) = &file.value else {
            let found = file.value.describe();
            self.mistake(file.at, format!("write {example}; found {found}"));
            return None;
        };
        match Secret::read(&beside(self.path.as_deref(), path)) {
            Ok(secret) => Some(secret),
            Err(message) => {
                self.mistake(file.at, format!("`{name}`: {message}"));
                None
            }
        }
    }

    /// A host: a name or an IP address, without a port. Nothing is looked up.
    pub fn host_of(&mut self, item: &Item) -> Option<String> {
        let checked = match &item.value {
            Value::Text(text) => host(text),
            other => Err(format!(
                r#"wants a name or an address, such as "example.com"; found {}"#,
                other.describe()
            )),
        };
        checked
            .map_err(|message| self.mistake(item.at, format!("`host`: {message}")))
            .ok()
    }

    /// A port: its number, or the name of a TCP service that this host knows.
    pub fn port_of(&mut self, item: &Item) -> Option<u16> {
        let port = match &item.value {
            Value::Number(number) => port(*number),
            Value::Text(text) => self.port(text),
            other => Err(format!(
                r#"wants a port or a service's name, such as 80 or "http"; found {}"#,
                other.describe()
            )),
        };
        port.map_err(|message| self.mistake(item.at, format!("`service`: {message}")))
            .ok()
    }

    /// A port by its digits or its name.
    fn port(&mut self, text: &str) -> Result<u16, String> {
        match is_number(text) {
            true => port(text.parse().unwrap_or(i128::MAX)),
            false => self.service(text),
        }
    }

    fn service(&mut self, name: &str) -> Result<u16, String> {
        let services = self.services();
        services.port(name).ok_or_else(|| {
            let shown = plain(name);
            let hint = match services.nearest(name) {
                Some(near) => format!(r#"the nearest is "{near}""#),
                None => "write the port's number".to_owned(),
            };
            format!(r#""{shown}" is neither a port nor a known service; {hint}"#)
        })
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
enum Raw<'a> {
    Word(&'a str),
    Item(&'a Value),
}

/// What to say when a value is of another kind than its key.
fn wrong(key: &Key, raw: Raw<'_>) -> String {
    let found = match raw {
        Raw::Word(word) => format!(r#""{}""#, plain(word)),
        Raw::Item(value) => value.describe(),
    };
    format!("wants {}; found {found}", key.kind.wanted())
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

fn host(text: &str) -> Result<String, String> {
    let shown = plain(text);
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Some(Ok(address)) = bare.map(str::parse::<IpAddr>) {
        return Ok(address.to_string());
    }
    if text.contains(':') {
        return Err(format!(
            r#""{shown}" has more than a host; the port belongs in `service`"#
        ));
    }
    let is_name = (1..=LONGEST_NAME).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/');
    match is_name {
        true => Ok(text.to_owned()),
        false => Err(format!(
            r#""{shown}" is neither a host's name nor an address, such as "example.com""#
        )),
    }
}

fn port(number: i128) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("a port is from 1 to 65535; found {number}")),
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The longest name that the domain name system can carry.
const LONGEST_NAME: usize = 253;
