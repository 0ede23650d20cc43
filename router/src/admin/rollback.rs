//! `POST /api/v1/routes/{route}/rollback`: takes the candidate out of traffic, through the store; where that is away, on this router alone.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Viewer;
use super::error::ApiError;
use super::exposition::{Buckets, Exposition};
use super::{AdminState, Shared, orders, routes};
use crate::config::Route;
use crate::flags::{Change, ChangeError, Kind, Trip};
use crate::release::{PoolHealth, Rollback, grounds_of_rollback, hold_back, in_words, other_way, rollback, strays_now, tellable};
use crate::vocabulary::RouteIndex;

/// A rollback asks the servers of the pool that becomes live what they serve, for so long: one that does not tell by then is thought to have its version.
const TELLS_WITHIN: Duration = Duration::from_millis(300);

/// What is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// For the ledger.
    #[serde(default)]
    why: String,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn roll_back(
    Viewer(caller): Viewer,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let order: Order = orders::read(body, r#"{"why": "it ranks worse"}"#)?;
    if !order.dry_run {
        caller.may_change()?;
    }
    orders::one_line("why", &order.why)?;
    let said = if order.why.is_empty() { caller.name.clone() } else { format!("{}: {}", caller.name, order.why) };
    for _ in 0..orders::TRIES {
        let flags = shared.state.flags.stored(index);
        let Some(mut back) = rollback(&flags, route, shared.state.process.clock.now_ms(), &said) else {
            return Err(ApiError::NothingToRollBack { route: name, way: other_way(&flags, route) });
        };
        let health = shared.state.health(index, &back.target);
        let PoolHealth { healthy, endpoints } = health;
        // Whoever is pinned to a pool of this model is taken from it, too; another pin is somebody's own business, and is told.
        let pinned = flags.pin.and_then(|pin| route.pools.get(pin.get()));
        let is_pinned_to_it = pinned.is_some_and(|pool| pool.version == back.candidate);
        if is_pinned_to_it {
            back.fields.insert("pin".to_owned(), None);
        }
        // A pin goes before what a router holds back; and where nobody is on the candidate yet, there is nothing to hold back.
        let why = format!("rolled back by {said}");
        let trip = if is_pinned_to_it { None } else { hold_back(&flags, route, super::now_unix_ms(), why) };
        let still_pinned = pinned.filter(|_| !is_pinned_to_it).map(|pool| pool.name.clone());
        let answer = json!({
            "route": name, "candidate": back.candidate, "control": back.control, "target": back.target, "target_healthy": healthy,
            "target_endpoints": endpoints, "pinned": still_pinned, "epoch": null, "held_back_here": false, "error": null,
            "can_hold_back": trip.is_some(),
        });
        if healthy == 0 {
            return Err(ApiError::TargetNotReady { target: back.target });
        }
        if let Some(what) = serves_another(&shared.state, route, &back, endpoints).await {
            return Err(ApiError::TargetServesAnother { route: name, target: back.target, version: back.control, what });
        }
        if order.dry_run {
            return Ok(Json(answer));
        }
        let grounds = Some(Box::new(grounds_of_rollback(&back, &flags, &shared.state.process.board.of(&route.name))));
        let (who, why) = (caller.name.clone(), back.reason(&order.why, health));
        let Rollback { fields, candidate, .. } = back;
        let change = Change { fields, expected_epoch: Some(flags.epoch), kind: Kind::Rollback, who, why, grounds };
        match shared.state.flags.change(index, change).await {
            Ok(epoch) => {
                shared.state.process.board.count_rollback(&route.name, "operator");
                tracing::warn!(route = route.name, candidate, epoch, who = caller.name, why = order.why, "rolled back");
                return Ok(Json(orders::with(answer, [("epoch", json!(epoch))])));
            }
            // Somebody was first: it may be what they wrote that is to be taken back.
            Err(ChangeError::Conflict { .. }) => {}
            Err(error @ ChangeError::Invalid(_)) => return Err(error.into()),
            Err(error) => {
                // Without its store, each router can do so much for its own users; the flags follow when the store is back and half of the routers did.
                let Some(trip) = trip else { return Err(error.into()) };
                tracing::warn!(route = route.name, candidate, who = caller.name, %error, "rolled back on this router alone: the store is away");
                hold(&shared.state, index, trip);
                return Ok(Json(orders::with(answer, [("held_back_here", json!(true)), ("error", json!(error.to_string()))])));
            }
        }
    }
    Err(ApiError::Busy)
}

/// From here on this router sends the candidate nobody. Why it was held back first stays.
fn hold(state: &AdminState, index: RouteIndex, trip: Trip) {
    if !state.flags.trip(index).is_some_and(|held| held.version == trip.version && held.is_undo == trip.is_undo) {
        state.flags.set_trip(index, Some(Arc::new(trip)));
    }
}

/// What the servers of the pool that would become live serve, where each of them says that it is another model. Nobody waits long for that, and a live pool goes
/// on as it is.
async fn serves_another(state: &AdminState, route: &Route, back: &Rollback, endpoints: usize) -> Option<String> {
    if !back.fields.contains_key("live") {
        return None;
    }
    let mut found = strays_now(&state.config, route, &tellable([back.target.as_str()], route), TELLS_WITHIN).await;
    let strays = found.remove(&back.target).filter(|found| found.strays.len() >= endpoints);
    strays.map(|found| in_words(&found.strays))
}

pub(super) fn write(page: &mut Exposition, state: &AdminState) {
    page.family(
        "switchback_rollbacks_total",
        "counter",
        "Rollbacks that this router wrote, by cause: evidence, breakers, gate or operator.",
    );
    for (_, route) in state.routes() {
        let totals = state.process.board.rollbacks(&route.name);
        for cause in ["evidence", "breakers", "gate", "operator"] {
            page.count(&[("route", &route.name), ("cause", cause)], totals.by_cause.get(cause).copied().unwrap_or(0));
        }
    }
    page.family(
        "switchback_rollback_seconds",
        "histogram",
        "From the decision to roll back until every router that is heard of obeys it, of those that this router decided by itself.",
    );
    for (_, route) in state.routes() {
        let totals = state.process.board.rollbacks(&route.name);
        page.histogram(&[("route", &route.name)], &Buckets { counts: totals.obeyed, sum_micros: totals.obeyed_micros });
    }
}
