//! `/api/v1/routes/...`: look at routes, and change their flags.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Operator, Viewer};
use super::error::ApiError;
use super::{AdminState, Shared, orders, redact, view};
use crate::config::Route;
use crate::flags::{Change, Kind};
use crate::vocabulary::{NO_VERSION, RouteIndex};

const HISTORY_DEFAULT: usize = 20;
const HISTORY_MOST: usize = 1_000;

pub(super) async fn list(Viewer(caller): Viewer, State(shared): State<Shared>) -> Json<Value> {
    let state = &shared.state;
    let routes = shared.state.routes().map(|(index, route)| view::route(state, index, route, caller.role));
    Json(json!({ "routes": routes.collect::<Vec<_>>() }))
}

pub(super) async fn show(Viewer(caller): Viewer, State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let (index, route) = find(&shared, &name)?;
    Ok(Json(view::route(&shared.state, index, route, caller.role)))
}

/// The fields as the store has them, also those that are not obeyed; `ETag` is the epoch that a change may name.
pub(super) async fn flags(Viewer(caller): Viewer, State(shared): State<Shared>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let (index, route) = find(&shared, &name)?;
    let view = shared.state.flags.view(index);
    let fields = shared.state.flags.fields(index);
    let mut body = view::flags_part(&shared.state, index, route, &view.flags);
    body.retain(|key, _| matches!(key.as_str(), "name" | "epoch" | "applied_epoch"));
    let epoch = body.get("epoch").and_then(Value::as_u64).unwrap_or(view.flags.epoch);
    body.insert("fields".to_owned(), json!(redact::fields(fields, caller.role)));
    body.insert("source".to_owned(), json!(view.source));
    body.insert("age_seconds".to_owned(), json!(view.age.as_secs_f64()));
    body.insert("faults".to_owned(), json!(view::faults(&view, caller.role)));
    body.insert("warnings".to_owned(), json!(view.warnings));
    Ok(([(header::ETAG, format!("\"{epoch}\""))], Json(Value::Object(body))).into_response())
}

/// What a change looks like.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default)]
    set: BTreeMap<String, Value>,
    #[serde(default)]
    unset: Vec<String>,
    #[serde(default)]
    why: String,
}

pub(super) async fn change(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let (index, route) = find(&shared, &name)?;
    let body = whole(body)?;
    let patch: Patch = serde_json::from_slice(&body).map_err(|error| {
        ApiError::BadRequest(format!(
            r#"the body must be JSON like {{"set": {{"live": "green"}}, "unset": ["pin"], "why": "v42 is good"}}: {error}"#
        ))
    })?;
    orders::one_line("why", &patch.why)?;
    let is_holdback_asked = patch.set.contains_key("holdback_percent");
    let (fields, expected_epoch) = (fields(patch.set, patch.unset)?, if_match(&headers)?);
    live_runs_something(&shared.state, (index, route), &fields)?;
    let change = Change { fields, expected_epoch, kind: Kind::Change, who: caller.name, why: patch.why, grounds: None };
    let epoch = shared.state.flags.change(index, change).await?;
    let mut warnings = view::without_health(&shared.state, index, route);
    warnings.extend(objections(&shared, index).await);
    if is_holdback_asked && shared.state.flags.view(index).flags.holdback.is_none() {
        warnings.push("holdback_percent does nothing until holdback_pool names another pool than live".to_owned());
    }
    Ok(([(header::ETAG, format!("\"{epoch}\""))], Json(json!({ "name": name, "epoch": epoch, "warnings": warnings }))).into_response())
}

/// That a pool which is to be live has a version, as far as the flags say.
fn live_runs_something(
    state: &AdminState,
    (index, route): (RouteIndex, &Route),
    fields: &BTreeMap<String, Option<String>>,
) -> Result<(), ApiError> {
    let Some(Some(live)) = fields.get("live") else { return Ok(()) };
    let flagged = state.flags.stored(index);
    let is_it = |place: usize| route.pools.get(place).is_some_and(|pool| pool.name == *live);
    let runs = flagged.versions.iter().find(|(pool, _)| is_it(pool.get())).map(|(_, version)| version.as_str());
    let set = fields.get(&format!("version.{live}"));
    let is_none = set.map_or(runs == Some(NO_VERSION), |set| set.as_deref() == Some(NO_VERSION));
    if is_none { Err(ApiError::LiveRunsNothing { route: route.name.clone(), pool: live.clone() }) } else { Ok(()) }
}

/// What is against the policies that the flags name now.
async fn objections(shared: &Shared, index: RouteIndex) -> Vec<String> {
    let mut objections = Vec::new();
    let flags = shared.state.flags.view(index).flags;
    let wanted = &flags.split_policy;
    if let Some(why) = shared.state.policies.objection(wanted).await {
        let in_force = shared.state.policies.status(index);
        let goes_on =
            if in_force.digest.is_empty() { "native decisions go".to_owned() } else { format!("the policy {} goes", in_force.name) };
        objections.push(format!("split_policy {wanted} is not put in force, {goes_on} on: {why}"));
    }
    let wanted = &flags.rollback_policy;
    if let Some(why) = shared.state.policies.rollback_objection(wanted).await {
        objections.push(format!("rollback_policy {wanted} is not put in force, the one before it goes on judging: {why}"));
    }
    objections
}

fn fields(set: BTreeMap<String, Value>, unset: Vec<String>) -> Result<BTreeMap<String, Option<String>>, ApiError> {
    let mut fields = BTreeMap::new();
    for (field, value) in set {
        let text = match value {
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
            Value::Null | Value::Array(_) => {
                return Err(ApiError::BadRequest(format!("set.{field} = {value}: must be text, a number, true or false, or an object")));
            }
        };
        fields.insert(field, Some(text));
    }
    for field in unset {
        if fields.insert(field.clone(), None).is_some() {
            return Err(ApiError::BadRequest(format!("{field} is both in set and in unset, or twice in unset")));
        }
    }
    Ok(fields)
}

/// `If-Match: "12"`: change only what is still at epoch 12.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or("").trim();
    if text == "*" {
        return Ok(None);
    }
    let epoch = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
    let wrong = || ApiError::BadRequest(format!("If-Match: {text}: must be one epoch in quotes, like \"12\", or *"));
    epoch.map(Some).ok_or_else(wrong)
}

#[derive(Debug, Deserialize)]
pub(super) struct HistoryQuery {
    limit: Option<String>,
}

pub(super) async fn history(
    Viewer(caller): Viewer,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Value>, ApiError> {
    let (index, _) = find(&shared, &name)?;
    let limit = match query.limit.as_deref() {
        None => HISTORY_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=HISTORY_MOST).contains(limit))
            .ok_or_else(|| ApiError::BadRequest(format!("limit={text}: must be a whole number from 1 to {HISTORY_MOST}")))?,
    };
    let entries = redact::ledger(shared.state.flags.history(index, limit).await?, caller.role);
    Ok(Json(json!({ "name": name, "entries": entries })))
}

/// A body that was read, within the limit for all requests.
pub(super) fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge(format!("the body must be at most {} bytes", super::BODY_BYTES)),
        _ => ApiError::BadRequest(format!("the body could not be read: {error}")),
    })
}

/// The route of this name.
pub(super) fn find<'s>(shared: &'s Shared, name: &str) -> Result<(RouteIndex, &'s Route), ApiError> {
    shared.state.routes().find(|(_, route)| route.name == name).ok_or_else(|| {
        let known: Vec<&str> = shared.state.config.routes.iter().take(20).map(|route| route.name.as_str()).collect();
        ApiError::NoRoute { name: name.chars().take(64).collect(), known: known.join(", ") }
    })
}
