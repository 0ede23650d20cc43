//! Whether the comparison is sound at all: the shares are as configured, and both arms report quality alike.
//!
//! Neither ever rolls back: the split or the reporting may be at fault, not the model.

use switchback_policy::rollback::Window;

use crate::bytes::{Reader, Writer};
use crate::config::Config;
use crate::kernels::{self, Arm, Arms, COVERAGE_RATIOS, SHARE_RATIOS};
use crate::track::MOST_LOG;

/// Evidence about the comparison itself, since the rollout began.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Integrity {
    ratio: [f64; SHARE_RATIOS.len()],
    coverage: [f64; COVERAGE_RATIOS.len()],
    /// The candidate's requests, those of both roles, and the candidate's as configured, in windows with one share.
    hits: f64,
    requests: f64,
    expected: f64,
    /// How many requests are worth one of an independent unit.
    phi: f64,
    /// The evidence was once beyond the limit: what a rollout found out stays found out.
    pub(crate) has_skewed_ratio: bool,
    pub(crate) has_skewed_coverage: bool,
}

impl Integrity {
    pub(crate) fn new(config: &Config) -> Integrity {
        Integrity {
            ratio: [0.0; SHARE_RATIOS.len()],
            coverage: [0.0; COVERAGE_RATIOS.len()],
            hits: 0.0,
            requests: 0.0,
            expected: 0.0,
            phi: config.prior * config.caution,
            has_skewed_ratio: false,
            has_skewed_coverage: false,
        }
    }

    /// Requests per independent unit, as the groups' sizes tell; for the windows to come.
    pub(crate) fn set_phi(&mut self, phi: f64) {
        self.phi = phi;
    }

    /// A traffic slice's shares. Windows whose share changed inside, or is none or all, say nothing.
    pub(crate) fn observe_share(&mut self, config: &Config, window: &Window) {
        let Some(ppm @ 1..=999_999) = window.share_ppm else { return };
        let w = f64::from(ppm) / 1e6;
        let hits = window.candidate_requests as f64;
        let n = hits + window.control_requests as f64;
        for (log_e, theta) in self.ratio.iter_mut().zip(SHARE_RATIOS) {
            // No share is above all.
            if w * theta < 1.0 {
                *log_e = (*log_e + kernels::share_tilt(hits, n, w, theta) / self.phi).clamp(-MOST_LOG, MOST_LOG);
            }
        }
        self.hits += hits;
        self.requests += n;
        self.expected += n * w;
        self.has_skewed_ratio |= self.log_ratio() >= libm::log(config.sample_ratio_odds);
    }

    /// An engagement slice's requests with a quality record, `records` per arm.
    pub(crate) fn observe_coverage(&mut self, config: &Config, window: &Window, records: [f64; 2]) {
        let [candidate, control] = records;
        let arms = Arms {
            candidate: Arm::events(window.candidate_requests as f64, candidate),
            control: Arm::events(window.control_requests as f64, control),
        };
        // More records than requests are no share of them.
        if !arms.are_both_there() || candidate > arms.candidate.n || control > arms.control.n {
            return;
        }
        for (log_e, theta) in self.coverage.iter_mut().zip(COVERAGE_RATIOS) {
            *log_e = (*log_e + kernels::tilt(&arms, 1.0, theta) / self.phi).clamp(-MOST_LOG, MOST_LOG);
        }
        self.has_skewed_coverage |= self.log_coverage() >= libm::log(config.sample_ratio_odds);
    }

    pub(crate) fn log_ratio(&self) -> f64 {
        kernels::log_mean(&self.ratio)
    }

    pub(crate) fn log_coverage(&self) -> f64 {
        kernels::log_mean(&self.coverage)
    }

    /// The candidate's share as measured, and as configured, while the configured one did not change inside a window.
    pub(crate) fn shares(&self) -> Option<(f64, f64)> {
        (self.requests > 0.0).then(|| (self.hits / self.requests, self.expected / self.requests))
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64s(&self.ratio);
        writer.f64s(&self.coverage);
        writer.f64s(&[self.hits, self.requests, self.expected, self.phi]);
        writer.u8(u8::from(self.has_skewed_ratio));
        writer.u8(u8::from(self.has_skewed_coverage));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Integrity, String> {
        let mut logs = [0.0; SHARE_RATIOS.len()];
        let mut coverage = [0.0; COVERAGE_RATIOS.len()];
        reader.f64s("the sample ratio's logarithm", &mut logs, -MOST_LOG, MOST_LOG)?;
        reader.f64s("the coverage's logarithm", &mut coverage, -MOST_LOG, MOST_LOG)?;
        Ok(Integrity {
            ratio: logs,
            coverage,
            hits: reader.f64("the candidate's requests", 0.0, 1e19)?,
            requests: reader.f64("all requests", 0.0, 1e19)?,
            expected: reader.f64("the candidate's requests as configured", 0.0, 1e19)?,
            phi: reader.f64("the requests' design effect", 1.0, 1e9)?,
            has_skewed_ratio: reader.bool("whether the sample ratio was skewed")?,
            has_skewed_coverage: reader.bool("whether the coverage was skewed")?,
        })
    }
}
