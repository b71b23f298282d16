//! The access listeners: what each takes, and where it leads.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::hops::{self, Chains, Hops};
use super::{Config, keys, users};
use crate::config::{Item, Kind, Position, SEND_PROXY, Settings, TERMS, Terms, Traffic, Value};
use crate::protocols::chain::users::User;
use crate::upstream::Target;
use crate::wire::proxy::Version;

/// A listener for programs that know nothing of chains.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// What the log and the address file call it; no two have the same.
    pub name: Box<str>,
    /// Where it listens; never empty in a configuration without mistakes.
    pub listen: Vec<SocketAddr>,
    /// What its clients speak.
    pub protocol: AccessProtocol,
    /// Where its connections or flows go, in turn; empty where clients say it themselves, and only
    /// there.
    pub to: Vec<Target>,
    /// The chains that lead there; never empty.
    pub chains: Vec<Hops>,
    /// Whether payload leaves with the headers, before any hop has answered.
    pub early_data: bool,
    /// Who may use it; empty lets everybody.
    pub users: Vec<User>,
    /// How often each chain is tried, where there are several.
    pub probe_interval: Duration,
    /// UDP flows of each core.
    pub max_flows: usize,
    /// Bytes a second, each way, of all its TCP connections together; 0 is no limit.
    pub bandwidth: u64,
    /// How the destination learns who the client is.
    pub send_proxy: Option<Version>,
    /// What holds at the listener.
    pub terms: Terms,
}

/// What the clients of an access listener speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessProtocol {
    /// Nothing: each connection is a stream to the destination.
    #[default]
    Tcp,
    /// Nothing: each sender's datagrams are a flow to the destination.
    Udp,
    /// SOCKS5, which says where to.
    Socks5,
    /// HTTP CONNECT, which says where to.
    Http,
}

impl AccessProtocol {
    /// As the configuration and the log call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Socks5 => "socks5",
            Self::Http => "http",
        }
    }

    /// True when its clients say where they want to go.
    pub fn is_proxy(self) -> bool {
        matches!(self, Self::Socks5 | Self::Http)
    }

    fn of(word: &str) -> Self {
        let all = [Self::Tcp, Self::Udp, Self::Socks5, Self::Http];
        let known = all.into_iter().find(|known| known.word() == word);
        known.unwrap_or_default()
    }
}

impl Access {
    /// A listener whose every connection goes straight to one of these destinations, in turn.
    pub fn tcp(name: &str, listen: Vec<SocketAddr>, to: Vec<Target>) -> Access {
        Access {
            name: name.into(),
            listen,
            protocol: AccessProtocol::Tcp,
            to,
            chains: vec![hops::straight()],
            early_data: false,
            users: Vec::new(),
            probe_interval: PROBE_INTERVAL,
            max_flows: 1,
            bandwidth: 0,
            send_proxy: None,
            terms: Terms::default(),
        }
    }

    /// True when what a client names may be dialled from this very server, so that its policy
    /// decides.
    pub fn dials_for_clients(&self) -> bool {
        self.protocol.is_proxy() && self.chains.iter().any(|chain| chain.hops.is_empty())
    }
}

/// The role's access listeners; mistakes are left in `settings`.
pub(super) fn read(config: &Config, settings: &mut Settings) -> Vec<Access> {
    let mut access: Vec<Access> = Vec::new();
    for item in settings.table_list(ACCESS) {
        let Some((at, found)) = Fields::read(&item, config, settings) else {
            continue;
        };
        if access.iter().any(|known| known.name == found.name) {
            let message = format!("an access listener above is \"{}\", too", found.name);
            mistake(settings, at, "name", &message);
        }
        access.push(found);
    }
    access
}

/// What a listener may have, as far as the file gives it.
struct Fields {
    at: Position,
    /// None where what is there is no protocol: then nothing is said about what goes with it.
    protocol: Option<AccessProtocol>,
    to: Option<Item>,
    early_data: Option<Item>,
    users: Option<Item>,
    open: Option<Item>,
    probe_interval: Option<Item>,
    max_flows: Option<Item>,
    bandwidth: Option<Item>,
    send_proxy: Option<Item>,
    terms: [Option<Item>; TERMS],
}

impl Fields {
    /// One listener and where its name stands; none where nothing can be said about it any more.
    fn read(item: &Item, config: &Config, settings: &mut Settings) -> Option<(Position, Access)> {
        let [
            name,
            listen,
            via,
            protocol,
            to,
            chains,
            payload_key,
            early_data,
            users,
            open,
            probe_interval,
            max_flows,
            bandwidth,
            send_proxy,
            terms @ ..,
        ] = settings.fields(item, NAMES, EXAMPLE)?;
        let protocol = match protocol {
            Some(item) => settings.choice_of(&item, "protocol", &SPOKEN),
            None => Some("tcp"),
        };
        let at = name.as_ref().map_or(item.at, |name| name.at);
        // All are read before any is missed, so that the mistakes of all are told.
        for (key, field) in [("name", &name), ("listen", &listen)] {
            if field.is_none() {
                missing(item.at, key, settings);
            }
        }
        let fields = Fields {
            at: item.at,
            protocol: protocol.map(AccessProtocol::of),
            to,
            early_data,
            users,
            open,
            probe_interval,
            max_flows,
            bandwidth,
            send_proxy,
            terms,
        };
        let name = name.and_then(|name| read_name(&name, settings));
        let listen = fields.listen(listen, settings);
        let chains = Chains {
            via,
            payload_key,
            several: chains,
        };
        let chains = chains.read(settings);
        fields.check_chains(&chains, &listen, settings);
        let access = Access {
            name: name.unwrap_or_default(),
            protocol: fields.protocol.unwrap_or_default(),
            to: fields.destinations(&listen, &chains, settings),
            early_data: fields.early_data(&chains, settings),
            users: fields.users(&listen, settings),
            probe_interval: fields.probe_interval(&chains, settings),
            max_flows: fields.max_flows(config, settings),
            bandwidth: fields.bandwidth(settings),
            send_proxy: fields.send_proxy(settings),
            terms: fields.terms(settings),
            listen,
            chains,
        };
        (!access.name.is_empty()).then_some((at, access))
    }

    fn listen(&self, item: Option<Item>, settings: &mut Settings) -> Vec<SocketAddr> {
        let traffic = match self.protocol {
            Some(AccessProtocol::Udp) => Traffic::Datagrams,
            _ => Traffic::Streams,
        };
        let listen = item.map(|item| settings.addresses_of(&item, "listen", traffic, ACCESS));
        listen.unwrap_or_default()
    }

    /// What goes wrong between a chain and the rest, wherever in the chain it stands.
    fn check_chains(&self, chains: &[Hops], listen: &[SocketAddr], settings: &mut Settings) {
        for chain in chains {
            if let Some(first) = chain.hops.first()
                && leads_back(&first.address, listen)
            {
                let message = format!(
                    "the first hop, {}, is this very listener; it would dial itself",
                    first.address
                );
                settings.mistake(self.at, message);
            }
        }
    }

    fn destinations(
        &self,
        listen: &[SocketAddr],
        chains: &[Hops],
        settings: &mut Settings,
    ) -> Vec<Target> {
        let is_direct = chains.iter().any(|chain| chain.hops.is_empty());
        match (&self.to, self.protocol) {
            (None, Some(AccessProtocol::Tcp | AccessProtocol::Udp)) => {
                missing(self.at, "to", settings);
                Vec::new()
            }
            (Some(item), Some(protocol)) if protocol.is_proxy() => {
                let word = protocol.word();
                let message = format!("a client of \"{word}\" says where to; leave it out");
                mistake(settings, item.at, "to", &message);
                Vec::new()
            }
            (Some(item), _) => {
                let has_hops = chains.iter().any(|chain| !chain.hops.is_empty());
                let listen = if is_direct { listen } else { &[] };
                targets(item, listen, has_hops, settings)
            }
            (None, _) => Vec::new(),
        }
    }

    fn early_data(&self, chains: &[Hops], settings: &mut Settings) -> bool {
        let Some(item) = &self.early_data else {
            return false;
        };
        let wanted = settings.switch_of(item, "early_data");
        let hindrance = match self.protocol {
            _ if !wanted => None,
            Some(AccessProtocol::Socks5 | AccessProtocol::Http) => {
                Some("a proxy's clients send nothing before they are told of success")
            }
            Some(AccessProtocol::Udp) => Some("a datagram carries its payload anyway"),
            _ if chains.iter().any(|chain| chain.hops.is_empty()) => {
                Some("there is no hop that it could be early for")
            }
            _ if chains.iter().any(|chain| chain.payload_key.is_some()) => {
                Some("with `payload_key` nothing can be sent before the last hop has answered")
            }
            _ => None,
        };
        if let Some(hindrance) = hindrance {
            mistake(settings, item.at, "early_data", hindrance);
        }
        wanted
    }

    fn users(&self, listen: &[SocketAddr], settings: &mut Settings) -> Vec<User> {
        let open = match &self.open {
            Some(item) => settings.switch_of(item, "open"),
            None => false,
        };
        let is_proxy = self.protocol.is_none_or(AccessProtocol::is_proxy);
        for (name, item) in [("users", &self.users), ("open", &self.open)] {
            if let (Some(item), false) = (item, is_proxy) {
                let message = "only \"socks5\" and \"http\" have clients that say who they are";
                mistake(settings, item.at, name, message);
            }
        }
        let users = match &self.users {
            Some(item) => {
                let parted = self.protocol == Some(AccessProtocol::Http);
                users::read(item, parted, settings)
            }
            None => Vec::new(),
        };
        let far = listen.iter().find(|at| !at.ip().is_loopback());
        let is_known = self.protocol.is_some_and(AccessProtocol::is_proxy);
        if let Some(address) = far
            && is_known
            && self.users.is_none()
            && !open
        {
            let message = format!(
                "everybody who reaches {address} could use this proxy; name its `users`, such as \
                 {{ ann = \"her password\" }}, or write open = true"
            );
            settings.mistake(self.at, message);
        }
        users
    }

    fn probe_interval(&self, chains: &[Hops], settings: &mut Settings) -> Duration {
        let Some(item) = &self.probe_interval else {
            return PROBE_INTERVAL;
        };
        if chains.len() < 2 {
            let message = "only several `chains` are probed";
            mistake(settings, item.at, "probe_interval", message);
        }
        let interval = settings.time_of(item, "probe_interval", &PROBE_INTERVALS);
        interval.unwrap_or(PROBE_INTERVAL)
    }

    fn bandwidth(&self, settings: &mut Settings) -> u64 {
        let Some(item) = &self.bandwidth else {
            return 0;
        };
        if self.protocol == Some(AccessProtocol::Udp) {
            let message = "datagrams have no limit; leave it out";
            mistake(settings, item.at, "bandwidth", message);
        }
        settings.bandwidth_of(item, "bandwidth")
    }

    fn max_flows(&self, config: &Config, settings: &mut Settings) -> usize {
        let Some(item) = &self.max_flows else {
            return config.max_flows;
        };
        if matches!(
            self.protocol,
            Some(AccessProtocol::Tcp | AccessProtocol::Http)
        ) {
            let message = "there are flows only where there are datagrams";
            mistake(settings, item.at, "max_flows", message);
        }
        let flows = settings.count_of(item, "max_flows", &keys::FLOWS);
        flows.unwrap_or(config.max_flows)
    }

    fn send_proxy(&self, settings: &mut Settings) -> Option<Version> {
        let item = self.send_proxy.as_ref()?;
        let word = settings.choice_of(item, "send_proxy", &SEND_PROXY)?;
        let version = Version::from_name(word);
        if version.is_some() && self.protocol == Some(AccessProtocol::Udp) {
            mistake(settings, item.at, "send_proxy", NO_CONNECTIONS);
        }
        version
    }

    /// Datagrams have no connections, but they come from somewhere.
    fn terms(&self, settings: &mut Settings) -> Terms {
        if self.protocol == Some(AccessProtocol::Udp) {
            for (item, name) in self.terms.iter().zip(Terms::NAMES) {
                let is_of_sources = matches!(name, "allow_from" | "deny_from");
                if let Some(item) = item.as_ref().filter(|_| !is_of_sources) {
                    mistake(settings, item.at, name, NO_CONNECTIONS);
                }
            }
        }
        Terms::of_fields(&self.terms, settings)
    }
}

/// Notes what is wrong with a field.
pub(super) fn mistake(settings: &mut Settings, at: Position, name: &str, message: &str) {
    settings.mistake(at, format!("`{name}`: {message}"));
}

fn missing(at: Position, name: &str, settings: &mut Settings) {
    let message = format!("no `{name}`; an access listener is {EXAMPLE}");
    settings.mistake(at, message);
}

/// A name goes into log lines and into scripts, so it is one plain word.
fn read_name(item: &Item, settings: &mut Settings) -> Option<Box<str>> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match &item.value {
        Value::Text(name)
            if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_plain) =>
        {
            Some(name.as_str().into())
        }
        other => {
            let message = format!(
                "wants 1 to {LONGEST_NAME} letters, digits, \".\", \"_\" or \"-\", such as \"db\"; \
                 found {}",
                other.describe()
            );
            mistake(settings, item.at, "name", &message);
            None
        }
    }
}

/// One destination, or a list of them that are used in turn; `listen` is where one that is dialled
/// from here must not lead, and where `has_hops`, a header must be able to carry them.
fn targets(
    item: &Item,
    listen: &[SocketAddr],
    has_hops: bool,
    settings: &mut Settings,
) -> Vec<Target> {
    let items = match &item.value {
        Value::List(items) if items.is_empty() => {
            let message = "an empty list; name at least one destination, such as \
                           \"example.com:80\"";
            mistake(settings, item.at, "to", message);
            return Vec::new();
        }
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(item),
    };
    let mut targets = Vec::with_capacity(items.len());
    for item in items {
        let Some((host, port)) = settings.destination_of(item, "to") else {
            continue;
        };
        let host = host.into();
        let target = Target { host, port };
        if let (true, Err(error)) = (has_hops, hops::address(&target)) {
            mistake(settings, item.at, "to", &error.to_string());
        } else if targets.contains(&target) {
            let message = format!("{target} is twice in this list");
            mistake(settings, item.at, "to", &message);
        } else if leads_back(&target, listen) {
            let message = format!("{target} is this very listener; it would dial itself");
            mistake(settings, item.at, "to", &message);
        } else {
            targets.push(target);
        }
    }
    targets
}

/// A listener that dials itself would do so until no descriptor is left. A longer way round is not
/// looked for.
fn leads_back(target: &Target, listen: &[SocketAddr]) -> bool {
    let Ok(ip) = target.host.parse::<IpAddr>() else {
        return false;
    };
    listen.iter().any(|at| {
        let is_all = at.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified());
        at.port() == target.port && (at.ip() == ip || is_all)
    })
}

/// The key that these listeners are.
pub(super) const ACCESS: &str = "chain.access";

const NAMES: [&str; 14 + TERMS] = [
    "name",
    "listen",
    "via",
    "protocol",
    "to",
    "chains",
    "payload_key",
    "early_data",
    "users",
    "open",
    "probe_interval",
    "max_flows",
    "bandwidth",
    "send_proxy",
    Terms::NAMES[0],
    Terms::NAMES[1],
    Terms::NAMES[2],
    Terms::NAMES[3],
    Terms::NAMES[4],
    Terms::NAMES[5],
    Terms::NAMES[6],
];

const NO_CONNECTIONS: &str = "a listener for datagrams has no connections";

const LONGEST_NAME: usize = 64;

const SPOKEN: Kind = Kind::Choice(&["tcp", "udp", "socks5", "http"]);

const PROBE_INTERVAL: Duration = Duration::from_secs(30);

const PROBE_INTERVALS: Kind = Kind::Time {
    least: Duration::from_secs(1),
    most: Duration::from_secs(24 * 3600),
};

/// What an access listener looks like, for the one who wrote another thing.
const EXAMPLE: &str =
    r#"{ name = "db", listen = "127.0.0.1:7310", via = [], to = "db.example:5432" }"#;
