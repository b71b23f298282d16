//! The chains of an access listener: their hops, each with its address and its key.

use super::access::mistake;
use crate::config::{Item, Kind, Secret, Settings, Value};
use crate::protocols::chain::wire::{Address, AddressError, KEY, Key};
use crate::upstream::Target;

/// One of the chains that a listener has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hops {
    /// In the order in which they are passed, [`MOST_HOPS`] at most; none leads straight to the
    /// destination.
    pub hops: Vec<Hop>,
    /// Its share beside the other chains of the listener, from 1 to 1000.
    pub weight: u32,
    /// What the client shares with the last hop for the payload; never there without a hop.
    pub payload_key: Option<Key>,
}

/// One proxy of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    /// Where it is.
    pub address: Target,
    /// What it shares with its clients; none is [`PUBLIC_KEY`].
    pub key: Option<Key>,
}

/// The chains of a listener as far as they can be read; never empty.
pub(super) struct Chains {
    /// `via`, and what stands beside it.
    pub(super) via: Option<Item>,
    pub(super) payload_key: Option<Item>,
    /// The list of several.
    pub(super) several: Option<Item>,
}

impl Chains {
    pub(super) fn read(self, settings: &mut Settings) -> Vec<Hops> {
        let Some(several) = self.several else {
            return vec![chain(self.via, self.payload_key, settings)];
        };
        for (name, item) in [("via", &self.via), ("payload_key", &self.payload_key)] {
            if let Some(item) = item {
                let message = "stands in each of `chains`, not beside them";
                mistake(settings, item.at, name, message);
            }
        }
        let items = match &several.value {
            Value::List(items) if (1..=MOST_CHAINS).contains(&items.len()) => items.as_slice(),
            other => {
                let found = match other {
                    Value::List(items) => format!("{} of them", items.len()),
                    other => other.describe(),
                };
                let message = format!("wants 1 to {MOST_CHAINS} times {CHAIN}; found {found}");
                mistake(settings, several.at, "chains", &message);
                &[]
            }
        };
        let chains = items.iter().filter_map(|item| weighted(item, settings));
        let mut chains: Vec<Hops> = chains.collect();
        if chains.is_empty() {
            chains.push(straight());
        }
        chains
    }
}

/// The chain that has no hop.
pub(super) fn straight() -> Hops {
    Hops {
        weight: 1,
        ..Hops::default()
    }
}

/// One of `chains`.
fn weighted(item: &Item, settings: &mut Settings) -> Option<Hops> {
    let names = ["via", "weight", "payload_key"];
    let [via, weight, payload_key] = settings.fields(item, names, CHAIN)?;
    if via.is_none() {
        settings.mistake(item.at, format!("no `via`; write {CHAIN}"));
    }
    let weight = weight.and_then(|item| settings.count_of(&item, "weight", &WEIGHT));
    let weight = weight.and_then(|weight| u32::try_from(weight).ok());
    Some(Hops {
        weight: weight.unwrap_or(1),
        ..chain(via, payload_key, settings)
    })
}

fn chain(via: Option<Item>, payload_key: Option<Item>, settings: &mut Settings) -> Hops {
    let is_straight = match &via {
        Some(item) => item.value == Value::List(Vec::new()),
        None => true,
    };
    let hops = via.map(|item| hops(&item, settings)).unwrap_or_default();
    let key = match payload_key {
        Some(item) if is_straight && item.value != Value::Text(String::new()) => {
            let message = "is for the last hop, and there is none";
            mistake(settings, item.at, "payload_key", message);
            None
        }
        Some(item) => key_of(&item, "payload_key", settings).unwrap_or_default(),
        None => None,
    };
    Hops {
        hops,
        weight: 1,
        payload_key: key,
    }
}

fn hops(item: &Item, settings: &mut Settings) -> Vec<Hop> {
    let items = match &item.value {
        Value::List(items) if items.len() <= MOST_HOPS => items,
        Value::List(items) => {
            let message = format!("has {} hops; {MOST_HOPS} are the most", items.len());
            mistake(settings, item.at, "via", &message);
            return Vec::new();
        }
        other => {
            let found = other.describe();
            let message = format!("wants a list of hops, such as [{HOP}], or []; found {found}");
            mistake(settings, item.at, "via", &message);
            return Vec::new();
        }
    };
    let hops = items.iter().filter_map(|item| hop(item, settings));
    hops.collect()
}

fn hop(item: &Item, settings: &mut Settings) -> Option<Hop> {
    let [address, key] = settings.fields(item, ["address", "key"], HOP)?;
    let Some(address) = address else {
        settings.mistake(item.at, format!("no `address`; a hop is {HOP}"));
        return None;
    };
    let told = address.at;
    let address = target(address, settings);
    let key = match key {
        Some(item) => key_of(&item, "key", settings),
        None => Ok(None),
    };
    let address = address?;
    if let (Ok(None), false) = (&key, is_loopback(&address)) {
        let message = format!("the hop {address} needs its `key`; a hop is {HOP}");
        settings.mistake(told, message);
    }
    Some(Hop {
        address,
        key: key.unwrap_or_default(),
    })
}

/// Where a hop is; without a port at the usual one.
fn target(mut item: Item, settings: &mut Settings) -> Option<Target> {
    if let Value::Text(text) = &mut item.value {
        let port = text.rsplit_once(':').map(|(_, port)| port);
        // A colon within brackets parts an address.
        if port.is_none_or(|port| port.contains(']')) && !text.is_empty() {
            *text = format!("{text}:{PORT}");
        }
    }
    let (host, port) = settings.destination_of(&item, "address")?;
    let host = host.into();
    let target = Target { host, port };
    if let Err(error) = self::address(&target) {
        mistake(settings, item.at, "address", &error.to_string());
        return None;
    }
    Some(target)
}

fn is_loopback(target: &Target) -> bool {
    match target.host.parse::<std::net::IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => target.host.eq_ignore_ascii_case("localhost"),
    }
}

/// The key of a key of the tables; none where it is not given or wrong.
pub(super) fn key(path: &'static str, settings: &mut Settings) -> Option<Key> {
    let secret = settings.secret(path)?;
    decode(&secret)
        .map_err(|message| settings.mistake_of(path, message))
        .ok()
}

/// A key written in an item, none where it is empty. What is wrong with it is told already.
fn key_of(item: &Item, name: &str, settings: &mut Settings) -> Result<Option<Key>, Told> {
    if item.value == Value::Text(String::new()) {
        return Ok(None);
    }
    let secret = settings.secret_of(item, name).ok_or(Told)?;
    match decode(&secret) {
        Ok(key) => Ok(Some(key)),
        Err(message) => {
            mistake(settings, item.at, name, &message);
            Err(Told)
        }
    }
}

/// A mistake that has been noted.
struct Told;

fn decode(secret: &Secret) -> Result<Key, String> {
    let text = String::from_utf8_lossy(secret.expose());
    let key = Key::from_base64(&text).map_err(|error| {
        format!("wants 32 bytes in base64, such as towpath gen key makes; {error}")
    })?;
    match key == PUBLIC_KEY {
        true => Err("is the key that everybody knows; towpath gen key makes another".to_owned()),
        false => Ok(key),
    }
}

/// A destination or a hop as a header carries it.
pub fn address(target: &Target) -> Result<Address, AddressError> {
    target.to_string().parse()
}

/// The key of a hop without a key, which everybody knows.
pub const PUBLIC_KEY: Key = Key::from_bytes([0; KEY]);

/// Where a hop listens unless it is told otherwise.
const PORT: u16 = 7300;

/// The most hops of one chain.
pub const MOST_HOPS: usize = 16;

/// The most chains of one listener.
const MOST_CHAINS: usize = 16;

const WEIGHT: Kind = Kind::Count {
    least: 1,
    most: 1000,
};

/// What a hop looks like, for the one who wrote another thing.
const HOP: &str = r#"{ address = "hop.example:7300", key = { file = "hop.key" } }"#;

/// What a chain among several looks like.
const CHAIN: &str = "{ via = [...], weight = 1 }";
