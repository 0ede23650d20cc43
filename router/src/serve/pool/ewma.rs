//! Peak EWMA: an endpoint's latency, quick to rise and slow to fall. Pure.
//!
//! A plain average needs many slow answers before it notices that an endpoint stalls; the peak takes the first. Least-loaded
//! by connections alone would send everything to an endpoint that fails fast.

use std::time::Duration;

use tokio::time::Instant;

/// How fast old latencies are forgotten: after this, 63 % of a peak is gone.
const DECAY: Duration = Duration::from_secs(3);

/// What a new endpoint is taken for: not so good that it gets everything, not so bad that it gets nothing.
const FIRST_GUESS_MICROS: f64 = 5_000.0;

/// An endpoint's expected latency.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeakEwma {
    micros: f64,
    at: Instant,
}

impl PeakEwma {
    pub(super) fn new(now: Instant) -> PeakEwma {
        PeakEwma { micros: FIRST_GUESS_MICROS, at: now }
    }

    /// Takes in one latency: at once when it is above the expectation, by its weight in time when below.
    pub(super) fn observe(self, latency: Duration, now: Instant) -> PeakEwma {
        let sample = latency.as_secs_f64() * 1e6;
        let micros = if sample >= self.micros {
            sample
        } else {
            let kept = self.kept(now);
            self.micros * kept + sample * (1.0 - kept)
        };
        PeakEwma { micros, at: now }
    }

    /// The expectation now. It fades while nothing is observed, so that an endpoint that was slow gets another try.
    pub(super) fn micros(self, now: Instant) -> f64 {
        let idle = now.saturating_duration_since(self.at);
        if idle < Duration::from_millis(100) { self.micros.max(1.0) } else { (self.micros * self.kept(now)).max(1.0) }
    }

    fn kept(self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.at).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_answer_counts_at_once() {
        let now = Instant::now();
        let ewma = PeakEwma::new(now).observe(MS * 200, now);
        assert!((ewma.micros(now) - 200_000.0).abs() < 1.0);
    }

    #[test]
    fn a_quick_answer_after_a_slow_one_does_not_clear_it() {
        let now = Instant::now();
        let ewma = PeakEwma::new(now).observe(MS * 200, now).observe(MS, now + MS);
        assert!(ewma.micros(now + MS) > 190_000.0);
    }

    #[test]
    fn an_endpoint_that_was_slow_gets_another_try() {
        let now = Instant::now();
        let ewma = PeakEwma::new(now).observe(MS * 200, now);
        assert!(ewma.micros(now + DECAY * 6) < 1_000.0);
    }

    #[test]
    fn steady_latencies_are_learnt() {
        let start = Instant::now();
        let mut ewma = PeakEwma::new(start);
        for second in 0..60 {
            ewma = ewma.observe(MS * 3, start + Duration::from_secs(second));
        }
        assert!((ewma.micros(start + Duration::from_secs(59)) - 3_000.0).abs() < 50.0);
    }
}
