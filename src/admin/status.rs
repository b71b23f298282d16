//! What is told as JSON.

use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::Grounds;
use super::response::{Refusal, Response};
use crate::control::{Kept, Leased, PoolFigures, Refused};
use crate::net::Load;
use crate::session::{RouteRow, Transport};
use crate::stats::{self, Counters, Gauge, Held, Reason, RoleFigures, Source, TABLE};
use crate::worker::Row;

/// `/status`; without pools when the control thread has not answered.
pub(super) fn whole(grounds: &Grounds, pools: Option<&[PoolFigures]>, now: Instant) -> Value {
    let cores = || grounds.counters.iter().map(AsRef::as_ref);
    let roles = stats::sum_roles(cores());
    let uptime = now.saturating_duration_since(grounds.started);
    let shown = grounds.panel.shown();
    let listeners = shown.listeners.iter().map(|listen| {
        json!({
            "role": listen.role,
            "name": listen.to_string(),
            "address": listen.address.to_string(),
            "transport": match listen.transport {
                Transport::Stream => "tcp",
                Transport::Datagram => "udp",
            },
        })
    });
    let workers = grounds.counters.iter().enumerate();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": seconds(uptime),
        "phase": phase(grounds),
        "sessions": roles.iter().map(|role| role.open).sum::<u64>(),
        "connections": {
            "open": stats::sum_held(cores(), Held::Connections),
            "used": grounds.quota.used(),
            "max": grounds.quota.most(),
        },
        "overload": overload(&grounds.load),
        "roles": roles.iter().map(role).collect::<Vec<_>>(),
        "listeners": listeners.collect::<Vec<_>>(),
        "workers": workers.map(|(core, counters)| worker(core, counters)).collect::<Vec<_>>(),
        "leases": pools.map(|pools| pools.iter().map(pool).collect::<Vec<_>>()),
        "routes": shown.routes.len(),
        "config": config(grounds),
        "store": store(grounds),
        "partial": pools.is_none(),
    })
}

fn config(grounds: &Grounds) -> Value {
    let [reloads, failed] = grounds.panel.reloads();
    let read = grounds.panel.configured();
    json!({ "read_unix": seconds(read), "reloads": reloads, "failed_reloads": failed })
}

/// The step of the ladder, and what it comes from.
fn overload(load: &Load) -> Value {
    let (used, most) = (load.used(), load.most());
    json!({
        "level": load.level().word(),
        "descriptors": used.descriptors,
        "descriptors_max": most.descriptors,
        "buffer_bytes": used.memory,
        "buffer_bytes_max": most.memory,
    })
}

fn phase(grounds: &Grounds) -> &'static str {
    if grounds.phase.is_ending() {
        "draining"
    } else {
        "serving"
    }
}

fn role(role: &RoleFigures) -> Value {
    let ended: Map<String, Value> = Reason::ALL
        .iter()
        .filter(|reason| role.ended[**reason as usize] > 0)
        .map(|reason| {
            (
                reason.word().to_owned(),
                role.ended[*reason as usize].into(),
            )
        })
        .collect();
    json!({
        "role": role.name,
        "open": role.open,
        "opened": role.opened,
        "ended": ended,
        "bytes_up": role.moved[0],
        "bytes_down": role.moved[1],
    })
}

fn worker(core: usize, counters: &Counters) -> Value {
    let mut told = Map::new();
    told.insert("core".into(), core.into());
    for about in TABLE {
        let name = about.name.trim_start_matches("towpath_");
        match about.source {
            Source::Count(metric) => {
                told.insert(
                    name.trim_end_matches("_total").into(),
                    counters.get(metric).into(),
                );
            }
            Source::Held(what) => {
                let name = name.trim_start_matches("core_");
                told.insert(name.into(), counters.held(what).into());
            }
            Source::Refused => {
                let some = |why: &stats::Refusal| counters.refused(*why) > 0;
                let refused = stats::Refusal::ALL.into_iter().filter(some);
                let refused: Map<String, Value> = refused
                    .map(|why| (why.word().to_owned(), counters.refused(why).into()))
                    .collect();
                told.insert("refused".into(), refused.into());
            }
            _ => {}
        }
    }
    Value::Object(told)
}

fn pool(pool: &PoolFigures) -> Value {
    json!({
        "pool": pool.pool,
        "first": pool.ports.0,
        "last": pool.ports.1,
        "leased": pool.leased,
        "free": pool.free,
        "lease_seconds": seconds(pool.lease),
    })
}

/// `/store`.
pub(super) fn store(grounds: &Grounds) -> Value {
    json!({
        "records": whole_figure(grounds, Gauge::StoreRecords) as u64,
        "bytes": whole_figure(grounds, Gauge::StoreBytes) as u64,
    })
}

/// A figure of the server as a whole.
pub(super) fn whole_figure(grounds: &Grounds, what: Gauge) -> f64 {
    match what {
        Gauge::Build => 1.0,
        Gauge::Start => grounds.started_unix.as_secs_f64(),
        Gauge::Draining => f64::from(u8::from(grounds.phase.is_ending())),
        Gauge::Workers => grounds.counters.len() as f64,
        Gauge::MostConnections => grounds.quota.most() as f64,
        Gauge::Overload => f64::from(grounds.load.level() as u8),
        Gauge::Descriptors => grounds.load.used().descriptors as f64,
        Gauge::MostDescriptors => grounds.load.most().descriptors as f64,
        Gauge::Places => grounds.quota.used().min(grounds.quota.most()) as f64,
        Gauge::AccessWritten => grounds.access.written.load(Ordering::Relaxed) as f64,
        Gauge::AccessDropped => grounds.access.dropped.load(Ordering::Relaxed) as f64,
        Gauge::AccessFailed => grounds.access.failed.load(Ordering::Relaxed) as f64,
        Gauge::StoreRecords => grounds.memory.records() as f64,
        Gauge::StoreBytes => grounds.memory.bytes() as f64,
        Gauge::Configured => grounds.panel.configured().as_secs_f64(),
    }
}

/// `/sessions`; `next` is where to go on.
pub(super) fn sessions(rows: &[Row], next: Option<String>, partial: bool) -> Value {
    let rows: Vec<_> = rows.iter().map(session).collect();
    json!({ "sessions": rows, "next": next, "partial": partial })
}

fn session(row: &Row) -> Value {
    json!({
        "id": row.id.to_string(),
        "role": row.role,
        "listener": row.listener,
        "peer": row.peer.map(|peer| peer.to_string()),
        "about": row.words,
        "age_seconds": seconds(row.age),
        "bytes_up": row.moved[0],
        "bytes_down": row.moved[1],
        "connections": row.connections,
        "own": row.own,
    })
}

/// `/leases`.
pub(super) fn leases(rows: &[Leased], more: bool) -> Value {
    let last = rows.last().filter(|_| more);
    let next = last.map(|row| format!("{}:{}", row.pool, row.port));
    let row = |row: &Leased| {
        json!({
            "pool": row.pool,
            "port": row.port,
            "owner": row.owner,
            "epoch": row.epoch,
            "session": row.holder.map(|holder| holder.to_string()),
            "pinned": row.pinned,
            "remaining_seconds": row.remaining.map(seconds),
        })
    };
    json!({ "leases": rows.iter().map(row).collect::<Vec<_>>(), "next": next })
}

/// What became of a lease that was to be changed.
pub(super) fn changed(release: bool, outcome: Result<Kept, Refused>) -> Response {
    match outcome {
        Ok(kept) if release => Response::json(&json!({ "released": true, "was_held": kept.held })),
        Ok(_) => Response::json(&json!({ "done": true })),
        Err(Refused::NoPool) => Refusal::new(404, "no pool has this name").into(),
        Err(Refused::NotLent) => Refusal::new(404, "this port is not lent").into(),
        Err(Refused::NotNow(why)) => Refusal::new(503, why).into(),
        Err(Refused::NotStored(why)) => {
            let why = format!("done, but the disk did not take it and is tried again: {why}");
            Refusal::new(503, why).into()
        }
    }
}

/// `/routes`.
pub(super) fn routes(rows: &[&RouteRow]) -> Value {
    let row = |row: &&RouteRow| {
        let mut told = json!({
            "role": row.role,
            "name": row.name,
            "field": row.field,
            "to": row.to,
            "token": row.guarded.is_some(),
        });
        for (key, value) in &row.settings {
            told[*key] = value.as_str().into();
        }
        told
    };
    json!({ "routes": rows.iter().map(row).collect::<Vec<_>>() })
}

/// To the millisecond: more digits say nothing.
fn seconds(time: std::time::Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}
