//! Fixed thresholds, as Flagger has them: a success rate and a p99, judged anew every few seconds.
//!
//! **Unsound under repeated looks.** A good candidate that is looked at once a minute for a day gives a threshold 1,440 chances to be
//! crossed by luck; and a candidate that is far worse than control, but within the threshold, passes. There is no control: an outage
//! that both roles share rolls back. It is here for those who want that behaviour; `rollback-guardrail` is the default.

mod config;

use switchback_policy::rollback::{Evidence, Outcome, RollbackPolicy, Slice, Verdict, Window};

pub use config::{Config, Problem, check};

/// What a state begins with: whose it is, and the layout of the rest.
const MARK: [u8; 4] = *b"SBT\x01";
/// Numbers in a state.
const FIELDS: usize = 7;
/// Latency buckets that are remembered.
const MOST_BUCKETS: usize = 1_024;

/// The policy.
pub struct Threshold;

/// Counts of the interval under way, and checks so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    next: u64,
    step: u64,
    ms: u64,
    requests: u64,
    failed: u64,
    /// Failed checks in a row, and passed ones, of this step.
    failed_checks: u64,
    passed_checks: u64,
    /// The candidate's latencies in this interval, by upper edge.
    latency: Vec<(u64, u64)>,
}

impl RollbackPolicy for Threshold {
    fn evaluate(config: &str, state: &[u8], window: &Window) -> Result<Outcome, String> {
        let config = check(config).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            problems.join("; ")
        })?;
        let mut state = State::from_bytes(state)?;
        if window.slice == Slice::Engagement {
            let summary = "hold: thresholds are for traffic".to_owned();
            return Ok(Outcome { verdict: Verdict::Hold, summary, evidence: Vec::new(), state: state.to_bytes() });
        }
        if window.index < state.next {
            return Err(format!("window {} was judged before: the next one is {}", window.index, state.next));
        }
        state.add(window)?;
        let (verdict, summary, evidence) = state.verdict(&config);
        Ok(Outcome { verdict, summary, evidence, state: state.to_bytes() })
    }
}

switchback_policy::export_rollback_policy!(Threshold);

impl State {
    fn add(&mut self, window: &Window) -> Result<(), String> {
        self.next = window.index.saturating_add(1);
        // 0 is "no step was seen".
        let step = u64::from(window.step.index) + 1;
        if self.step != step {
            *self = State { next: self.next, step, ..State::default() };
        }
        self.ms = self.ms.saturating_add(u64::from(window.length_ms));
        self.requests = self.requests.saturating_add(window.candidate_requests);
        for metric in window.metrics.iter().filter(|metric| matches!(metric.id.as_str(), "errors" | "timeouts")) {
            let sum = metric.candidate.sum;
            if !(0.0..=1e15).contains(&sum) {
                return Err(format!("{} has sum = {sum}: must be a number from 0 to 1e15", metric.id));
            }
            self.failed = self.failed.saturating_add(sum as u64);
        }
        for bucket in window.latency.iter().filter(|bucket| bucket.candidate > 0) {
            match self.latency.binary_search_by_key(&bucket.upper_micros, |(edge, _)| *edge) {
                Ok(at) => {
                    if let Some((_, count)) = self.latency.get_mut(at) {
                        *count = count.saturating_add(bucket.candidate);
                    }
                }
                Err(_) if self.latency.len() == MOST_BUCKETS => return Err(format!("more than {MOST_BUCKETS} latency buckets")),
                Err(at) => self.latency.insert(at, (bucket.upper_micros, bucket.candidate)),
            }
        }
        Ok(())
    }

    fn verdict(&mut self, config: &Config) -> (Verdict, String, Vec<Evidence>) {
        if self.ms < config.interval_ms {
            return (Verdict::Hold, format!("hold: the next check is after {} ms", config.interval_ms), Vec::new());
        }
        let (requests, success, p99) = (self.requests, self.success_rate(), self.p99_ms());
        let is_good = success >= config.min_success_rate && p99 <= config.max_p99_ms;
        let (failed, passed) = match (requests < config.min_samples, is_good) {
            (true, _) => (self.failed_checks, self.passed_checks),
            (false, true) => (0, self.passed_checks.saturating_add(1)),
            (false, false) => (self.failed_checks.saturating_add(1), self.passed_checks),
        };
        *self = State { next: self.next, step: self.step, failed_checks: failed, passed_checks: passed, ..State::default() };
        if requests < config.min_samples {
            return (Verdict::NoData, format!("no data: {requests} of {} requests in this interval", config.min_samples), Vec::new());
        }
        let figures = format!("{:.2} % of {requests} succeeded, p99 {p99:.1} ms", success * 100.0);
        let evidence = vec![plain("success-rate", success - config.min_success_rate), plain("p99", config.max_p99_ms - p99)];
        if failed >= config.failed_checks {
            let limits = format!("{:.2} % and {:.1} ms", config.min_success_rate * 100.0, config.max_p99_ms);
            return (
                Verdict::RollBack,
                format!("roll back: {figures}; beyond the thresholds of {limits} {failed} times in a row"),
                evidence,
            );
        }
        if is_good && passed >= config.passed_checks {
            return (Verdict::Advance, format!("advance: {figures}; {passed} checks passed"), evidence);
        }
        (Verdict::Hold, format!("hold: {figures}; {passed} checks passed, {failed} failed"), evidence)
    }

    fn success_rate(&self) -> f64 {
        if self.requests == 0 { 1.0 } else { 1.0 - self.failed.min(self.requests) as f64 / self.requests as f64 }
    }

    /// The upper edge of the bucket that holds the 99th of 100, in milliseconds.
    fn p99_ms(&self) -> f64 {
        let total: u64 = self.latency.iter().fold(0, |total, (_, count)| total.saturating_add(*count));
        let mut below = 0_u64;
        for (edge, count) in &self.latency {
            below = below.saturating_add(*count);
            if below as f64 >= 0.99 * total as f64 {
                return *edge as f64 / 1e3;
            }
        }
        0.0
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MARK.to_vec();
        for number in [self.next, self.step, self.ms, self.requests, self.failed, self.failed_checks, self.passed_checks] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (edge, count) in &self.latency {
            bytes.extend_from_slice(&edge.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<State, String> {
        if bytes.is_empty() {
            return Ok(State::default());
        }
        let rest = bytes.strip_prefix(&MARK).ok_or("the state is not one of rollback-threshold, version 1")?;
        let (words, odd) = rest.as_chunks::<8>();
        let numbers: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let Some(([next, step, ms, requests, failed, failed_checks, passed_checks], latency)) = numbers.split_first_chunk::<FIELDS>()
        else {
            return Err(format!("the state has {} bytes: it is cut off", bytes.len()));
        };
        let (pairs, half) = latency.as_chunks::<2>();
        let is_sorted = pairs.windows(2).all(|two| matches!(two, [[a, _], [b, _]] if a < b));
        if !odd.is_empty() || !half.is_empty() || pairs.len() > MOST_BUCKETS || !is_sorted {
            return Err(format!("the state has {} bytes, of which the latencies make no sense", bytes.len()));
        }
        let latency = pairs.iter().map(|[edge, count]| (*edge, *count)).collect();
        Ok(State {
            next: *next,
            step: *step,
            ms: *ms,
            requests: *requests,
            failed: *failed,
            failed_checks: *failed_checks,
            passed_checks: *passed_checks,
            latency,
        })
    }
}

fn plain(metric: &str, difference: f64) -> Evidence {
    Evidence { metric: metric.to_owned(), log_harm: 0.0, log_safe: None, difference, low: difference, high: difference }
}

#[cfg(test)]
mod tests;
