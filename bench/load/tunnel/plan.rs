//! The command line of `load tunnel`: words in, a [`Plan`] or one mistake out.

use std::net::SocketAddr;
use std::time::Duration;

use getopts::{Matches, Options};

use crate::args::{pids, seconds, value};

/// One run.
pub struct Plan {
    /// The public address.
    pub target: SocketAddr,
    /// Where the service listens that the tunnel leads to.
    pub backend: SocketAddr,
    /// How many visitors come at a time.
    pub conns: usize,
    /// From the last of them that has left to the next ones.
    pub gap: Duration,
    /// The measured time.
    pub window: Duration,
    /// The time before it that is not measured.
    pub warmup: Duration,
    /// The processes of both ends of the tunnel.
    pub pids: Vec<u32>,
    /// Print the report as JSON.
    pub json: bool,
}

/// Adds the options that no other mode has.
pub fn add_options(options: &mut Options) {
    options.optopt("", "gap", "tunnel: milliseconds between visitors (5)", "MS");
}

/// Refuses those options for a mode that has no use for them.
pub fn refuse_options(matches: &Matches) -> Result<(), String> {
    match matches.opt_present("gap") {
        false => Ok(()),
        true => Err("--gap belongs to tunnel".into()),
    }
}

/// Reads the flags of a `tunnel` run; `words` are those behind `tunnel`.
pub fn read(words: &[&str], matches: &Matches) -> Result<Plan, String> {
    if words != ["first"] {
        return Err("tunnel takes first".into());
    }
    for foreign in ["route", "size", "keys", "both", "verify", "ahead"] {
        if matches.opt_present(foreign) {
            return Err(format!("--{foreign} has no meaning for tunnel"));
        }
    }
    let gap_ms: u64 = value(matches, "gap")?.unwrap_or(5);
    let plan = Plan {
        target: value(matches, "target")?.ok_or("--target ADDR is missing")?,
        backend: value(matches, "backend")?.ok_or("--backend ADDR is missing")?,
        conns: value(matches, "conns")?.unwrap_or(1),
        gap: Duration::from_millis(gap_ms),
        window: seconds(matches, "seconds", 3.0)?,
        warmup: seconds(matches, "warmup", 1.0)?,
        pids: pids(matches)?,
        json: matches.opt_present("json"),
    };
    if !(1..=MOST_VISITORS).contains(&plan.conns) {
        return Err(format!("--conns takes 1 to {MOST_VISITORS} here"));
    }
    if plan.gap > LONGEST_GAP {
        let most = LONGEST_GAP.as_millis();
        return Err(format!("--gap takes at most {most} ms"));
    }
    Ok(plan)
}

/// More at a time would wait for each other, and that is no first byte's latency.
const MOST_VISITORS: usize = 1024;
/// A window of a few seconds is to hold some of them.
const LONGEST_GAP: Duration = Duration::from_millis(1000);

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::args::{Invocation, parse};

    /// The plan of `load tunnel LINE`.
    pub fn plan(line: &str) -> Result<Plan, String> {
        let line = format!("tunnel {line}");
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        match parse(&words)? {
            Invocation::Tunnel(plan) => Ok(plan),
            _ => Err("another mode".into()),
        }
    }

    #[test]
    fn a_full_line_gives_a_full_plan() {
        let plan =
            plan("first -t 127.0.0.1:1 -b 127.0.0.1:2 -c 3 --gap 20 -d 0.5 -p 7,8 --json").unwrap();
        assert_eq!((plan.target.port(), plan.backend.port()), (1, 2));
        assert_eq!((plan.conns, plan.gap.as_millis()), (3, 20));
        assert_eq!(
            (plan.window.as_millis(), &plan.pids[..]),
            (500, &[7, 8][..])
        );
        assert!(plan.json);
    }

    #[test]
    fn each_mistake_is_named() {
        let both = "first -t 127.0.0.1:1 -b 127.0.0.1:2";
        for (line, part) in [
            ("", "takes first"),
            ("first second", "takes first"),
            ("first -b 127.0.0.1:2", "--target"),
            ("first -t 127.0.0.1:1", "--backend"),
            (&format!("{both} -c 0"), "1 to"),
            (&format!("{both} -c 2000"), "1 to"),
            (&format!("{both} --gap 5000"), "at most"),
            (&format!("{both} --gap x"), "--gap"),
            (&format!("{both} --size 4"), "--size"),
            (&format!("{both} --nodes 4"), "belongs to node"),
        ] {
            let mistake = plan(line).err().unwrap();
            assert!(mistake.contains(part), "`{line}` gave `{mistake}`");
        }
    }
}
