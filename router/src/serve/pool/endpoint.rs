//! One backend process: what all workers know of it, and what one worker keeps for it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::Authority;
use tokio::time::Instant;

use super::ewma::PeakEwma;
use crate::config::{self, Protocol};
use crate::serve::upstream::Connection;
use crate::tls::ClientTls;

/// A worker leaves an endpoint alone this long after a failure, if it has another: long enough not to meet every restart with
/// a burst of retries, short enough to notice at once that it is back.
const LEFT_ALONE: Duration = Duration::from_millis(500);

/// The load of an endpoint that is left alone: above that of any other.
const LEFT_ALONE_LOAD: f64 = 1e15;

/// What all workers and the health checks share about an endpoint: relaxed atomics, no more.
#[derive(Debug)]
pub struct SharedEndpoint {
    /// Host and port.
    pub authority: Authority,
    pub(crate) protocol: Protocol,
    /// `None` for one that is spoken to in the clear.
    pub(crate) tls: Option<Arc<ClientTls>>,
    is_healthy: AtomicBool,
    /// How often it became healthy again: what was learnt of its latency before is no longer true.
    recoveries: AtomicU32,
    in_flight: AtomicUsize,
}

impl SharedEndpoint {
    pub(super) fn new(config: &config::Endpoint, protocol: Protocol, tls: Option<&Arc<ClientTls>>) -> SharedEndpoint {
        SharedEndpoint {
            authority: config.authority.clone(),
            protocol,
            tls: tls.filter(|_| config.is_tls).cloned(),
            is_healthy: AtomicBool::new(true),
            recoveries: AtomicU32::new(0),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Whether health checks let it have traffic. True until they say otherwise.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    pub(crate) fn set_healthy(&self, healthy: bool) {
        if healthy {
            self.recoveries.fetch_add(1, Ordering::Relaxed);
        }
        self.is_healthy.store(healthy, Ordering::Relaxed);
    }

    /// Attempts that have not ended, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One worker's side of an endpoint: its idle connections and its view of the latency.
pub(crate) struct Endpoint {
    pub(crate) shared: Arc<SharedEndpoint>,
    latency: Cell<PeakEwma>,
    recoveries_seen: Cell<u32>,
    left_alone_until: Cell<Instant>,
    idle: RefCell<Vec<IdleConnection>>,
    idle_limit: usize,
    idle_timeout: Duration,
    /// The only one of its pool: nobody asks for its load.
    is_alone: bool,
}

struct IdleConnection {
    connection: Connection,
    until: Instant,
}

impl Endpoint {
    /// One worker's side of an endpoint of this pool.
    pub(super) fn new(shared: Arc<SharedEndpoint>, pool: &config::Pool, now: Instant) -> Endpoint {
        Endpoint {
            shared,
            latency: Cell::new(PeakEwma::new(now)),
            recoveries_seen: Cell::new(0),
            left_alone_until: Cell::new(now),
            idle: RefCell::default(),
            idle_limit: pool.idle_connections,
            idle_timeout: pool.idle_timeout,
            is_alone: pool.endpoints.len() == 1,
        }
    }

    /// Takes over what the same endpoint had before another config: its idle connections, and what was learnt of it.
    pub(super) fn take_over(&self, before: &Endpoint) {
        let mut idle = before.idle.take();
        idle.truncate(self.idle_limit);
        self.idle.replace(idle);
        self.latency.set(before.latency.get());
        self.recoveries_seen.set(before.recoveries_seen.get());
        self.left_alone_until.set(before.left_alone_until.get());
    }

    /// What one more query would cost here: expected latency times the queries that would then be in flight.
    pub(super) fn load(&self, now: Instant) -> f64 {
        let recoveries = self.shared.recoveries.load(Ordering::Relaxed);
        if self.recoveries_seen.replace(recoveries) != recoveries {
            self.latency.set(PeakEwma::new(now));
            self.left_alone_until.set(now);
        }
        if now < self.left_alone_until.get() {
            return LEFT_ALONE_LOAD;
        }
        let queue = u32::try_from(self.shared.in_flight()).unwrap_or(u32::MAX);
        self.latency.get().micros(now) * (f64::from(queue) + 1.0)
    }

    pub(crate) fn observe(&self, latency: Duration, now: Instant) {
        if self.is_alone {
            return;
        }
        self.latency.set(self.latency.get().observe(latency, now));
    }

    /// An attempt failed: others first, for a moment.
    pub(crate) fn leave_alone(&self, now: Instant) {
        self.left_alone_until.set(now + LEFT_ALONE);
    }

    /// Takes the connection that was used last, if there is one that is still good. Most recently used first, so that those
    /// that a burst opened grow old and are closed. Of connections that carry many queries, a share.
    pub(crate) fn take_idle(&self, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        if self.shared.protocol == Protocol::Http2 {
            idle.retain(|idle| !idle.connection.is_closed());
            let usable = idle.iter_mut().find(|idle| idle.connection.is_usable())?;
            usable.until = now + self.idle_timeout;
            return usable.connection.share();
        }
        while let Some(IdleConnection { connection, until }) = idle.pop() {
            if now < until && connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a new connection that can carry other queries beside the one that it was opened for.
    pub(crate) fn keep_share(&self, connection: &Connection, now: Instant) {
        if let Some(connection) = connection.share() {
            self.put(connection, now);
        }
    }

    /// Takes a connection back when its query has ended.
    pub(crate) fn put_idle(&self, connection: Connection, now: Instant) {
        if self.shared.protocol == Protocol::Http1 {
            self.put(connection, now);
        }
    }

    fn put(&self, connection: Connection, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_limit && !connection.is_closed() {
            idle.push(IdleConnection { connection, until: now + self.idle_timeout });
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn close_expired(&self, now: Instant) {
        let keep = |idle: &IdleConnection| now < idle.until && !idle.connection.is_closed();
        self.idle.borrow_mut().retain(keep);
    }
}
