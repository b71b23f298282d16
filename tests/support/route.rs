//! The `[routes.NAME]` part of a configuration, written by the tests.

use std::fmt::Write;
use std::net::SocketAddr;

/// One traffic-proxy service.
#[derive(Clone, Default)]
pub struct Route {
    name: String,
    token: String,
    send_proxy: String,
    fields: Vec<(String, Vec<(String, String)>)>,
}

impl Route {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    pub fn token(mut self, token: &str) -> Self {
        self.token = token.into();
        self
    }

    /// Its hosts are told who the client is by a PROXY header of this version.
    pub fn send_proxy(mut self, version: &str) -> Self {
        self.send_proxy = format!("send_proxy = {version:?}\n");
        self
    }

    /// A field with one host, by address.
    pub fn host(self, field: &str, address: SocketAddr) -> Self {
        self.hosts(field, &[address])
    }

    /// A field with a list of hosts.
    pub fn hosts(mut self, field: &str, addresses: &[SocketAddr]) -> Self {
        let split = |address: &SocketAddr| (address.ip().to_string(), address.port().to_string());
        let targets = addresses.iter().map(split).collect();
        self.fields.push((field.into(), targets));
        self
    }

    /// One more host of a field, by name.
    pub fn named(mut self, field: &str, host: &str, service: impl ToString) -> Self {
        let target = (host.to_string(), service.to_string());
        match self.fields.iter_mut().find(|(name, _)| name == field) {
            Some((_, targets)) => targets.push(target),
            None => self.fields.push((field.into(), vec![target])),
        }
        self
    }

    pub fn toml(&self) -> String {
        let mut text = format!("[routes.{:?}]\ntoken = {:?}\n", self.name, self.token);
        text += &self.send_proxy;
        let _ = writeln!(text, "[routes.{:?}.hosts]", self.name);
        for (field, targets) in &self.fields {
            let tables: Vec<String> = targets
                .iter()
                .map(|(host, service)| format!("{{ host = {host:?}, service = {service:?} }}"))
                .collect();
            let value = match tables.as_slice() {
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            let _ = writeln!(text, "{field:?} = {value}");
        }
        text
    }
}
