//! An artefact on its way into the store: in parts, several at a time, which are all of it that is in memory. In a bucket, an upload that was broken off goes on with the parts that are there; what
//! they are is noted on this machine, each with its digest.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _, PutPayload};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Progress;
use super::buffers::Buffers;
use super::error::RegistryError;
use super::open::Registry;

/// S3 wants 5 MiB at least, and takes 10,000 parts. Larger ones take more memory, and longer than a slow line is waited for.
const PART_BYTES: u64 = 8 << 20;
const MOST_PARTS: u64 = 10_000;
/// On their way at a time.
const AT_A_TIME: usize = 4;
/// The largest note of an upload: a part is about 150 bytes.
const NOTE_BYTES: u64 = 4 << 20;

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) sha256: String,
    pub(super) bytes: u64,
}

/// A file that is sent.
pub(super) struct Source {
    path: PathBuf,
    file: File,
    pub(super) bytes: u64,
    sha256: Sha256,
    read: u64,
    /// As many as there are parts on their way.
    buffers: Buffers,
}

impl Source {
    pub(super) fn open(path: &FilePath, most: u64) -> Result<Source, RegistryError> {
        let failed = |what, source| RegistryError::File { path: path.to_owned(), what, source };
        let file = File::open(path).map_err(|source| failed("open it", source))?;
        let meta = file.metadata().map_err(|source| failed("look at it", source))?;
        if !meta.is_file() {
            return Err(failed("push what is no file", std::io::Error::from(std::io::ErrorKind::InvalidInput)));
        }
        if meta.len() > most {
            return Err(RegistryError::TooLarge { path: path.to_owned(), bytes: meta.len(), most });
        }
        Ok(Source { path: path.to_owned(), file, bytes: meta.len(), sha256: Sha256::new(), read: 0, buffers: Buffers::default() })
    }

    /// The next bytes, as many as asked for or up to the end.
    async fn next(mut self, most: u64) -> Result<(Source, Bytes), RegistryError> {
        let path = self.path.clone();
        let failed = |source| RegistryError::File { path, what: "read the file that is pushed", source };
        let read = tokio::task::spawn_blocking(move || {
            let mut part = self.buffers.take();
            part.reserve_exact(usize::try_from(most.min(self.bytes)).unwrap_or(0));
            let done = self.file.by_ref().take(most).read_to_end(&mut part);
            self.sha256.update(&part);
            self.read += part.len() as u64;
            let part = self.buffers.lend(part);
            done.map(|_| (self, part))
        });
        read.await.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(failed)
    }

    /// After the last part.
    fn sent(self) -> Result<Sent, RegistryError> {
        if self.read != self.bytes {
            let what = "push it: it changed while it was read";
            return Err(RegistryError::File { path: self.path, what, source: std::io::ErrorKind::InvalidData.into() });
        }
        Ok(Sent { sha256: hex::encode(self.sha256.finalize()), bytes: self.bytes })
    }
}

/// An upload that can go on: what is known of it on this machine.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The object.
    path: String,
    upload: String,
    part_bytes: u64,
    parts: Vec<Option<Part>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    id: String,
    sha256: String,
}

/// Where notes of uploads are.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    file: Option<PathBuf>,
}

impl Notes {
    /// One for what is pushed from where to where. `folder`: none, and an upload begins anew each time.
    pub(super) fn of(folder: Option<&FilePath>, what: &[&str]) -> Notes {
        let mut digest = Sha256::new();
        for part in what {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
        Notes { file: folder.map(|folder| folder.join(format!("{}.upload", hex::encode(digest.finalize())))) }
    }

    fn read(&self) -> Option<Note> {
        let file = self.file.as_ref()?;
        let is_small = fs::metadata(file).is_ok_and(|meta| meta.len() <= NOTE_BYTES);
        serde_json::from_slice(&fs::read(file).ok().filter(|_| is_small)?).ok()
    }

    /// The object that an upload under way is for.
    pub(super) fn path(&self) -> Option<String> {
        self.read().map(|note| note.path)
    }

    /// Without a note the next push begins anew: that is all that is lost.
    fn write(&self, note: &Note) {
        let Some(file) = &self.file else { return };
        let _ = file.parent().map(fs::create_dir_all);
        let beside = file.with_extension("new");
        let text = serde_json::to_vec(note).unwrap_or_default();
        if fs::write(&beside, text).and_then(|()| fs::rename(&beside, file)).is_err() {
            tracing::debug!(file = %file.display(), "the note of the upload cannot be written");
        }
    }

    pub(super) fn forget(&self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

impl Registry {
    /// Sends a file to an object.
    pub(super) async fn send(
        &self,
        path: &Path,
        source: Source,
        notes: &Notes,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Sent, RegistryError> {
        let part_bytes = PART_BYTES.max(source.bytes.div_ceil(MOST_PARTS));
        match self.multipart().filter(|_| source.bytes > part_bytes) {
            Some(parts) => self.send_parts(parts, path, source, part_bytes, notes, progress).await,
            None if source.bytes <= part_bytes => {
                let of = source.bytes;
                let (source, whole) = source.next(part_bytes + 1).await?;
                self.writes().put(path, PutPayload::from(whole)).await.map_err(|error| self.away(&error))?;
                progress(Progress { done: of, of });
                source.sent()
            }
            None => self.send_in_order(path, source, part_bytes, progress).await,
        }
    }

    /// Into a folder: one part after the other, into a file that gets its name at the end. Whoever pushes removes it when this fails.
    async fn send_in_order(
        &self,
        path: &Path,
        mut source: Source,
        part_bytes: u64,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Sent, RegistryError> {
        let away = |error: Error| self.away(&error);
        let mut upload = self.store.put_multipart(path).await.map_err(away)?;
        while source.read < source.bytes {
            let part;
            (source, part) = source.next(part_bytes).await?;
            if part.is_empty() {
                break;
            }
            upload.put_part(PutPayload::from(part)).await.map_err(away)?;
            progress(Progress { done: source.read, of: source.bytes });
        }
        // What was begun and is not completed goes with the upload.
        let sent = source.sent()?;
        upload.complete().await.map(|_| sent).map_err(away)
    }

    /// Into a bucket: some parts at a time, and those that are there already are not sent again.
    async fn send_parts(
        &self,
        store: &dyn MultipartStore,
        path: &Path,
        mut source: Source,
        part_bytes: u64,
        notes: &Notes,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Sent, RegistryError> {
        let mut note = match notes.read().filter(|note| note.path == path.as_ref() && note.part_bytes == part_bytes) {
            Some(note) => note,
            None => self.begin(store, path, &source, part_bytes).await?,
        };
        notes.write(&note);
        let (mut done, of, mut next) = (0, source.bytes, 0_usize);
        let mut under_way = FuturesUnordered::new();
        let count = note.parts.len();
        while next < count || !under_way.is_empty() {
            if next < count && under_way.len() < AT_A_TIME {
                let bytes;
                (source, bytes) = source.next(part_bytes).await?;
                let (index, length, sha256) = (next, bytes.len() as u64, hex::encode(Sha256::digest(&bytes)));
                next += 1;
                let is_there = note.parts.get(index).is_some_and(|part| part.as_ref().is_some_and(|part| part.sha256 == sha256));
                if is_there {
                    done += length;
                    progress(Progress { done, of });
                    continue;
                }
                let upload = note.upload.clone();
                under_way.push(async move {
                    let sent = store.put_part(path, &upload, index, PutPayload::from(bytes)).await;
                    (index, length, sha256, sent)
                });
                continue;
            }
            let Some((index, length, sha256, sent)) = under_way.next().await else { break };
            let id = match sent {
                Ok(PartId { content_id }) => content_id,
                Err(error) => {
                    // The store may have forgotten it: the next push begins anew.
                    if matches!(error, Error::NotFound { .. }) {
                        notes.forget();
                    }
                    return Err(self.away(&error));
                }
            };
            if let Some(part) = note.parts.get_mut(index) {
                *part = Some(Part { id, sha256 });
            }
            notes.write(&note);
            done += length;
            progress(Progress { done, of });
        }
        drop(under_way);
        let sent = source.sent()?;
        let parts: Vec<PartId> = note.parts.into_iter().flatten().map(|part| PartId { content_id: part.id }).collect();
        let completed = store.complete_multipart(path, &note.upload, parts).await;
        // Whether or not: its answer may have been lost, and the object may be there.
        notes.forget();
        match completed {
            Ok(_) => Ok(sent),
            Err(_) if self.size(path).await? == Some(sent.bytes) => Ok(sent),
            Err(error) => Err(self.away(&error)),
        }
    }

    async fn begin(&self, store: &dyn MultipartStore, path: &Path, source: &Source, part_bytes: u64) -> Result<Note, RegistryError> {
        let upload = store.create_multipart(path).await.map_err(|error| self.away(&error))?;
        let count = usize::try_from(source.bytes.div_ceil(part_bytes)).unwrap_or(0);
        Ok(Note { path: path.to_string(), upload, part_bytes, parts: vec![None; count] })
    }
}
