//! How far each target was told of each route, for the embedded store: a small file each.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::disk::{create_private_folder, private_file};

#[derive(Debug)]
pub(crate) struct ToldFiles {
    folder: PathBuf,
}

impl ToldFiles {
    pub(crate) fn new(data_dir: &Path) -> ToldFiles {
        ToldFiles { folder: data_dir.join("told") }
    }

    /// Notes an epoch, if one is given and it is later than what is known; answers what is known then, which is `begin` where nothing was.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn note(&self, route: &str, target: &str, told: Option<u64>, begin: u64) -> io::Result<u64> {
        let path = self.folder.join(format!("{route}.{target}"));
        let known = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        let newest = known.unwrap_or(begin).max(told.unwrap_or(0));
        if known != Some(newest) {
            create_private_folder(&self.folder)?;
            let beside = self.folder.join(format!(".{route}.{target}.{}.new", std::process::id()));
            private_file().write(true).create(true).truncate(true).open(&beside)?.write_all(newest.to_string().as_bytes())?;
            fs::rename(&beside, path)?;
        }
        Ok(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_goes_forward_and_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let note = |told, begin| ToldFiles::new(folder.path()).note("search", "people", told, begin).unwrap();
        assert_eq!([note(None, 7), note(None, 9), note(Some(8), 9), note(Some(3), 9), note(None, 0)], [7, 7, 8, 8, 8]);
        fs::write(folder.path().join("told/search.people"), "junk").unwrap();
        assert_eq!(note(None, 4), 4);
    }
}
