//! The data path: from a client's bytes to a backend's answer.
//!
//! ```text
//! listener -> connection -> query -> routes -> split -> forward -> attempt -> upstream -> body -> client
//! ```
//!
//! Thread per core: each [`worker`] has its own runtime, upstream connections, policy instances and counters. What workers share
//! is this list, all of it relaxed atomics: connections in all, per address and per worker ([`listener`]); attempts and copies in flight per pool,
//! attempts in flight, their outcomes, health and ejection per endpoint ([`pool`]); a policy's strikes (`policy::Health`). Flags and policies reach a
//! worker as immutable snapshots, and it works out then whatever does not depend on a query. So does another config: a [`generation`] of
//! routes, swapped whole.
//!
//! Invariant: a query takes no lock, waits for no other thread, and never talks to the flag store.

mod again;
mod answer;
mod attempt;
mod body;
mod clock;
mod connection;
mod events;
mod experiments;
mod expose;
mod forward;
mod forwarded;
#[cfg(test)]
mod fuzz;
mod generation;
mod hang_up;
mod head;
mod head_lines;
mod headers;
mod http1;
mod http2;
mod idle;
mod incoming;
mod interim;
mod issue;
mod listen;
mod listener;
mod log_limit;
mod mirror;
mod open;
mod overrides;
mod pair;
mod pool;
mod pools;
mod position;
mod query;
mod replay;
mod routes;
mod seat;
mod seen;
mod shadow;
mod signals;
mod split;
mod timer;
mod trailers;
mod tunnel;
mod upstream;
mod watched;
mod worker;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use generation::Generation;
pub use open::{OpenConnections, Spoken};
pub use overrides::{FIELD as OVERRIDE_FIELD, OverrideError, Overrides};
pub use pool::{EndpointState, Probed, SharedEndpoint, SharedPool, Why};
pub use pools::Pools;
pub use position::PositionKey;

use crate::tls::ServerTls;
use generation::Succession;
use listener::{Acceptor, Most, WorkerDoor};
use worker::{Cut, Ending};

/// Connections that may wait for a worker to take them.
const ARRIVALS: usize = 1_024;

/// For every worker to have another generation's routes in force: a worker is never busy for this long.
const SWAP_WITHIN: Duration = Duration::from_secs(5);

/// For workers to end after the deadline of a drain.
const CUT_WITHIN: Duration = Duration::from_secs(2);

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

/// How a drain goes.
#[derive(Debug, Clone, Copy)]
pub struct DrainPlan {
    /// Between the announcement that connections will close and their end, in which a client hears of it on its next response and sends
    /// no query into a closing connection.
    pub announce: Duration,
    /// From the announcement to the cut.
    pub timeout: Duration,
    /// New connections are taken while it is announced. Not where a new process takes them.
    pub takes_connections: bool,
}

/// What a drain's deadline cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CutOff {
    /// Queries that were being answered.
    pub queries: usize,
    /// Upgraded connections, such as WebSockets: only their two ends know when they are done.
    pub upgraded: usize,
}

/// The running data path.
pub struct Serving {
    /// By worker.
    pub connections: Vec<Arc<OpenConnections>>,
    generations: watch::Sender<Arc<Generation>>,
    /// By worker: the number of the generation that it has in force.
    in_force: Vec<watch::Receiver<u64>>,
    most: Arc<Most>,
    acceptor: Option<Acceptor>,
    stop_listening: watch::Sender<bool>,
    is_draining: watch::Sender<bool>,
    close_connections: watch::Sender<bool>,
    cut_off: watch::Sender<bool>,
    cut: Arc<Cut>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts the workers. Health checks, ejections and look-ups run on the calling runtime, which must be that of the control thread, and so does
/// whatever looks after certificates. No connection is taken before [`Serving::listen`].
///
/// # Errors
/// [`ServeError`], when threads are not to be had.
pub fn start(generation: Arc<Generation>) -> Result<Serving, ServeError> {
    let (is_draining, draining) = watch::channel(false);
    let (close_connections, closing) = watch::channel(false);
    let (cut_off, cutting) = watch::channel(false);
    let cut = Arc::new(Cut::default());
    let ending = Ending { is_draining: draining, close_connections: closing, cut_off: cutting, cut: cut.clone() };
    let config = generation.config.clone();
    generation.pools.look_after(&config);
    let counters: Vec<_> = generation.quality.workers().iter().map(|worker| worker.totals().clone()).collect();
    let (generations, newest) = watch::channel(generation);
    let (mut threads, mut doors, mut in_force) = (Vec::new(), Vec::new(), Vec::new());
    for (worker, counters) in counters.iter().take(config.listen.workers).enumerate() {
        let (arrivals, receiver) = mpsc::channel(ARRIVALS);
        let (tell, told) = watch::channel(0);
        let door = WorkerDoor { arrivals, connections: Arc::default() };
        let succession = Succession { generations: newest.clone(), worker, in_force: tell, seed: random_seed(worker) };
        let (counters, connections) = (counters.clone(), door.connections.clone());
        let plan = worker::Plan { succession, counters, arrivals: receiver, connections, ending: ending.clone() };
        doors.push(door);
        in_force.push(told);
        threads.push(spawn(format!("worker-{worker}"), move || worker::run(plan))?);
    }
    let connections = doors.iter().map(|door| door.connections.clone()).collect();
    let most = Arc::new(Most::of(&config.limits));
    // The last counters are the listener's.
    let acceptor = Some(Acceptor::new(most.clone(), doors, counters.last().cloned().unwrap_or_default()));
    let stop_listening = watch::Sender::new(false);
    Ok(Serving {
        connections,
        generations,
        in_force,
        most,
        acceptor,
        stop_listening,
        is_draining,
        close_connections,
        cut_off,
        cut,
        threads,
    })
}

impl Serving {
    /// Takes connections from now on. Once.
    ///
    /// # Errors
    /// [`ServeError`], when the thread or the sockets are not to be had.
    pub fn listen(&mut self, sockets: Sockets) -> Result<(), ServeError> {
        sockets.traffic.set_nonblocking(true).map_err(ServeError::Listener)?;
        if let Some((socket, tls)) = &sockets.traffic_tls {
            socket.set_nonblocking(true).map_err(ServeError::Listener)?;
            tokio::spawn(tls.clone().follow());
        }
        if let Some(acceptor) = self.acceptor.take() {
            let stopped = self.stop_listening.subscribe();
            self.threads.push(spawn("listener".to_owned(), move || accept(acceptor, sockets, stopped))?);
        }
        Ok(())
    }

    /// Puts another generation in force. Every worker has it when this returns, unless one is stuck: false then.
    pub async fn succeed(&self, generation: Arc<Generation>) -> bool {
        let (number, config) = (generation.number, generation.config.clone());
        generation.pools.look_after(&config);
        self.most.set(&config.limits);
        self.generations.send_replace(generation);
        let mut in_force = self.in_force.clone();
        let all = in_force.iter_mut().map(|in_force| in_force.wait_for(|has| *has >= number));
        tokio::time::timeout(SWAP_WITHIN, futures_util::future::join_all(all)).await.is_ok()
    }

    /// Ends in order: connections are told that they will close, no new ones are taken, and queries in flight end, up to the deadline.
    /// Answers what that cut off.
    pub async fn drain(self, plan: DrainPlan) -> CutOff {
        let deadline = Instant::now() + plan.timeout;
        self.stop_listening.send_replace(!plan.takes_connections);
        self.is_draining.send_replace(true);
        tokio::time::sleep(plan.announce.min(plan.timeout / 2)).await;
        self.stop_listening.send_replace(true);
        self.close_connections.send_replace(true);
        self.wait_for_threads(deadline).await;
        self.cut_off.send_replace(true);
        self.wait_for_threads(Instant::now() + CUT_WITHIN).await;
        CutOff { queries: self.cut.queries.load(Ordering::Relaxed), upgraded: self.cut.upgraded.load(Ordering::Relaxed) }
    }

    async fn wait_for_threads(&self, deadline: Instant) {
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn accept(acceptor: Acceptor, sockets: Sockets, stopped: watch::Receiver<bool>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(acceptor.run(sockets, stopped))
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
