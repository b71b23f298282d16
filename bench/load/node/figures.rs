//! The figures of one run of the node role.

use std::time::Duration;

use super::plan::{Load, Plan};
use super::run::Tally;
use crate::report::{Report, ratio};

/// What was read from outside.
pub struct Outcome {
    /// How long the window really took.
    pub elapsed: Duration,
    /// The server's CPU time in it.
    pub cpu: Duration,
    /// The load program's own.
    pub own_cpu: Duration,
    /// The server's memory at the end.
    pub resident_bytes: u64,
    /// What it took for nodes that had their address.
    pub by_nodes: u64,
    /// What it took since then for peers that had sent a frame.
    pub by_peers: u64,
}

impl Outcome {
    /// Works the figures out. A frame is one that has come to a main connection, so a round trip
    /// counts as two.
    pub fn report(&self, plan: &Plan, tally: &Tally) -> Report {
        let seconds = self.elapsed.as_secs_f64();
        let cpu_us = self.cpu.as_secs_f64() * 1e6;
        let (frames, operations) = (tally.frames as f64, tally.operations as f64);
        let measured = !plan.pids.is_empty();
        let mut fields = Vec::new();
        if plan.load == Load::Register {
            fields.push(("conns", plan.lanes as f64));
        } else {
            fields.push(("peers", plan.peers as f64));
            fields.push(("nodes", plan.nodes as f64));
            fields.push(("size", plan.size as f64));
        }
        fields.push(("seconds", seconds));
        match plan.load {
            Load::Stream | Load::PingPong => {
                fields.push(("under_way", (plan.permits() * plan.peers) as f64));
                fields.push(("frames_per_s", frames / seconds));
                if measured {
                    let gb = frames * plan.size as f64 / 1e9;
                    fields.push(("cpu_us", ratio(cpu_us, frames)));
                    fields.push(("cpu_s_per_gb", ratio(cpu_us / 1e6, gb)));
                }
            }
            Load::Register => {
                fields.push(("per_s", operations / seconds));
                if measured {
                    fields.push(("cpu_us", ratio(cpu_us, operations)));
                }
            }
            Load::Idle => {
                fields.push(("bytes_per_node", self.by_nodes as f64 / plan.nodes as f64));
                fields.push(("bytes_per_peer", self.by_peers as f64 / plan.peers as f64));
            }
        }
        if tally.latency.total() > 0 {
            fields.extend([
                ("p50_us", tally.latency.quantile_us(0.5)),
                ("p99_us", tally.latency.quantile_us(0.99)),
                ("max_us", tally.latency.max_us()),
            ]);
        }
        if measured {
            fields.push(("cpu_percent", cpu_us / 1e4 / seconds));
            fields.push(("rss_kib", (self.resident_bytes / 1024) as f64));
        }
        let percent = self.own_cpu.as_secs_f64() / seconds * 100.0;
        fields.push(("load_percent", percent));
        fields.push(("errors", tally.errors as f64));
        Report::of(mode(plan.load), fields)
    }
}

fn mode(load: Load) -> &'static str {
    match load {
        Load::Stream => "node-stream",
        Load::PingPong => "node-pingpong",
        Load::Register => "node-register",
        Load::Idle => "node-idle",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::plan::tests::plan;

    fn line(words: &str, fill: impl FnOnce(&mut Tally)) -> String {
        let plan = plan(&format!("{words} -p 1")).unwrap();
        let outcome = Outcome {
            elapsed: Duration::from_secs(2),
            cpu: Duration::from_secs(1),
            own_cpu: Duration::from_millis(500),
            resident_bytes: 4096,
            by_nodes: 1000,
            by_peers: 3000,
        };
        let mut tally = Tally::new();
        fill(&mut tally);
        outcome.report(&plan, &tally).line()
    }

    #[test]
    fn a_frame_costs_its_share_of_the_servers_cpu() {
        let line = line("stream -s 1000", |tally| tally.frames = 4_000_000);
        assert!(
            line.contains(" frames_per_s=2000000 cpu_us=0.250 cpu_s_per_gb=0.250 cpu_percent=50 "),
            "{line}"
        );
        assert!(line.ends_with(" load_percent=25 errors=0"), "{line}");
    }

    #[test]
    fn asking_is_counted_in_operations() {
        let line = line("register -c 3", |tally| {
            tally.complete(Duration::from_micros(40));
            tally.complete(Duration::from_micros(60));
        });
        assert!(
            line.contains(" conns=3 seconds=2 per_s=1 cpu_us=500000 p50_us="),
            "{line}"
        );
    }

    #[test]
    fn memory_is_shared_out_to_nodes_and_to_peers() {
        let line = line("idle --nodes 10 --peers 30", |_| {});
        assert!(
            line.contains(" bytes_per_node=100 bytes_per_peer=100 "),
            "{line}"
        );
    }
}
