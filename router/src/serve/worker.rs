//! A worker: one OS thread with a runtime, connections, upstream pools, policy instances and counters of its own.
//!
//! Invariant: nothing here is shared with another worker but what is listed in [`super`].

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::clock::{Clocks, SWEEP_EVERY};
use super::connection;
use super::listener::Arrival;
use super::overrides::Overrides;
use super::pool::{Pool, SharedPool};
use super::routes::{RouteTable, RouteWorker, Routes};
use super::split::Split;
use crate::config::{Config, Limits};
use crate::flags::Flags;
use crate::policy::{ShadowRun, SplitInForce};
use crate::quality::{OverrideFault, Refusal, WorkerCounters};
use crate::vocabulary::RouteIndex;

/// How long a worker waits before it tries a policy again that gave it no instance.
const INSTANCE_RETRY: Duration = Duration::from_millis(250);

/// What a worker is made of; it travels to the worker's thread.
pub(crate) struct Plan {
    pub(crate) config: Arc<Config>,
    /// By route, then pool.
    pub(crate) pools: Vec<Vec<Arc<SharedPool>>>,
    pub(crate) flags: Vec<watch::Receiver<Arc<Flags>>>,
    pub(crate) policies: Vec<watch::Receiver<Arc<SplitInForce>>>,
    pub(crate) shadows: Vec<watch::Receiver<Option<Arc<ShadowRun>>>>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) overrides: Arc<Overrides>,
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    pub(crate) connections: Arc<AtomicUsize>,
    /// Responses announce that their connection will close.
    pub(crate) is_draining: watch::Receiver<bool>,
    /// Connections end in order, each after the query it is busy with.
    pub(crate) close_connections: watch::Receiver<bool>,
    pub(crate) seed: u64,
}

/// One worker's state, shared by the tasks on its thread.
pub(crate) struct Worker {
    pub(crate) limits: Limits,
    pub(crate) routes: Routes,
    pub(crate) clocks: Clocks,
    /// Who may choose a pool.
    pub(crate) overrides: Arc<Overrides>,
    pub(crate) trusted_proxies: Vec<IpNet>,
    is_draining: Cell<bool>,
    counters: Arc<WorkerCounters>,
}

impl Worker {
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    pub(crate) fn ignore_override(&self, fault: OverrideFault) {
        if let Some(count) = self.counters.override_faults.get(fault as usize) {
            count.increment();
        }
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        if let Some(count) = self.counters.refusals.get(refusal as usize) {
            count.increment();
        }
    }
}

/// Runs a worker on the calling thread until no connection can arrive any more and the last has ended.
///
/// # Errors
/// When the runtime cannot be made.
pub(crate) fn run(plan: Plan) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(serve(plan));
    Ok(())
}

async fn serve(mut plan: Plan) {
    let worker = Rc::new(build(&plan));
    for (route, (flags, policy)) in worker.routes.all.iter().zip(plan.flags.into_iter().zip(plan.policies)) {
        tokio::task::spawn_local(follow(route.clone(), flags, policy));
    }
    for (route, shadow) in worker.routes.all.iter().zip(plan.shadows) {
        tokio::task::spawn_local(follow_shadow(route.clone(), shadow));
    }
    tokio::task::spawn_local(sweep(worker.clone()));
    tokio::task::spawn_local(drain(worker.clone(), plan.is_draining, plan.close_connections));
    while let Some(arrival) = plan.arrivals.recv().await {
        worker.counters.connections.increment();
        tokio::task::spawn_local(connection::serve(worker.clone(), arrival));
    }
    while plan.connections.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn build(plan: &Plan) -> Worker {
    let now = Instant::now();
    let config = &plan.config;
    let sources = config.routes.iter().zip(&plan.pools).zip(plan.flags.iter().zip(&plan.policies));
    let all = sources.enumerate().map(|(index, ((route, pools), (flags, policy)))| {
        let split = Split::new(route, flags.borrow().clone(), policy.borrow().clone());
        let pools =
            pools.iter().enumerate().map(|(pool, shared)| Pool::new(shared, plan.seed.rotate_left(u32::try_from(pool).unwrap_or(0)), now));
        let index = RouteIndex(u16::try_from(index).unwrap_or(u16::MAX));
        Rc::new(RouteWorker::new(Arc::new(route.clone()), index, split, pools.collect(), &config.limits, plan.counters.clone()))
    });
    let table = RouteTable::new(config.routes.iter().map(|route| &route.matches));
    Worker {
        limits: config.limits.clone(),
        routes: Routes { table, all: all.collect() },
        clocks: Clocks::default(),
        overrides: plan.overrides.clone(),
        trusted_proxies: config.listen.trusted_proxies.clone(),
        is_draining: Cell::new(false),
        counters: plan.counters.clone(),
    }
}

/// Keeps one route's split at the newest flags and policy, and gives it a new instance when it lost its own.
async fn follow(route: Rc<RouteWorker>, mut flags: watch::Receiver<Arc<Flags>>, mut policy: watch::Receiver<Arc<SplitInForce>>) {
    // What was current when the split was built may have changed since.
    flags.mark_changed();
    policy.mark_changed();
    loop {
        let lacks_instance = route.split.borrow().lacks_instance();
        tokio::select! {
            changed = flags.changed() => {
                if changed.is_err() {
                    return;
                }
                let newest = flags.borrow_and_update().clone();
                route.split.borrow_mut().apply(&route.config, newest);
            }
            // When nobody can send another policy any more, the one in force stays, and flags are still obeyed.
            Ok(()) = policy.changed() => {
                let newest = policy.borrow_and_update().clone();
                route.split.borrow_mut().swap(newest);
            }
            () = route.needs_instance.notified(), if !lacks_instance => route.split.borrow_mut().instantiate(),
            () = tokio::time::sleep(INSTANCE_RETRY), if lacks_instance => route.split.borrow_mut().instantiate(),
        }
    }
}

/// Takes part in the route's shadow runs, and looks at what was noted for them, a query at a time, so that others come in between.
async fn follow_shadow(route: Rc<RouteWorker>, mut shadow: watch::Receiver<Option<Arc<ShadowRun>>>) {
    let wake = Rc::new(Notify::new());
    // One may be under way when the worker starts.
    shadow.mark_changed();
    loop {
        tokio::select! {
            changed = shadow.changed() => {
                if changed.is_err() {
                    return;
                }
                let run = shadow.borrow_and_update().clone();
                route.split.borrow_mut().follow_shadow(run, &wake);
            }
            () = wake.notified() => {
                while route.split.borrow_mut().look_at_note(route.counters()) {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Announces the end in responses, then closes the connections, when the router says so.
async fn drain(worker: Rc<Worker>, mut is_draining: watch::Receiver<bool>, mut close_connections: watch::Receiver<bool>) {
    let announced = is_draining.wait_for(|draining| *draining).await.is_ok();
    worker.is_draining.set(announced);
    if announced && close_connections.wait_for(|close| *close).await.is_ok() {
        worker.clocks.close();
    }
}

/// Ends connections that took too long, and closes upstream connections that nobody used.
async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        worker.clocks.sweep(now, &worker.limits, |refusal| worker.refuse(refusal));
        let pools = worker.routes.all.iter().flat_map(|route| route.pools());
        for endpoint in pools.flat_map(Pool::endpoints) {
            endpoint.close_expired(now);
        }
    }
}
