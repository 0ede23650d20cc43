//! What the API answers when it does not do what was asked: a status, and JSON that says why.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ReloadRefused;
use crate::flags::{ChangeError, HistoryError};
use crate::mlflow::Refused;
use crate::policy::{ShadowError, UploadError};

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("this needs a token: send `Authorization: Bearer TOKEN`")]
    NoToken,
    #[error("this token is not known here")]
    WrongToken,
    #[error("the token of {0} may read; changing needs a token with the role operator")]
    NotOperator(String),
    #[error("without a token the Host must be an IP address or localhost, not {0:?}")]
    ForeignHost(String),
    #[error("no such route: {name:?}; the routes here are {known}")]
    NoRoute { name: String, known: String },
    #[error("no plugin with the SHA-256 {0:?} is shipped, kept or in the folder; GET /api/v1/policies lists those with a name")]
    NoPlugin(String),
    #[error("route {route} has no recorded comparison that began at {began}; GET /api/v1/routes/{route}/windows lists them")]
    NoWindows { route: String, began: u32 },
    #[error("the recorded windows cannot be read: {0}")]
    Recorded(std::io::Error),
    #[error("no such path: {0}; GET /api/v1/openapi.json lists what there is")]
    NoPath(String),
    #[error("this path does not take that method; GET /api/v1/openapi.json lists what there is")]
    NoMethod,
    #[error("{route}: there is no candidate, no holdback and no rollout that is done, so nothing to roll back; {way}")]
    NothingToRollBack {
        route: String,
        /// What to do instead.
        way: String,
    },
    #[error(
        "pool {pool} runs no version, since its servers let go of it: as the live pool it would leave everybody without an answer; switchback rollback {route} \
         --to VERSION loads one and makes it live"
    )]
    LiveRunsNothing { route: String, pool: String },
    #[error(
        "the pool {target} has no healthy endpoint: a rollback would leave everybody without an answer; mend it first, or set the flags by hand"
    )]
    TargetNotReady { target: String },
    #[error(
        "no server of the pool {target} serves {version} ({what}): a rollback would give its traffic to another model; switchback rollback {route} --to \
         {version} has them load it again first"
    )]
    TargetServesAnother { route: String, target: String, version: String, what: String },
    #[error(
        "no server of the live pool {pool} serves {version} ({what}): a candidate would be compared with another model; have them load {version} again first"
    )]
    ControlServesAnother { pool: String, version: String, what: String },
    #[error("the ledger does not go back to {}{}", at(*.time_ms), .oldest_ms.map_or_else(|| ": it is empty".to_owned(), |oldest| format!(": its oldest entry is of {}", at(oldest))))]
    NotKnown { time_ms: u64, oldest_ms: Option<u64> },
    #[error("{0}")]
    Rollout(String),
    #[error("route {route} has no experiment {name:?}{}", known_experiments(.known))]
    NoExperiment { route: String, name: String, known: Vec<String> },
    #[error("{0}")]
    Experiment(String),
    #[error("this router takes no webhooks of MLflow's: its config has no [mlflow] section")]
    NoMlflow,
    #[error("{0}")]
    Webhook(Refused),
    #[error("so many deliveries came lately that repeats could not be told: try again in some minutes")]
    TooManyDeliveries,
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("{}", .0.problems.join("; "))]
    Reload(ReloadRefused),
    #[error("the store cannot be asked: {0}")]
    Store(String),
    #[error("{} clients follow the events of this router, and that is the most: ask one of them to stop", super::connections::STREAMS)]
    TooManyStreams,
    #[error("the router is busy ending, handing over or reloading")]
    Busy,
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    History(#[from] HistoryError),
}

impl ApiError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            ApiError::NoToken | ApiError::WrongToken => StatusCode::UNAUTHORIZED,
            ApiError::NotOperator(_) | ApiError::Webhook(_) => StatusCode::FORBIDDEN,
            ApiError::ForeignHost(_) => StatusCode::MISDIRECTED_REQUEST,
            ApiError::NoRoute { .. }
            | ApiError::NoExperiment { .. }
            | ApiError::NoPath(_)
            | ApiError::NoPlugin(_)
            | ApiError::NoWindows { .. }
            | ApiError::NoMlflow
            | ApiError::Upload(UploadError::Missing { .. }) => StatusCode::NOT_FOUND,
            ApiError::NotKnown { .. } => StatusCode::GONE,
            ApiError::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::BadRequest(_) | ApiError::Upload(UploadError::Name(_)) => StatusCode::BAD_REQUEST,
            ApiError::Reload(_) | ApiError::Experiment(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::NothingToRollBack { .. }
            | ApiError::LiveRunsNothing { .. }
            | ApiError::Rollout(_)
            | ApiError::TargetNotReady { .. }
            | ApiError::TargetServesAnother { .. }
            | ApiError::ControlServesAnother { .. } => StatusCode::CONFLICT,
            ApiError::Busy | ApiError::TooManyStreams | ApiError::TooManyDeliveries | ApiError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::Upload(UploadError::Rejected(_)) | ApiError::Shadow(ShadowError::NoPolicy(_) | ShadowError::Refused(_)) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            ApiError::Upload(UploadError::Full(_) | UploadError::Shipped(_) | UploadError::InUse { .. })
            | ApiError::Shadow(ShadowError::Busy(_) | ShadowError::InForce(_)) => StatusCode::CONFLICT,
            ApiError::Upload(UploadError::Folder { .. } | UploadError::Lost) => StatusCode::INTERNAL_SERVER_ERROR,
            ApiError::Shadow(ShadowError::Unanswered) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Change(ChangeError::Conflict { .. }) => StatusCode::PRECONDITION_FAILED,
            ApiError::Change(ChangeError::Invalid(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::Change(ChangeError::Unreachable { .. } | ChangeError::NotWritten { .. }) | ApiError::History(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ApiError::Change(ChangeError::Unanswered { .. }) | ApiError::Upload(UploadError::NotTakenIn { .. }) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            ApiError::Change(ChangeError::NotSaved { .. }) | ApiError::Recorded(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut body = json!({ "error": self.to_string() });
        if let (ApiError::Change(ChangeError::Invalid(faults)), Some(body)) = (&self, body.as_object_mut()) {
            body.insert("faults".to_owned(), json!(faults));
        }
        if let (ApiError::Change(ChangeError::Conflict { expected, found }), Some(body)) = (&self, body.as_object_mut()) {
            body.insert("expected".to_owned(), json!(expected));
            body.insert("found".to_owned(), json!(found));
        }
        if let (ApiError::Reload(refused), Some(body)) = (&self, body.as_object_mut()) {
            body.insert("problems".to_owned(), json!(refused.problems));
        }
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"switchback\""));
        }
        response
    }
}

/// As people read it.
pub(super) fn at(ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms after 1970"))
}

fn known_experiments(names: &[String]) -> String {
    if names.is_empty() { ": it has none".to_owned() } else { format!("; those that it has are {}", names.join(", ")) }
}

pub(super) async fn no_such_method() -> ApiError {
    ApiError::NoMethod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_cannot_write_is_one_that_is_not_there() {
        let why = || "search.json cannot be written: No space left on device".to_owned();
        let (full, refused) = (ChangeError::NotWritten { why: why() }, ChangeError::NotSaved { why: why() });
        let statuses = [full, refused].map(|error| ApiError::Change(error).status());
        assert_eq!(statuses, [StatusCode::SERVICE_UNAVAILABLE, StatusCode::INTERNAL_SERVER_ERROR]);
    }
}
