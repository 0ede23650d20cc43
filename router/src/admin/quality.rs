//! `/api/v1/routes/{route}/quality`: what this router counted, by model version.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::access::Viewer;
use super::error::ApiError;
use super::{Shared, routes};
use crate::quality::{Counts, Number, Window};

/// The newest windows that are shown.
const SHOWN: usize = 10;

/// Sums since the router started, and the newest windows, by version.
pub(super) async fn show(Viewer(_): Viewer, State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let (_, route) = routes::find(&shared, &name)?;
    let books = shared.state.process.books.lock();
    let Some(book) = books.get(&route.name) else {
        return Ok(Json(json!({ "route": route.name, "totals": [], "windows": [], "late": 0 })));
    };
    let by_version = |window: &Window| {
        let versions = window.iter().map(|(id, counts)| {
            let served = book.served.get(id);
            let (pool, version) = served.map_or(("", ""), |served| (served.pool.as_str(), served.version.as_str()));
            shown(pool, version, counts)
        });
        versions.collect::<Vec<Value>>()
    };
    let newest = book.windows.newest(SHOWN).map(|(second, window)| json!({ "unix_seconds": second, "versions": by_version(window) }));
    Ok(Json(json!({
        "route": route.name,
        "totals": by_version(book.windows.totals()),
        "windows": newest.collect::<Vec<Value>>(),
        "late": book.windows.late(),
    })))
}

/// Sums as they are, and the means that people look for; a mean of nothing is null.
fn shown(pool: &str, version: &str, counts: &Counts) -> Value {
    let ratio = |part: Number, whole: Number| (counts[whole] > 0).then(|| counts[part] as f64 / counts[whole] as f64);
    json!({
        "pool": pool,
        "version": version,
        "requests": counts[Number::Requests],
        "errors": counts[Number::Errors],
        "timeouts": counts[Number::Timeouts],
        "error_rate": ratio(Number::Errors, Number::Requests),
        "latency_ms": { "p50": counts.latency_ms(0.5), "p99": counts.latency_ms(0.99) },
        "zero_results": { "seen": counts[Number::ZeroSeen], "of_them": counts[Number::ZeroResults] },
        "quality": { "seen": counts[Number::QualitySeen], "mean": ratio(Number::QualitySum, Number::QualitySeen).map(|mean| mean / 1e6) },
        "impressions": counts[Number::Impressions],
        "clicks": counts[Number::Clicks],
        "conversions": counts[Number::Conversions],
        "click_rate": ratio(Number::Clicks, Number::Impressions),
    })
}
