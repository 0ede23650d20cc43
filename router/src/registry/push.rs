//! A new version: its artefact first, which nobody sees, and then its manifest, at the first number that is free.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::path::Path;

use super::Progress;
use super::error::RegistryError;
use super::manifest::{About, FORM, Format, MANIFEST_BYTES, Manifest, ManifestFault, Sealed, Tensor};
use super::names::Name;
use super::open::{Registry, after};
use super::sign::SigningKey;
use super::upload::{Notes, Source};
use crate::config::Place;

/// So many others may be first.
const TRIES: u32 = 1_000;

/// What is pushed.
#[derive(Clone)]
pub struct Push {
    /// The model.
    pub model: Name,
    /// The artefact.
    pub file: PathBuf,
    /// What it is.
    pub format: Format,
    /// What goes in; empty where nobody knows.
    pub inputs: Vec<Tensor>,
    /// What comes out.
    pub outputs: Vec<Tensor>,
    /// What its author says.
    pub about: About,
    /// Who pushes.
    pub who: String,
    /// Tells the time, in milliseconds since 1970.
    pub clock: fn() -> u64,
    /// 32 random hex digits.
    pub id: String,
    /// Signs the manifest.
    pub key: Option<Arc<SigningKey>>,
    /// Where uploads are noted that were broken off; without, each begins anew.
    pub notes: Option<PathBuf>,
}

impl Registry {
    /// Pushes a version. When this returns it is there, whole, for everybody; when it fails there is nothing of it that anybody sees.
    ///
    /// # Errors
    /// [`RegistryError`], [`RegistryError::NoParent`] before anything is sent; a push of the same file to the same model goes on with what is there.
    pub async fn push(&self, push: Push, progress: &(dyn Fn(Progress) + Sync)) -> Result<Manifest, RegistryError> {
        let source = Source::open(&push.file, self.config.artefact_bytes)?;
        let file = push.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut manifest = Manifest {
            form: FORM,
            push: push.id.clone(),
            model: push.model.clone(),
            version: 1,
            format: push.format,
            file,
            sha256: "0".repeat(64),
            bytes: source.bytes,
            inputs: push.inputs.clone(),
            outputs: push.outputs.clone(),
            about: push.about.clone(),
            who: push.who.clone(),
            pushed_ms: (push.clock)(),
        };
        // Before anything is sent.
        manifest.check()?;
        let key = push.key.as_deref();
        let bytes = Manifest { version: u64::MAX, ..manifest.clone() }.render(key).len();
        if bytes > MANIFEST_BYTES {
            let what = format!("metrics, tags and texts: {bytes} bytes together; {MANIFEST_BYTES} at most are allowed");
            return Err(RegistryError::Manifest(ManifestFault(what)));
        }
        let numbers = self.numbers(&push.model).await?;
        after(numbers.last().copied(), |number| self.path(&push.model, &format!("versions/{number}")))?;
        check_parent(&push, &numbers)?;
        let notes = notes(&push, &self.place(), &source);
        // An upload that goes on is that of the push before.
        if let Some(id) = notes.path().and_then(|path| path.rsplit_once('/').map(|(_, id)| id.to_owned())) {
            manifest.push = id;
        }
        let artefact = self.path(&push.model, &format!("artefacts/{}", manifest.push));
        let sent = match self.send(&artefact, source, &notes, progress).await {
            Ok(sent) => sent,
            Err(error) => {
                self.remove_parts(&artefact);
                return Err(error);
            }
        };
        (manifest.sha256, manifest.bytes) = (sent.sha256, sent.bytes);
        let id = manifest.push.clone();
        match self.number(manifest, push.clock, key).await {
            Err(error) => {
                self.withdraw(&push.model, &id, &artefact).await;
                Err(error)
            }
            numbered => numbered,
        }
    }

    /// Removes an artefact that got no number, from a folder: a bucket goes on with it. It stays where that cannot be told for sure.
    async fn withdraw(&self, model: &Name, push: &str, artefact: &Path) {
        if matches!(self.config.place, Place::Folder(_))
            && let Ok(versions) = self.versions(model).await
            && versions.iter().all(|version| version.manifest.push != push)
        {
            // Retention finds it later.
            let _ = self.delete(artefact).await;
        }
    }

    /// Creates the manifest at the first number that nobody has.
    async fn number(&self, mut manifest: Manifest, clock: fn() -> u64, key: Option<&SigningKey>) -> Result<Manifest, RegistryError> {
        let last = self.numbers(&manifest.model).await?.last().copied();
        manifest.version = after(last, |number| self.path(&manifest.model, &format!("versions/{number}")))?;
        for _ in 0..TRIES {
            manifest.pushed_ms = clock();
            let path = self.path(&manifest.model, &format!("versions/{}/manifest.json", manifest.version));
            if self.create(&path, manifest.render(key)).await? {
                return Ok(manifest);
            }
            // Somebody has it; or we do, and the answer to it was lost.
            let there = self.small(&path).await?.and_then(|text| Sealed::read(&text).ok());
            if there.is_some_and(|there| there.manifest.push == manifest.push) {
                return Ok(manifest);
            }
            manifest.version = manifest.version.saturating_add(1);
        }
        Err(RegistryError::Busy { model: manifest.model, tries: TRIES })
    }
}

/// A version is made from one that is there, or was.
fn check_parent(push: &Push, numbers: &[u64]) -> Result<(), RegistryError> {
    let Some(parent) = push.about.parent.filter(|parent| !numbers.contains(parent)) else { return Ok(()) };
    let hint = match (numbers.first(), numbers.last()) {
        (Some(first), Some(last)) if first == last => format!("; it has the version {first}"),
        (Some(first), Some(last)) => format!("; it has the versions {first} to {last}"),
        _ => "; it has none".to_owned(),
    };
    Err(RegistryError::NoParent { model: push.model.clone(), parent, hint })
}

fn notes(push: &Push, place: &str, source: &Source) -> Notes {
    let file = std::fs::canonicalize(&push.file).unwrap_or_else(|_| push.file.clone());
    let bytes = source.bytes.to_string();
    Notes::of(push.notes.as_deref().map(FilePath::new), &[place, push.model.as_str(), &file.to_string_lossy(), &bytes])
}
