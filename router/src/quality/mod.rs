//! Counters: what became of every query, counted by the worker that served it.
//!
//! Each worker has counters of its own and is their only writer, so counting is a plain load and store; readers (metrics,
//! status) sum over the workers whenever they like. No lock, no shared cache line.

mod clock;
mod collector;
mod counters;
mod counts;
pub mod events;
#[cfg(test)]
mod fuzz;
mod latency;
mod outcomes;
pub mod pages;
mod refusal;
mod secrets;
mod series;
pub mod signals;
mod tally;
mod token;
mod windows;

pub use clock::FleetClock;
pub use collector::{Books, Desks, KEPT, RouteBook, Served, collect};
pub use counters::{
    Broken, Count, DECISIONS, DURATION_EDGES_MICROS, Durations, Mirrored, PoolCounters, Quality, RouteCounters, RouteTotals, SignalFault,
    WorkerCounters, WorkerTotals,
};
#[cfg(test)]
pub(crate) use counts::tests::counts as any_counts;
pub use counts::{Counts, Number, millionths};
pub use latency::upper_micros as latency_upper_micros;
pub use outcomes::{Ended, Outcome, Outcomes, QUARTERS, Quarter, Read, WindowClock};
pub use refusal::{OverrideFault, Refusal};
pub use secrets::{Secret, SecretError, TOKEN_KEY_FILE, adopt_key, configured_secrets, own_key, token_secrets};
pub use series::{NewArms, Series};
pub use tally::{Slot, TALLY_BYTES, is_tally_kept, keep_tally, untold};
pub use token::{CHARACTERS, GROUPS, Token, TokenFault, TokenKeys, TokenText, route_id, route_of, version_id};
pub use windows::{Revision, Window, Windows, merge, sum_of};
