//! The command line of the load program: words in, a [`Plan`] or one mistake out.
//!
//! Nothing here opens a file or a socket.

use std::net::SocketAddr;
use std::time::Duration;

use getopts::{Matches, Options};

use crate::agent;
use crate::chain;
use crate::gateway;
use crate::node;
use crate::tunnel;

/// What the words ask for.
pub enum Invocation {
    /// Print this text.
    Help(String),
    /// Run this.
    Run(Plan),
    /// Run this against a gateway.
    Gateway(gateway::Plan),
    /// Run this against the node role.
    Node(node::Plan),
    /// Run this against both ends of a tunnel.
    Tunnel(tunnel::Plan),
    /// Send datagrams through a chain.
    Chain(chain::Plan),
}

/// What every client of the run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sends without end; the backend discards.
    Bulk {
        /// The backend sends without end as well.
        both: bool,
    },
    /// Sends a message, waits until it has come back, sends the next.
    PingPong,
    /// Connects, sends a request, reads the response to its end, begins again.
    Connect,
    /// One round trip, then silence: what does such a pair cost the server?
    Idle,
    /// Ping-pong on all connections but one, which is bulk.
    Fair,
    /// One store operation per connection.
    Store(Operation),
    /// No clients: a backend for another load program.
    Backend,
}

/// What a store client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Every operation writes.
    Update,
    /// Every operation reads a key that was written before the window.
    Query,
    /// One update for nine queries.
    Mixed,
}

/// One run.
pub struct Plan {
    /// What the clients do.
    pub mode: Mode,
    /// Where the clients connect to.
    pub target: Option<SocketAddr>,
    /// Where the built-in backend listens.
    pub backend: Option<SocketAddr>,
    /// The frame that asks a traffic proxy for a route; without it connections are plain.
    pub route: Option<Vec<u8>>,
    /// The chain that each connection goes through.
    pub way: Option<chain::Way>,
    /// So many connections come before the warm-up, for `connect`.
    pub after: u64,
    /// The client closes first, for `connect`.
    pub hangs_up: bool,
    /// The CPU of each process counts by itself as well.
    pub each: bool,
    /// How many clients run at once.
    pub conns: usize,
    /// Bytes of a message, a response, or a stored value.
    pub size: usize,
    /// How many keys the store operations go round.
    pub keys: usize,
    /// The measured time.
    pub window: Duration,
    /// The time before it that is not measured.
    pub warmup: Duration,
    /// The processes whose CPU and memory are the server's.
    pub pids: Vec<u32>,
    /// Compare every received byte with the one that was sent.
    pub verify: bool,
    /// Print the report as JSON.
    pub json: bool,
}

/// Reads the words after the program's name.
pub fn parse(words: &[String]) -> Result<Invocation, String> {
    let options = options();
    let matches = options.parse(words).map_err(|error| error.to_string())?;
    if matches.opt_present("help") {
        return Ok(Invocation::Help(options.usage(BRIEF.trim_end())));
    }
    let words: Vec<&str> = matches.free.iter().map(String::as_str).collect();
    if let Some((&"chain", words)) = words.split_first() {
        gateway::refuse_options(&matches)?;
        node::refuse_options(&matches)?;
        tunnel::refuse_options(&matches)?;
        return chain::read(words, &matches);
    }
    chain::refuse_options(&matches)?;
    if let Some((&"gateway", words)) = words.split_first() {
        node::refuse_options(&matches)?;
        tunnel::refuse_options(&matches)?;
        return gateway::read(words, &matches).map(Invocation::Gateway);
    }
    gateway::refuse_options(&matches)?;
    if let Some((&"node", words)) = words.split_first() {
        tunnel::refuse_options(&matches)?;
        return node::read(words, &matches).map(Invocation::Node);
    }
    node::refuse_options(&matches)?;
    if let Some((&"tunnel", words)) = words.split_first() {
        return tunnel::read(words, &matches).map(Invocation::Tunnel);
    }
    tunnel::refuse_options(&matches)?;
    if matches.opt_present("ahead") {
        return Err("--ahead belongs to gateway and node".into());
    }
    plain(mode(&words, &matches)?, &matches).map(Invocation::Run)
}

/// Reads the flags of a run of plain connections.
pub fn plain(mode: Mode, matches: &Matches) -> Result<Plan, String> {
    let plan = Plan {
        mode,
        target: value(matches, "target")?,
        backend: value(matches, "backend")?,
        route: route(matches)?,
        way: None,
        after: 0,
        hangs_up: false,
        each: false,
        conns: value(matches, "conns")?.unwrap_or(default_conns(mode)),
        size: value(matches, "size")?.unwrap_or(default_size(mode)),
        keys: value(matches, "keys")?.unwrap_or(256),
        window: seconds(matches, "seconds", 3.0)?,
        warmup: seconds(matches, "warmup", 1.0)?,
        pids: pids(matches)?,
        verify: matches.opt_present("verify"),
        json: matches.opt_present("json"),
    };
    check(&plan)?;
    Ok(plan)
}

fn options() -> Options {
    let mut options = Options::new();
    options.optopt("t", "target", "the server's address", "ADDR");
    options.optopt("b", "backend", "serve as the relay's backend here", "ADDR");
    options.optopt(
        "r",
        "route",
        "ask the traffic proxy for this route on every connection",
        "SERVICE:FIELD[:TOKEN]",
    );
    options.optopt("c", "conns", "clients at once", "N");
    options.optopt("s", "size", "bytes of a message, response or value", "N");
    options.optopt("k", "keys", "keys that store operations go round", "N");
    options.optopt("d", "seconds", "measured time (3)", "S");
    options.optopt("w", "warmup", "time before it (1)", "S");
    options.optmulti(
        "p",
        "pid",
        "a process of the server; may be given again, or as PID,PID",
        "PID",
    );
    options.optopt(
        "",
        "ahead",
        "gateway, node: bytes under way in a stream, all senders together (512 KiB)",
        "BYTES",
    );
    chain::add_options(&mut options);
    gateway::add_options(&mut options);
    node::add_options(&mut options);
    tunnel::add_options(&mut options);
    options.optflag("", "both", "bulk: the backend sends as well");
    options.optflag("", "verify", "compare every byte received");
    options.optflag("", "json", "print JSON instead of name=value");
    options.optflag("h", "help", "print this");
    options
}

fn mode(words: &[&str], matches: &Matches) -> Result<Mode, String> {
    let both = matches.opt_present("both");
    let mode = match words {
        ["bulk"] => Mode::Bulk { both },
        ["pingpong"] => Mode::PingPong,
        ["connect"] => Mode::Connect,
        ["idle"] => Mode::Idle,
        ["fair"] => Mode::Fair,
        ["backend"] => Mode::Backend,
        ["store", "update"] => Mode::Store(Operation::Update),
        ["store", "query"] => Mode::Store(Operation::Query),
        ["store", "mixed"] => Mode::Store(Operation::Mixed),
        [] => return Err("a mode is missing".into()),
        words => return Err(format!("unknown mode `{}`", words.join(" "))),
    };
    if both && mode != (Mode::Bulk { both }) {
        return Err("--both belongs to bulk".into());
    }
    Ok(mode)
}

fn default_conns(mode: Mode) -> usize {
    match mode {
        Mode::Bulk { .. } => 8,
        Mode::PingPong => 256,
        Mode::Fair => 257,
        Mode::Idle => 5000,
        Mode::Connect | Mode::Store(_) => 64,
        Mode::Backend => 0,
    }
}

fn default_size(mode: Mode) -> usize {
    match mode {
        Mode::Connect => 1024,
        _ => 64,
    }
}

/// The flag's value, if it was given.
pub fn value<T: std::str::FromStr>(matches: &Matches, name: &str) -> Result<Option<T>, String> {
    matches
        .opt_str(name)
        .map(|text| {
            text.parse()
                .map_err(|_| format!("--{name} does not take `{text}`"))
        })
        .transpose()
}

/// A flag that takes seconds, or its default.
pub fn seconds(matches: &Matches, name: &str, default: f64) -> Result<Duration, String> {
    let seconds: f64 = value(matches, name)?.unwrap_or(default);
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|length| *length <= LONGEST)
        .ok_or_else(|| format!("--{name} takes 0 to {} seconds", LONGEST.as_secs()))
}

fn route(matches: &Matches) -> Result<Option<Vec<u8>>, String> {
    let Some(text) = matches.opt_str("route") else {
        return Ok(None);
    };
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(service), Some(field), token) => Ok(Some(agent::traffic(
            service,
            field,
            token.unwrap_or_default(),
        ))),
        _ => Err(format!("--route takes SERVICE:FIELD[:TOKEN], not `{text}`")),
    }
}

/// The server's processes.
pub fn pids(matches: &Matches) -> Result<Vec<u32>, String> {
    let lists = matches.opt_strs("pid");
    let words = lists.iter().flat_map(|list| list.split(','));
    words
        .map(|word| {
            word.parse()
                .map_err(|_| format!("--pid does not take `{word}`"))
        })
        .collect()
}

/// What no single flag can tell.
fn check(plan: &Plan) -> Result<(), String> {
    if plan.mode == Mode::Backend {
        return match plan.backend {
            Some(_) => Ok(()),
            None => Err("backend needs --backend ADDR".into()),
        };
    }
    if plan.target.is_none() {
        return Err("--target ADDR is missing".into());
    }
    if plan.conns == 0 || plan.size == 0 || plan.keys == 0 {
        return Err("--conns, --size and --keys take at least 1".into());
    }
    if u32::try_from(plan.size).is_err() {
        return Err("--size takes less than 4 GiB".into());
    }
    if matches!(plan.mode, Mode::Store(_)) {
        if plan.route.is_some() {
            return Err("--route has no meaning for store".into());
        }
        if plan.size > MOST_VALUE {
            return Err(format!("a stored value has at most {MOST_VALUE} bytes"));
        }
    }
    if plan.mode == Mode::Idle && plan.pids.is_empty() {
        return Err("idle needs --pid PID, for it measures memory".into());
    }
    Ok(())
}

/// No run is meant to outlast a coffee break; a typing slip should not.
const LONGEST: Duration = Duration::from_secs(3600);

/// A little less than a frame's 512 KiB, so that id, section and lengths fit beside it.
const MOST_VALUE: usize = 524_000;

const BRIEF: &str = "\
Usage: load MODE [FLAGS]

Modes:
    bulk [--both]               N streams without end
    pingpong                    one message of --size bytes to and fro on N connections
    connect                     connect, request, response of --size bytes, close
    idle                        N relayed pairs that say nothing: the server's memory for each
    fair                        N - 1 connections of pingpong beside one bulk stream
    store update|query|mixed    an agent store; a connection for each operation
    gateway stream|count        messages on --conns virtual connections of each of --clients, many
                                under way; the server end gives them back, or only counts
    gateway pingpong            one message to and fro on each virtual connection
    gateway open                open and close, --conns at a time
    gateway idle                the gateway's memory for each client and virtual connection
    node stream                 frames from each of --peers to its node, many under way
    node pingpong               one frame of each peer; its node answers to the peer's own address
    node register               --conns new nodes at a time ask for an address and leave
    node idle                   the server's memory for each node, and for each peer
    tunnel first                --conns visitors at a time of a service that speaks first, with a gap
                                between them: the time to its first byte
    chain bulk|pingpong|connect|idle
                                the same as above through hops, of which --target is the first
    chain datagrams             --burst datagrams of each of --conns clients to the backend and back
    backend                     only the backend of another load program
";

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan, String> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        match parse(&words)? {
            Invocation::Run(plan) => Ok(plan),
            _ => Err("another".into()),
        }
    }

    #[test]
    fn a_full_line_gives_a_full_plan() {
        let plan =
            plan("store mixed -t 127.0.0.1:1 --conns 3 --size 9 --seconds 0.5 -p 1,2 -p 3 --json")
                .unwrap();
        assert_eq!(plan.mode, Mode::Store(Operation::Mixed));
        assert_eq!((plan.conns, plan.size), (3, 9));
        assert_eq!(plan.window, Duration::from_millis(500));
        assert_eq!(plan.pids, [1, 2, 3]);
        assert!(plan.json && !plan.verify);
    }

    #[test]
    fn each_mistake_is_named() {
        for (line, part) in [
            ("", "mode is missing"),
            ("bulky", "unknown mode"),
            ("store", "unknown mode"),
            ("bulk", "--target"),
            ("backend", "--backend"),
            ("pingpong --both -t 127.0.0.1:1", "--both"),
            ("bulk -t localhost", "--target does not take"),
            ("bulk -t 127.0.0.1:1 -c 0", "at least 1"),
            ("bulk -t 127.0.0.1:1 -r alone", "SERVICE:FIELD"),
            ("bulk -t 127.0.0.1:1 -d -1", "seconds"),
            ("bulk -t 127.0.0.1:1 -p x", "--pid"),
            ("idle -t 127.0.0.1:1", "--pid"),
            ("bulk -t 127.0.0.1:1 --key k", "belongs to gateway"),
            ("bulk -t 127.0.0.1:1 --nodes 2", "belongs to node"),
            ("bulk -t 127.0.0.1:1 --ahead 2", "gateway and node"),
            ("bulk -t 127.0.0.1:1 --gap 2", "belongs to tunnel"),
            ("bulk -t 127.0.0.1:1 --straight", "belongs to chain"),
            ("store query -t 127.0.0.1:1 -r a:b", "--route"),
            ("store query -t 127.0.0.1:1 -s 524288", "at most"),
        ] {
            let mistake = plan(line).err().unwrap();
            assert!(mistake.contains(part), "`{line}` gave `{mistake}`");
        }
    }
}
