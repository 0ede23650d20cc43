//! Which versions of a model there are, where, and which of them a load asks for.
//!
//! A repository is a folder `<model>/<version>/model.onnx`, as Triton reads it; a file given at the start stands beside it as one more
//! version, and so does what Switchback's registry has. Version policies are Triton's too: `latest`, `all`, `specific`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::pull::Pulls;
use super::refusal::{Refusal, read_json};
use super::{Options, RankerError};
use crate::onnx::Source;
use crate::registry::Version;
use crate::vocabulary::{is_model_name, read_version};

const FILE_NAME: &str = "model.onnx";

/// Where model files are.
#[derive(Debug)]
pub(super) struct Repository {
    folder: Option<PathBuf>,
    given: Option<(String, u64, PathBuf)>,
    pub(super) pulls: Option<Pulls>,
    file_bytes_at_most: u64,
}

/// Where one version is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A file, that may change.
    File(PathBuf),
    /// The registry, where nothing changes.
    Registry(Arc<Version>),
    /// The cache of the registry, under this SHA-256, while the registry is away.
    Cached(String),
    /// It is served already, and the registry, which has it, is away.
    Served,
}

/// The versions of one model.
#[derive(Debug, Default)]
pub(super) struct Available {
    /// By number.
    pub(super) places: BTreeMap<u64, Place>,
    /// Versions that cannot be served, and why.
    pub(super) unfit: BTreeMap<u64, String>,
    /// Why the registry did not answer: there may be more versions.
    pub(super) away: Option<String>,
}

/// Why a version was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The registry is away: nothing is known of the version.
    Away(String),
    /// It cannot be served.
    Bad(String),
}

impl Repository {
    /// `ends` turns true when the ranker is about to end. Call it on the ranker's runtime.
    pub(super) fn new(options: &Options, ends: watch::Receiver<bool>) -> Result<Repository, RankerError> {
        let most = options.limits.model_bytes;
        let pulls = options.registry.clone().map(|from| Pulls::new(from, most, ends)).transpose().map_err(RankerError::Options)?;
        Ok(Repository {
            folder: options.repository.clone(),
            given: options.model.clone().map(|path| (options.name.clone(), options.version, path)),
            pulls,
            file_bytes_at_most: most,
        })
    }

    /// The versions of one model, or of those only these where all of them are there. The file given at the start goes before a folder of
    /// the same number, and that before the registry. Blocks.
    pub(super) fn available(&self, name: &str, wanted: Option<&BTreeSet<u64>>) -> Available {
        let mut available = Available::default();
        let places = &mut available.places;
        if let Some(folder) = &self.folder {
            for entry in std::fs::read_dir(folder.join(name)).into_iter().flatten().flatten() {
                let path = entry.path().join(FILE_NAME);
                if let Some(version) = entry.file_name().to_str().and_then(read_version).filter(|_| path.is_file()) {
                    places.insert(version, Place::File(path));
                }
            }
        }
        if let Some((_, version, path)) = self.given.as_ref().filter(|(given, _, _)| given == name) {
            places.insert(*version, Place::File(path.clone()));
        }
        let missing = wanted.map(|wanted| wanted.iter().copied().filter(|version| !places.contains_key(version)).collect::<BTreeSet<_>>());
        let is_enough = missing.as_ref().is_some_and(BTreeSet::is_empty);
        if let Some(pulls) = self.pulls.as_ref().filter(|_| !is_enough) {
            match pulls.list(name, missing.as_ref()) {
                Ok(listed) => {
                    for (number, version) in listed.versions {
                        places.entry(number).or_insert(Place::Registry(version));
                    }
                    available.unfit = listed.unfit;
                }
                Err(why) => available.away = Some(why),
            }
        }
        available
    }

    /// The names of all models in the folder, and the one given at the start, in order. Blocks.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.given.iter().map(|(name, _, _)| name.clone()).collect();
        if let Some(folder) = &self.folder {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            names.extend(entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_model_name(name)));
        }
        names
    }

    /// Reads a version. Blocks.
    pub(super) fn read(&self, name: &str, version: u64, place: &Place) -> Result<Source, Unread> {
        let pulls = || self.pulls.as_ref().ok_or_else(|| Unread::Bad("there is no registry".to_owned()));
        match place {
            Place::File(path) => self.read_file(name, version, path).map_err(Unread::Bad),
            Place::Registry(version) => pulls()?.read(version),
            Place::Cached(sha256) => {
                let cached = pulls()?.cached(name, version, sha256);
                cached.ok_or_else(|| Unread::Bad(format!("the file {sha256} of the cache is not readable any more")))
            }
            Place::Served => Err(Unread::Away("it is not served any more".to_owned())),
        }
    }

    fn read_file(&self, name: &str, version: u64, path: &Path) -> Result<Source, String> {
        let shown = path.display();
        let size = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?.len();
        if size > self.file_bytes_at_most {
            return Err(format!("{shown}: {size} bytes; a model file may have {}", self.file_bytes_at_most));
        }
        let bytes = std::fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
        Ok(Source::new(name, version, bytes))
    }

    /// Where versions of this model are looked for, for errors.
    pub(super) fn describe(&self, name: &str) -> String {
        let folder = self.folder.as_ref().map(|folder| match folder.is_dir() {
            false => format!("the repository {} is no folder that can be read", folder.display()),
            true => format!("looked in {}/<version>/{FILE_NAME}", folder.join(name).display()),
        });
        let registry = self.pulls.as_ref().map(|pulls| format!("looked in the registry at {}", pulls.place()));
        let places: Vec<String> = folder.into_iter().chain(registry).collect();
        if places.is_empty() { "the ranker was started without --repository and --registry".to_owned() } else { places.join("; ") }
    }
}

/// For errors.
impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(out, "{}", path.display()),
            Place::Registry(version) => {
                write!(out, "{}:{} of the registry", version.manifest.model, version.manifest.version)
            }
            Place::Cached(sha256) => write!(out, "{sha256} of the cache"),
            Place::Served => out.write_str("what is served"),
        }
    }
}

/// Which versions are to be served once a load is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum VersionPolicy {
    /// The newest so many.
    Latest(usize),
    /// Every one.
    All,
    /// Exactly these.
    Specific(BTreeSet<u64>),
}

#[derive(Debug, Default, Deserialize)]
struct LoadRequest {
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct ModelConfig {
    name: Option<String>,
    version_policy: Option<WrittenPolicy>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum WrittenPolicy {
    Latest {
        #[serde(default = "one")]
        num_versions: Number,
    },
    All {},
    Specific {
        versions: Vec<Number>,
    },
}

/// Whole numbers in a model config may be strings: it is the JSON form of a protocol buffer.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Text(String),
}

fn one() -> Number {
    Number::Plain(1)
}

impl Number {
    fn read(&self) -> Option<u64> {
        match self {
            Number::Plain(value) => Some(*value).filter(|value| *value > 0),
            Number::Text(text) => read_version(text),
        }
    }
}

impl VersionPolicy {
    /// Reads the body of a load request for the model `name`. No body, no config or no policy mean the newest version, as in Triton.
    pub(super) fn read(name: &str, body: &[u8]) -> Result<VersionPolicy, Refusal> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(VersionPolicy::Latest(1));
        }
        let request: LoadRequest = read_json(body)?;
        if let Some(key) = request.parameters.keys().find(|key| key.as_str() != "config") {
            return Err(Refusal::bad(format!(
                "parameters.{key}: not known here; allowed is `config` (model files come from the repository)"
            )));
        }
        let Some(config) = request.parameters.get("config") else { return Ok(VersionPolicy::Latest(1)) };
        let Value::String(text) = config else {
            let example = r#""{\"version_policy\": {\"specific\": {\"versions\": [1, 2]}}}""#;
            return Err(Refusal::bad(format!("parameters.config must be a string that holds JSON, like {example}")));
        };
        let config: ModelConfig =
            read_json(text.as_bytes()).map_err(|refusal| Refusal::bad(format!("parameters.config: {}", refusal.message)))?;
        if config.name.as_deref().is_some_and(|given| given != name) {
            return Err(Refusal::bad(format!("parameters.config: `name` is another model than the path's, `{name}`")));
        }
        config.version_policy.map_or(Ok(VersionPolicy::Latest(1)), VersionPolicy::checked)
    }

    fn checked(written: WrittenPolicy) -> Result<VersionPolicy, Refusal> {
        let wrong = |key: &str| Refusal::bad(format!("parameters.config: version_policy.{key} must be whole numbers of at least 1"));
        match written {
            WrittenPolicy::All {} => Ok(VersionPolicy::All),
            WrittenPolicy::Latest { num_versions } => {
                let count = num_versions.read().and_then(|count| usize::try_from(count).ok());
                count.map(VersionPolicy::Latest).ok_or_else(|| wrong("latest.num_versions"))
            }
            WrittenPolicy::Specific { versions } => {
                let versions: Option<BTreeSet<u64>> = versions.iter().map(Number::read).collect();
                let versions = versions.filter(|versions| !versions.is_empty()).ok_or_else(|| wrong("specific.versions"))?;
                Ok(VersionPolicy::Specific(versions))
            }
        }
    }

    /// The versions that it names, where it does.
    pub(super) fn named(&self) -> Option<&BTreeSet<u64>> {
        match self {
            VersionPolicy::Specific(versions) => Some(versions),
            VersionPolicy::Latest(_) | VersionPolicy::All => None,
        }
    }

    /// The versions to serve, out of those there are. `Err` names the one that is wanted and not there.
    pub(super) fn choose(&self, available: &Available) -> Result<BTreeSet<u64>, String> {
        let Available { places, unfit, .. } = available;
        let newest_first = places.keys().rev().copied();
        let unfit_one = self.named().and_then(|named| named.iter().find_map(|version| unfit.get_key_value(version)));
        match self {
            _ if unfit_one.is_some() => Err(unfit_one.map_or_else(String::new, |(version, why)| format!("version {version}: {why}"))),
            _ if places.is_empty() => Err("there is no version of it".to_owned()),
            VersionPolicy::Latest(count) => Ok(newest_first.take(*count).collect()),
            VersionPolicy::All => Ok(newest_first.collect()),
            VersionPolicy::Specific(wanted) => match wanted.iter().find(|version| !places.contains_key(version)) {
                Some(missing) => {
                    let found: Vec<String> = places.keys().map(u64::to_string).collect();
                    Err(format!("there is no version {missing} of it; found: {}", found.join(", ")))
                }
                None => Ok(wanted.clone()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(config: &str) -> Result<VersionPolicy, String> {
        let body = serde_json::json!({ "parameters": { "config": config } }).to_string();
        VersionPolicy::read("ranker", body.as_bytes()).map_err(|refusal| refusal.message)
    }

    #[test]
    fn policies_are_read_as_triton_writes_them() {
        let specific = Ok(VersionPolicy::Specific([1, 2].into()));
        assert_eq!(read(r#"{"version_policy": {"specific": {"versions": [1, 2]}}}"#), specific);
        assert_eq!(read(r#"{"name": "ranker", "version_policy": {"specific": {"versions": ["2", "1"]}}}"#), specific);
        assert_eq!(read(r#"{"version_policy": {"latest": {"num_versions": 3}}}"#), Ok(VersionPolicy::Latest(3)));
        assert_eq!(read(r#"{"version_policy": {"all": {}}}"#), Ok(VersionPolicy::All));
        assert_eq!(read(r#"{"backend": "onnxruntime"}"#), Ok(VersionPolicy::Latest(1)));
        assert_eq!(VersionPolicy::read("ranker", b""), Ok(VersionPolicy::Latest(1)));
        assert_eq!(VersionPolicy::read("ranker", b"{}"), Ok(VersionPolicy::Latest(1)));
    }

    #[test]
    fn anything_else_is_refused() {
        let wrong = [
            (r#"{"version_policy": {"specific": {"versions": []}}}"#, "at least 1"),
            (r#"{"version_policy": {"specific": {"versions": [0]}}}"#, "at least 1"),
            (r#"{"version_policy": {"newest": {}}}"#, "newest"),
            (r#"{"name": "other"}"#, "another model"),
            ("{", "not JSON"),
        ];
        for (config, expected) in wrong {
            let error = read(config).unwrap_err();
            assert!(error.contains(expected), "{config}: {error}");
        }
        let object = VersionPolicy::read("ranker", br#"{"parameters": {"config": {}}}"#).unwrap_err();
        assert!(object.message.contains("must be a string"), "{}", object.message);
        let file = VersionPolicy::read("ranker", br#"{"parameters": {"file:1/model.onnx": "AA=="}}"#).unwrap_err();
        assert!(file.message.contains("parameters.file:1/model.onnx"), "{}", file.message);
    }

    #[test]
    fn a_policy_chooses_among_what_is_there() {
        let places = [1, 2, 10].map(|version| (version, Place::File(PathBuf::new()))).into();
        let unfit = [(4, "it is a pickle".to_owned())].into();
        let available = Available { places, unfit, away: None };
        assert_eq!(VersionPolicy::Latest(2).choose(&available), Ok([2, 10].into()));
        assert_eq!(VersionPolicy::All.choose(&available), Ok([1, 2, 10].into()));
        assert_eq!(VersionPolicy::Specific([1].into()).choose(&available), Ok([1].into()));
        let missing = VersionPolicy::Specific([1, 3].into()).choose(&available).unwrap_err();
        assert_eq!(missing, "there is no version 3 of it; found: 1, 2, 10");
        assert_eq!(VersionPolicy::Specific([1, 4].into()).choose(&available).unwrap_err(), "version 4: it is a pickle");
        assert!(VersionPolicy::All.choose(&Available::default()).is_err());
    }
}
