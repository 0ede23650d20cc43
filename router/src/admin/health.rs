//! `/healthz` and `/readyz`, for whoever starts, stops and balances routers. Neither needs a token.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{AdminState, Shared};
use crate::flags::Source;
use crate::quality::is_tally_kept;

/// The process answers: 200, always.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// 200 when queries can be sent here, else 503; either way with what is amiss.
///
/// To become ready, a router needs flags of every route that are not just the config's first ones, and a healthy endpoint in the
/// pool that gets everybody. Once ready it stays so until it drains: a pool that dies later is dead for every
/// router alike, and taking all of them out would turn one broken route into an outage of all.
pub(super) async fn ready(State(shared): State<Shared>) -> (StatusCode, Json<Value>) {
    let readiness = &shared.state.process.readiness;
    let is_draining = readiness.is_draining.load(Ordering::Relaxed);
    let problems = problems(&shared.state);
    if problems.is_empty() {
        readiness.was_ready.store(true, Ordering::Relaxed);
    }
    let is_ready = !is_draining && readiness.was_ready.load(Ordering::Relaxed);
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let is_tally_kept = is_tally_kept();
    let no_tally = || "what this process counted and has not told is not known when it is killed: untold/ cannot be kept".to_owned();
    let warnings: Vec<String> = store_warning(&shared).into_iter().chain((!is_tally_kept).then(no_tally)).collect();
    let topology = shared.state.routes().next().map(|(index, _)| shared.state.flags.view(index).topology);
    let store = json!({ "topology": topology });
    (status, Json(json!({ "ready": is_ready, "draining": is_draining, "problems": problems, "warnings": warnings, "store": store })))
}

/// How often a router that is not ready yet is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Notices that the router has become ready also while nobody asks: it is a state of the router, and not of whoever polls it. Endpoints count
/// as healthy until checks say otherwise, so that it has to be without problems for as long as they may take for that.
pub(super) async fn notice_ready(states: watch::Receiver<Arc<AdminState>>) {
    let mut since = Instant::now();
    loop {
        let state = states.borrow().clone();
        if !problems(&state).is_empty() {
            since = Instant::now();
        } else if since.elapsed() >= checks_take(&state) {
            state.process.readiness.was_ready.store(true, Ordering::Relaxed);
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// From a start to the verdict of the slowest health checks.
fn checks_take(state: &AdminState) -> Duration {
    let pools = state.config.routes.iter().flat_map(|route| &route.pools);
    pools.map(|pool| (pool.health.interval + pool.health.timeout) * pool.health.unhealthy_after).max().unwrap_or_default()
}

/// Whether the flag store is away. Queries are answered all the same, so this takes no router out; nor does it say where the store is,
/// to whoever asks without a token.
fn store_warning(shared: &Shared) -> Option<String> {
    let state = &shared.state;
    let (index, _) = state.routes().next()?;
    let view = state.flags.view(index);
    let age = view.age.as_secs_f64();
    match view.source {
        Source::Initial => Some(format!("the flag store was never heard in the {age:.0} s since this router started")),
        Source::Disk => Some(format!(
            "the flag store was never heard in the {age:.0} s since this router started: flags are those of the copy on disk, with nobody on the \
             candidate"
        )),
        Source::Redis if view.age > state.config.state.router_timeout => {
            Some(format!("the flag store was last heard {age:.0} s ago: the last known flags stay in force"))
        }
        Source::Redis | Source::Embedded => None,
    }
}

/// One line for each route that would not answer.
pub(super) fn problems(state: &AdminState) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, route) in state.routes() {
        let view = state.flags.view(index);
        if view.source == Source::Initial {
            problems.push(format!("route {}: its flags were never read from the store, and there is no copy on disk", route.name));
        }
        let pool = view.flags.pin.unwrap_or(view.flags.live);
        if !state.pools(index).get(pool.get()).is_some_and(|pool| pool.has_healthy_endpoint()) {
            let name = route.pools.get(pool.get()).map_or("?", |pool| pool.name.as_str());
            problems.push(format!("route {}: pool {name} has no healthy endpoint", route.name));
        }
    }
    problems
}
