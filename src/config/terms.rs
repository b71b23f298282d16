//! What holds at a listener: who may come, how many, how fast, and whom it believes about whom he
//! comes for. The same keys stand in the table of every role that listens; they are told once, here.

use ipnet::IpNet;

use super::{Item, Key, Kind, Settings, Value, plain};

/// What holds at a role's listeners, or at one that has a table of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Whose connections begin with a PROXY header, which is believed.
    pub accept_proxy: Vec<IpNet>,
    /// Who may come; empty lets everybody.
    pub allow_from: Vec<IpNet>,
    /// Who may not, whatever `allow_from` says.
    pub deny_from: Vec<IpNet>,
    /// Open connections in all; 0 is no bound of its own.
    pub max_connections: usize,
    /// Open connections from one source address; 0 is no bound.
    pub max_connections_per_ip: usize,
    /// New connections a second, and as many at once; 0 is no bound.
    pub connection_rate: usize,
    /// New connections a second from one source address, and as many at once; 0 is no bound.
    pub connection_rate_per_ip: usize,
}

/// How many keys there are.
pub const TERMS: usize = 7;

impl Terms {
    /// Reads the keys of one table, as [`terms_keys`](crate::terms_keys) makes them; mistakes are
    /// left in `settings`.
    pub fn read(settings: &mut Settings, keys: &[Key; TERMS]) -> Terms {
        let [accept, allow, deny, most, most_each, rate, rate_each] = keys;
        Terms {
            accept_proxy: settings.texts_as(accept.path, network),
            allow_from: settings.texts_as(allow.path, network),
            deny_from: settings.texts_as(deny.path, network),
            max_connections: settings.count(most.path),
            max_connections_per_ip: settings.count(most_each.path),
            connection_rate: settings.count(rate.path),
            connection_rate_per_ip: settings.count(rate_each.path),
        }
    }

    /// Reads the keys of a table of the user's own, in the order of [`Terms::NAMES`].
    pub fn of_fields(fields: &[Option<Item>; TERMS], settings: &mut Settings) -> Terms {
        let [accept, allow, deny, most, most_each, rate, rate_each] = fields;
        let [accept_proxy, allow_from, deny_from] = [
            (accept, "accept_proxy"),
            (allow, "allow_from"),
            (deny, "deny_from"),
        ]
        .map(|(item, name)| networks_of(item.as_ref(), name, settings));
        let mut count = |item: &Option<Item>, name, kind: &Kind| {
            let count = item
                .as_ref()
                .map(|item| settings.count_of(item, name, kind));
            count.flatten().unwrap_or_default()
        };
        Terms {
            accept_proxy,
            allow_from,
            deny_from,
            max_connections: count(most, "max_connections", &CONNECTIONS),
            max_connections_per_ip: count(most_each, "max_connections_per_ip", &CONNECTIONS),
            connection_rate: count(rate, "connection_rate", &RATE),
            connection_rate_per_ip: count(rate_each, "connection_rate_per_ip", &RATE),
        }
    }

    /// What the keys are called in their table.
    pub const NAMES: [&'static str; TERMS] = [
        "accept_proxy",
        "allow_from",
        "deny_from",
        "max_connections",
        "max_connections_per_ip",
        "connection_rate",
        "connection_rate_per_ip",
    ];

    /// Lines for an operator, of what is not as it is by default.
    pub fn show(&self, row: &mut dyn FnMut(&str, String) -> std::fmt::Result) -> std::fmt::Result {
        let networks = [&self.accept_proxy, &self.allow_from, &self.deny_from];
        for (name, list) in Self::NAMES.iter().zip(networks) {
            if !list.is_empty() {
                let list: Vec<_> = list.iter().map(ToString::to_string).collect();
                row(name, list.join(", "))?;
            }
        }
        let counts = [
            self.max_connections,
            self.max_connections_per_ip,
            self.connection_rate,
            self.connection_rate_per_ip,
        ];
        for (name, count) in Self::NAMES[3..].iter().zip(counts) {
            if count > 0 {
                row(name, count.to_string())?;
            }
        }
        Ok(())
    }
}

/// Reads a network, `10.0.0.0/8` or `fd00::/8`, or one address alone; one of IPv4 may be written as IPv6
/// has it.
pub fn network(text: &str) -> Result<IpNet, String> {
    let shown = plain(text);
    let wrong = || {
        format!(
            r#""{shown}" is not a network; write it like "10.0.0.0/8", "fd00::/8", or as one address"#
        )
    };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
            return Err(wrong());
        }
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|length| *length <= most)
            .ok_or_else(|| format!(r#"the length of "{shown}" is out of range: 0 to {most}"#))?,
    };
    let network = IpNet::new(address, length).map_err(|_| wrong())?;
    let whole = network.trunc();
    if whole != network {
        return Err(format!(
            r#""{shown}" names an address inside a network; write "{whole}", or "{address}" for it alone"#
        ));
    }
    Ok(plain_form(network))
}

/// An IPv4 network that is written as IPv6 has it, `::ffff:10.0.0.0/104`, is that IPv4 network: peers are
/// compared by their IPv4 address, whichever listener they came by.
fn plain_form(network: IpNet) -> IpNet {
    let (IpNet::V6(six), length @ 96..) = (network, network.prefix_len()) else {
        return network;
    };
    let four = six.addr().to_ipv4_mapped();
    let four = four.and_then(|address| IpNet::new(address.into(), length - 96).ok());
    four.unwrap_or(network)
}

fn networks_of(item: Option<&Item>, name: &str, settings: &mut Settings) -> Vec<IpNet> {
    let Some(item) = item else {
        return Vec::new();
    };
    let items = match &item.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(item),
    };
    let mut networks = Vec::new();
    for item in items {
        let read = match &item.value {
            Value::Text(text) => network(text),
            other => Err(format!(
                r#"wants a list of networks, such as ["10.0.0.0/8"]; found {}"#,
                other.describe()
            )),
        };
        match read {
            Ok(network) => networks.push(network),
            Err(message) => settings.mistake(item.at, format!("`{name}`: {message}")),
        }
    }
    networks
}

/// How who is dialled learns for whom.
pub const SEND_PROXY: Kind = Kind::Choice(&["off", "v1", "v2"]);

/// Beyond ten million sockets no kernel's default tables go.
pub const CONNECTIONS: Kind = Kind::Count {
    least: 0,
    most: 10_000_000,
};

/// More connections a second no host takes.
pub const RATE: Kind = Kind::Count {
    least: 0,
    most: 1_000_000,
};

/// The keys of [`Terms`] in the table of that name, each with its flag.
#[macro_export]
macro_rules! terms_keys {
    ($table:literal) => {{
        use $crate::config::{CONNECTIONS, Key, Kind, RATE};
        [
            Key::new(
                concat!($table, ".accept_proxy"),
                Kind::Texts,
                "",
                "networks whose connections begin with a PROXY header, which is believed",
            )
            .flag(concat!($table, "-accept-proxy")),
            Key::new(
                concat!($table, ".allow_from"),
                Kind::Texts,
                "",
                "networks that may come; none lets everybody",
            )
            .flag(concat!($table, "-allow-from")),
            Key::new(
                concat!($table, ".deny_from"),
                Kind::Texts,
                "",
                "networks that may not come, whatever is allowed",
            )
            .flag(concat!($table, "-deny-from")),
            Key::new(
                concat!($table, ".max_connections"),
                CONNECTIONS,
                "0",
                "open connections of the role; 0 is no bound of its own",
            )
            .flag(concat!($table, "-max-connections")),
            Key::new(
                concat!($table, ".max_connections_per_ip"),
                CONNECTIONS,
                "0",
                "open connections of the role from one source address; 0 is no bound",
            )
            .flag(concat!($table, "-max-connections-per-ip")),
            Key::new(
                concat!($table, ".connection_rate"),
                RATE,
                "0",
                "new connections of the role a second, and as many at once; 0 is no bound",
            )
            .flag(concat!($table, "-connection-rate")),
            Key::new(
                concat!($table, ".connection_rate_per_ip"),
                RATE,
                "0",
                "new connections of the role a second from one source address; 0 is no bound",
            )
            .flag(concat!($table, "-connection-rate-per-ip")),
        ]
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read() {
        for (text, want) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::/8", "fd00::/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), want);
        }
    }

    #[test]
    fn each_slip_in_a_network_has_its_own_answer() {
        for (text, want) in [
            (
                "10.0.0.0/33",
                r#"the length of "10.0.0.0/33" is out of range: 0 to 32"#,
            ),
            (
                "::/129",
                r#"the length of "::/129" is out of range: 0 to 128"#,
            ),
            (
                "10.0.0.0/999999999999",
                r#"the length of "10.0.0.0/999999999999" is out of range: 0 to 32"#,
            ),
            (
                "10.0.0.1/8",
                r#""10.0.0.1/8" names an address inside a network; write "10.0.0.0/8", or "10.0.0.1" for it alone"#,
            ),
        ] {
            assert_eq!(network(text).unwrap_err(), want);
        }
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0/8",
            "010.0.0.0/8",
            "localhost",
            "10.0.0.0/8/8",
            "10.0.0.0 /8",
            "*",
        ] {
            let want = format!(
                r#""{text}" is not a network; write it like "10.0.0.0/8", "fd00::/8", or as one address"#
            );
            assert_eq!(network(text).unwrap_err(), want);
        }
    }

    const KEYS: [Key; TERMS] = crate::terms_keys!("agent");

    fn read(text: &str) -> Result<Terms, Vec<String>> {
        let mut settings = Settings::new(&[&KEYS]);
        settings.read_text(std::path::Path::new("t.toml"), text);
        let terms = Terms::read(&mut settings, &KEYS);
        let told = settings.finish();
        told.map(|_| terms)
            .map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn keys_stand_in_the_order_of_their_names() {
        let names: Vec<_> = KEYS.iter().map(Key::name).collect();
        assert_eq!(names, Terms::NAMES);
        assert_eq!(read("[agent]\n"), Ok(Terms::default()));
        let text = "[agent]\naccept_proxy = ['10.0.0.0/8']\nallow_from = ['::/0']\n\
                    deny_from = ['1.2.3.4']\nmax_connections = 1\nmax_connections_per_ip = 2\n\
                    connection_rate = 3\nconnection_rate_per_ip = 4\n";
        let want = Terms {
            accept_proxy: vec!["10.0.0.0/8".parse().unwrap()],
            allow_from: vec!["::/0".parse().unwrap()],
            deny_from: vec!["1.2.3.4/32".parse().unwrap()],
            max_connections: 1,
            max_connections_per_ip: 2,
            connection_rate: 3,
            connection_rate_per_ip: 4,
        };
        assert_eq!(read(text), Ok(want));
    }

    #[test]
    fn a_mistake_is_told_where_it_stands() {
        let text = "[agent]\nallow_from = ['10.0.0.0/8', '10.0.0.0/33']\n";
        let want = "t.toml:2:29: error: `allow_from`: the length of \"10.0.0.0/33\" is out of range: 0 to 32";
        assert_eq!(read(text), Err(vec![want.to_owned()]));
    }
}
