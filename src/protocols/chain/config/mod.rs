//! The chain role's keys, and its access listeners. Reading only: what they do is told in the
//! role's own room.
//!
//! A hop without a key uses [`PUBLIC_KEY`], 32 zero bytes that everybody knows, so that clients without a key
//! file can speak with it; it can be had on loopback only. The same is true the other way round: a
//! chain names a key for every hop that is not on loopback.

mod access;
mod hops;
mod keys;
mod show;
#[cfg(test)]
mod tests;
mod users;

use std::net::SocketAddr;
use std::time::Duration;

pub use access::{Access, AccessProtocol};
pub use hops::{Hop, Hops, MOST_HOPS, PUBLIC_KEY, address};
pub use keys::KEYS;
pub(super) use show::show;

use super::policy::Rule;
use super::wire::Key;
use crate::config::{Settings, Terms};

/// The chain role's part of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the hop listens, by TCP and by UDP; empty means that this server is no hop.
    pub listen: Vec<SocketAddr>,
    /// What holds at the hop's listeners.
    pub terms: Terms,
    /// What the hop shares with its clients; none is [`PUBLIC_KEY`].
    pub key: Option<Key>,
    /// What the hop shares with clients for whom it is the last one; none is no payload key.
    pub payload_key: Option<Key>,
    /// What the hop dials.
    pub allow: Vec<Rule>,
    /// What it never dials.
    pub deny: Vec<Rule>,
    /// From accept to the end of the hop's own header.
    pub header_timeout: Duration,
    /// From the header to a connection to the next hop, look-up included.
    pub dial_timeout: Duration,
    /// How long a TCP connection may carry nothing either way.
    pub idle_timeout: Duration,
    /// How long a TCP connection may carry nothing when one side has ended.
    pub half_closed_timeout: Duration,
    /// How long a UDP flow may carry nothing either way.
    pub udp_idle_timeout: Duration,
    /// UDP flows of each core; the one that was idle longest makes room for one more.
    pub max_flows: usize,
    /// Bytes for the nonces that were seen, on all cores together.
    pub replay_memory: u64,
    /// Connections of each core that are kept without an answer, as they showed no key.
    pub max_silent: usize,
    /// Bytes a second, each way, of all the hop's TCP connections together; 0 is no limit.
    pub bandwidth: u64,
    /// The access listeners, in the order of the file.
    pub access: Vec<Access>,
}

impl Config {
    /// Reads the role's keys; mistakes are left in `settings`.
    pub fn read(settings: &mut Settings) -> Config {
        let listen = settings.addresses(LISTEN);
        let mistakes = settings.mistakes();
        let key = hops::key(KEY, settings);
        let is_told = settings.mistakes() > mistakes;
        let mut config = Config {
            listen,
            terms: Terms::read(settings, &keys::TERM_KEYS),
            key,
            payload_key: hops::key("chain.payload_key", settings),
            allow: settings.texts_as("chain.allow", str::parse),
            deny: settings.texts_as("chain.deny", str::parse),
            header_timeout: settings.time("chain.header_timeout"),
            dial_timeout: settings.time("chain.dial_timeout"),
            idle_timeout: settings.time("chain.idle_timeout"),
            half_closed_timeout: settings.time("chain.half_closed_timeout"),
            udp_idle_timeout: settings.time("chain.udp_idle_timeout"),
            max_flows: settings.count("chain.max_flows"),
            replay_memory: settings.size("chain.replay_memory"),
            max_silent: settings.count("chain.max_silent"),
            bandwidth: settings.size("chain.bandwidth"),
            access: Vec::new(),
        };
        let open = config.listen.iter().find(|at| !at.ip().is_loopback());
        if let (Some(address), None) = (open, &config.key)
            && !is_told
        {
            let message = format!(
                "a hop on {address} needs `chain.key`, or everybody may use it; \
                 make one: towpath gen key > hop.key, and write key = {{ file = \"hop.key\" }}"
            );
            settings.mistake_of(LISTEN, message);
        }
        config.access = access::read(&config, settings);
        config
    }
}

const LISTEN: &str = "chain.listen";

const KEY: &str = "chain.key";
