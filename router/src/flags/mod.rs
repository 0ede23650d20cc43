//! Flags: the small, operator-readable state that the data path obeys.
//!
//! [`snapshot`] is pure; the stores bring hashes to it.

mod snapshot;

pub use snapshot::{EXPERIMENTS_BYTES, FEATURES, Fault, Fields, Flags, PolicyRef, Share, VALUE_BYTES};
