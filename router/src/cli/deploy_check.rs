//! What is known of a version before any user sees it: its newest report, if that answers what is asked now, or a new one.

use std::path::{Path, PathBuf};

use super::Failure;
use super::deploy_decide::Asked;
use super::deploy_told::Told;
use super::model::who;
use super::registry_args::failed;
use super::validating::{as_live, is_comparable, looked_at, named, pulled, store, unusable};
use crate::config::Criteria;
use crate::registry::{Format, Manifest, Name, Reference, Registry, RegistryError, Version, Which};
use crate::validation::{Live, Numbered, Report, Reports, Subject, Validated, digest};

/// What is asked of a model.
#[derive(Debug)]
pub(super) struct Exam {
    pub(super) criteria: Criteria,
    /// The judged queries' file, and its SHA-256.
    pub(super) judged: Option<(PathBuf, String)>,
    pub(super) is_quiet: bool,
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Examined<'a> {
    Version(&'a Version),
    /// A file that is in no registry.
    File(&'a Path, Format),
}

impl Exam {
    /// What is asked, with these judged queries.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn new(criteria: Criteria, judged: Option<PathBuf>, is_quiet: bool) -> Result<Exam, Failure> {
        let with_digest = |file: PathBuf| digest(&file).map(|(sha256, _)| (file, sha256)).map_err(unusable);
        Ok(Exam { criteria, judged: judged.map(with_digest).transpose()?, is_quiet })
    }

    /// The report that counts. A new one is stored where `stores` says so.
    ///
    /// # Errors
    /// The registry, or ONNX Runtime, is away.
    pub(super) async fn report(
        &self,
        registry: Option<&Registry>,
        examined: Examined<'_>,
        live: Option<&Version>,
        (stores, told): (bool, &Told),
    ) -> Result<Report, Failure> {
        let version = if let Examined::Version(version) = examined { Some(version) } else { None };
        let live = live.filter(|live| is_comparable(live, version));
        let against = live.map_or_else(String::new, |live| format!(" against {}", named(live)));
        if let (Some(registry), Some(version)) = (registry, version)
            && let Some((number, report)) = self.known(registry, version, live).await?
        {
            let (name, word) = (named(version), if report.passed { "passed" } else { "was refused" });
            told.line("validated", &format!("{name} {word}{against} already, as its report {number} says"));
            return Ok(report);
        }
        let folder = tempfile::tempdir().map_err(|error| Failure::unreachable(format!("no temporary folder: {error}")))?;
        let (name, file, format) = match (examined, registry) {
            (Examined::File(file, format), _) => (file.display().to_string(), file.to_owned(), format),
            (Examined::Version(version), Some(registry)) => {
                let file = pulled(registry, version, &folder, "model", self.is_quiet).await?;
                (named(version), file, version.manifest.format)
            }
            (Examined::Version(_), None) => return Err(Failure::usage("there is no registry")),
        };
        let live: Option<Live> = match (registry, live) {
            (Some(registry), Some(live)) => Some(as_live(registry, live, &folder, self.is_quiet).await?),
            _ => None,
        };
        let judged = self.judged.as_ref().map(|(file, _)| file.clone());
        let subject = Subject { name, file, format, live, judged, onnxruntime: None, who: who(), now_ms: crate::admin::now_unix_ms() };
        let Validated { report, golden } = looked_at(&subject, &self.criteria, self.is_quiet).await?;
        let stored = match (registry, version, stores) {
            (Some(registry), Some(version), true) => {
                format!(", stored as report {}", store(registry, version, &report, golden.as_deref()).await?)
            }
            _ => String::new(),
        };
        let word = if report.passed { "passed" } else { "is refused" };
        told.line("validated", &format!("{} {word}{against}, in {} ms{stored}", report.name, report.took_ms));
        Ok(report)
    }

    /// That nothing is left of what an earlier report on this artefact refused: one that passed without a look at that is no answer to it.
    ///
    /// # Errors
    /// Something is left; or the registry is away.
    pub(super) async fn is_clear(&self, registry: &Registry, version: &Version, report: &Report) -> Result<(), Failure> {
        let Manifest { model, version: number, sha256, .. } = &version.manifest;
        let stored = registry.reports(model, *number).await.map_err(failed)?;
        let mut reports: Vec<Numbered> = stored.iter().map(|stored| (stored.number, Report::read(&stored.report))).collect();
        // A dry run stores none.
        let is_it = |newest: &Report| (newest.at_ms, newest.took_ms, &newest.sha256) == (report.at_ms, report.took_ms, &report.sha256);
        let is_stored = reports.last().is_some_and(|(_, newest)| newest.as_ref().is_ok_and(is_it));
        if !is_stored {
            let next = reports.last().map_or(1, |(number, _)| number.saturating_add(1));
            reports.push((next, Ok(report.clone())));
        }
        let name = named(version);
        let all = Reports { name: &name, sha256, reports: &reports };
        all.candidate(None).map(drop).map_err(Failure::refused)
    }

    /// The newest report, if it answers what is asked now.
    async fn known(&self, registry: &Registry, version: &Version, live: Option<&Version>) -> Result<Option<(u64, Report)>, Failure> {
        let manifest = &version.manifest;
        let Some(newest) = registry.newest_report(&manifest.model, manifest.version).await.map_err(failed)? else { return Ok(None) };
        let asked = Asked {
            sha256: &manifest.sha256,
            live: live.map(|live| live.manifest.sha256.as_str()),
            judged: self.judged.as_ref().map(|(_, sha256)| sha256.as_str()),
            criteria: &self.criteria,
        };
        // One that cannot be read says nothing.
        let report = Report::read(&newest.report).ok().filter(|report| asked.is_answered_by(report));
        Ok(report.map(|report| (newest.number, report)))
    }
}

/// The model of the version that is live, if it is one of this model's in this registry.
///
/// # Errors
/// The registry is away.
pub(super) async fn live_version(registry: &Registry, model: &Name, live: &str) -> Result<Option<Version>, Failure> {
    let reference = live.parse::<Reference>().ok();
    let Some(reference) = reference.filter(|live| live.model == *model && matches!(live.which, Which::Number(_))) else { return Ok(None) };
    match registry.version(&reference).await {
        Ok(version) => Ok(Some(version)),
        // A candidate that is compared with nobody would pass.
        Err(error @ RegistryError::Unknown { .. }) => {
            Err(Failure::refused(format!("{live} is live, and nothing is known of it here: {error}; is this the right registry?")))
        }
        Err(error) => Err(failed(error)),
    }
}
