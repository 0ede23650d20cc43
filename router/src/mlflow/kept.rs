//! Candidates that are not done yet, on disk: a router that ends in between loses none.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{VERSION_RULE, is_mlflow_name, is_version};

/// In `state.data_dir`.
const FILE: &str = "mlflow-candidates.json";
/// A larger file is not ours.
const FILE_BYTES: u64 = 4 << 20;

/// What a route is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// A model of MLflow's.
    pub(super) model: String,
    /// Its alias.
    pub(super) alias: String,
    /// The version that was live when it was named, where that is known.
    pub(super) before: Option<String>,
}

/// By route.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// None in tests that keep nothing.
    file: Option<PathBuf>,
    wishes: BTreeMap<String, Left>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    form: u8,
    /// A model and its alias.
    candidates: BTreeMap<String, (String, String)>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    before: BTreeMap<String, String>,
}

impl Kept {
    /// In a data folder; nothing is read yet.
    pub(super) fn in_folder(folder: &Path) -> Kept {
        Kept { file: Some(folder.join(FILE)), wishes: BTreeMap::new() }
    }

    /// What another process left.
    pub(super) fn read(&mut self) -> BTreeMap<String, Left> {
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

    pub(super) fn add(&mut self, route: &str, wish: Left) {
        if self.wishes.get(route) != Some(&wish) {
            self.wishes.insert(route.to_owned(), wish);
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
        let (mut candidates, mut before) = (BTreeMap::new(), BTreeMap::new());
        for (route, wish) in &self.wishes {
            candidates.insert(route.clone(), (wish.model.clone(), wish.alias.clone()));
            before.extend(wish.before.clone().map(|version| (route.clone(), version)));
        }
        let text = serde_json::to_vec(&Written { form: 1, candidates, before })?;
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }
}

fn read(text: &[u8]) -> Result<BTreeMap<String, Left>, String> {
    let Written { form, candidates, mut before } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if form != 1 {
        return Err(format!("form = {form}: must be 1"));
    }
    if let Some((model, alias)) = candidates.values().find(|(model, alias)| !is_mlflow_name(model) || !is_mlflow_name(alias)) {
        return Err(format!("{model:?} and {alias:?} must be names"));
    }
    if let Some(version) = before.values().find(|version| !is_version(version)) {
        return Err(format!("{version:?} must be a version: {VERSION_RULE}"));
    }
    let left = candidates.into_iter().map(|(route, (model, alias))| {
        let before = before.remove(&route);
        (route, Left { model, alias, before })
    });
    Ok(left.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_found_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::in_folder(folder.path());
        let left = |before: Option<&str>| {
            let before = before.map(str::to_owned);
            Left { model: "ranker".to_owned(), alias: "champion".to_owned(), before }
        };
        let found = || Kept::in_folder(folder.path()).read();
        kept.add("search", left(None));
        kept.add("ads", left(Some("ads:3")));
        assert_eq!(found(), BTreeMap::from([("search".to_owned(), left(None)), ("ads".to_owned(), left(Some("ads:3")))]));
        kept.remove("ads");
        kept.add("search", left(Some("ranker:6")));
        assert_eq!(found(), BTreeMap::from([("search".to_owned(), left(Some("ranker:6")))]));
        // As a router of a release before wrote it.
        let text = "{\"form\":1,\"candidates\":{\"search\":[\"ranker\",\"champion\"]}}";
        std::fs::write(folder.path().join(FILE), text).unwrap();
        assert_eq!(found(), BTreeMap::from([("search".to_owned(), left(None))]));
        kept.remove("search");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        for nonsense in [
            "",
            "{}",
            "{\"form\":2,\"candidates\":{}}",
            "{\"form\":1,\"candidates\":{\"search\":[\"a/b\",\"c\"]}}",
            "{\"form\":1,\"candidates\":{\"search\":[\"a\",\"c\"]},\"before\":{\"search\":\"a b\"}}",
        ] {
            std::fs::write(folder.path().join(FILE), nonsense).unwrap();
            assert_eq!(Kept::in_folder(folder.path()).read(), BTreeMap::new(), "{nonsense}");
        }
    }
}
