//! `switchback model validate`: whether a version, or a file, may be shown to users.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tempfile::TempDir;

use super::model::who;
use super::model_push::{format, regular};
use super::parent::end_with_stdin;
use super::registry_args::{RegistryArgs, failed};
use super::stopped::unless_stopped;
use super::validating::{as_live, asked_by, is_comparable, looked_at, named, pulled, refusals, store};
use super::{Failure, block_on, print};
use crate::config::{Criteria, Proof, Validation, is_global, units};
use crate::registry::{Format, Name, Reference, Registry, Version, Which};
use crate::validation::{Live, Report, Subject, Validated, look};

/// The alias of the version that is live, by which it is found when nobody names it.
pub(super) const LIVE: &str = "champion";

const AFTER_HELP: &str = "\
The file is looked at in a process of its own, with limits on memory and time; a pickle is never unpickled. docs/VALIDATION.md has every check. The report is stored beside the version, and a deployment asks for it.

Examples:
  switchback model validate search:12 --judged judged.jsonl
  switchback model validate search:12 --live search:11 --route search --config switchback.toml
  switchback model validate --file ranker.onnx --live-file yesterday.onnx --judged judged.jsonl --json

Exit codes: 0 passed, 2 refused (the report says why), 64 bad usage or config, 69 the registry or ONNX Runtime is not there, 130 interrupted.";

/// Look whether a version may be shown to users.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ValidateArgs {
    /// MODEL, MODEL:NUMBER or MODEL@ALIAS.
    #[arg(required_unless_present = "file")]
    version: Option<Reference>,
    /// A file that is in no registry.
    #[arg(long, value_name = "FILE", conflicts_with = "version")]
    file: Option<PathBuf>,
    /// What the file is: onnx, pickle, lightgbm, xgboost or opaque [default: as its name and first bytes say].
    #[arg(long, requires = "file")]
    format: Option<Format>,
    /// The version that it is compared with [default: the model's alias champion].
    #[arg(long, value_name = "VERSION")]
    live: Option<Reference>,
    /// A file that it is compared with.
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    live_file: Option<PathBuf>,
    /// Judged queries that it is tried on: JSON lines [default: route.validation.judged of --route; without, queries are made up].
    #[arg(long, value_name = "FILE")]
    judged: Option<PathBuf>,
    /// As this route of --config asks of its models.
    #[arg(long, value_name = "ROUTE", requires = "config")]
    route: Option<String>,
    #[command(flatten)]
    asked: Asked,
    /// Do not store the report.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is asked of a model, where it is not as the route says.
#[derive(Debug, Args, Default)]
pub(super) struct Asked {
    /// NDCG@10 and MRR may be so much below the live model's [default: 0.01].
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    margin: Option<f64>,
    /// worse: refuse what is shown to be worse. no-worse: refuse what is not shown to be no worse [default: worse].
    #[arg(long, value_name = "PROOF", value_parser = |text: &str| Proof::parse(text).ok_or("must be worse or no-worse"))]
    proof: Option<Proof>,
    /// 100 documents may take so many times as long as with the live model [default: 2].
    #[arg(long, value_name = "TIMES", allow_hyphen_values = true)]
    latency_ratio: Option<f64>,
    /// The share of queries whose first document may be another one [default: 0.7].
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    top1_change: Option<f64>,
    /// The least rank-biased overlap with the live model's rankings [default: 0.4].
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    overlap: Option<f64>,
    /// The least Jaccard index of the first ten documents [default: 0.4].
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    jaccard: Option<f64>,
    /// The largest model, like 500MiB [default: 2GiB].
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    model_bytes: Option<String>,
    /// Inputs and outputs may be others than the live model's.
    #[arg(long)]
    signature_change: bool,
    /// A global that pickles may name beside the known ones, like my_models.Ranker; may be said again.
    #[arg(long = "allow-global", value_name = "NAME")]
    allowed_globals: Vec<String>,
    /// Memory that looking at it may take, like 4GiB [default: 2GiB].
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Time that looking at it may take, like 5m [default: 2m].
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    time: Option<String>,
}

impl Asked {
    /// Over what the route says.
    fn over(&self, criteria: &mut Criteria) -> Result<(), Failure> {
        let share = |option: &str, value: Option<f64>, least: f64, most: f64, to: &mut f64| match value {
            Some(value) if !(least..=most).contains(&value) => {
                Err(Failure::usage(format!("--{option} {value}: must be from {least} to {most}")))
            }
            value => {
                *to = value.unwrap_or(*to);
                Ok(())
            }
        };
        share("margin", self.margin, 0.0, 1.0, &mut criteria.margin)?;
        share("latency-ratio", self.latency_ratio, 1.0, 1_000.0, &mut criteria.latency_ratio)?;
        share("top1-change", self.top1_change, 0.0, 1.0, &mut criteria.top1_change)?;
        share("overlap", self.overlap, 0.0, 1.0, &mut criteria.overlap)?;
        share("jaccard", self.jaccard, 0.0, 1.0, &mut criteria.jaccard)?;
        if let Some(wrong) = self.allowed_globals.iter().find(|name| !is_global(name)) {
            return Err(Failure::usage(format!("--allow-global {wrong:?}: must be a Python name with its module, like my_models.Ranker")));
        }
        criteria.allowed_globals.extend(self.allowed_globals.iter().cloned());
        criteria.proof = self.proof.unwrap_or(criteria.proof);
        criteria.signature_change |= self.signature_change;
        if let Some(text) = &self.memory {
            let bytes = units::bytes(text).filter(|bytes| (256 << 20..=1 << 40).contains(bytes));
            let wrong = || Failure::usage(format!("--memory {text}: must be a size from 256MiB to 1024GiB, like 4GiB"));
            criteria.cost.memory_bytes = bytes.ok_or_else(wrong)?;
        }
        if let Some(text) = &self.model_bytes {
            let bytes = units::bytes(text).filter(|bytes| (1..=1 << 40).contains(bytes));
            let wrong = || Failure::usage(format!("--model-bytes {text}: must be a size from 1B to 1024GiB, like 500MiB"));
            criteria.artefact_bytes = bytes.ok_or_else(wrong)?;
        }
        if let Some(text) = &self.time {
            let time = units::duration(text).filter(|time| (Duration::from_secs(1)..=Duration::from_secs(3_600)).contains(time));
            let time = time.ok_or_else(|| Failure::usage(format!("--time {text}: must be a duration from 1s to 1h, like 5m")))?;
            (criteria.cost.time_ms, criteria.cost.cpu_s) = (time.as_millis().try_into().unwrap_or(u64::MAX), time.as_secs());
        }
        Ok(())
    }
}

impl ValidateArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let json = self.json;
        let validated = block_on(unless_stopped(self.validate())).map_err(|failure| failure.in_json(json))?;
        let (report, stored) = validated;
        // What was found is shown also where it cannot be kept.
        let (stored, unkept) = stored.map_or_else(|failure| (None, Some(failure)), |stored| (stored, None));
        let refused = refusals(&report);
        let shown = match (json, stored) {
            (true, _) => format!("{:#}\n", json!({ "report": report, "stored": stored })),
            (false, Some(number)) => format!("{}stored as report {number} of {}\n", report.table(), report.name),
            (false, None) => report.table(),
        };
        print(&shown)?;
        if let Some(failure) = unkept {
            return Err(failure.with_hint("the report is not stored: whoever deploys this version looks at it again"));
        }
        if report.passed { Ok(()) } else { Err(Failure::refused(format!("{} is refused: {refused}", report.name))) }
    }

    /// The report, and what came of storing it.
    async fn validate(&self) -> Result<(Report, Result<Option<u64>, Failure>), Failure> {
        let Validation { judged, mut criteria } = self.of_route()?;
        self.asked.over(&mut criteria)?;
        let folder = tempfile::tempdir().map_err(|error| Failure::unreachable(format!("no temporary folder: {error}")))?;
        let judged = self.judged.clone().or(judged);
        [judged.as_ref(), self.live_file.as_ref()].into_iter().flatten().try_for_each(|file| regular(file).map(drop))?;
        let (name, file, format, version, registry) = match (&self.version, &self.file) {
            (Some(wanted), _) => {
                let registry = self.registry.open()?;
                let version = registry.version(wanted).await.map_err(failed)?;
                let file = pulled(&registry, &version, &folder, "model", self.json).await?;
                (named(&version), file, version.manifest.format, Some(version), Some(registry))
            }
            (None, Some(file)) => {
                let format = format(self.format, file)?;
                (file.display().to_string(), file.clone(), format, None, self.live.as_ref().map(|_| self.registry.open()).transpose()?)
            }
            (None, None) => return Err(Failure::usage("a version or --file is needed")),
        };
        let live = self.live_model(registry.as_ref(), version.as_ref(), &folder).await?;
        let subject = Subject { name, file, format, live, judged, onnxruntime: None, who: who(), now_ms: crate::admin::now_unix_ms() };
        let Validated { report, golden } = looked_at(&subject, &criteria, self.json).await?;
        let stored = match (version, registry, self.dry_run) {
            (Some(version), Some(registry), false) => store(&registry, &version, &report, golden.as_deref()).await.map(Some),
            _ => Ok(None),
        };
        Ok((report, stored))
    }

    fn of_route(&self) -> Result<Validation, Failure> {
        let Some(route) = &self.route else { return Ok(Validation::default()) };
        asked_by(&self.registry.config()?.ok_or_else(|| Failure::usage("--route needs --config"))?, route)
    }

    /// The model to compare with, if there is one that can be run here.
    async fn live_model(&self, registry: Option<&Registry>, version: Option<&Version>, folder: &TempDir) -> Result<Option<Live>, Failure> {
        if let Some(file) = &self.live_file {
            return Ok(Some(Live { name: file.display().to_string(), format: format(None, file)?, file: file.clone() }));
        }
        let Some(registry) = registry else { return Ok(None) };
        let live = match (&self.live, version) {
            (Some(live), _) => Some(registry.version(live).await.map_err(failed)?),
            (None, Some(version)) => champion(registry, &version.manifest.model).await?,
            (None, None) => None,
        };
        match live.filter(|live| is_comparable(live, version)) {
            None => Ok(None),
            Some(live) => as_live(registry, &live, folder, self.json).await.map(Some),
        }
    }
}

/// The version that the alias of the live one points to.
async fn champion(registry: &Registry, model: &Name) -> Result<Option<Version>, Failure> {
    let alias: Name = LIVE.parse().map_err(|error: crate::registry::NameError| Failure::usage(error.to_string()))?;
    match registry.alias(model, &alias).await.map_err(failed)?.and_then(|last| last.version) {
        None => Ok(None),
        Some(number) => {
            let wanted = Reference { model: model.clone(), which: Which::Number(number) };
            Ok(Some(registry.version(&wanted).await.map_err(failed)?))
        }
    }
}

/// What the process that looks does; for `model validate` alone.
#[derive(Debug, Args)]
#[command(hide = true, after_help = "Examples:\n  switchback model look < request.json\n  echo \"$REQUEST\" | switchback model look")]
pub(super) struct Look {}

impl Look {
    #[expect(clippy::unused_self, reason = "as every command")]
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(|error| Failure::usage(error.to_string()))?;
        end_with_stdin()?;
        look(&line).map_err(Failure::unreachable)
    }
}

/// For unit tests of options.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_over_what_the_route_says() {
        let mut criteria = Criteria::default();
        let asked = Asked { margin: Some(0.02), memory: Some("4GiB".to_owned()), time: Some("5m".to_owned()), ..Asked::default() };
        asked.over(&mut criteria).unwrap();
        assert_eq!(
            (criteria.margin, criteria.cost.memory_bytes, criteria.cost.time_ms, criteria.cost.cpu_s),
            (0.02, 4 << 30, 300_000, 300)
        );
        for (asked, expected) in [
            (Asked { margin: Some(2.0), ..Asked::default() }, "--margin 2: must be from 0 to 1"),
            (Asked { memory: Some("1MiB".to_owned()), ..Asked::default() }, "--memory 1MiB: must be a size from 256MiB"),
            (Asked { allowed_globals: vec!["x".to_owned()], ..Asked::default() }, "--allow-global \"x\": must be a Python name"),
        ] {
            assert!(asked.over(&mut criteria).unwrap_err().message().starts_with(expected));
        }
    }
}
