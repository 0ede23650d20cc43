//! Brings a version of a model onto the servers of a pool: what the registry knows of it, and the servers, together. docs/LOADING.md.
//!
//! ```text
//! registry -> source (report, golden queries, artefact) -> model servers (load, ready, warm-up, scores, commit) -> loaded
//! ```
//!
//! Nothing is kept here: a load that is begun again, by this router or another, finds what is there and goes on.

mod servers;
mod source;

use std::path::PathBuf;

use tokio::sync::oneshot;

use crate::config;

/// A version, and where it is wanted.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where versions are.
    pub registry: config::Registry,
    /// The route's name.
    pub route: String,
    /// How versions are loaded.
    pub loading: config::Loading,
    /// On whose servers.
    pub pool: config::Pool,
    /// Of the route's model.
    pub number: u64,
}

/// Every server of the pool has the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// How that went, in words.
    pub what: String,
    /// For so long, in milliseconds.
    pub took_ms: u64,
}

/// Why a version was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be had, however often it is tried.
    Refused(String),
    /// Somebody who is needed does not answer.
    Away(String),
}
