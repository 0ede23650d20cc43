//! The admin listener: health, metrics, and the API that people, the CLI and dashboards use.
//!
//! ```text
//! connection -> limits -> router of paths -> who asks (Access) -> handler -> flags, policies, counters
//! ```
//!
//! It runs on the control plane's runtime, on an address of its own. It reads what the data path publishes and changes flags
//! through [`FlagStore::change`]; it never stands on the query path.
//!
//! Invariant: nothing is changed without an operator's token, and no salt is shown to a viewer.

mod access;
mod connections;
mod error;
mod events;
mod exposition;
mod health;
mod metrics;
mod process;
mod redact;
mod routes;
mod view;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use tokio::sync::watch;

pub use access::{Access, AccessError, TOKEN_FILE};
pub use connections::run;

use crate::config::Config;
use crate::flags::FlagStore;
use crate::policy::Policies;
use crate::quality::Quality;
use crate::vocabulary::{PoolIndex, RouteIndex};

/// The largest request body, in bytes: a change with `experiments` of 64 KiB, escaped.
const BODY_BYTES: usize = 256 << 10;

/// The API's description; a test holds it to [`paths`].
const OPENAPI: &str = include_str!("openapi.json");

/// An endpoint as the data path sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// Of which route.
    pub route: RouteIndex,
    /// Of which pool.
    pub pool: PoolIndex,
    /// Host and port.
    pub endpoint: String,
    /// Whether it gets traffic: neither failed its health checks nor ejected.
    pub is_healthy: bool,
    /// Queries in flight from this process.
    pub in_flight: u64,
}

/// What the admin listener shows and changes.
#[derive(Clone)]
pub struct AdminState {
    /// The config in force.
    pub config: Arc<Config>,
    /// Flags of all routes.
    pub flags: Arc<FlagStore>,
    /// Policies of all routes.
    pub policies: Arc<Policies>,
    /// The data path's counters.
    pub quality: Quality,
    /// Every endpoint of every pool, now.
    pub endpoints: Arc<dyn Fn() -> Vec<EndpointHealth> + Send + Sync>,
    /// Whether the traffic listener takes connections; false before it does, and while it drains.
    pub is_listening: watch::Receiver<bool>,
    /// Who may ask what.
    pub access: Arc<Access>,
}

/// What handlers get: the state, and what this listener itself remembers.
#[derive(Clone)]
struct Shared {
    state: AdminState,
    /// Set by the first `/readyz` that found everything in place.
    was_ready: Arc<AtomicBool>,
    /// Ends streams of events.
    stopping: watch::Receiver<bool>,
}

/// Every path of the listener, and nothing else.
fn paths(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/routes", get(routes::list))
        .route("/api/v1/routes/{route}", get(routes::show))
        .route("/api/v1/routes/{route}/flags", get(routes::flags).patch(routes::change))
        .route("/api/v1/routes/{route}/history", get(routes::history))
        .route("/api/v1/policies", get(routes::policies))
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/openapi.json", get(openapi))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(shared)
}

async fn openapi(_: access::Viewer) -> ([(axum::http::HeaderName, &'static str); 1], &'static str) {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], OPENAPI)
}
