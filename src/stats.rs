//! Counters of one core: written by its worker alone, read by anyone at any time.
//!
//! A counter is a plain load and store on its own core, never a locked instruction; whoever reads
//! sums over the cores.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Metric {
    /// Connections accepted.
    Accepted,
    /// Connections refused at a cap, closed unheard.
    Shed,
    /// Times a listener rested because no connection could be taken.
    Rested,
    /// Sessions that ended, however.
    Ended,
    /// Sessions that ended by somebody's fault.
    Faulted,
    /// Sessions that panicked.
    Panicked,
    /// Connects begun.
    Dialled,
    /// Connects that failed.
    DialFailed,
    /// Bytes relayed from the first to the second connection of a pair, and back.
    Relayed,
    /// Frames passed on from one connection to another.
    Forwarded,
    /// Frames that their sender was not entitled to send, left without effect.
    Ignored,
    /// Connections that a session closed for what they sent, itself going on.
    Rejected,
    /// Datagrams received.
    DatagramsIn,
    /// Datagrams sent.
    DatagramsOut,
    /// Datagrams dropped: received cut or for a session that has gone, or not sent because there was
    /// no room or the system refused them.
    DatagramsDropped,
    /// Questions that the control thread had no room for.
    Unasked,
    /// Log lines not written because there were too many of their kind.
    Unlogged,
}

const METRICS: usize = Metric::Unlogged as usize + 1;

/// One core's counters.
#[derive(Default)]
pub struct Counters {
    values: [AtomicU64; METRICS],
}

impl Counters {
    /// Adds to a counter. Only the worker that owns the counters may call this.
    pub fn add(&self, metric: Metric, count: u64) {
        let value = &self.values[metric as usize];
        value.store(
            value.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// The counter's value now.
    pub fn get(&self, metric: Metric) -> u64 {
        self.values[metric as usize].load(Ordering::Relaxed)
    }
}

/// A counter's sum over all cores.
pub fn sum<'a>(cores: impl IntoIterator<Item = &'a Counters>, metric: Metric) -> u64 {
    cores.into_iter().map(|core| core.get(metric)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_go_over_all_cores() {
        let cores = [Counters::default(), Counters::default()];
        cores[0].add(Metric::Accepted, 2);
        cores[1].add(Metric::Accepted, 3);
        cores[1].add(Metric::Unlogged, 1);
        assert_eq!(sum(&cores, Metric::Accepted), 5);
        assert_eq!(sum(&cores, Metric::Unlogged), 1);
        assert_eq!(sum(&cores, Metric::Shed), 0);
    }
}
