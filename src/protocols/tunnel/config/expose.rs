//! What this server exposes on others: each `[[expose]]` is a client of one server, run as a service.
//!
//! Only the file has these: the command `towpath expose` is for the rest.

use std::fmt::{self, Write};
use std::path::PathBuf;

use super::super::wire::{LONGEST_NAME, Name};
use crate::config::{Item, Position, Secret, Settings, Value, plain};
use crate::upstream::Target;
pub use crate::wire::proxy::Version as ProxyProtocol;

/// A client of one server.
#[derive(Clone, Debug, PartialEq)]
pub struct Expose {
    /// The server's tunnel address.
    pub server: Target,
    /// The server's token; none is the empty one.
    pub token: Option<Secret>,
    /// The identity's file, relative to where the server starts; none is one in `data_dir`.
    pub identity: Option<PathBuf>,
    /// Its services, in the order of the file; never empty, and no two have the same name.
    pub services: Vec<Exposure>,
}

/// A service that is to have a public port.
#[derive(Clone, Debug, PartialEq)]
pub struct Exposure {
    /// The port is remembered for this name and the identity.
    pub name: Name,
    /// The inside service.
    pub local: Target,
    /// The wanted public port; none is any.
    pub port: Option<u16>,
    /// Datagrams instead of streams.
    pub udp: bool,
    /// All visitors on two connections, whatever they carry.
    pub mux: bool,
    /// A connection of its own for each visitor from the start. Without this and without `mux`, and for
    /// streams only, a visitor begins in the frames of two connections and gets one of its own when it
    /// carries much.
    pub direct: bool,
    /// How the inside service learns the visitor's address.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Exposure {
    /// Whether visitors begin in the frames of two connections.
    pub fn is_framed(&self) -> bool {
        self.mux || (!self.direct && !self.udp)
    }

    /// Whether one that carries much is moved to a connection of its own.
    pub fn may_move(&self) -> bool {
        !self.mux && self.is_framed()
    }
}

/// Reads them all; mistakes are left in `settings`.
pub(super) fn read(settings: &mut Settings) -> Vec<Expose> {
    let items = settings.table_list(PATH);
    let exposes = items.iter().filter_map(|item| client(item, settings));
    exposes.collect()
}

fn client(item: &Item, settings: &mut Settings) -> Option<Expose> {
    let names = ["server", "token", "identity", "services"];
    let [server, token, identity, services] = settings.fields(item, names, EXAMPLE)?;
    for (key, field) in [("server", &server), ("services", &services)] {
        if field.is_none() {
            settings.mistake(item.at, format!("no `{key}`; write {EXAMPLE}"));
        }
    }
    // All are read before any is missed, so that the mistakes of all are told.
    let server = server.and_then(|item| target(&item, "server", settings));
    let token = token.and_then(|item| settings.secret_of(&item, "token"));
    let identity = identity.and_then(|item| path(&item, settings));
    let services = services.map(|item| list(&item, settings));
    Some(Expose {
        server: server?,
        token,
        identity,
        services: services?,
    })
}

fn list(item: &Item, settings: &mut Settings) -> Vec<Exposure> {
    let items = match &item.value {
        Value::List(items) if !items.is_empty() => items.as_slice(),
        other => {
            let found = match other {
                Value::List(_) => "none".to_owned(),
                other => other.describe(),
            };
            let message = format!("`services`: wants a list such as [{SERVICE}]; found {found}");
            settings.mistake(item.at, message);
            return Vec::new();
        }
    };
    let mut services: Vec<Exposure> = Vec::new();
    for item in items {
        let Some((at, service)) = service(item, settings) else {
            continue;
        };
        if services.iter().any(|known| known.name == service.name) {
            let name = &service.name;
            let message = format!("`name`: a service above is \"{name}\", too");
            settings.mistake(at, message);
        }
        services.push(service);
    }
    services
}

/// One service and where its name stands; none where nothing can be said about it any more.
fn service(item: &Item, settings: &mut Settings) -> Option<(Position, Exposure)> {
    let names = [
        "name",
        "local",
        "port",
        "udp",
        "mux",
        "direct",
        "proxy_protocol",
    ];
    let [name, local, port, udp, mux, direct, proxy] = settings.fields(item, names, SERVICE)?;
    for (key, field) in [("name", &name), ("local", &local)] {
        if field.is_none() {
            settings.mistake(item.at, format!("no `{key}`; a service is {SERVICE}"));
        }
    }
    let at = name.as_ref().map_or(item.at, |name| name.at);
    let proxy_at = proxy.as_ref().map_or(item.at, |proxy| proxy.at);
    let name = name.and_then(|item| read_name(&item, settings));
    let local = local.and_then(|item| target(&item, "local", settings));
    let port = port.and_then(|item| read_port(&item, settings));
    let mut truth = |item: Option<Item>, key| item.is_some_and(|item| truth(&item, key, settings));
    let direct_at = direct.as_ref().map_or(item.at, |direct| direct.at);
    let (udp, mux) = (truth(udp, "udp"), truth(mux, "mux"));
    let direct = truth(direct, "direct");
    if mux && direct {
        let message = "`direct`: `mux` says that visitors share connections; one of them is right";
        settings.mistake(direct_at, message.to_owned());
    }
    let proxy_protocol = proxy.and_then(|item| version(&item, settings));
    if udp && proxy_protocol == Some(ProxyProtocol::V1) {
        let message = "`proxy_protocol`: \"v1\" is for streams only; with udp it is \"v2\"";
        settings.mistake(proxy_at, message.to_owned());
    }
    let exposure = Exposure {
        name: name?,
        local: local?,
        port,
        udp,
        mux,
        direct,
        proxy_protocol,
    };
    Some((at, exposure))
}

fn read_name(item: &Item, settings: &mut Settings) -> Option<Name> {
    let name = match &item.value {
        Value::Text(text) => Name::new(text.as_bytes()),
        _ => None,
    };
    if name.is_none() {
        let message = format!(
            "`name`: wants 1 to {LONGEST_NAME} letters, digits, \".\", \"_\" or \"-\", such as \"web\"; found {}",
            item.value.describe()
        );
        settings.mistake(item.at, message);
    }
    name
}

fn target(item: &Item, name: &str, settings: &mut Settings) -> Option<Target> {
    let (host, port) = settings.destination_of(item, name)?;
    let host = host.into();
    Some(Target { host, port })
}

/// 0 is any, as it is for the command's flag.
fn read_port(item: &Item, settings: &mut Settings) -> Option<u16> {
    let port = match item.value {
        Value::Number(number) => u16::try_from(number).ok(),
        _ => None,
    };
    if port.is_none() {
        let found = item.value.describe();
        let message =
            format!("`port`: wants a number from 1 to 65535, or 0 for any; found {found}");
        settings.mistake(item.at, message);
    }
    port.filter(|port| *port > 0)
}

fn truth(item: &Item, name: &str, settings: &mut Settings) -> bool {
    match item.value {
        Value::Truth(truth) => truth,
        _ => {
            let found = item.value.describe();
            let message = format!("`{name}`: wants true or false; found {found}");
            settings.mistake(item.at, message);
            false
        }
    }
}

fn version(item: &Item, settings: &mut Settings) -> Option<ProxyProtocol> {
    let version = match &item.value {
        Value::Text(text) => ProxyProtocol::from_name(text),
        _ => None,
    };
    if version.is_none() {
        let found = item.value.describe();
        let message = format!("`proxy_protocol`: wants one of: \"v1\", \"v2\"; found {found}");
        settings.mistake(item.at, message);
    }
    version
}

fn path(item: &Item, settings: &mut Settings) -> Option<PathBuf> {
    match &item.value {
        Value::Text(text) if !text.is_empty() => Some(PathBuf::from(text)),
        other => {
            let found = other.describe();
            let message = format!("`identity`: wants a path, such as \"expose.id\"; found {found}");
            settings.mistake(item.at, message);
            None
        }
    }
}

pub(super) fn show(exposes: &[Expose], out: &mut String) -> fmt::Result {
    for expose in exposes {
        let token = match expose.token {
            Some(_) => "with a token",
            None => "without a token",
        };
        let server = plain(&expose.server.to_string());
        writeln!(out, "expose on {server}: {token}")?;
        for service in &expose.services {
            let local = plain(&service.local.to_string());
            let transport = if service.udp { "udp" } else { "tcp" };
            let mode = match (service.mux, service.direct) {
                (true, _) => ", mux",
                (_, true) => ", direct",
                _ => "",
            };
            write!(out, "  {} -> {local}: {transport}{mode}", service.name)?;
            if let Some(port) = service.port {
                write!(out, ", port {port}")?;
            }
            if let Some(version) = service.proxy_protocol {
                write!(out, ", proxy protocol {}", version.name())?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

/// Where they stand in the file.
pub(super) const PATH: &str = "expose";

/// What a client looks like, for the one who wrote another thing.
const EXAMPLE: &str = r#"{ server = "tunnel.example:7400", services = [{ name = "web", local = "127.0.0.1:8080" }] }"#;

const SERVICE: &str = r#"{ name = "web", local = "127.0.0.1:8080" }"#;
