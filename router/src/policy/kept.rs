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
        if path.is_file() {
            return;
        }
        if let Err(error) = write_atomically(&self.dir, &path, |file| file.write_all(bytes)) {
            tracing::warn!(path = %path.display(), %error, "an admitted plugin cannot be kept");
        }
        prune(&self.dir, "wasm", MOST_FILES, |found| found == path);
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}.wasm"))
    }
}
