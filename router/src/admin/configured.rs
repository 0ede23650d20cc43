//! `/api/v1/config`: the config in force, key by key as `switchback config show` prints it, without secrets.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::access::Viewer;
use super::{Shared, redact};
use crate::config::{self, Config};

/// For everybody who may read, and for operators the same: salts are hidden, and secrets of URLs.
pub(super) async fn show(_: Viewer, State(shared): State<Shared>) -> Json<Value> {
    let state = &shared.state;
    Json(json!({ "generation": state.generation, "waiting_for_restart": state.waiting, "keys": keys_of(&state.config) }))
}

/// Every key of a config that has a value, without secrets.
pub(crate) fn keys_of(config: &Config) -> Map<String, Value> {
    let shown = config::show(&redact::config(config));
    shown.into_iter().map(|(key, value)| (key, Value::from(redact::urls(&value)))).collect()
}
