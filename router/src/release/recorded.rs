//! The judged windows that this router recorded: which comparisons there are, and the windows of one, as JSON lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::log::{LOG_FOLDER, files};

/// The recorded windows of one comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// When it began, in seconds since 1970.
    pub began: u32,
    /// Its files, in the order in which they were written.
    pub parts: Vec<PathBuf>,
    /// What they take, compressed as they are.
    pub bytes: u64,
}

/// What is recorded of a route, the oldest comparison first.
///
/// # Errors
/// When the folder cannot be read; one that is not there holds nothing.
pub fn recorded(data_dir: &Path, route: &str) -> io::Result<Vec<Recorded>> {
    let found = match files(&data_dir.join(LOG_FOLDER).join(route)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        found => found?,
    };
    let mut comparisons: BTreeMap<u32, Recorded> = BTreeMap::new();
    for file in found {
        let Some(began) = file.name.split_once('-').and_then(|(began, _)| began.parse().ok()) else { continue };
        let known = comparisons.entry(began).or_insert_with(|| Recorded { began, parts: Vec::new(), bytes: 0 });
        known.bytes += file.bytes;
        known.parts.push(file.path);
    }
    Ok(comparisons.into_values().collect())
}

impl Recorded {
    /// Its windows, one JSON line each. A part that was compressed meanwhile is read where it is then.
    ///
    /// # Errors
    /// When a part cannot be opened.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let mut all: Box<dyn Read + Send> = Box::new(io::empty());
        for part in &self.parts {
            all = Box::new(all.chain(open_part(part)?));
        }
        Ok(all)
    }
}

fn open_part(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let is_packed = path.extension().is_some_and(|end| end == "gz");
    match File::open(path) {
        Ok(file) if is_packed => Ok(Box::new(MultiGzDecoder::new(BufReader::new(file)))),
        Ok(file) => Ok(Box::new(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_packed => {
            let mut packed = path.as_os_str().to_owned();
            packed.push(".gz");
            Ok(Box::new(MultiGzDecoder::new(BufReader::new(File::open(packed)?))))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn parts_of_a_comparison_are_one_log_also_while_one_is_compressed() {
        let data_dir = tempfile::tempdir().unwrap();
        assert_eq!(recorded(data_dir.path(), "search").unwrap(), []);
        let folder = data_dir.path().join(LOG_FOLDER).join("search");
        std::fs::create_dir_all(&folder).unwrap();
        let pack = |name: &str, text: &str| {
            let mut packing = flate2::write::GzEncoder::new(File::create(folder.join(name)).unwrap(), flate2::Compression::fast());
            packing.write_all(text.as_bytes()).unwrap();
            packing.finish().unwrap();
        };
        pack("0000001000-000.jsonl.gz", "a\n");
        std::fs::write(folder.join("0000001000-001.jsonl"), "b\n").unwrap();
        std::fs::write(folder.join("0000002000-000.jsonl"), "c\n").unwrap();
        std::fs::write(folder.join("else.jsonl"), "d\n").unwrap();
        let found = recorded(data_dir.path(), "search").unwrap();
        assert_eq!(found.iter().map(|one| (one.began, one.parts.len())).collect::<Vec<_>>(), [(1_000, 2), (2_000, 1)]);
        std::fs::remove_file(folder.join("0000001000-001.jsonl")).unwrap();
        pack("0000001000-001.jsonl.gz", "b\n");
        let mut text = String::new();
        found[0].open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "a\nb\n");
    }
}
