//! The tunnel role's keys. Reading only: what they do is told in the role's own room.

mod expose;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

pub use self::expose::{Expose, Exposure, ProxyProtocol};
use crate::config::{
    BANDWIDTH, Key, Kind, Secret, Settings, TERMS, Terms, join, show_bandwidth, show_duration,
    show_ports,
};
use crate::terms_keys;

/// The tunnel role's part of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients come; empty means that the role is off.
    pub listen: Vec<SocketAddr>,
    /// What holds at its listeners.
    pub terms: Terms,
    /// Where the public ports listen.
    pub bind_ip: IpAddr,
    /// What clients are told of their ports.
    pub public_ip: IpAddr,
    /// The ports that are lent.
    pub ports: RangeInclusive<u16>,
    /// What clients prove to know; none lets everybody, and then all of `listen` is loopback.
    pub token: Option<Secret>,
    /// How long a client that has left keeps its ports.
    pub lease: Duration,
    /// Control connections of each core.
    pub max_clients: usize,
    /// Connections of each core that have not proved the token.
    pub max_unproved: usize,
    /// Services of one control connection.
    pub max_services: usize,
    /// Visitors of one service at a time; of one for UDP its flows.
    pub max_visitors: usize,
    /// Visitors of each core that wait for a data connection.
    pub max_waiting: usize,
    /// How long a visitor waits for one.
    pub visitor_timeout: Duration,
    /// The most data connections without a visitor, for each service of a client.
    pub pool: usize,
    /// Bytes a second, each way, of all TCP visitors of one service together; 0 is no limit.
    pub bandwidth_per_service: u64,
    /// How long a flow may be silent both ways.
    pub udp_idle_timeout: Duration,
    /// The clients that this server itself is of other servers.
    pub expose: Vec<Expose>,
}

impl Config {
    /// Reads the role's keys; mistakes are left in `settings`.
    pub fn read(settings: &mut Settings) -> Config {
        const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let bind_ip = settings.ip("tunnel.bind_ip").unwrap_or(LOOPBACK);
        let public_ip = settings.ip("tunnel.public_ip");
        let config = Config {
            listen: settings.addresses("tunnel.listen"),
            terms: Terms::read(settings, &TERM_KEYS),
            bind_ip,
            public_ip: public_ip.unwrap_or(bind_ip),
            ports: settings.ports("tunnel.ports").unwrap_or(1..=u16::MAX),
            token: settings.secret("tunnel.token"),
            lease: settings.time("tunnel.lease"),
            max_clients: settings.count("tunnel.max_clients"),
            max_unproved: settings.count("tunnel.max_unproved"),
            max_services: settings.count("tunnel.max_services"),
            max_visitors: settings.count("tunnel.max_visitors"),
            max_waiting: settings.count("tunnel.max_waiting"),
            visitor_timeout: settings.time("tunnel.visitor_timeout"),
            pool: settings.count("tunnel.pool"),
            bandwidth_per_service: settings.size("tunnel.bandwidth_per_service"),
            udp_idle_timeout: settings.time("tunnel.udp_idle_timeout"),
            expose: expose::read(settings),
        };
        config.examine(public_ip.is_some(), settings);
        config
    }

    /// What is no single key's mistake, and what is allowed and hardly meant.
    fn examine(&self, has_public_ip: bool, settings: &mut Settings) {
        if self.public_ip.is_unspecified() {
            let message = format!("no visitor can reach {}", self.public_ip);
            match has_public_ip {
                true => settings.mistake_of("tunnel.public_ip", message),
                false => {
                    let hint = "set `tunnel.public_ip` to what clients are to be told";
                    settings.mistake_of("tunnel.bind_ip", format!("{message}; {hint}"));
                }
            }
        }
        let open = self.listen.iter().find(|at| !at.ip().is_loopback());
        let Some(address) = open else {
            return;
        };
        let token = self.token.as_ref().map_or(0, |token| token.expose().len());
        match token {
            0 => settings.mistake_of(
                "tunnel.listen",
                format!(
                    "{address} is not loopback, and there is no token: whoever reaches it could open ports here; make one by `towpath gen token` and set `tunnel.token`"
                ),
            ),
            short if short < STRONG_TOKEN => settings.warn(format!(
                "tunnel listens on {address} with a token of {short} bytes: it can be guessed from one recorded handshake; use {STRONG_TOKEN} or more, such as of `towpath gen token`"
            )),
            _ => {}
        }
        if self.bind_ip.is_loopback() || self.public_ip.is_loopback() {
            settings.warn(format!(
                "tunnel listens on {address}, but its services get addresses that only this host reaches; set `tunnel.bind_ip` and `tunnel.public_ip`"
            ));
        }
    }
}

/// Says what the role would do, in lines for an operator.
pub fn show(config: &Config, out: &mut String) {
    // Writing to a string fails only where memory ends.
    let _ = try_show(config, out);
}

fn try_show(tunnel: &Config, out: &mut String) -> fmt::Result {
    if tunnel.listen.is_empty() {
        writeln!(out, "tunnel: off")?;
        return expose::show(&tunnel.expose, out);
    }
    let listen: Vec<_> = tunnel.listen.iter().map(ToString::to_string).collect();
    let token = match tunnel.token {
        Some(_) => "clients prove the token",
        None => "clients need no token",
    };
    writeln!(out, "tunnel: on {}; {token}", listen.join(", "))?;
    let mut row = |name: &str, value: String| writeln!(out, "  {name:<24}{value}");
    row("bind_ip", tunnel.bind_ip.to_string())?;
    row("public_ip", tunnel.public_ip.to_string())?;
    row("ports", show_ports(&tunnel.ports))?;
    row("lease", show_duration(tunnel.lease))?;
    row("max_clients", tunnel.max_clients.to_string())?;
    row("max_unproved", tunnel.max_unproved.to_string())?;
    row("max_services", tunnel.max_services.to_string())?;
    row("max_visitors", tunnel.max_visitors.to_string())?;
    row("max_waiting", tunnel.max_waiting.to_string())?;
    row("visitor_timeout", show_duration(tunnel.visitor_timeout))?;
    row("pool", tunnel.pool.to_string())?;
    row("udp_idle_timeout", show_duration(tunnel.udp_idle_timeout))?;
    let rate = show_bandwidth(tunnel.bandwidth_per_service);
    row("bandwidth_per_service", rate)?;
    tunnel.terms.show(&mut row)?;
    expose::show(&tunnel.expose, out)
}

/// The tunnel role's keys.
pub const KEYS: &[Key] = &join::<{ OWN.len() + TERMS }>(OWN, &TERM_KEYS);

const TERM_KEYS: [Key; TERMS] = terms_keys!("tunnel");

const OWN: &[Key] = &[
    Key::new(
        "tunnel.listen",
        Kind::Addresses,
        "127.0.0.1:7400",
        "where tunnel clients come; off where a configuration file names no address",
    )
    .flag("tunnel"),
    Key::new(
        "tunnel.bind_ip",
        Kind::Ip,
        "127.0.0.1",
        "where the public ports listen",
    )
    .flag("tunnel-bind-ip"),
    Key::new(
        "tunnel.public_ip",
        Kind::Ip,
        "",
        "the address that clients are told of their ports; bind_ip where it is empty",
    )
    .flag("tunnel-public-ip"),
    Key::new(
        "tunnel.ports",
        Kind::Ports,
        "30000-39999",
        "the ports that are lent to services",
    )
    .flag("tunnel-ports")
    .fixed(),
    Key::new(
        "tunnel.token",
        Kind::Secret,
        "",
        "what a client must prove to know; empty only on loopback",
    )
    .flag("tunnel-token-file"),
    Key::new(
        "tunnel.lease",
        Kind::Time {
            least: Duration::from_secs(1),
            most: Duration::from_secs(366 * 24 * 3600),
        },
        "180m",
        "how long a client that has left keeps its ports",
    )
    .flag("tunnel-lease")
    .fixed(),
    Key::new(
        "tunnel.max_clients",
        MANY,
        "1024",
        "control connections of each core",
    )
    .flag("tunnel-max-clients"),
    Key::new(
        "tunnel.max_unproved",
        MANY,
        "1024",
        "connections of each core that have not proved the token; one more closes the oldest",
    )
    .flag("tunnel-max-unproved"),
    Key::new(
        "tunnel.max_services",
        Kind::Count {
            least: 1,
            most: u16::MAX as u64,
        },
        "64",
        "services of one client",
    )
    .flag("tunnel-max-services"),
    Key::new(
        "tunnel.max_visitors",
        MANY,
        "1024",
        "visitors of one service at a time, or its UDP flows",
    )
    .flag("tunnel-max-visitors"),
    Key::new(
        "tunnel.max_waiting",
        MANY,
        "1024",
        "visitors of each core that wait for a data connection",
    )
    .flag("tunnel-max-waiting"),
    Key::new(
        "tunnel.visitor_timeout",
        Kind::Time {
            least: Duration::from_millis(100),
            most: Duration::from_secs(3600),
        },
        "10s",
        "how long a visitor waits for a data connection",
    )
    .flag("tunnel-visitor-timeout"),
    Key::new(
        "tunnel.pool",
        Kind::Count {
            least: 0,
            most: 256,
        },
        "8",
        "most data connections that a client opens before there are visitors, for each service",
    )
    .flag("tunnel-pool"),
    Key::new(
        "tunnel.udp_idle_timeout",
        Kind::Time {
            least: Duration::from_millis(100),
            most: Duration::from_secs(24 * 3600),
        },
        "60s",
        "how long a UDP flow may be silent both ways",
    )
    .flag("tunnel-udp-idle"),
    Key::new(
        "tunnel.bandwidth_per_service",
        BANDWIDTH,
        "0",
        "bytes a second each way for all TCP visitors of one service; 0 is no bound",
    )
    .flag("tunnel-bandwidth-per-service"),
    Key::new(
        expose::PATH,
        Kind::TableList,
        "",
        "services of this host that are exposed on other servers",
    ),
];

const MANY: Kind = Kind::Count {
    least: 1,
    most: 1_000_000,
};

/// A shorter token can be found by trying, given one recorded handshake.
const STRONG_TOKEN: usize = 16;
