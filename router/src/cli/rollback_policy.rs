//! The rollback policy that a command is about: a file, or a shipped one, as WebAssembly or as native code.

use std::path::Path;

use super::Failure;
use super::policy::{default_config, read_plugin};
use crate::policy::{Limits, NativeRollback, PolicyEngine, RollbackInstance, Terms, admission};
use crate::simulate::{Judge, WithState, guardrail};

/// A policy that judges can be made of.
pub(super) enum Chosen {
    Native(NativeRollback),
    Wasm(Box<admission::Admitted>),
}

impl Chosen {
    /// Loads and admits it.
    pub(super) fn load(policy: &Path, is_native: bool) -> Result<Chosen, Failure> {
        if is_native {
            let native = policy.to_str().and_then(NativeRollback::named);
            let unknown = || Failure::usage(format!("{}: no shipped rollback policy; only those are there as native code", policy.display()));
            return native.map(Chosen::Native).ok_or_else(unknown);
        }
        let config = default_config();
        let terms = Terms::of(&config);
        let bytes = read_plugin(policy, &terms).map_err(|reason| Failure::usage(format!("{}: {reason}", policy.display())))?;
        let engine = PolicyEngine::new(Limits::of(&config.policies))
            .map_err(|error| Failure::unreachable(format!("the WebAssembly engine cannot start on this machine: {error:#}")))?;
        let admitted = admission::admit(&engine, None, &terms, &bytes)
            .map_err(|rejection| Failure::refused(format!("{}: refused: {rejection}", policy.display())))?;
        if admitted.rollback.is_none() {
            return Err(Failure::usage(format!("{}: it is a split policy; only rollback policies judge windows", policy.display())));
        }
        Ok(Chosen::Wasm(Box::new(admitted)))
    }

    pub(super) fn instance(&self, label: &str) -> RollbackInstance {
        match self {
            Chosen::Native(native) => RollbackInstance::native(*native),
            Chosen::Wasm(admitted) => match &admitted.rollback {
                Some(program) => RollbackInstance::wasm(program.clone(), label.into()),
                None => RollbackInstance::native(NativeRollback::Guardrail),
            },
        }
    }

    pub(super) fn with_state(&self, config: &str, label: &str) -> WithState {
        WithState::new(self.instance(label), config)
    }

    /// A judge for one thread.
    pub(super) fn judge(&self, config: &str, label: &str) -> Result<Box<dyn Judge>, String> {
        match self {
            Chosen::Native(NativeRollback::Guardrail) => guardrail(config),
            _ => Ok(Box::new(self.with_state(config, label))),
        }
    }
}
