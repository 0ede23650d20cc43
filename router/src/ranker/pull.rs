//! Versions from Switchback's registry: manifests, which are read once, and artefacts, checked by their SHA-256.
//!
//! Everything here blocks: digests are worked out on the thread that waits, and the event loop only moves bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::cache::Cache;
use super::repository::Unread;
use crate::onnx::Source;
use crate::registry::{Format, Manifest, Name, Reference, Registry, RegistryError, TrustedKey, Version, Which, chain};

/// Manifests that are read at the same time.
const AT_ONCE: usize = 16;

/// A registry that versions are served from.
#[derive(Debug, Clone)]
pub struct FromRegistry {
    /// It, open.
    pub registry: Registry,
    /// One of these has to vouch for a version. Empty: nobody has to.
    pub trusted_keys: Vec<TrustedKey>,
    /// A folder for artefacts. `None`: each is read again whenever it is loaded.
    pub cache: Option<PathBuf>,
}

/// What the registry has, as the ranker sees it.
#[derive(Debug)]
pub(super) struct Pulls {
    registry: Registry,
    trusted_keys: Vec<TrustedKey>,
    cache: Option<Cache>,
    bytes_at_most: u64,
    runtime: Handle,
    ends: watch::Receiver<bool>,
    /// Manifests that were read: they never change.
    known: Mutex<BTreeMap<(Name, u64), Arc<Version>>>,
}

/// Versions of one model.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) versions: BTreeMap<u64, Arc<Version>>,
    /// That cannot be served, and why.
    pub(super) unfit: BTreeMap<u64, String>,
}

impl Pulls {
    /// Call it on the ranker's runtime. `ends` turns true when the ranker is about to end.
    pub(super) fn new(from: FromRegistry, bytes_at_most: u64, ends: watch::Receiver<bool>) -> Result<Pulls, String> {
        let FromRegistry { registry, trusted_keys, cache } = from;
        let cache = cache.map(|folder| Cache::open(folder, bytes_at_most)).transpose()?;
        Ok(Pulls { registry, trusted_keys, cache, bytes_at_most, runtime: Handle::current(), ends, known: Mutex::default() })
    }

    /// Where it is, as a URL.
    pub(super) fn place(&self) -> String {
        self.registry.place()
    }

    /// The versions of a model whose artefacts are there; where all of `wanted` are, only those are looked at. Blocks.
    ///
    /// # Errors
    /// Why the registry did not answer.
    pub(super) fn list(&self, name: &str, wanted: Option<&BTreeSet<u64>>) -> Result<Listed, String> {
        // What cannot be a name there has no versions there.
        let Ok(model) = name.parse::<Name>() else { return Ok(Listed::default()) };
        self.wait_for(self.look(&model, wanted)).map_err(|error| chain(&error))
    }

    /// Which version an alias points to. Blocks.
    ///
    /// # Errors
    /// Why the registry did not answer.
    pub(super) fn alias(&self, name: &str, alias: &Name) -> Result<Option<u64>, String> {
        let Ok(model) = name.parse::<Name>() else { return Ok(None) };
        let last = self.wait_for(self.registry.alias(&model, alias)).map_err(|error| chain(&error))?;
        Ok(last.and_then(|last| last.version))
    }

    /// A version's artefact, from the cache where it is there. Blocks.
    pub(super) fn read(&self, version: &Version) -> Result<Source, Unread> {
        let Manifest { model, version: number, sha256, .. } = &version.manifest;
        if let Some(source) = self.cached(model.as_str(), *number, sha256) {
            return Ok(source);
        }
        let bytes = self.wait_for(self.registry.bytes(version, self.bytes_at_most)).map_err(|error| unread(&error))?;
        if let Some(Err(error)) = self.cache.as_ref().map(|cache| cache.put(sha256, &bytes)) {
            tracing::warn!(%error, %model, version = number, "an artefact cannot be put into the cache");
        }
        Ok(Source::new(model.as_str(), *number, bytes))
    }

    /// What the cache has under this SHA-256, as this version. Blocks.
    pub(super) fn cached(&self, name: &str, number: u64, sha256: &str) -> Option<Source> {
        let source = Source::new(name, number, self.cache.as_ref()?.get(sha256)?);
        (hex::encode(source.digest) == sha256).then_some(source)
    }

    async fn look(&self, model: &Name, wanted: Option<&BTreeSet<u64>>) -> Result<Listed, RegistryError> {
        let there = self.registry.numbers_there(model).await?;
        let numbers = wanted.filter(|wanted| wanted.is_subset(&there)).unwrap_or(&there);
        let look = |number: u64| async move { (number, self.version(model, number).await) };
        let mut looks = stream::iter(numbers.iter().copied().map(look)).buffer_unordered(AT_ONCE);
        let mut listed = Listed::default();
        while let Some((number, looked)) = looks.next().await {
            match looked.map(|version| self.unfit(&version).map_or(Ok(version), Err)) {
                Ok(Ok(version)) => drop(listed.versions.insert(number, version)),
                Ok(Err(why)) => drop(listed.unfit.insert(number, why)),
                Err(error @ RegistryError::Object { .. }) => drop(listed.unfit.insert(number, chain(&error))),
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }

    async fn version(&self, model: &Name, number: u64) -> Result<Arc<Version>, RegistryError> {
        let key = (model.clone(), number);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = known().get(&key) {
            return Ok(Arc::clone(version));
        }
        let read = self.registry.version(&Reference { model: model.clone(), which: Which::Number(number) }).await?;
        let version = Arc::new(read);
        known().insert(key, Arc::clone(&version));
        Ok(version)
    }

    /// Why a version cannot be served, as far as its manifest says.
    fn unfit(&self, version: &Version) -> Option<String> {
        let format = version.manifest.format;
        if format != Format::Onnx {
            return Some(format!("its format is {format}, and the ranker serves onnx alone"));
        }
        version.check_signature(&self.trusted_keys).err().map(|error| chain(&error))
    }

    /// Waits on this thread, and no longer than the ranker runs.
    fn wait_for<T>(&self, work: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        let mut ends = self.ends.clone();
        self.runtime.block_on(async {
            tokio::select! {
                done = work => done,
                _ = ends.wait_for(|ends| *ends) => Err(RegistryError::Away { place: self.place(), why: "the ranker is about to end".to_owned() }),
            }
        })
    }
}

fn unread(error: &RegistryError) -> Unread {
    let why = chain(error);
    match error {
        RegistryError::Changed { .. }
        | RegistryError::Resized { .. }
        | RegistryError::Missing { .. }
        | RegistryError::Removed { .. }
        | RegistryError::TooLarge { .. } => Unread::Bad(why),
        _ => Unread::Away(why),
    }
}
