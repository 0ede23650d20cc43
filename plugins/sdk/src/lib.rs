//! The guest SDK: write a Switchback policy in about 20 lines of Rust.
//!
//! A split policy is a type that implements [`SplitPolicy`], and one line that exports it:
//!
//! ```
//! use switchback_policy::split::{Decision, Reason, Salt, Snapshot, SplitPolicy, Wanted};
//!
//! pub struct EvenOdd { live: u32, other: u32 }
//!
//! impl SplitPolicy for EvenOdd {
//!     fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
//!         let other = snapshot.candidate.as_ref().map_or(snapshot.live, |share| share.pool);
//!         let wanted = Wanted { salts: vec![Salt::Rollout], fields: vec![] };
//!         Ok((EvenOdd { live: snapshot.live, other }, wanted))
//!     }
//!
//!     fn route(&self, position: u32) -> Decision {
//!         let pool = if position % 2 == 0 { self.live } else { self.other };
//!         Decision { pool, reason: Reason::Rule, arm: None }
//!     }
//! }
//!
//! switchback_policy::export_split_policy!(EvenOdd);
//! ```
//!
//! A rollback policy is a type that implements [`RollbackPolicy`]; what it knows of earlier windows is in the state that it returns:
//!
//! ```
//! use switchback_policy::rollback::{Outcome, RollbackPolicy, Slice, Verdict, Window};
//!
//! /// Rolls back when the candidate's requests had more than ten errors in all.
//! pub struct TenErrors;
//!
//! impl RollbackPolicy for TenErrors {
//!     fn evaluate(_config: &str, state: &[u8], window: &Window) -> Result<Outcome, String> {
//!         let before: f64 = match state {
//!             [] => 0.0,
//!             kept => f64::from_le_bytes(kept.try_into().map_err(|_| format!("a state of {} bytes, not 8", kept.len()))?),
//!         };
//!         let errors = window.metrics.iter().filter(|metric| metric.id == "errors" && window.slice == Slice::Traffic);
//!         let total = before + errors.map(|metric| metric.candidate.sum).sum::<f64>();
//!         let verdict = match total {
//!             _ if window.candidate_requests == 0 || window.control_requests == 0 => Verdict::NoData,
//!             total if total > 10.0 => Verdict::RollBack,
//!             _ => Verdict::Hold,
//!         };
//!         let summary = format!("the candidate had {total} errors");
//!         Ok(Outcome { verdict, summary, evidence: Vec::new(), state: total.to_le_bytes().to_vec() })
//!     }
//! }
//!
//! switchback_policy::export_rollback_policy!(TenErrors);
//! ```
//!
//! The types are those of `wit/`, and they are the same natively and in WebAssembly: the router links the default
//! policies from the same source as its fallback.

#[doc(hidden)]
pub mod abi;
pub mod blocks;
pub mod rollback;
pub mod split;

pub use rollback::RollbackPolicy;
pub use split::SplitPolicy;
