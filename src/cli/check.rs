//! `towpath check`: says what `serve` would do with the same words. Opens no socket, resolves no
//! name and leaves the store alone.

use std::fmt::{self, Write};
use std::time::Duration;

use super::exit::Failure;
use super::flags::{Command, Environment};
use super::{output, plan};
use crate::config::{Admin, Limits, show_duration, show_size};

/// The command's face.
pub(super) fn command() -> Command {
    Command {
        name: "check",
        usage: "[FLAGS]",
        about: ABOUT,
        groups: plan::groups(),
        examples: EXAMPLES,
    }
}

/// Prints the plan, or fails with every mistake.
pub(super) fn run(request: &plan::Request, environment: Environment<'_>) -> Result<(), Failure> {
    let reading = plan::read(request, environment)
        .map_err(|mistakes| Failure::of_mistakes("check", &mistakes))?;
    let mut text = String::new();
    // Writing to a text fails only where memory ends.
    let _ = show(&mut text, &reading);
    output::print(text.as_bytes())?;
    for warning in &reading.warnings {
        output::say(&format!("warning: {warning}"));
    }
    Ok(())
}

fn show(out: &mut String, reading: &plan::Reading) -> fmt::Result {
    match &reading.file {
        Some(path) => writeln!(out, "configuration: {}", path.display())?,
        None => writeln!(
            out,
            "configuration: the defaults; there is no {}",
            plan::default_file().display()
        )?,
    }
    let core = &reading.plan.core;
    match core.workers {
        0 => write!(out, "workers: one per core")?,
        workers => write!(out, "workers: {workers}")?,
    }
    writeln!(out, "{}", if core.pin { ", pinned" } else { "" })?;
    let mut roles = reading.plan.roles.iter();
    match roles.any(|role| role.store().is_some() || !role.pools().is_empty()) {
        true => writeln!(out, "store: embedded, in {}", core.data_dir.display())?,
        false => writeln!(out, "store: none; no role that is on has a use for it")?,
    }
    limits(out, &core.limits)?;
    admin(out, &core.admin)?;
    for role in &reading.plan.roles {
        role.show(out);
    }
    if let Some(path) = &reading.plan.address_file {
        writeln!(out, "address file: {}", path.display())?;
    }
    Ok(())
}

fn limits(out: &mut String, limits: &Limits) -> fmt::Result {
    let connections = match limits.max_connections {
        0 => "what the file-descriptor limit allows".to_owned(),
        most => most.to_string(),
    };
    let bound = |count: usize| match count {
        0 => "no bound".to_owned(),
        most => most.to_string(),
    };
    writeln!(out, "limits:")?;
    let mut row = |name: &str, value: String| writeln!(out, "  {name:<24}{value}");
    row("max_connections", connections)?;
    row(
        "max_connections_per_ip",
        bound(limits.max_connections_per_ip),
    )?;
    row("connection_rate", bound(limits.connection_rate))?;
    let each = bound(limits.connection_rate_per_ip);
    row("connection_rate_per_ip", each)?;
    let bandwidth = match limits.bandwidth_per_ip {
        0 => "no bound".to_owned(),
        rate => format!("{} a second", show_size(rate)),
    };
    row("bandwidth_per_ip", bandwidth)?;
    row("max_buffer_memory", show_size(limits.max_buffer_memory))?;
    let times: [(&str, Duration); 8] = [
        ("handshake_timeout", limits.handshake_timeout),
        ("connect_timeout", limits.connect_timeout),
        ("idle_timeout", limits.idle_timeout),
        ("user_timeout", limits.user_timeout),
        ("drain_timeout", limits.drain_timeout),
        ("drain_spread", limits.drain_spread),
        ("resolve_ttl", limits.resolve_ttl),
        ("resolve_timeout", limits.resolve_timeout),
    ];
    for (name, time) in times {
        row(name, show_duration(time))?;
    }
    Ok(())
}

fn admin(out: &mut String, admin: &Admin) -> fmt::Result {
    let addresses: Vec<_> = admin.listen.iter().map(ToString::to_string).collect();
    let token = match admin.token {
        Some(_) => "by a token",
        None => "without a token",
    };
    match addresses.is_empty() {
        true => writeln!(out, "admin: off"),
        false => writeln!(out, "admin: on {}, {token}", addresses.join(", ")),
    }
}

const ABOUT: &str = "Reads the configuration as serve would with the same flags and environment, and \
                     prints what serve would do, or every mistake with its place. Opens no socket. \
                     Exits 0, 78 for a mistake in the configuration, or 2 where only flags are \
                     wrong. TOWPATH_TOKEN is what agents must show before an update, as for serve.";

const EXAMPLES: &[&str] = &[
    "towpath check",
    "towpath check --config /etc/towpath.toml && systemctl restart towpath",
];
