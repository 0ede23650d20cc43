//! Candidates that are not done yet, on disk: a router that ends in between loses none.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::is_mlflow_name;

/// In `state.data_dir`.
const FILE: &str = "mlflow-candidates.json";
/// A larger file is not ours.
const FILE_BYTES: u64 = 4 << 20;

/// By route, a model and an alias of MLflow's.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// None in tests that keep nothing.
    file: Option<PathBuf>,
    wishes: BTreeMap<String, (String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    form: u8,
    candidates: BTreeMap<String, (String, String)>,
}

impl Kept {
    /// In a data folder; nothing is read yet.
    pub(super) fn in_folder(folder: &Path) -> Kept {
        Kept { file: Some(folder.join(FILE)), wishes: BTreeMap::new() }
    }

    /// What another process left.
    pub(super) fn read(&mut self) -> BTreeMap<String, (String, String)> {
        let Some(path) = &self.file else { return BTreeMap::new() };
        let mut text = Vec::new();
        match std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return BTreeMap::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "candidates of MLflow's that were not done cannot be read");
                return BTreeMap::new();
            }
        }
        self.wishes = read(&text).unwrap_or_else(|why| {
            tracing::warn!(path = %path.display(), why, "candidates of MLflow's that were not done make no sense, and are forgotten");
            BTreeMap::new()
        });
        self.wishes.clone()
    }

    pub(super) fn add(&mut self, route: &str, model: &str, alias: &str) {
        let wish = (model.to_owned(), alias.to_owned());
        if self.wishes.insert(route.to_owned(), wish.clone()) != Some(wish) {
            self.write();
        }
    }

    pub(super) fn remove(&mut self, route: &str) {
        self.wishes.remove(route);
        self.write();
    }

    /// A disk that is full is no reason not to deploy.
    fn write(&self) {
        let Some(path) = &self.file else { return };
        if let Err(error) = self.put(path) {
            tracing::warn!(path = %path.display(), %error, "candidates of MLflow's cannot be kept: a router that ends now forgets them");
        }
    }

    fn put(&self, path: &Path) -> std::io::Result<()> {
        if self.wishes.is_empty() {
            return match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let folder = path.parent().unwrap_or(path);
        let mut file = tempfile::Builder::new().prefix(".mlflow-candidates.").tempfile_in(folder)?;
        let text = serde_json::to_vec(&Written { form: 1, candidates: self.wishes.clone() })?;
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }
}

fn read(text: &[u8]) -> Result<BTreeMap<String, (String, String)>, String> {
    let Written { form, candidates } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if form != 1 {
        return Err(format!("form = {form}: must be 1"));
    }
    match candidates.values().find(|(model, alias)| !is_mlflow_name(model) || !is_mlflow_name(alias)) {
        Some((model, alias)) => Err(format!("{model:?} and {alias:?} must be names")),
        None => Ok(candidates),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_found_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::in_folder(folder.path());
        kept.add("search", "ranker", "champion");
        kept.add("ads", "ads", "live");
        kept.remove("ads");
        let left = BTreeMap::from([("search".to_owned(), ("ranker".to_owned(), "champion".to_owned()))]);
        assert_eq!(Kept::in_folder(folder.path()).read(), left);
        kept.remove("search");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        for nonsense in ["", "{}", "{\"form\":2,\"candidates\":{}}", "{\"form\":1,\"candidates\":{\"search\":[\"a/b\",\"c\"]}}"] {
            std::fs::write(folder.path().join(FILE), nonsense).unwrap();
            assert_eq!(Kept::in_folder(folder.path()).read(), BTreeMap::new(), "{nonsense}");
        }
    }
}
