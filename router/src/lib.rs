//! Switchback: an edge router for ranking models that switches back by itself.
//!
//! ```text
//! client -> listener -> query -> split -> pool -> upstream -> attribution -> client      serve
//!                        ^ flags (immutable snapshot)              | outcome
//!                        |                                         v
//!                      flags                                 quality counters            flags, quality
//!                        ^                                         v
//!                      admin API <- CLI, people     windows -> rollback policy -> evidence   release, admin, cli
//! ```
//!
//! `serve` (the data path) and the control path never import each other: they meet in [`flags`] (down) and [`quality`]
//! (up). [`policy`] alone imports wasmtime. `tests/tidy.rs` holds these edges.

pub mod admin;
pub mod allocator;
pub mod cli;
pub mod config;
pub mod demo;
pub mod flags;
pub mod footprint;
pub mod lifecycle;
pub mod loading;
pub mod mlflow;
pub mod notify;
pub mod onnx;
pub mod policy;
pub mod quality;
pub mod ranker;
pub mod registry;
pub mod release;
pub mod serve;
pub mod simulate;
pub mod tls;
pub mod validation;
pub mod vocabulary;
