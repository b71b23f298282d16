//! The agent role's keys, and its routes. Reading only: what a token or a route does is told in
//! the role's own room.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{
    Entry, Item, Key, Kind, SEND_PROXY, Secret, Settings, TERMS, Terms, Value, join, plain,
    show_bandwidth, show_duration, show_size,
};
use crate::session::RouteRow;
use crate::store;
use crate::terms_keys;
use crate::upstream::Target;
use crate::wire::proxy::Version;

/// The agent role's part of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where it listens; empty means that the role is off.
    pub listen: Vec<SocketAddr>,
    /// What an agent must know before it may update; none lets everybody.
    pub token: Option<Secret>,
    /// The longest payload of a frame, in bytes.
    pub max_payload: usize,
    /// The longest that a query may wait for its key, whatever the client asks for.
    pub max_wait: Duration,
    /// What the store may hold.
    pub store: store::Limits,
    /// What holds at its listeners.
    pub terms: Terms,
    /// The traffic proxy's services, in the order of the file.
    pub routes: Vec<Route>,
}

/// A service of the traffic proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The service's name, as clients send it.
    pub name: String,
    /// What a client must send with it; none is not checked.
    pub token: Option<Secret>,
    /// Bytes a second, each way, of all its relays together; 0 is no limit.
    pub bandwidth: u64,
    /// How its hosts learn who the client is.
    pub send_proxy: Option<Version>,
    /// Field -> its hosts, in the order of the file. No list is empty and no field occurs twice.
    pub fields: Vec<(String, Vec<Target>)>,
}

impl Config {
    /// Reads the role's keys; mistakes are left in `settings`.
    pub fn read(settings: &mut Settings) -> Config {
        let config = Config {
            listen: settings.addresses("agent.listen"),
            token: settings.secret("agent.token"),
            max_payload: bytes(settings.size("agent.max_payload")),
            max_wait: settings.time("agent.max_wait"),
            store: store::Limits {
                max_value: bytes(settings.size("agent.max_value")),
                max_records: settings.count("agent.max_records"),
                max_bytes: bytes(settings.size("agent.max_bytes")),
            },
            terms: Terms::read(settings, &TERM_KEYS),
            routes: routes(settings),
        };
        let open = config.listen.iter().find(|at| !at.ip().is_loopback());
        if let (Some(address), None) = (open, &config.token) {
            settings.warn(format!(
                "agent listens on {address} without a token: whoever reaches it may update; set `agent.token`"
            ));
        }
        config
    }
}

fn routes(settings: &mut Settings) -> Vec<Route> {
    let entries = settings.tables("routes");
    entries
        .iter()
        .filter_map(|entry| route(entry, settings))
        .collect()
}

fn route(entry: &Entry, settings: &mut Settings) -> Option<Route> {
    if entry.name.is_empty() {
        settings.mistake(entry.at, "a route without a name".to_owned());
    }
    let names = ["token", "bandwidth", "send_proxy", "hosts"];
    let [token, bandwidth, send_proxy, hosts] = settings.fields(&entry.item, names, ROUTE)?;
    let token = token.and_then(|item| settings.secret_of(&item, "token"));
    let bandwidth = bandwidth.map(|item| settings.bandwidth_of(&item, "bandwidth"));
    let send_proxy =
        send_proxy.and_then(|item| settings.choice_of(&item, "send_proxy", &SEND_PROXY));
    let fields = match hosts {
        Some(Item {
            value: Value::Table(entries),
            ..
        }) if !entries.is_empty() => fields(&entries, settings),
        other => {
            let at = other.map_or(entry.at, |item| item.at);
            settings.mistake(at, format!("a route without hosts; write {ROUTE}"));
            Vec::new()
        }
    };
    Some(Route {
        name: entry.name.clone(),
        token,
        bandwidth: bandwidth.unwrap_or_default(),
        send_proxy: send_proxy.and_then(Version::from_name),
        fields,
    })
}

fn fields(entries: &[Entry], settings: &mut Settings) -> Vec<(String, Vec<Target>)> {
    let mut fields = Vec::with_capacity(entries.len());
    for entry in entries {
        let targets = targets(&entry.item, settings);
        if !targets.is_empty() {
            fields.push((entry.name.clone(), targets));
        }
    }
    fields
}

/// One host, or a list of them that are used in turn.
fn targets(item: &Item, settings: &mut Settings) -> Vec<Target> {
    let items = match &item.value {
        Value::List(items) if items.is_empty() => {
            settings.mistake(item.at, format!("an empty list of hosts; write {HOST}"));
            return Vec::new();
        }
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(item),
    };
    let mut known = HashSet::new();
    let mut targets = Vec::with_capacity(items.len());
    for item in items {
        let Some(target) = target(item, settings) else {
            continue;
        };
        if known.insert((target.host.clone(), target.port)) {
            targets.push(target);
        } else {
            settings.mistake(item.at, format!("{target} is twice in this list"));
        }
    }
    targets
}

fn target(item: &Item, settings: &mut Settings) -> Option<Target> {
    let [host, service] = settings.fields(item, ["host", "service"], HOST)?;
    for (name, field) in [("host", &host), ("service", &service)] {
        if field.is_none() {
            settings.mistake(item.at, format!("no `{name}`; write {HOST}"));
        }
    }
    // Both are read before either is missed, so that the mistakes of both are told.
    let host = host.and_then(|item| settings.host_of(&item));
    let port = service.and_then(|item| settings.port_of(&item));
    Some(Target {
        host: host?.into(),
        port: port?,
    })
}

/// The same configuration with another route of that name, behind the others where it is a new one, or
/// with none.
pub(super) fn reroute(
    config: &Config,
    name: &str,
    entry: Option<&Entry>,
    settings: &mut Settings,
) -> Config {
    let mut config = config.clone();
    // Who may reach the admin address need not be able to read this host's files.
    if let Some(Value::Table(fields)) = entry.map(|entry| &entry.item.value)
        && let Some(token) = fields.iter().find(|field| field.name == "token")
        && matches!(token.item.value, Value::Table(_))
    {
        settings.mistake(token.at, "`token`: only a text is taken here".to_owned());
        return config;
    }
    let at = config.routes.iter().position(|route| route.name == name);
    match (at, entry.and_then(|entry| route(entry, settings))) {
        (Some(at), Some(route)) => config.routes[at] = route,
        (None, Some(route)) => config.routes.push(route),
        (Some(at), None) => drop(config.routes.remove(at)),
        (None, None) => {}
    }
    config
}

/// Where its services lead, for an operator to see.
pub(super) fn route_rows(config: &Config) -> Vec<RouteRow> {
    let of_route = |route: &Route| {
        let row = |(field, targets): &(String, Vec<Target>)| RouteRow {
            role: "agent",
            name: route.name.clone(),
            field: field.clone(),
            to: targets.iter().map(ToString::to_string).collect(),
            guarded: route.token.as_ref().map(Secret::print),
            settings: settings_of(route),
        };
        route.fields.iter().map(row).collect::<Vec<_>>()
    };
    config.routes.iter().flat_map(of_route).collect()
}

/// What is set for a route besides its token and hosts.
fn settings_of(route: &Route) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    if route.bandwidth > 0 {
        settings.push(("bandwidth", show_size(route.bandwidth)));
    }
    if let Some(version) = route.send_proxy {
        settings.push(("send_proxy", version.name().to_owned()));
    }
    settings
}

/// Says what the role would do, in lines for an operator.
pub(super) fn show(config: &Config, out: &mut String) {
    // Writing to a string fails only where memory ends.
    let _ = try_show(config, out);
}

fn try_show(agent: &Config, out: &mut String) -> fmt::Result {
    if agent.listen.is_empty() {
        return writeln!(out, "agent: off");
    }
    let addresses: Vec<String> = agent.listen.iter().map(ToString::to_string).collect();
    let token = match agent.token {
        Some(_) => "updates need the token",
        None => "updates need no token",
    };
    writeln!(out, "agent: listens on {}; {token}", addresses.join(", "))?;
    let size = |bytes: usize| show_size(u64::try_from(bytes).unwrap_or(u64::MAX));
    let mut row = |name: &str, value: String| writeln!(out, "  {name:<24}{value}");
    row("max_payload", size(agent.max_payload))?;
    row("max_wait", show_duration(agent.max_wait))?;
    row("max_value", size(agent.store.max_value))?;
    row("max_records", agent.store.max_records.to_string())?;
    row("max_bytes", size(agent.store.max_bytes))?;
    agent.terms.show(&mut row)?;
    for route in &agent.routes {
        let token = match route.token {
            Some(_) => "token checked",
            None => "no token",
        };
        write!(out, "route {}: {token}", plain(&route.name))?;
        if route.bandwidth > 0 {
            write!(out, "; {}", show_bandwidth(route.bandwidth))?;
        }
        if let Some(version) = route.send_proxy {
            write!(out, "; sends PROXY {}", version.name())?;
        }
        writeln!(out)?;
        for (field, targets) in &route.fields {
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            let field = plain(field);
            writeln!(out, "  {field} -> {}", targets.join(", "))?;
        }
    }
    Ok(())
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// The agent role's keys.
pub const KEYS: &[Key] = &join::<{ OWN.len() + TERMS }>(OWN, &TERM_KEYS);

const TERM_KEYS: [Key; TERMS] = terms_keys!("agent");

const OWN: &[Key] = &[
    Key::new(
        "agent.listen",
        Kind::Addresses,
        "127.0.0.1:7100",
        "agent store and traffic proxy; off where a configuration file names no address",
    )
    .flag("agent"),
    Key::new(
        "agent.token",
        Kind::Secret,
        "",
        "what an agent must send before it may update",
    )
    .flag("token-file"),
    Key::new(
        "agent.max_payload",
        Kind::Size {
            least: 64,
            most: LONGEST_PAYLOAD,
        },
        "512K",
        "longest payload of a frame",
    )
    .flag("agent-max-payload"),
    Key::new(
        "agent.max_wait",
        Kind::Time {
            least: Duration::ZERO,
            most: Duration::from_secs(24 * 3600),
        },
        "60s",
        "longest wait of a query for its key",
    )
    .flag("agent-max-wait"),
    Key::new(
        "agent.max_value",
        Kind::Size {
            least: 0,
            most: LONGEST_PAYLOAD,
        },
        "512K",
        "longest value in the store",
    )
    .flag("agent-max-value")
    .fixed(),
    Key::new(
        "agent.max_records",
        Kind::Count {
            least: 0,
            most: 1_000_000_000,
        },
        "1000000",
        "values in the store",
    )
    .flag("agent-max-records")
    .fixed(),
    Key::new(
        "agent.max_bytes",
        Kind::Size {
            least: 0,
            most: 1 << 44,
        },
        "1G",
        "ids, sections and values in the store, in all",
    )
    .flag("agent-max-bytes")
    .fixed(),
    Key::new(
        "routes",
        Kind::Tables,
        "",
        "the services of the traffic proxy",
    ),
];

/// The protocol's own bound.
const LONGEST_PAYLOAD: u64 = 512 << 10;

/// What a route looks like, for the one who wrote another thing.
const ROUTE: &str =
    r#"`hosts` as a table, such as { default = { host = "example.com", service = "http" } }"#;

/// What a host looks like.
const HOST: &str = r#"a host, such as { host = "example.com", service = "http" }"#;
