//! The control path: what the counters of all routers say of a candidate, by the rollback policy's judgement.
//!
//! ```text
//! windows of all routers -> sealed (cursor) -> slices of both roles (fill) -> rollback policy -> evidence (record), in the store
//!            flags -> who is compared, at which share, since when (roles, timeline)      |-> API, status, metrics (view)
//!                                                                                        |-> a log that can be replayed (log)
//! ```
//!
//! One router at a time judges a route (judging). What it knows is one record in the store, which it replaces as a whole, so that any
//! other goes on from there, and no slice is judged twice. Beside that, each router has a breaker of its own ([`breaker`]), which asks nobody.
//! What either says is acted on by [`controller`]; [`mover`] moves a rollout on; [`strays`] looks whether servers still serve what their pools run.
//!
//! [`cursor`], [`fill`], [`kept`], [`record`], [`roles`], [mod@rollback], [`rollout`] and [`timeline`] are pure.

mod announcer;
mod board;
mod breaker;
mod controller;
mod cursor;
mod experiments;
mod fill;
#[cfg(test)]
mod fuzz;
mod gates;
mod grounds;
mod history;
mod judge;
mod judging;
mod kept;
mod loader;
mod log;
mod looks;
mod mover;
mod notices;
mod record;
mod recorded;
mod roles;
mod rollback;
mod rollout;
mod sight;
mod store;
mod strays;
mod timeline;
mod under;
mod view;

pub use board::{Board, RolloutBoard, RouteBoard};
pub use controller::RollbackTotals;
pub use experiments::view::{ArmView, ComparisonView, ExperimentEvidence, QualityView, ZeroResultsView};
pub use grounds::{grounds, grounds_of_rollback};
pub use judging::Judging;
pub use log::LOG_FOLDER;
pub use looks::{servers_now, strays_now};
pub use recorded::{Recorded, recorded};
pub use rollback::{PoolHealth, Rollback, hold_back, other_way, rollback};
pub use rollout::{
    Asked, Begin, Event, LEAST_LEFT, LoadSeen, LoadState, Move, Next, Order, Refusal, Seen, ServersSeen, ToLoad, begin, carry_out,
    copies_before, copies_of, could_begin, next, tellable,
};
pub use store::{FleetWindows, fleet_windows};
pub use strays::{PoolStrays, RouteStrays, in_words};
pub use under::{Health, Under};
pub use view::{BreakerView, Difference, EvidenceView, HistoryView, JudgeView, MeanView, MetricView, RoleView, WindowsView};
