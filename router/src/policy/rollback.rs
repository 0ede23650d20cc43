//! One rollback policy: a WebAssembly component or a shipped one as native code, behind one type.
//!
//! [`RollbackInstance::evaluate`] is pure but for the instance that it reuses: the state goes in and out as bytes. Nobody calls it
//! on a worker: one evaluation takes tens of microseconds, and may take a second.

use std::sync::Arc;

use rollback_guardrail::Guardrail;
use rollback_threshold::Threshold;
pub use switchback_policy::rollback::{Bucket, Evidence, Metric, Outcome, Slice, Step, Tally, Verdict, Window};
use switchback_policy::rollback::{MOST_EVIDENCE, RollbackPolicy as _, STATE_BYTES, SUMMARY_BYTES};

use super::failure::PolicyFailure;
use super::host_v0_rollback::{RollbackProgram, RunningRollback};

/// A shipped rollback policy, linked from the same source as its component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NativeRollback {
    /// `rollback-guardrail`, the default.
    Guardrail,
    /// `rollback-threshold`.
    Threshold,
}

impl NativeRollback {
    /// The shipped policy of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<NativeRollback> {
        match name {
            "rollback-guardrail" => Some(NativeRollback::Guardrail),
            "rollback-threshold" => Some(NativeRollback::Threshold),
            _ => None,
        }
    }

    fn evaluate(self, config: &str, state: &[u8], window: &Window) -> Result<Outcome, String> {
        match self {
            NativeRollback::Guardrail => Guardrail::evaluate(config, state, window),
            NativeRollback::Threshold => Threshold::evaluate(config, state, window),
        }
    }
}

/// A rollback policy that can be asked. It mends itself: after a trap the next call gets a fresh instance.
pub struct RollbackInstance {
    kind: Kind,
}

enum Kind {
    Native(NativeRollback),
    Wasm { program: RollbackProgram, label: Arc<str>, running: Option<Box<RunningRollback>> },
}

impl RollbackInstance {
    /// A shipped policy as native code.
    #[must_use]
    pub fn native(policy: NativeRollback) -> RollbackInstance {
        RollbackInstance { kind: Kind::Native(policy) }
    }

    /// An admitted component. `label` is what its log lines are labelled with: route and policy.
    pub(crate) fn wasm(program: RollbackProgram, label: Arc<str>) -> RollbackInstance {
        RollbackInstance { kind: Kind::Wasm { program, label, running: None } }
    }

    /// A component inside the binary, in an engine of its own: for tests.
    ///
    /// # Errors
    /// When this machine cannot run WebAssembly, or there is none of this name.
    #[cfg(test)]
    pub(crate) fn shipped_wasm(name: &str) -> Result<RollbackInstance, String> {
        use super::{Limits, PolicyEngine, shipped};
        let seconds = std::time::Duration::from_secs(1);
        let limits = Limits { deadline: seconds, configure_deadline: seconds, memory: 16 << 20, stack: 256 << 10 };
        let engine = PolicyEngine::new(limits).map_err(|error| format!("{error:#}"))?;
        let bytes = shipped(name).ok_or("no shipped policy of this name")?;
        let component = wasmtime::component::Component::new(engine.engine(), bytes).map_err(|error| format!("{error:#}"))?;
        let program = RollbackProgram::link(&engine, &component).map_err(|error| format!("{error:#}"))?;
        Ok(RollbackInstance::wasm(program, name.into()))
    }

    /// Judges one window. `config` is the route's `rollback_config`, JSON; `state` is the last outcome's, empty at the start of a rollout.
    ///
    /// # Errors
    /// [`PolicyFailure::Unjudged`] in the policy's words, or what became of the call. There is no verdict then: hold, show it, and
    /// keep the state as it was.
    pub fn evaluate(&mut self, config: &str, state: &[u8], window: &Window) -> Result<Outcome, PolicyFailure> {
        let outcome = match &mut self.kind {
            Kind::Native(policy) => policy.evaluate(config, state, window).map_err(|reason| PolicyFailure::unjudged(&reason))?,
            Kind::Wasm { program, label, running } => {
                let mut instance = match running.take() {
                    Some(instance) => instance,
                    None => Box::new(program.instantiate(Arc::clone(label))?),
                };
                let outcome = instance.evaluate(config, state, window);
                if matches!(outcome, Ok(_) | Err(PolicyFailure::Unjudged { .. })) {
                    *running = Some(instance);
                }
                outcome?
            }
        };
        check(&outcome)?;
        Ok(outcome)
    }
}

/// Metrics of which the guardrail has an interval: errors, latency, zero results, clicks, conversions and quality.
const METRICS: f64 = 6.0;
/// An arm that is no worse is taken for a harmful one so often, in an experiment.
const HARM_ALPHA: f64 = 0.01;
/// How much the prior of the design effect weighs, beside the 62 degrees of freedom of both arms' groups: an experiment runs for weeks, in which a user sends many queries.
const PRIOR_DEGREES: u32 = 15;
/// A tenth of the observations, of both arms, at which intervals are tightest.
const BEST_AT_TENTH: u32 = 1_000;

/// The guardrail's config when it compares one of so many arms with control: all intervals of all arms together are wrong no more often than `alpha`, and all arms together are taken
/// for harmful no more often than once in a hundred experiments (union bound).
#[must_use]
pub fn experiment_config(others: usize, alpha: f64) -> String {
    let others = others.max(1) as f64;
    let (harm, interval) = (HARM_ALPHA / others, alpha / others / METRICS);
    let design_effect = serde_json::json!({ "prior_degrees": PRIOR_DEGREES });
    serde_json::json!({ "alpha": harm, "interval_alpha": interval, "min_samples": BEST_AT_TENTH, "design_effect": design_effect })
        .to_string()
}

/// Refuses what the interface does not allow a policy to answer.
fn check(outcome: &Outcome) -> Result<(), PolicyFailure> {
    let sizes = [
        ("a summary", outcome.summary.len(), SUMMARY_BYTES, "bytes"),
        ("evidence", outcome.evidence.len(), MOST_EVIDENCE, "entries"),
        ("a state", outcome.state.len(), STATE_BYTES, "bytes"),
    ];
    for (what, size, most, unit) in sizes {
        if size > most {
            return Err(PolicyFailure::nonsense(format!("{what} of {size} {unit}; {most} at most are allowed")));
        }
    }
    for evidence in &outcome.evidence {
        let Evidence { metric, log_harm, log_safe, difference, low, high } = evidence;
        let numbers = [*log_harm, log_safe.unwrap_or(0.0), *difference, *low, *high];
        if metric.is_empty() || metric.len() > 64 || !numbers.iter().all(|number| number.is_finite()) {
            return Err(PolicyFailure::nonsense(format!("evidence on {metric:?} that is no number, or has no name of 1 to 64 bytes")));
        }
    }
    Ok(())
}
