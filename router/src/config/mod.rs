//! The config file: its written form ([`written`], what serde reads) and its checked form ([`checked`], types that cannot be
//! wrong). Everything past this module sees the checked form only.
//!
//! Invariant: a config is refused whole, before any port is bound, with the file, the key, the value and what is allowed.

mod change;
mod check;
mod check_breaker;
mod check_events;
mod check_evidence;
mod check_gate;
mod check_initial;
mod check_loading;
mod check_mlflow;
mod check_notify;
mod check_outlier;
mod check_registry;
mod check_rollout;
mod check_route;
mod check_signals;
mod check_tls;
mod check_trust;
mod check_validation;
mod checked;
mod error;
mod expose;
#[cfg(test)]
mod fuzz;
mod locate;
mod misfit;
mod notice_event;
mod notify_url;
mod pointer;
mod redis_url;
mod show;
pub(crate) mod units;
mod written;

use std::path::Path;

use toml::de::DeTable;

pub use change::{FIXED, KeyChange, Reload, reload};
pub(crate) use check::LOCAL_OPERATOR;
pub use check_breaker::Breaker;
pub use check_evidence::Evidence;
pub use check_gate::{Gate, GateKind};
pub use check_loading::{LoadProtocol, Loading};
pub use check_mlflow::{Mlflow, MlflowAlias, MlflowIfBusy, is_mlflow_name, mlflow_url};
pub use check_notify::{Notify, NotifyFormat};
pub use check_registry::{Place, Registry, S3};
pub use check_rollout::{ROLLOUT_STEPS, RolloutPlan, RolloutStep};
pub use check_route::{VERSION_RULE, is_version};
pub use check_signals::Signals;
pub use check_validation::{Cost, Criteria, Proof, Validation, is_global};
pub use checked::{
    Admin, AdminToken, CertificateFiles, ClientAuth, Config, Endpoint, Events, Health, Lifecycle, Limits, Listen, OnPolicyFailure, Outlier,
    Override, Policies, Pool, PoolTls, Protocol, Rate, Role, Route, RouteMatch, State, StateUrl, Timeouts, Tls, UnitSource,
};
pub use error::ConfigError;
pub use expose::Expose;
pub use notice_event::NoticeEvent;
pub use notify_url::NotifyUrl;
pub use pointer::Pointer;
pub use redis_url::{Login, Node, Password, RedisState, RedisTls, Topology};
pub use show::show;

/// Reads and checks a config file.
///
/// # Errors
/// [`ConfigError`], with every problem that was found, not just the first.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::unreadable(path, &source))?;
    parse(&path.display().to_string(), &text)
}

/// Where a key stands, for an error that comes to light after the config was read: `FILE:LINE`, and `FILE` alone where it does not.
#[must_use]
pub fn place(path: &Path, key: &str) -> String {
    let line = std::fs::read_to_string(path).ok().and_then(|text| locate::Locator::new(&text).line(key));
    line.map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()))
}

/// Reads and checks a config from its text; `file` is what errors call it.
///
/// # Errors
/// As [`load`].
pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
    let (_, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(ConfigError::syntax(file, text, &errors));
    }
    let table = toml::from_str(text).map_err(|error| ConfigError::syntax(file, text, &[error]))?;
    let (written, misfits) = misfit::read(table);
    let problems = match written.map(check::check) {
        Some(Ok(config)) if misfits.is_empty() => return Ok(config),
        Some(Ok(_)) | None => Vec::new(),
        Some(Err(problems)) => problems,
    };
    Err(ConfigError::new(file, text, misfits.merge(&locate::Locator::new(text), problems)))
}
