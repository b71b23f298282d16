//! Says what the role would do, in lines for an operator. No secret is ever among them.

use std::fmt::{self, Display, Write};

use super::{Access, Config, Hops};
use crate::config::{plain, show_bandwidth, show_duration, show_size};
use crate::protocols::chain::wire::Key;

/// Appends the lines.
pub(in crate::protocols::chain) fn show(config: &Config, out: &mut String) {
    // Writing to a string fails only where memory ends.
    let _ = try_show(config, out);
}

fn try_show(config: &Config, out: &mut String) -> fmt::Result {
    hop(config, out)?;
    config.access.iter().try_for_each(|one| access(one, out))
}

fn hop(config: &Config, out: &mut String) -> fmt::Result {
    let is_on = !config.listen.is_empty();
    match is_on {
        true => {
            let (listen, key) = (list(&config.listen), key(config.key.as_ref()));
            writeln!(out, "chain: a hop on {listen}; {key}")?;
        }
        false => writeln!(out, "chain: off")?,
    }
    let mut row = |name: &str, value: String| writeln!(out, "  {name:<24}{value}");
    if is_on || config.access.iter().any(Access::dials_for_clients) {
        row("allow", list(&config.allow))?;
        row("deny", list(&config.deny))?;
    }
    if !is_on {
        return Ok(());
    }
    let payload_key = match config.payload_key {
        Some(_) => "set",
        None => "none",
    };
    row("payload_key", payload_key.to_owned())?;
    row("header_timeout", show_duration(config.header_timeout))?;
    row("dial_timeout", show_duration(config.dial_timeout))?;
    row("idle_timeout", show_duration(config.idle_timeout))?;
    let half_closed = show_duration(config.half_closed_timeout);
    row("half_closed_timeout", half_closed)?;
    row("udp_idle_timeout", show_duration(config.udp_idle_timeout))?;
    row("max_flows", config.max_flows.to_string())?;
    row("replay_memory", show_size(config.replay_memory))?;
    row("max_silent", config.max_silent.to_string())?;
    row("bandwidth", show_bandwidth(config.bandwidth))?;
    config.terms.show(&mut row)
}

fn access(access: &Access, out: &mut String) -> fmt::Result {
    let (name, listen) = (plain(&access.name), list(&access.listen));
    writeln!(out, "access {name}: listens on {listen}")?;
    let several = access.chains.len() > 1;
    for (number, chain) in access.chains.iter().enumerate() {
        if several {
            writeln!(out, "  chain {}, weight {}", number + 1, chain.weight)?;
        }
        hops(chain, several, out)?;
    }
    if several {
        let interval = show_duration(access.probe_interval);
        writeln!(out, "  each chain is probed every {interval}")?;
    }
    if access.bandwidth > 0 {
        let rate = show_bandwidth(access.bandwidth);
        writeln!(out, "  bandwidth {rate}")?;
    }
    if access.early_data {
        writeln!(out, "  payload leaves before the hops have answered")?;
    }
    let to = match access.protocol.is_proxy() {
        true => {
            let users = match access.users.len() {
                0 => "for everybody".to_owned(),
                1 => "for 1 user".to_owned(),
                count => format!("for {count} users"),
            };
            format!("wherever the client says, {users}")
        }
        false => list(&access.to),
    };
    writeln!(out, "  {} -> {to}", access.protocol.word())?;
    if let Some(version) = access.send_proxy {
        writeln!(
            out,
            "  the destination is sent a PROXY header, {}",
            version.name()
        )?;
    }
    let mut row = |name: &str, value: String| writeln!(out, "  {name:<24}{value}");
    access.terms.show(&mut row)
}

fn hops(chain: &Hops, several: bool, out: &mut String) -> fmt::Result {
    let indent = if several { "    " } else { "  " };
    if chain.hops.is_empty() && several {
        writeln!(out, "{indent}straight to the destination")?;
    }
    for (number, hop) in chain.hops.iter().enumerate() {
        let (address, key) = (plain(&hop.address.to_string()), key(hop.key.as_ref()));
        write!(out, "{indent}hop {}: {address}; {key}", number + 1)?;
        let is_last = number + 1 == chain.hops.len();
        let payload = match chain.payload_key {
            Some(_) if is_last => ", payload key set",
            _ => "",
        };
        writeln!(out, "{payload}")?;
    }
    Ok(())
}

fn key(key: Option<&Key>) -> &'static str {
    match key {
        Some(_) => "key set",
        None => "the key that everybody knows",
    }
}

fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| plain(&item.to_string())).collect();
    match items.is_empty() {
        true => "nothing".to_owned(),
        false => items.join(", "),
    }
}
