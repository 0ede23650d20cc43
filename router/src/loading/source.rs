//! What the registry knows of a version that is to be loaded.

use std::path::{Path, PathBuf};

use model_servers::Golden;
use tempfile::NamedTempFile;

use super::{Load, Purpose, Trouble};
use crate::config::Place;
use crate::registry::{Format, Manifest, Reference, Registry, RegistryError, TrustedKey, Version, Which};
use crate::validation::{Numbered, QualityAsked, Report, Reports};

/// A version, checked and at hand.
pub(super) struct Source {
    /// Queries with the scores that it gives them; `None` for a version that only its servers can run.
    pub(super) golden: Option<Golden>,
    /// The name of its one input, where it is known.
    pub(super) input: Option<String>,
    /// The artefact, where the router fills the servers' repository.
    pub(super) artefact: Option<NamedTempFile>,
}

/// A version that may be loaded.
pub(super) struct Vetted {
    registry: Registry,
    wanted: Reference,
    version: Version,
    /// The report that vouches for it; `None` on a way back to a version that nobody ever validated, so far as can be read, and where a pool gets back what it
    /// had.
    report: Option<Report>,
}

/// Looks for a version, whose artefact has to be the one that is meant.
pub(super) async fn found(load: &Load) -> Result<(Registry, Reference, Version), Trouble> {
    let registry = Registry::open(&load.registry).map_err(trouble)?;
    let model = load.loading.model.parse().map_err(|error| Trouble::Refused(format!("{error}")))?;
    let wanted = Reference { model, which: Which::Number(load.number) };
    let version = registry.version(&wanted).await.map_err(trouble)?;
    match another(&wanted.to_string(), &load.registry.place, &version.manifest.sha256, load.sha256.as_deref()) {
        None => Ok((registry, wanted, version)),
        Some(why) => Err(Trouble::Refused(why)),
    }
}

/// Why what a registry has is not what is meant.
fn another(name: &str, place: &Place, has: &str, meant: Option<&str>) -> Option<String> {
    let meant = meant.filter(|meant| *meant != has)?;
    Some(format!(
        "{name} in the router's registry ({place}) is artefact {has}, and not {meant}, which this rollout is of: the registry of the command is another one"
    ))
}

/// Looks for a version that may be loaded as soon as somebody validated it: its artefact is there, and signed where that is asked for.
pub(super) async fn trusted(load: &Load) -> Result<(Registry, Reference, Version), Trouble> {
    let (registry, wanted, version) = found(load).await?;
    if let Some(removed) = &version.removed {
        return Err(Trouble::Refused(format!("{wanted}: its artefact was removed from the registry by {}", removed.who)));
    }
    let keys: Result<Vec<TrustedKey>, RegistryError> = load.registry.trusted_keys.iter().map(|path| TrustedKey::read(path)).collect();
    version.check_signature(&keys.map_err(trouble)?).map_err(trouble)?;
    Ok((registry, wanted, version))
}

/// Looks for a version, which has to be validated, and signed where that is asked for.
pub(super) async fn vetted(load: &Load) -> Result<Vetted, Trouble> {
    let (registry, wanted, version) = trusted(load).await?;
    let Manifest { model, version: number, sha256, .. } = &version.manifest;
    let stored = registry.reports(model, *number).await.map_err(trouble)?;
    let reports: Vec<Numbered> = stored.iter().map(|stored| (stored.number, Report::read(&stored.report))).collect();
    let name = wanted.to_string();
    let all = Reports { name: &name, sha256, reports: &reports };
    let report = match &load.purpose {
        Purpose::Restore => Ok(all.passed_once()),
        Purpose::WayBack => {
            if let (None, Some((report, why))) = (all.passed_once(), all.unreadable()) {
                let (route, version) = (&load.route, name.as_str());
                tracing::warn!(
                    route,
                    version,
                    report,
                    why,
                    "no report on a version passed, and one cannot be read: it comes back as one that nobody validated"
                );
            }
            all.way_back()
        }
        Purpose::Candidate { live: None } => all.candidate(None).map(Some),
        Purpose::Candidate { live: Some(live) } => {
            let has_live = is_run_here(&registry, &wanted, live).await?;
            all.candidate(Some(QualityAsked { route: &load.route, has_live })).map(Some)
        }
    };
    let report = report.map_err(Trouble::Refused)?.cloned();
    Ok(Vetted { registry, wanted, version, report })
}

/// Whether the live version is one that others can be compared with: of the same model, there, and ONNX.
async fn is_run_here(registry: &Registry, wanted: &Reference, live: &str) -> Result<bool, Trouble> {
    let live = live.parse::<Reference>().ok().filter(|live| live.model == wanted.model && matches!(live.which, Which::Number(_)));
    let Some(live) = live else { return Ok(false) };
    match registry.version(&live).await {
        Ok(live) => Ok(live.removed.is_none() && live.manifest.format == Format::Onnx),
        Err(error) if error.is_away() => Err(trouble(error)),
        Err(_) => Ok(false),
    }
}

/// Reads a version that may be loaded; its artefact goes into `beside`, the folder that it is wanted in.
pub(super) async fn read(load: &Load, beside: Option<&Path>, progress: &(dyn Fn(String) + Sync)) -> Result<Source, Trouble> {
    let Vetted { registry, wanted, version, report } = vetted(load).await?;
    let golden = match report {
        Some(report) => golden(&registry, &wanted, &version, &report).await?,
        None => None,
    };
    let input = match version.manifest.inputs.as_slice() {
        [only] => Some(only.name.clone()),
        _ => None,
    };
    let artefact = match beside {
        Some(folder) => Some(pull(&registry, &wanted, &version, folder, progress).await?),
        None => None,
    };
    Ok(Source { golden, input, artefact })
}

async fn golden(registry: &Registry, wanted: &Reference, version: &Version, report: &Report) -> Result<Option<Golden>, Trouble> {
    let Manifest { model, version: number, .. } = &version.manifest;
    let Some(digest) = &report.golden else { return Ok(None) };
    let Some(golden) = registry.golden(model, *number, digest).await.map_err(trouble)? else {
        let how = format!("switchback model validate {wanted}");
        return Err(Trouble::Refused(format!("the golden queries of {wanted} are gone from the registry: {how}")));
    };
    let golden = Golden::read(&golden).map_err(|why| Trouble::Refused(format!("the golden queries of {wanted}: {why}")))?;
    Ok(Some(golden))
}

async fn pull(
    registry: &Registry,
    wanted: &Reference,
    version: &Version,
    folder: &Path,
    progress: &(dyn Fn(String) + Sync),
) -> Result<NamedTempFile, Trouble> {
    let failed = |error: std::io::Error| Trouble::Away(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = tempfile::Builder::new().prefix(".pull-").tempfile_in(folder).map_err(failed)?;
    let path: PathBuf = file.path().to_owned();
    let told = |done: crate::registry::Progress| {
        let percent = done.done.saturating_mul(100).checked_div(done.of).unwrap_or(100);
        progress(format!("{wanted} is pulled from the registry: {percent} %"));
    };
    registry.pull(version, &path, &told).await.map_err(trouble)?;
    Ok(file)
}

/// Whether it is worth another try.
fn trouble(error: RegistryError) -> Trouble {
    let why = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    if error.is_away() || matches!(error, RegistryError::Denied { .. }) { Trouble::Away(why) } else { Trouble::Refused(why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_artefact_is_told_with_both_digests_and_the_registry() {
        let place = Place::Folder(PathBuf::from("/srv/models"));
        let (has, meant) = ("0a".repeat(32), "0b".repeat(32));
        let why = format!(
            "search:12 in the router's registry (file:///srv/models) is artefact {has}, and not {meant}, which this rollout is of: the registry of the \
             command is another one"
        );
        assert_eq!(another("search:12", &place, &has, Some(&meant)), Some(why));
        assert_eq!((another("search:12", &place, &has, Some(&has)), another("search:12", &place, &has, None)), (None, None));
    }
}
