//! Which destinations a hop dials for others. Pure: it sees rules and addresses, resolves nothing and
//! opens nothing.
//!
//! What is judged is the address that would be dialled, after the look-up, so that no name can lead
//! to where its address may not. An IPv6 address that stands for an IPv4 one is judged as that one.
//!
//! | destination | is permitted by |
//! |---|---|
//! | what `deny` names | nothing |
//! | a listener of this server | a rule with exactly its address, or `localhost`, and its port |
//! | a guarded address | a rule that names it as an address: IP, NET or `localhost` |
//! | any other | a rule that names it as an address, by the name that was asked for, or `*` |
//!
//! Guarded are the addresses of [`GUARDED_V4`] and [`GUARDED_V6`]: this host, its neighbours, and what
//! is no single host at all.

mod rule;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};

pub use rule::Rule;

/// What may be dialled.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    own: Vec<SocketAddr>,
    local: Vec<IpAddr>,
}

impl Policy {
    /// The rules of the configuration, the addresses of all listeners of this server, as they were
    /// bound, and the addresses of this host.
    pub fn new(
        allow: Vec<Rule>,
        deny: Vec<Rule>,
        own: Vec<SocketAddr>,
        local: Vec<IpAddr>,
    ) -> Policy {
        Policy {
            allow,
            deny,
            own: own.into_iter().map(whole).collect(),
            local: local.into_iter().map(unwrapped).collect(),
        }
    }

    /// Whether `address` may be dialled for one who asked for `host`, a name or an address in text.
    pub fn permits(&self, host: &str, address: SocketAddr) -> bool {
        let (given, port) = (address.ip(), address.port());
        let ip = unwrapped(given);
        if port == 0 || self.deny.iter().any(|r| r.bars(host, given, ip, port)) {
            return false;
        }
        let mut allow = self.allow.iter();
        if self.is_own(ip, port) {
            allow.any(|rule| rule.is_exactly(ip, port))
        } else if is_guarded(given) || is_guarded(ip) {
            allow.any(|rule| rule.opens(ip, port))
        } else {
            allow.any(|rule| rule.covers(host, given, ip, port))
        }
    }

    /// True when a listener of this server would be reached. A listener on every interface is
    /// reached by each address of this host, and dialling the unspecified address reaches this host.
    fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        let here = ip.is_loopback() || self.local.contains(&ip);
        self.own.iter().any(|own| {
            let reached =
                own.ip() == ip || own.ip().is_unspecified() && here || ip.is_unspecified();
            own.port() == port && reached
        })
    }
}

/// True for an address that only a rule by address opens.
fn is_guarded(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => GUARDED_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => GUARDED_V6.iter().any(|net| net.contains(&ip)),
    }
}

/// The IPv4 address that an IPv6 one stands for, where it does.
fn unwrapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => embedded(v6).map_or(ip, IpAddr::V4),
    }
}

fn whole(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(unwrapped(address.ip()), address.port())
}

fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        // The unspecified and the loopback address are no IPv4 ones.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Compatible, mapped, translated, and by NAT64.
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        // By 6to4.
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

const fn v4(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

const fn v6(a: u16, b: u16, c: u16, last: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last), length)
}

/// Guarded IPv4 addresses.
pub const GUARDED_V4: &[Ipv4Net] = &[
    v4(0, 0, 0, 8),       // this host on this network
    v4(10, 0, 0, 8),      // private
    v4(100, 64, 0, 10),   // shared by a provider's customers
    v4(127, 0, 0, 8),     // loopback
    v4(169, 254, 0, 16),  // link-local, and the metadata of clouds
    v4(172, 16, 0, 12),   // private
    v4(192, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 24),    // documentation
    v4(192, 168, 0, 16),  // private
    v4(198, 18, 0, 15),   // benchmarking
    v4(198, 51, 100, 24), // documentation
    v4(203, 0, 113, 24),  // documentation
    v4(224, 0, 0, 4),     // multicast
    v4(240, 0, 0, 4),     // reserved, and broadcast
];

/// Guarded IPv6 addresses.
pub const GUARDED_V6: &[Ipv6Net] = &[
    v6(0, 0, 0, 0, 128),         // unspecified
    v6(0, 0, 0, 1, 128),         // loopback
    v6(0x64, 0xff9b, 1, 0, 48),  // a network's own translation to IPv4
    v6(0x100, 0, 0, 0, 64),      // discarded
    v6(0x2001, 2, 0, 0, 48),     // benchmarking
    v6(0x2001, 0xdb8, 0, 0, 32), // documentation
    v6(0x3fff, 0, 0, 0, 20),     // documentation
    v6(0xfc00, 0, 0, 0, 7),      // private
    v6(0xfe80, 0, 0, 0, 10),     // link-local
    v6(0xfec0, 0, 0, 0, 10),     // site-local
    v6(0xff00, 0, 0, 0, 8),      // multicast
];
