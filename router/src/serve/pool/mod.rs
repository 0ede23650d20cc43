//! Pools: which endpoint gets a query, and how many queries a pool may have.
//!
//! [`SharedPool`] is what all workers, the health checks and the admin API see; [`Pool`] is one worker's side of it.

mod endpoint;
mod ewma;
mod health;
mod retry_budget;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

pub(crate) use endpoint::Endpoint;
pub use endpoint::SharedEndpoint;
pub(crate) use health::check_forever;

use crate::config;
use crate::tls::ClientTls;
use retry_budget::RetryBudget;

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
}

impl SharedPool {
    /// A pool of healthy endpoints with nothing in flight.
    #[must_use]
    pub fn new(config: &config::Pool, tls: Option<Arc<ClientTls>>) -> Arc<SharedPool> {
        let endpoints = config.endpoints.iter().map(|endpoint| Arc::new(SharedEndpoint::new(endpoint, config.protocol, tls.as_ref())));
        Arc::new(SharedPool { endpoints: endpoints.collect(), config: config.clone(), tls, in_flight: AtomicUsize::new(0) })
    }

    /// This pool under another config, with certificates as that says: itself when it is the same, else a new one that keeps what is
    /// known of the endpoints that stay.
    pub(crate) fn succeed(self: &Arc<Self>, config: &config::Pool, tls: Option<Arc<ClientTls>>) -> Arc<SharedPool> {
        let has_same_tls = self.tls.as_ref().map(Arc::as_ptr) == tls.as_ref().map(Arc::as_ptr);
        if self.config == *config && has_same_tls {
            return self.clone();
        }
        let kept = |endpoint: &config::Endpoint| {
            let is_same = |old: &&Arc<SharedEndpoint>| {
                let is_spoken_to_alike = old.protocol == config.protocol && old.tls.is_some() == endpoint.is_tls;
                old.authority == endpoint.authority && is_spoken_to_alike && (has_same_tls || !endpoint.is_tls)
            };
            self.endpoints.iter().find(is_same).cloned()
        };
        let new = |endpoint: &config::Endpoint| Arc::new(SharedEndpoint::new(endpoint, config.protocol, tls.as_ref()));
        let endpoints = config.endpoints.iter().map(|endpoint| kept(endpoint).unwrap_or_else(|| new(endpoint))).collect();
        Arc::new(SharedPool { endpoints, config: config.clone(), tls, in_flight: AtomicUsize::new(0) })
    }

    /// Attempts that have not ended, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether any endpoint may have traffic.
    #[must_use]
    pub fn has_healthy_endpoint(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.is_healthy())
    }
}

/// One worker's side of a pool.
pub(crate) struct Pool {
    pub(crate) shared: Arc<SharedPool>,
    endpoints: Vec<Endpoint>,
    random: Cell<u64>,
    retries: RetryBudget,
}

/// A place in the pool's and one endpoint's count of attempts in flight; given back when dropped.
pub(crate) struct Slot {
    pool: Arc<SharedPool>,
    endpoint: Arc<SharedEndpoint>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.endpoint.leave();
    }
}

impl Pool {
    pub(crate) fn new(shared: &Arc<SharedPool>, seed: u64, now: Instant) -> Pool {
        let config = &shared.config;
        let endpoints = shared.endpoints.iter().map(|endpoint| Endpoint::new(endpoint.clone(), config, now));
        Pool { endpoints: endpoints.collect(), shared: shared.clone(), random: Cell::new(seed | 1), retries: RetryBudget::new(now) }
    }

    /// One worker's side of this pool under another config: `before` itself where the pool is the same; else a new one that takes over
    /// the idle connections to endpoints that stay.
    pub(crate) fn succeed(before: Option<&Rc<Pool>>, shared: &Arc<SharedPool>, seed: u64, now: Instant) -> Rc<Pool> {
        if let Some(before) = before.filter(|before| Arc::ptr_eq(&before.shared, shared)) {
            return before.clone();
        }
        let pool = Pool::new(shared, seed, now);
        for endpoint in &pool.endpoints {
            let old = before.into_iter().flat_map(|before| &before.endpoints);
            if let Some(old) = old.into_iter().find(|old| Arc::ptr_eq(&old.shared, &endpoint.shared)) {
                endpoint.take_over(old);
            }
        }
        Rc::new(pool)
    }

    /// The endpoint for one attempt: the less loaded of two healthy ones taken at random, and not `avoid` if there is another
    /// healthy one. Where none is healthy, any: a health check may be wrong, and no answer is certainly worse.
    pub(crate) fn pick(&self, avoid: Option<usize>, now: Instant) -> Option<(usize, &Endpoint)> {
        if let [only] = self.endpoints.as_slice() {
            return Some((0, only));
        }
        let choices = [(true, avoid), (true, None), (false, avoid), (false, None)];
        choices.into_iter().find_map(|(healthy_only, avoid)| self.pick_among(healthy_only, avoid, now))
    }

    fn pick_among(&self, healthy_only: bool, avoid: Option<usize>, now: Instant) -> Option<(usize, &Endpoint)> {
        let candidates = || {
            let all = self.endpoints.iter().enumerate();
            all.filter(|(index, endpoint)| Some(*index) != avoid && (!healthy_only || endpoint.shared.is_healthy()))
        };
        let count = candidates().count();
        let first = self.random_below(count);
        let second = (first + 1 + self.random_below(count.saturating_sub(1))) % count.max(1);
        let one = candidates().nth(first)?;
        let other = candidates().nth(second)?;
        Some(if other.1.load(now) < one.1.load(now) { other } else { one })
    }

    pub(crate) fn endpoint(&self, index: usize) -> Option<&Endpoint> {
        self.endpoints.get(index)
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// A place among the queries in flight, or none when the pool is full.
    pub(crate) fn enter(&self, endpoint: &Endpoint) -> Option<Slot> {
        let before = self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        endpoint.shared.enter();
        self.retries.deposit();
        let slot = Slot { pool: self.shared.clone(), endpoint: endpoint.shared.clone() };
        (before < self.shared.config.max_in_flight).then_some(slot)
    }

    /// Leave to try a query once more; see [`retry_budget`].
    pub(crate) fn may_retry(&self, now: Instant) -> bool {
        self.retries.withdraw(now)
    }

    /// A number below `bound` (0 for a bound of 0): xorshift64*, good enough to spread load and free of system calls.
    fn random_below(&self, bound: usize) -> usize {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        let high = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        let bound = u64::try_from(bound).unwrap_or(0);
        usize::try_from((high * bound) >> 32).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(endpoints: &[&str]) -> Pool {
        let text = format!(
            r#"
            listen = {{ traffic = "127.0.0.1:0", admin = "127.0.0.1:0" }}
            route = [{{ name = "search", pools = {{ blue = {{ endpoints = {endpoints:?} }} }} }}]
            "#
        );
        let config = crate::config::parse("test", &text).unwrap();
        Pool::new(&SharedPool::new(&config.routes[0].pools[0], None), 7, Instant::now())
    }

    fn picked(pool: &Pool, avoid: Option<usize>) -> Vec<usize> {
        let mut all: Vec<usize> = (0..200).map(|_| pool.pick(avoid, Instant::now()).unwrap().0).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn what_stays_of_a_pool_keeps_its_health_and_its_connections() {
        let before = Rc::new(pool(&["http://127.0.0.1:1", "http://127.0.0.1:2"]));
        before.shared.endpoints[1].set_healthy(false);
        let same = before.shared.succeed(&before.shared.config, None);
        assert!(Arc::ptr_eq(&same, &before.shared));
        assert!(Rc::ptr_eq(&Pool::succeed(Some(&before), &same, 7, Instant::now()), &before));
        let other = pool(&["http://127.0.0.1:2", "http://127.0.0.1:3"]).shared.config.clone();
        let after = Pool::succeed(Some(&before), &before.shared.succeed(&other, None), 7, Instant::now());
        assert!(Arc::ptr_eq(&after.endpoints[0].shared, &before.endpoints[1].shared));
        let health: Vec<bool> = after.shared.endpoints.iter().map(|endpoint| endpoint.is_healthy()).collect();
        assert_eq!(health, [false, true]);
    }

    #[test]
    fn a_second_attempt_goes_elsewhere_but_never_to_a_dead_endpoint_while_a_healthy_one_is_there() {
        let pool = pool(&["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]);
        assert_eq!(picked(&pool, None), [0, 1, 2]);
        assert_eq!(picked(&pool, Some(1)), [0, 2]);
        pool.endpoints[2].shared.set_healthy(false);
        assert_eq!(picked(&pool, Some(1)), [0]);
        assert_eq!(picked(&pool, None), [0, 1]);
        pool.endpoints[0].shared.set_healthy(false);
        assert_eq!(picked(&pool, Some(1)), [1], "the only healthy one, although it was just tried");
        pool.endpoints[1].shared.set_healthy(false);
        assert_eq!(picked(&pool, Some(1)), [0, 2]);
    }
}
