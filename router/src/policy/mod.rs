//! Policies: WebAssembly components that decide, under limits, with a native decision behind them.
//!
//! ```text
//! file in the folder --+                        flags name it
//! shipped in the binary +-> admission -> compiled component -> in force (one pointer) -> an instance in each worker
//! kept by digest ------+      | refused: says why, the one in force stays              | failure: native decision, strike
//! ```
//!
//! How a worker uses it (see [`SplitInForce`]):
//! 1. keep the receiver of [`Policies::split`]; when it has changed, or the flags have, get an instance:
//!    [`SplitInForce::instantiate`] for a new policy, [`SplitInstance::configure`] for new flags;
//! 2. for each query, unless [`Health::is_quarantined`], call [`SplitInstance::route`] (one salt, no fields wanted) or
//!    [`SplitInstance::route_fields`];
//! 3. on `Err`: report it with [`SplitInForce::failed`], drop the instance and take the native decision; make a new instance for
//!    the next query, or, after a [`PolicyFailure::is_refusal`], for the next flags.
//!
//! Invariant: nobody else imports wasmtime, and nothing here runs on the query path but 1 to 3.

pub(crate) mod bench;

pub(crate) mod admission;
mod artefact;
mod catalogue;
mod component;
mod engine;
mod failure;
mod folder;
#[cfg(test)]
mod fuzz;
mod golden;
mod health;
mod host_v0;
mod host_v0_rollback;
mod in_force;
mod instance;
mod keeper;
mod kept;
mod not_granted;
mod policies;
mod rejection;
pub mod rollback;
mod shadow_run;
mod shadows;
mod snapshot;
mod status;
mod uploads;
pub mod window_log;
mod workshop;

pub(crate) use admission::Terms;
pub use admission::digest;
pub use admission::{Report, World};
pub(crate) use engine::{Limits, PolicyEngine};
pub use failure::PolicyFailure;
pub(crate) use folder::check_name;
pub use health::{Health, Patience};
pub(crate) use host_v0_rollback::RollbackProgram;
pub use in_force::{Kind, SplitInForce};
pub use instance::SplitInstance;
pub(crate) use policies::shipped;
pub use policies::{Policies, PolicyError, RollbackChoice, RollbackFound};
pub use rejection::Rejection;
pub use rollback::{NativeRollback, RollbackInstance};
pub use shadow_run::{Example, Named, PoolPair, SeenField, ShadowReport, ShadowRun, ShadowState, Side};
pub use shadows::{ShadowError, ShadowOrder};
pub use snapshot::snapshot;
pub use split_weighted::WeightedSplit;
pub use status::{AnsweredBy, InForceStatus, LastGoodStatus, PluginState, PluginStatus, PolicyState, PolicyStatus, Refusal};
pub use switchback_policy::split::{Decision, Field, POSITIONS, Reason, Salt, Share, Snapshot, SplitPolicy, Wanted};
pub use uploads::{UploadError, Uploaded};
