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
//! The types are those of `wit/`, and they are the same natively and in WebAssembly: the router links the default
//! policies from the same source as its fallback.

pub mod split;

pub use split::SplitPolicy;
