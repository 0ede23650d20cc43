//! Plugins by API: admitted first, then put into the watched folder, where they are found like any other file.
//!
//! The folder stays the one place that says what a name means, so an upload survives a restart and needs no store of its own. A file
//! arrives there by rename, whole at once; the keeper sees it change and admits it again, from the cache and with the same verdict.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{SemaphorePermit, oneshot};

use super::admission::{self, Report};
use super::artefact::write_atomically;
use super::folder;
use super::keeper::Event;
use super::policies::Policies;
use super::rejection::Rejection;
use super::status::PluginStatus;
use super::workshop::Outcome;
use crate::flags::PolicyRef;

/// For the keeper to find a changed file and to judge it, once others that wait are judged. Together with the trial itself it is within
/// the time for an answer.
const TAKEN_IN_WITHIN: Duration = Duration::from_secs(15);

/// Why a plugin was not put into the folder, or not taken out of it.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A name that flags cannot say.
    #[error("{0:?} is no plugin's name: it must be 1 to 64 of a-z, 0-9, - and _")]
    Name(String),
    /// Admission said no.
    #[error("refused: {0}")]
    Rejected(#[from] Rejection),
    /// The folder is full.
    #[error("the folder of plugins holds {0} files, and no more are looked at: remove one first")]
    Full(usize),
    /// There is no such file.
    #[error("there is no plugin {name:?} in the folder; there are: {known}")]
    Missing {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// It is part of the binary.
    #[error("{0} is shipped: it is part of the program and cannot be removed; a file of its name in the folder is used instead of it")]
    Shipped(String),
    /// A route's flags name it, and nothing else has its name.
    #[error("the flags of {routes} name {name}, and nothing else has that name: name another policy first, or ask with force=true")]
    InUse {
        /// What was to be removed.
        name: String,
        /// Who names it.
        routes: String,
    },
    /// The file system said no.
    #[error("{path}: {source}")]
    Folder {
        /// The file or folder.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The folder was changed, and the router did not follow in time.
    #[error("the folder was changed, and {name} was not taken in within {seconds} s: look at the list of plugins before you name it")]
    NotTakenIn {
        /// The plugin.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The thread that did it is gone.
    #[error("the work on it ended badly; the log has its message")]
    Lost,
}

/// What an upload came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Uploaded {
    /// What was found out about the plugin.
    pub report: Report,
    /// Whether the folder was changed; not when it held these very bytes under this name.
    pub is_new: bool,
}

impl Policies {
    /// The largest plugin, in bytes.
    #[must_use]
    pub fn most_file_bytes(&self) -> u64 {
        self.workshop.terms.file_bytes
    }

    /// Waits for the turn to change the folder: one upload is read, judged and written at a time, so that as much memory is taken.
    ///
    /// # Errors
    /// Never while the router runs.
    pub async fn folder_turn(&self) -> Result<SemaphorePermit<'_>, UploadError> {
        self.folder_turn.acquire().await.map_err(|_| UploadError::Lost)
    }

    /// Judges a plugin and, when it is admitted, puts it into the folder under this name. When it returns, flags can name it.
    ///
    /// # Errors
    /// The folder is then as it was.
    pub async fn upload(&self, name: &str, bytes: Vec<u8>) -> Result<Uploaded, UploadError> {
        let path = self.file(name)?;
        let is_known = self.plugins().iter().any(|plugin| plugin.name == name && plugin.source != "shipped");
        let files = self.plugins().iter().filter(|plugin| plugin.source != "shipped").count();
        if !is_known && files >= folder::MOST_FILES {
            return Err(UploadError::Full(files));
        }
        let workshop = self.workshop.clone();
        // All of it on a thread that may wait: when whoever asked goes away, it is done or not done, never half done.
        let done = tokio::task::spawn_blocking(move || {
            let report = match workshop.judge_safely(&bytes) {
                Outcome::Admitted(admitted) => admitted.report,
                Outcome::Rejected(rejection) => return Err(UploadError::Rejected(rejection)),
                Outcome::Unsettled | Outcome::Known => return Err(UploadError::Lost),
            };
            let is_there = matches!(folder::read(&path, workshop.terms.file_bytes), Ok(Some(found)) if found == bytes);
            if !is_there {
                put(&path, &bytes)?;
            }
            Ok(Uploaded { report, is_new: !is_there })
        });
        let uploaded = done.await.map_err(|_| UploadError::Lost)??;
        self.take_in(name).await?;
        Ok(uploaded)
    }

    /// Waits until the folder's file of this name, as it is by now, has been judged by the keeper too.
    async fn take_in(&self, name: &str) -> Result<(), UploadError> {
        let (answer, answered) = oneshot::channel();
        let (wake, event) = (self.wake.clone(), Event::TakeIn(name.to_owned(), answer));
        let sent = tokio::task::spawn_blocking(move || wake.send(event));
        sent.await.ok().and_then(Result::ok).ok_or(UploadError::Lost)?;
        let late = UploadError::NotTakenIn { name: name.to_owned(), seconds: TAKEN_IN_WITHIN.as_secs() };
        tokio::time::timeout(TAKEN_IN_WITHIN, answered).await.ok().and_then(Result::ok).ok_or(late)
    }

    /// Takes a plugin's file out of the folder; the digest of what it held, empty when it could not be read. A shipped plugin of that name
    /// is meant from then on.
    ///
    /// # Errors
    /// When there is no such file, or a route needs it and `is_forced` is false.
    pub async fn remove(&self, name: &str, is_forced: bool) -> Result<String, UploadError> {
        let path = self.file(name)?;
        let plugins = self.plugins();
        let is_shipped = plugins.iter().any(|plugin| plugin.name == name && plugin.source == "shipped");
        // A link that leads nowhere can be taken away too.
        if fs::symlink_metadata(&path).is_err() {
            let known: Vec<&str> = plugins.iter().filter(|plugin| plugin.source != "shipped").map(|plugin| plugin.name.as_str()).collect();
            let missing =
                UploadError::Missing { name: name.to_owned(), known: if known.is_empty() { "none".to_owned() } else { known.join(", ") } };
            return Err(if is_shipped { UploadError::Shipped(name.to_owned()) } else { missing });
        }
        let named_by: Vec<&str> = self.routes_that_name(name).collect();
        if !is_forced && !is_shipped && !named_by.is_empty() {
            return Err(UploadError::InUse { name: name.to_owned(), routes: named_by.join(", ") });
        }
        let limit = self.most_file_bytes();
        let removed = tokio::task::spawn_blocking(move || {
            let held = folder::read(&path, limit).ok().flatten();
            fs::remove_file(&path).map_err(|source| UploadError::Folder { path: path.display().to_string(), source })?;
            Ok::<_, UploadError>(held.map(|bytes| admission::digest(&bytes)).unwrap_or_default())
        });
        let digest = removed.await.map_err(|_| UploadError::Lost)??;
        self.take_in(name).await?;
        Ok(digest)
    }

    /// Every plugin with a name, and the routes where it is in force.
    #[must_use]
    pub fn plugins(&self) -> Vec<PluginStatus> {
        let mut plugins = self.plugin_views();
        for plugin in plugins.iter_mut().filter(|plugin| !plugin.digest.is_empty()) {
            plugin.routes = self.routes_with(&plugin.name, &plugin.digest);
            let words = std::mem::take(&mut plugin.why);
            let all = [words].into_iter().filter(|words| !words.is_empty()).chain(self.quarantines(&plugin.name, &plugin.digest));
            plugin.why = all.collect::<Vec<_>>().join("; ");
        }
        plugins
    }

    fn file(&self, name: &str) -> Result<PathBuf, UploadError> {
        let is_name = PolicyRef::parse(name).is_some_and(|parsed| parsed.digest.is_none());
        if !is_name {
            return Err(UploadError::Name(name.chars().take(80).collect()));
        }
        Ok(self.dir.join(format!("{name}.wasm")))
    }
}

fn put(path: &std::path::Path, bytes: &[u8]) -> Result<(), UploadError> {
    let dir = path.parent().unwrap_or(path);
    let failed = |source| UploadError::Folder { path: dir.display().to_string(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    write_atomically(dir, path, |file| file.write_all(bytes)).map_err(failed)
}
