//! The `[routes.NAME]` part of a configuration, written by the tests.

use std::fmt::Write;
use std::net::SocketAddr;

/// One traffic-proxy service.
#[derive(Clone, Default)]
pub struct Route {
    name: String,
    token: String,
    bandwidth: Option<String>,
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

    /// Its bytes a second, as the file writes them.
    pub fn bandwidth(mut self, rate: &str) -> Self {
        self.bandwidth = Some(rate.into());
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
        // TOML escapes as JSON does.
        let quoted = |text: &String| serde_json::to_string(text).unwrap();
        let name = quoted(&self.name);
        let mut text = format!("[routes.{name}]\ntoken = {:?}\n", self.token);
        text += &self.send_proxy;
        if let Some(rate) = &self.bandwidth {
            let _ = writeln!(text, "bandwidth = {rate:?}");
        }
        let _ = writeln!(text, "[routes.{name}.hosts]");
        for (field, targets) in &self.fields {
            let tables: Vec<String> = targets
                .iter()
                .map(|(host, service)| format!("{{ host = {host:?}, service = {service:?} }}"))
                .collect();
            let value = match tables.as_slice() {
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            let _ = writeln!(text, "{} = {value}", quoted(field));
        }
        text
    }
}
