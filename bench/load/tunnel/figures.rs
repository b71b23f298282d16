//! The figures of one run of the tunnel role.

use std::time::Duration;

use super::plan::Plan;
use crate::histogram::Histogram;
use crate::report::{Report, ratio};

/// What was counted in the window, and read from outside.
pub struct Outcome {
    /// How long the window really took.
    pub elapsed: Duration,
    /// The CPU time of both ends in it.
    pub cpu: Duration,
    /// The load program's own.
    pub own_cpu: Duration,
    /// The memory of both ends when it was over.
    pub resident_bytes: u64,
    /// From a visitor's connect to the service's first byte.
    pub latency: Histogram,
    /// Visitors that got none.
    pub errors: u64,
}

impl Outcome {
    /// Works the figures out.
    pub fn report(&self, plan: &Plan) -> Report {
        let seconds = self.elapsed.as_secs_f64();
        let cpu_us = self.cpu.as_secs_f64() * 1e6;
        let visitors = self.latency.total() as f64;
        let mut fields = vec![
            ("conns", plan.conns as f64),
            ("gap_ms", plan.gap.as_millis() as f64),
            ("seconds", seconds),
            ("per_s", visitors / seconds),
            ("p50_us", self.latency.quantile_us(0.5)),
            ("p99_us", self.latency.quantile_us(0.99)),
            ("max_us", self.latency.max_us()),
        ];
        if !plan.pids.is_empty() {
            fields.push(("cpu_us", ratio(cpu_us, visitors)));
            fields.push(("cpu_percent", cpu_us / 1e4 / seconds));
            fields.push(("rss_kib", (self.resident_bytes / 1024) as f64));
        }
        let percent = self.own_cpu.as_secs_f64() / seconds * 100.0;
        fields.push(("load_percent", percent));
        fields.push(("errors", self.errors as f64));
        Report::of("tunnel-first", fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::plan::tests::plan;

    #[test]
    fn a_visitor_costs_its_share_of_both_ends() {
        let plan = plan("first -t 127.0.0.1:1 -b 127.0.0.1:2 -p 1,2").unwrap();
        let mut latency = Histogram::new();
        (0..1000).for_each(|_| latency.record(Duration::from_micros(50)));
        let outcome = Outcome {
            elapsed: Duration::from_secs(2),
            cpu: Duration::from_millis(100),
            own_cpu: Duration::from_millis(500),
            resident_bytes: 4096,
            latency,
            errors: 0,
        };
        let line = outcome.report(&plan).line();
        assert!(line.contains(" per_s=500 "), "{line}");
        assert!(
            line.contains(" cpu_us=100 cpu_percent=5 rss_kib=4 "),
            "{line}"
        );
        assert!(line.ends_with(" load_percent=25 errors=0"), "{line}");
    }
}
