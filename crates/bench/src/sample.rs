//! Latencies and rates.

use std::time::{Duration, Instant};

use serde::Serialize;

/// The percentiles of one latency, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Sums up latencies; there is at least one.
pub(crate) fn percentiles(mut samples: Vec<Duration>) -> Percentiles {
    samples.sort_unstable();
    let at = |percent: usize| {
        let index = (samples.len() * percent / 100).min(samples.len() - 1);
        samples[index].as_secs_f64() * 1e3
    };
    Percentiles { p50_ms: at(50), p95_ms: at(95), p99_ms: at(99) }
}

/// The number of events in a second.
pub(crate) fn per_second(amount: f64, since: Instant) -> f64 {
    amount / since.elapsed().as_secs_f64()
}
