//! The admin listener: health, metrics, and the API that people, the CLI and dashboards use.
//!
//! ```text
//! connection -> limits -> router of paths -> who asks (Access) -> handler -> flags, policies, counters
//! ```
//!
//! It runs on the control plane's runtime, on an address of its own. It reads what the data path publishes and changes flags
//! through [`FlagStore::change`]; it never stands on the query path.
//!
//! Invariant: nothing is changed without an operator's token, or a signature of MLflow's; and no salt is shown to a viewer.

mod access;
mod breaker;
mod configured;
mod connections;
mod error;
mod events;
mod events_in;
mod evidence;
mod experiments;
mod exposition;
#[cfg(test)]
mod fuzz;
mod health;
mod ledger;
mod lifecycle;
mod metrics;
mod metrics_process;
mod mlflow;
mod notify;
mod orders;
mod plugins;
mod pool_metrics;
mod process;
mod quality;
mod quality_metrics;
mod redact;
mod rollback;
mod rollout;
mod rollout_check;
mod routes;
mod shadow;
mod view;
mod windows;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::routing::{get, post, put};
use tokio::sync::{Semaphore, watch};
use tracing_appender::non_blocking::ErrorCounter;

pub(crate) use access::AS_VIEWER;
pub use access::{Access, AccessError, TOKEN_FILE};
pub(crate) use configured::keys_of;
pub use connections::run;
pub(crate) use ledger::{explained, verified};
pub(crate) use lifecycle::now_unix_ms;
pub use lifecycle::{AskedReload, ReloadRefused, Reloaded, Reloads};

use crate::config::{Config, KeyChange, Route};
use crate::flags::{FlagStore, Source};
use crate::mlflow::Candidates;
use crate::policy::Policies;
use crate::quality::events::EventsDesk;
use crate::quality::signals::SignalsDesk;
use crate::quality::{Books, FleetClock, Quality};
use crate::release::{Board, PoolHealth};
use crate::serve::{Generation, OpenConnections, SharedPool};
use crate::tls::ServerTls;
use crate::vocabulary::RouteIndex;

/// The largest request body, in bytes: a change with `experiments` of 64 KiB, escaped.
const BODY_BYTES: usize = 256 << 10;

/// One JSON value a line.
const JSON_LINES: &str = "application/x-ndjson";

/// The API's description; a test holds it to [`paths`].
const OPENAPI: &str = include_str!("openapi.json");

/// What the admin listener shows and changes, under one config.
pub struct AdminState {
    config: Arc<Config>,
    flags: Arc<FlagStore>,
    policies: Arc<Policies>,
    quality: Quality,
    desk: EventsDesk,
    signals: SignalsDesk,
    /// By route, then pool.
    pools: Vec<Vec<Arc<SharedPool>>>,
    /// The router's own certificates, where it has some.
    tls: Option<Arc<ServerTls>>,
    access: Arc<Access>,
    generation: u64,
    waiting: Vec<KeyChange>,
    process: ThisProcess,
}

/// What one config's admin state is made of.
pub struct Parts {
    /// The data path's.
    pub generation: Arc<Generation>,
    /// Of this config.
    pub flags: Arc<FlagStore>,
    /// Of this config.
    pub policies: Arc<Policies>,
    /// The router's own certificates, where it has some.
    pub tls: Option<Arc<ServerTls>>,
    /// Who may ask what.
    pub access: Arc<Access>,
    /// What the config file says and only a restart brings about.
    pub waiting: Vec<KeyChange>,
}

/// What stays whatever the config.
#[derive(Clone)]
pub struct ThisProcess {
    /// Whether it may have queries.
    pub readiness: Readiness,
    /// What became of reloads, and the way to ask for one.
    pub reloads: Arc<Reloads>,
    /// The data path's open connections, by worker.
    pub connections: Vec<Arc<OpenConnections>>,
    /// When it started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// What was counted, by window.
    pub books: Arc<Books>,
    /// What is known of candidates.
    pub board: Board,
    /// The store's time.
    pub clock: FleetClock,
    /// What MLflow's webhooks brought about.
    pub candidates: Candidates,
    /// Counts log lines that were dropped.
    pub dropped_log_lines: ErrorCounter,
}

impl AdminState {
    /// What is shown and changed under one config.
    #[must_use]
    pub fn new(parts: Parts, process: ThisProcess) -> AdminState {
        let Parts { generation, flags, policies, tls, access, waiting } = parts;
        let (config, quality, pools) = (generation.config.clone(), generation.quality.clone(), generation.pools.shared.clone());
        AdminState {
            config,
            flags,
            policies,
            quality,
            desk: generation.events.clone(),
            signals: generation.signals.clone(),
            pools,
            tls,
            access,
            generation: generation.number,
            waiting,
            process,
        }
    }

    /// What keeps this router from answering every query, a line each; none when it is fit to be ready.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        health::problems(self)
    }

    /// Whether the flags of every route were heard from their store, and are not just those of a copy.
    #[must_use]
    pub fn has_heard_flags(&self) -> bool {
        self.routes().all(|(index, _)| matches!(self.flags.view(index).source, Source::Embedded | Source::Redis))
    }

    fn routes(&self) -> impl Iterator<Item = (RouteIndex, &Route)> {
        (0..=u16::MAX).map(RouteIndex).zip(&self.config.routes)
    }

    /// Of a pool.
    fn health(&self, route: RouteIndex, pool: &str) -> PoolHealth {
        let pool = self.pools(route).iter().find(|shared| shared.config.name == pool);
        pool.map_or_else(PoolHealth::default, |pool| PoolHealth { healthy: pool.healthy(), endpoints: pool.endpoints.len() })
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
    /// It was found to be ready before it listened.
    pub(crate) fn ready(&self) {
        self.was_ready.store(true, Ordering::Relaxed);
    }

    /// From here on the router is not ready: it finishes what it has.
    pub fn draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }
}

/// The newest state, and what this listener itself remembers.
#[derive(Clone)]
struct Live {
    states: watch::Receiver<Arc<AdminState>>,
    /// Ends streams of events.
    stopping: watch::Receiver<bool>,
    /// Room for streams of events.
    streams: Arc<Semaphore>,
}

/// What a handler gets: one state, from the beginning of a request to its end.
#[derive(Clone)]
struct Shared {
    state: Arc<AdminState>,
}

impl FromRef<Live> for Shared {
    fn from_ref(live: &Live) -> Shared {
        Shared { state: live.states.borrow().clone() }
    }
}

/// Every path of the listener, and nothing else.
fn paths(live: Live) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/routes", get(routes::list))
        .route("/api/v1/routes/{route}", get(routes::show))
        .route("/api/v1/routes/{route}/flags", get(routes::flags).patch(routes::change))
        .route("/api/v1/routes/{route}/history", get(routes::history))
        .route("/api/v1/routes/{route}/quality", get(quality::show))
        .route("/api/v1/routes/{route}/quality/fleet", get(quality::fleet))
        .route("/api/v1/routes/{route}/evidence", get(evidence::show))
        .route("/api/v1/routes/{route}/ledger", get(ledger::verify))
        .route("/api/v1/routes/{route}/ledger/entries", get(ledger::entries))
        .route("/api/v1/routes/{route}/windows", get(windows::show))
        .route("/api/v1/routes/{route}/explain", get(ledger::explain))
        .route("/api/v1/routes/{route}/rollback", post(rollback::roll_back))
        .route("/api/v1/routes/{route}/rollout", get(rollout::show).post(rollout::start))
        .route("/api/v1/routes/{route}/rollout/check", get(rollout_check::check))
        .route("/api/v1/routes/{route}/rollout/{order}", post(rollout::order))
        .route("/api/v1/routes/{route}/experiments", get(experiments::list).post(experiments::create))
        .route("/api/v1/routes/{route}/experiments/{name}", get(experiments::show).delete(experiments::remove))
        .route("/api/v1/routes/{route}/experiments/{name}/stop", post(experiments::stop))
        .route("/api/v1/routes/{route}/breaker", get(breaker::show).delete(breaker::clear))
        .route("/api/v1/routes/{route}/shadow", get(shadow::show).post(shadow::begin).delete(shadow::stop))
        .route("/api/v1/policies", get(plugins::list))
        .route("/api/v1/policies/{name}", put(plugins::put).delete(plugins::remove))
        .route("/api/v1/plugins/{digest}", get(plugins::component))
        .route("/api/v1/config", get(configured::show))
        .route("/api/v1/status", get(lifecycle::status))
        .route("/api/v1/reload", post(lifecycle::reload))
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/mlflow/webhook", post(mlflow::deliver))
        .route("/api/v1/openapi.json", get(openapi))
        .fallback(events_in::deliver)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(live)
}

async fn openapi(_: access::Viewer) -> ([(axum::http::HeaderName, &'static str); 1], &'static str) {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], OPENAPI)
}
