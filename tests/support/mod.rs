//! What the black-box tests stand on: the real binary started on free ports, a raw wire of our
//! own, backends, and the kernel's view of a process. Nothing here uses the product's code, so
//! that a mistake in its codec cannot hide behind the same mistake in the test.
#![allow(dead_code)]

pub mod admin;
pub mod backend;
pub mod bulk;
pub mod bystander;
pub mod chain;
pub mod command;
pub mod folder;
pub mod frame;
pub mod gateway;
pub mod kernel;
pub mod node;
pub mod notify;
pub mod peer;
pub mod reference;
pub mod roles;
pub mod route;
pub mod server;
pub mod tunnel;
pub mod vector;
pub mod window;

use std::time::{Duration, Instant};

/// How long any wait may take before the test gives up. Generous, because no outcome hangs on it:
/// it only turns a hang into a failure.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Polls until `holds` is true; fails with `what` when the deadline passes first.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < DEADLINE,
            "{what}: not within {DEADLINE:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
