//! The rollback side of `switchback:policy@0.1`: admission, and one evaluation at a time.

use std::sync::Arc;
use std::time::Duration;

use switchback_policy::rollback::{self as sdk, Outcome, Slice, Verdict, Window};
use wasmtime::Store;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::engine::{Guest, PolicyEngine};
use super::failure::PolicyFailure;
use super::not_granted::stub_wasi;
use super::rejection::Rejection;

#[allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::pedantic)]
mod rollback {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "rollback-policy",
        with: { "switchback:policy/log": crate::policy::host_v0::split::switchback::policy::log },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use rollback::exports::switchback::policy::rollback as guest;
use rollback::switchback::policy::rollback_types as wit;

impl wit::Host for Guest {}

/// For one evaluation, and for making an instance: off the query path, and nobody waits for it but the next window.
const EVALUATION_DEADLINE: Duration = Duration::from_secs(1);

/// A compiled rollback policy whose imports and exports fit: ready to be instantiated.
#[derive(Clone)]
pub(crate) struct RollbackProgram {
    engine: PolicyEngine,
    pre: InstancePre<Guest>,
    indices: rollback::RollbackPolicyIndices,
}

impl RollbackProgram {
    /// Links a component, as [`super::host_v0::SplitProgram::link`] does.
    ///
    /// # Errors
    /// When an import has another type than the interface says, or an export is missing.
    pub(super) fn link(engine: &PolicyEngine, component: &Component) -> wasmtime::Result<RollbackProgram> {
        let mut linker = Linker::<Guest>::new(engine.engine());
        rollback::RollbackPolicy::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
        stub_wasi(&mut linker, component)?;
        let pre = linker.instantiate_pre(component)?;
        let indices = rollback::RollbackPolicyIndices::new(&pre)?;
        Ok(RollbackProgram { engine: engine.clone(), pre, indices })
    }

    /// Makes an instance, to see that it starts and that its exports have the interface's types.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), Rejection> {
        match self.instantiate("admission".into()) {
            Ok(_) => Ok(()),
            Err(PolicyFailure::Types { reason }) => Err(Rejection::Types { reason }),
            Err(failure) => Err(Rejection::Failed { step: "its start".to_owned(), failure }),
        }
    }

    /// A fresh instance. 20 to 50 us. `label` is what its log lines are labelled with.
    ///
    /// # Errors
    /// When the guest's start-up code fails, or its exports have other types than the interface says.
    pub(super) fn instantiate(&self, label: Arc<str>) -> Result<RunningRollback, PolicyFailure> {
        let deadline_ticks = self.engine.ticks(EVALUATION_DEADLINE);
        let mut store = self.engine.store(label);
        store.set_epoch_deadline(deadline_ticks);
        let instance = self.pre.instantiate(&mut store);
        let instance = instance.map_err(|error| PolicyFailure::of_call(&error, store.data(), EVALUATION_DEADLINE))?;
        let bindings = self.indices.load(&mut store, &instance).map_err(|error| PolicyFailure::of_types(&error))?;
        Ok(RunningRollback { store, bindings, deadline_ticks })
    }
}

/// One instance with its store.
///
/// Invariant: after an error other than [`PolicyFailure::Unjudged`] it is never called again (a trap poisons the whole store).
pub(super) struct RunningRollback {
    store: Store<Guest>,
    bindings: rollback::RollbackPolicy,
    deadline_ticks: u64,
}

impl RunningRollback {
    /// Judges one window.
    ///
    /// # Errors
    /// [`PolicyFailure::Unjudged`] in the policy's own words; anything else ends the instance.
    pub(super) fn evaluate(&mut self, config: &str, state: &[u8], window: &Window) -> Result<Outcome, PolicyFailure> {
        let metrics: Vec<Groups> = window.metrics.iter().map(Groups::of).collect();
        let metrics: Vec<wit::Metric<'_>> = window.metrics.iter().zip(&metrics).map(|(metric, groups)| groups.metric(metric)).collect();
        let bucket =
            |bucket: &sdk::Bucket| wit::Bucket { upper_micros: bucket.upper_micros, candidate: bucket.candidate, control: bucket.control };
        let latency: Vec<wit::Bucket> = window.latency.iter().map(bucket).collect();
        let sdk::Step { index, share_ppm, is_last } = window.step;
        let window = guest::Window {
            index: window.index,
            length_ms: window.length_ms,
            slice: match window.slice {
                Slice::Traffic => wit::Slice::Traffic,
                Slice::Engagement => wit::Slice::Engagement,
            },
            step: wit::Step { index, share_ppm, is_last },
            share_ppm: window.share_ppm,
            candidate_requests: window.candidate_requests,
            control_requests: window.control_requests,
            metrics: &metrics,
            latency: &latency,
        };
        self.store.set_epoch_deadline(self.deadline_ticks);
        match self.bindings.switchback_policy_rollback().call_evaluate(&mut self.store, config, state, window) {
            Ok(Ok(outcome)) => Ok(outcome.into()),
            Ok(Err(reason)) => Err(PolicyFailure::unjudged(&reason)),
            Err(error) => Err(PolicyFailure::of_call(&error, self.store.data(), EVALUATION_DEADLINE)),
        }
    }
}

/// A metric's groups in the host's types, which a [`wit::Metric`] borrows.
struct Groups {
    candidate: Vec<wit::Tally>,
    control: Vec<wit::Tally>,
}

impl Groups {
    fn of(metric: &sdk::Metric) -> Groups {
        let tallies = |groups: &[sdk::Tally]| groups.iter().map(tally).collect();
        Groups { candidate: tallies(&metric.candidate_groups), control: tallies(&metric.control_groups) }
    }

    fn metric<'a>(&'a self, metric: &'a sdk::Metric) -> wit::Metric<'a> {
        wit::Metric {
            id: &metric.id,
            candidate: tally(&metric.candidate),
            control: tally(&metric.control),
            candidate_groups: &self.candidate,
            control_groups: &self.control,
        }
    }
}

fn tally(tally: &sdk::Tally) -> wit::Tally {
    wit::Tally { n: tally.n, sum: tally.sum, sumsq: tally.sumsq }
}

impl From<guest::Outcome> for Outcome {
    fn from(outcome: guest::Outcome) -> Outcome {
        let verdict = match outcome.verdict {
            wit::Verdict::Advance => Verdict::Advance,
            wit::Verdict::Hold => Verdict::Hold,
            wit::Verdict::RollBack => Verdict::RollBack,
            wit::Verdict::NoData => Verdict::NoData,
        };
        let evidence = |evidence: wit::Evidence| sdk::Evidence {
            metric: evidence.metric,
            log_harm: evidence.log_harm,
            log_safe: evidence.log_safe,
            difference: evidence.difference,
            low: evidence.low,
            high: evidence.high,
        };
        let found = outcome.evidence.into_iter().map(evidence).collect();
        Outcome { verdict, summary: outcome.summary, evidence: found, state: outcome.state }
    }
}
