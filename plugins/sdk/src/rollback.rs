//! The rollback side: the types of `wit/rollback.wit`, the trait that a policy implements, and the macro that exports it.

/// What `wit-bindgen` makes of `wit/rollback.wit`. Policies use what [`super::rollback`] re-exports; the macro uses the rest.
#[doc(hidden)]
#[allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "rollback-policy",
        with: { "switchback:policy/log@0.1.0": crate::split::bindings::switchback::policy::log },
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "switchback_policy::rollback::bindings",
    });
}

pub use crate::split::{Level, log};
pub use bindings::exports::switchback::policy::rollback::{Outcome, Window};
pub use bindings::switchback::policy::rollback_types::{Bucket, Evidence, Metric, Slice, Step, Tally, Verdict};

/// Most entries of [`Outcome::evidence`]; an outcome with more is refused by the host.
pub const MOST_EVIDENCE: usize = 64;
/// The longest [`Outcome::summary`], in bytes.
pub const SUMMARY_BYTES: usize = 512;
/// The longest [`Outcome::state`], in bytes.
pub const STATE_BYTES: usize = 256 * 1024;

/// A rollback policy: judges a candidate by its sealed windows.
///
/// There is no `self`: all that it knows of earlier windows is in `state`, so that any router can go on where another one stopped,
/// and a recorded run replays to the same verdicts.
pub trait RollbackPolicy {
    /// Judges one window. `config` is the route's `rollback_config`, JSON; `state` is what the last call returned, empty at first.
    ///
    /// Must be pure, bit for bit, natively and in WebAssembly: no hash maps in the order of their keys, and `ln`, `exp` and the
    /// like from the `libm` crate, because those of the standard library differ between machines.
    ///
    /// # Errors
    /// A sentence for the operator, when config, state or window make no sense. It holds the rollout; the state stays as it was.
    fn evaluate(config: &str, state: &[u8], window: &Window) -> Result<Outcome, String>;
}

/// Exports a [`RollbackPolicy`] as the component's `rollback` interface. Does nothing outside WebAssembly.
#[macro_export]
macro_rules! export_rollback_policy {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::rollback::{Outcome, RollbackPolicy, Window};

            struct Component;

            impl $crate::rollback::bindings::exports::switchback::policy::rollback::Guest for Component {
                fn evaluate(config: String, state: Vec<u8>, window: Window) -> Result<Outcome, String> {
                    <$policy as RollbackPolicy>::evaluate(&config, &state, &window)
                }
            }

    $crate::rollback::bindings::export_component!(Component with_types_in $crate::rollback::bindings);
        };
    };
}
