//! A pool as all workers, the control thread and the admin API see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::SharedEndpoint;
use super::eligible::{Eligible, Standing, panics};
use super::shared_endpoint::Admission;
use crate::config;
use crate::tls::ClientTls;

/// A pool as all workers see it.
#[derive(Debug)]
pub struct SharedPool {
    /// As in the config.
    pub config: config::Pool,
    /// In the config's order.
    pub endpoints: Vec<Arc<SharedEndpoint>>,
    /// Of a pool with `https` endpoints.
    pub(crate) tls: Option<Arc<ClientTls>>,
    in_flight: AtomicUsize,
    mirrors_in_flight: AtomicUsize,
    /// Grows whenever an endpoint may have traffic that might not before, or the other way round.
    changes: AtomicU32,
    is_panicking: AtomicBool,
    panics: AtomicU64,
    /// Wakes whoever looks for outliers: attempts failed, or an endpoint stands otherwise than before.
    pub(super) news: Notify,
}

impl SharedPool {
    /// A pool of healthy endpoints with nothing in flight. Names are looked up later.
    #[must_use]
    pub fn new(config: &config::Pool, tls: Option<Arc<ClientTls>>) -> Arc<SharedPool> {
        let endpoints = config.endpoints.iter().map(|endpoint| Arc::new(SharedEndpoint::new(endpoint, config, tls.as_ref())));
        let endpoints = endpoints.collect();
        SharedPool::of(config, tls, endpoints, 0)
    }

    fn of(config: &config::Pool, tls: Option<Arc<ClientTls>>, endpoints: Vec<Arc<SharedEndpoint>>, panics: u64) -> Arc<SharedPool> {
        Arc::new(SharedPool {
            endpoints,
            config: config.clone(),
            tls,
            in_flight: AtomicUsize::new(0),
            mirrors_in_flight: AtomicUsize::new(0),
            changes: AtomicU32::new(0),
            is_panicking: AtomicBool::new(false),
            panics: AtomicU64::new(panics),
            news: Notify::new(),
        })
    }

    /// This pool under another config, with certificates as that says: itself when it is the same, else a new one that keeps what is
    /// known of the endpoints that stay.
    pub(crate) fn succeed(self: &Arc<Self>, config: &config::Pool, tls: Option<Arc<ClientTls>>) -> Arc<SharedPool> {
        let has_same_tls = self.tls.as_ref().map(Arc::as_ptr) == tls.as_ref().map(Arc::as_ptr);
        if self.config == *config && has_same_tls {
            return self.clone();
        }
        let is_like_before = self.config.protocol == config.protocol
            && self.config.max_in_flight_per_endpoint == config.max_in_flight_per_endpoint
            && self.config.slow_start == config.slow_start;
        let kept = |endpoint: &config::Endpoint| {
            let is_same = |old: &&Arc<SharedEndpoint>| {
                old.authority == endpoint.authority && old.tls.is_some() == endpoint.is_tls && (has_same_tls || !endpoint.is_tls)
            };
            self.endpoints.iter().find(is_same).filter(|_| is_like_before).cloned()
        };
        let new = |endpoint: &config::Endpoint| Arc::new(SharedEndpoint::new(endpoint, config, tls.as_ref()));
        let endpoints = config.endpoints.iter().map(|endpoint| kept(endpoint).unwrap_or_else(|| new(endpoint))).collect();
        SharedPool::of(config, tls, endpoints, self.panics())
    }

    /// Attempts that have not ended, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Endpoints that are neither unhealthy nor ejected.
    #[must_use]
    pub fn healthy(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.is_available()).count()
    }

    /// Whether any endpoint may have traffic, for all that health checks and the resolver know.
    #[must_use]
    pub fn has_healthy_endpoint(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.may_serve())
    }

    /// Whether all endpoints are used, since too few are healthy.
    #[must_use]
    pub fn is_panicking(&self) -> bool {
        self.is_panicking.load(Ordering::Relaxed)
    }

    /// How often that began.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Changes how an endpoint stands, on the control thread: workers choose anew from here on.
    pub(super) fn change(&self, route: &str, endpoint: &SharedEndpoint, apply: impl FnOnce(&SharedEndpoint)) {
        let was_available = endpoint.is_available();
        apply(endpoint);
        if endpoint.is_available() && !was_available {
            endpoint.came_back(Instant::now());
        }
        let available = self.endpoints.iter().filter(|endpoint| endpoint.is_available()).count();
        let is_panicking = panics(available, self.endpoints.len(), self.config.healthy_panic_threshold);
        if self.is_panicking.swap(is_panicking, Ordering::Relaxed) != is_panicking {
            self.panics.fetch_add(u64::from(is_panicking), Ordering::Relaxed);
            let (pool, total) = (&self.config.name, self.endpoints.len());
            if is_panicking {
                tracing::warn!(route, pool, available, total, "panic: too few endpoints are healthy, all are used");
            } else {
                tracing::info!(route, pool, available, total, "the panic is over");
            }
        }
        self.news.notify_one();
        // After what it announces: workers that see the number see the rest.
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// A number that changes with each change of [`SharedPool::eligible`].
    pub(super) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) fn eligible(&self) -> Eligible {
        let standing = |endpoint: &Arc<SharedEndpoint>| Standing {
            is_available: endpoint.is_available(),
            is_resolved: endpoint.places.is_resolved(),
            is_half_open: endpoint.may_serve() && endpoint.admission() == Admission::HalfOpen,
        };
        let standings: Vec<Standing> = self.endpoints.iter().map(standing).collect();
        Eligible::of(&standings, self.config.healthy_panic_threshold)
    }

    /// A place among the attempts in flight; false, and none taken, when the pool is full.
    pub(super) fn enter(&self) -> bool {
        let has_room = self.in_flight.fetch_add(1, Ordering::Relaxed) < self.config.max_in_flight;
        if !has_room {
            self.leave();
        }
        has_room
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A place among the copies in flight, or none where there are as many as may be.
    pub(crate) fn enter_mirror(self: &Arc<SharedPool>) -> Option<MirrorSlot> {
        let before = self.mirrors_in_flight.fetch_add(1, Ordering::Relaxed);
        let slot = MirrorSlot { pool: self.clone() };
        (before < self.config.max_mirrors_in_flight).then_some(slot)
    }
}

/// A copy's place; given back when dropped.
pub(crate) struct MirrorSlot {
    pool: Arc<SharedPool>,
}

impl Drop for MirrorSlot {
    fn drop(&mut self) {
        self.pool.mirrors_in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
