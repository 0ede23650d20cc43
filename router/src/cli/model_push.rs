//! `switchback model push`, and what is said of a file that is pushed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use model_files::Malformed;
use model_files::onnx::{OTHER_FILE, OnnxShape, Opsets, TensorShape};
use serde_json::{Value, json};

use super::failure::complain;
use super::model::who;
use super::model_alias::moved_line;
use super::model_mlflow::{FromMlflow, MlflowArgs, already, would_table};
use super::model_show::shown;
use super::registry_args::{Bar, RegistryArgs, failed};
use super::stopped::unless_stopped;
use super::validating::named;
use super::{Failure, block_on, free_text, print};
use crate::flags::random_hex;
use crate::registry::{
    About, AliasMove, Expected, Format, Name, NameError, Push, Reference, Registry, RegistryError, SigningKey, Tensor, Version, Which,
    format_of,
};

/// So many of a model's newest versions are looked at before another one is pushed.
const LOOKED_AT: usize = 50;
/// A larger file is not looked into when it is pushed: nothing that is pushed takes more memory than this and a few parts.
const READ_AT_MOST: u64 = 64 << 20;

/// Push a file as the next version of a model.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  switchback model push ranker.onnx --model search\n  switchback model push ranker.onnx --model search --parent 11 --training-data sha256:5f1c... --code-revision 9b2e1c4 --metric ndcg@10=0.743 --tag night=2026-08-01 --alias candidate\n  switchback model push --from-mlflow models:/search@champion --mlflow-url http://mlflow.example.org:5000 --dry-run"
)]
pub(super) struct PushArgs {
    /// The artefact.
    #[arg(required_unless_present = "from")]
    file: Option<PathBuf>,
    /// The model's name [default: as MLflow calls it, with --from-mlflow].
    #[arg(long, value_name = "NAME", required_unless_present = "from")]
    model: Option<Name>,
    #[command(flatten)]
    mlflow: MlflowArgs,
    #[command(flatten)]
    described: Described,
    /// Why there is this version.
    #[arg(long, default_value = "")]
    why: String,
    /// Move this alias to it when it is there; may be said again.
    #[arg(long = "alias", value_name = "ALIAS", value_parser = alias)]
    aliases: Vec<Name>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is said of a file that is pushed, and with which key.
#[derive(Debug, Args, Default)]
pub(super) struct Described {
    /// onnx, pickle, lightgbm, xgboost or opaque [default: as the file's name and first bytes say].
    #[arg(long)]
    pub(super) format: Option<Format>,
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
    /// Sign it with this private key of Ed25519, in PEM (openssl genpkey -algorithm ed25519).
    #[arg(long, value_name = "FILE", env = "SWITCHBACK_SIGN_KEY")]
    sign_key: Option<PathBuf>,
}

impl PushArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let json = self.json;
        let Done { version: mut pushed, already, moves } =
            block_on(unless_stopped(self.push())).map_err(|failure| failure.in_json(json))?;
        if let (Some(fields), false) = (pushed.as_object_mut(), moves.is_empty()) {
            let all: Vec<Value> = moves.iter().map(|moved| json!({ "alias": moved.alias, "moved": moved.moved })).collect();
            fields.insert("moves".to_owned(), all.into());
        }
        let table = if self.mlflow.dry_run { would_table } else { shown };
        let lines = || moves.iter().map(|moved| moved_line((&moved.model, &moved.alias), &moved.moved, &moved.own)).collect::<String>();
        print(&if json { format!("{pushed:#}\n") } else { format!("{}{}{}", table(&pushed), already.unwrap_or_default(), lines()) })
    }

    async fn push(&self) -> Result<Done, Failure> {
        let found = self.mlflow.find().await?;
        if let Some(found) = &found {
            return self.push_from_mlflow(found).await;
        }
        // Both are there without an MLflow: the command line sees to that.
        let (Some(model), Some(file)) = (&self.model, &self.file) else { return Err(Failure::usage("a file and --model are needed")) };
        let push = self.described.push(model, file, &self.why)?;
        if self.mlflow.dry_run {
            let (about, name) = (json!(push.about), file.file_name().map(std::ffi::OsStr::to_string_lossy));
            let would = json!({ "from": file, "model": model, "file": name, "format": push.format, "about": about });
            return Ok(Done::would(would));
        }
        let registry = self.registry.open_or_make()?;
        warn_of_unreadable(&registry, model).await?;
        let version = pushed(&registry, push, self.json).await?;
        let moves = self.move_aliases(&registry, model, version.manifest.version).await?;
        Ok(Done::pushed(&version, true, moves))
    }

    /// The same file is not pushed twice: whoever asks for it again, as a webhook that is delivered twice does, gets the version that there is.
    async fn push_from_mlflow(&self, found: &FromMlflow) -> Result<Done, Failure> {
        let model = found.model(self.model.as_ref())?;
        let format = self.described.format.or(found.format());
        found.warn(format);
        if self.mlflow.dry_run {
            return Ok(Done::would(found.would(&model, format, &found.below(self.described.about(&self.why)?))));
        }
        let registry = self.registry.open_or_make()?;
        warn_of_unreadable(&registry, &model).await?;
        let (folder, file) = found.fetch(registry.artefact_bytes(), self.json).await?;
        let copied = self.push_copy(&registry, &model, (format, &file), found).await;
        drop(folder);
        let (version, is_new) = copied.map_err(|failure| found.as_there(failure, &file))?;
        let moves = self.move_aliases(&registry, &model, version.manifest.version).await?;
        Ok(Done::pushed(&version, is_new, moves))
    }

    /// The version that the copy of a file is already, or a new one; and whether it is new.
    async fn push_copy(
        &self,
        registry: &Registry,
        model: &Name,
        (format, file): (Option<Format>, &Path),
        found: &FromMlflow,
    ) -> Result<(Version, bool), Failure> {
        if let Some(number) = already(registry, model, file).await? {
            let which = Which::Number(number);
            return Ok((registry.version(&Reference { model: model.clone(), which }).await.map_err(failed)?, false));
        }
        let mut push = self.described.push_as(format, model, file, &self.why)?;
        if push.format == Format::Onnx
            && let Some(fault) = other_files(file)
        {
            found.warn_of_other_files(&fault);
        }
        push.about = found.below(push.about);
        Ok((pushed(registry, push, self.json).await?, true))
    }

    async fn move_aliases(&self, registry: &Registry, model: &Name, version: u64) -> Result<Vec<Moved>, Failure> {
        let mut moves = Vec::new();
        for alias in &self.aliases {
            let to = AliasMove::to(Some(version), who(), "pushed".to_owned(), crate::admin::now_unix_ms(), random_hex(16));
            let own = to.id.clone();
            let moved = registry.move_alias(model, alias, to, Expected::Anywhere).await.map_err(failed)?;
            moves.push(Moved { model: model.clone(), alias: alias.clone(), moved, own });
        }
        Ok(moves)
    }
}

/// What came of it.
struct Done {
    /// The version, or what would be pushed.
    version: Value,
    /// Said where the file was there already.
    already: Option<String>,
    /// How aliases were moved to it.
    moves: Vec<Moved>,
}

impl Done {
    fn would(version: Value) -> Done {
        Done { version, already: None, moves: Vec::new() }
    }

    fn pushed(version: &Version, is_new: bool, moves: Vec<Moved>) -> Done {
        let already = (!is_new).then(|| format!("nothing was pushed: {} is this file already\n", named(version)));
        let mut version = json!(version);
        if let Some(fields) = version.as_object_mut() {
            fields.insert("pushed".to_owned(), is_new.into());
        }
        Done { version, already, moves }
    }
}

/// An alias that was moved to what was pushed.
struct Moved {
    model: Name,
    alias: Name,
    /// Its last move.
    moved: AliasMove,
    /// The id of ours.
    own: String,
}

/// An alias that may be moved to a version.
fn alias(text: &str) -> Result<Name, NameError> {
    let alias: Name = text.parse()?;
    alias.check_as_alias().map(|()| alias)
}

/// Says which of the model's versions nobody can read. That is no reason not to push another one.
async fn warn_of_unreadable(registry: &Registry, model: &Name) -> Result<(), Failure> {
    for error in registry.unreadable(model, LOOKED_AT).await.map_err(failed)? {
        complain(&format!("switchback: {}", unreadable(&error)));
    }
    Ok(())
}

/// The warning of a version that nobody can read.
pub(super) fn unreadable(error: &RegistryError) -> String {
    format!("warning: {error}; nobody can deploy or go back to that version: push its file anew")
}

/// Pushes, with a bar on a terminal; the version that came of it.
///
/// # Errors
/// As [`Registry::push`].
pub(super) async fn pushed(registry: &Registry, push: Push, is_quiet: bool) -> Result<Version, Failure> {
    let (bar, model) = (Bar::new("pushing", is_quiet), push.model.clone());
    let manifest = registry.push(push, &|progress| bar.show(progress)).await.map_err(failed)?;
    drop(bar);
    registry.version(&Reference { model, which: Which::Number(manifest.version) }).await.map_err(failed)
}

impl Described {
    /// A push of this file, when all that is said of it makes sense.
    ///
    /// # Errors
    /// What makes none.
    pub(super) fn push(&self, model: &Name, file: &Path, why: &str) -> Result<Push, Failure> {
        self.push_as(self.format, model, file, why)
    }

    /// What is said of it beside its file.
    ///
    /// # Errors
    /// What makes no sense.
    fn about(&self, why: &str) -> Result<About, Failure> {
        let texts =
            [("--why", Some(why)), ("--training-data", self.training_data.as_deref()), ("--code-revision", self.code_revision.as_deref())];
        texts.into_iter().try_for_each(|(option, text)| free_text::check(option, text.unwrap_or_default()))?;
        Ok(About {
            parent: self.parent,
            training_data: self.training_data.clone(),
            code_revision: self.code_revision.clone(),
            metrics: metrics(&self.metrics)?,
            tags: pairs("--tag", &self.tags)?.into_iter().collect(),
            why: why.to_owned(),
        })
    }

    /// An option that makes sense for a file alone, where one is said.
    pub(super) fn said(&self) -> Option<&'static str> {
        let said = [
            ("--format", self.format.is_some()),
            ("--parent", self.parent.is_some()),
            ("--training-data", self.training_data.is_some()),
            ("--code-revision", self.code_revision.is_some()),
            ("--metric", !self.metrics.is_empty()),
            ("--tag", !self.tags.is_empty()),
        ];
        said.into_iter().find(|(_, is_said)| *is_said).map(|(option, _)| option)
    }

    fn push_as(&self, known: Option<Format>, model: &Name, file: &Path, why: &str) -> Result<Push, Failure> {
        free_text::check_file(file)?;
        if regular(file)? == 0 {
            return Err(Failure::usage(format!("{}: it is empty", file.display())));
        }
        let format = format(known, file)?;
        let about = self.about(why)?;
        let (inputs, outputs) = tensors(format, file);
        Ok(Push {
            model: model.clone(),
            file: file.to_owned(),
            format,
            inputs,
            outputs,
            about,
            who: who(),
            clock: crate::admin::now_unix_ms,
            id: random_hex(16),
            key: self.key()?.map(Arc::new),
            notes: notes(),
        })
    }

    /// The key that signs.
    ///
    /// # Errors
    /// A file that is none.
    pub(super) fn key(&self) -> Result<Option<SigningKey>, Failure> {
        self.sign_key.iter().try_for_each(|file| regular(file).map(drop))?;
        self.sign_key.as_deref().map(SigningKey::read).transpose().map_err(failed)
    }
}

/// How many bytes a file has. Whatever is none, a pipe or a device, might never end.
///
/// # Errors
/// It is not there, or is none.
pub(super) fn regular(file: &Path) -> Result<u64, Failure> {
    let found = std::fs::metadata(file).map_err(|error| Failure::usage(format!("{}: cannot read it: {error}", file.display())))?;
    if found.is_file() { Ok(found.len()) } else { Err(Failure::usage(format!("{}: must be a regular file", file.display()))) }
}

/// What a file is: as somebody says, or as it looks.
pub(super) fn format(said: Option<Format>, file: &Path) -> Result<Format, Failure> {
    let cannot_tell =
        "what it is cannot be told: say --format onnx, pickle, lightgbm or xgboost; or --format opaque, for what only its backend can read";
    regular(file)?;
    match said {
        Some(format) => Ok(format),
        None => format_of(file).map_err(failed)?.ok_or_else(|| Failure::usage(format!("{}: {cannot_tell}", file.display()))),
    }
}

/// What an ONNX file says of itself; `None` where it is not looked into.
fn onnx(file: &Path) -> Option<Result<OnnxShape, Malformed>> {
    std::fs::metadata(file).ok().filter(|file| file.len() <= READ_AT_MOST)?;
    let bytes = std::fs::read(file).ok()?;
    Some(model_files::onnx::read(&bytes, &model_files::Limits::default(), &Opsets::ONNX_RUNTIME_1_32))
}

/// What is wrong with an ONNX file of which tensors are in other files.
fn other_files(file: &Path) -> Option<Malformed> {
    onnx(file)?.err().filter(|fault| fault.what.starts_with(OTHER_FILE))
}

/// What goes in and out of a model, where its file says so without being run.
fn tensors(format: Format, file: &Path) -> (Vec<Tensor>, Vec<Tensor>) {
    if format != Format::Onnx {
        return (Vec::new(), Vec::new());
    }
    let Some(Ok(shape)) = onnx(file) else { return (Vec::new(), Vec::new()) };
    let tensors = |all: Vec<TensorShape>| {
        let tensor = |one: TensorShape| Tensor { name: one.name, element: one.element, shape: one.shape.unwrap_or_default() };
        all.into_iter().map(tensor).collect()
    };
    (tensors(shape.inputs), tensors(shape.outputs))
}

fn pairs(option: &str, texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut names = BTreeSet::new();
    let pair = |text: &String| {
        free_text::check(option, text)?;
        let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = parts.ok_or_else(|| Failure::usage(format!("{option} {}: must be NAME=VALUE", free_text::cut(text))))?;
        if value.is_empty() {
            return Err(Failure::usage(format!("{option} {}: there is nothing after the =; must be NAME=VALUE", free_text::cut(text))));
        }
        if !names.insert(name.to_owned()) {
            return Err(Failure::usage(format!("{option} {}: it is given twice", free_text::cut(name))));
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}

fn metrics(texts: &[String]) -> Result<BTreeMap<String, f64>, Failure> {
    let number = |(name, text): (String, String)| {
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        let said = || free_text::cut(&format!("{name}={text}"));
        number.map(|number| (name.clone(), number)).ok_or_else(|| Failure::usage(format!("--metric {}: must be a number", said())))
    };
    pairs("--metric", texts)?.into_iter().map(number).collect()
}

/// Where uploads are noted that were broken off.
fn notes() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("switchback/uploads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_onnx_file_with_tensors_elsewhere_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.onnx");
        // IR 8, opset 15, and a graph with the initializer w, whose data is in w.bin.
        let tensor = b"\x08\x01\x10\x01\x42\x01w\x6a\x11\x0a\x08location\x12\x05w.bin\x70\x01";
        std::fs::write(&file, [b"\x08\x08\x42\x02\x10\x0f\x3a\x1e\x2a\x1c".as_slice(), tensor].concat()).unwrap();
        let fault = other_files(&file).unwrap().to_string();
        assert!(fault.contains("tensor \"w\": its data is in another file, \"w.bin\""), "{fault}");
        std::fs::write(&file, b"a model").unwrap();
        assert_eq!((other_files(&file), tensors(Format::Onnx, &file)), (None, (Vec::new(), Vec::new())));
    }
}
