//! `switchback model push --from-mlflow`: a version of MLflow's registry becomes one of ours.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use model_files::Malformed;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::failure::complain;
use super::registry_args::{Bar, failed};
use super::{Failure, free_text};
use crate::mlflow::{Artefact, Credentials, MlflowError, ModelUri, Tracking, Version, is_inside};
use crate::registry::{About, Format, Found, Name, Registry};
use crate::vocabulary::one_line;

/// So many names of what is left out are said.
const NAMED: usize = 5;
/// Said of what XGBoost's flavour writes where nobody says otherwise.
const UBJSON: &str = "UBJSON is not read here, and validation refuses it: log the model with model_format=\"json\"";
/// Said of what the ONNX flavour writes of larger models where nobody says otherwise.
const OTHER_FILES: &str = "validation refuses it: log the model with save_as_external_data=False";

/// Where a model of MLflow's is, and which of its files.
#[derive(Debug, Args, Default)]
pub(super) struct MlflowArgs {
    /// Push a version of MLflow's registry: models:/NAME@ALIAS or models:/NAME/VERSION. Its metrics, parameters and tags go with it.
    #[arg(long = "from-mlflow", value_name = "URI", conflicts_with = "file")]
    pub(super) from: Option<ModelUri>,
    /// The MLflow server; who we are to it is in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.
    #[arg(long = "mlflow-url", value_name = "URL", env = "MLFLOW_TRACKING_URI", hide_env_values = true)]
    url: Option<String>,
    /// The file of the model that is pushed [default: the one that its MLmodel names].
    #[arg(long = "mlflow-file", value_name = "PATH", requires = "from")]
    mlflow_file: Option<String>,
    /// Only say what would be pushed.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// A version of MLflow's, and which of its files is pushed.
pub(super) struct FromMlflow {
    tracking: Tracking,
    version: Version,
    asked: ModelUri,
    artefact: Artefact,
}

impl MlflowArgs {
    /// Asks the server what there is; no model is copied yet. `None` where nobody asked for one.
    ///
    /// # Errors
    /// There is none, it cannot be used, or the server is away.
    pub(super) async fn find(&self) -> Result<Option<FromMlflow>, Failure> {
        let Some(asked) = self.from.clone() else { return Ok(None) };
        let no_url = "--from-mlflow needs the server: --mlflow-url URL, or MLFLOW_TRACKING_URI";
        let url = self.url.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| Failure::usage(no_url))?;
        let credentials = Credentials::from_environment(|name| std::env::var(name).ok()).map_err(because)?;
        let tracking = Tracking::open(url, &credentials).map_err(because)?;
        let version = Version::find(&tracking, &asked).await.map_err(because)?;
        let artefact = self.artefact(&tracking, &version, &asked).await?;
        Ok(Some(FromMlflow { tracking, version, asked, artefact }))
    }

    async fn artefact(&self, tracking: &Tracking, version: &Version, asked: &ModelUri) -> Result<Artefact, Failure> {
        if let Some(path) = &self.mlflow_file {
            let rule = "must be a path inside the model, like model.onnx";
            let artefact = || Artefact { path: path.clone(), format: None, flavour: String::new() };
            return if is_inside(path) { Ok(artefact()) } else { Err(Failure::usage(format!("--mlflow-file {path:?}: {rule}"))) };
        }
        let model = version.mlmodel(tracking).await.map_err(because)?;
        let hint = "name it with --mlflow-file PATH";
        model.artefact().map_err(|why| Failure::refused(format!("MLmodel of {asked}: {why}; {hint}")))
    }
}

impl FromMlflow {
    /// What the model is called here, where nobody says.
    ///
    /// # Errors
    /// It cannot be called here as it is there.
    pub(super) fn model(&self, said: Option<&Name>) -> Result<Name, Failure> {
        let own = &self.asked.model;
        let wrong = |error: crate::registry::NameError| Failure::usage(format!("{error}; say what it is called here with --model NAME"));
        said.cloned().map_or_else(|| own.parse().map_err(wrong), Ok)
    }

    /// What it is; `None` where only its file can tell.
    pub(super) fn format(&self) -> Option<Format> {
        self.artefact.format
    }

    /// Copies the file into a new folder.
    ///
    /// # Errors
    /// It is larger than the registry takes, or the server is away.
    pub(super) async fn fetch(&self, most: u64, is_quiet: bool) -> Result<(TempDir, PathBuf), Failure> {
        let folder = tempfile::tempdir().map_err(|error| Failure::unreachable(format!("no temporary folder: {error}")))?;
        let name = self.artefact.path.rsplit('/').next().unwrap_or("model");
        let file = folder.path().join(name);
        let bar = Bar::new("fetching", is_quiet);
        let fetched = self.version.fetch(&self.tracking, &self.artefact.path, (&file, most), &|progress| bar.show(progress)).await;
        drop(bar);
        fetched.map_err(because)?;
        Ok((folder, file))
    }

    /// What MLflow says of it, under what whoever pushes says.
    pub(super) fn below(&self, said: About) -> About {
        let known = self.version.about.clone();
        let (mut metrics, mut tags) = (known.metrics, known.tags);
        metrics.extend(said.metrics);
        tags.extend(said.tags);
        let why = if said.why.is_empty() { known.why } else { said.why };
        About {
            parent: said.parent,
            training_data: said.training_data.or(known.training_data),
            code_revision: said.code_revision.or(known.code_revision),
            metrics,
            tags,
            why,
        }
    }

    /// Says what a manifest has no room for, and that a file by its name can never pass validation.
    pub(super) fn warn(&self, format: Option<Format>) {
        if let Some(names) = named(&self.version.left_out) {
            let count = self.version.left_out.len();
            let why = "they are no numbers, or a manifest has no room for them or their names";
            complain(&format!("switchback: {count} metrics, parameters and tags of {} are left out ({names}): {why}", self.asked));
        }
        if is_ubjson(&self.artefact.path, format) {
            self.warn_of_file(UBJSON);
        }
    }

    /// Says that its file has tensors in other files, which are not pushed.
    pub(super) fn warn_of_other_files(&self, fault: &Malformed) {
        self.warn_of_file(&format!("{fault}; {OTHER_FILES}"));
    }

    fn warn_of_file(&self, what: &str) {
        complain(&format!("switchback: warning: {}: {what}", self.file_label()));
    }

    /// `model.onnx of models:/search@champion`
    fn file_label(&self) -> String {
        format!("{} of {}", self.artefact.path, self.asked)
    }

    /// A failure that is about the copy of its file, by the name that the file has there: nobody knows the copy.
    pub(super) fn as_there(&self, failure: Failure, copy: &Path) -> Failure {
        failure.renamed(&copy.display().to_string(), &self.file_label())
    }

    /// What would be pushed.
    pub(super) fn would(&self, model: &Name, format: Option<Format>, about: &About) -> Value {
        json!({
            "model": model,
            "from": self.asked.to_string(),
            "mlflow_version": self.version.number,
            "mlflow_url": self.tracking.url(),
            "file": self.artefact.path,
            "flavour": self.artefact.flavour,
            "format": format.map(Format::label),
            "about": about,
            "left_out": self.version.left_out.len(),
        })
    }
}

/// The names of what is left out, as far as they are said; `None` where nothing is.
fn named(left_out: &[String]) -> Option<String> {
    let names: Vec<String> = left_out.iter().take(NAMED).map(|name| format!("{:?}", free_text::cut(name))).collect();
    let more = left_out.len() - names.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    (!names.is_empty()).then(|| format!("{}{more}", names.join(", ")))
}

/// Whether a file is XGBoost's in UBJSON, by its name; as something opaque it is its backend's business.
fn is_ubjson(path: &str, format: Option<Format>) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    extension.as_deref() == Some("ubj") && format != Some(Format::Opaque)
}

/// The version that is this file already: the newest of those whose artefact is there.
///
/// # Errors
/// The registry is away, or the file cannot be read.
pub(super) async fn already(registry: &Registry, model: &Name, file: &Path) -> Result<Option<u64>, Failure> {
    let sha256 = digest(file).map_err(|error| Failure::unreachable(format!("{}: {error}", file.display())))?;
    let Found { versions, .. } = registry.versions_found(model).await.map_err(failed)?;
    let is_it = |version: &&crate::registry::Version| version.removed.is_none() && version.manifest.sha256 == sha256;
    Ok(versions.iter().filter(is_it).map(|version| version.manifest.version).next_back())
}

fn digest(file: &Path) -> std::io::Result<String> {
    let (mut file, mut sha256, mut piece) = (std::fs::File::open(file)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut piece)?;
        match piece.get(..read) {
            Some(read) if !read.is_empty() => sha256.update(read),
            _ => return Ok(hex::encode(sha256.finalize())),
        }
    }
}

/// For people.
pub(super) fn would_table(would: &Value) -> String {
    let text = |value: &Value| one_line(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)).into_owned();
    let mut said = String::new();
    let found = |key: &str| would.get(key).filter(|value| !value.is_null()).map(text);
    let at = |key: &str| found(key).unwrap_or_else(|| "as its bytes say".to_owned());
    // Writing to a string cannot fail.
    let _ = writeln!(said, "would push {} to {}", at("from"), at("model"));
    if let Some(version) = found("mlflow_version") {
        let _ = writeln!(said, "  mlflow version  {version}");
    }
    for key in ["file", "format"] {
        let _ = writeln!(said, "  {key:<15} {}", at(key));
    }
    let about = would.get("about").and_then(Value::as_object);
    for (key, value) in about.into_iter().flatten() {
        for (name, value) in value.as_object().into_iter().flatten() {
            let _ = writeln!(said, "  {} {} {}", key.trim_end_matches('s'), one_line(name), text(value));
        }
        if !value.is_object() {
            let _ = writeln!(said, "  {:<15} {}", key.replace('_', " "), text(value));
        }
    }
    said
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn because(error: MlflowError) -> Failure {
    let message = Failure::chain(&error);
    match () {
        () if error.is_away() => Failure::unreachable(message),
        () if error.is_usage() => Failure::usage(message),
        () => Failure::refused(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_named() {
        let names = |names: &[&str]| named(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&[]), None);
        assert_eq!(names(&["loss"]).as_deref(), Some("\"loss\""));
        let long = "k".repeat(129);
        let all = names(&["a\nb", "", &long, "m1", "m2", "m3", "m4"]).unwrap();
        assert_eq!(all, format!(r#""a\nb", "", "{}...", "m1", "m2" and 2 more"#, "k".repeat(40)));
    }

    #[test]
    fn xgboosts_default_is_told_by_its_name() {
        assert!(is_ubjson("model.ubj", Some(Format::XgBoost)) && is_ubjson("data/model.UBJ", None));
        assert!(!is_ubjson("model.json", Some(Format::XgBoost)) && !is_ubjson("ubj", None));
        assert!(!is_ubjson("model.ubj", Some(Format::Opaque)));
    }

    #[test]
    fn what_would_be_pushed_is_shown_a_line_for_each_thing() {
        let about = json!({ "tags": { "zz": "ok\nwould push y to z", "a\u{202e}b": "1" }, "why": "one\ntwo" });
        let would = json!({ "from": "models:/search@champion", "model": "search", "file": "model.onnx", "format": "onnx", "about": about });
        let said = would_table(&would);
        assert!(said.lines().count() == 6 && said.contains("  tag zz ok\\nwould push y to z\n"), "{said}");
        assert!(said.contains("  tag a\\u202eb 1\n") && said.contains("one\\ntwo\n"), "{said}");
    }
}
