//! `/api/v1/policies`: what is in force on each route, the plugins that there are, and putting one into the folder or taking it out; and
//! `/api/v1/plugins/{digest}`: the bytes of one.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Operator, Viewer};
use super::error::ApiError;
use super::{Shared, view};
use crate::config::Route;

pub(super) async fn list(_: Viewer, State(shared): State<Shared>) -> Json<Value> {
    let mut policies = Vec::new();
    for (index, route) in shared.state.routes() {
        for mut policy in view::policies(&shared.state, index, route) {
            if let Some(policy) = policy.as_object_mut() {
                policy.insert("route".to_owned(), json!(route.name));
            }
            policies.push(policy);
        }
    }
    let mut plugins = shared.state.policies.plugins();
    for plugin in plugins.iter_mut().filter(|plugin| !plugin.digest.is_empty()) {
        // A rollback policy is in force where it judges.
        let judges = |route: &&Route| {
            let judge = shared.state.process.board.of(&route.name).judge;
            (judge.name.as_str(), judge.digest.as_str()) == (plugin.name.as_str(), plugin.digest.as_str())
        };
        let judged: Vec<String> = shared.state.routes().map(|(_, route)| route).filter(judges).map(|route| route.name.clone()).collect();
        plugin.routes.extend(judged);
    }
    Json(json!({ "policies": policies, "plugins": plugins }))
}

/// 201 with the report when the folder was changed, 200 when it held these very bytes, 422 with the reason when they are refused.
pub(super) async fn put(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let policies = &shared.state.policies;
    let _turn = policies.folder_turn().await?;
    let bytes = read(body, policies.most_file_bytes()).await?;
    let uploaded = policies.upload(&name, bytes).await.inspect_err(|error| {
        tracing::warn!(plugin = name, who = caller.name, "upload not taken: {error}");
    })?;
    let digest = &uploaded.report.digest;
    tracing::info!(plugin = name, digest, who = caller.name, is_new = uploaded.is_new, "plugin uploaded");
    let status = if uploaded.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(json!({ "name": name, "digest": digest, "changed": uploaded.is_new, "report": uploaded.report }))).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct RemoveQuery {
    force: Option<String>,
}

pub(super) async fn remove(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<Json<Value>, ApiError> {
    let policies = &shared.state.policies;
    let is_forced = match query.force.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(ApiError::BadRequest(format!("force={other}: must be true or false"))),
    };
    let _turn = policies.folder_turn().await?;
    let digest = policies.remove(&name, is_forced).await?;
    tracing::info!(plugin = name, digest, who = caller.name, "plugin removed from the folder");
    Ok(Json(json!({ "name": name, "digest": digest })))
}

/// The very bytes of a plugin, by their digest: shipped, kept, or in the folder.
pub(super) async fn component(_: Viewer, State(shared): State<Shared>, Path(digest): Path<String>) -> Result<Response, ApiError> {
    let unknown = || ApiError::NoPlugin(digest.chars().take(80).collect());
    let bytes = shared.state.policies.component(&digest).await.ok_or_else(unknown)?;
    Ok(([(header::CONTENT_TYPE, "application/wasm")], bytes).into_response())
}

async fn read(body: Body, most: u64) -> Result<Vec<u8>, ApiError> {
    let most_bytes = usize::try_from(most).unwrap_or(usize::MAX);
    match Limited::new(body, most_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge(format!("policies.file_bytes allows {most} bytes"))),
        Err(error) => Err(ApiError::BadRequest(format!("the body could not be read: {error}"))),
    }
}
