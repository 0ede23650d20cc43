//! What `model validate` and `deploy` do alike: fetch a version and what it is compared with, look at it, and store what was found.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tempfile::TempDir;

use super::Failure;
use super::registry_args::{Bar, failed};
use crate::config::{Config, Criteria, Validation};
use crate::registry::{Format, Registry, Version};
use crate::validation::{Live, Report, Subject, Validated, ValidationError, validate};

/// What a route asks of its models.
///
/// # Errors
/// The config has no such route.
pub(super) fn asked_by(config: &Config, route: &str) -> Result<Validation, Failure> {
    let found = config.routes.iter().find(|one| one.name.as_str() == route);
    let names = || config.routes.iter().map(|route| route.name.clone()).collect::<Vec<_>>().join(", ");
    found.map(|route| route.validation.clone()).ok_or_else(|| Failure::usage(format!("--route {route}: the config has {}", names())))
}

/// `search:12`
pub(super) fn named(version: &Version) -> String {
    format!("{}:{}", version.manifest.model, version.manifest.version)
}

/// Whether something can be compared with this version: it is another one, is there, and can be run here.
pub(super) fn is_comparable(live: &Version, version: Option<&Version>) -> bool {
    let is_other = version.is_none_or(|version| named(version) != named(live));
    is_other && !matches!(live.manifest.format, Format::Pickle | Format::Opaque) && live.removed.is_none()
}

/// A version's file, under this name in the folder.
///
/// # Errors
/// As [`Registry::pull`].
pub(super) async fn pulled(
    registry: &Registry,
    version: &Version,
    folder: &TempDir,
    name: &str,
    is_quiet: bool,
) -> Result<PathBuf, Failure> {
    let file = folder.path().join(name);
    let bar = Bar::new("reading", is_quiet);
    registry.pull(version, &file, &|progress| bar.show(progress)).await.map_err(failed)?;
    Ok(file)
}

/// A version as what others are compared with.
///
/// # Errors
/// As [`pulled`], and they say that it is the one that is compared with.
pub(super) async fn as_live(registry: &Registry, live: &Version, folder: &TempDir, is_quiet: bool) -> Result<Live, Failure> {
    let file = pulled(registry, live, folder, "live", is_quiet).await;
    let file = file.map_err(|failure| failure.about(&format!("the live model {}, which it is compared with", named(live))))?;
    Ok(Live { name: named(live), format: live.manifest.format, file })
}

/// Looks at a model; on a terminal it says at which check it is.
///
/// # Errors
/// Nothing is known of it. What is wrong with it is in the report.
pub(super) async fn looked_at(subject: &Subject, criteria: &Criteria, is_quiet: bool) -> Result<Validated, Failure> {
    let said = Said::new(is_quiet);
    validate(subject, criteria, &|check| said.begin(check)).await.map_err(unusable)
}

/// Stores a report beside its version; its number.
///
/// # Errors
/// As [`Registry::store_report`].
pub(super) async fn store(registry: &Registry, version: &Version, report: &Report, golden: Option<&[u8]>) -> Result<u64, Failure> {
    let text = serde_json::to_vec(report).map_err(|error| Failure::refused(error.to_string()))?;
    let golden = report.golden.as_deref().zip(golden);
    registry.store_report(&version.manifest.model, version.manifest.version, &text, golden).await.map_err(failed)
}

/// The names of the checks that refused it.
pub(super) fn refusals(report: &Report) -> String {
    report.refusals().map(|check| check.name.clone()).collect::<Vec<_>>().join(", ")
}

/// The exit code of what a validation needs and has not.
pub(super) fn unusable(error: ValidationError) -> Failure {
    let message = Failure::chain(&error);
    match error {
        ValidationError::File { .. } | ValidationError::Judged(_) => Failure::usage(message),
        ValidationError::Child(_) | ValidationError::Unusable(_) => Failure::unreachable(message),
    }
}

/// What is being looked at, on a terminal.
struct Said(ProgressBar);

impl Said {
    fn new(is_quiet: bool) -> Said {
        let target = if is_quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template("{spinner} looking: {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Said(bar)
    }

    fn begin(&self, check: &str) {
        self.0.set_message(check.to_owned());
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
