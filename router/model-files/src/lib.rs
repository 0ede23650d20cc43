//! Readers of model files: ONNX, LightGBM's text, XGBoost's JSON, and pickles. Each looks at outside bytes and says what the model is, or what is wrong with it and where.
//!
//! Invariant: nothing in a file is executed, opened or fetched; no input makes a reader panic, recurse without a bound, or take more memory than
//! a small multiple of the file. Time grows as the file does.
//!
//! It is a crate of its own: pure, with parsers' dependencies that nothing else has, and built and fuzzed without the router.

mod error;
#[cfg(test)]
mod fuzz;
pub mod lightgbm;
mod limits;
pub mod onnx;
pub mod pickle;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;
mod trees;
mod walk;
pub mod xgboost;

pub use error::Malformed;
pub use limits::Limits;
pub use trees::Trees;
