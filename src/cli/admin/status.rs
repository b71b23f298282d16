//! The status as tables for a person, at most 80 columns wide.

use std::fmt::{self, Write};

use serde_json::Value;

use crate::config::plain;

/// The whole of `towpath status`.
pub(super) fn show(status: &Value, address: &str) -> String {
    let mut out = String::new();
    // Writing to a text fails only where memory ends.
    let _ = try_show(&mut out, status, address);
    out
}

fn try_show(out: &mut String, status: &Value, address: &str) -> fmt::Result {
    let (version, phase) = (text(&status["version"]), text(&status["phase"]));
    let up = time(status["uptime_seconds"].as_f64().unwrap_or(0.0));
    let (pid, address) = (number(&status["pid"]), plain(address));
    writeln!(
        out,
        "towpath {version} at {address}: {phase}, pid {pid}, up {up}"
    )?;
    let (sessions, conns) = (number(&status["sessions"]), &status["connections"]);
    let [open, used, max] = ["open", "used", "max"].map(|key| number(&conns[key]));
    writeln!(
        out,
        "{sessions} sessions, {open} connections open, {used} of {max} places taken"
    )?;
    writeln!(out)?;
    roles(out, list(&status["roles"]))?;
    listeners(out, list(&status["listeners"]))?;
    cores(out, list(&status["workers"]))?;
    pools(out, list(&status["leases"]))?;
    let (routes, store) = (number(&status["routes"]), &status["store"]);
    let (values, size) = (number(&store["records"]), number(&store["bytes"]));
    let size = bytes(size as f64);
    writeln!(out, "\nstore: {values} values, {size}; routes: {routes}")?;
    if status["partial"].as_bool() == Some(true) {
        writeln!(
            out,
            "the control thread has not answered: its part is missing"
        )?;
    }
    Ok(())
}

fn roles(out: &mut String, roles: &[Value]) -> fmt::Result {
    let mut row = |name: &str, figures: [&str; 5], why: &str| {
        let [open, begun, ended, up, down] = figures;
        writeln!(
            out,
            "{:<16}{open:>9}{begun:>10}{ended:>10}{up:>8}{down:>8}  {}",
            cut(name, 15),
            cut(why, 17)
        )
    };
    let heads = ["OPEN", "BEGUN", "ENDED", "UP", "DOWN"];
    row("ROLE", heads, "MOST BY")?;
    for role in roles {
        let reasons = role["ended"].as_object().into_iter().flatten();
        let mut ended = 0;
        let mut most = (0, String::new());
        for (word, count) in reasons {
            let count = number(count);
            ended += count;
            if count > most.0 {
                most = (count, format!("{} {count}", plain(word)));
            }
        }
        let [open, begun] = ["open", "opened"].map(|key| number(&role[key]).to_string());
        let [up, down] = ["bytes_up", "bytes_down"].map(|key| bytes(number(&role[key]) as f64));
        let ended = ended.to_string();
        let figures = [&open, &begun, &ended, &up, &down].map(String::as_str);
        row(&text(&role["role"]), figures, &most.1)?;
    }
    Ok(())
}

fn listeners(out: &mut String, listeners: &[Value]) -> fmt::Result {
    writeln!(out, "\n{:<28}ADDRESS", "LISTENER")?;
    for listener in listeners {
        let [name, address, transport] =
            ["name", "address", "transport"].map(|key| text(&listener[key]));
        writeln!(out, "{:<28}{address} {transport}", cut(&name, 27))?;
    }
    Ok(())
}

fn cores(out: &mut String, cores: &[Value]) -> fmt::Result {
    writeln!(
        out,
        "\n{:<6}{:>10}{:>13}{:>9}{:>10}{:>11}{:>9}",
        "CORE", "SESSIONS", "CONNECTIONS", "RELAYS", "BUFFERS", "ACCEPTED", "SHED"
    )?;
    for core in cores {
        let [at, sessions, connections] =
            ["core", "sessions", "connections"].map(|key| number(&core[key]));
        let [relays, accepted, shed] = ["relays", "accepted", "shed"].map(|key| number(&core[key]));
        let buffers = bytes(number(&core["buffer_bytes"]) as f64);
        writeln!(
            out,
            "{at:<6}{sessions:>10}{connections:>13}{relays:>9}{buffers:>10}{accepted:>11}{shed:>9}"
        )?;
    }
    Ok(())
}

fn pools(out: &mut String, pools: &[Value]) -> fmt::Result {
    if pools.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<20}{:<14}{:>8}{:>8}",
        "LEASES", "PORTS", "LENT", "FREE"
    )?;
    for pool in pools {
        let [first, last, lent, free] =
            ["first", "last", "leased", "free"].map(|key| number(&pool[key]));
        let (name, ports) = (text(&pool["pool"]), format!("{first}-{last}"));
        writeln!(out, "{:<20}{ports:<14}{lent:>8}{free:>8}", cut(&name, 19))?;
    }
    Ok(())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// What a reload has changed, or would.
pub(super) fn difference(value: &Value) -> String {
    let mut out = String::new();
    for change in list(&value["changes"]) {
        out += &text(&change["text"]);
        match change["connections"].as_u64() {
            Some(1) => out += " (1 connection drains)",
            Some(count) => out += &format!(" ({count} connections drain)"),
            None => {}
        }
        out.push('\n');
    }
    for held in list(&value["needs_restart"]) {
        out += &format!("{}\n", text(held));
    }
    let (changes, held) = (
        list(&value["changes"]).len(),
        list(&value["needs_restart"]).len(),
    );
    let connections = number(&value["connections_affected"]);
    let is_trial = value["dry_run"] == true;
    out += &match (changes + held, is_trial) {
        (0, true) => "nothing would change\n".to_owned(),
        (0, false) => "nothing has changed\n".to_owned(),
        (_, true) => format!(
            "would be in force: {changes}; would need a restart: {held}; connections that would drain: {connections}\n"
        ),
        (_, false) => format!(
            "in force: {changes}; need a restart: {held}; connections that drain: {connections}\n"
        ),
    };
    out
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value as a person reads it: nothing that a terminal would act on.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// At most so many columns of a text.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text
            .chars()
            .take(most.saturating_sub(1))
            .chain(['~'])
            .collect(),
        false => text.to_owned(),
    }
}

/// In at most five columns: `9999B`, `976K`, `1.2G`.
pub(super) fn bytes(count: f64) -> String {
    let mut count = count;
    for unit in ["B", "K", "M", "G", "T", "P"] {
        if count < 9999.5 {
            return match unit {
                "B" => format!("{count:.0}B"),
                _ if count < 99.5 => format!("{count:.1}{unit}"),
                _ => format!("{count:.0}{unit}"),
            };
        }
        count /= 1024.0;
    }
    format!("{count:.1}E")
}

/// In at most seven columns: `59s`, `3m02s`, `2h07m`, `12d03h`.
pub(super) fn time(seconds: f64) -> String {
    let all = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (all / 86_400, all / 3600 % 24, all / 60 % 60);
    match all {
        0..60 => format!("{all}s"),
        60..3600 => format!("{minutes}m{:02}s", all % 60),
        3600..86_400 => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_short() {
        let shown = [0.0, 9999.0, 10_000.0, 1_000_000.0, 5e9, 9e15].map(bytes);
        assert_eq!(shown, ["0B", "9999B", "9.8K", "977K", "4768M", "8185T"]);
        let shown = [0.4, 59.0, 182.0, 7620.0, 1_047_600.0].map(time);
        assert_eq!(shown, ["0s", "59s", "3m02s", "2h07m", "12d03h"]);
        assert_eq!(cut("abcdef", 4), "abc~");
        assert_eq!(cut("abcd", 4), "abcd");
    }

    #[test]
    fn no_line_is_wider_than_a_terminal_and_nothing_reaches_it_raw() {
        let role = json!({
            "role": "gateway-clients", "open": 9_999_999, "opened": 999_999_999_u64,
            "ended": {"protocol_error": 999_999_999_u64, "finished": 3},
            "bytes_up": u64::MAX, "bytes_down": 5,
        });
        let worker = json!({ "core": 255, "sessions": 9_999_999, "buffer_bytes": 1_u64 << 40 });
        let listener = json!({
            "name": "access \u{1b}[31mred and rather a long name", "transport": "tcp",
            "address": "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
        });
        let status = json!({
            "version": "0.1.0", "phase": "serving", "roles": [role], "workers": [worker],
            "listeners": [listener], "leases": [{"pool": "node/tcp", "first": 1, "last": 65535}],
            "partial": true,
        });
        let shown = show(&status, "127.0.0.1:7900");
        assert!(shown.contains("protocol_error 9"), "{shown}");
        assert!(!shown.contains('\u{1b}'));
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
