//! Loads and unloads: the new set of versions is made ready beside what is served, then takes its place.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::Ranker;
use super::catalog::{Catalog, Versions};
use super::refusal::Refusal;
use super::repository::{Available, VersionPolicy};
use crate::onnx::Model;

/// Why one version could not be loaded.
struct Fault {
    version: u64,
    reason: String,
}

impl Ranker {
    /// Makes the versions that `policy` chooses the served ones of `name`. A version whose file did not change is kept as it is.
    ///
    /// On any failure what is served stays untouched, and the fault is shown in the index.
    pub(super) async fn load(&self, name: &str, policy: &VersionPolicy) -> Result<(), Refusal> {
        let Ok(_queued) = self.loads.try_acquire() else {
            let waiting = self.limits.waiting_loads;
            return Err(Refusal::too_many(format!("one load runs and {waiting} wait, which is the most allowed; try again later")));
        };
        let _turn = self.load.lock().await;
        let (repository, wanted) = (Arc::clone(&self.repository), name.to_owned());
        let available = blocking(move || repository.available(&wanted)).await.map_err(Refusal::fault)?;
        let chosen = policy.choose(&available).map_err(|reason| {
            let place = self.repository.describe(name);
            Refusal::not_found(format!("the model `{name}`: {reason} ({place})"))
        })?;
        if chosen.len() > self.limits.versions {
            let (wanted, most) = (chosen.len(), self.limits.versions);
            return Err(Refusal::bad(format!("the model `{name}`: {wanted} versions at the same time; allowed are {most}")));
        }
        match self.make_ready(name, &chosen, &available).await {
            Ok(versions) => {
                self.replace(|catalog| {
                    catalog.faults.retain(|(model, version), _| model != name || !versions.contains_key(version));
                    catalog.models.insert(name.to_owned(), versions);
                });
                Ok(())
            }
            Err(fault) => {
                let message = format!("the model `{name}` version {}: {}", fault.version, fault.reason);
                self.replace(|catalog| {
                    catalog.faults.insert((name.to_owned(), fault.version), fault.reason);
                });
                Err(Refusal::bad(message))
            }
        }
    }

    /// Stops serving every version of a model. Queries in flight finish.
    pub(super) async fn unload(&self, name: &str) -> Result<(), Refusal> {
        let _turn = self.load.lock().await;
        if !self.catalog.load().models.contains_key(name) {
            return Err(Refusal::not_found(format!("the model `{name}` is not loaded")));
        }
        self.replace(|catalog| {
            catalog.models.remove(name);
        });
        Ok(())
    }

    /// Loads and warms what is not served yet, on blocking threads.
    async fn make_ready(&self, name: &str, chosen: &BTreeSet<u64>, available: &Available) -> Result<Versions, Fault> {
        let served = self.catalog.load_full();
        // What clients send fits the model that is served; without one, the versions of this load at least fit each other.
        let mut features = served.newest(name).map(|model| model.signature.features);
        let mut versions = Versions::new();
        for version in chosen {
            let Some(path) = available.get(version) else { continue };
            let kept = served.version(name, *version).cloned();
            let model = self.load_one(name, *version, path.clone(), kept).await;
            let fits = model.and_then(|model| check_shape(&model, *features.get_or_insert(model.signature.features)).map(|()| model));
            versions.insert(*version, fits.map_err(|reason| Fault { version: *version, reason })?);
        }
        Ok(versions)
    }

    /// `kept` is what is served under this number now: it stays when the file holds the same bytes.
    async fn load_one(&self, name: &str, version: u64, path: PathBuf, kept: Option<Arc<Model>>) -> Result<Arc<Model>, String> {
        let (repository, name) = (Arc::clone(&self.repository), name.to_owned());
        let (library, threads) = (self.library, self.threads);
        let loaded = blocking(move || {
            let source = repository.read(&name, version, &path)?;
            match kept {
                Some(kept) if kept.digest == source.digest => Ok(kept),
                _ => Model::load(library, &source, threads).map(Arc::new).map_err(|reason| format!("{}: {reason}", path.display())),
            }
        });
        loaded.await?
    }

    /// Swaps the catalog. Only the holder of the load lock calls this, so nothing is lost between the copy and the write.
    fn replace(&self, change: impl FnOnce(&mut Catalog)) {
        let mut catalog = Catalog::clone(&self.catalog.load());
        change(&mut catalog);
        self.catalog.store(Arc::new(catalog));
    }
}

/// A model that takes other rows than the one before it would have every query refused.
fn check_shape(model: &Model, features: usize) -> Result<(), String> {
    let found = model.signature.features;
    if found == features {
        return Ok(());
    }
    Err(format!(
        "it takes {found} features, and the model beside it {features}: all versions of a model take the same; unload the model first to serve \
         one of another shape"
    ))
}

/// Runs work on a blocking thread; a panic there becomes an error here.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("a thread of the ranker died: {error}"))
}
