//! Plugins that were admitted once, kept by digest, so that the flags can name any of them after its file was replaced.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::admission;
use super::artefact::{prune, write_atomically};
use super::folder;

/// Plugins that are kept; the oldest go first.
const MOST_FILES: usize = 64;

/// The folder of kept plugins.
pub(super) struct Kept {
    dir: PathBuf,
}

impl Kept {
    /// Opens the folder, making it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn open(dir: &Path) -> io::Result<Kept> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Kept { dir: dir.to_owned() })
    }

    /// Whether a plugin of this digest is kept.
    pub(super) fn has(&self, digest: &str) -> bool {
        self.path(digest).is_file()
    }

    /// The plugin of this digest; `None` when it is not kept, or is not what was kept.
    pub(super) fn load(&self, digest: &str, limit: u64) -> Option<Vec<u8>> {
        let bytes = folder::read(&self.path(digest), limit).ok().flatten()?;
        (admission::digest(&bytes) == digest).then_some(bytes)
    }

    /// Keeps a plugin. A failure is logged: the plugin serves all the same.
    pub(super) fn store(&self, digest: &str, bytes: &[u8]) {
        let path = self.path(digest);
        // One that was damaged meanwhile is written again.
        if fs::read(&path).is_ok_and(|kept| kept == bytes) {
            return;
        }
        if let Err(error) = write_atomically(&self.dir, &path, |file| file.write_all(bytes)) {
            tracing::warn!(path = %path.display(), %error, "an admitted plugin cannot be kept");
        }
        prune(&self.dir, "wasm", MOST_FILES, |found| found == path);
    }

    /// Remembers the last admitted plugin of a name, so that a bad file that meets a starting router leaves the old one serving.
    pub(super) fn remember_last(&self, name: &str, digest: &str) {
        if self.last(name).is_some_and(|last| last == digest) {
            return;
        }
        let path = self.last_path(name);
        if let Err(error) = write_atomically(&self.dir, &path, |file| file.write_all(digest.as_bytes())) {
            tracing::warn!(path = %path.display(), %error, "the last admitted plugin of a name cannot be remembered");
        }
    }

    /// The digest of the last admitted plugin of a name, where it is still kept.
    pub(super) fn last(&self, name: &str) -> Option<String> {
        let digest = fs::read_to_string(self.last_path(name)).ok()?;
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_digest && self.has(&digest)).then_some(digest)
    }

    /// A name's file is gone: nothing of it is to come back.
    pub(super) fn forget_last(&self, name: &str) {
        let _ = fs::remove_file(self.last_path(name));
    }

    fn last_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.last"))
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}.wasm"))
    }
}
