//! Golden values, the properties that the proofs need, and what the policy promises to an operator.

mod evalues;
mod policy;
mod state;

use switchback_policy::rollback::{Bucket, Metric, Slice, Step, Tally, Window};

/// `n` observations with this many events.
pub(super) fn tally(n: u64, events: u64) -> Tally {
    Tally { n, sum: events as f64, sumsq: events as f64 }
}

pub(super) fn metric(id: &str, candidate: Tally, control: Tally) -> Metric {
    Metric { id: id.to_owned(), candidate, control, candidate_groups: Vec::new(), control_groups: Vec::new() }
}

/// A traffic slice of one second with errors, 50 requests of the candidate and 450 of control, at 10 %.
pub(super) fn traffic(index: u64, candidate_errors: u64, control_errors: u64) -> Window {
    Window {
        index,
        length_ms: 1_000,
        slice: Slice::Traffic,
        step: Step { index: 0, share_ppm: 100_000, is_last: false },
        share_ppm: Some(100_000),
        candidate_requests: 50,
        control_requests: 450,
        metrics: vec![metric("errors", tally(50, candidate_errors), tally(450, control_errors))],
        latency: vec![
            Bucket { upper_micros: 30_000, candidate: 45, control: 405 },
            Bucket { upper_micros: 100_000, candidate: 5, control: 45 },
        ],
    }
}

/// The engagement slice beside it, with these clicks of 50 and 450 answers.
pub(super) fn engagement(index: u64, candidate_clicks: u64, control_clicks: u64) -> Window {
    let metrics = vec![metric("clicks", tally(50, candidate_clicks), tally(450, control_clicks))];
    Window { slice: Slice::Engagement, metrics, latency: Vec::new(), ..traffic(index, 0, 0) }
}

/// A seeded source of numbers from 0 to 1.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn events(&mut self, n: u64, p: f64) -> u64 {
        (0..n).filter(|_| self.next() < p).count() as u64
    }
}
