//! `/api/v1/routes/{route}/rollout/check`: whether a version could become a candidate, before anything is done for it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Viewer;
use super::error::ApiError;
use super::rollout::healthy;
use super::{AdminState, Shared, routes};
use crate::config::{Pool, Route};
use crate::flags::is_sha256;
use crate::loading::{Load, Purpose, Trouble, check as check_load, check_artefact, check_unvalidated};
use crate::release::{Begin, could_begin, in_words};
use crate::vocabulary::RouteIndex;

/// A registry that does not answer by then is away.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Of a text that makes no sense so much is told.
const TOLD_CHARS: usize = 80;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Without one, only what is in the way of any is looked at.
    candidate: Option<String>,
    /// Of its artefact, where no other one will do.
    sha256: Option<String>,
    /// It is a way back: what passed a validation once may be loaded, whatever a later look said.
    #[serde(default)]
    at_once: bool,
    /// It is still to be validated: nobody asks for its report.
    #[serde(default)]
    unvalidated: bool,
}

/// A candidate, and what is asked of it.
pub(super) struct Wanted<'a> {
    pub(super) candidate: &'a str,
    /// Of its artefact, where no other one will do.
    pub(super) sha256: Option<&'a str>,
    /// What it is loaded for; `None`: it is still to be validated.
    pub(super) purpose: Option<Purpose>,
}

pub(super) async fn check(
    _: Viewer,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let state = &shared.state;
    good_sha256(asked.sha256.as_deref(), asked.candidate.as_deref())?;
    let purpose = (!asked.unvalidated).then(|| purpose(state, (index, route), asked.at_once));
    let wanted = asked.candidate.as_deref().map(|candidate| Wanted { candidate, sha256: asked.sha256.as_deref(), purpose });
    let (registry, why) = match &wanted {
        None => ("not_loaded", None),
        Some(wanted) => match look(state, (index, route), wanted).await {
            Ok(found) => (found, None),
            Err(Trouble::Away(why)) => ("away", Some(why)),
            Err(Trouble::Refused(why)) => return Err(ApiError::Rollout(why)),
        },
    };
    control_is_served(state, (index, route), asked.at_once)?;
    let first = Begin { candidate: asked.candidate.clone(), at_once: asked.at_once, ..Begin::default() };
    could_begin(&first, &state.flags.stored(index), route, &healthy(state, index), state.process.clock.now_ms())
        .map_err(|refusal| ApiError::Rollout(refusal.0))?;
    Ok(Json(json!({ "candidate": asked.candidate, "registry": registry, "why": why })))
}

/// What a candidate would be loaded for.
pub(super) fn purpose(state: &AdminState, (index, route): (RouteIndex, &Route), at_once: bool) -> Purpose {
    if at_once {
        return Purpose::WayBack;
    }
    let flags = state.flags.stored(index);
    let of_config = || route.pools.get(flags.live.get()).map_or("", |pool| pool.version.as_str());
    Purpose::candidate(route, flags.versions.get(&flags.live).map_or_else(of_config, String::as_str))
}

/// That some server of the live pool serves what it runs, as far as is known: who is compared with another model proves nothing. A rollout that is
/// under way has its own look.
pub(super) fn control_is_served(state: &AdminState, (index, route): (RouteIndex, &Route), at_once: bool) -> Result<(), ApiError> {
    let flags = state.flags.stored(index);
    let is_underway = flags.rollout.as_ref().is_some_and(|rollout| rollout.phase.is_active());
    let Some(live) = route.pools.get(flags.live.get()).filter(|_| !at_once && !is_underway) else { return Ok(()) };
    let Some(known) = state.process.board.strays(&route.name).remove(&live.name) else { return Ok(()) };
    if known.strays.len() < state.health(index, &live.name).endpoints {
        return Ok(());
    }
    let (pool, version, what) = (live.name.clone(), known.version, in_words(&known.strays));
    Err(ApiError::ControlServesAnother { pool, version, what })
}

/// That a digest is one, and of a candidate that is named.
pub(super) fn good_sha256(sha256: Option<&str>, candidate: Option<&str>) -> Result<(), ApiError> {
    match sha256 {
        Some(text) if !is_sha256(text) => {
            let told: String = text.chars().take(TOLD_CHARS).collect();
            Err(ApiError::BadRequest(format!("sha256 = {told:?}: must be 64 hex digits, in lower case")))
        }
        Some(_) if candidate.is_none() => Err(ApiError::BadRequest("sha256 is of a candidate: say which one, too".to_owned())),
        _ => Ok(()),
    }
}

/// What the registry says of a candidate: `ready`, or `not_loaded` where a pool has it already or it is no version that can be loaded. Who has it already
/// may show it to users no more than who loads it: its reports are asked for all the same. A way back that is one write asks for none.
pub(super) async fn look(state: &AdminState, (index, route): (RouteIndex, &Route), wanted: &Wanted<'_>) -> Result<&'static str, Trouble> {
    let Some(load) = load_of(state, route, wanted) else { return Ok("not_loaded") };
    let flags = state.flags.stored(index);
    let runs = |place: usize| flags.versions.iter().find(|(pool, _)| pool.get() == place).map(|(_, version)| version.as_str());
    let has_it = |(place, pool): (usize, &Pool)| runs(place).unwrap_or(&pool.version) == wanted.candidate;
    let is_there = route.pools.iter().enumerate().any(has_it);
    let live = route.pools.get(flags.live.get()).map_or("", |pool| pool.name.as_str());
    let idle = if live == "blue" { "green" } else { "blue" };
    let has = |name: &str| route.pools.iter().enumerate().any(|at| at.1.name == name && has_it(at));
    let is_asked_for_nothing = match wanted.purpose {
        None => is_there,
        Some(Purpose::WayBack) => has(live) || (has(idle) && !is_lost(state, (index, route), idle)),
        // That it is live already is told by others.
        Some(_) => has(live),
    };
    if is_asked_for_nothing && wanted.sha256.is_none() {
        return Ok("not_loaded");
    }
    // What is not loaded for it is what the registry has, all the same.
    let looked = async {
        match wanted.purpose {
            _ if is_asked_for_nothing => check_artefact(&load).await,
            None => check_unvalidated(&load).await,
            Some(_) => check_load(&load).await,
        }
    };
    match tokio::time::timeout(ANSWERS_WITHIN, looked).await {
        Ok(found) => found.map(|()| if is_there { "not_loaded" } else { "ready" }),
        Err(_) => Err(Trouble::Away(format!("the registry did not answer within {ANSWERS_WITHIN:?}"))),
    }
}

/// Whether every server of a pool is known to serve another version than the pool runs: a way back is loaded there first.
fn is_lost(state: &AdminState, (index, route): (RouteIndex, &Route), pool: &str) -> bool {
    let known = state.process.board.strays(&route.name).remove(pool);
    known.is_some_and(|known| known.strays.len() >= state.health(index, pool).endpoints)
}

/// What would be loaded for it; nothing, where it is no version that can be.
fn load_of(state: &AdminState, route: &Route, wanted: &Wanted<'_>) -> Option<Load> {
    let loading = route.loading.clone()?;
    let number = loading.version_of(wanted.candidate)?;
    let (registry, pool) = (state.config.registry.clone(), route.pools.first()?.clone());
    // Where its reports are still to come, nobody asks what for.
    let (sha256, purpose) = (wanted.sha256.map(str::to_owned), wanted.purpose.clone().unwrap_or(Purpose::WayBack));
    Some(Load { registry, route: route.name.clone(), loading, pool, others: Vec::new(), number, sha256, only: None, purpose })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_whole_and_of_a_named_candidate() {
        let good = "0f".repeat(32);
        assert!(good_sha256(Some(&good), Some("search:2")).is_ok() && good_sha256(None, None).is_ok());
        let told = |sha256: &str, candidate| good_sha256(Some(sha256), candidate).unwrap_err().to_string();
        assert_eq!(told("0F", Some("search:2")), "sha256 = \"0F\": must be 64 hex digits, in lower case");
        assert_eq!(told(&good, None), "sha256 is of a candidate: say which one, too");
    }
}
