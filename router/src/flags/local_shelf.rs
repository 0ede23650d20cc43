//! The shelf of the embedded store: the same pages of windows that routers tell each other through Redis, in files, so that a process that starts again, or takes over,
//! knows what the one before it counted.
//!
//! ```text
//! DATA_DIR/pages/ROUTE/NUMBER-SENDER     fields of a page as a process told them last
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::disk::{create_private_folder, private_file};
use super::redis::Page;
use super::store::ShelfFields;

/// Pages that are kept of a route: as long as windows are, and one that is under way.
const PAGES: u64 = 62;
/// Larger files are nobody's.
const FILE_BYTES: u64 = 16 << 20;
/// Files that are read of one page: each process of ten minutes has one.
const MOST: usize = 256;

/// All routes' pages.
#[derive(Debug)]
pub(crate) struct LocalShelf {
    folder: PathBuf,
}

impl LocalShelf {
    pub(crate) fn new(data_dir: &Path) -> LocalShelf {
        LocalShelf { folder: data_dir.join("pages") }
    }

    /// # Errors
    /// A file cannot be written; some of the pages may be.
    pub(crate) fn put(&self, route: &str, sender: &str, pages: &[Page]) -> io::Result<()> {
        let folder = self.folder.join(route);
        create_private_folder(&folder)?;
        for page in pages {
            let fields: BTreeMap<&str, &[u8]> = page.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
            let name = format!("{}-{sender}", page.number);
            let is_new = !folder.join(&name).exists();
            let beside = folder.join(format!(".{name}.new"));
            let mut file = private_file().write(true).create(true).truncate(true).open(&beside)?;
            file.write_all(&postcard::to_allocvec(&fields).map_err(io::Error::other)?)?;
            fs::rename(&beside, folder.join(&name))?;
            if is_new {
                forget(&folder, page.number.saturating_sub(PAGES));
            }
        }
        Ok(())
    }

    /// What every process said of a page. A file that cannot be read is left out, which is logged.
    pub(crate) fn get(&self, route: &str, number: u64) -> ShelfFields {
        let mut fields = ShelfFields::new();
        for path in files(&self.folder.join(route)).filter(|(of, _)| *of == number).map(|(_, path)| path).take(MOST) {
            let read = || -> Option<BTreeMap<String, Vec<u8>>> {
                fs::metadata(&path).ok().filter(|file| file.len() <= FILE_BYTES)?;
                postcard::from_bytes(&fs::read(&path).ok()?).ok()
            };
            match read() {
                Some(read) => fields.extend(read.into_iter().map(|(name, value)| (name.into_bytes(), value))),
                None => tracing::error!(route, file = %path.display(), "what was counted cannot be read, and is left out"),
            }
        }
        fields
    }
}

/// A folder's files, by the page that they are of.
fn files(folder: &Path) -> impl Iterator<Item = (u64, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name();
        let number = name.to_str()?.split_once('-')?.0.parse().ok()?;
        Some((number, entry.path()))
    })
}

/// Pages before this one are of windows that nobody asks for.
fn forget(folder: &Path, before: u64) {
    for (_, path) in files(folder).filter(|(number, _)| *number < before) {
        // It is tried again with the next page.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u64, field: &str, value: &[u8]) -> Page {
        Page { number, fields: vec![(field.to_owned(), value.to_vec())] }
    }

    #[test]
    fn what_each_process_said_last_is_there_for_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (LocalShelf::new(folder.path()), LocalShelf::new(folder.path()));
        assert!(one.get("search", 7).is_empty());
        one.put("search", "a", &[page(7, "a.traffic", b"one"), page(8, "a.traffic", b"two")]).unwrap();
        other.put("search", "b", &[page(7, "b.traffic", b"three")]).unwrap();
        one.put("search", "a", &[page(7, "a.traffic", b"four")]).unwrap();
        let mut fields = other.get("search", 7);
        fields.sort();
        assert_eq!(fields, [(b"a.traffic".to_vec(), b"four".to_vec()), (b"b.traffic".to_vec(), b"three".to_vec())]);
        assert!(one.get("ads", 7).is_empty());
    }

    #[test]
    fn the_oldest_pages_go_and_broken_ones_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = LocalShelf::new(folder.path());
        (0..80).for_each(|number| shelf.put("search", "a", &[page(number, "a.traffic", b"x")]).unwrap());
        assert_eq!((shelf.get("search", 16).len(), shelf.get("search", 17).len(), shelf.get("search", 79).len()), (0, 1, 1));
        for (name, bytes) in [("50-a", &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..]), ("what-ever", b""), ("51-b", b""), ("-", b"")] {
            fs::write(folder.path().join("pages/search").join(name), bytes).unwrap();
        }
        assert_eq!((shelf.get("search", 50).len(), shelf.get("search", 51).len()), (0, 1));
    }
}
