//! One entry of `allow` or `deny`: a host and its ports, as text and as a question to an address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::unwrapped;
use crate::config::{plain, ports};

/// An entry of `allow` or `deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    host: Host,
    /// Never empty; 0 is in it only when all ports are.
    ports: RangeInclusive<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    Net(IpNet),
    /// `localhost`, which stands for addresses and for nothing that a name server says.
    Localhost,
    /// In lower case, without a point at its end.
    Name(Box<str>),
    /// Every name below this one, which is written like a [`Host::Name`].
    Below(Box<str>),
}

impl Rule {
    /// True when it speaks of what was asked for as `host`, and resolved to `plain`, which leads to
    /// `ip`.
    pub(super) fn covers(&self, host: &str, plain: IpAddr, ip: IpAddr, port: u16) -> bool {
        let meant = match &self.host {
            Host::Any => true,
            Host::Net(net) => net.contains(&plain) || net.contains(&ip),
            Host::Localhost => ip.is_loopback(),
            Host::Name(name) => same(bare(host), name),
            Host::Below(name) => is_below(bare(host), name),
        };
        meant && self.ports.contains(&port)
    }

    /// As [`Rule::covers`], for a refusal: the name alone is enough.
    pub(super) fn bars(&self, host: &str, plain: IpAddr, ip: IpAddr, port: u16) -> bool {
        let named = self.host == Host::Localhost && same(bare(host), LOCALHOST);
        self.covers(host, plain, ip, port) || named && self.ports.contains(&port)
    }

    /// True when it names the address that `ip` is as an address.
    pub(super) fn opens(&self, ip: IpAddr, port: u16) -> bool {
        let named = match &self.host {
            Host::Net(net) => net.contains(&ip),
            Host::Localhost => ip.is_loopback(),
            Host::Any | Host::Name(_) | Host::Below(_) => false,
        };
        named && self.ports.contains(&port)
    }

    /// True when it names this one address and this one port.
    pub(super) fn is_exactly(&self, ip: IpAddr, port: u16) -> bool {
        let one = match &self.host {
            Host::Net(net) => net.prefix_len() == net.max_prefix_len(),
            Host::Localhost => true,
            Host::Any | Host::Name(_) | Host::Below(_) => false,
        };
        one && self.ports == (port..=port) && self.opens(ip, port)
    }
}

/// What is wrong is said in one sentence.
impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Rule, String> {
        let (host, port) = split(text)?;
        let ports = match port {
            "*" => 0..=u16::MAX,
            range => ports(range)?,
        };
        let host = match host {
            Written::Net(address, length) => Host::Net(net(text, address, length)?),
            Written::Word("*") => Host::Any,
            Written::Word(word) => match word.strip_prefix("*.") {
                Some(name) => Host::Below(name_of(text, name)?),
                None => match name_of(text, word)? {
                    name if &*name == LOCALHOST => Host::Localhost,
                    name => Host::Name(name),
                },
            },
        };
        Ok(Rule { host, ports })
    }
}

/// As it is written, in the shortest form.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => f.write_str("*")?,
            Host::Localhost => f.write_str(LOCALHOST)?,
            Host::Name(name) => f.write_str(name)?,
            Host::Below(name) => write!(f, "*.{name}")?,
            Host::Net(net) => {
                let (address, whole) = (net.addr(), net.prefix_len() == net.max_prefix_len());
                match (address, whole) {
                    (IpAddr::V4(ip), true) => write!(f, "{ip}")?,
                    (IpAddr::V6(ip), true) => write!(f, "[{ip}]")?,
                    (IpAddr::V4(_), false) => write!(f, "{net}")?,
                    (IpAddr::V6(_), false) => write!(f, "[{net}]")?,
                }
            }
        }
        match (self.ports.start(), self.ports.end()) {
            (0, _) => f.write_str(":*"),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

/// A rule's host as far as its marks tell.
enum Written<'a> {
    /// An address, and what stands behind its slash.
    Net(IpAddr, Option<&'a str>),
    /// `*`, `*.name` or a name.
    Word(&'a str),
}

/// Tells host and port apart.
fn split(text: &str) -> Result<(Written<'_>, &str), String> {
    let shown = plain(text);
    let wrong = || {
        format!(
            r#""{shown}" is no rule; write a host and its ports, like "*:*", "10.0.0.0/8:443", "[fd00::/8]:*", "*.example.com:8000-8099" or "db.internal:5432""#
        )
    };
    if let Some(inside) = text.strip_prefix('[') {
        let (inside, rest) = inside.split_once(']').ok_or_else(wrong)?;
        let (outer, port) = rest.split_once(':').ok_or_else(wrong)?;
        let (address, length) = match (inside.split_once('/'), outer.strip_prefix('/')) {
            (Some((address, length)), None) if outer.is_empty() => (address, Some(length)),
            (None, Some(length)) => (inside, Some(length)),
            (None, None) if outer.is_empty() => (inside, None),
            _ => return Err(wrong()),
        };
        let address: Ipv6Addr = address.parse().map_err(|_| {
            let shown = plain(address);
            format!(r#""{shown}" in brackets is no IPv6 address"#)
        })?;
        return Ok((Written::Net(address.into(), length), port));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(match text.is_empty() {
            true => wrong(),
            false => format!(r#""{shown}" has no port; write "{shown}:*" for all of them"#),
        });
    };
    let (address, length) = match host.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (host, None),
    };
    if host.contains(':') {
        let whole = text.parse::<Ipv6Addr>().map(|ip| format!("[{ip}]:*"));
        let whole = whole.unwrap_or_else(|_| format!("[{}]:{}", plain(host), plain(port)));
        return Err(format!(
            r#"the IPv6 address of "{shown}" needs brackets; write "{whole}""#
        ));
    }
    match (address.parse::<IpAddr>(), length) {
        (Ok(address), length) => Ok((Written::Net(address, length), port)),
        (Err(_), Some(_)) => Err(format!(
            r#""{}" is no IP address, and only such a one has a length behind it"#,
            plain(address)
        )),
        (Err(_), None) => Ok((Written::Word(host), port)),
    }
}

/// A net whose address is written in another's form becomes the net that is meant.
fn net(text: &str, address: IpAddr, length: Option<&str>) -> Result<IpNet, String> {
    let most = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    let length = match length {
        None => most,
        Some(digits) => {
            let number = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            let length = number.and_then(|digits| digits.parse().ok());
            length.filter(|length| *length <= most).ok_or_else(|| {
                let (digits, shown) = (plain(digits), plain(text));
                format!(r#"the length "{digits}" of "{shown}" is not one of 0 to {most}"#)
            })?
        }
    };
    let net = match (address, length) {
        (address, length) if length == most => IpNet::from(unwrapped(address)),
        (IpAddr::V6(ip), MAPPED..) if ip.to_ipv4_mapped().is_some() => {
            let ip = ip
                .to_ipv4_mapped()
                .unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
            IpNet::V4(Ipv4Net::new(ip, length - MAPPED).map_err(|error| error.to_string())?)
        }
        (address, length) => IpNet::new(address, length).map_err(|error| error.to_string())?,
    };
    // What a mask cuts off was surely meant for something, but nobody can tell for what.
    match net.trunc() {
        trunc if trunc == net => Ok(net),
        trunc => Err(format!(
            r#""{}" has bits set beyond its length; write "{trunc}", or the address alone"#,
            plain(text)
        )),
    }
}

fn name_of(text: &str, name: &str) -> Result<Box<str>, String> {
    let name = bare(name);
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    let shown = plain(text);
    if name.len() > LONGEST_NAME || !name.split('.').all(is_label) {
        return Err(format!(
            r#"the host of "{shown}" is neither an address nor a name, such as "example.com", "*.example.com" or "*""#
        ));
    }
    // Programs take "127.1" or "0x7f.1" for addresses; what they mean by it is checked as such.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(format!(
            r#"the host of "{shown}" is no whole address; write all four numbers, or a net like "10.0.0.0/8""#
        ));
    }
    Ok(name.to_ascii_lowercase().into())
}

/// A name without the point that may stand at its end.
fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn same(host: &str, name: &str) -> bool {
    host.eq_ignore_ascii_case(name)
}

fn is_below(host: &str, name: &str) -> bool {
    let (host, name) = (host.as_bytes(), name.as_bytes());
    let Some(at) = host.len().checked_sub(name.len()).filter(|at| *at > 1) else {
        return false;
    };
    let (front, back) = host.split_at(at);
    front.ends_with(b".") && back.eq_ignore_ascii_case(name)
}

const LOCALHOST: &str = "localhost";

/// The bits in front of an IPv4 address that is written as an IPv6 one.
const MAPPED: u8 = 96;

/// The longest name that the domain name system can carry.
const LONGEST_NAME: usize = 253;
