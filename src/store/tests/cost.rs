//! What an update costs: a measurement to run by hand, in release.

use std::fs;

use super::super::*;
use super::{ROOMY, Scratch, seeded, set};

/// `cargo test --lib store::tests::cost -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a check"]
fn cost_of_an_update() {
    for (records, keys, size, batches) in [
        (1, 100, 100, 5000),
        (1, 10_000, 100, 5000),
        (1, 10_000, 4096, 2000),
        (64, 100, 100, 2000),
        (64, 1000, 100, 2000),
        (64, 10_000, 100, 2000),
        (64, 200_000, 100, 500),
        (64, 100, 4096, 200),
        (64, 10_000, 4096, 200),
    ] {
        let scratch = Scratch::new();
        let mut store = Store::open(&scratch.0, ROOMY).unwrap();
        let mut random = seeded(3);
        let data = vec![5; size];
        let key = |number: u64| format!("device-{:06}", number % keys);
        for base in 0..keys.div_ceil(1000) {
            let batch: Vec<_> = (0..1000)
                .map(|number| set(key(base * 1000 + number).as_bytes(), b"status", &data))
                .collect();
            assert!(store.apply(&batch, 1).iter().all(Result::is_ok));
        }
        let mut longest = std::time::Duration::ZERO;
        let before = cpu();
        let started = std::time::Instant::now();
        for now in 0..batches {
            let batch: Vec<_> = (0..records)
                .map(|_| set(key(random()).as_bytes(), b"status", &data))
                .collect();
            let since = std::time::Instant::now();
            assert!(store.apply(&batch, now).iter().all(Result::is_ok));
            longest = longest.max(since.elapsed());
        }
        let updates = (batches as u64 * records) as f64;
        let (user, system) = cpu();
        println!(
            "batch {records:3} of {keys:6} keys, value {size:5}: \
             {:6.1} us user {:6.1} us system, {:7.1} us wall per update, longest batch {:.1} ms",
            (user - before.0) / updates,
            (system - before.1) / updates,
            started.elapsed().as_secs_f64() * 1e6 / updates,
            longest.as_secs_f64() * 1e3,
        );
    }
}

/// This thread's CPU time so far in microseconds, in user and in kernel mode.
fn cpu() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap() * 10_000.0;
    (ticks(11), ticks(12))
}
