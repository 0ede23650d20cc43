//! A worker: one OS thread with a runtime, connections, upstream pools, policy instances and counters of its own.
//!
//! Invariant: nothing here is shared with another worker but what is listed in [`super`].

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::clock::{Clocks, SWEEP_EVERY};
use super::connection;
use super::generation::Succession;
use super::listener::Arrival;
use super::open::{OpenConnections, Spoken};
use super::pool::Pool;
use super::routes::{RouteWorker, Routes};
use crate::flags::Flags;
use crate::policy::{ShadowRun, SplitInForce};
use crate::quality::{OverrideFault, Refusal, WorkerTotals};

/// How long a worker waits before it tries a policy again that gave it no instance.
const INSTANCE_RETRY: Duration = Duration::from_millis(250);

/// What a worker is made of; it travels to the worker's thread.
pub(crate) struct Plan {
    pub(crate) succession: Succession,
    pub(crate) counters: Arc<WorkerTotals>,
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    pub(crate) connections: Arc<OpenConnections>,
    pub(crate) ending: Ending,
}

/// How the router ends, step by step.
#[derive(Clone)]
pub(crate) struct Ending {
    /// Responses announce that their connection will close.
    pub(crate) is_draining: watch::Receiver<bool>,
    /// Connections end in order, each after the query it is busy with.
    pub(crate) close_connections: watch::Receiver<bool>,
    /// Whatever is left is cut off.
    pub(crate) cut_off: watch::Receiver<bool>,
    /// What was.
    pub(crate) cut: Arc<Cut>,
}

/// What was cut off, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) queries: AtomicUsize,
    pub(crate) upgraded: AtomicUsize,
}

/// One worker's state, shared by the tasks on its thread.
pub(crate) struct Worker {
    routes: RefCell<Rc<Routes>>,
    pub(crate) clocks: Clocks,
    is_draining: Cell<bool>,
    counters: Arc<WorkerTotals>,
}

impl Worker {
    /// The routes of the config in force. Not to be held across an `await`: a query takes its route out of them.
    pub(crate) fn routes(&self) -> Ref<'_, Routes> {
        Ref::map(self.routes.borrow(), |routes| &**routes)
    }

    /// The same, held for longer.
    pub(crate) fn whole_routes(&self) -> Rc<Routes> {
        self.routes.borrow().clone()
    }

    /// From now on queries go by these.
    pub(crate) fn swap(&self, routes: Routes) {
        self.routes.replace(Rc::new(routes));
    }

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

/// Runs a worker on the calling thread until no connection can arrive any more and the last has ended, or was cut off.
///
/// # Errors
/// When the runtime cannot be made.
pub(crate) fn run(plan: Plan) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(serve(plan));
    // The runtime goes, and with it whatever is left of the connections.
    Ok(())
}

async fn serve(plan: Plan) {
    let Plan { mut succession, counters, arrivals, connections, ending } = plan;
    let (routes, generation) = succession.newest(None);
    let routes = RefCell::new(Rc::new(routes));
    let worker = Rc::new(Worker { routes, clocks: Clocks::default(), is_draining: Cell::new(false), counters });
    tokio::task::spawn_local(succession.follow(worker.clone(), generation));
    tokio::task::spawn_local(sweep(worker.clone()));
    tokio::task::spawn_local(drain(worker.clone(), ending.clone()));
    let Ending { mut cut_off, cut, .. } = ending;
    tokio::select! {
        () = serve_all(&worker, arrivals, &connections) => {}
        Ok(_) = cut_off.wait_for(|cut_off| *cut_off) => {
            let tunnels = worker.clocks.tunnels();
            cut.queries.fetch_add(worker.clocks.queries().saturating_sub(tunnels), Ordering::Relaxed);
            cut.upgraded.fetch_add(connections.count(Spoken::Upgraded) + tunnels, Ordering::Relaxed);
        }
    }
}

async fn serve_all(worker: &Rc<Worker>, mut arrivals: mpsc::Receiver<Arrival>, connections: &OpenConnections) {
    while let Some(arrival) = arrivals.recv().await {
        worker.counters.connections.increment();
        tokio::task::spawn_local(connection::serve(worker.clone(), arrival));
    }
    while connections.total() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Keeps one route's split at the newest flags and policy, and gives it a new instance when it lost its own.
pub(crate) async fn follow(route: Rc<RouteWorker>, mut flags: watch::Receiver<Arc<Flags>>, mut policy: watch::Receiver<Arc<SplitInForce>>) {
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
                route.split.borrow_mut().apply(&route.config, newest, route.new_arms());
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
pub(crate) async fn follow_shadow(route: Rc<RouteWorker>, mut shadow: watch::Receiver<Option<Arc<ShadowRun>>>) {
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
async fn drain(worker: Rc<Worker>, mut ending: Ending) {
    let announced = ending.is_draining.wait_for(|draining| *draining).await.is_ok();
    worker.is_draining.set(announced);
    if announced && ending.close_connections.wait_for(|close| *close).await.is_ok() {
        worker.clocks.close();
    }
}

/// Ends connections that took too long, and closes upstream connections that nobody used.
async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let now: Instant = ticks.tick().await;
        let routes = worker.routes();
        worker.clocks.sweep(now, &routes.limits, |refusal| worker.refuse(refusal));
        let pools = routes.all.iter().flat_map(|route| route.pools());
        for endpoint in pools.flat_map(|pool: &Rc<Pool>| pool.endpoints()) {
            endpoint.close_expired(now);
        }
    }
}
