//! The command line of `load gateway`: words in, a [`Plan`] or one mistake out.

use std::net::SocketAddr;
use std::time::Duration;

use getopts::{Matches, Options};

use super::wire::{Dialect, HEAD};
use crate::args::{pids, seconds, value};
use crate::pattern::BLOCK;

/// What the clients do once their connections are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Each client keeps so many bytes of messages under way; the server gives all back.
    Stream,
    /// The same, but the server only counts.
    Count,
    /// Each connection has one message under way; the server gives it back.
    PingPong,
    /// Connections are opened and closed, so many at a time.
    Open,
    /// One message to and fro on each connection, then silence.
    Idle,
}

impl Load {
    /// The server gives messages back.
    pub fn is_echoed(self) -> bool {
        self != Self::Count
    }
}

/// One run.
pub struct Plan {
    /// What the clients do.
    pub load: Load,
    /// Where the gateway listens for clients.
    pub target: SocketAddr,
    /// Where it listens for servers.
    pub servers: SocketAddr,
    /// What both ends speak.
    pub dialect: Dialect,
    /// What the server proves to know.
    pub key: String,
    /// How many clients there are.
    pub clients: usize,
    /// How many virtual connections each has, or opens at a time.
    pub conns: usize,
    /// Bytes of a message, without its head.
    pub size: usize,
    /// Bytes, heads included, that all clients together may be ahead of what has arrived.
    pub ahead: usize,
    /// The measured time.
    pub window: Duration,
    /// The time before it that is not measured.
    pub warmup: Duration,
    /// The processes whose CPU and memory are the gateway's.
    pub pids: Vec<u32>,
    /// Compare every byte of every message with what was sent.
    pub verify: bool,
    /// Print the report as JSON.
    pub json: bool,
}

impl Plan {
    /// How many messages a client may have under way.
    pub fn permits(&self) -> usize {
        match self.load {
            Load::PingPong | Load::Idle => self.conns,
            Load::Stream | Load::Count => {
                (self.ahead / self.clients / (self.size + HEAD)).clamp(1, MOST_AHEAD)
            }
            Load::Open => 0,
        }
    }
}

/// Adds the options that no other mode has.
pub fn add_options(options: &mut Options) {
    options.optopt("", "servers", "gateway: where servers connect", "ADDR");
    options.optopt("", "clients", "gateway: endpoints (1)", "N");
    options.optopt("", "key", "gateway: what the server must know", "TEXT");
    options.optopt(
        "",
        "dialect",
        "gateway: of both ends (fastway)",
        "fastway|document",
    );
}

/// Refuses those options for a mode that has no use for them.
pub fn refuse_options(matches: &Matches) -> Result<(), String> {
    let own = ["servers", "clients", "key", "dialect"];
    match own.iter().find(|name| matches.opt_present(name)) {
        None => Ok(()),
        Some(name) => Err(format!("--{name} belongs to gateway")),
    }
}

/// Reads the flags of a `gateway` run; `words` are those behind `gateway`.
pub fn read(words: &[&str], matches: &Matches) -> Result<Plan, String> {
    let load = LOADS
        .iter()
        .find(|(name, _)| *words == [*name])
        .map(|(_, load)| *load)
        .ok_or_else(|| format!("gateway takes one of {}", names()))?;
    for foreign in ["backend", "route", "both", "keys"] {
        if matches.opt_present(foreign) {
            return Err(format!("--{foreign} has no meaning for gateway"));
        }
    }
    let plan = Plan {
        load,
        target: value(matches, "target")?.ok_or("--target ADDR is missing")?,
        servers: value(matches, "servers")?.ok_or("gateway needs --servers ADDR")?,
        dialect: dialect(matches)?,
        key: matches.opt_str("key").unwrap_or_default(),
        clients: value(matches, "clients")?.unwrap_or(1),
        conns: value(matches, "conns")?.unwrap_or(1),
        size: value(matches, "size")?.unwrap_or(64),
        ahead: value(matches, "ahead")?.unwrap_or(512 * 1024),
        window: seconds(matches, "seconds", 3.0)?,
        warmup: seconds(matches, "warmup", 1.0)?,
        pids: pids(matches)?,
        verify: matches.opt_present("verify"),
        json: matches.opt_present("json"),
    };
    check(&plan)?;
    Ok(plan)
}

fn dialect(matches: &Matches) -> Result<Dialect, String> {
    match matches.opt_str("dialect").as_deref() {
        None | Some("fastway") => Ok(Dialect::Fastway),
        Some("document") => Ok(Dialect::Document),
        Some(other) => Err(format!(
            "--dialect takes fastway or document, not `{other}`"
        )),
    }
}

fn names() -> String {
    LOADS.map(|(name, _)| name).join(", ")
}

/// What no single flag can tell.
fn check(plan: &Plan) -> Result<(), String> {
    if plan.clients == 0 || plan.conns == 0 || plan.size == 0 {
        return Err("--clients, --conns and --size take at least 1".into());
    }
    if plan.clients.saturating_mul(plan.conns) > MOST_CONNS {
        return Err(format!(
            "a run has at most {MOST_CONNS} virtual connections"
        ));
    }
    if plan.size > BLOCK {
        return Err(format!("a gateway message has at most {BLOCK} bytes here"));
    }
    if plan.window + plan.warmup > LONGEST {
        let most = LONGEST.as_secs();
        return Err(format!(
            "a gateway run takes at most {most} s, so that its silent ends never idle out"
        ));
    }
    if plan.load == Load::Idle && plan.pids.is_empty() {
        return Err("idle needs --pid PID, for it measures memory".into());
    }
    Ok(())
}

const LOADS: [(&str, Load); 5] = [
    ("stream", Load::Stream),
    ("count", Load::Count),
    ("pingpong", Load::PingPong),
    ("open", Load::Open),
    ("idle", Load::Idle),
];
/// An endpoint may be silent for 30 s by default; opening takes its time as well.
const LONGEST: Duration = Duration::from_secs(20);
const MOST_CONNS: usize = 1_000_000;
/// Messages of one client that may be under way, whatever `--ahead` says.
const MOST_AHEAD: usize = 1_000_000;

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::args::{Invocation, parse};

    /// The plan of `load gateway LINE` with addresses nobody uses.
    pub fn plan(line: &str) -> Result<Plan, String> {
        parsed(&format!(
            "gateway {line} -t 127.0.0.1:1 --servers 127.0.0.1:2"
        ))
    }

    fn parsed(line: &str) -> Result<Plan, String> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        match parse(&words)? {
            Invocation::Gateway(plan) => Ok(plan),
            _ => Err("another mode".into()),
        }
    }

    #[test]
    fn a_full_line_gives_a_full_plan() {
        let plan = plan(
            "count --clients 3 -c 5 -s 92 --ahead 3000 --key k --dialect document -d 0.5 -p 7 \
             --verify",
        )
        .unwrap();
        assert_eq!((plan.load, plan.dialect), (Load::Count, Dialect::Document));
        assert_eq!((plan.clients, plan.conns, plan.size), (3, 5, 92));
        assert_eq!((plan.target.port(), plan.servers.port()), (1, 2));
        assert_eq!((plan.key.as_str(), plan.pids.as_slice()), ("k", &[7][..]));
        assert!(plan.verify && !plan.json);
        assert_eq!(plan.permits(), 10, "1000 bytes for each client");
    }

    #[test]
    fn permits_follow_the_load() {
        for (load, permits) in [("stream", 1), ("pingpong", 9), ("idle", 9), ("open", 0)] {
            let line = format!("{load} --clients 1000 -s 16384 -c 9 -p 1");
            let plan = plan(&line).unwrap();
            assert_eq!(plan.permits(), permits, "{load}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        for (line, part) in [
            ("gateway", "one of stream, count"),
            ("gateway open --servers 127.0.0.1:2", "--target"),
            ("gateway open -t 127.0.0.1:1", "--servers"),
        ] {
            let mistake = parsed(line).err().unwrap();
            assert!(mistake.contains(part), "`{line}` gave `{mistake}`");
        }
        for (line, part) in [
            ("echo", "one of stream, count"),
            ("open twice", "one of stream, count"),
            ("open -c 0", "at least 1"),
            ("open --clients 2000 -c 2000", "at most"),
            ("stream -s 262145", "at most"),
            ("stream -d 20", "at most 20 s"),
            ("stream --dialect go", "--dialect"),
            ("stream -r a:b", "--route"),
            ("idle", "--pid"),
        ] {
            let mistake = plan(line).err().unwrap();
            assert!(mistake.contains(part), "`{line}` gave `{mistake}`");
        }
    }
}
