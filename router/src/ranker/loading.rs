//! Loads and unloads: the new set of versions is made ready beside what is served, then takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::catalog::{Catalog, Versions};
use super::refusal::Refusal;
use super::repository::{Available, Place, Unread, VersionPolicy};
use super::state::Served;
use super::{Ranker, RankerError};
use crate::onnx::Model;

/// What is served of each of these models from now on; `None`: nothing.
pub(super) type Changes = BTreeMap<String, Option<Versions>>;

/// How many features versions may take that are made ready.
pub(super) enum Fit {
    /// As many as each does: whoever asks names them by their numbers.
    Any,
    /// All as many, and so many where that is known: what clients send fits that.
    Same(Option<usize>),
}

/// Why one version could not be loaded.
pub(super) struct Fault {
    version: u64,
    why: Unread,
}

impl Fault {
    fn reason(&self) -> &str {
        match &self.why {
            Unread::Away(reason) | Unread::Bad(reason) => reason,
        }
    }

    fn message(&self, name: &str) -> String {
        format!("the model `{name}` version {}: {}", self.version, self.reason())
    }

    fn refusal(&self, name: &str) -> Refusal {
        match self.why {
            Unread::Away(_) => Refusal::unavailable(self.message(name)),
            Unread::Bad(_) => Refusal::bad(self.message(name)),
        }
    }

    pub(super) fn at_start(&self, name: &str) -> RankerError {
        match self.why {
            Unread::Away(_) => RankerError::Away(self.message(name)),
            Unread::Bad(_) => RankerError::Model(self.message(name)),
        }
    }
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
        let (repository, wanted, named) = (Arc::clone(&self.repository), name.to_owned(), policy.named().cloned());
        let found = blocking(move || repository.available(&wanted, named.as_ref())).await.map_err(Refusal::fault)?;
        let found = self.without_registry(name, policy, found)?;
        let chosen = policy.choose(&found).map_err(|reason| {
            let place = self.repository.describe(name);
            Refusal::not_found(format!("the model `{name}`: {reason} ({place})"))
        })?;
        if chosen.len() > self.limits.versions {
            let (wanted, most) = (chosen.len(), self.limits.versions);
            return Err(Refusal::bad(format!("the model `{name}`: {wanted} versions at the same time; allowed are {most}")));
        }
        match self.make_ready(name, &chosen, &found.places, self.fit(name, policy)).await {
            Ok(versions) => self.commit(Changes::from([(name.to_owned(), Some(versions))])).await,
            Err(fault) => {
                self.replace(|catalog| {
                    catalog.faults.insert((name.to_owned(), fault.version), fault.reason().to_owned());
                });
                Err(fault.refusal(name))
            }
        }
    }

    /// Stops serving every version of a model. Queries in flight finish.
    pub(super) async fn unload(&self, name: &str) -> Result<(), Refusal> {
        let _turn = self.load.lock().await;
        if !self.catalog.load().models.contains_key(name) {
            return Err(Refusal::not_found(format!("the model `{name}` is not loaded")));
        }
        self.commit(Changes::from([(name.to_owned(), None)])).await
    }

    /// While the registry is away, what is served can still be named: a version never changes. Whatever else it may have is not known.
    fn without_registry(&self, name: &str, policy: &VersionPolicy, mut found: Available) -> Result<Available, Refusal> {
        let Some(why) = &found.away else { return Ok(found) };
        let refusal = || Refusal::unavailable(format!("the model `{name}`: {why}; what is served stays"));
        let catalog = self.catalog.load();
        for version in policy.named().ok_or_else(refusal)? {
            if found.places.contains_key(version) {
                continue;
            }
            catalog.version(name, *version).ok_or_else(refusal)?;
            found.places.insert(*version, Place::Served);
        }
        Ok(found)
    }

    /// Only whoever names versions may want them in another shape than what is served, or in more than one.
    fn fit(&self, name: &str, policy: &VersionPolicy) -> Fit {
        match policy.named() {
            Some(_) => Fit::Any,
            None => Fit::Same(self.catalog.load().newest(name).map(|model| model.signature.features)),
        }
    }

    /// Loads and warms what is not served yet, on blocking threads.
    pub(super) async fn make_ready(
        &self,
        name: &str,
        chosen: &BTreeSet<u64>,
        places: &BTreeMap<u64, Place>,
        mut fit: Fit,
    ) -> Result<Versions, Fault> {
        let served = self.catalog.load_full();
        let mut versions = Versions::new();
        for version in chosen {
            let Some(place) = places.get(version) else { continue };
            let kept = served.version(name, *version).cloned();
            let model = self.load_one(name, *version, place.clone(), kept).await;
            let fits = model.and_then(|model| fit.check(&model).map(|()| model));
            versions.insert(*version, fits.map_err(|why| Fault { version: *version, why })?);
        }
        Ok(versions)
    }

    /// `kept` is what is served under this number now: it stays when the file holds the same bytes.
    async fn load_one(&self, name: &str, version: u64, place: Place, kept: Option<Arc<Model>>) -> Result<Arc<Model>, Unread> {
        let (repository, name) = (Arc::clone(&self.repository), name.to_owned());
        let (library, threads) = (self.library, self.threads);
        let loaded = blocking(move || {
            let is_known = |kept: &Model| match &place {
                Place::Registry(found) => found.manifest.sha256 == hex::encode(kept.digest),
                Place::Cached(sha256) => *sha256 == hex::encode(kept.digest),
                Place::Served => true,
                Place::File(_) => false,
            };
            if let Some(kept) = kept.as_ref().filter(|kept| is_known(kept)) {
                return Ok(Arc::clone(kept));
            }
            let source = repository.read(&name, version, &place)?;
            match kept {
                Some(kept) if kept.digest == source.digest => Ok(kept),
                _ => Model::load(library, &source, threads).map(Arc::new).map_err(|reason| Unread::Bad(format!("{place}: {reason}"))),
            }
        });
        loaded.await.map_err(Unread::Bad)?
    }

    /// Serves something else from now on, once the state says so: a ranker that ends in between comes back with what was ready.
    pub(super) async fn commit(&self, changes: Changes) -> Result<(), Refusal> {
        let mut catalog = Catalog::clone(&self.catalog.load());
        for (name, versions) in changes {
            match versions {
                Some(versions) => {
                    catalog.faults.retain(|(model, version), _| *model != name || !versions.contains_key(version));
                    catalog.models.insert(name, versions);
                }
                None => drop(catalog.models.remove(&name)),
            }
        }
        if let Some(state) = self.state.clone() {
            let served = Served::of(&catalog);
            blocking(move || state.write(&served)).await.and_then(|written| written).map_err(Refusal::fault)?;
        }
        self.catalog.store(Arc::new(catalog));
        Ok(())
    }

    /// Swaps the catalog. Only the holder of the load lock calls this, so nothing is lost between the copy and the write.
    fn replace(&self, change: impl FnOnce(&mut Catalog)) {
        let mut catalog = Catalog::clone(&self.catalog.load());
        change(&mut catalog);
        self.catalog.store(Arc::new(catalog));
    }
}

impl Fit {
    /// A model that takes other rows than the one before it would have every query refused.
    fn check(&mut self, model: &Model) -> Result<(), Unread> {
        let found = model.signature.features;
        let features = match self {
            Fit::Any => found,
            Fit::Same(features) => *features.get_or_insert(found),
        };
        if found == features {
            return Ok(());
        }
        Err(Unread::Bad(format!(
            "it takes {found} features, and the model beside it {features}: to serve one of another shape, name the versions that are to be \
             served by their numbers, or unload the model first"
        )))
    }
}

/// Runs work on a blocking thread; a panic there becomes an error here.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("a thread of the ranker died: {error}"))
}
