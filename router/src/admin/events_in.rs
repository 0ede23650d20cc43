//! Events on the admin listener, under the path that the config says, and what metrics show of events.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::error::ApiError;
use super::exposition::Exposition;
use super::{AdminState, Shared};
use crate::quality::events::{EventRefusal, EventsDesk, Report};

/// Whoever sends events here is one sender, whatever the address.
const SENDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// A request for a path that is none of the API's: with events, or for nothing.
pub(super) async fn deliver(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let state = &shared.state;
    if parts.uri.path() != state.config.events.path {
        return Err(ApiError::NoPath(parts.uri.path().chars().take(128).collect()));
    }
    if parts.method != Method::POST {
        return Err(ApiError::NoMethod);
    }
    state.access.caller(&parts)?;
    if parts.headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(answer(&state.desk.refuse(EventRefusal::Encoded)));
    }
    Ok(answer(&take(&state.desk, body, state.config.events.max_body).await))
}

async fn take(desk: &EventsDesk, body: Body, most: usize) -> Report {
    let mut buffered = desk.buffered();
    let whole = match Limited::new(body, most).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return desk.refuse(EventRefusal::TooLarge),
        Err(_) => return desk.refuse(EventRefusal::BrokenOff),
    };
    if !buffered.grow(whole.len()) {
        return desk.refuse(EventRefusal::QueueFull);
    }
    desk.deliver(SENDER, vec![whole], buffered).await
}

fn answer(report: &Report) -> Response {
    let status = StatusCode::from_u16(report.status()).unwrap_or(StatusCode::ACCEPTED);
    let retry: Option<[(HeaderName, String); 1]> = report.retry_after().map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], report.body()).into_response();
    response.headers_mut().extend(retry.into_iter().flatten().filter_map(|(name, value)| Some((name, value.parse().ok()?))));
    response
}

pub(super) fn write(page: &mut Exposition, state: &AdminState) {
    let totals = state.desk.totals();
    page.family("switchback_events_total", "counter", "Events that were accepted, by whether they moved a metric.");
    for accepted in &totals.accepted {
        let counted = if accepted.is_counted { "true" } else { "false" };
        page.count(&[("route", &accepted.route), ("action", accepted.action), ("counted", counted)], accepted.events);
    }
    page.family("switchback_event_refusals_total", "counter", "Events, and requests with events, that were refused, by reason.");
    for (refusal, count) in &totals.refused {
        page.count(&[("reason", refusal.label())], *count);
    }
    page.family("switchback_event_tokens_remembered", "gauge", "Tokens whose repeats are known.");
    page.count(&[], totals.remembered_tokens as u64);
    page.family(
        "switchback_event_windows_dropped_total",
        "counter",
        "Windows of a version whose counts of events were dropped: nobody took them.",
    );
    page.count(&[], totals.dropped_windows);
}
