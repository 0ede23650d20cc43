//! Opening a registry, and the few operations on its store that everything else is made of.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload,
    RetryConfig,
};

use super::credentials::from_machine;
use super::error::RegistryError;
use super::manifest::{MANIFEST_BYTES, ManifestFault};
use super::names::Name;
use crate::config::{self, Place};

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a byte of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Of one request; a part of an upload at 1 MiB/s takes half a minute.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// A registry that is open.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(super) store: Arc<dyn ObjectStore>,
    /// Uploads in parts that go on after their process ended; a folder has none.
    pub(super) parts: Option<Arc<AmazonS3>>,
    pub(super) config: config::Registry,
    /// What all paths begin with.
    root: Path,
}

impl Registry {
    /// Opens it, and makes its folder where there is none; of a bucket nothing is asked yet.
    ///
    /// # Errors
    /// [`RegistryError::Config`] for what makes no sense, [`RegistryError::File`] for a folder that cannot be used.
    pub fn open_or_make(config: &config::Registry) -> Result<Registry, RegistryError> {
        if let Place::Folder(folder) = &config.place {
            let failed = |source| RegistryError::File { path: folder.clone(), what: "make the registry's folder", source };
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        Registry::open(config)
    }

    /// Opens it; of a bucket nothing is asked yet.
    ///
    /// # Errors
    /// [`RegistryError::Config`] for what makes no sense, [`RegistryError::File`] for a folder that cannot be used, or is not there.
    pub fn open(config: &config::Registry) -> Result<Registry, RegistryError> {
        let config = config.clone();
        match &config.place {
            Place::Folder(folder) => {
                let file = |what, source| RegistryError::File { path: folder.clone(), what, source };
                if !folder.is_dir() {
                    let none = std::io::Error::other("there is no such folder; the first push makes it");
                    return Err(file("find a registry there", none));
                }
                let store = LocalFileSystem::new_with_prefix(folder)
                    .map_err(|error| file("use it as the registry's folder", std::io::Error::other(error)))?;
                let store = Arc::new(store.with_fsync(true));
                Ok(Registry { store, parts: None, config, root: Path::default() })
            }
            Place::S3 { bucket, prefix } => {
                let root = Path::from(prefix.as_str());
                let s3 = Arc::new(open_s3(&config, bucket)?);
                Ok(Registry { store: s3.clone(), parts: Some(s3), config, root })
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
        let (place, why) = (self.place(), chain(error));
        match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => RegistryError::Denied { place, why: code_of(&why) },
            _ => RegistryError::Away { place, why },
        }
    }

    /// Creates an object. Whether it was created: `false` where there was one.
    pub(super) async fn create(&self, path: &Path, text: Vec<u8>) -> Result<bool, RegistryError> {
        match self.store.put_opts(path, PutPayload::from(text), PutMode::Create.into()).await {
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

    pub(super) fn multipart(&self) -> Option<&dyn MultipartStore> {
        self.parts.as_deref().map(|parts| parts as &dyn MultipartStore)
    }
}

fn open_s3(config: &config::Registry, bucket: &str) -> Result<AmazonS3, RegistryError> {
    // Nobody else may have said which one TLS takes.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let s3 = &config.s3;
    let mut builder = from_machine(s3)?.with_bucket_name(bucket);
    let mut client =
        ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_read_timeout(READ_TIMEOUT).with_timeout(REQUEST_TIMEOUT);
    if let Some(path) = &s3.ca_file {
        for certificate in certificates(path)? {
            client = client.with_root_certificate(certificate);
        }
    }
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint);
        client = client.with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    let is_path_style = s3.path_style.unwrap_or(s3.endpoint.is_some());
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(3), base: 2.0 },
        max_retries: 1_000,
        retry_timeout: config.retry_for,
    };
    let builder = builder.with_virtual_hosted_style_request(!is_path_style).with_client_options(client).with_retry(retry);
    builder.build().map_err(|error| RegistryError::Config { key: "registry.url", value: config.place.to_string(), why: chain(&error) })
}

fn certificates(path: &FilePath) -> Result<Vec<Certificate>, RegistryError> {
    let text = std::fs::read(path).map_err(|source| RegistryError::File { path: path.to_owned(), what: "read the authorities", source })?;
    let wrong = |why: String| RegistryError::Config { key: "registry.s3.ca_file", value: path.display().to_string(), why };
    let found = Certificate::from_pem_bundle(&text).map_err(|error| wrong(chain(&error)))?;
    if found.is_empty() { Err(wrong("it has no certificate".to_owned())) } else { Ok(found) }
}

/// S3 says why in XML: its code, where there is one.
fn code_of(said: &str) -> String {
    let code = said.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map_or_else(|| said.to_owned(), |(code, _)| code.to_owned())
}

/// An error with all of its causes, each told once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
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
