//! How values below a table whose names are the user's own are read: each is an item of the file,
//! and what is wrong with it is told with its place. Keys of the tables are read in the file `read`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::mistake::beside;
use super::read::{Raw, bytes, choice, count, switch, time};
use super::settings::{Given, Traffic};
use super::{BANDWIDTH, Entry, Item, Kind, Secret, Settings, Value, address, plain};

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
    /// is none. An address that another listener for such `traffic` has already is one, too, port 0
    /// excepted. `path` is what the next listener is told of them.
    pub fn addresses_of(
        &mut self,
        item: &Item,
        name: &str,
        traffic: Traffic,
        path: &'static str,
    ) -> Vec<SocketAddr> {
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
                Value::Text(text) => {
                    address(text).and_then(|address| self.claim(address, traffic, path))
                }
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

    /// A switch, off where what is there is none.
    pub fn switch_of(&mut self, item: &Item, name: &str) -> bool {
        let read = |raw: Raw<'_>| switch(&Kind::Switch, raw);
        self.item_of(item, name, read).unwrap_or_default()
    }

    /// A whole number within the bounds of this [`Kind::Count`].
    pub fn count_of(&mut self, item: &Item, name: &str, kind: &Kind) -> Option<usize> {
        self.item_of(item, name, |raw| count(kind, raw))
    }

    /// A bandwidth limit in bytes a second; 0, which is none, where what is there is no such thing.
    pub fn bandwidth_of(&mut self, item: &Item, name: &str) -> u64 {
        let read = |raw: Raw<'_>| bytes(&BANDWIDTH, raw);
        self.item_of(item, name, read).unwrap_or_default()
    }

    /// A duration within the bounds of this [`Kind::Time`].
    pub fn time_of(&mut self, item: &Item, name: &str, kind: &Kind) -> Option<Duration> {
        self.item_of(item, name, |raw| time(kind, raw))
    }

    /// One of the words of this [`Kind::Choice`].
    pub fn choice_of(&mut self, item: &Item, name: &str, kind: &Kind) -> Option<&'static str> {
        self.item_of(item, name, |raw| choice(kind, raw))
    }

    fn item_of<T>(
        &mut self,
        item: &Item,
        name: &str,
        read: impl Fn(Raw<'_>) -> Result<T, String>,
    ) -> Option<T> {
        read(Raw::Item(&item.value))
            .map_err(|message| self.mistake(item.at, format!("`{name}`: {message}")))
            .ok()
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
