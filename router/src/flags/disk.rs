//! Flags on disk: one file a route, `flags/<route>.json` in the data folder. The truth of the embedded store; with Redis, the copy that a
//! router starts from while Redis is away.
//!
//! A file is a line `switchback-flags 1 sha256:<digest of the rest>`, then JSON. It is replaced whole (written beside, synced, renamed), so
//! that there is always one good version, and read back only when the digest matches. Mode 0600: it holds salts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Fields, FlagsError};

const FORM: &str = "switchback-flags 1 sha256:";
/// Far above what a route's flags may take, so that a wrong file is not read into memory.
const FILE_BYTES: u64 = 8 << 20;
/// So many files are synced one by one. More of them, as at the first start with hundreds of routes, are synced at once, with everything else on their file
/// system: one wait for the disk, and not one for each.
const MOST_BY_NAME: usize = 8;

/// One route's flags as kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copy {
    /// The route's name.
    pub(crate) route: String,
    /// Which store they are from: epochs of different stores do not compare.
    pub(crate) store: String,
    pub(crate) epoch: u64,
    pub(crate) seal: String,
    /// Without `epoch` and `seal`.
    pub(crate) fields: Fields,
}

/// A copy that is written beside the route's file.
#[derive(Debug)]
pub(crate) struct Beside {
    path: PathBuf,
    beside: PathBuf,
}

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Makes the folder where it is missing.
    pub(crate) fn open(data_dir: &Path) -> Result<Disk, FlagsError> {
        let folder = data_dir.join("flags");
        create_private_folder(&folder).map_err(|source| FlagsError::File { path: folder.clone(), what: "create the folder", source })?;
        Ok(Disk { folder })
    }

    /// Where the files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, route: &str) -> PathBuf {
        self.folder.join(format!("{route}.json"))
    }

    /// The route's copy; `None` when there is none yet.
    pub(crate) fn load(&self, route: &str) -> Result<Option<Copy>, FlagsError> {
        let path = self.path(route);
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FlagsError::File { path, what: "read it", source }),
        };
        let copy = decode(&text)
            .and_then(|copy| if copy.route == route { Ok(copy) } else { Err(format!("it is the copy of route {:?}", copy.route)) });
        copy.map(Some).map_err(|why| FlagsError::Corrupt { path, why })
    }

    /// Replaces the route's copy. When it returns the copy is on disk.
    pub(crate) fn save(&self, copy: &Copy) -> io::Result<()> {
        let written = self.write_beside(copy)?;
        self.put_in_place(vec![written], Vec::new()).map_err(|(_, error)| error)
    }

    /// Writes a copy beside the route's file, for [`Disk::put_in_place`]. It need not be on disk then.
    pub(crate) fn write_beside(&self, copy: &Copy) -> io::Result<Beside> {
        let beside = self.folder.join(format!(".{}.{}.new", copy.route, std::process::id()));
        let mut file = private_file().write(true).create(true).truncate(true).open(&beside)?;
        file.write_all(encode(copy)?.as_bytes())?;
        Ok(Beside { path: self.path(&copy.route), beside })
    }

    /// Makes these the routes' copies. When it returns they are on disk, and so is what was written to the files `with` them, of this folder, which is there
    /// before any of them: two waits for the disk, or three for each of a few files.
    ///
    /// # Errors
    /// With the file that it is about. Each copy is the one before or the new one, whole.
    pub(crate) fn put_in_place(&self, written: Vec<Beside>, with: Vec<PathBuf>) -> Result<(), (PathBuf, io::Error)> {
        let is_many = written.len() + with.len() > MOST_BY_NAME;
        // An error may be another file's: who is asked one by one says whose it is.
        let are_synced = is_many && File::open(&self.folder).is_ok_and(|folder| rustix::fs::syncfs(&folder).is_ok());
        if !are_synced {
            for path in with.iter().chain(written.iter().map(|file| &file.beside)) {
                File::open(path).and_then(|file| file.sync_all()).map_err(|error| (path.clone(), error))?;
            }
        }
        for Beside { path, beside } in written {
            fs::rename(&beside, &path).map_err(|error| (path, error))?;
        }
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(|error| (self.folder.clone(), error))
    }
}

/// Options for files that only this user may read.
pub(crate) fn private_file() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

pub(crate) fn create_private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn read_bounded(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than flags can be"));
    }
    let bytes = fs::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn encode(copy: &Copy) -> io::Result<String> {
    let body = serde_json::to_string_pretty(copy)? + "\n";
    Ok(format!("{FORM}{}\n{body}", hex::encode(Sha256::digest(&body))))
}

pub(super) fn decode(text: &str) -> Result<Copy, String> {
    let (head, body) = text.split_once('\n').ok_or("it is empty or cut off")?;
    let digest = head.strip_prefix(FORM).ok_or_else(|| format!("its first line is not \"{FORM}...\""))?;
    if digest != hex::encode(Sha256::digest(body)) {
        return Err("its digest does not match: it was cut off, or edited by hand".to_owned());
    }
    serde_json::from_str(body).map_err(|error| format!("it cannot be understood: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn copy(live: &str) -> Copy {
        let fields = Fields::from([("live".to_owned(), live.to_owned()), ("salt".to_owned(), "0123456789".to_owned())]);
        Copy { route: "search".to_owned(), store: "embedded".to_owned(), epoch: 7, seal: "abc".to_owned(), fields }
    }

    #[test]
    fn what_is_saved_is_loaded_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        assert_eq!(disk.load("search").unwrap(), None);
        disk.save(&copy("blue")).unwrap();
        disk.save(&copy("green")).unwrap();
        assert_eq!(disk.load("search").unwrap(), Some(copy("green")));
        let left: Vec<_> = fs::read_dir(folder.path().join("flags")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["search.json"]);
    }

    /// Both ways to sync: few files, and many.
    #[test]
    fn many_are_put_in_place_at_once() {
        for routes in [1, MOST_BY_NAME, MOST_BY_NAME + 1, 50] {
            let folder = tempfile::tempdir().unwrap();
            let disk = Disk::open(folder.path()).unwrap();
            let copy_of = |number: usize| Copy { route: format!("r{number}"), epoch: number as u64, ..copy("blue") };
            let written = (0..routes).map(|number| disk.write_beside(&copy_of(number)).unwrap()).collect();
            assert_eq!(disk.load("r0").unwrap(), None, "nothing is in its place before it is on disk");
            disk.put_in_place(written, Vec::new()).unwrap();
            for number in 0..routes {
                assert_eq!(disk.load(&format!("r{number}")).unwrap(), Some(copy_of(number)));
            }
            assert_eq!(fs::read_dir(folder.path().join("flags")).unwrap().count(), routes);
        }
    }

    #[test]
    fn a_file_that_cannot_be_synced_is_named_and_nothing_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let written = vec![disk.write_beside(&copy("blue")).unwrap()];
        let gone = folder.path().join("flags/search.ledger.jsonl");
        let (path, error) = disk.put_in_place(written, vec![gone.clone()]).unwrap_err();
        assert_eq!((path, error.kind()), (gone, io::ErrorKind::NotFound));
        assert_eq!(disk.load("search").unwrap(), None);
    }

    #[test]
    fn only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.save(&copy("blue")).unwrap();
        assert_eq!(fs::metadata(disk.path("search")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.save(&copy("blue")).unwrap();
        let good = fs::read(disk.path("search")).unwrap();
        for at in 0..good.len() {
            fs::write(disk.path("search"), good.get(..at).unwrap()).unwrap();
            assert!(disk.load("search").is_err(), "cut at {at}");
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(disk.path("search"), bad).unwrap();
            assert!(disk.load("search").is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn the_copy_of_another_route_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.save(&copy("blue")).unwrap();
        fs::rename(disk.path("search"), disk.path("other")).unwrap();
        assert!(disk.load("other").unwrap_err().to_string().contains("the copy of route \"search\""));
    }
}
