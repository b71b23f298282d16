//! The rules: each takes one text and tells what in it breaks the rule.

use crate::source::{Source, imports, words};

pub type Rule = fn(&Source) -> Vec<String>;

/// The floors, in tens. A room imports from lower floors only, and from itself. `upstream` and `runs`
/// are parts that protocols share, half a floor above the contract that they are written in.
const ROOMS: &[(&str, u8)] = &[
    ("sys", 0),
    ("wire", 0),
    ("stats", 0),
    ("config", 0),
    ("buffer", 10),
    ("reactor", 10),
    ("store", 10),
    ("net", 20),
    ("relay", 30),
    ("control", 30),
    ("session", 40),
    ("upstream", 45),
    ("runs", 45),
    ("protocols", 50),
    ("worker", 60),
    ("admin", 70),
    ("server", 70),
    ("cli", 70),
    ("main", 70),
    ("lib", 70),
];

const CONTRACT: u8 = 40;
const HOUSE: u8 = 70;

pub fn opens_with_a_sentence(source: &Source) -> Vec<String> {
    let opens = source.text.starts_with("//! ");
    breach(!opens, || "does not open with a `//!` sentence".into())
}

pub fn is_short(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    breach(lines > 600, || format!("has {lines} lines, more than 600"))
}

pub fn keeps_unsafe_in_sys(source: &Source) -> Vec<String> {
    let code = source.code();
    let mut breaches = Vec::new();
    for (number, line) in code.lines().enumerate() {
        if !words(line).any(|word| word == "unsafe") {
            continue;
        }
        let before: Vec<&str> = source.text.lines().take(number).collect();
        let explained = before.iter().rev().take(6).any(|l| l.contains("SAFETY:"));
        if source.path != "src/sys.rs" {
            breaches.push(format!("line {}: unsafe outside src/sys.rs", number + 1));
        } else if !explained {
            breaches.push(format!("line {}: unsafe without SAFETY", number + 1));
        }
    }
    breaches
}

pub fn keeps_to_its_floor(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else {
        return Vec::new();
    };
    let Some(floor) = floor_of(room) else {
        return vec![format!("room `{room}` stands on no floor; see ROOMS")];
    };
    let mut breaches = Vec::new();
    for path in imports(&source.production(), &source.path) {
        let target = path.first().map(String::as_str).unwrap_or_default();
        let Some(below) = floor_of(target) else {
            continue;
        };
        let sibling = target == "protocols"
            && room == "protocols"
            && path.get(1).map(String::as_str) != source.protocol()
            && source.protocol().is_some();
        let climbs = target != room && below >= floor && floor < HOUSE;
        // The engine has never heard of what stands between it and the contract.
        let strange = room == "worker" && target != room && below > CONTRACT;
        if climbs || sibling || strange {
            breaches.push(format!("imports `{}`", path.join("::")));
        }
    }
    breaches
}

pub fn leaves_the_list_to_the_server(source: &Source) -> Vec<String> {
    let owner = matches!(source.room(), Some("server")) || source.path == "src/protocols/mod.rs";
    let reads = words(&source.production()).any(|word| word == "PROTOCOLS");
    breach(reads && !owner, || "reads the list of protocols".into())
}

/// Protocols own no socket and read no clock; only their blocking clients do.
pub fn keeps_protocols_off_the_system(source: &Source) -> Vec<String> {
    let client = source.path.contains("/client");
    if source.protocol().is_none() {
        return Vec::new();
    }
    let mut banned = vec!["mio", "socket2", "libc"];
    if !client {
        banned.extend([
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "thread",
            "SystemTime",
        ]);
    }
    let code = source.production();
    let mut breaches = uses(&code, &banned);
    if !client && code.contains("Instant::now") {
        breaches.push("reads the clock".into());
    }
    breaches
}

/// Codecs see bytes, nothing else.
pub fn keeps_codecs_pure(source: &Source) -> Vec<String> {
    let codec = source.room() == Some("wire")
        || (source.protocol().is_some() && source.path.contains("/wire"));
    if !codec {
        return Vec::new();
    }
    let banned = [
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "Instant",
        "SystemTime",
        "log",
        "thread",
        "fs",
    ];
    uses(&source.production(), &banned)
}

pub fn keeps_the_engine_room_ignorant(source: &Source) -> Vec<String> {
    if !matches!(source.room(), Some("reactor" | "net")) {
        return Vec::new();
    }
    // `.chain(` is an iterator's, not the protocol's.
    let text = source.text.replace(".chain(", "").to_lowercase();
    let names = [
        "agent", "gateway", "tunnel", "node", "chain", "visitor", "lease",
    ];
    let said = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| {
            names
                .iter()
                .any(|name| *word == *name || *word == format!("{name}s"))
        });
    said.map(|word| format!("says the protocol word `{word}`"))
        .collect()
}

pub fn shares_no_lock(source: &Source) -> Vec<String> {
    let dense: String = source.production().split_whitespace().collect();
    let locked = [
        "Arc<Mutex",
        "Arc<parking_lot::Mutex",
        "Arc<std::sync::Mutex",
    ]
    .iter()
    .any(|lock| dense.contains(lock));
    breach(locked && source.room() != Some("cli"), || {
        "shares a Mutex between threads".into()
    })
}

/// A test that sleeps hopes. Polling for a condition, with a deadline, lives in `tests/support`.
pub fn never_sleeps_in_a_test(source: &Source) -> Vec<String> {
    let code = source.code();
    let tests = match source.path.split('/').next() {
        Some("tests") => code,
        Some("src") => code[source.production().len()..].to_string(),
        _ => String::new(),
    };
    let sleeps = tests.match_indices("sleep(").any(|(at, _)| {
        let before = tests[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    });
    let breaks = sleeps && !source.path.starts_with("tests/support/");
    breach(breaks, || "sleeps in a test".into())
}

pub fn leaves_nothing_unfinished(source: &Source) -> Vec<String> {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    uses(&source.text, &marks)
}

pub fn names_no_private_path(source: &Source) -> Vec<String> {
    let roots = [
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/tmp/", "wt"),
        concat!("/tmp/", "target"),
    ];
    let named = roots.iter().filter(|root| source.text.contains(*root));
    named
        .map(|root| format!("names a path below `{root}`"))
        .collect()
}

pub fn is_a_strict_script(source: &Source) -> Vec<String> {
    let strict = source.text.lines().any(|line| line == "set -euo pipefail");
    breach(!strict, || "does not `set -euo pipefail`".into())
}

pub fn top_level_breaches(entries: &[String]) -> Vec<String> {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "Makefile",
        "README.md",
        "bench",
        "conf",
        "src",
        "tests",
    ];
    let strangers = entries
        .iter()
        .filter(|entry| !entry.starts_with('.') && !allowed.contains(&entry.as_str()))
        .map(|entry| format!("`{entry}` does not belong at the top level"));
    let missing = allowed
        .iter()
        .filter(|name| !entries.iter().any(|entry| entry == *name))
        .map(|name| format!("`{name}` is missing at the top level"));
    strangers.chain(missing).collect()
}

pub fn untold_targets(makefile: &str, readme: &str) -> Vec<String> {
    let targets = makefile
        .lines()
        .filter_map(|line| line.strip_prefix(".PHONY:"))
        .flat_map(str::split_whitespace);
    targets
        .filter(|target| {
            let told = [format!("make {target}"), format!("`{target}`")];
            !told.iter().any(|form| readme.contains(form))
        })
        .map(|target| format!("the README does not tell of `make {target}`"))
        .collect()
}

pub fn breach(broken: bool, what: impl FnOnce() -> String) -> Vec<String> {
    broken.then(what).into_iter().collect()
}

pub fn uses(code: &str, banned: &[&str]) -> Vec<String> {
    let used = banned
        .iter()
        .filter(|name| words(code).any(|word| word == **name));
    used.map(|name| format!("uses `{name}`")).collect()
}

pub fn floor_of(room: &str) -> Option<u8> {
    ROOMS
        .iter()
        .find(|(name, _)| *name == room)
        .map(|(_, floor)| *floor)
}
