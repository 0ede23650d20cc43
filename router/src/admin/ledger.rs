//! `/api/v1/routes/{route}/ledger` and `/explain`: whether the ledger is as it was written, and what it says of a moment.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Viewer;
use super::error::{ApiError, at};
use super::{Shared, redact, routes};
use crate::flags::HeldAt;

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
    let found = shared.state.flags.verify(index, noted.head).await?;
    let mut answer = json!(found);
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("route".to_owned(), json!(route.name));
        answer.insert("is_whole".to_owned(), json!(found.problems.is_empty()));
    }
    Ok(Json(answer))
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
    let HeldAt { entry, ended_by, oldest_ms } = shared.state.flags.held_at(index, time_ms).await?;
    let Some(entry) = redact::ledger(entry.into_iter().collect(), caller.role).pop() else {
        return Err(ApiError::NotKnown { time_ms, oldest_ms });
    };
    let mut answer = json!(entry);
    if let Some(answer) = answer.as_object_mut() {
        let more = [
            ("route", json!(route.name)),
            ("at_ms", json!(time_ms)),
            ("since_ms", json!(entry.time_ms)),
            ("until_ms", json!(ended_by.map(|entry| entry.time_ms))),
            ("grounds", json!(entry.grounds)),
            ("serves", json!(entry.serves)),
        ];
        answer.remove("time_ms");
        answer.extend(more.map(|(key, value)| (key.to_owned(), value)));
    }
    Ok(Json(answer))
}
