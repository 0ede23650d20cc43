//! Opening a registry, and the few operations on its store that everything else is made of.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};

use super::bucket::{self, Access, Opened, in_short};
use super::error::RegistryError;
use super::manifest::{MANIFEST_BYTES, ManifestFault};
use super::names::Name;
use crate::config::{self, Place};

/// The largest number of a version, of an alias's move or of a report: one a second for thirty years.
pub(super) const MOST_NUMBER: u64 = 1_000_000_000;

/// A registry that is open.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The bucket as uploads go to it, in parts that go on after their process ended; a folder has none.
    pub(super) parts: Option<Arc<AmazonS3>>,
    pub(super) config: config::Registry,
    /// How the bucket is reached; a folder has none.
    access: Option<Access>,
    /// What all paths begin with.
    root: Path,
}

impl Registry {
    /// Opens it, and makes its folder where there is none; of a bucket nothing is asked yet.
    ///
    /// # Errors
    /// [`RegistryError::Config`] for what makes no sense, [`RegistryError::Away`] for a folder that cannot be used.
    pub fn open_or_make(config: &config::Registry) -> Result<Registry, RegistryError> {
        if let Place::Folder(folder) = &config.place {
            let away = |error: std::io::Error| RegistryError::Away {
                place: config.place.to_string(),
                why: format!("its folder cannot be made: {error}"),
            };
            std::fs::create_dir_all(folder).map_err(away)?;
        }
        Registry::open(config)
    }

    /// Opens it; of a bucket nothing is asked yet.
    ///
    /// # Errors
    /// [`RegistryError::Config`] for what makes no sense, [`RegistryError::Away`] for a folder that cannot be used, or is not there.
    pub fn open(config: &config::Registry) -> Result<Registry, RegistryError> {
        let config = config.clone();
        match &config.place {
            Place::Folder(folder) => {
                let away = |why: String| RegistryError::Away { place: config.place.to_string(), why };
                if !folder.is_dir() {
                    return Err(away("there is no such folder; the first push makes it".to_owned()));
                }
                let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| away(in_short(&chain(&error))))?;
                let store = Arc::new(store.with_fsync(true));
                Ok(Registry { store, parts: None, config, access: None, root: Path::default() })
            }
            Place::S3 { bucket, prefix } => {
                let root = Path::from(prefix.as_str());
                let Opened { s3, uploads, access } = bucket::open(&config, bucket)?;
                Ok(Registry { store: Arc::new(s3), parts: Some(Arc::new(uploads)), config, access: Some(access), root })
            }
        }
    }

    /// Where it is, as a URL.
    #[must_use]
    pub fn place(&self) -> String {
        self.config.place.to_string()
    }

    /// The largest artefact that it takes, in bytes.
    #[must_use]
    pub fn artefact_bytes(&self) -> u64 {
        self.config.artefact_bytes
    }

    /// `models/NAME/REST`.
    pub(super) fn path(&self, model: &Name, rest: &str) -> Path {
        let text = format!("{}/models/{model}/{rest}", self.root);
        Path::from(text.trim_start_matches('/'))
    }

    /// `models`.
    pub(super) fn models(&self) -> Path {
        Path::from(format!("{}/models", self.root).trim_start_matches('/'))
    }

    pub(super) fn away(&self, error: &Error) -> RegistryError {
        let place = self.place();
        match &self.access {
            None => RegistryError::Away { place, why: in_short(&whole_names(&chain(error))) },
            Some(access) => match access.refusal(error) {
                Some(why) => RegistryError::Denied { place, why },
                None => RegistryError::Away { place, why: in_short(&chain(error)) },
            },
        }
    }

    /// Creates an object. Whether it was created: `false` where there was one.
    pub(super) async fn create(&self, path: &Path, text: Vec<u8>) -> Result<bool, RegistryError> {
        match self.writes().put_opts(path, PutPayload::from(text), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            // S3 says of a race between two creations that both should try again, and one of them is there then.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.away(&error)),
        }
    }

    /// A small object, whole. `None` where there is none.
    pub(super) async fn small(&self, path: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
        Ok(self.whole(path, MANIFEST_BYTES as u64).await?.map(|bytes| bytes.to_vec()))
    }

    /// An object of so many bytes at most, whole. `None` where there is none.
    pub(super) async fn whole(&self, path: &Path, most: u64) -> Result<Option<Bytes>, RegistryError> {
        let found = match self.store.get_opts(path, GetOptions::default()).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.away(&error)),
        };
        let size = found.meta.size;
        if size > most {
            let fault = ManifestFault(format!("{size} bytes; {most} at most are allowed"));
            return Err(RegistryError::Object { path: path.to_string(), fault });
        }
        match found.bytes().await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.away(&error)),
        }
    }

    /// Every object below a path.
    pub(super) async fn below(&self, path: &Path) -> Result<Vec<ObjectMeta>, RegistryError> {
        if let Place::Folder(folder) = &self.config.place
            && !folder.is_dir()
        {
            return Err(RegistryError::Away { place: self.place(), why: "its folder is gone".to_owned() });
        }
        self.store.list(Some(path)).try_collect().await.map_err(|error| self.away(&error))
    }

    /// The names of what is directly below a path that has something below itself.
    pub(super) async fn folders(&self, path: &Path) -> Result<Vec<String>, RegistryError> {
        let listed = self.store.list_with_delimiter(Some(path)).await.map_err(|error| self.away(&error))?;
        Ok(listed.common_prefixes.iter().filter_map(|folder| folder.filename().map(str::to_owned)).collect())
    }

    pub(super) async fn size(&self, path: &Path) -> Result<Option<u64>, RegistryError> {
        match self.store.head(path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.away(&error)),
        }
    }

    /// Deletes an object; one that is not there is deleted.
    pub(super) async fn delete(&self, path: &Path) -> Result<(), RegistryError> {
        match self.store.delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.away(&error)),
        }
    }

    /// Where what is written whole goes: with many at once a server may take its time.
    pub(super) fn writes(&self) -> &dyn ObjectStore {
        match &self.parts {
            Some(uploads) => &**uploads,
            None => &*self.store,
        }
    }

    pub(super) fn multipart(&self) -> Option<&dyn MultipartStore> {
        self.parts.as_deref().map(|parts| parts as &dyn MultipartStore)
    }
}

/// The number after the last one; `path` is the object's that has a number.
///
/// # Errors
/// [`RegistryError::Full`]: the last one is as large as they get, so nobody has counted up to it.
pub(super) fn after(last: Option<u64>, path: impl FnOnce(u64) -> Path) -> Result<u64, RegistryError> {
    match last {
        Some(last) if last >= MOST_NUMBER => Err(RegistryError::Full { path: path(last).to_string(), most: MOST_NUMBER }),
        last => Ok(last.map_or(1, |last| last.saturating_add(1))),
    }
}

/// Whether a file of a folder is a part of an object that was never done: the object's name, and `#NUMBER`.
pub(super) fn is_part(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A message without the ends of such names: whoever reads it knows the objects.
fn whole_names(said: &str) -> String {
    let mut pieces = said.split('#');
    let mut whole = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(|letter: char| letter.is_ascii_digit());
        if rest.len() == piece.len() {
            whole.push('#');
        }
        whole.push_str(rest);
    }
    whole
}

/// An error with all of its causes, each told once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_up_to_a_limit() {
        let path = |number: u64| Path::from(format!("versions/{number}"));
        assert_eq!((after(None, path).unwrap(), after(Some(7), path).unwrap()), (1, 8));
        for last in [MOST_NUMBER, u64::MAX] {
            let error = after(Some(last), path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("versions/{last} is there")) && error.contains("up to 1000000000"), "{error}");
        }
    }

    #[test]
    fn parts_of_objects_are_told_by_the_objects_names() {
        assert!(is_part("ab#1") && is_part("manifest.json#12") && !is_part("ab") && !is_part("ab#") && !is_part("ab#1x"));
        assert_eq!(whole_names("Unable to open file /a/ab#1: Permission denied"), "Unable to open file /a/ab: Permission denied");
        assert_eq!(whole_names("a#b, c#12"), "a#b, c");
    }
}
