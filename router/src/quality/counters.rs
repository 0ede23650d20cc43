//! The counters of one worker, and the sum over all of them.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::outcomes::WindowClock;
use super::refusal::{OverrideFault, Refusal};
use super::series::{NewArms, Series};
use super::token::{route_id, version_id};
use crate::config::{Config, Pool, Route};

/// A number with one writer and any number of readers.
///
/// Invariant: only the worker that owns it calls [`Count::add`]; that is why it needs no read-modify-write instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; wraps never in practice (2^64).
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper edges of the duration buckets, in microseconds: 1-2.5-5 decades, 100 us to 10 s.
pub const DURATION_EDGES_MICROS: [u64; 16] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];

/// A histogram over [`DURATION_EDGES_MICROS`], for Prometheus.
#[derive(Debug, Default)]
pub struct Durations {
    /// One more than there are edges: the last holds what is beyond.
    pub buckets: [Count; DURATION_EDGES_MICROS.len() + 1],
    /// Sum of all, in microseconds.
    pub sum_micros: Count,
}

impl Durations {
    /// Records one duration.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_EDGES_MICROS.partition_point(|edge| *edge < micros);
        if let Some(count) = self.buckets.get(bucket) {
            count.increment();
        }
        self.sum_micros.add(micros);
    }
}

/// What is wrong with a backend's response that is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It is no HTTP.
    Parse,
    /// Its length could be read in two ways.
    Framing,
    /// It switches to a protocol that nobody asked for.
    Upgrade,
    /// Its body is larger than the route allows.
    Size,
    /// Its head has more fields than are read.
    Fields,
    /// Its head has more bytes than are read.
    HeadSize,
}

impl Broken {
    /// All of them, in the order of [`PoolCounters::broken`].
    pub const ALL: [Broken; 6] = [Broken::Parse, Broken::Framing, Broken::Upgrade, Broken::Size, Broken::Fields, Broken::HeadSize];

    /// The `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Broken::Parse => "parse",
            Broken::Framing => "framing",
            Broken::Upgrade => "upgrade",
            Broken::Size => "size",
            Broken::Fields => "fields",
            Broken::HeadSize => "head_size",
        }
    }
}

/// Why what a backend says of its response's quality is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalFault {
    /// It is no number.
    NoNumber,
    /// It is a number, and not one that it can be.
    OutOfRange,
    /// It is said twice.
    Repeated,
}

impl SignalFault {
    /// All of them, in the order of [`PoolCounters::signal_faults`].
    pub const ALL: [SignalFault; 3] = [SignalFault::NoNumber, SignalFault::OutOfRange, SignalFault::Repeated];

    /// The `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            SignalFault::NoNumber => "no_number",
            SignalFault::OutOfRange => "out_of_range",
            SignalFault::Repeated => "repeated",
        }
    }
}

/// What became of a copy of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirrored {
    /// It was answered, and not with a 5xx.
    Answered,
    /// It was answered with a 5xx.
    ServerError,
    /// It was not answered, not in time, or not to the end.
    Failed,
    /// Not sent: as many were in flight as may be.
    Dropped,
    /// Not sent: its method may not be sent twice, or its body was too large or had not come when the query was answered.
    Unfit,
}

impl Mirrored {
    /// All of them, in the order of [`PoolCounters::mirrored`].
    pub const ALL: [Mirrored; 5] = [Mirrored::Answered, Mirrored::ServerError, Mirrored::Failed, Mirrored::Dropped, Mirrored::Unfit];

    /// The `result` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Mirrored::Answered => "answered",
            Mirrored::ServerError => "server_error",
            Mirrored::Failed => "failed",
            Mirrored::Dropped => "dropped",
            Mirrored::Unfit => "unfit",
        }
    }
}

/// What happened on one pool: attempts, not final answers.
#[derive(Debug, Default)]
pub struct PoolCounters {
    /// Responses by status class: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub codes: [Count; 5],
    /// Attempts with no response: connect failures, resets, broken responses. The backend is to blame.
    pub failures: Count,
    /// Of these, responses that were not passed on, by [`Broken`].
    pub broken: [Count; Broken::ALL.len()],
    /// Attempts that ran out of time.
    pub timeouts: Count,
    /// Attempts given up because the client went away. Nobody is to blame.
    pub client_aborts: Count,
    /// Second attempts on a fresh connection.
    pub retries: Count,
    /// Queries of this pool that the live pool answered instead.
    pub fallbacks: Count,
    /// Copies of queries to this pool, by [`Mirrored`]; they are in no other count.
    pub mirrored: [Count; Mirrored::ALL.len()],
    /// From sending an attempt to the response's head.
    pub durations: Durations,
    /// What it said of its responses' quality and makes no sense, by [`SignalFault`].
    pub signal_faults: [Count; SignalFault::ALL.len()],
    /// What became of queries by window.
    pub series: Series,
}

impl PoolCounters {
    fn of(route: &Route, pool: &Pool) -> PoolCounters {
        PoolCounters { series: Series::of(route_id(&route.name), version_id(&pool.name, &pool.version)), ..PoolCounters::default() }
    }
}

/// How many kinds of decision are counted: those of the policy interface in its order, then native, pin, override, and
/// those of the last good policy in place of the one in force.
pub const DECISIONS: [&str; 9] = ["live", "candidate", "holdback", "experiment", "rule", "native", "pin", "override", "last_good"];

/// What happened on one route under one config; what is not of a pool is that of [`RouteTotals`].
#[derive(Debug, Default, Clone)]
pub struct RouteCounters {
    /// By place in [`crate::config::Route::pools`].
    pub pools: Vec<Arc<PoolCounters>>,
    totals: Arc<RouteTotals>,
}

impl Deref for RouteCounters {
    type Target = RouteTotals;

    fn deref(&self) -> &RouteTotals {
        &self.totals
    }
}

/// What happened on one route since the process started, over all of its pools.
#[derive(Debug, Default)]
pub struct RouteTotals {
    /// Decisions by reason, in the order of [`DECISIONS`].
    pub decisions: [Count; DECISIONS.len()],
    /// Time in the policy of a sample of decisions (one in 64).
    pub policy_durations: Durations,
    /// Decisions that the policy owed and the native one gave: traps, lateness, nonsense.
    pub policy_failures: Count,
    /// Sampled queries about which a shadow run's candidate agrees with the policy in force.
    pub shadow_agreed: Count,
    /// The same, where it names another pool.
    pub shadow_disagreed: Count,
    /// Queries answered 502, 503 or 504 by the router itself.
    pub unanswered: Count,
}

/// Everything one worker counts under one config; what is of no route is that of [`WorkerTotals`].
#[derive(Debug, Default, Clone)]
pub struct WorkerCounters {
    /// By place in [`Config::routes`].
    pub routes: Vec<Arc<RouteCounters>>,
    totals: Arc<WorkerTotals>,
}

impl Deref for WorkerCounters {
    type Target = WorkerTotals;

    fn deref(&self) -> &WorkerTotals {
        &self.totals
    }
}

/// What one worker counts that is of no route.
#[derive(Debug, Default)]
pub struct WorkerTotals {
    /// Requests that never became a query, by [`Refusal`].
    pub refusals: [Count; Refusal::ALL.len()],
    /// Overrides that were ignored, by [`OverrideFault`].
    pub override_faults: [Count; OverrideFault::ALL.len()],
    /// Client connections taken.
    pub connections: Count,
    /// Which window it is, for all of them.
    pub clock: Arc<WindowClock>,
    /// Where all of them say which arms they count in.
    pub new_arms: Arc<NewArms>,
}

/// The counters of all workers under one config.
#[derive(Debug, Clone)]
pub struct Quality {
    config: Arc<Config>,
    workers: Vec<Arc<WorkerCounters>>,
    clock: Arc<WindowClock>,
    new_arms: Arc<NewArms>,
}

impl RouteCounters {
    fn of(route: &Route) -> RouteCounters {
        RouteCounters { pools: route.pools.iter().map(|pool| Arc::new(PoolCounters::of(route, pool))).collect(), totals: Arc::default() }
    }

    fn succeed(&self, before: &Route, after: &Route) -> RouteCounters {
        let kept = |pool: &Pool| {
            let place = before.pools.iter().position(|old| old.name == pool.name && old.version == pool.version)?;
            self.pools.get(place).cloned()
        };
        let pools = after.pools.iter().map(|pool| kept(pool).unwrap_or_else(|| Arc::new(PoolCounters::of(after, pool)))).collect();
        RouteCounters { pools, totals: self.totals.clone() }
    }
}

impl WorkerCounters {
    /// What goes on whatever the config.
    #[must_use]
    pub fn totals(&self) -> &Arc<WorkerTotals> {
        &self.totals
    }

    fn of(config: &Config, clock: &Arc<WindowClock>, new_arms: &Arc<NewArms>) -> WorkerCounters {
        let routes = config.routes.iter().map(|route| Arc::new(RouteCounters::of(route))).collect();
        let totals = WorkerTotals { clock: clock.clone(), new_arms: new_arms.clone(), ..WorkerTotals::default() };
        WorkerCounters { routes, totals: Arc::new(totals) }
    }

    fn succeed(&self, before: &Config, after: &Config) -> WorkerCounters {
        let places: HashMap<&str, usize> = before.routes.iter().enumerate().map(|(place, route)| (route.name.as_str(), place)).collect();
        let kept = |route: &Route| {
            let place = *places.get(route.name.as_str())?;
            Some(self.routes.get(place)?.succeed(before.routes.get(place)?, route))
        };
        let routes = after.routes.iter().map(|route| Arc::new(kept(route).unwrap_or_else(|| RouteCounters::of(route)))).collect();
        WorkerCounters { routes, totals: self.totals.clone() }
    }
}

impl Quality {
    /// Zero for every worker, route and pool of the config.
    #[must_use]
    pub fn new(config: &Arc<Config>) -> Quality {
        // One more for the listener, which refuses connections before any worker has them.
        let (clock, new_arms) = (Arc::default(), Arc::default());
        let workers = (0..=config.listen.workers).map(|_| Arc::new(WorkerCounters::of(config, &clock, &new_arms))).collect();
        Quality { config: config.clone(), workers, clock, new_arms }
    }

    /// The counters under another config. A route's go on by its name, and a pool's by its name and version, so that no series goes
    /// back; what is new starts at zero.
    #[must_use]
    pub fn succeed(&self, config: &Arc<Config>) -> Quality {
        let workers = self.workers.iter().map(|worker| Arc::new(worker.succeed(&self.config, config)));
        Quality { config: config.clone(), workers: workers.collect(), clock: self.clock.clone(), new_arms: self.new_arms.clone() }
    }

    /// What tells all workers which window it is.
    #[must_use]
    pub fn clock(&self) -> &Arc<WindowClock> {
        &self.clock
    }

    /// Arms that workers began to count in.
    #[must_use]
    pub fn new_arms(&self) -> &NewArms {
        &self.new_arms
    }

    /// The config that places in it are of.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// One entry for each worker, and one for the listener.
    #[must_use]
    pub fn workers(&self) -> &[Arc<WorkerCounters>] {
        &self.workers
    }

    /// Sums one counter over the workers.
    pub fn sum(&self, pick: impl Fn(&WorkerCounters) -> Option<&Count>) -> u64 {
        self.workers.iter().filter_map(|worker| pick(worker)).map(Count::get).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(routes: &[(&str, &[(&str, &str)])]) -> Arc<Config> {
        let mut text = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\", workers = 1 }\n".to_owned();
        for (route, pools) in routes {
            text.push_str(&format!("[[route]]\nname = \"{route}\"\nmatch = {{ path_prefix = \"/{route}\" }}\n"));
            for (pool, version) in *pools {
                text.push_str(&format!("[route.pools.{pool}]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"{version}\"\n"));
            }
        }
        Arc::new(crate::config::parse("test", &text).unwrap())
    }

    #[test]
    fn counters_go_on_by_name_wherever_another_config_puts_them() {
        let before = Quality::new(&config(&[("search", &[("blue", "1"), ("green", "1")])]));
        before.workers[0].routes[0].pools[1].retries.add(5);
        before.workers[0].routes[0].unanswered.add(6);
        before.workers[0].connections.add(7);
        let search: &[(&str, &str)] = &[("blue", "2"), ("green", "1"), ("canary", "1")];
        let after = before.succeed(&config(&[("ads", &[("blue", "1")]), ("search", search)]));
        let route = &after.workers[0].routes[1];
        assert_eq!(route.pools.iter().map(|pool| pool.retries.get()).collect::<Vec<_>>(), [0, 5, 0]);
        assert_eq!((route.unanswered.get(), after.workers[0].connections.get()), (6, 7));
        assert_eq!(after.workers[0].routes[0].unanswered.get(), 0);
        before.workers[0].routes[0].pools[1].retries.add(1);
        assert_eq!(after.workers[0].routes[1].pools[1].retries.get(), 6, "queries of the old config still count");
    }
}
