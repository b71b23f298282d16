//! The text that Prometheus reads: every metric of [`TABLE`] with its help, its type and its series.

use std::fmt::{self, Write};

use super::Grounds;
use super::response::Response;
use super::status::whole_figure;
use crate::control::PoolFigures;
use crate::stats::{
    self, About, Counters, Gauge, Metric, Reason, Refusal, RoleFigures, Source, TABLE,
};

/// `/metrics`; without series of pools when the control thread has not answered.
pub(super) fn response(grounds: &Grounds, pools: &[PoolFigures]) -> Response {
    let cores: Vec<&Counters> = grounds.counters.iter().map(AsRef::as_ref).collect();
    let whole = |what| whole_figure(grounds, what);
    let mut text = String::new();
    // Writing to a text fails only where memory ends.
    let reloads = grounds.panel.reloads();
    let _ = write_all(&mut text, &cores, pools, reloads, &whole);
    Response::text("text/plain; version=0.0.4; charset=utf-8", &text)
}

fn write_all(
    out: &mut String,
    cores: &[&Counters],
    pools: &[PoolFigures],
    reloads: [u64; 2],
    whole: &dyn Fn(Gauge) -> f64,
) -> fmt::Result {
    let roles = stats::sum_roles(cores.iter().copied());
    for about in TABLE {
        let (name, kind) = (about.name, about.kind.word());
        writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", about.help)?;
        if about.source == Source::Reloads {
            for (outcome, count) in ["ok", "failed"].iter().zip(reloads) {
                writeln!(out, "{name}{{outcome=\"{outcome}\"}} {count}")?;
            }
        }
        series(out, about, cores, &roles, pools, whole)?;
    }
    Ok(())
}

fn series(
    out: &mut String,
    about: &About,
    cores: &[&Counters],
    roles: &[RoleFigures],
    pools: &[PoolFigures],
    whole: &dyn Fn(Gauge) -> f64,
) -> fmt::Result {
    let name = about.name;
    match about.source {
        Source::Count(metric) => {
            for (core, counters) in cores.iter().enumerate() {
                writeln!(out, "{name}{{core=\"{core}\"}} {}", counters.get(metric))?;
            }
        }
        Source::Held(what) => {
            for (core, counters) in cores.iter().enumerate() {
                writeln!(out, "{name}{{core=\"{core}\"}} {}", counters.held(what))?;
            }
        }
        // Written by who has called.
        Source::Reloads => {}
        Source::LogDropped => {
            let lines = stats::sum(cores.iter().copied(), Metric::Unlogged) + stats::lost_lines();
            let records = whole(Gauge::AccessDropped);
            writeln!(
                out,
                "{name}{{log=\"server\"}} {lines}\n{name}{{log=\"access\"}} {records}"
            )?;
        }
        Source::Whole(Gauge::Build) => {
            writeln!(out, "{name}{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))?;
        }
        Source::Whole(what) => writeln!(out, "{name} {}", whole(what))?,
        Source::Refused => {
            for (core, counters) in cores.iter().enumerate() {
                for why in Refusal::ALL {
                    let (word, count) = (why.word(), counters.refused(why));
                    writeln!(out, "{name}{{core=\"{core}\",reason=\"{word}\"}} {count}")?;
                }
            }
        }
        Source::RoleOpened | Source::RoleOpen => {
            for role in roles {
                let value = match about.source {
                    Source::RoleOpen => role.open,
                    _ => role.opened,
                };
                writeln!(out, "{name}{{role=\"{}\"}} {value}", role.name)?;
            }
        }
        Source::RoleEnded => {
            for role in roles {
                for (reason, count) in Reason::ALL.iter().zip(role.ended) {
                    let (role, reason) = (role.name, reason.word());
                    writeln!(out, "{name}{{role=\"{role}\",reason=\"{reason}\"}} {count}")?;
                }
            }
        }
        Source::RoleMoved => {
            for role in roles {
                for (way, count) in ["up", "down"].iter().zip(role.moved) {
                    let role = role.name;
                    writeln!(out, "{name}{{role=\"{role}\",direction=\"{way}\"}} {count}")?;
                }
            }
        }
        Source::PoolLeased | Source::PoolFree => {
            for pool in pools {
                let value = match about.source {
                    Source::PoolFree => pool.free,
                    _ => pool.leased,
                };
                writeln!(out, "{name}{{pool=\"{}\"}} {value}", pool.pool)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_metric_is_told_once_with_its_type_and_no_series_twice() {
        let cores = [Counters::new(&["agent"]), Counters::new(&["agent"])];
        cores[1].add(Metric::Accepted, 3);
        let pools = [PoolFigures {
            pool: "node/tcp",
            ports: (1, 2),
            leased: 1,
            free: 1,
            lease: std::time::Duration::ZERO,
        }];
        let mut text = String::new();
        let cores: Vec<_> = cores.iter().collect();
        write_all(&mut text, &cores, &pools, [1, 2], &|_| 1.5).unwrap();
        assert!(
            text.contains("\ntowpath_accepted_total{core=\"1\"} 3\n"),
            "{text}"
        );
        assert!(
            text.contains("{role=\"agent\",reason=\"kicked\"} 0\n"),
            "{text}"
        );
        assert!(
            text.contains("towpath_leases{pool=\"node/tcp\"} 1\n"),
            "{text}"
        );
        let mut seen = HashSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(
                value.parse::<f64>().is_ok() && seen.insert(series),
                "{line}"
            );
        }
        for about in TABLE {
            let kind = format!("# TYPE {} {}\n", about.name, about.kind.word());
            assert_eq!(text.matches(&kind).count(), 1, "{}", about.name);
        }
    }
}
