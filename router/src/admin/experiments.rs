//! `/api/v1/routes/{route}/experiments`: A/B experiments, and what they come to.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Caller, Operator, Viewer};
use super::error::ApiError;
use super::{AdminState, Shared, orders, routes};
use crate::config::Route;
use crate::flags::{Change, Experiment, Experiments, Flags, Grounds, Kind, NewExperiment, random_hex};
use crate::release::LEAST_LEFT;
use crate::vocabulary::RouteIndex;

const EXAMPLE: &str =
    r#"{"name": "big-model", "percent": "20", "arms": [{"name": "control", "pool": "live"}, {"name": "big", "version": "v7"}]}"#;

pub(super) async fn list(Viewer(_): Viewer, State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let flags = shared.state.flags.stored(index);
    let all = of(&flags);
    let layers: Vec<&str> = all.layers.iter().map(|layer| layer.name.as_str()).collect();
    let experiments: Vec<Value> = all.experiments.iter().map(|experiment| shown(&shared.state, route, &flags, experiment)).collect();
    Ok(Json(
        json!({ "route": route.name, "epoch": flags.epoch, "layers": layers, "left_for_rollouts_percent": all.left_for_rollouts().to_string(), "experiments": experiments }),
    ))
}

pub(super) async fn show(
    Viewer(_): Viewer,
    State(shared): State<Shared>,
    Path((name, experiment)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let flags = shared.state.flags.stored(index);
    let all = of(&flags);
    Ok(Json(shown(&shared.state, route, &flags, find(&all, route, &experiment)?)))
}

/// What a stop or a removal is asked with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ordered {
    #[serde(default)]
    why: String,
}

pub(super) async fn create(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let body = routes::whole(body)?;
    let wrong = |error: serde_json::Error| ApiError::BadRequest(format!("the body must be JSON like {EXAMPLE}: {error}"));
    let new: NewExperiment = serde_json::from_slice(&body).map_err(wrong)?;
    orders::one_line("why", &new.why)?;
    let (salts, now_ms) = ([random_hex(16), random_hex(16)], shared.state.process.clock.now_ms());
    let make = |flags: &Flags| {
        if let Some(arm) = new.arms.iter().find(|arm| arm.pool_of(route, flags).is_none()) {
            return Err(ApiError::Experiment(format!("arm {}: the route has no {arm}; {}", arm.name, pools(route))));
        }
        let refuse = |fault: String| ApiError::Experiment(fault);
        let after = of(flags).create(new.clone(), salts.clone(), &caller.name, now_ms).map_err(|fault| refuse(fault.to_string()))?;
        let left = after.left_for_rollouts();
        let is_rolling_out = flags.rollout.as_ref().is_some_and(|rollout| rollout.phase.is_active());
        if is_rolling_out && left < LEAST_LEFT {
            return Err(refuse(format!(
                "percent: it would leave {left} % of the units for the rollout that is under way, and 1 % at least is needed"
            )));
        }
        Ok(after)
    };
    write(&shared.state, (index, route), (&caller, &new.why), ("experiment_started", &new.name), make).await
}

pub(super) async fn stop(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path((name, experiment)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let Ordered { why } = orders::read(body, r#"{"why": "enough is known"}"#)?;
    orders::one_line("why", &why)?;
    let reason = if why.is_empty() { caller.name.clone() } else { format!("{}: {why}", caller.name) };
    let now_ms = shared.state.process.clock.now_ms();
    let make = |flags: &Flags| {
        let all = of(flags);
        if !find(&all, route, &experiment)?.is_running() {
            return Err(ApiError::Rollout(format!("experiment {experiment} is stopped already")));
        }
        Ok(all.stopped(&experiment, now_ms, &reason))
    };
    write(&shared.state, (index, route), (&caller, &why), ("experiment_stopped", &experiment), make).await
}

pub(super) async fn remove(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path((name, experiment)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let make = |flags: &Flags| {
        let all = of(flags);
        if find(&all, route, &experiment)?.is_running() {
            return Err(ApiError::Rollout(format!("experiment {experiment} runs: stop it first")));
        }
        Ok(all.without(&experiment))
    };
    write(&shared.state, (index, route), (&caller, ""), ("experiment_removed", &experiment), make).await
}

/// Writes what `make` makes of the flags, on the epoch of those flags; answers the experiment as it is then.
async fn write(
    state: &AdminState,
    (index, route): (RouteIndex, &Route),
    (caller, why): (&Caller, &str),
    (event, name): (&str, &str),
    make: impl Fn(&Flags) -> Result<Experiments, ApiError>,
) -> Result<Json<Value>, ApiError> {
    let make = |flags: &Flags| {
        let after = make(flags)?;
        let text = (!after.experiments.is_empty()).then(|| after.render());
        let change = Change {
            fields: BTreeMap::from([("experiments".to_owned(), text)]),
            expected_epoch: None,
            kind: Kind::Experiment,
            who: caller.name.clone(),
            why: why.to_owned(),
            grounds: Some(Box::new(Grounds::of_experiment(event, name))),
        };
        Ok((change, after))
    };
    let (epoch, after) = orders::write(state, index, make).await?;
    let (route_name, who) = (&route.name, &caller.name);
    tracing::info!(route = route_name, event, experiment = name, epoch, who, why, "experiments were changed by an operator");
    let flags = state.flags.stored(index);
    let answer = after.named(name).map_or_else(|| json!({ "name": name }), |experiment| shown(state, route, &flags, experiment));
    Ok(Json(orders::with(answer, [("epoch", json!(epoch))])))
}

fn of(flags: &Flags) -> Experiments {
    flags.experiments.as_ref().map(|all| (**all).clone()).unwrap_or_default()
}

fn find<'a>(all: &'a Experiments, route: &Route, name: &str) -> Result<&'a Experiment, ApiError> {
    all.named(name).ok_or_else(|| ApiError::NoExperiment {
        route: route.name.clone(),
        name: name.to_owned(),
        known: all.experiments.iter().map(|experiment| experiment.name.clone()).collect(),
    })
}

/// `its pools are blue (v1), exp (v7)`
fn pools(route: &Route) -> String {
    let pools: Vec<String> = route.pools.iter().map(|pool| format!("{} ({})", pool.name, pool.version)).collect();
    format!("its pools are {}", pools.join(", "))
}

/// An experiment without its salt, and what is known of it.
fn shown(state: &AdminState, route: &Route, flags: &Flags, experiment: &Experiment) -> Value {
    let Ok(Value::Object(mut json)) = serde_json::to_value(experiment) else { return Value::Null };
    let name_of =
        |arm: &crate::flags::Arm| arm.pool_of(route, flags).and_then(|pool| route.pools.get(pool.get())).map(|pool| pool.name.clone());
    let served: Vec<Value> = experiment.arms.iter().map(|arm| json!({ "arm": arm.name, "pool": name_of(arm) })).collect();
    let missing: Vec<String> = experiment.arms.iter().filter(|arm| name_of(arm).is_none()).map(ToString::to_string).collect();
    let waits_for =
        (experiment.is_running() && !missing.is_empty()).then(|| format!("nobody is in it: the route has no {}", missing.join(" and no ")));
    let state_word = if experiment.is_running() { "running" } else { "stopped" };
    json.remove("salt");
    let more = [
        ("route", json!(route.name)),
        ("state", json!(state_word)),
        ("stopped_ms", json!(experiment.stopped_ms)),
        ("when", json!(experiment.when)),
        ("why", json!(experiment.why)),
        ("served_by", json!(served)),
        ("waits_for", json!(waits_for)),
        ("evidence", json!(state.process.board.experiment(&route.name, &experiment.name))),
    ];
    json.extend(more.map(|(key, value)| (key.to_owned(), value)));
    Value::Object(json)
}
