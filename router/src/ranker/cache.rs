//! Artefacts on disk, each in a file that is named by its SHA-256: what was pulled once is not pulled again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Artefacts that are kept; the one that was not used for longest goes first.
const KEPT: usize = 16;
/// What was being written for so long was left by a process that ended.
const LEFT_AFTER: Duration = Duration::from_secs(3_600);

/// The folder.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    bytes_at_most: u64,
}

impl Cache {
    /// Makes the folder where it is missing.
    pub(super) fn open(folder: PathBuf, bytes_at_most: u64) -> Result<Cache, String> {
        fs::create_dir_all(&folder).map_err(|error| format!("--cache {}: {error}", folder.display()))?;
        Ok(Cache { folder, bytes_at_most })
    }

    /// The bytes under this name, whatever they are. Blocks.
    pub(super) fn get(&self, sha256: &str) -> Option<Vec<u8>> {
        let path = self.path(sha256)?;
        let file = File::open(&path).ok()?;
        if file.metadata().ok()?.len() > self.bytes_at_most {
            return None;
        }
        // Used now; where that cannot be noted it goes earlier.
        let _ = file.set_modified(SystemTime::now());
        fs::read(&path).ok()
    }

    /// Keeps these bytes under this name. Blocks.
    pub(super) fn put(&self, sha256: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(sha256).ok_or(io::ErrorKind::InvalidFilename)?;
        write_whole(&path, bytes)?;
        self.trim()
    }

    fn path(&self, sha256: &str) -> Option<PathBuf> {
        is_digest(sha256).then(|| self.folder.join(sha256))
    }

    /// Other files in the folder are left alone.
    fn trim(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let name = entry.file_name();
            let (Some(name), Ok(modified)) = (name.to_str(), entry.metadata().and_then(|found| found.modified())) else { continue };
            let is_old = || modified.elapsed().is_ok_and(|age| age > LEFT_AFTER);
            match name.split_once('.') {
                None if is_digest(name) => kept.push((modified, entry.path())),
                Some((sha256, rest)) if is_digest(sha256) && rest.ends_with("part") && is_old() => fs::remove_file(entry.path())?,
                _ => {}
            }
        }
        kept.sort();
        let too_many = kept.len().saturating_sub(KEPT);
        kept.iter().take(too_many).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes a file that is there whole, or as it was.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let beside = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> String {
        format!("{number:064x}")
    }

    #[test]
    fn what_was_used_last_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), 8).unwrap();
        let start = SystemTime::now() - Duration::from_secs(600);
        for number in 0..KEPT {
            cache.put(&digest(number), b"bytes").unwrap();
            let file = File::open(folder.path().join("cache").join(digest(number))).unwrap();
            file.set_modified(start + Duration::from_secs(number as u64)).unwrap();
        }
        fs::write(folder.path().join("cache/readme"), "not ours").unwrap();
        assert_eq!(cache.get(&digest(0)).as_deref(), Some(&b"bytes"[..]), "it is used again");
        cache.put(&digest(99), b"more").unwrap();
        assert!(cache.get(&digest(0)).is_some() && cache.get(&digest(99)).is_some());
        assert_eq!(cache.get(&digest(1)), None, "unused for longest");
        assert_eq!(fs::read_dir(folder.path().join("cache")).unwrap().count(), KEPT + 1);
    }

    #[test]
    fn names_are_digests_and_sizes_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().to_owned(), 8).unwrap();
        assert!(cache.put("../up", b"").is_err() && cache.get("../up").is_none());
        fs::write(folder.path().join(digest(1)), b"more than eight").unwrap();
        assert_eq!(cache.get(&digest(1)), None);
    }
}
