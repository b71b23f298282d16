//! The figures of one gateway run.

use std::time::Duration;

use super::plan::{Load, Plan};
use super::state::Tally;
use crate::report::{Report, ratio};

/// How much memory the gateway took.
pub struct Growth {
    /// For clients that have said one thing.
    pub by_clients: u64,
    /// For their connections, since then.
    pub by_conns: u64,
}

/// What was read from outside, over the window.
pub struct Outcome {
    /// How long it really took.
    pub elapsed: Duration,
    /// The gateway's CPU time.
    pub cpu: Duration,
    /// The load program's own.
    pub own_cpu: Duration,
    /// The gateway's memory at the end.
    pub resident_bytes: u64,
    /// How it came to be.
    pub growth: Growth,
}

impl Outcome {
    /// Works the figures out. A message is a frame that the gateway delivered, so one that is
    /// given back counts as two.
    pub fn report(&self, plan: &Plan, tally: &Tally) -> Report {
        let seconds = self.elapsed.as_secs_f64();
        let cpu_us = self.cpu.as_secs_f64() * 1e6;
        let (messages, operations) = (tally.messages as f64, tally.operations as f64);
        let measured = !plan.pids.is_empty();
        let mut fields = vec![
            ("clients", plan.clients as f64),
            ("conns", plan.conns as f64),
            ("size", plan.size as f64),
            ("seconds", seconds),
        ];
        match plan.load {
            Load::Stream | Load::Count | Load::PingPong => {
                fields.push(("under_way", (plan.permits() * plan.clients) as f64));
                fields.push(("messages_per_s", messages / seconds));
                if measured {
                    fields.push(("cpu_us", ratio(cpu_us, messages)));
                }
            }
            Load::Open => {
                fields.push(("per_s", operations / seconds));
                if measured {
                    fields.push(("cpu_us", ratio(cpu_us, operations)));
                }
            }
            Load::Idle => {
                let clients = plan.clients as f64;
                let conns = clients * plan.conns as f64;
                let Growth {
                    by_clients,
                    by_conns,
                } = self.growth;
                fields.push(("bytes_per_client", by_clients as f64 / clients));
                fields.push(("bytes_per_conn", by_conns as f64 / conns));
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
            let percent = cpu_us / 1e4 / seconds;
            fields.push(("cpu_percent", percent));
            fields.push(("rss_kib", (self.resident_bytes / 1024) as f64));
        }
        let percent = self.own_cpu.as_secs_f64() / seconds * 100.0;
        fields.push(("load_percent", percent));
        fields.push(("errors", tally.refusals as f64));
        Report::of(mode(plan.load), fields)
    }
}

fn mode(load: Load) -> &'static str {
    match load {
        Load::Stream => "gateway-stream",
        Load::Count => "gateway-count",
        Load::PingPong => "gateway-pingpong",
        Load::Open => "gateway-open",
        Load::Idle => "gateway-idle",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::plan::tests::plan;

    fn line(words: &str, tally: &Tally) -> String {
        let plan = plan(&format!("{words} -p 1")).unwrap();
        let outcome = Outcome {
            elapsed: Duration::from_secs(2),
            cpu: Duration::from_secs(1),
            own_cpu: Duration::from_millis(500),
            resident_bytes: 4096,
            growth: Growth {
                by_clients: 1000,
                by_conns: 3000,
            },
        };
        outcome.report(&plan, tally).line()
    }

    #[test]
    fn a_message_costs_its_share_of_the_gateways_cpu() {
        let mut tally = Tally::new();
        tally.messages = 4_000_000;
        let line = line("stream --ahead 7200 -s 64", &tally);
        assert!(
            line.contains(" under_way=100 messages_per_s=2000000 cpu_us=0.250 "),
            "{line}"
        );
        assert!(line.contains(" cpu_percent=50 rss_kib=4 load_percent=25 errors=0"));
        assert!(!line.contains("p50_us"));
    }

    #[test]
    fn opening_is_counted_in_operations() {
        let mut tally = Tally::new();
        tally.complete(Duration::from_micros(40));
        tally.complete(Duration::from_micros(60));
        let line = line("open", &tally);
        assert!(line.contains(" per_s=1 cpu_us=500000 p50_us="), "{line}");
    }

    #[test]
    fn memory_is_shared_out_to_clients_and_to_connections() {
        let line = line("idle --clients 10 -c 3", &Tally::new());
        assert!(
            line.contains(" bytes_per_client=100 bytes_per_conn=100 "),
            "{line}"
        );
    }
}
