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
mod plugins;
mod pool_metrics;
mod process;
mod redact;
mod routes;
mod shadow;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, put};
use tokio::sync::watch;

pub use access::{Access, AccessError, TOKEN_FILE};
pub use connections::run;

use crate::config::{Config, Route};
use crate::flags::FlagStore;
use crate::policy::Policies;
use crate::quality::Quality;
use crate::serve::SharedPool;
use crate::tls::ServerTls;
use crate::vocabulary::RouteIndex;

/// The largest request body, in bytes: a change with `experiments` of 64 KiB, escaped.
const BODY_BYTES: usize = 256 << 10;

/// The API's description; a test holds it to [`paths`].
const OPENAPI: &str = include_str!("openapi.json");

/// What the admin listener shows and changes.
#[derive(Clone)]
pub struct AdminState {
    config: Arc<Config>,
    flags: Arc<FlagStore>,
    policies: Arc<Policies>,
    quality: Quality,
    /// By route, then pool.
    pools: Vec<Vec<Arc<SharedPool>>>,
    /// The router's own certificates, where it has some.
    tls: Option<Arc<ServerTls>>,
    access: Arc<Access>,
    readiness: Readiness,
}

impl AdminState {
    /// Of a router whose traffic listener takes connections. `pools` are the data path's, by route and pool.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        flags: Arc<FlagStore>,
        policies: Arc<Policies>,
        quality: Quality,
        pools: Vec<Vec<Arc<SharedPool>>>,
        tls: Option<Arc<ServerTls>>,
        access: Access,
    ) -> AdminState {
        AdminState { config, flags, policies, quality, pools, tls, access: Arc::new(access), readiness: Readiness::default() }
    }

    /// To say that the router drains.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    fn routes(&self) -> impl Iterator<Item = (RouteIndex, &Route)> {
        (0..=u16::MAX).map(RouteIndex).zip(&self.config.routes)
    }

    fn pools(&self, route: RouteIndex) -> &[Arc<SharedPool>] {
        self.pools.get(route.get()).map_or(&[], Vec::as_slice)
    }
}

/// What `/readyz` remembers.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Set by the first `/readyz` that found everything in place.
    was_ready: Arc<AtomicBool>,
    is_draining: Arc<AtomicBool>,
}

impl Readiness {
    /// From here on the router is not ready: it finishes what it has.
    pub fn draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }
}

/// What handlers get: the state, and what this listener itself remembers.
#[derive(Clone)]
struct Shared {
    state: AdminState,
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
        .route("/api/v1/routes/{route}/shadow", get(shadow::show).post(shadow::begin).delete(shadow::stop))
        .route("/api/v1/policies", get(plugins::list))
        .route("/api/v1/policies/{name}", put(plugins::put).delete(plugins::remove))
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
