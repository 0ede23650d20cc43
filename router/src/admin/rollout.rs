//! `/api/v1/routes/{route}/rollout`: how far a rollout is, and what operators do with it.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::access::{Operator, Viewer};
use super::error::ApiError;
use super::exposition::Exposition;
use super::rollout_check::{Wanted, control_is_served, good_sha256, look, purpose};
use super::{AdminState, Shared, orders, routes};
use crate::config::{Route, rollout_steps};
use crate::flags::{Change, Flags, Kind, random_hex};
use crate::loading::{Load, Purpose, Trouble, unload as unload_version};
use crate::release::{
    Begin, Event, Move, Order, Refusal, Seen, ServersSeen, begin, carry_out, copies_before, copies_of, grounds, in_words, servers_now,
    strays_now, tellable,
};
use crate::vocabulary::{Copies, RouteIndex};

/// A router that is known and has not obeyed by then holds a retirement up.
const OBEYED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A server that does not tell by then what it serves holds no operator up.
const TELLS_WITHIN: Duration = Duration::from_millis(900);

pub(super) async fn show(Viewer(_): Viewer, State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    Ok(Json(of_route(&shared.state, (index, route), &shared.state.flags.stored(index))))
}

/// What a start is asked with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Started {
    candidate: Option<String>,
    /// Of the candidate's artefact, where no other one will do.
    sha256: Option<String>,
    /// Percentages, as the route's plan has them.
    steps: Option<Vec<String>>,
    #[serde(default)]
    why: String,
    /// It becomes live as soon as the servers have it.
    #[serde(default)]
    at_once: bool,
}

/// What any other order is asked with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ordered {
    #[serde(default)]
    why: String,
    /// Of `promote`: without further steps.
    #[serde(default)]
    full: bool,
    /// Only if the rollout is that far: its `moves`, as whoever orders saw them.
    moves: Option<u64>,
}

pub(super) async fn start(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let asked: Started = orders::read(body, r#"{"candidate": "v42", "why": "tonight's model"}"#)?;
    orders::one_line("why", &asked.why)?;
    good_sha256(asked.sha256.as_deref(), asked.candidate.as_deref())?;
    let purpose = purpose(&shared.state, (index, route), asked.at_once);
    let wanted = asked.candidate.as_deref().map(|candidate| Wanted { candidate, sha256: asked.sha256.as_deref(), purpose: Some(purpose) });
    // What cannot be loaded is no candidate: nothing begins. A registry that is away holds nobody up; the load is tried again.
    if let Some(wanted) = wanted
        && let Err(Trouble::Refused(why)) = look(&shared.state, (index, route), &wanted).await
    {
        return Err(ApiError::Rollout(format!("not loaded: {why}")));
    }
    control_is_served(&shared.state, (index, route), asked.at_once)?;
    let strays = match asked.candidate.as_deref().filter(|_| asked.at_once) {
        Some(candidate) => strays_of_way_back(&shared.state, (index, route), candidate).await,
        None => None,
    };
    let (id, salt) = (random_hex(16), random_hex(16));
    let steps = asked.steps.as_deref().map(rollout_steps).transpose().map_err(ApiError::BadRequest)?;
    let (who, why, at_once) = (caller.name.clone(), asked.why.clone(), asked.at_once);
    let first = Begin { candidate: asked.candidate, sha256: asked.sha256, steps, id, salt, who, why, at_once, strays };
    let clock = &shared.state.process.clock;
    let make = |flags: &Flags| begin(&first, flags, route, &healthy(&shared.state, index), clock.now_ms());
    write(&shared.state, (index, route), (&caller.name, &asked.why), make).await
}

/// Servers of the colour that becomes live at once, where each of them serves another version than it runs, in words.
async fn strays_of_way_back(state: &AdminState, (index, route): (RouteIndex, &Route), candidate: &str) -> Option<String> {
    let live = route.pools.get(state.flags.stored(index).live.get()).map_or("", |pool| pool.name.as_str());
    let idle = if live == "blue" { "green" } else { "blue" };
    let pools: Vec<_> = tellable([idle], route).into_iter().filter(|(_, version)| version == candidate).collect();
    let found = strays_now(&state.config, route, &pools, TELLS_WITHIN).await.remove(idle)?;
    // With one that has it, users are better off at once than after a load.
    (found.strays.len() >= state.health(index, idle).endpoints).then(|| in_words(&found.strays))
}

/// What servers serve before an order that does not wait for evidence; of another order nobody asks.
async fn servers_before(state: &AdminState, route: &Route, order: Order) -> Option<ServersSeen> {
    let is_hurry = matches!(order, Order::Promote | Order::PromoteFully);
    let pools = tellable(route.pools.iter().map(|pool| pool.name.as_str()), route);
    if is_hurry { Some(servers_now(&state.config, route, pools, TELLS_WITHIN).await) } else { None }
}

pub(super) async fn order(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path((name, order)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let asked: Ordered = orders::read(body, r#"{"why": "it looks good"}"#)?;
    orders::one_line("why", &asked.why)?;
    let order = match (order.as_str(), asked.full) {
        ("pause", false) => Order::Pause,
        ("resume", false) => Order::Resume,
        ("approve", false) => Order::Approve,
        ("promote", false) => Order::Promote,
        ("promote", true) => Order::PromoteFully,
        ("abort", false) => Order::Abort,
        ("retire", false) => Order::Retire,
        ("pause" | "resume" | "approve" | "abort" | "retire", true) => {
            return Err(ApiError::BadRequest("full is for promote alone".to_owned()));
        }
        (other, _) => return Err(ApiError::NoPath(format!("/api/v1/routes/{name}/rollout/{other}"))),
    };
    let state = &shared.state;
    // What is ordered of one step is not done to the next one, which somebody else began meanwhile.
    let moves = asked.moves.or_else(|| state.flags.stored(index).rollout.as_ref().map(|rollout| rollout.moves));
    let servers = servers_before(state, route, order).await;
    let make = |flags: &Flags| {
        let Some(rollout) = &flags.rollout else {
            return Err(Refusal(format!("{name} has no rollout: switchback rollout start {name}")));
        };
        if order.is_of_one_step() && moves.is_some_and(|moves| moves != rollout.moves) {
            return Err(Refusal(format!("it was moved meanwhile, and is at {} now: look, and order it again", rollout.summary())));
        }
        let (evidence, routers, healthy) = (state.process.board.of(&name).evidence, state.flags.routers(index), healthy(state, index));
        let now_ms = state.process.clock.now_ms();
        let seen = Seen {
            route,
            flags,
            rollout,
            now_ms,
            evidence: evidence.as_ref(),
            routers: &routers,
            healthy: &healthy,
            gate: None,
            load: None,
            servers: servers.as_ref(),
        };
        carry_out(order, &seen, &caller.name, &asked.why)
    };
    let written = write(state, (index, route), (&caller.name, &asked.why), make).await?;
    if order == Order::Retire {
        unload(state, (index, route)).await?;
    }
    Ok(written)
}

/// Takes the retired version off its servers, once every router that is heard of knows that nobody goes back there.
async fn unload(state: &AdminState, (index, route): (RouteIndex, &Route)) -> Result<(), ApiError> {
    let flags = state.flags.stored(index);
    let Some(rollout) = &flags.rollout else { return Ok(()) };
    let deadline = Instant::now() + OBEYED_WITHIN;
    while state.flags.routers(index).iter().any(|router| router.is_known && router.epoch < flags.epoch) {
        if Instant::now() >= deadline {
            return Err(ApiError::Rollout("not every router obeys it yet, so the servers keep the version: order it again".to_owned()));
        }
        sleep(LOOK_EVERY).await;
    }
    let Some(pool) = route.pools.iter().find(|pool| pool.name == rollout.from) else { return Ok(()) };
    let Some((loading, number)) =
        route.loading.clone().and_then(|loading| loading.version_of(&rollout.control).map(|number| (loading, number)))
    else {
        return Ok(());
    };
    let (registry, route, pool) = (state.config.registry.clone(), route.name.clone(), pool.clone());
    unload_version(&Load {
        registry,
        route,
        loading,
        pool,
        others: Vec::new(),
        number,
        sha256: None,
        only: None,
        purpose: Purpose::Restore,
    })
    .await
    .map_err(|trouble| {
        let (Trouble::Refused(why) | Trouble::Away(why)) = trouble;
        ApiError::Rollout(format!("{} is retired, and not every server let go of it: {why}; order it again", rollout.control))
    })
}

/// Writes what `make` makes of the flags, on the epoch of those flags.
async fn write(
    state: &AdminState,
    (index, route): (RouteIndex, &Route),
    (who, why): (&str, &str),
    make: impl Fn(&Flags) -> Result<Move, Refusal>,
) -> Result<Json<Value>, ApiError> {
    let make = |flags: &Flags| {
        let Move { event, rollout, fields } = make(flags).map_err(|refusal| ApiError::Rollout(refusal.0))?;
        let copies = copies_before(flags, &state.flags.routers(index));
        let grounds = Some(Box::new(grounds(event.label(), &rollout, &state.process.board.of(&route.name), copies)));
        let (who, why) = (who.to_owned(), why.to_owned());
        Ok((Change { fields, expected_epoch: None, kind: Kind::Rollout, who, why, grounds }, (event.label(), rollout.summary())))
    };
    let (epoch, (event, what)) = orders::write(state, index, make).await?;
    tracing::info!(route = route.name, event, what, epoch, who, why, "the rollout was moved by an operator");
    state.process.board.count_move(&route.name, event);
    Ok(Json(orders::with(of_route(state, (index, route), &state.flags.stored(index)), [("epoch", json!(epoch))])))
}

pub(super) fn healthy(state: &AdminState, index: RouteIndex) -> Vec<usize> {
    state.pools(index).iter().map(|pool| pool.healthy()).collect()
}

/// As JSON; part of what there is about a route, too. `null` where there never was one.
pub(super) fn of_route(state: &AdminState, (index, route): (RouteIndex, &Route), flags: &Flags) -> Value {
    let Some(rollout) = &flags.rollout else { return Value::Null };
    let board = state.process.board.rollout(&route.name);
    let Ok(Value::Object(mut json)) = serde_json::to_value(&**rollout) else { return Value::Null };
    json.remove("form");
    // Not what the state before waited for.
    let waits_for = board.waits_for.filter(|(moves, _)| *moves == rollout.moves && rollout.phase.is_active()).map(|(_, what)| what);
    let more = [
        ("route", json!(route.name)),
        ("summary", json!(rollout.summary())),
        ("is_active", json!(rollout.phase.is_active())),
        ("waits_for", json!(waits_for)),
        ("blocked", json!(board.blocked)),
        ("controller", json!(board.controller)),
        ("copies", copies_of(rollout, &state.flags.routers(index)).map_or(Value::Null, |copies| shown(&copies))),
    ];
    json.extend(more.map(|(key, value)| (key.to_owned(), value)));
    Value::Object(json)
}

/// What became of the copies of queries, over all routers.
fn shown(copies: &Copies) -> Value {
    let Copies { sent, failed, compared, top1_changed, unread, .. } = copies;
    let jaccard = copies.jaccard();
    json!({ "sent": sent, "failed": failed, "compared": compared, "top1_changed": top1_changed, "jaccard": jaccard, "unread": unread })
}

pub(super) fn write_metrics(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_rollout_active", "gauge", "1 while a rollout is under way.");
    for (index, route) in state.routes() {
        let is_active = state.flags.stored(index).rollout.as_ref().is_some_and(|rollout| rollout.phase.is_active());
        page.gauge(&[("route", &route.name)], f64::from(u8::from(is_active)));
    }
    page.family("switchback_rollout_stalled", "gauge", "1 while a rollout's step takes longer than it may, or is paused.");
    for (index, route) in state.routes() {
        let stored = state.flags.stored(index);
        let is_stuck =
            stored.rollout.as_ref().is_some_and(|rollout| rollout.phase.is_active() && (rollout.is_stalled || rollout.paused.is_some()));
        page.gauge(&[("route", &route.name)], f64::from(u8::from(is_stuck)));
    }
    page.family("switchback_rollout_transitions_total", "counter", "Transitions of rollouts that this router wrote, by event.");
    for (_, route) in state.routes() {
        let moves = state.process.board.rollout(&route.name).moves;
        for event in Event::ALL {
            page.count(&[("route", &route.name), ("event", event.label())], moves.get(event.label()).copied().unwrap_or(0));
        }
    }
}
