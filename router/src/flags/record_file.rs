//! Records of the embedded store: one file a route, replaced as a whole.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::disk::{create_private_folder, private_file};

/// A record's revision and bytes; `None` where there is none.
pub type Revised = Option<(u64, Vec<u8>)>;

/// Larger files are nobody's.
const FILE_BYTES: u64 = 4 << 20;
const DIGEST_BYTES: usize = 32;
const REVISION_BYTES: usize = 8;

/// The files, and what was last written to each.
#[derive(Debug)]
pub(crate) struct RecordFiles {
    folder: PathBuf,
    known: Mutex<HashMap<String, Revised>>,
}

impl RecordFiles {
    pub(crate) fn new(data_dir: &Path) -> RecordFiles {
        RecordFiles { folder: data_dir.join("evidence"), known: Mutex::new(HashMap::new()) }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Revised>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process had the folder: what it wrote is read again.
    pub(crate) fn forget(&self) {
        self.known().clear();
    }

    /// # Errors
    /// The file cannot be read. One that is broken is none, which is logged.
    pub(crate) fn read(&self, route: &str) -> io::Result<Revised> {
        if let Some(known) = self.known().get(route) {
            return Ok(known.clone());
        }
        let path = self.path(route);
        let read = match fs::metadata(&path) {
            Ok(file) if file.len() > FILE_BYTES => Err("it is too large".to_owned()),
            Ok(_) => decode(&fs::read(&path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => return Err(error),
        };
        let revised = read.unwrap_or_else(|why| {
            tracing::error!(route, file = %path.display(), "the evidence is left aside: {why}");
            None
        });
        self.known().insert(route.to_owned(), revised.clone());
        Ok(revised)
    }

    /// False when `replaces` is no longer its revision.
    ///
    /// # Errors
    /// The file cannot be read or written; it is as it was.
    pub(crate) fn replace(&self, route: &str, replaces: u64, revision: u64, record: &[u8]) -> io::Result<bool> {
        let held = self.read(route)?.map_or(0, |(revision, _)| revision);
        if held != replaces {
            return Ok(false);
        }
        create_private_folder(&self.folder)?;
        let beside = self.folder.join(format!(".{route}.{}.new", std::process::id()));
        let mut file = private_file().write(true).create(true).truncate(true).open(&beside)?;
        file.write_all(&encode(revision, record))?;
        // It may be of a second ago after the machine lost power: then that second is judged again, from what it was.
        fs::rename(&beside, self.path(route))?;
        self.known().insert(route.to_owned(), Some((revision, record.to_owned())));
        Ok(true)
    }

    fn path(&self, route: &str) -> PathBuf {
        self.folder.join(format!("{route}.record"))
    }
}

fn encode(revision: u64, record: &[u8]) -> Vec<u8> {
    let body = [&revision.to_be_bytes(), record].concat();
    [Sha256::digest(&body).as_slice(), &body].concat()
}

fn decode(bytes: &[u8]) -> Result<Revised, String> {
    let (digest, body) = bytes.split_at_checked(DIGEST_BYTES).ok_or("it is cut off")?;
    if digest != Sha256::digest(body).as_slice() {
        return Err("its digest does not match".to_owned());
    }
    let (revision, record) = body.split_first_chunk::<REVISION_BYTES>().ok_or("it is cut off")?;
    Ok(Some((u64::from_be_bytes(*revision), record.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_replaced_by_whoever_knows_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let files = RecordFiles::new(folder.path());
        assert_eq!(files.read("search").unwrap(), None);
        assert!(files.replace("search", 0, 1, b"one").unwrap());
        assert!(!files.replace("search", 0, 2, b"two").unwrap());
        assert!(files.replace("search", 1, 5, b"five").unwrap());
        assert_eq!(files.read("search").unwrap(), Some((5, b"five".to_vec())));
        assert_eq!(RecordFiles::new(folder.path()).read("search").unwrap(), Some((5, b"five".to_vec())));
    }

    #[test]
    fn a_broken_file_is_no_record_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        RecordFiles::new(folder.path()).replace("search", 0, 7, b"seven").unwrap();
        let path = folder.path().join("evidence/search.record");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            for broken in [&bad, &good[..at].to_vec()] {
                fs::write(&path, broken).unwrap();
                let files = RecordFiles::new(folder.path());
                assert_eq!(files.read("search").unwrap(), None, "{at}");
            }
        }
        let files = RecordFiles::new(folder.path());
        assert!(files.replace("search", 0, 1, b"again").unwrap());
        assert_eq!(files.read("search").unwrap(), Some((1, b"again".to_vec())));
    }
}
