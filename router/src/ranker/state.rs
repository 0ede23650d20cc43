//! What a ranker serves, on disk: a ranker that starts again comes back with the versions that its pool runs, and not with the newest ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cache::write_whole;
use super::catalog::Catalog;
use super::loading::{Changes, Fit, blocking};
use super::repository::{Available, Place, Repository};
use super::{Ranker, RankerError};
use crate::vocabulary::is_model_name;

const FORM: u8 = 1;
/// Far above what it takes, so that a wrong file is not read into memory.
const FILE_BYTES: u64 = 1 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

/// Each served model with its versions, and their SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Served {
    form: u8,
    models: BTreeMap<String, BTreeMap<u64, String>>,
}

impl Served {
    pub(super) fn of(catalog: &Catalog) -> Served {
        let versions =
            |versions: &super::catalog::Versions| versions.iter().map(|(number, model)| (*number, hex::encode(model.digest))).collect();
        let models = catalog.models.iter().map(|(name, served)| (name.clone(), versions(served))).collect();
        Served { form: FORM, models }
    }

    fn read(text: &[u8]) -> Result<Served, String> {
        let served: Served = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if served.form != FORM {
            return Err(format!("its form is {}, and known is {FORM}", served.form));
        }
        match served.models.iter().find(|(name, versions)| !is_model_name(name) || versions.contains_key(&0)) {
            Some((name, _)) => Err(format!("{name:?} is no model with versions from 1 on")),
            None => Ok(served),
        }
    }
}

impl StateFile {
    pub(super) fn new(path: PathBuf) -> StateFile {
        StateFile { path }
    }

    /// What it says; `None` where there is none yet. Blocks.
    pub(super) fn read(&self) -> Result<Option<Served>, String> {
        let shown = self.path.display();
        let size = match fs::metadata(&self.path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("--state {shown}: {error}")),
        };
        let not_ours = |why: String| format!("--state {shown}: it is no file of a ranker's: {why}; remove it to start as --serve says");
        if size > FILE_BYTES {
            return Err(not_ours(format!("{size} bytes")));
        }
        let text = fs::read(&self.path).map_err(|error| format!("--state {shown}: {error}"))?;
        Served::read(&text).map(Some).map_err(not_ours)
    }

    /// Replaces it. Blocks.
    pub(super) fn write(&self, served: &Served) -> Result<(), String> {
        let text = serde_json::to_vec_pretty(served).map_err(io::Error::from);
        let written = text.and_then(|text| write_whole(&self.path, &text));
        written.map_err(|error| format!("--state {}: cannot be written, and so nothing was changed: {error}", self.path.display()))
    }
}

impl Ranker {
    /// Loads what was served when the file was written. Versions that are gone are left out, with a warning.
    pub(super) async fn restore(&self, served: Served) -> Result<(), RankerError> {
        let mut changes = Changes::new();
        for (name, versions) in served.models {
            let (repository, wanted) = (std::sync::Arc::clone(&self.repository), name.clone());
            let found = blocking(move || find(&repository, &wanted, &versions)).await.map_err(RankerError::Start)??;
            for (number, why) in &found.unfit {
                tracing::warn!(model = name, version = number, why, "a version that was served before is left out");
            }
            let chosen: BTreeSet<u64> = found.places.keys().copied().collect();
            if chosen.is_empty() {
                continue;
            }
            let ready = self.make_ready(&name, &chosen, &found.places, Fit::Any).await;
            let loaded = ready.map_err(|fault| fault.at_start(&name))?;
            changes.insert(name, Some(loaded));
        }
        self.commit(changes).await.map_err(|refusal| RankerError::Model(refusal.message))
    }
}

/// Where these versions are. Those that are not are in `unfit`.
fn find(repository: &Repository, name: &str, versions: &BTreeMap<u64, String>) -> Result<Available, RankerError> {
    let wanted: BTreeSet<u64> = versions.keys().copied().collect();
    let mut found = repository.available(name, Some(&wanted));
    found.places.retain(|number, _| wanted.contains(number));
    found.unfit.retain(|number, _| wanted.contains(number));
    for (number, sha256) in versions.iter().filter(|(number, _)| !found.places.contains_key(number)).collect::<Vec<_>>() {
        match &found.away {
            None => drop(found.unfit.entry(*number).or_insert_with(|| "it is gone".to_owned())),
            Some(why) => {
                let cached = repository.pulls.as_ref().and_then(|pulls| pulls.cached(name, *number, sha256));
                if cached.is_none() {
                    return Err(RankerError::Away(format!("the model `{name}` version {number}, which was served before: {why}")));
                }
                found.places.insert(*number, Place::Cached(sha256.clone()));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("served.json"));
        assert_eq!(file.read(), Ok(None));
        let models = BTreeMap::from([("search".to_owned(), BTreeMap::from([(12, "ab".to_owned()), (13, "cd".to_owned())]))]);
        let served = Served { form: FORM, models };
        file.write(&served).unwrap();
        assert_eq!(file.read(), Ok(Some(served)));
        for wrong in ["", "{}", "[]", r#"{"form": 2, "models": {}}"#, r#"{"form": 1, "models": {"../up": {}}}"#] {
            fs::write(folder.path().join("served.json"), wrong).unwrap();
            assert!(file.read().unwrap_err().contains("remove it to start as --serve says"), "{wrong}");
        }
        let nowhere = StateFile::new(folder.path().join("no/such/folder"));
        assert!(nowhere.write(&Served { form: FORM, models: BTreeMap::new() }).unwrap_err().contains("nothing was changed"));
    }
}
