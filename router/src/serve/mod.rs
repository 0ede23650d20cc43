//! The data path: from a client's bytes to a backend's answer.
//!
//! ```text
//! listener -> connection -> query -> routes -> split -> forward -> attempt -> upstream -> body -> client
//! ```
//!
//! Thread per core: each [`worker`] has its own runtime, upstream connections, policy instances and counters. What workers share
//! is this list, all of it relaxed atomics: connections in all, per address and per worker ([`listener`]); attempts and copies in flight per pool,
//! attempts in flight, their outcomes, health and ejection per endpoint ([`pool`]); a policy's strikes (`policy::Health`). Flags and policies reach a
//! worker as immutable snapshots, and it works out then whatever does not depend on a query.
//!
//! Invariant: a query takes no lock, waits for no other thread, and never talks to the flag store.

mod again;
mod answer;
mod attempt;
mod body;
mod clock;
mod connection;
mod expose;
mod forward;
mod forwarded;
#[cfg(test)]
mod fuzz;
mod hang_up;
mod headers;
mod idle;
mod interim;
mod listener;
mod log_limit;
mod mirror;
mod on_this_worker;
mod overrides;
mod pool;
mod position;
mod query;
mod replay;
mod routes;
mod scan;
mod seat;
mod seen;
mod shadow;
mod split;
mod timer;
mod tunnel;
mod upstream;
mod watched;
mod worker;

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

pub use overrides::{FIELD as OVERRIDE_FIELD, OverrideError, Overrides};
pub use pool::{EndpointState, SharedEndpoint, SharedPool, Why};
pub use position::PositionKey;

use crate::config::{self, Config, Route};
use crate::flags::Flags;
use crate::policy::{ShadowRun, SplitInForce};
use crate::quality::Quality;
use crate::tls::{ClientTls, ServerTls, TlsError};

/// Connections that may wait for a worker to take them.
const ARRIVALS: usize = 1_024;

/// How often certificates for backends are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(10);

/// After the announcement that connections will close, before idle ones are closed: time for a client to hear it on its next
/// response, so that it does not send a query into a closing connection.
const ANNOUNCE: Duration = Duration::from_millis(500);

/// Why the data path could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A thread could not be started.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Which.
        name: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A listening socket is not usable.
    #[error("cannot use the traffic listeners")]
    Listener(#[source] std::io::Error),
}

/// Where the data path listens. The sockets need not be non-blocking yet.
pub struct Sockets {
    /// In the clear.
    pub traffic: TcpListener,
    /// Over TLS.
    pub traffic_tls: Option<(TcpListener, Arc<ServerTls>)>,
}

/// Every pool of the config, with the certificates of those that have `https` endpoints: by route, then pool.
///
/// # Errors
/// [`TlsError`], naming the key and the file.
pub fn pools(config: &Config) -> Result<Vec<Vec<Arc<SharedPool>>>, TlsError> {
    let pool = |route: &Route, pool: &config::Pool| {
        let tls = ClientTls::load(&route.name, pool)?.map(Arc::new);
        Ok(SharedPool::new(pool, tls))
    };
    config.routes.iter().map(|route| route.pools.iter().map(|shared| pool(route, shared)).collect()).collect()
}

/// So long a start waits for the names of endpoints: those that are slower are looked up again meanwhile.
const NAMES_WITHIN: Duration = Duration::from_secs(2);

/// Looks up the names of endpoints, so that the first query finds their addresses. A name that does not resolve is logged, and no error.
pub async fn look_up_names(config: &Config, pools: &[Vec<Arc<SharedPool>>]) {
    let routes = config.routes.iter().zip(pools);
    let pools = routes.flat_map(|(route, pools)| pools.iter().map(|pool| (route.name.as_str(), pool)));
    pool::look_up_all(pools, NAMES_WITHIN).await;
}

/// What the data path follows.
pub struct Inputs {
    /// One per route.
    pub flags: Vec<watch::Receiver<Arc<Flags>>>,
    /// One per route.
    pub policies: Vec<watch::Receiver<Arc<SplitInForce>>>,
    /// One per route.
    pub shadows: Vec<watch::Receiver<Option<Arc<ShadowRun>>>>,
    /// Who may choose a pool.
    pub overrides: Arc<Overrides>,
}

/// The running data path.
pub struct Serving {
    /// By route, then pool: endpoints with their health and what is in flight.
    pub pools: Vec<Vec<Arc<SharedPool>>>,
    stop_listening: watch::Sender<bool>,
    is_draining: watch::Sender<bool>,
    close_connections: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    drain_timeout: Duration,
}

/// Starts the workers and takes connections. `pools` are those of [`pools`]. Health checks, ejections and look-ups run on the calling runtime,
/// which must be that of the control thread, and so does whatever looks after certificates.
///
/// # Errors
/// [`ServeError`], when threads or the socket are not to be had.
pub fn start(
    config: &Arc<Config>,
    sockets: Sockets,
    pools: Vec<Vec<Arc<SharedPool>>>,
    inputs: &Inputs,
    quality: &Quality,
) -> Result<Serving, ServeError> {
    sockets.traffic.set_nonblocking(true).map_err(ServeError::Listener)?;
    if let Some((socket, tls)) = &sockets.traffic_tls {
        socket.set_nonblocking(true).map_err(ServeError::Listener)?;
        tokio::spawn(tls.clone().follow());
    }
    let (stop_listening, stopped) = watch::channel(false);
    let (is_draining, draining) = watch::channel(false);
    let (close_connections, closing) = watch::channel(false);
    let mut threads = Vec::new();
    let mut doors = Vec::new();
    for (index, counters) in quality.workers().iter().take(config.listen.workers).enumerate() {
        let (arrivals, receiver) = mpsc::channel(ARRIVALS);
        let door = listener::WorkerDoor { arrivals, connections: Arc::default() };
        let plan = worker::Plan {
            config: config.clone(),
            pools: pools.clone(),
            flags: inputs.flags.clone(),
            policies: inputs.policies.clone(),
            shadows: inputs.shadows.clone(),
            counters: counters.clone(),
            overrides: inputs.overrides.clone(),
            arrivals: receiver,
            connections: door.connections.clone(),
            is_draining: draining.clone(),
            close_connections: closing.clone(),
            seed: random_seed(index),
        };
        doors.push(door);
        threads.push(spawn(format!("worker-{index}"), move || worker::run(plan))?);
    }
    let counters = quality.workers().last().cloned().unwrap_or_default();
    let acceptor = listener::Acceptor::new(&config.limits, doors, counters);
    threads.push(spawn("listener".to_owned(), move || accept(acceptor, sockets, stopped))?);
    watch_pools(config, &pools);
    Ok(Serving { pools, stop_listening, is_draining, close_connections, threads, drain_timeout: config.limits.drain_timeout })
}

impl Serving {
    /// Ends in order: connections are told that they will close, no new ones are taken, and queries in flight end, up to
    /// the drain timeout. Returns how many queries were cut off by it.
    pub async fn drain(self) -> usize {
        let deadline = tokio::time::Instant::now() + self.drain_timeout;
        self.is_draining.send_replace(true);
        tokio::time::sleep(ANNOUNCE.min(self.drain_timeout / 2)).await;
        self.stop_listening.send_replace(true);
        self.close_connections.send_replace(true);
        while self.threads.iter().any(|thread| !thread.is_finished()) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.pools.iter().flatten().map(|pool| pool.in_flight()).sum()
    }
}

fn accept(acceptor: listener::Acceptor, sockets: Sockets, stopped: watch::Receiver<bool>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(acceptor.run(sockets, stopped))
}

fn watch_pools(config: &Config, pools: &[Vec<Arc<SharedPool>>]) {
    for (route, pools) in config.routes.iter().zip(pools) {
        for pool in pools {
            if let Some(tls) = &pool.tls {
                tokio::spawn(tls.clone().follow(CERTIFICATES_EVERY));
            }
            tokio::spawn(pool::eject_outliers(route.name.clone(), pool.clone()));
            for endpoint in &pool.endpoints {
                tokio::spawn(pool::follow_name(route.name.clone(), pool.clone(), endpoint.clone()));
                tokio::spawn(pool::check_forever(route.name.clone(), pool.clone(), endpoint.clone()));
            }
        }
    }
}

fn spawn(name: String, run: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<JoinHandle<()>, ServeError> {
    let body = move || {
        if let Err(error) = run() {
            tracing::error!(%error, thread = std::thread::current().name(), "a thread of the data path ended");
        }
    };
    std::thread::Builder::new().name(name.clone()).spawn(body).map_err(|source| ServeError::Thread { name, source })
}

/// Differs between workers and processes, so that they do not all pick the same two endpoints.
fn random_seed(worker: usize) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_usize(worker);
    hasher.finish()
}
