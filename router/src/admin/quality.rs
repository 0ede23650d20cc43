//! `/api/v1/routes/{route}/quality`: what this router counted, by model version; and `.../quality/fleet`: what all of them did.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::access::Viewer;
use super::error::ApiError;
use super::{Shared, routes};
use crate::quality::pages;
use crate::quality::{Counts, KEPT, Number, RouteBook, Window, merge, sum_of};
use crate::release::fleet_windows;

/// The newest windows that are shown.
const SHOWN: usize = 10;
/// Seconds that are summed where nobody says how many.
const ONE_MINUTE: u32 = 60;

/// Sums since the router started, and the newest windows, by version.
pub(super) async fn show(Viewer(_): Viewer, State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let (_, route) = routes::find(&shared, &name)?;
    let books = shared.state.process.books.lock();
    let Some(book) = books.get(&route.name) else {
        return Ok(Json(json!({ "route": route.name, "totals": [], "windows": [], "late": 0, "dropped": dropped(None) })));
    };
    let newest = book.windows.newest(SHOWN).map(|(second, window)| json!({ "unix_seconds": second, "versions": by_version(book, window) }));
    Ok(Json(json!({
        "route": route.name,
        "totals": by_version(book, book.windows.totals()),
        "windows": newest.collect::<Vec<Value>>(),
        "late": book.windows.late(),
        "dropped": dropped(Some(book)),
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    seconds: Option<String>,
}

impl Span {
    fn seconds(self) -> Result<u32, ApiError> {
        let Some(text) = self.seconds else { return Ok(ONE_MINUTE) };
        let seconds = text.parse().ok().filter(|seconds| (1..=KEPT).contains(seconds));
        seconds.ok_or_else(|| ApiError::BadRequest(format!("seconds={text}: must be a whole number from 1 to {KEPT}")))
    }
}

/// Sums over every router, of the windows of the last seconds.
pub(super) async fn fleet(
    Viewer(_): Viewer,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    span: Result<Query<Span>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let (_, route) = routes::find(&shared, &name)?;
    let Query(span) = span.map_err(|rejection| ApiError::BadRequest(rejection.body_text()))?;
    let seconds = span.seconds()?;
    let now = u32::try_from(super::now_unix_ms() / 1_000).unwrap_or(u32::MAX);
    let oldest = now.saturating_sub(seconds);
    let numbers = pages::page_of(oldest)..=pages::page_of(now);
    let heard = fleet_windows(&shared.state.flags, &route.name, numbers).await;
    let mut heard = heard.map_err(ApiError::Store)?;
    heard.windows.retain(|second, _| *second >= oldest);
    let mut sum = Window::new();
    heard.windows.values().for_each(|window| merge(&mut sum, window));
    let books = shared.state.process.books.lock();
    let book = books.get(&route.name);
    Ok(Json(json!({
        "route": route.name,
        "seconds": seconds,
        "senders": heard.senders,
        "faults": heard.faults,
        "versions": book.map(|book| by_version(book, &sum)).unwrap_or_default(),
    })))
}

fn by_version(book: &RouteBook, window: &Window) -> Vec<Value> {
    let versions = window.iter().map(|(id, counts)| match (book.served.get(id), book.arms.get(id)) {
        (Some(served), _) => shown(&served.pool, &served.version, None, counts),
        (None, Some(arm)) => shown("", "", Some(arm.as_str()), counts),
        // Another router's.
        (None, None) => shown("", &format!("{id:08x}"), None, counts),
    });
    versions.collect()
}

/// In all, and by version.
fn dropped(book: Option<&RouteBook>) -> Value {
    let mut dropped = numbers(&book.map(|book| sum_of(&book.dropped)).unwrap_or_default());
    dropped.insert("versions".to_owned(), book.map(|book| by_version(book, &book.dropped)).unwrap_or_default().into());
    Value::Object(dropped)
}

/// By [`Number`].
fn numbers(counts: &Counts) -> Map<String, Value> {
    let numbers = Number::ALL.into_iter().map(|number| {
        let (label, count) = (number.label().to_owned(), counts[number]);
        (label, if number.unit() == 1.0 { count.into() } else { (count as f64 * number.unit()).into() })
    });
    numbers.collect()
}

/// Sums as they are, and the means that people look for; a mean of nothing is null.
fn shown(pool: &str, version: &str, arm: Option<&str>, counts: &Counts) -> Value {
    let ratio = |part: Number, whole: Number| (counts[whole] > 0).then(|| counts[part] as f64 / counts[whole] as f64);
    json!({
        "pool": pool,
        "version": version,
        "arm": arm,
        "requests": counts[Number::Requests],
        "errors": counts[Number::Errors],
        "timeouts": counts[Number::Timeouts],
        "error_rate": ratio(Number::Errors, Number::Requests),
        "latency_ms": { "p50": counts.latency_ms(0.5), "p99": counts.latency_ms(0.99) },
        "zero_results": { "seen": counts[Number::ZeroSeen], "of_them": counts[Number::ZeroResults] },
        "quality": {
            "seen": counts[Number::QualitySeen],
            "sum": counts[Number::QualitySum] as f64 * Number::QualitySum.unit(),
            "sum_of_squares": counts[Number::QualitySquares] as f64 * Number::QualitySquares.unit(),
            "mean": ratio(Number::QualitySum, Number::QualitySeen).map(|mean| mean * Number::QualitySum.unit()),
        },
        "impressions": counts[Number::Impressions],
        "clicks": counts[Number::Clicks],
        "conversions": counts[Number::Conversions],
        "click_rate": ratio(Number::Clicks, Number::Impressions),
    })
}
