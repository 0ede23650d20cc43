//! An artefact on its way out of the store. Its SHA-256 is checked before anybody gets it; a transfer that breaks off goes on where it was.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path as FilePath, PathBuf};

use futures_util::StreamExt as _;
use object_store::{Error, GetOptions, GetRange};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::Progress;
use super::error::RegistryError;
use super::manifest::Manifest;
use super::open::Registry;
use super::versions::Version;

/// After a transfer broke off, the next try.
const AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(500);

/// A file that is there whole, or not at all.
struct Target {
    path: PathBuf,
    beside: PathBuf,
    file: File,
    sha256: Sha256,
    bytes: u64,
}

impl Target {
    /// Follows a link; what is there and no file stays.
    fn create(path: &FilePath) -> Result<Target, RegistryError> {
        let failed = |what, source| RegistryError::File { path: path.to_owned(), what, source };
        let there = fs::metadata(path).ok();
        if there.as_ref().is_some_and(|there| !there.is_file()) {
            return Err(failed("replace what is no file", std::io::Error::other("name a file, or - for standard output")));
        }
        let path = &if there.is_some() { fs::canonicalize(path).map_err(|source| failed("follow it", source))? } else { path.to_owned() };
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.part", std::process::id()));
        let beside = path.with_file_name(name);
        let file = File::create(&beside).map_err(|source| failed("write it", source))?;
        if let Some(there) = there {
            file.set_permissions(there.permissions()).map_err(|source| failed("give it the mode of the one before", source))?;
        }
        Ok(Target { path: path.clone(), beside, file, sha256: Sha256::new(), bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| self.failed("write it", source))
    }

    fn failed(&self, what: &'static str, source: std::io::Error) -> RegistryError {
        RegistryError::File { path: self.path.clone(), what, source }
    }

    /// It gets its name if it is what it should be.
    fn finish(mut self, expected: &str, object: &str) -> Result<(), RegistryError> {
        same(std::mem::take(&mut self.sha256), expected, object)?;
        self.file.sync_all().map_err(|source| self.failed("write it", source))?;
        fs::rename(&self.beside, &self.path).map_err(|source| self.failed("give it its name", source))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Under its name it is not there any more.
        let _ = fs::remove_file(&self.beside);
    }
}

/// That what was read is what was pushed.
fn same(read: Sha256, expected: &str, object: &str) -> Result<(), RegistryError> {
    let found = hex::encode(read.finalize());
    if found == expected {
        return Ok(());
    }
    Err(RegistryError::Changed { path: object.to_owned(), expected: expected.to_owned(), found })
}

impl Registry {
    /// Copies a version's artefact into a file.
    ///
    /// # Errors
    /// [`RegistryError::Removed`], [`RegistryError::Missing`], [`RegistryError::Changed`] with both digests, [`RegistryError::Resized`],
    /// [`RegistryError::Away`] after `retry_for`; there is no file then.
    pub async fn pull(&self, version: &Version, to: &FilePath, progress: &(dyn Fn(Progress) + Sync)) -> Result<(), RegistryError> {
        let mut target = Target::create(to)?;
        let object = self.read(version, &mut |bytes| target.write(bytes), progress).await?;
        target.finish(&version.manifest.sha256, &object)
    }

    /// Reads a version's artefact into memory: `most` bytes at most.
    ///
    /// # Errors
    /// As [`Registry::pull`]; [`RegistryError::TooLarge`], before anything is read.
    pub async fn bytes(&self, version: &Version, most: u64) -> Result<Vec<u8>, RegistryError> {
        let Manifest { file, bytes, sha256, .. } = &version.manifest;
        if *bytes > most {
            return Err(RegistryError::TooLarge { path: PathBuf::from(file), bytes: *bytes, most });
        }
        let mut all = Vec::new();
        let mut take = |bytes: &[u8]| {
            all.extend_from_slice(bytes);
            Ok(())
        };
        let object = self.read(version, &mut take, &|_| {}).await?;
        same(Sha256::new().chain_update(&all), sha256, &object).map(|()| all)
    }

    /// Whether a version's artefact is there, with the size that it had. Nothing of it is read.
    ///
    /// # Errors
    /// [`RegistryError::Removed`], [`RegistryError::Missing`], [`RegistryError::Resized`], [`RegistryError::Away`].
    pub async fn is_whole(&self, version: &Version) -> Result<(), RegistryError> {
        let Manifest { model, version: number, push, bytes, sha256, .. } = &version.manifest;
        if let Some(removed) = &version.removed {
            return Err(RegistryError::Removed { model: model.clone(), version: *number, who: removed.who.clone() });
        }
        let path = self.path(model, &format!("artefacts/{push}"));
        match self.size(&path).await? {
            Some(found) if found == *bytes => Ok(()),
            Some(found) => Err(RegistryError::Resized { path: path.to_string(), expected: *bytes, found }),
            None => Err(RegistryError::Missing { path: path.to_string(), sha256: sha256.clone(), bytes: *bytes }),
        }
    }

    /// Reads a version's artefact and checks it, and keeps nothing of it.
    ///
    /// # Errors
    /// As [`Registry::pull`].
    pub async fn verify(&self, version: &Version, progress: &(dyn Fn(Progress) + Sync)) -> Result<(), RegistryError> {
        let mut digest = Sha256::new();
        let mut take = |bytes: &[u8]| {
            digest.update(bytes);
            Ok(())
        };
        let object = self.read(version, &mut take, progress).await?;
        same(digest, &version.manifest.sha256, &object)
    }

    /// The whole artefact, piece by piece; the object's path.
    async fn read(
        &self,
        version: &Version,
        take: &mut (dyn FnMut(&[u8]) -> Result<(), RegistryError> + Send),
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<String, RegistryError> {
        let Manifest { model, version: number, push, bytes: of, sha256, .. } = &version.manifest;
        if let Some(removed) = &version.removed {
            return Err(RegistryError::Removed { model: model.clone(), version: *number, who: removed.who.clone() });
        }
        let path = self.path(model, &format!("artefacts/{push}"));
        let (mut done, mut until) = (0, Instant::now() + self.config.retry_for);
        while done < *of {
            // Of an object that is empty now there is no range.
            let range = (done > 0).then_some(GetRange::Offset(done));
            let broken = match self.store.get_opts(&path, GetOptions { range, ..GetOptions::default() }).await {
                Ok(found) if found.meta.size != *of => {
                    return Err(RegistryError::Resized { path: path.to_string(), expected: *of, found: found.meta.size });
                }
                Ok(found) => {
                    let mut stream = found.into_stream();
                    let mut broken = None;
                    while let Some(piece) = stream.next().await {
                        match piece {
                            Ok(piece) => {
                                take(&piece)?;
                                done += piece.len() as u64;
                                progress(Progress { done, of: *of });
                                until = Instant::now() + self.config.retry_for;
                            }
                            Err(error) => {
                                broken = Some(error);
                                break;
                            }
                        }
                    }
                    broken
                }
                Err(error) => Some(error),
            };
            match broken {
                Some(Error::NotFound { .. }) => {
                    return Err(RegistryError::Missing { path: path.to_string(), sha256: sha256.clone(), bytes: *of });
                }
                Some(error) => {
                    let wrong = self.away(&error);
                    // Who is refused is not let in by asking again.
                    if !wrong.is_away() || Instant::now() >= until {
                        return Err(wrong);
                    }
                    sleep(AGAIN_AFTER).await;
                }
                None if done < *of => sleep(AGAIN_AFTER).await,
                None => {}
            }
        }
        Ok(path.to_string())
    }
}
