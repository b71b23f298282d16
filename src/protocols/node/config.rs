//! The node role's keys. Reading only: what they do is told in the role's own room.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::wire::HEAD;
use crate::config::{
    Key, Kind, Settings, TERMS, Terms, join, plain, show_duration, show_ports, show_size,
};
use crate::terms_keys;

/// The node role's part of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where nodes come; empty means that the role is off.
    pub listen: Vec<SocketAddr>,
    /// What holds at its listeners.
    pub terms: Terms,
    /// What nodes are told, for the main address and for theirs.
    pub public_ip: IpAddr,
    /// Where the leased ports listen.
    pub bind_ip: IpAddr,
    /// The ports that are lent.
    pub ports: RangeInclusive<u16>,
    /// Which network's frames are taken.
    pub network_id: u32,
    /// How long a node that has left keeps its address.
    pub lease: Duration,
    /// How long a node may send neither a Keepalive nor a request.
    pub keepalive_timeout: Duration,
    /// The longest body of a frame, in bytes.
    pub max_frame: u32,
    /// The most visitors of one node at a time.
    pub max_visitors: usize,
    /// Connections of each core that have not registered.
    pub max_unregistered: usize,
    /// Bytes of each core for frames too long for a connection's ring.
    pub max_frame_memory: usize,
    /// Public keys of the nodes that are served; empty means all, signed or not.
    pub allow_keys: Vec<[u8; 32]>,
}

impl Config {
    /// Reads the role's keys; mistakes are left in `settings`.
    pub fn read(settings: &mut Settings) -> Config {
        const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let max_frame = u32::try_from(settings.size("node.max_frame")).unwrap_or(u32::MAX);
        let memory = usize::try_from(settings.size("node.max_frame_memory")).unwrap_or(usize::MAX);
        let config = Config {
            listen: settings.addresses("node.listen"),
            terms: Terms::read(settings, &TERM_KEYS),
            public_ip: settings.ip("node.public_ip").unwrap_or(LOOPBACK),
            bind_ip: settings.ip("node.bind_ip").unwrap_or(LOOPBACK),
            ports: settings.ports("node.ports").unwrap_or(1..=u16::MAX),
            network_id: settings.count("node.network_id") as u32,
            lease: settings.time("node.lease"),
            keepalive_timeout: settings.time("node.keepalive_timeout"),
            max_frame,
            max_visitors: settings.count("node.max_visitors"),
            max_unregistered: settings.count("node.max_unregistered"),
            max_frame_memory: memory,
            allow_keys: allow_keys(settings),
        };
        config.examine(settings);
        config
    }

    /// What is allowed and hardly meant.
    fn examine(&self, settings: &mut Settings) {
        if self.public_ip.is_unspecified() {
            let message = format!("no node can be reached at {}", self.public_ip);
            settings.mistake_of("node.public_ip", message);
        }
        let frame = HEAD + self.max_frame as usize;
        if self.max_frame_memory < frame {
            let message = format!(
                "must hold the longest frame, {} and its head",
                show_size(u64::from(self.max_frame))
            );
            settings.mistake_of("node.max_frame_memory", message);
        }
        let open = self.listen.iter().find(|at| !at.ip().is_loopback());
        if let Some(address) = open
            && (self.public_ip.is_loopback() || self.bind_ip.is_loopback())
        {
            settings.warn(format!(
                "node listens on {address}, but its nodes get addresses that only this host reaches; set `node.public_ip` and `node.bind_ip`"
            ));
        }
    }
}

/// The keys of the list; a text that is none is a mistake.
fn allow_keys(settings: &mut Settings) -> Vec<[u8; 32]> {
    let mut keys = Vec::new();
    for text in settings.texts("node.allow_keys") {
        match unhex(text.as_bytes()).or_else(|| unbase64(text.as_bytes())) {
            Some(key) => keys.push(key),
            None => {
                let shown = plain(&text);
                let message = format!(
                    r#""{shown}" is no Ed25519 public key; write its 32 bytes as 64 hex digits or in base64"#
                );
                settings.mistake_of("node.allow_keys", message);
            }
        }
    }
    keys
}

fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(text.chunks(2)) {
        for &digit in pair {
            *byte = *byte << 4 | char::from(digit).to_digit(16)? as u8;
        }
    }
    Some(key)
}

/// 43 digits of six bits, the last two bits of them 0, and a `=` that may be missing.
fn unbase64(text: &[u8]) -> Option<[u8; 32]> {
    let text = text.strip_suffix(b"=").unwrap_or(text);
    if text.len() != 43 {
        return None;
    }
    let mut key = [0; 32];
    let (mut bits, mut count, mut at) = (0_u32, 0, 0);
    for digit in text {
        let digit = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            *key.get_mut(at)? = (bits >> count) as u8;
            at += 1;
        }
    }
    (bits & 0b11 == 0).then_some(key)
}

/// Says what the role would do, in lines for an operator.
pub(super) fn show(config: &Config, out: &mut String) {
    // Writing to a string fails only where memory ends.
    let _ = try_show(config, out);
}

fn try_show(node: &Config, out: &mut String) -> fmt::Result {
    if node.listen.is_empty() {
        return writeln!(out, "node: off");
    }
    let listen: Vec<_> = node.listen.iter().map(ToString::to_string).collect();
    let keys = match node.allow_keys.len() {
        0 => "every node is served".to_owned(),
        count => format!("signed by one of {count} keys"),
    };
    writeln!(out, "node: on {}; {keys}", listen.join(", "))?;
    let mut row = |name: &str, value: String| writeln!(out, "  {name:<24}{value}");
    row("public_ip", node.public_ip.to_string())?;
    row("bind_ip", node.bind_ip.to_string())?;
    row("ports", show_ports(&node.ports))?;
    row("network_id", node.network_id.to_string())?;
    row("lease", show_duration(node.lease))?;
    row("keepalive_timeout", show_duration(node.keepalive_timeout))?;
    row("max_frame", show_size(u64::from(node.max_frame)))?;
    row("max_visitors", node.max_visitors.to_string())?;
    row("max_unregistered", node.max_unregistered.to_string())?;
    row("max_frame_memory", show_size(node.max_frame_memory as u64))?;
    node.terms.show(&mut row)
}

/// The node role's keys.
pub const KEYS: &[Key] = &join::<{ OWN.len() + TERMS }>(OWN, &TERM_KEYS);

const TERM_KEYS: [Key; TERMS] = terms_keys!("node");

const OWN: &[Key] = &[
    Key::new(
        "node.listen",
        Kind::Addresses,
        "127.0.0.1:7200",
        "where nodes come; off where a configuration file names no address",
    )
    .flag("node"),
    Key::new(
        "node.public_ip",
        Kind::Ip,
        "127.0.0.1",
        "the address that nodes are told, of the server and of themselves",
    )
    .flag("node-public-ip"),
    Key::new(
        "node.bind_ip",
        Kind::Ip,
        "127.0.0.1",
        "where the leased ports listen",
    )
    .flag("node-bind-ip"),
    Key::new(
        "node.ports",
        Kind::Ports,
        "20000-29999",
        "the ports that are lent to nodes",
    )
    .flag("node-ports")
    .fixed(),
    Key::new(
        "node.network_id",
        Kind::Count {
            least: 0,
            most: u32::MAX as u64,
        },
        "1564141146",
        "which network's frames are taken",
    )
    .flag("node-network-id"),
    Key::new(
        "node.lease",
        Kind::Time {
            least: Duration::from_secs(1),
            most: Duration::from_secs(366 * 24 * 3600),
        },
        "180m",
        "how long a node that has left keeps its address",
    )
    .flag("node-lease")
    .fixed(),
    Key::new(
        "node.keepalive_timeout",
        Kind::Time {
            least: Duration::from_millis(100),
            most: Duration::from_secs(24 * 3600),
        },
        "180s",
        "how long a node may send neither Keepalive nor request",
    )
    .flag("node-keepalive-timeout"),
    Key::new(
        "node.max_frame",
        Kind::Size {
            least: 1024,
            most: 1 << 30,
        },
        "16M",
        "longest body of a frame",
    )
    .flag("node-max-frame")
    .fixed(),
    Key::new(
        "node.max_visitors",
        Kind::Count {
            least: 1,
            most: 1_000_000,
        },
        "1024",
        "connections to one node's address at a time",
    )
    .flag("node-max-visitors"),
    Key::new(
        "node.max_unregistered",
        Kind::Count {
            least: 1,
            most: 1_000_000,
        },
        "1024",
        "connections of each core that have not registered; one more closes the oldest",
    )
    .flag("node-max-unregistered"),
    Key::new(
        "node.max_frame_memory",
        Kind::Size {
            least: 1024,
            most: 1 << 40,
        },
        "64M",
        "memory of each core for frames over 128K",
    )
    .flag("node-max-frame-memory")
    .fixed(),
    Key::new(
        "node.allow_keys",
        Kind::Texts,
        "",
        "Ed25519 public keys of the nodes that are served, which then must sign; none serves all",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29";
    const BASE64: &str = "TLWr9q15+/WrvMr8wmnYXNJlHtS4hbWGnyQa7fCluik=";

    #[test]
    fn a_key_is_the_same_in_hex_and_in_base64() {
        let key = unhex(HEX.as_bytes()).unwrap();
        assert_eq!(key[..3], [0x4c, 0xb5, 0xab]);
        assert_eq!(unhex(HEX.to_uppercase().as_bytes()), Some(key));
        assert_eq!(unbase64(BASE64.as_bytes()), Some(key));
        assert_eq!(unbase64(BASE64.trim_end_matches('=').as_bytes()), Some(key));
        let url: String = BASE64.replace('+', "-").replace('/', "_");
        assert_eq!(unbase64(url.as_bytes()), Some(key));
    }

    #[test]
    fn what_is_no_key_is_none() {
        for text in [
            "",
            &HEX[1..],
            &HEX.replace('4', "g"),
            "==",
            &BASE64.replace("ik=", "il="),
        ] {
            assert_eq!(unhex(text.as_bytes()), None, "{text}");
            assert_eq!(unbase64(text.as_bytes()), None, "{text}");
        }
    }
}
