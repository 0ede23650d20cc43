//! `/api/v1/routes/{route}/ledger`, `/ledger/entries` and `/explain`: whether the ledger is as it was written, all of it, and what it says of a moment.

use std::convert::Infallible;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Viewer;
use super::error::{ApiError, at};
use super::{JSON_LINES, Shared, redact, routes};
use crate::config::Role;
use crate::flags::{HeldAt, Verified};

/// A hash that somebody noted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Noted {
    head: Option<String>,
}

pub(super) async fn verify(
    Viewer(_): Viewer,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(noted): Query<Noted>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    Ok(Json(verified(&route.name, &shared.state.flags.ledger(index).await?.verify(noted.head.as_deref()))))
}

/// What was found of a ledger, as JSON.
pub(crate) fn verified(route: &str, found: &Verified) -> Value {
    let mut answer = json!(found);
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("route".to_owned(), json!(route));
        answer.insert("is_whole".to_owned(), json!(found.problems.is_empty()));
    }
    answer
}

/// Whoever asks may have a clock that is ahead.
const CLOCKS_APART_MS: u64 = 60_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Moment {
    time_ms: Option<String>,
}

/// Which model served whom at a moment, and why.
pub(super) async fn explain(
    Viewer(caller): Viewer,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(moment): Query<Moment>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let now_ms = shared.state.process.clock.now_ms();
    let time_ms = match moment.time_ms.as_deref() {
        None => now_ms,
        Some(text) => text
            .parse()
            .ok()
            .ok_or_else(|| ApiError::BadRequest(format!("time_ms={text}: must be milliseconds since 1970, like {now_ms}")))?,
    };
    if time_ms > now_ms.saturating_add(CLOCKS_APART_MS) {
        return Err(ApiError::BadRequest(format!("time_ms={time_ms}: {} is still to come; it is {} now", at(time_ms), at(now_ms))));
    }
    let mut held = shared.state.flags.held_at(index, time_ms).await?;
    let oldest_ms = held.oldest_ms;
    held.entry = redact::ledger(held.entry.into_iter().collect(), caller.role).pop();
    explained(&route.name, time_ms, held).map(Json).ok_or(ApiError::NotKnown { time_ms, oldest_ms })
}

/// What held at a moment, as JSON; `None` where the ledger does not go back so far.
pub(crate) fn explained(route: &str, time_ms: u64, held: HeldAt) -> Option<Value> {
    let HeldAt { entry, ended_by, .. } = held;
    let entry = entry?;
    let mut answer = json!(entry);
    if let Some(answer) = answer.as_object_mut() {
        let more = [
            ("route", json!(route)),
            ("at_ms", json!(time_ms)),
            ("since_ms", json!(entry.time_ms)),
            ("until_ms", json!(ended_by.map(|entry| entry.time_ms))),
            ("grounds", json!(entry.grounds)),
            ("serves", json!(entry.serves)),
        ];
        answer.remove("time_ms");
        answer.extend(more.map(|(key, value)| (key.to_owned(), value)));
    }
    Some(answer)
}

/// Every entry as it was written, so that it can be looked at elsewhere: JSON lines. What nobody but an operator may see is hidden from everybody, as this
/// is what leaves the house; the hash of what was written stays.
pub(super) async fn entries(Viewer(_): Viewer, State(shared): State<Shared>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let (index, _) = routes::find(&shared, &name)?;
    let ledger = shared.state.flags.ledger(index).await?.hiding(|entry| {
        let shown = redact::ledger(vec![entry.clone()], Role::Viewer).pop()?;
        (shown != *entry).then_some(shown)
    });
    let lines = ledger.written().map(|line| Ok::<_, Infallible>(Bytes::from(line)));
    let body = Body::from_stream(futures_util::stream::iter(lines));
    Ok(([(header::CONTENT_TYPE, JSON_LINES)], body).into_response())
}
