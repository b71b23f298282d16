//! The figures of one run, as one line of `name=value` or as JSON; both have the same names.

use std::time::Duration;

use crate::args::{Mode, Plan};
use crate::meter::Meter;
use crate::usage::Usage;

/// Names and values, in the order in which they are printed.
pub struct Report {
    mode: &'static str,
    fields: Vec<(&'static str, f64)>,
}

impl Report {
    /// Of figures that were worked out elsewhere.
    pub fn of(mode: &'static str, fields: Vec<(&'static str, f64)>) -> Self {
        Self { mode, fields }
    }

    /// Works the figures out. `usage` holds the CPU of the window and the memory at its end; `each` the
    /// CPU of every process, if that is wanted; `grown` how much memory the server took since before the
    /// first connection.
    pub fn new(
        plan: &Plan,
        meter: &Meter,
        elapsed: Duration,
        usage: Usage,
        each: &[Duration],
        grown: u64,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let cpu = usage.cpu.as_secs_f64();
        let measured = !plan.pids.is_empty();
        let mut fields = vec![
            ("conns", plan.conns as f64),
            ("size", plan.size as f64),
            ("seconds", seconds),
        ];
        if matches!(plan.mode, Mode::Bulk { .. } | Mode::Fair) {
            // Without a backend of our own nobody counts what arrives there.
            let moved = match plan.backend {
                Some(_) => meter.received,
                None => meter.sent + meter.received,
            };
            let gb = moved as f64 / 1e9;
            fields.push(("gb_per_s", gb / seconds));
            if measured && plan.mode != Mode::Fair {
                fields.push(("cpu_s_per_gb", ratio(cpu, gb)));
                fields.extend(shares(each, |cpu| ratio(cpu, gb)));
            }
        }
        if meter.latency.total() > 0 {
            fields.extend([
                ("per_s", meter.operations as f64 / seconds),
                ("p50_us", meter.latency.quantile_us(0.5)),
                ("p99_us", meter.latency.quantile_us(0.99)),
                ("p999_us", meter.latency.quantile_us(0.999)),
                ("max_us", meter.latency.max_us()),
            ]);
            if measured && plan.mode != Mode::Fair {
                let operations = meter.operations as f64;
                fields.push(("cpu_us", ratio(cpu * 1e6, operations)));
                fields.extend(shares(each, |cpu| ratio(cpu * 1e6, operations)));
            }
        }
        if plan.mode == Mode::Idle {
            fields.push(("bytes_per_pair", grown as f64 / plan.conns as f64));
        }
        if measured {
            fields.push(("cpu_percent", cpu / seconds * 100.0));
            fields.push(("rss_kib", (usage.resident_bytes / 1024) as f64));
        }
        fields.push(("errors", meter.errors as f64));
        Self {
            mode: name(plan.mode),
            fields,
        }
    }

    /// `mode=bulk conns=8 ...`
    pub fn line(&self) -> String {
        let mut line = format!("mode={}", self.mode);
        for (name, value) in &self.fields {
            line.push_str(&format!(" {name}={}", number(*value)));
        }
        line
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        let mut object = serde_json::Map::new();
        object.insert("mode".into(), self.mode.into());
        for (name, value) in &self.fields {
            object.insert((*name).into(), (*value).into());
        }
        serde_json::Value::Object(object).to_string()
    }
}

/// The CPU of each of the first processes, in the unit that `share` makes of its seconds.
pub fn shares<'a>(
    cpu: &'a [Duration],
    share: impl Fn(f64) -> f64 + 'a,
) -> impl Iterator<Item = (&'static str, f64)> + 'a {
    let names = ["cpu_1", "cpu_2", "cpu_3", "cpu_4"];
    let cpu = cpu.iter().map(move |cpu| share(cpu.as_secs_f64()));
    names.into_iter().zip(cpu)
}

/// 0 when there was nothing to divide by: a run that moved nothing has no cost per unit.
pub fn ratio(sum: f64, count: f64) -> f64 {
    if count > 0.0 { sum / count } else { 0.0 }
}

/// Whole numbers without a point, others with three digits behind it.
fn number(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Bulk { both: false } => "bulk",
        Mode::Bulk { both: true } => "bulk-both",
        Mode::PingPong => "pingpong",
        Mode::Connect => "connect",
        Mode::Idle => "idle",
        Mode::Fair => "fair",
        Mode::Store(_) => "store",
        Mode::Backend => "backend",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Invocation, parse};
    use crate::meter::Bench;

    fn report(line: &str, fill: impl FnOnce(&mut Meter)) -> Report {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        let Ok(Invocation::Run(plan)) = parse(&words) else {
            panic!("{line}");
        };
        let mut bench = Bench::new(&plan);
        fill(&mut bench.meter);
        let usage = Usage {
            cpu: Duration::from_secs(1),
            resident_bytes: 2048,
        };
        let each = [Duration::from_millis(750), Duration::from_millis(250)];
        let each = if plan.each { &each[..] } else { &[] };
        Report::new(
            &plan,
            &bench.meter,
            Duration::from_secs(2),
            usage,
            each,
            640,
        )
    }

    #[test]
    fn bulk_costs_are_per_gigabyte_received() {
        let report = report("bulk -t 127.0.0.1:1 -b 127.0.0.1:2 -p 1", |meter| {
            meter.received = 4_000_000_000;
            meter.sent = 9;
        });
        let line = report.line();
        assert!(line.contains(" gb_per_s=2 cpu_s_per_gb=0.250 "), "{line}");
        assert!(
            line.contains(" cpu_percent=50 rss_kib=2 errors=0"),
            "{line}"
        );
    }

    #[test]
    fn operations_cost_microseconds_each() {
        let report = report("pingpong -t 127.0.0.1:1 -p 1", |meter| {
            meter.operations = 1000;
            meter.latency.record(Duration::from_micros(5));
        });
        assert!(report.line().contains(" per_s=500 "));
        assert!(report.json().contains("\"cpu_us\":1000.0"));
    }

    #[test]
    fn each_hop_has_its_share() {
        let words = "chain pingpong -t 127.0.0.1:1 -b 127.0.0.1:2 --straight -p 1,2";
        let report = report(words, |meter| {
            meter.operations = 1000;
            meter.latency.record(Duration::from_micros(5));
        });
        let line = report.line();
        assert!(line.contains(" cpu_us=1000 cpu_1=750 cpu_2=250 "), "{line}");
    }

    #[test]
    fn idle_pairs_share_what_the_server_grew_by() {
        let report = report("idle -t 127.0.0.1:1 -p 1 -c 10", |_| {});
        assert!(report.line().contains(" bytes_per_pair=64 "));
    }
}
