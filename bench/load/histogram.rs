//! Latencies in buckets of fixed relative width: 64 to each power of two, so that a percentile is
//! right to within 1.6 %. Recording is an index and an addition, whatever was recorded before.

use std::time::Duration;

/// Counts of latencies from 1 ns to about a minute.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Histogram {
    /// Nothing recorded.
    pub fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max_ns: 0,
        }
    }

    /// Adds one latency. What is longer than the last bucket counts there.
    pub fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(ns)) {
            *count += 1;
        }
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many were recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency that `share` (0 to 1) of all stay at or below, in µs; 0 when there are none.
    pub fn quantile_us(&self, share: f64) -> f64 {
        let rank = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle_ns(index).min(self.max_ns) as f64 / 1e3;
            }
        }
        0.0
    }

    /// The longest, exactly, in µs.
    pub fn max_us(&self) -> f64 {
        self.max_ns as f64 / 1e3
    }
}

/// Below 64 a bucket for each number; above, the top seven bits choose it.
fn bucket(ns: u64) -> usize {
    if ns < PER_OCTAVE {
        return ns as usize;
    }
    let shift = ns.ilog2() - PER_OCTAVE.ilog2();
    let index = u64::from(shift) * PER_OCTAVE + (ns >> shift);
    (index as usize).min(BUCKETS - 1)
}

fn middle_ns(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * PER_OCTAVE {
        return index;
    }
    let shift = index / PER_OCTAVE - 1;
    let top = index % PER_OCTAVE + PER_OCTAVE;
    (top << shift) + (1 << shift) / 2
}

const PER_OCTAVE: u64 = 64;
const OCTAVES: usize = 31;
const BUCKETS: usize = OCTAVES * PER_OCTAVE as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lies_within_two_percent_of_what_falls_into_it() {
        for ns in (0..200).chain((1..35).flat_map(|bit| [(1 << bit) - 1, 1 << bit, 3 << (bit - 1)]))
        {
            let middle = middle_ns(bucket(ns));
            assert!(
                middle.abs_diff(ns) * 50 <= ns,
                "{ns} ns is put down as {middle}"
            );
        }
    }

    #[test]
    fn quantiles_of_a_ramp() {
        let mut histogram = Histogram::new();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        assert_eq!(histogram.total(), 1000);
        for (share, us) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let got = histogram.quantile_us(share);
            assert!((got - us).abs() <= us * 0.02, "{share}: {got}");
        }
        assert_eq!(histogram.max_us(), 1000.0);
    }

    #[test]
    fn nothing_and_too_much_do_not_break_it() {
        assert_eq!(Histogram::new().quantile_us(0.5), 0.0);
        let mut histogram = Histogram::new();
        histogram.record(Duration::from_secs(86_400));
        assert!(histogram.quantile_us(0.5) > 6e7);
    }
}
