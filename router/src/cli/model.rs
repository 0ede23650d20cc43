//! `switchback model`: versions of models in the registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::model_alias::AliasArgs;
use super::model_gc::Gc;
use super::model_show::{compared, listed, models, shown};
use super::model_validate::{Look, ValidateArgs};
use super::registry_args::{Bar, RegistryArgs, failed};
use super::{Failure, block_on, print};
use crate::flags::random_hex;
use crate::registry::{
    About, AliasMove, Expected, Format, Found, Name, Push, Reference, Registry, RegistryError, SigningKey, Tensor, TrustedKey, Which,
    format_of,
};

/// A larger file is not looked into when it is pushed.
const READ_AT_MOST: u64 = 256 << 20;

const AFTER_HELP: &str = "\
A version is a file and what is known of it. It gets the next number, and never changes. docs/REGISTRY.md has the layout, aliases and retention.

Examples:
  switchback model push ranker.onnx --model search --metric ndcg@10=0.743
  switchback model list search
  switchback model alias search champion 12
  switchback model pull search@champion --to ranker.onnx

Exit codes: 0 done, 2 refused (the message says why), 64 bad usage or config, 69 the registry was not reached.";

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

/// Push a file as the next version of a model.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  switchback model push ranker.onnx --model search\n  switchback model push ranker.onnx --model search --parent 11 --training-data sha256:5f1c... --code-revision 9b2e1c4 --metric ndcg@10=0.743 --tag night=2026-08-01 --alias candidate"
)]
struct PushArgs {
    /// The artefact.
    file: PathBuf,
    /// The model's name.
    #[arg(long, value_name = "NAME")]
    model: Name,
    /// onnx, pickle, lightgbm, xgboost or opaque [default: as the file's name and first bytes say].
    #[arg(long)]
    format: Option<Format>,
    /// The version that it was made from.
    #[arg(long, value_name = "N")]
    parent: Option<u64>,
    /// What it was trained on: a digest, or where it is.
    #[arg(long, value_name = "TEXT")]
    training_data: Option<String>,
    /// The revision of the code that trained it.
    #[arg(long, value_name = "TEXT")]
    code_revision: Option<String>,
    /// A number from training, like ndcg@10=0.743; may be said again.
    #[arg(long = "metric", value_name = "NAME=NUMBER")]
    metrics: Vec<String>,
    /// Whatever else there is to say, like night=2026-08-01; may be said again.
    #[arg(long = "tag", value_name = "NAME=TEXT")]
    tags: Vec<String>,
    /// Why there is this version.
    #[arg(long, default_value = "")]
    why: String,
    /// Sign it with this private key of Ed25519, in PEM (openssl genpkey -algorithm ed25519).
    #[arg(long, value_name = "FILE", env = "SWITCHBACK_SIGN_KEY")]
    sign_key: Option<PathBuf>,
    /// Move this alias to it when it is there; may be said again.
    #[arg(long = "alias", value_name = "ALIAS")]
    aliases: Vec<Name>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
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
    /// It must be signed with this public key of Ed25519, in PEM; may be said again.
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
            ModelCommand::Show(Show { version, registry, json }) => {
                let found = block_on(async { registry.open()?.version(&version).await.map_err(failed) });
                let found = json!(found.map_err(|failure| failure.in_json(json))?);
                print(&if json { format!("{found:#}\n") } else { shown(&found) })
            }
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

impl PushArgs {
    fn run(self) -> Result<(), Failure> {
        let json = self.json;
        let pushed = self.push().map_err(|failure| failure.in_json(json))?;
        print(&if json { format!("{pushed:#}\n") } else { shown(&pushed) })
    }

    fn push(self) -> Result<Value, Failure> {
        let format = format(self.format, &self.file)?;
        let about = About {
            parent: self.parent,
            training_data: self.training_data,
            code_revision: self.code_revision,
            metrics: metrics(&self.metrics)?,
            tags: pairs("--tag", &self.tags)?.into_iter().collect(),
            why: self.why,
        };
        let who = who();
        let (inputs, outputs) = tensors(format, &self.file);
        let push = Push {
            model: self.model.clone(),
            file: self.file,
            format,
            inputs,
            outputs,
            about,
            who: who.clone(),
            clock: crate::admin::now_unix_ms,
            id: random_hex(16),
            key: self.sign_key.as_deref().map(SigningKey::read).transpose().map_err(failed)?.map(Arc::new),
            notes: notes(),
        };
        let bar = Bar::new("pushing", self.json);
        block_on(async {
            let registry = self.registry.open_or_make()?;
            let manifest = registry.push(push, &|progress| bar.show(progress)).await.map_err(failed)?;
            for alias in &self.aliases {
                let to =
                    AliasMove::to(Some(manifest.version), who.clone(), "pushed".to_owned(), crate::admin::now_unix_ms(), random_hex(16));
                registry.move_alias(&self.model, alias, to, Expected::Anywhere).await.map_err(failed)?;
            }
            let which = Which::Number(manifest.version);
            Ok(json!(registry.version(&Reference { model: self.model.clone(), which }).await.map_err(failed)?))
        })
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
        let keys = self.trusted_keys.iter().map(|path| TrustedKey::read(path)).collect::<Result<Vec<_>, _>>();
        let keys = keys.map_err(failed).map_err(|failure| failure.in_json(self.json))?;
        let asked = block_on(async {
            let registry = self.registry.open()?;
            let mut found = Vec::new();
            let versions = if self.all {
                let Found { versions, unreadable } = registry.versions_found(&self.version.model).await.map_err(failed)?;
                found.extend(unreadable.into_iter().map(|(number, error)| (number, String::new(), Some(error.to_string()))));
                versions
            } else {
                vec![registry.version(&self.version).await.map_err(failed)?]
            };
            for version in versions.iter().filter(|version| !self.all || version.removed.is_none()) {
                let verified = match if keys.is_empty() { Ok(()) } else { version.check_signature(&keys) } {
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
        print(&if self.json { format!("{:#}\n", json!({ "model": model, "versions": all })) } else { lines.collect() })?;
        let wrong = found.iter().filter(|(_, _, error)| error.is_some()).count();
        if wrong == 0 { Ok(()) } else { Err(Failure::refused(format!("{wrong} of {} versions are not what they should be", found.len()))) }
    }
}

impl Pull {
    fn run(self) -> Result<(), Failure> {
        let bar = Bar::new("pulling", self.json);
        let pulled = block_on(async {
            let registry = self.registry.open()?;
            let version = registry.version(&self.version).await.map_err(failed)?;
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
        });
        drop(bar);
        let Some((version, to)) = pulled.map_err(|failure| failure.in_json(self.json))? else { return Ok(()) };
        let manifest = &version.manifest;
        print(&if self.json {
            format!("{:#}\n", json!({ "version": version, "file": to }))
        } else {
            format!("{}:{} is in {}, SHA-256 {}\n", manifest.model, manifest.version, to.display(), manifest.sha256)
        })
    }
}

/// What a file is: as somebody says, or as it looks.
pub(super) fn format(said: Option<Format>, file: &Path) -> Result<Format, Failure> {
    let cannot_tell =
        "what it is cannot be told: say --format onnx, pickle, lightgbm or xgboost; or --format opaque, for what only its backend can read";
    match said {
        Some(format) => Ok(format),
        None => format_of(file).map_err(failed)?.ok_or_else(|| Failure::usage(format!("{}: {cannot_tell}", file.display()))),
    }
}

/// What goes in and out of a model, where its file says so without being run.
fn tensors(format: Format, file: &Path) -> (Vec<Tensor>, Vec<Tensor>) {
    if format != Format::Onnx || std::fs::metadata(file).map_or(true, |file| file.len() > READ_AT_MOST) {
        return (Vec::new(), Vec::new());
    }
    let limits = model_files::Limits::default();
    let read = |bytes: Vec<u8>| model_files::onnx::read(&bytes, &limits, &model_files::onnx::Opsets::ONNX_RUNTIME_1_32).ok();
    let Some(shape) = std::fs::read(file).ok().and_then(read) else { return (Vec::new(), Vec::new()) };
    let tensors = |all: Vec<model_files::onnx::TensorShape>| {
        let tensor =
            |one: model_files::onnx::TensorShape| Tensor { name: one.name, element: one.element, shape: one.shape.unwrap_or_default() };
        all.into_iter().map(tensor).collect()
    };
    (tensors(shape.inputs), tensors(shape.outputs))
}

/// A file, to whoever reads what this command prints.
fn copy_out(file: &Path) -> Result<(), Failure> {
    let copied = std::fs::File::open(file).and_then(|mut file| std::io::copy(&mut file, &mut std::io::stdout().lock()));
    copied.map(drop).map_err(|error| Failure::unreachable(format!("stdout: {error}")))
}

fn pairs(option: &str, texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| {
        let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = parts.ok_or_else(|| Failure::usage(format!("{option} {text:?}: must be NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}

fn metrics(texts: &[String]) -> Result<BTreeMap<String, f64>, Failure> {
    let number = |(name, text): (String, String)| {
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.map(|number| (name.clone(), number)).ok_or_else(|| Failure::usage(format!("--metric {name}={text}: must be a number")))
    };
    pairs("--metric", texts)?.into_iter().map(number).collect()
}

/// Who this is: the user of this machine.
pub(super) fn who() -> String {
    ["SWITCHBACK_WHO", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|who| !who.is_empty()))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Where uploads are noted that were broken off.
fn notes() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("switchback/uploads"))
}
