//! The rollback side of `switchback:policy@0.1`, as far as admission needs it.

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
    });
}

impl rollback::switchback::policy::rollback_types::Host for Guest {}

/// A compiled rollback policy whose imports and exports fit.
pub(super) struct RollbackProgram {
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
        let mut store = self.engine.store("admission".into());
        let limit = self.engine.limits().configure_deadline;
        let instance = self.pre.instantiate(&mut store).map_err(|error| {
            let failure = PolicyFailure::of_call(&error, store.data(), limit);
            Rejection::Failed { step: "its start".to_owned(), failure }
        })?;
        match self.indices.load(&mut store, &instance) {
            Ok(_) => Ok(()),
            Err(error) => Err(Rejection::Types { reason: format!("{error:#}") }),
        }
    }
}
