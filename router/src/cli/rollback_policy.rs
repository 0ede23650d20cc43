//! The rollback policy that a command is about: a file, or a shipped one, as WebAssembly or as native code.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::Failure;
use super::policy::{default_config, print_cost, progress_bar, read_plugin};
use crate::policy::bench;
use crate::policy::{Limits, NativeRollback, PolicyEngine, RollbackInstance, RollbackProgram, Terms, admission};
use crate::simulate::{Judge, Scenario, WithState, guardrail, windows_of};

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
            let unknown =
                || Failure::usage(format!("{}: no shipped rollback policy; only those are there as native code", policy.display()));
            return native.map(Chosen::Native).ok_or_else(unknown);
        }
        let terms = Terms::of(&default_config());
        let bytes = read_plugin(policy, &terms).map_err(|reason| Failure::usage(format!("{}: {reason}", policy.display())))?;
        Chosen::of_bytes(&policy.display().to_string(), &bytes)
    }

    /// Admits these bytes, under the limits that are the defaults.
    pub(super) fn of_bytes(name: &str, bytes: &[u8]) -> Result<Chosen, Failure> {
        let config = default_config();
        let engine = PolicyEngine::new(Limits::of(&config.policies))
            .map_err(|error| Failure::unreachable(format!("the WebAssembly engine cannot start on this machine: {error:#}")))?;
        let admitted = admission::admit(&engine, None, &Terms::of(&config), bytes)
            .map_err(|rejection| Failure::refused(format!("{name}: refused: {rejection}")))?;
        if admitted.rollback.is_none() {
            return Err(Failure::usage(format!("{name}: it is a split policy; only rollback policies judge windows")));
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

/// `switchback policy bench` for a rollback policy: half an hour of five metrics at 500 requests a second, again and again.
pub(super) fn measure(file: &Path, config: &str, program: RollbackProgram, length: Duration, is_json: bool) -> ExitCode {
    let windows = windows_of(&Scenario::default(), 1);
    let mut contenders = vec![("plugin", RollbackInstance::wasm(program, "bench".into()), config)];
    contenders.push(("native", RollbackInstance::native(NativeRollback::Guardrail), "{}"));
    let bar = progress_bar(is_json);
    let mut costs = Vec::new();
    for (done, (_, instance, config)) in contenders.iter_mut().enumerate() {
        let half = |share: f64| bar.set_position(((done as f64 + share) * 500.0) as u64);
        match bench::run_rollback(instance, config, &windows, length / 2, half) {
            Ok(cost) => costs.push(cost),
            Err(failure) => return Failure::refused(format!("{}: refused: bench: {failure}", file.display())).report(),
        }
    }
    bar.finish_and_clear();
    let [(plugin, state_bytes), (native, _)] = costs.as_slice() else { return ExitCode::FAILURE };
    if is_json {
        let found = json!({"file": file, "plugin": plugin, "state_bytes": state_bytes, "native_rollback_guardrail": native});
        return super::print(&format!("{found}\n")).map_or_else(Failure::report, |()| ExitCode::SUCCESS);
    }
    let heading = format!("{:<34} {:>9} {:>9} {:>9} {:>12}\n", "ns per evaluation", "p50", "p99", "fastest", "evaluations");
    if let Err(failure) = super::print(&heading) {
        return failure.report();
    }
    print_cost(&file.file_name().unwrap_or_default().to_string_lossy(), plugin);
    print_cost("rollback-guardrail as native code", native);
    super::print(&format!("largest state: {state_bytes} bytes\n")).map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}
