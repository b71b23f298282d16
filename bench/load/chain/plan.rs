//! The command line of `load chain`: what its connections add to a plain [`args::Plan`], and the plan of
//! its datagrams.

use std::net::SocketAddr;
use std::time::Duration;

use getopts::{Matches, Options};
use towpath::protocols::chain::wire::Key;

use super::way::{MOST_HOPS, Way};
use crate::args::{self, Invocation, Mode, pids, seconds, value};

/// One run of datagrams.
pub struct Plan {
    /// Where they are sent: the first hop, or a listener that leads straight to the destination.
    pub target: SocketAddr,
    /// Where the destination is, which sends everything back.
    pub backend: SocketAddr,
    /// The chain; without one there are no headers.
    pub way: Option<Way>,
    /// How many clients there are, each with a socket of its own.
    pub flows: usize,
    /// How many datagrams of each are under way.
    pub burst: usize,
    /// Bytes of a datagram's payload.
    pub size: usize,
    /// Both ends send and take datagrams as trains.
    pub trains: bool,
    /// The measured time.
    pub window: Duration,
    /// The time before it that is not measured.
    pub warmup: Duration,
    /// The hops' processes, in their order.
    pub pids: Vec<u32>,
    /// Open every answer, and compare every byte.
    pub verify: bool,
    /// Print the report as JSON.
    pub json: bool,
}

/// Adds the options that no other mode has.
pub fn add_options(options: &mut Options) {
    options.optopt("", "further", "chain: the hops behind --target", "ADDR,..");
    options.optopt("", "hop-key", "chain: the key of all hops", "BASE64");
    options.optopt(
        "",
        "payload-key",
        "chain bulk, pingpong: the payload key of the last hop",
        "BASE64",
    );
    options.optflag(
        "",
        "straight",
        "chain: --target leads to the backend itself",
    );
    options.optopt("", "after", "chain connect: so many come first", "N");
    options.optflag("", "hang-up", "chain connect: the client closes first");
    options.optopt(
        "",
        "burst",
        "chain datagrams: how many of each flow are under way (32)",
        "N",
    );
    options.optflag(
        "",
        "trains",
        "chain datagrams: send and take them as trains",
    );
}

/// Refuses those options for a mode that has no use for them.
pub fn refuse_options(matches: &Matches) -> Result<(), String> {
    let all = [
        "further",
        "hop-key",
        "payload-key",
        "straight",
        "after",
        "hang-up",
        "burst",
        "trains",
    ];
    match all.iter().find(|name| matches.opt_present(name)) {
        None => Ok(()),
        Some(name) => Err(format!("--{name} belongs to chain")),
    }
}

/// Reads the flags of a `chain` run; `words` are those behind `chain`.
pub fn read(words: &[&str], matches: &Matches) -> Result<Invocation, String> {
    for foreign in ["route", "both", "keys", "ahead"] {
        if matches.opt_present(foreign) {
            return Err(format!("--{foreign} has no meaning for chain"));
        }
    }
    if *words == ["datagrams"] {
        return datagrams(matches).map(Invocation::Chain);
    }
    let mode = match words {
        ["bulk"] => Mode::Bulk { both: false },
        ["pingpong"] => Mode::PingPong,
        ["connect"] => Mode::Connect,
        ["idle"] => Mode::Idle,
        _ => return Err("chain takes one of bulk, pingpong, connect, idle, datagrams".into()),
    };
    for name in ["burst", "trains"] {
        if matches.opt_present(name) {
            return Err(format!("--{name} belongs to chain datagrams"));
        }
    }
    let seals = matches!(mode, Mode::Bulk { .. } | Mode::PingPong);
    if matches.opt_present("payload-key") && !seals {
        return Err("--payload-key belongs to chain bulk and pingpong".into());
    }
    let mut plan = args::plain(mode, matches)?;
    let backend = plan.backend.ok_or(NO_BACKEND)?;
    plan.way = way(backend, matches)?;
    plan.after = value(matches, "after")?.unwrap_or(0);
    plan.hangs_up = matches.opt_present("hang-up");
    plan.each = true;
    if mode != Mode::Connect && (plan.after > 0 || plan.hangs_up) {
        return Err("--after and --hang-up belong to chain connect".into());
    }
    Ok(Invocation::Run(plan))
}

fn datagrams(matches: &Matches) -> Result<Plan, String> {
    for foreign in ["payload-key", "after", "hang-up"] {
        if matches.opt_present(foreign) {
            return Err(format!("--{foreign} has no meaning for chain datagrams"));
        }
    }
    let backend = value(matches, "backend")?.ok_or(NO_BACKEND)?;
    let plan = Plan {
        target: value(matches, "target")?.ok_or("--target ADDR is missing")?,
        backend,
        way: way(backend, matches)?,
        flows: value(matches, "conns")?.unwrap_or(8),
        burst: value(matches, "burst")?.unwrap_or(32),
        size: value(matches, "size")?.unwrap_or(64),
        trains: matches.opt_present("trains"),
        window: seconds(matches, "seconds", 3.0)?,
        warmup: seconds(matches, "warmup", 1.0)?,
        pids: pids(matches)?,
        verify: matches.opt_present("verify"),
        json: matches.opt_present("json"),
    };
    if plan.flows == 0 || plan.burst == 0 || plan.size == 0 {
        return Err("--conns, --burst and --size take at least 1".into());
    }
    if plan.flows > MOST_FLOWS || plan.burst > MOST_BURST || plan.size > MOST_SIZE {
        return Err(format!(
            "--conns is at most {MOST_FLOWS}, --burst {MOST_BURST}, --size {MOST_SIZE} here"
        ));
    }
    Ok(plan)
}

/// The chain that the flags name; none where the target leads straight to the destination.
fn way(backend: SocketAddr, matches: &Matches) -> Result<Option<Way>, String> {
    let key = |name: &str| {
        let text = matches.opt_str(name);
        let key = text.map(|text| Key::from_base64(&text));
        key.transpose()
            .map_err(|error| format!("--{name}: {error}"))
    };
    let (hop_key, payload_key) = (key("hop-key")?, key("payload-key")?);
    let further = matches.opt_str("further").unwrap_or_default();
    let further = further.split(',').filter(|word| !word.is_empty());
    let further: Vec<SocketAddr> = further
        .map(|word| word.parse())
        .collect::<Result<_, _>>()
        .map_err(|_| "--further takes ADDR,ADDR and so on".to_owned())?;
    if matches.opt_present("straight") {
        let none = further.is_empty() && hop_key.is_none() && payload_key.is_none();
        return match none {
            true => Ok(None),
            false => Err("--straight means that there is no hop".into()),
        };
    }
    if further.len() >= MOST_HOPS {
        return Err(format!("a chain has at most {MOST_HOPS} hops"));
    }
    let key = hop_key.ok_or("--hop-key BASE64 is missing")?;
    Ok(Some(Way::new(&further, backend, key, payload_key)))
}

const NO_BACKEND: &str = "chain needs --backend ADDR, which is the destination";
const MOST_FLOWS: usize = 4096;
/// All of a burst fit into the socket's buffers.
const MOST_BURST: usize = 256;
/// With the headers of all hops still one datagram.
const MOST_SIZE: usize = 60_000;
