//! What the breakers hold back, on disk: a router that starts again does not try a broken candidate again.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::flags::Trip;

/// Longer files are nobody's.
const FILE_BYTES: u64 = 64 << 10;

/// `breaker/ROUTE.json` in the data folder.
#[derive(Debug, Clone)]
pub(super) struct TripFiles(PathBuf);

impl TripFiles {
    pub(super) fn new(data_dir: &Path) -> TripFiles {
        TripFiles(data_dir.join("breaker"))
    }

    /// What was held back when this was last written. A file that cannot be read holds nothing back, which is logged.
    pub(super) fn read(&self, route: &str) -> Option<Trip> {
        let path = self.path(route);
        let read = || -> io::Result<Trip> {
            if fs::metadata(&path)?.len() > FILE_BYTES {
                return Err(io::Error::other("it is too long"));
            }
            Ok(serde_json::from_slice(&fs::read(&path)?)?)
        };
        match read() {
            Ok(trip) => Some(trip),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::error!(route, file = %path.display(), %error, "what the breaker held back before the start is not known");
                None
            }
        }
    }

    /// Writes it, or takes it away. What cannot be written holds for as long as the process lives, which is logged.
    pub(super) fn write(&self, route: &str, trip: Option<&Trip>) {
        let written = match trip {
            Some(trip) => self.put(route, trip),
            None => {
                fs::remove_file(self.path(route)).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            }
        };
        if let Err(error) = written {
            tracing::error!(route, folder = %self.0.display(), %error, "what the breaker holds back cannot be written: a restart does not know of it");
        }
    }

    fn put(&self, route: &str, trip: &Trip) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let beside = self.0.join(format!(".{route}.{}.new", std::process::id()));
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(trip)?)?;
        fs::rename(&beside, self.path(route))
    }

    fn path(&self, route: &str) -> PathBuf {
        self.0.join(format!("{route}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_after_a_restart_until_it_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let files = TripFiles::new(folder.path());
        let (version, pools, control, why) = ("v2".to_owned(), vec!["canary".to_owned()], "blue".to_owned(), "it fails".to_owned());
        let trip = Trip { version, pools, control, since_unix_ms: 7, why, is_undo: false };
        assert_eq!(files.read("search"), None);
        files.write("search", None);
        files.write("search", Some(&trip));
        assert_eq!(TripFiles::new(folder.path()).read("search"), Some(trip));
        for broken in ["", "{", "[1]", &"x".repeat(70_000)] {
            fs::write(files.path("search"), broken).unwrap();
            assert_eq!(files.read("search"), None);
        }
        files.write("search", None);
        assert!(!files.path("search").exists());
    }
}
