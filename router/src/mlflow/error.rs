//! What can go wrong with an MLflow server.

use std::path::PathBuf;

/// Why an MLflow server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MlflowError {
    /// An option or variable makes no sense.
    #[error("{what}: {why}")]
    Usage {
        /// The option or variable, with its value where that is no secret.
        what: String,
        /// What is allowed.
        why: String,
    },
    /// The server cannot be reached, or does not do what it is asked.
    #[error("the MLflow server at {server} cannot be used: {why}")]
    Away {
        /// Its URL.
        server: String,
        /// What happened.
        why: String,
    },
    /// The server lets nobody in with these credentials.
    #[error(
        "the MLflow server at {server} refuses these credentials, or there are none (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN): {why}"
    )]
    Denied {
        /// Its URL.
        server: String,
        /// What it said.
        why: String,
    },
    /// The server says that there is no such thing, or that it may not be.
    #[error("{what}: the MLflow server at {server} says: {why}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Its URL.
        server: String,
        /// What it said.
        why: String,
    },
    /// What the server says of a version cannot be used.
    #[error("{what}: {why}")]
    Unusable {
        /// The version, or a file of it.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file on this machine cannot be written.
    #[error("{path}: cannot write it")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl MlflowError {
    /// Nobody said no: something that is needed is not there.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, MlflowError::Away { .. } | MlflowError::File { .. })
    }

    /// What was asked makes no sense, whatever is on the server.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, MlflowError::Usage { .. } | MlflowError::Denied { .. })
    }
}
