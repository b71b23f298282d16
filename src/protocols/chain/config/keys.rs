//! The table of the role's keys.

use std::time::Duration;

use super::access::ACCESS;
use super::{KEY, LISTEN};
use crate::config::{BANDWIDTH, Key, Kind, TERMS, join};
use crate::terms_keys;

/// The chain role's keys.
pub const KEYS: &[Key] = &join::<{ OWN.len() + TERMS }>(OWN, &TERM_KEYS);

/// Those of the hop's listeners; each access listener has its own.
pub(super) const TERM_KEYS: [Key; TERMS] = terms_keys!("chain");

const OWN: &[Key] = &[
    Key::new(
        LISTEN,
        Kind::Addresses,
        "127.0.0.1:7300",
        "where the hop takes TCP and UDP; off where a configuration file names no address",
    )
    .flag("chain"),
    Key::new(
        KEY,
        Kind::Secret,
        "",
        "the hop's key, 32 bytes in base64; without one only on loopback, with a key known to all",
    )
    .flag("chain-key-file"),
    Key::new(
        "chain.payload_key",
        Kind::Secret,
        "",
        "key of payload that only the last hop reads, 32 bytes in base64",
    )
    .flag("chain-payload-key-file"),
    Key::new(
        "chain.allow",
        Kind::Texts,
        "*:*",
        "what is dialled: IP:PORT, NET/LEN:PORT, *.name:PORT, name:PORT; private ones by address",
    )
    .flag("chain-allow"),
    Key::new(
        "chain.deny",
        Kind::Texts,
        "",
        "what is never dialled, in the same forms",
    )
    .flag("chain-deny"),
    Key::new(
        "chain.header_timeout",
        TIMEOUT,
        "10s",
        "from accept to the end of the hop's own header",
    )
    .flag("chain-header-timeout"),
    Key::new(
        "chain.dial_timeout",
        TIMEOUT,
        "10s",
        "from the header to the connection to the next hop, look-up included",
    )
    .flag("chain-dial-timeout"),
    Key::new(
        "chain.idle_timeout",
        TIMEOUT,
        "5m",
        "how long a TCP connection may carry nothing either way",
    )
    .flag("chain-idle-timeout"),
    Key::new(
        "chain.half_closed_timeout",
        TIMEOUT,
        "60s",
        "how long a TCP connection may carry nothing when one side has ended",
    )
    .flag("chain-half-closed-timeout"),
    Key::new(
        "chain.udp_idle_timeout",
        TIMEOUT,
        "60s",
        "how long a UDP flow may carry nothing either way",
    )
    .flag("chain-udp-idle-timeout"),
    Key::new(
        "chain.max_flows",
        FLOWS,
        "4096",
        "UDP flows of each core; one more ends the one that was idle longest",
    )
    .flag("chain-max-flows")
    .fixed(),
    Key::new(
        "chain.replay_memory",
        Kind::Size {
            least: 64 << 10,
            most: 1 << 40,
        },
        "256M",
        "memory for the headers that were seen, so that none is taken twice",
    )
    .flag("chain-replay-memory")
    .fixed(),
    Key::new(
        "chain.max_silent",
        Kind::Count {
            least: 0,
            most: 1_000_000,
        },
        "1024",
        "connections of each core that showed no key and are kept without an answer",
    )
    .flag("chain-max-silent"),
    Key::new(
        "chain.bandwidth",
        BANDWIDTH,
        "0",
        "bytes a second each way for all TCP connections of the hop; 0 is no bound",
    )
    .flag("chain-bandwidth"),
    Key::new(
        ACCESS,
        Kind::TableList,
        "",
        "listeners for programs that know nothing of chains, each with its chain",
    ),
];

/// How many UDP flows a core may have.
pub(super) const FLOWS: Kind = Kind::Count {
    least: 1,
    most: 1_000_000,
};

const TIMEOUT: Kind = Kind::Time {
    least: Duration::from_millis(10),
    most: Duration::from_secs(7 * 24 * 3600),
};
