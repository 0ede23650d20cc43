//! The log of judged windows: a file for each comparison, which `switchback policy simulate --replay` reads. Written by a thread of its own.
//!
//! ```text
//! DATA_DIR/windows/ROUTE/BEGAN-000.jsonl      the newest part, BEGAN in seconds since 1970
//!                        BEGAN-000.jsonl.gz   a part that is full, or of a comparison before
//! ```

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::judge::Judged;
use crate::policy::window_log;

/// In the data folder.
pub const LOG_FOLDER: &str = "windows";
/// Windows that may wait to be written; more are dropped, and that is logged.
const QUEUE: usize = 1_024;
/// Of what may be kept, a part is this much: then it is compressed.
const PARTS: u64 = 8;
/// But no longer than this.
const PART_BYTES: u64 = 16 << 20;

/// Windows of one comparison.
struct Entry {
    route: String,
    began: u32,
    log_bytes: u64,
    windows: Vec<Judged>,
}

/// Where windows are handed in; clones are the same log.
#[derive(Debug, Clone)]
pub(super) struct WindowLog(SyncSender<Entry>);

impl WindowLog {
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(data_dir: &Path) -> io::Result<WindowLog> {
        let (queue, entries) = sync_channel::<Entry>(QUEUE);
        let mut folder = Folder { path: data_dir.join(LOG_FOLDER), parts: HashMap::new(), is_broken: false };
        let work = move || {
            while let Ok(entry) = entries.recv() {
                folder.take(&entry);
            }
        };
        std::thread::Builder::new().name("window-log".to_owned()).spawn(work)?;
        Ok(WindowLog(queue))
    }

    /// Keeps at most `log_bytes` of this route.
    pub(super) fn write(&self, route: &str, began: u32, log_bytes: u64, windows: Vec<Judged>) {
        if log_bytes == 0 || windows.is_empty() {
            return;
        }
        let entry = Entry { route: route.to_owned(), began, log_bytes, windows };
        if let Err(TrySendError::Full(entry) | TrySendError::Disconnected(entry)) = self.0.try_send(entry) {
            tracing::warn!(route, windows = entry.windows.len(), "judged windows are not logged: the disk does not keep up");
        }
    }
}

/// The files.
struct Folder {
    path: PathBuf,
    /// The part that each route's windows go to.
    parts: HashMap<String, Part>,
    /// The last write failed, which was logged.
    is_broken: bool,
}

struct Part {
    began: u32,
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Folder {
    fn take(&mut self, entry: &Entry) {
        let is_broken = self.write(entry).inspect_err(|error| {
            if !self.is_broken {
                tracing::error!(folder = %self.path.display(), %error, "judged windows cannot be logged; they are tried again with the next ones");
            }
        });
        self.is_broken = is_broken.is_err();
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let folder = self.path.join(&entry.route);
        let is_new = self.parts.get(&entry.route).is_none_or(|part| part.began != entry.began);
        if is_new {
            self.parts.remove(&entry.route);
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            compress_others(&folder, entry.began)?;
        }
        let part = match self.parts.remove(&entry.route) {
            Some(part) => part,
            None => Part::open(&folder, entry.began)?,
        };
        let part = self.parts.entry(entry.route.clone()).or_insert(part);
        for (order, window) in &entry.windows {
            let mut line = Vec::new();
            window_log::write(&mut line, Some(*order), window).map_err(io::Error::other)?;
            part.file.write_all(&line)?;
            part.bytes += line.len() as u64;
        }
        if is_new || part.bytes > PART_BYTES.min(entry.log_bytes / PARTS) {
            if !is_new && let Some(part) = self.parts.remove(&entry.route) {
                compress(&part.path)?;
            }
            forget_oldest(&folder, entry.log_bytes)?;
        }
        Ok(())
    }
}

impl Part {
    /// Goes on with the last part, or begins the next.
    fn open(folder: &Path, began: u32) -> io::Result<Part> {
        let mine = format!("{began:010}-");
        let last = files(folder)?.into_iter().rfind(|file| file.name.starts_with(&mine));
        let number = |file: &Kept| file.name.get(mine.len()..mine.len() + 3).and_then(|digits| digits.parse::<u16>().ok()).unwrap_or(0);
        let number = match &last {
            Some(file) if file.name.ends_with(".jsonl") => number(file),
            Some(file) => number(file) + 1,
            None => 0,
        };
        let path = folder.join(format!("{mine}{number:03}.jsonl"));
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Part { began, path, file, bytes })
    }
}

/// A file of a route.
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// The oldest first: names are numbers of one length.
pub(super) fn files(folder: &Path) -> io::Result<Vec<Kept>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") {
            files.push(Kept { name, path: entry.path(), bytes: entry.metadata()?.len() });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn compress_others(folder: &Path, began: u32) -> io::Result<()> {
    let mine = format!("{began:010}-");
    let mut others = files(folder)?.into_iter().filter(|file| file.name.ends_with(".jsonl") && !file.name.starts_with(&mine));
    others.try_for_each(|file| compress(&file.path))
}

fn compress(path: &Path) -> io::Result<()> {
    let mut packed = path.as_os_str().to_owned();
    packed.push(".gz");
    let beside = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let mut packing = GzEncoder::new(file, Compression::default());
    io::copy(&mut BufReader::new(File::open(path)?), &mut packing)?;
    packing.finish()?;
    fs::rename(&beside, packed)?;
    fs::remove_file(path)
}

fn forget_oldest(folder: &Path, log_bytes: u64) -> io::Result<()> {
    let files = files(folder)?;
    let mut all: u64 = files.iter().map(|file| file.bytes).sum();
    // The newest stays.
    for file in files.iter().rev().skip(1).rev() {
        if all <= log_bytes {
            break;
        }
        fs::remove_file(&file.path)?;
        all -= file.bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::policy::rollback::{Slice, Step, Window};

    fn window(index: u64) -> Window {
        let step = Step { index: 0, share_ppm: 1, is_last: false };
        Window {
            index,
            length_ms: 1_000,
            slice: Slice::Traffic,
            step,
            share_ppm: None,
            candidate_requests: 1,
            control_requests: 9,
            metrics: Vec::new(),
            latency: Vec::new(),
        }
    }

    fn log() -> (tempfile::TempDir, Folder) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FOLDER);
        (folder, Folder { path, parts: HashMap::new(), is_broken: false })
    }

    fn entry(began: u32, log_bytes: u64, windows: std::ops::Range<u64>) -> Entry {
        Entry { route: "search".to_owned(), began, log_bytes, windows: windows.map(|index| (index, window(index))).collect() }
    }

    fn names(folder: &Folder) -> Vec<String> {
        files(&folder.path.join("search")).unwrap().into_iter().map(|file| file.name).collect()
    }

    fn read(folder: &Folder, name: &str) -> Vec<u64> {
        let file = File::open(folder.path.join("search").join(name)).unwrap();
        let mut text = Vec::new();
        match name.ends_with(".gz") {
            true => GzDecoder::new(file).read_to_end(&mut text).unwrap(),
            false => BufReader::new(file).read_to_end(&mut text).unwrap(),
        };
        window_log::read(text.as_slice()).map(|read| read.unwrap().1.index).collect()
    }

    #[test]
    fn each_comparison_has_its_file_and_older_ones_are_compressed() {
        let (_guard, mut folder) = log();
        folder.write(&entry(1_000, 1 << 20, 0..3)).unwrap();
        folder.write(&entry(1_000, 1 << 20, 3..5)).unwrap();
        folder.write(&entry(2_000, 1 << 20, 0..2)).unwrap();
        assert_eq!(names(&folder), ["0000001000-000.jsonl.gz", "0000002000-000.jsonl"]);
        assert_eq!(read(&folder, "0000001000-000.jsonl.gz"), [0, 1, 2, 3, 4]);
        assert_eq!(read(&folder, "0000002000-000.jsonl"), [0, 1]);
    }

    #[test]
    fn another_process_goes_on_with_the_file() {
        let (guard, mut folder) = log();
        folder.write(&entry(1_000, 1 << 20, 0..2)).unwrap();
        let mut next = Folder { path: guard.path().join(LOG_FOLDER), parts: HashMap::new(), is_broken: false };
        next.write(&entry(1_000, 1 << 20, 2..4)).unwrap();
        assert_eq!(read(&next, "0000001000-000.jsonl"), [0, 1, 2, 3]);
    }

    #[test]
    fn it_keeps_to_its_bytes_and_the_oldest_go_first() {
        let (_guard, mut folder) = log();
        for began in 1..200_u32 {
            folder.write(&entry(began, 20_000, 0..40)).unwrap();
            folder.write(&entry(began, 20_000, 40..45)).unwrap();
        }
        let files = files(&folder.path.join("search")).unwrap();
        let all: u64 = files.iter().map(|file| file.bytes).sum();
        assert!(all < 30_000 && files.len() > 10, "{all} {}", files.len());
        assert!(files[0].name.as_str() > "0000000100" && files.last().unwrap().name.starts_with("0000000199"), "{:?}", names(&folder));
    }
}
