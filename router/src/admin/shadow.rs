//! `/api/v1/routes/{route}/shadow`: run a candidate policy beside the one in force, and see how often they disagree.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Operator, Viewer};
use super::error::ApiError;
use super::{Shared, redact, routes};
use crate::config::Role;
use crate::flags::PolicyRef;
use crate::policy::{ShadowOrder, ShadowReport};
use crate::vocabulary::Ppm;

const LONGEST_SECONDS: f64 = 86_400.0;

/// What a run looks like that is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    policy: String,
    #[serde(default = "one_percent")]
    sample_percent: f64,
    #[serde(default = "one_minute")]
    seconds: f64,
}

fn one_percent() -> f64 {
    1.0
}

fn one_minute() -> f64 {
    60.0
}

/// The run under way, or the last one since the router started; `{"shadow": null}` when there was none.
pub(super) async fn show(Viewer(caller): Viewer, State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let (index, _) = routes::find(&shared, &name)?;
    Ok(Json(answer(&name, shared.state.policies.shadow_report(index), caller.role)))
}

pub(super) async fn begin(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let order = order(&routes::whole(body)?)?;
    let candidate = format!("{:?}", order.policy);
    let report = shared.state.policies.begin_shadow(index, order).await?;
    tracing::info!(route = route.name, candidate, digest = report.candidate.digest, who = caller.name, "shadow run begun");
    Ok((StatusCode::CREATED, Json(answer(&name, Some(report), caller.role))).into_response())
}

pub(super) async fn stop(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (index, _) = routes::find(&shared, &name)?;
    Ok(Json(answer(&name, shared.state.policies.stop_shadow(index, &caller.name), caller.role)))
}

fn order(body: &[u8]) -> Result<ShadowOrder, ApiError> {
    let order: Order = serde_json::from_slice(body).map_err(|error| {
        ApiError::BadRequest(format!(r#"the body must be JSON like {{"policy": "my-split", "sample_percent": 1, "seconds": 60}}: {error}"#))
    })?;
    let policy = PolicyRef::parse(&order.policy).ok_or_else(|| {
        ApiError::BadRequest(format!("policy = {:?}: must be NAME or NAME@DIGEST, with a SHA-256 of 64 hex digits", order.policy))
    })?;
    let share = Ppm::from_percent(&order.sample_percent.to_string()).filter(|share| share.get() > 0);
    let share = share.ok_or_else(|| {
        ApiError::BadRequest(format!("sample_percent = {}: must be from 0.0001 to 100, with up to 4 decimals", order.sample_percent))
    })?;
    if !(1.0..=LONGEST_SECONDS).contains(&order.seconds) {
        return Err(ApiError::BadRequest(format!("seconds = {}: must be from 1 to {LONGEST_SECONDS}", order.seconds)));
    }
    Ok(ShadowOrder { policy, share, length: Duration::from_secs_f64(order.seconds) })
}

/// Values of request fields may be anything that a user sends: a viewer sees which fields differ in what, not what they hold.
fn answer(route: &str, report: Option<ShadowReport>, role: Role) -> Value {
    let report = report.map(|mut report| {
        let fields = report.examples.iter_mut().flat_map(|example| &mut example.fields);
        for value in fields.filter_map(|field| field.value.as_mut()).filter(|_| role == Role::Viewer) {
            redact::HIDDEN.clone_into(value);
        }
        report
    });
    json!({ "route": route, "shadow": report })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_defaults_and_limits() {
        let read = |text: &str| order(text.as_bytes()).map_err(|error| error.to_string());
        let plain = read(r#"{"policy": "mine"}"#).map(|order| (order.share.percent(), order.length));
        assert_eq!(plain, Ok((1.0, Duration::from_secs(60))));
        let all = read(r#"{"policy": "mine", "sample_percent": 100, "seconds": 86400}"#).map(|order| order.share.percent());
        assert_eq!(all, Ok(100.0));
        for (bad, says) in [
            (r#"{"policy": "Mine!"}"#, "must be NAME or NAME@DIGEST"),
            (r#"{"policy": "mine", "sample_percent": 0}"#, "must be from 0.0001 to 100"),
            (r#"{"policy": "mine", "sample_percent": 101}"#, "must be from 0.0001 to 100"),
            (r#"{"policy": "mine", "seconds": 0.5}"#, "seconds = 0.5: must be from 1 to 86400"),
            (r#"{"policy": "mine", "percent": 1}"#, "unknown field"),
            ("{}", "missing field `policy`"),
        ] {
            let said = read(bad).map(|_| ()).expect_err(bad);
            assert!(said.contains(says), "{bad}: {said}");
        }
    }
}
