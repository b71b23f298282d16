//! The gateway role's keys. Reading only: what they do is told in the role's own room.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::wire::Dialect;
use crate::config::{Key, Kind, Secret, Settings, TERMS, Terms, join, show_duration, show_size};
use crate::terms_keys;

/// The gateway role's part of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients come; empty means none do.
    pub clients: Vec<SocketAddr>,
    /// Where servers come; empty means none do.
    pub servers: Vec<SocketAddr>,
    /// What holds at its listeners.
    pub terms: Terms,
    /// What clients speak; `None` is told by their first command.
    pub dialect: Option<Dialect>,
    /// What servers speak.
    pub server_dialect: Dialect,
    /// What servers prove to know; none lets everybody be a server.
    pub auth_key: Option<Secret>,
    /// The most that a frame's length may say, in bytes.
    pub max_packet: u32,
    /// Virtual connections of one client at which it is dialled no further; 0 is no bound.
    pub max_conns_per_client: usize,
    /// How long a client may send no frame; zero is for ever.
    pub client_idle_timeout: Duration,
    /// How long a server may send no frame; zero is for ever.
    pub server_idle_timeout: Duration,
    /// How long a client may take no byte of what waits for it.
    pub slow_receiver_timeout: Duration,
    /// Bytes for each core that may wait for slow clients.
    pub max_queue_memory: usize,
}

impl Config {
    /// Reads the role's keys; mistakes are left in `settings`.
    pub fn read(settings: &mut Settings) -> Config {
        let config = Config {
            clients: settings.addresses("gateway.clients"),
            servers: settings.addresses("gateway.servers"),
            terms: Terms::read(settings, &TERM_KEYS),
            dialect: dialect(settings.choice("gateway.dialect")),
            server_dialect: dialect(settings.choice("gateway.server_dialect"))
                .unwrap_or(Dialect::Document),
            auth_key: settings.secret("gateway.auth_key"),
            max_packet: u32::try_from(settings.size("gateway.max_packet")).unwrap_or(u32::MAX),
            max_conns_per_client: settings.count("gateway.max_conns_per_client"),
            client_idle_timeout: settings.time("gateway.client_idle_timeout"),
            server_idle_timeout: settings.time("gateway.server_idle_timeout"),
            slow_receiver_timeout: settings.time("gateway.slow_receiver_timeout"),
            max_queue_memory: usize::try_from(settings.size("gateway.max_queue_memory"))
                .unwrap_or(usize::MAX),
        };
        let key = config.auth_key.as_ref().map_or(0, |key| key.expose().len());
        let open = config.servers.iter().find(|at| !at.ip().is_loopback());
        if let Some(address) = open
            && key < STRONG_KEY
        {
            settings.warn(match key {
                0 => format!(
                    "gateway takes servers on {address} without a key: whoever reaches it can be any server; set `gateway.auth_key`"
                ),
                _ => format!(
                    "gateway takes servers on {address} with a key of {key} bytes: it can be guessed from one recorded handshake; use {STRONG_KEY} or more"
                ),
            });
        }
        let half = match (config.clients.is_empty(), config.servers.is_empty()) {
            (false, true) => Some("clients but for no servers; set `gateway.servers`"),
            (true, false) => Some("servers but for no clients; set `gateway.clients`"),
            _ => None,
        };
        if let Some(half) = half {
            settings.warn(format!("gateway listens for {half}"));
        }
        config
    }
}

/// The dialect of that name; none for `auto`.
fn dialect(name: &str) -> Option<Dialect> {
    match name {
        "document" => Some(Dialect::Document),
        "fastway" => Some(Dialect::Fastway),
        _ => None,
    }
}

/// Says what the role would do, in lines for an operator.
pub(super) fn show(config: &Config, out: &mut String) {
    // Writing to a string fails only where memory ends.
    let _ = try_show(config, out);
}

fn try_show(gateway: &Config, out: &mut String) -> fmt::Result {
    if gateway.clients.is_empty() && gateway.servers.is_empty() {
        return writeln!(out, "gateway: off");
    }
    let list = |addresses: &[SocketAddr]| match addresses {
        [] => "nowhere".to_owned(),
        some => {
            let some: Vec<_> = some.iter().map(ToString::to_string).collect();
            some.join(", ")
        }
    };
    let key = match gateway.auth_key {
        Some(_) => "servers prove the key",
        None => "servers need no key",
    };
    let (clients, servers) = (list(&gateway.clients), list(&gateway.servers));
    writeln!(
        out,
        "gateway: clients on {clients}; servers on {servers}; {key}"
    )?;
    let idle = |idle: Duration| match idle.is_zero() {
        true => "off".to_owned(),
        false => show_duration(idle),
    };
    let mut row = |name: &str, value: String| writeln!(out, "  {name:<24}{value}");
    row("dialect", gateway.dialect.map_or("auto", name).to_owned())?;
    row("server_dialect", name(gateway.server_dialect).to_owned())?;
    row("max_packet", show_size(u64::from(gateway.max_packet)))?;
    let most = match gateway.max_conns_per_client {
        0 => "no bound".to_owned(),
        most => most.to_string(),
    };
    row("max_conns_per_client", most)?;
    row("client_idle_timeout", idle(gateway.client_idle_timeout))?;
    row("server_idle_timeout", idle(gateway.server_idle_timeout))?;
    let slow = show_duration(gateway.slow_receiver_timeout);
    row("slow_receiver_timeout", slow)?;
    row(
        "max_queue_memory",
        show_size(gateway.max_queue_memory as u64),
    )?;
    gateway.terms.show(&mut row)
}

/// As the configuration and the log call it.
pub(super) fn name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Document => "document",
        Dialect::Fastway => "fastway",
    }
}

/// The gateway role's keys.
pub const KEYS: &[Key] = &join::<{ OWN.len() + TERMS }>(OWN, &TERM_KEYS);

const TERM_KEYS: [Key; TERMS] = terms_keys!("gateway");

const OWN: &[Key] = &[
    Key::new(
        "gateway.clients",
        Kind::Addresses,
        "127.0.0.1:7500",
        "where the gateway's clients come; off where a configuration file names no address",
    )
    .flag("gateway-clients"),
    Key::new(
        "gateway.servers",
        Kind::Addresses,
        "127.0.0.1:7501",
        "where the gateway's servers come; off where a configuration file names no address",
    )
    .flag("gateway-servers"),
    Key::new(
        "gateway.dialect",
        Kind::Choice(&["auto", "document", "fastway"]),
        "auto",
        "what clients speak; auto tells by their first command",
    )
    .flag("gateway-dialect"),
    Key::new(
        "gateway.server_dialect",
        Kind::Choice(&["document", "fastway"]),
        "document",
        "what servers speak",
    )
    .flag("gateway-server-dialect"),
    Key::new(
        "gateway.auth_key",
        Kind::Secret,
        "",
        "what a server must prove to know",
    )
    .flag("gateway-key-file"),
    Key::new(
        "gateway.max_packet",
        Kind::Size {
            least: 64,
            most: 16 << 20,
        },
        "512K",
        "most that a frame's length may say",
    )
    .flag("gateway-max-packet"),
    Key::new(
        "gateway.max_conns_per_client",
        Kind::Count {
            least: 0,
            most: 1_000_000,
        },
        "16",
        "virtual connections of one client; 0 is no bound",
    )
    .flag("gateway-max-conns"),
    Key::new(
        "gateway.client_idle_timeout",
        IDLE,
        "30s",
        "how long a client may send no frame; 0s is for ever",
    )
    .flag("gateway-client-idle"),
    Key::new(
        "gateway.server_idle_timeout",
        IDLE,
        "30s",
        "how long a server may send no frame; 0s is for ever",
    )
    .flag("gateway-server-idle"),
    Key::new(
        "gateway.slow_receiver_timeout",
        Kind::Time {
            least: Duration::from_millis(10),
            most: Duration::from_secs(24 * 3600),
        },
        "10s",
        "how long a client may take no byte of what waits for it",
    )
    .flag("gateway-slow-receiver"),
    Key::new(
        "gateway.max_queue_memory",
        Kind::Size {
            least: 1 << 20,
            most: 1 << 40,
        },
        "112M",
        "memory of each core for what waits for slow clients",
    )
    .flag("gateway-queue-memory"),
];

const IDLE: Kind = Kind::Time {
    least: Duration::ZERO,
    most: Duration::from_secs(7 * 24 * 3600),
};

/// A shorter key can be found by trying, given one recorded handshake.
const STRONG_KEY: usize = 16;
