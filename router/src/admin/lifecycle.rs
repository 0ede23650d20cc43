//! `/api/v1/status` and `/api/v1/reload`: this process, the config that it has in force, and the way to put another one in force.
//!
//! A reload is done elsewhere, by whoever owns the router's parts; here it is asked for and counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::access::{Operator, Viewer};
use super::error::ApiError;
use crate::config::KeyChange;

/// A reload takes milliseconds, and seconds while Redis is away.
const RELOAD_WITHIN: Duration = Duration::from_secs(25);

/// What a reload came to.
#[derive(Debug, Clone, Serialize)]
pub struct Reloaded {
    /// The config that is in force now, counted from 1.
    pub generation: u64,
    /// Keys that are different from before.
    pub changed: Vec<KeyChange>,
    /// Keys whose new value waits for a restart.
    pub waiting_for_restart: Vec<KeyChange>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// A config that was not taken. The one before stays in force, whole.
#[derive(Debug, Clone, Serialize)]
pub struct ReloadRefused {
    /// A line each: file, line, key, value, and what is allowed.
    pub problems: Vec<String>,
}

/// Somebody asks for a reload.
#[derive(Debug)]
pub struct AskedReload {
    /// Who.
    pub who: String,
    /// Hears what it came to.
    pub reply: oneshot::Sender<Result<Reloaded, ReloadRefused>>,
}

/// Reloads so far, and the way to ask for one.
#[derive(Debug)]
pub struct Reloads {
    asked: mpsc::Sender<AskedReload>,
    applied: AtomicU64,
    refused: AtomicU64,
    last_success_unix_ms: AtomicU64,
}

impl Reloads {
    /// None yet; the config in force was loaded now.
    #[must_use]
    pub fn new(asked: mpsc::Sender<AskedReload>) -> Reloads {
        Reloads { asked, applied: AtomicU64::new(0), refused: AtomicU64::new(0), last_success_unix_ms: AtomicU64::new(now_unix_ms()) }
    }

    /// Counts one.
    pub fn count(&self, is_applied: bool) {
        if is_applied {
            self.last_success_unix_ms.store(now_unix_ms(), Ordering::Relaxed);
            self.applied.fetch_add(1, Ordering::Relaxed);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn last_success_unix_ms(&self) -> u64 {
        self.last_success_unix_ms.load(Ordering::Relaxed)
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn status(_: Viewer, State(shared): State<Shared>) -> Json<Value> {
    let (state, process) = (&shared.state, &shared.state.process);
    let reloads = &process.reloads;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "started_unix_ms": process.started_unix_ms,
        "draining": process.readiness.is_draining.load(Ordering::Relaxed),
        "generation": state.generation,
        "loaded_unix_ms": reloads.last_success_unix_ms(),
        "reloads": { "applied": reloads.applied(), "refused": reloads.refused() },
        "waiting_for_restart": state.waiting,
    }))
}

/// Reads the config file again, and answers when what it says is in force on every worker.
pub(super) async fn reload(Operator(caller): Operator, State(shared): State<Shared>) -> Result<Json<Reloaded>, ApiError> {
    let (reply, answer) = oneshot::channel();
    let asked = AskedReload { who: caller.name, reply };
    // Only the channel: the state must not outlive the reload that replaces it.
    let channel = shared.state.process.reloads.asked.clone();
    drop(shared);
    channel.try_send(asked).map_err(|_| ApiError::Busy)?;
    match tokio::time::timeout(RELOAD_WITHIN, answer).await {
        Ok(Ok(Ok(reloaded))) => Ok(Json(reloaded)),
        Ok(Ok(Err(refused))) => Err(ApiError::Reload(refused)),
        _ => Err(ApiError::Busy),
    }
}
