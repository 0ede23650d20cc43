//! The default rollback policy: always-valid sequential tests of a candidate against control, window by window.
//!
//! ```text
//! window --> check --> errors and timeouts    tilt kernel --+-- restart mixture --> ln E of each metric --+
//!                      latency at 3 quantiles tilt kernel --+                                             | weighted mean
//!                      zero results           tilt kernel --+   >= ln(1/alpha): roll back <---------------+
//!                      quality, clicks, ...   mean kernel --+
//!                      gates (mean kernel in the good direction, since the step began) --> all passed: advance
//!                      shares, coverage: a comparison that is unsound holds
//! ```
//!
//! Pure: config, state and window in, verdict and state out, the same bits natively and in WebAssembly. docs/STATISTICS.md says
//! why it may look after every window and still be wrong once in a hundred rollouts at most.

mod bytes;
mod config;
mod effect;
mod integrity;
mod interval;
mod judge;
pub mod kernels;
mod latency;
mod outcome;
mod state;
mod track;
mod window;

use switchback_policy::rollback::{Outcome, RollbackPolicy, Window};

pub use config::{Config, Problem, check};
pub use judge::{Judgement, judge};
pub use outcome::{COVERAGE, ROLLOUT, SAMPLE_RATIO, outcome};
pub use state::State;

/// The policy.
pub struct Guardrail;

impl RollbackPolicy for Guardrail {
    fn evaluate(config: &str, state: &[u8], window: &Window) -> Result<Outcome, String> {
        let config = check(config).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            problems.join("; ")
        })?;
        let mut state = State::from_bytes(&config, state)?;
        let judgement = judge(&config, &mut state, window)?;
        Ok(outcome(&config, &state, judgement))
    }
}

switchback_policy::export_rollback_policy!(Guardrail);

#[cfg(test)]
mod tests;
