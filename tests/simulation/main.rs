//! The worker under simulation: the shipping engine and the shipping roles over a scripted network
//! with a virtual clock, driven by a seed.
//!
//! A failing run names its seed; `TOWPATH_SEED=N cargo test --test simulation` replays it alone,
//! and `TOWPATH_SEEDS=N` runs that many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod access;
mod agent;
mod bulk;
mod chain;
mod crowd;
mod datagrams;
mod engine;
mod entry;
mod gateway;
mod house;
mod lazy;
mod leases;
mod letters;
mod node;
mod orders;
mod pacing;
mod random;
mod renewal;
mod row;
mod tunnel;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs `run` for many seeds, or for the one that is asked for, and names the seed that fails.
/// With `RUST_LOG=info` the engine's log tells why sessions ended.
fn seeds(usual: u64, run: impl Fn(u64)) {
    let _ = env_logger::builder().is_test(true).try_init();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let range = match number("TOWPATH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("TOWPATH_SEEDS").unwrap_or(usual) + 1,
    };
    for seed in range {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("failed with TOWPATH_SEED={seed}");
            resume_unwind(panic);
        }
    }
}
