//! Flags: the small, operator-readable state that the data path obeys.
//!
//! ```text
//!  redis-cli, admin API                                    data path, policies, heartbeats
//!          |                                                        ^
//!          v                                                        | watch(route)
//!   store (embedded, redis) --stored--> judge --fields--> snapshot --> published
//!                                         |
//!                                         +--> write: adopt an edit, reseed a lost store
//! ```
//!
//! `snapshot`, `seal`, `edit` and `judge` are pure; the stores bring hashes to them and do what they say.
//!
//! Invariant: a router never applies an epoch below its own, and never waits for a store on the query path.

mod chain;
mod copies;
mod disk;
mod edit;
mod embedded;
mod error;
mod experiments;
#[cfg(test)]
mod fuzz;
mod identity;
mod judge;
#[cfg(test)]
mod judge_model;
mod ledger;
mod ledger_file;
mod local_shelf;
mod owner;
mod percent;
mod published;
mod record_file;
mod redis;
mod render;
mod rollout;
mod routers;
mod seal;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
mod starts;
mod store;
mod succession;
mod told_file;
mod trip;
mod whole_ledger;

pub use chain::Verified;
pub use edit::Change;
pub use error::{ChangeError, FlagsError, HistoryError};
pub use experiments::{ARMS, Arm, Condition, Experiment, Experiments, ExperimentsFault, Layer, NewExperiment, ROLLOUT_LAYER};
pub(crate) use identity::{random_hex, random_id, router_id};
pub use ledger::{FieldChange, Grounds, HeldAt, Kind, LedgerEntry, Serves};
pub use published::{Source, View};
pub use record_file::Revised;
pub(crate) use redis::survey;
pub use redis::{FleetTime, Heard, Lease, Page, ServerSeen, ShelfWord, Survey};
pub(crate) use rollout::TEXT_CHARS;
pub use rollout::{Hurry, MirrorGate, Phase, Plan, PlannedStep, ROLLOUT_BYTES, Rollout, STEPS, Sides, is_sha256};
pub use routers::{CopiesSeen, RouterSeen, TripSeen};
pub use seal::seal;
pub use snapshot::{EXPERIMENTS_BYTES, FEATURES, Fault, Fields, Flags, MAX_EPOCH, PolicyRef, Share, VALUE_BYTES, VERSION_OF};
pub use store::{FlagStore, ShelfFields};
pub use trip::{Shed, Trip};
pub use whole_ledger::Ledger;
