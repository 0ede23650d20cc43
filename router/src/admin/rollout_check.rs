//! `/api/v1/routes/{route}/rollout/check`: whether a version could become a candidate, before anything is done for it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Viewer;
use super::error::ApiError;
use super::{AdminState, Shared, routes};
use crate::config::Route;
use crate::loading::{Load, Trouble, check as check_load};
use crate::vocabulary::RouteIndex;

/// A registry that does not answer by then is away.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    candidate: String,
    /// It is a way back: what was validated once may be loaded, whatever a later look said.
    #[serde(default)]
    at_once: bool,
}

pub(super) async fn check(
    _: Viewer,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let state = match loads(&shared.state, (index, route), &asked.candidate, asked.at_once) {
        None => "not_loaded",
        Some(load) => match look(&load).await {
            Ok(()) => "ready",
            Err(Trouble::Away(why)) => return Ok(Json(json!({ "candidate": asked.candidate, "registry": "away", "why": why }))),
            Err(Trouble::Refused(why)) => return Err(ApiError::Rollout(why)),
        },
    };
    Ok(Json(json!({ "candidate": asked.candidate, "registry": state, "why": null })))
}

/// What would be loaded for it: nothing, where a pool has it already or it is no version that can be.
pub(super) fn loads(state: &AdminState, (index, route): (RouteIndex, &Route), candidate: &str, is_way_back: bool) -> Option<Load> {
    let loading = route.loading.clone()?;
    let number = loading.version_of(candidate)?;
    let flags = state.flags.stored(index);
    let runs = |place: usize| flags.versions.iter().find(|(pool, _)| pool.get() == place).map(|(_, version)| version.as_str());
    let has_it = |(place, pool): (usize, &crate::config::Pool)| runs(place).unwrap_or(&pool.version) == candidate;
    if route.pools.iter().enumerate().any(has_it) {
        return None;
    }
    let pool = route.pools.first()?.clone();
    Some(Load { registry: state.config.registry.clone(), route: route.name.clone(), loading, pool, number, only: None, is_way_back })
}

/// What the registry says.
pub(super) async fn look(load: &Load) -> Result<(), Trouble> {
    match tokio::time::timeout(ANSWERS_WITHIN, check_load(load)).await {
        Ok(found) => found,
        Err(_) => Err(Trouble::Away(format!("the registry did not answer within {ANSWERS_WITHIN:?}"))),
    }
}
