//! Runs rollback policies against rollouts that never happened, or that did: how often does it cry wolf, and how soon does it see harm?
//!
//! ```text
//! scenario + seed --> windows, drawn exactly --> policy (native, WebAssembly or a comparator) --> when it rolled back
//! window log -----------------------------------^                                                      |
//!                                                          false alarms, delays, power curves <--------+
//! ```
//!
//! Invariant: a result depends on scenario, seed and policy alone, not on the number of threads.

pub mod comparators;
pub mod exact;
mod judges;
pub mod plan;
mod rollouts;
mod scenario;
mod traffic;
mod users;

#[cfg(test)]
mod tests;

pub(crate) use judges::guardrail;
pub use judges::{Judge, Judges, WithState};
pub use rollouts::{Order, Rollout, Summary, run, summarise};
pub use scenario::{Outage, Promise, Rates, Row, Scenario, rows};
pub use traffic::windows_of;
