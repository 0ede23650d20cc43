//! Everything that the data path takes from one config. A reload makes the next one, and each worker swaps its routes for that one's,
//! whole.
//!
//! Queries in flight keep the routes that they began with. What stays from one generation to the next is the same object in both: pools
//! and endpoints (their health, what is in flight), idle connections, counters, and the policy in force with its strikes.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::events::EventsDoor;
use super::overrides::Overrides;
use super::pool::Pool;
use super::pools::Pools;
use super::routes::{RouteTable, RouteWorker, Routes};
use super::split::Split;
use super::worker::{Worker, follow, follow_shadow};
use crate::config::Config;
use crate::flags::Flags;
use crate::policy::{ShadowRun, SplitInForce};
use crate::quality::events::EventsDesk;
use crate::quality::signals::SignalsDesk;
use crate::quality::{Quality, Secret};

/// One config's data path.
pub struct Generation {
    /// Counts up from 1.
    pub number: u64,
    /// Checked.
    pub config: Arc<Config>,
    /// Of this config.
    pub pools: Pools,
    /// One per route.
    pub flags: Vec<watch::Receiver<Arc<Flags>>>,
    /// One per route.
    pub policies: Vec<watch::Receiver<Arc<SplitInForce>>>,
    /// One per route.
    pub shadows: Vec<watch::Receiver<Option<Arc<ShadowRun>>>>,
    /// Who may choose a pool.
    pub overrides: Arc<Overrides>,
    /// Takes events.
    pub events: EventsDesk,
    /// Takes what response bodies say.
    pub signals: SignalsDesk,
    /// What tokens are signed with.
    pub secrets: Vec<Secret>,
    /// Of this config.
    pub quality: Quality,
}

/// One worker's place in its generations.
pub(crate) struct Succession {
    pub(crate) generations: watch::Receiver<Arc<Generation>>,
    /// Which worker this is.
    pub(crate) worker: usize,
    /// Tells the control thread what this worker has in force.
    pub(crate) in_force: watch::Sender<u64>,
    pub(crate) seed: u64,
}

impl Succession {
    /// The routes of the newest generation; `before` are this worker's of the one before.
    pub(crate) fn newest(&mut self, before: Option<&Routes>) -> (Routes, Arc<Generation>) {
        let generation = self.generations.borrow_and_update().clone();
        (routes(&generation, before, self.worker, self.seed), generation)
    }

    /// Swaps the worker's routes at each new generation, for as long as there may be one.
    pub(crate) async fn follow(mut self, worker: Rc<Worker>, mut generation: Arc<Generation>) {
        loop {
            let mut tasks = JoinSet::new();
            let sources = generation.flags.iter().zip(&generation.policies);
            for (route, (flags, policy)) in worker.routes().all.iter().zip(sources) {
                tasks.spawn_local(follow(route.clone(), flags.clone(), policy.clone()));
            }
            for (route, shadow) in worker.routes().all.iter().zip(&generation.shadows) {
                tasks.spawn_local(follow_shadow(route.clone(), shadow.clone()));
            }
            self.in_force.send_replace(generation.number);
            drop(generation);
            if self.generations.changed().await.is_err() {
                // Nobody can send another one; the last one's tasks go on to the end.
                return std::future::pending().await;
            }
            let before = worker.whole_routes();
            let (routes, newest) = self.newest(Some(&before));
            worker.swap(routes);
            generation = newest;
        }
    }
}

fn routes(generation: &Generation, before: Option<&Routes>, worker: usize, seed: u64) -> Routes {
    let (config, now) = (&generation.config, Instant::now());
    let old = before.into_iter().flat_map(|before| &before.all);
    let old: HashMap<&str, &Rc<RouteWorker>> = old.map(|route| (route.config.name.as_str(), route)).collect();
    let counters = generation.quality.workers().get(worker);
    let sources = generation.pools.shared.iter().zip(generation.flags.iter().zip(&generation.policies));
    let all = config.routes.iter().zip(sources).enumerate().map(|(index, (route, (pools, (flags, policy))))| {
        let old = old.get(route.name.as_str()).copied();
        let pools = pools.iter().enumerate().map(|(index, shared)| {
            let old = old.and_then(|old| old.pools().iter().find(|old| old.shared.config.name == shared.config.name));
            Pool::succeed(old, shared, seed.rotate_left(u32::try_from(index).unwrap_or(0)), now)
        });
        let totals = counters.map(|counters| counters.totals().clone()).unwrap_or_default();
        let (flags, policy) = (flags.borrow().clone(), policy.borrow().clone());
        let split = Split::new(route, flags, policy, &totals.new_arms, old.map(|old| &old.split));
        let counters = counters.and_then(|counters| counters.routes.get(index)).cloned().unwrap_or_default();
        let desks = (generation.secrets.as_slice(), &generation.signals);
        Rc::new(RouteWorker::new(Arc::new(route.clone()), split, pools.collect(), &config.limits, counters, totals, desks))
    });
    let all = all.collect();
    Routes {
        table: RouteTable::new(config.routes.iter().map(|route| &route.matches)),
        all,
        limits: config.limits.clone(),
        overrides: generation.overrides.clone(),
        events: EventsDoor::new(&config.events, &config.limits, generation.events.clone()),
        trusted_proxies: config.listen.trusted_proxies.clone(),
    }
}
