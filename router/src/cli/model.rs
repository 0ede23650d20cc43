//! `switchback model`: versions of models in the registry.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::model_alias::AliasArgs;
use super::model_gc::Gc;
use super::model_push::PushArgs;
use super::model_show::{compared, listed, models, shown};
use super::model_validate::{Look, ValidateArgs};
use super::registry_args::{Bar, RegistryArgs, failed};
use super::stopped::unless_stopped;
use super::{Failure, block_on, print, unwritten};
use crate::registry::{Found, Name, Reference, Registry, RegistryError, StoredReport, Which};
use crate::validation::Report;
use crate::vocabulary::one_line;

const AFTER_HELP: &str = "\
A version is a file and what is known of it. It gets the next number, and never changes. docs/REGISTRY.md has the layout, aliases and retention.

Examples:
  switchback model push ranker.onnx --model search --metric ndcg@10=0.743
  switchback model list search
  switchback model alias search champion 12
  switchback model pull search@champion --to ranker.onnx

Exit codes: 0 done, 2 refused (the message says why), 64 bad usage, config or credentials, 69 the registry was not reached.";

/// Versions of models in the registry: push, validate, list, show, diff, alias, verify, pull, gc.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    Push(Box<PushArgs>),
    List(List),
    Show(Show),
    Diff(Diff),
    Alias(AliasArgs),
    Verify(Verify),
    Pull(Pull),
    Gc(Gc),
    Validate(Box<ValidateArgs>),
    Look(Look),
}

/// List models, or the versions of one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchback model list\n  switchback model list search --json")]
struct List {
    /// The model.
    model: Option<Name>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Show everything that is known of a version.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchback model show search:12\n  switchback model show search@champion --json")]
struct Show {
    /// MODEL, MODEL:NUMBER or MODEL@ALIAS.
    version: Reference,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Show what is different in two versions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchback model diff search:11 search:12\n  switchback model diff search@champion search --json")]
struct Diff {
    /// MODEL, MODEL:NUMBER or MODEL@ALIAS.
    one: Reference,
    /// The same.
    other: Reference,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Read artefacts, and look whether they are what was pushed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  switchback model verify search:12\n  switchback model verify search --all")]
struct Verify {
    /// MODEL, MODEL:NUMBER or MODEL@ALIAS.
    version: Reference,
    /// Every version of the model.
    #[arg(long)]
    all: bool,
    /// It must be signed with this public key of Ed25519, in PEM, or one of those of --config; may be said again.
    #[arg(long = "trusted-key", value_name = "FILE")]
    trusted_keys: Vec<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Copy a version's file out of the registry.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  switchback model pull search:12\n  switchback model pull search@champion --to /srv/models/ranker.onnx"
)]
struct Pull {
    /// MODEL, MODEL:NUMBER or MODEL@ALIAS.
    version: Reference,
    /// Where to; - is standard output [default: the file's own name, here].
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// It must be signed with this public key of Ed25519, in PEM, or one of those of --config; may be said again.
    #[arg(long = "trusted-key", value_name = "FILE")]
    trusted_keys: Vec<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ModelArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            ModelCommand::Push(args) => args.run(),
            ModelCommand::List(args) => args.run(),
            ModelCommand::Show(args) => args.run(),
            ModelCommand::Diff(args) => args.run(),
            ModelCommand::Alias(args) => args.run(),
            ModelCommand::Verify(args) => args.run(),
            ModelCommand::Pull(args) => args.run(),
            ModelCommand::Gc(args) => args.run(),
            ModelCommand::Validate(args) => args.run(),
            ModelCommand::Look(args) => args.run(),
        }
    }
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let found = block_on(async {
            let registry = self.registry.open()?;
            let version = registry.version(&self.version).await.map_err(failed)?;
            let report = registry.newest_report(&version.manifest.model, version.manifest.version).await.map_err(failed)?;
            let mut shown = json!(version);
            if let (Some(fields), Some(stored)) = (shown.as_object_mut(), report) {
                fields.insert("report".to_owned(), about_report(&stored, &version.manifest.sha256));
            }
            Ok(shown)
        });
        let found = found.map_err(|failure| failure.in_json(self.json))?;
        print(&if self.json { format!("{found:#}\n") } else { shown(&found) })
    }
}

/// What the newest report on a version says, in short.
fn about_report(stored: &StoredReport, sha256: &str) -> Value {
    let number = stored.number;
    match Report::read(&stored.report) {
        Ok(report) => {
            let refused: Vec<&str> = report.refusals().map(|check| check.name.as_str()).collect();
            let is_of_it = report.sha256 == sha256;
            json!({ "number": number, "passed": report.passed && is_of_it, "refused": refused, "of_this_artefact": is_of_it, "who": report.who, "at_ms": report.at_ms })
        }
        Err(why) => json!({ "number": number, "passed": false, "unreadable": why }),
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let asked = block_on(async {
            let registry = self.registry.open()?;
            match &self.model {
                Some(model) => of_model(&registry, model).await,
                None => {
                    let mut all = Vec::new();
                    for model in registry.models_there().await.map_err(failed)? {
                        all.push(of_model(&registry, &model).await?);
                    }
                    Ok(json!({ "registry": registry.place(), "models": all }))
                }
            }
        });
        let asked = asked.map_err(|failure| failure.in_json(self.json))?;
        print(&match (self.json, &self.model) {
            (true, _) => format!("{asked:#}\n"),
            (false, Some(_)) => listed(&asked),
            (false, None) => models(&asked),
        })?;
        let all = asked.get("models").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![asked]);
        let broken: Vec<String> = all.iter().filter_map(|model| model.get("unreadable")).flat_map(texts).collect();
        if broken.is_empty() { Ok(()) } else { Err(Failure::refused(broken.join("\n"))) }
    }
}

async fn of_model(registry: &Registry, model: &Name) -> Result<Value, Failure> {
    let Found { versions, unreadable } = registry.versions_found(model).await.map_err(failed)?;
    let mut unreadable: Vec<String> = unreadable.iter().map(|(_, error)| error.to_string()).collect();
    let aliases = match registry.aliases(model).await {
        Err(error @ RegistryError::Object { .. }) => {
            unreadable.push(error.to_string());
            Vec::new()
        }
        aliases => aliases.map_err(failed)?,
    };
    if versions.is_empty() && unreadable.is_empty() {
        let which = Which::Newest;
        return Err(failed(
            registry
                .version(&Reference { model: model.clone(), which })
                .await
                .err()
                .unwrap_or_else(|| RegistryError::Busy { model: model.clone(), tries: 1 }),
        ));
    }
    let aliases: BTreeMap<String, Option<u64>> = aliases.into_iter().map(|(alias, last)| (alias.to_string(), last.version)).collect();
    Ok(json!({ "model": model, "versions": versions, "aliases": aliases, "unreadable": unreadable }))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

impl Diff {
    fn run(self) -> Result<(), Failure> {
        let both = block_on(async {
            let registry = self.registry.open()?;
            Ok([json!(registry.version(&self.one).await.map_err(failed)?), json!(registry.version(&self.other).await.map_err(failed)?)])
        });
        let [one, other] = both.map_err(|failure| failure.in_json(self.json))?;
        let (differences, table) = compared(&one, &other);
        print(&if self.json { format!("{differences:#}\n") } else { table })
    }
}

impl Verify {
    fn run(self) -> Result<(), Failure> {
        let bar = Bar::new("reading", self.json);
        let asked = block_on(async {
            let (registry, keys) = self.registry.open_trusting(&self.trusted_keys)?;
            let mut found = Vec::new();
            let versions = if self.all {
                let Found { versions, unreadable } = registry.versions_found(&self.version.model).await.map_err(failed)?;
                found.extend(unreadable.into_iter().map(|(number, error)| (number, String::new(), Some(error.to_string()))));
                versions
            } else {
                vec![registry.version(&self.version).await.map_err(failed)?]
            };
            for version in versions.iter().filter(|version| !self.all || version.removed.is_none()) {
                let verified = match version.check_signature(&keys) {
                    Ok(()) => registry.verify(version, &|progress| bar.show(progress)).await,
                    untrusted => untrusted,
                };
                match verified {
                    Err(error) if error.is_away() => return Err(failed(error)),
                    verified => found.push((
                        version.manifest.version,
                        version.manifest.sha256.clone(),
                        verified.err().map(|error| error.to_string()),
                    )),
                }
            }
            found.sort_by_key(|(number, _, _)| *number);
            Ok(found)
        });
        drop(bar);
        let found = asked.map_err(|failure| failure.in_json(self.json))?;
        let model = &self.version.model;
        let all: Vec<Value> =
            found.iter().map(|(version, sha256, error)| json!({ "version": version, "sha256": sha256, "error": error })).collect();
        let lines = found.iter().map(|(version, sha256, error)| match error {
            None => format!("{model}:{version}: as it was pushed, SHA-256 {sha256}\n"),
            Some(error) => format!("{model}:{version}: {error}\n"),
        });
        print(&match (self.json, found.is_empty()) {
            (true, _) => format!("{:#}\n", json!({ "model": model, "versions": all })),
            (false, true) => format!("nothing to verify: the registry has no version of {model} whose artefact is there\n"),
            (false, false) => lines.collect(),
        })?;
        let wrong = found.iter().filter(|(_, _, error)| error.is_some()).count();
        if wrong == 0 { Ok(()) } else { Err(Failure::refused(format!("{wrong} of {} versions are not what they should be", found.len()))) }
    }
}

impl Pull {
    fn run(self) -> Result<(), Failure> {
        let bar = Bar::new("pulling", self.json);
        let pulled = block_on(unless_stopped(async {
            let (registry, keys) = self.registry.open_trusting(&self.trusted_keys)?;
            let version = registry.version(&self.version).await.map_err(failed)?;
            version.check_signature(&keys).map_err(failed)?;
            let own = Path::new(&version.manifest.file).file_name().map(PathBuf::from);
            let to = self.to.clone().or(own).unwrap_or_else(|| PathBuf::from("model"));
            if to == Path::new("-") {
                let folder = tempfile::tempdir().map_err(|error| Failure::unreachable(format!("no temporary folder: {error}")))?;
                let file = folder.path().join("model");
                registry.pull(&version, &file, &|progress| bar.show(progress)).await.map_err(failed)?;
                return copy_out(&file).map(|()| None);
            }
            registry.pull(&version, &to, &|progress| bar.show(progress)).await.map_err(failed)?;
            Ok(Some((version, to)))
        }));
        drop(bar);
        let Some((version, to)) = pulled.map_err(|failure| failure.in_json(self.json))? else { return Ok(()) };
        let manifest = &version.manifest;
        print(&if self.json {
            format!("{:#}\n", json!({ "version": version, "file": to }))
        } else {
            let file = to.display().to_string();
            format!("{}:{} is in {}, SHA-256 {}\n", manifest.model, manifest.version, one_line(&file), manifest.sha256)
        })
    }
}

/// A file, to whoever reads what this command prints.
fn copy_out(file: &Path) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let copied = std::fs::File::open(file).and_then(|mut file| std::io::copy(&mut file, &mut stdout));
    copied.and_then(|_| stdout.flush()).map_err(|error| unwritten(&error))
}

/// Who this is: the user of this machine.
pub(super) fn who() -> String {
    ["SWITCHBACK_WHO", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|who| !who.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}
