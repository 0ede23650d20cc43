//! The host side of `switchback:policy@0.1`: the one place that knows this version of the interface.
//!
//! A later major gets a file like this one beside it; everything else in [`super`] speaks the guest SDK's types.

use std::sync::Arc;
use std::time::Duration;

use switchback_policy::split::{Decision, Field, Reason, Salt, Snapshot, Wanted};
use wasmtime::Store;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::engine::{Guest, PolicyEngine};
use super::failure::PolicyFailure;
use super::not_granted::stub_wasi;

/// For one call in a trial. A machine that keeps a thread from running for longer has other worries than a new plugin.
const TRIAL_DEADLINE: Duration = Duration::from_secs(1);

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub(super) mod split {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "split-policy",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use split::exports::switchback::policy::split as guest;
use split::switchback::policy::{log, split_types as wit};

impl log::Host for Guest {
    fn log(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Debug => tracing::Level::DEBUG,
            log::Level::Info => tracing::Level::INFO,
            log::Level::Warn => tracing::Level::WARN,
            log::Level::Error => tracing::Level::ERROR,
        };
        Guest::log(self, level, &message);
    }
}

impl wit::Host for Guest {}

/// A compiled split policy whose imports and exports fit: ready to be instantiated on any worker.
#[derive(Clone)]
pub(crate) struct SplitProgram {
    engine: PolicyEngine,
    pre: InstancePre<Guest>,
    indices: split::SplitPolicyIndices,
}

impl SplitProgram {
    /// Links a component. Its `wasi:` imports become traps.
    ///
    /// # Errors
    /// When an import has another type than the interface says, or an export is missing.
    pub(super) fn link(engine: &PolicyEngine, component: &Component) -> wasmtime::Result<SplitProgram> {
        let mut linker = Linker::<Guest>::new(engine.engine());
        split::SplitPolicy::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
        stub_wasi(&mut linker, component)?;
        let pre = linker.instantiate_pre(component)?;
        let indices = split::SplitPolicyIndices::new(&pre)?;
        Ok(SplitProgram { engine: engine.clone(), pre, indices })
    }

    /// A fresh instance for a worker, not yet configured. 20 to 50 us.
    ///
    /// # Errors
    /// When the guest's start-up code fails, or its exports have other types than the interface says.
    pub(super) fn instantiate(&self, label: Arc<str>) -> Result<RunningSplit, PolicyFailure> {
        let limits = self.engine.limits();
        self.instantiate_with(label, limits.deadline, limits.configure_deadline)
    }

    /// The same for a trial, off the query path: late is what no busy machine explains. Slowness is measured there, not guessed from a deadline.
    ///
    /// # Errors
    /// As [`SplitProgram::instantiate`].
    pub(super) fn instantiate_for_trial(&self) -> Result<RunningSplit, PolicyFailure> {
        self.instantiate_with("admission".into(), TRIAL_DEADLINE, TRIAL_DEADLINE)
    }

    fn instantiate_with(&self, label: Arc<str>, decision: Duration, configure: Duration) -> Result<RunningSplit, PolicyFailure> {
        let allowance = |limit| Allowance { limit, ticks: self.engine.ticks(limit) };
        let (decision, configure) = (allowance(decision), allowance(configure));
        let mut store = self.engine.store(label);
        store.set_epoch_deadline(configure.ticks);
        let instance = self.pre.instantiate(&mut store);
        let instance = instance.map_err(|error| PolicyFailure::of_call(&error, store.data(), configure.limit))?;
        let bindings = self.indices.load(&mut store, &instance).map_err(|error| PolicyFailure::of_types(&error))?;
        Ok(RunningSplit { store, bindings, decision, configure })
    }
}

/// How long a call may take.
#[derive(Clone, Copy)]
struct Allowance {
    limit: Duration,
    /// The same in ticks of the engine's clock.
    ticks: u64,
}

/// One instance with its store.
///
/// Invariant: after an error other than a refusal it is never called again (a trap poisons the whole store).
pub(super) struct RunningSplit {
    store: Store<Guest>,
    bindings: split::SplitPolicy,
    decision: Allowance,
    configure: Allowance,
}

impl RunningSplit {
    pub(super) fn configure(&mut self, snapshot: &Snapshot) -> Result<Wanted, PolicyFailure> {
        let pools: Vec<&str> = snapshot.pools.iter().map(String::as_str).collect();
        let features: Vec<(&str, &str)> = snapshot.features.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let share = |share: &switchback_policy::split::Share| wit::Share { pool: share.pool, ppm: share.ppm };
        let snapshot = guest::Snapshot {
            route: &snapshot.route,
            epoch: snapshot.epoch,
            pools: &pools,
            live: snapshot.live,
            candidate: snapshot.candidate.as_ref().map(share),
            holdback: snapshot.holdback.as_ref().map(share),
            features: &features,
            experiments: snapshot.experiments.as_deref(),
            config: &snapshot.config,
        };
        self.store.set_epoch_deadline(self.configure.ticks);
        let answer = self.bindings.switchback_policy_split().call_configure(&mut self.store, snapshot);
        match answer {
            Ok(Ok(wanted)) => Ok(wanted.into()),
            Ok(Err(reason)) => Err(PolicyFailure::refused(&reason)),
            Err(error) => Err(self.failure(&error, self.configure.limit)),
        }
    }

    pub(super) fn route(&mut self, position: u32) -> Result<Decision, PolicyFailure> {
        self.store.set_epoch_deadline(self.decision.ticks);
        match self.bindings.switchback_policy_split().call_route(&mut self.store, position) {
            Ok(decision) => Ok(decision.into()),
            Err(error) => Err(self.failure(&error, self.decision.limit)),
        }
    }

    pub(super) fn route_fields(&mut self, positions: &[u32], fields: &[Option<&str>]) -> Result<Decision, PolicyFailure> {
        self.store.set_epoch_deadline(self.decision.ticks);
        match self.bindings.switchback_policy_split().call_route_fields(&mut self.store, positions, fields) {
            Ok(decision) => Ok(decision.into()),
            Err(error) => Err(self.failure(&error, self.decision.limit)),
        }
    }

    #[cold]
    fn failure(&self, error: &wasmtime::Error, limit: Duration) -> PolicyFailure {
        PolicyFailure::of_call(error, self.store.data(), limit)
    }
}

impl From<wit::Decision> for Decision {
    fn from(decision: wit::Decision) -> Decision {
        let reason = match decision.reason {
            wit::Reason::Live => Reason::Live,
            wit::Reason::Candidate => Reason::Candidate,
            wit::Reason::Holdback => Reason::Holdback,
            wit::Reason::Experiment => Reason::Experiment,
            wit::Reason::Rule => Reason::Rule,
        };
        Decision { pool: decision.pool, reason, arm: decision.arm }
    }
}

impl From<wit::Wanted> for Wanted {
    fn from(wanted: wit::Wanted) -> Wanted {
        let salt = |salt| match salt {
            wit::Salt::Rollout => Salt::Rollout,
            wit::Salt::Named(text) => Salt::Named(text),
        };
        let field = |field| match field {
            wit::Field::Path => Field::Path,
            wit::Field::Query(name) => Field::Query(name),
            wit::Field::Header(name) => Field::Header(name),
            wit::Field::Cookie(name) => Field::Cookie(name),
        };
        Wanted { salts: wanted.salts.into_iter().map(salt).collect(), fields: wanted.fields.into_iter().map(field).collect() }
    }
}
