//! Why a router does not start.

use std::net::SocketAddr;
use std::path::Path;

use crate::config;
use crate::flags::FlagsError;
use crate::policy::PolicyError;
use crate::serve::ServeError;

/// A router that does not start.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The config, or a file that it names.
    #[error("{}", .problems.join("\n"))]
    Config {
        /// A line each: file, line, key, value, and what is allowed.
        problems: Vec<String>,
    },
    /// An address.
    #[error("{key}: cannot listen on {address}")]
    Listen {
        /// The config key.
        key: &'static str,
        /// As bound.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The process that was to hand over.
    #[error("the hand-over: {what}")]
    HandOver {
        /// What did not work.
        what: String,
    },
    /// Something that the system does not give.
    #[error("{what}")]
    System {
        /// What.
        what: &'static str,
        /// Its words.
        #[source]
        source: std::io::Error,
    },
    /// The flags.
    #[error(transparent)]
    Flags(#[from] FlagsError),
    /// The policies.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The data path.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl LifecycleError {
    /// A file that the config names is refused.
    pub(super) fn refused(file: &Path, key: &str, error: &dyn std::error::Error) -> LifecycleError {
        LifecycleError::Config { problems: vec![problem(file, key, error)] }
    }

    pub(super) fn of_sockets(source: std::io::Error) -> LifecycleError {
        LifecycleError::System { what: "cannot use the listening sockets", source }
    }

    /// With all of its causes, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self).replace('\n', "; ")
    }
}

/// `FILE:LINE: what is wrong`.
pub(super) fn problem(file: &Path, key: &str, error: &dyn std::error::Error) -> String {
    format!("{}: {}", config::place(file, key), chain(error))
}

/// An error with all of its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
