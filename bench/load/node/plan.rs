//! The command line of `load node`: words in, a [`Plan`] or one mistake out.

use std::net::SocketAddr;
use std::time::Duration;

use getopts::{Matches, Options};

use super::wire::{HEAD, LEAST_SIZE};
use crate::args::{pids, seconds, value};
use crate::pattern::BLOCK;

/// What nodes and peers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Each peer keeps so many bytes of frames under way to its node.
    Stream,
    /// Each peer has one frame under way; its node answers to the peer's own public address.
    PingPong,
    /// Nodes nobody has seen before ask for an address and leave, so many at a time.
    Register,
    /// Nodes, then a peer for each that sends one frame, then silence.
    Idle,
}

/// One run.
pub struct Plan {
    /// What is done.
    pub load: Load,
    /// Where the server listens for nodes.
    pub target: SocketAddr,
    /// How many nodes there are; `pingpong` has the peers besides.
    pub nodes: usize,
    /// How many peers there are, dealt out to the nodes in turn.
    pub peers: usize,
    /// How many nodes ask at a time, for `register`.
    pub lanes: usize,
    /// Bytes of a frame's body.
    pub size: usize,
    /// Bytes of frames, heads included, that all peers together have under way.
    pub ahead: usize,
    /// The measured time.
    pub window: Duration,
    /// The time before it that is not measured.
    pub warmup: Duration,
    /// The processes whose CPU and memory are the server's.
    pub pids: Vec<u32>,
    /// Compare every byte of every frame with what was sent.
    pub verify: bool,
    /// Print the report as JSON.
    pub json: bool,
}

impl Plan {
    /// How many frames a peer may have under way.
    pub fn permits(&self) -> usize {
        match self.load {
            Load::Stream => (self.ahead / self.peers / self.frame()).clamp(1, MOST_AHEAD),
            Load::PingPong | Load::Register | Load::Idle => 1,
        }
    }

    /// Bytes of a frame.
    pub fn frame(&self) -> usize {
        HEAD + self.size
    }

    /// Connections to public addresses: the peers', and for `pingpong` behind them their answers'.
    pub fn ways(&self) -> usize {
        match self.load {
            Load::Stream | Load::Idle => self.peers,
            Load::PingPong => 2 * self.peers,
            Load::Register => 0,
        }
    }

    /// Main connections: the nodes', and for `pingpong` behind them the peers' own.
    pub fn homes(&self) -> usize {
        match self.load {
            Load::Stream | Load::Idle => self.nodes,
            Load::PingPong => self.nodes + self.peers,
            Load::Register => 0,
        }
    }

    /// The home that the frames of a way come to.
    pub fn home_of(&self, way: usize) -> usize {
        match way.checked_sub(self.peers) {
            None => way % self.nodes,
            Some(peer) => self.nodes + peer,
        }
    }

    /// The way that goes back, for `pingpong`.
    pub fn way_back(&self, way: usize) -> usize {
        (way + self.peers) % (2 * self.peers)
    }
}

/// Adds the options that no other mode has.
pub fn add_options(options: &mut Options) {
    options.optopt("", "nodes", "node: nodes with a public address (1)", "N");
    options.optopt("", "peers", "node: who sends to them (1)", "N");
}

/// Refuses those options for a mode that has no use for them.
pub fn refuse_options(matches: &Matches) -> Result<(), String> {
    match ["nodes", "peers"]
        .iter()
        .find(|name| matches.opt_present(name))
    {
        None => Ok(()),
        Some(name) => Err(format!("--{name} belongs to node")),
    }
}

/// Reads the flags of a `node` run; `words` are those behind `node`.
pub fn read(words: &[&str], matches: &Matches) -> Result<Plan, String> {
    let load = LOADS
        .iter()
        .find(|(name, _)| *words == [*name])
        .map(|(_, load)| *load)
        .ok_or_else(|| {
            format!(
                "node takes one of {}",
                LOADS.map(|(name, _)| name).join(", ")
            )
        })?;
    for foreign in ["backend", "route", "both", "keys"] {
        if matches.opt_present(foreign) {
            return Err(format!("--{foreign} has no meaning for node"));
        }
    }
    let nodes = value(matches, "nodes")?.unwrap_or(1);
    let peers = value(matches, "peers")?;
    let plan = Plan {
        load,
        target: value(matches, "target")?.ok_or("--target ADDR is missing")?,
        nodes,
        peers: peers.unwrap_or(if load == Load::Idle { nodes } else { 1 }),
        lanes: value(matches, "conns")?.unwrap_or(64),
        size: value(matches, "size")?.unwrap_or(LEAST_SIZE),
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

/// What no single flag can tell.
fn check(plan: &Plan) -> Result<(), String> {
    if plan.nodes == 0 || plan.peers == 0 || plan.lanes == 0 {
        return Err("--nodes, --peers and --conns take at least 1".into());
    }
    if plan.nodes.max(plan.peers).max(plan.lanes) > MOST_ENDS {
        return Err(format!("a run has at most {MOST_ENDS} nodes or peers"));
    }
    if !(LEAST_SIZE..=BLOCK).contains(&plan.size) {
        return Err(format!("a frame's --size is {LEAST_SIZE} to {BLOCK} here"));
    }
    if plan.window + plan.warmup > LONGEST {
        let most = LONGEST.as_secs();
        return Err(format!(
            "a node run takes at most {most} s, for its nodes send no signs of life"
        ));
    }
    if plan.load == Load::Idle && plan.pids.is_empty() {
        return Err("idle needs --pid PID, for it measures memory".into());
    }
    Ok(())
}

const LOADS: [(&str, Load); 4] = [
    ("stream", Load::Stream),
    ("pingpong", Load::PingPong),
    ("register", Load::Register),
    ("idle", Load::Idle),
];
/// A node may be silent for 180 s by default; opening takes its time as well.
const LONGEST: Duration = Duration::from_secs(60);
/// There are not more ports.
const MOST_ENDS: usize = 65_535;
/// Frames of one peer that may be under way, whatever `--ahead` says.
const MOST_AHEAD: usize = 1_000_000;

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::args::{Invocation, parse};

    /// The plan of `load node LINE` with an address nobody uses.
    pub fn plan(line: &str) -> Result<Plan, String> {
        parsed(&format!("node {line} -t 127.0.0.1:1"))
    }

    fn parsed(line: &str) -> Result<Plan, String> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        match parse(&words)? {
            Invocation::Node(plan) => Ok(plan),
            _ => Err("another mode".into()),
        }
    }

    #[test]
    fn a_full_line_gives_a_full_plan() {
        let plan =
            plan("stream --nodes 2 --peers 5 -s 90 --ahead 3000 -d 0.5 -p 7 --json").unwrap();
        assert_eq!((plan.nodes, plan.peers, plan.size), (2, 5, 90));
        assert_eq!(plan.permits(), 6, "600 bytes for each peer");
        assert_eq!((plan.ways(), plan.homes()), (5, 2));
        let homes: Vec<usize> = (0..5).map(|way| plan.home_of(way)).collect();
        assert_eq!(homes, [0, 1, 0, 1, 0]);
        assert_eq!((plan.target.port(), plan.pids.as_slice()), (1, &[7][..]));
        assert!(plan.json && !plan.verify);
    }

    #[test]
    fn an_answer_goes_to_the_peers_own_home() {
        let plan = plan("pingpong --nodes 2 --peers 3").unwrap();
        assert_eq!((plan.ways(), plan.homes()), (6, 5));
        for peer in 0..3 {
            let back = plan.way_back(peer);
            assert_eq!((back, plan.way_back(back)), (3 + peer, peer));
            assert_eq!(plan.home_of(back), 2 + peer);
        }
    }

    #[test]
    fn each_idle_node_has_a_peer() {
        let plan = plan("idle --nodes 9 -p 1").unwrap();
        assert_eq!((plan.peers, plan.permits()), (9, 1));
    }

    #[test]
    fn each_mistake_is_named() {
        assert!(parsed("node stream").err().unwrap().contains("--target"));
        for (line, part) in [
            ("", "one of stream, pingpong"),
            ("stream twice", "one of stream, pingpong"),
            ("stream --peers 0", "at least 1"),
            ("stream --peers 70000", "at most"),
            ("stream -s 63", "64 to"),
            ("stream -s 262145", "64 to"),
            ("stream -d 60", "at most 60 s"),
            ("stream -r a:b", "--route"),
            ("stream --dialect fastway", "belongs to gateway"),
            ("idle", "--pid"),
        ] {
            let mistake = plan(line).err().unwrap();
            assert!(mistake.contains(part), "`{line}` gave `{mistake}`");
        }
    }
}
