//! The ledger of the embedded store: one file of JSON lines a route, only ever appended to. When it is large it becomes `.1` and a new one
//! begins, so that it takes bounded room.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::chain::{GENESIS, Line, gap};
use super::disk::private_file;
use super::{Ledger, LedgerEntry};

/// A file larger than this is put aside. About 10,000 entries.
const FILE_BYTES: u64 = 4 << 20;

#[derive(Debug)]
pub(crate) struct LedgerFile {
    path: PathBuf,
    aside: PathBuf,
    /// The hash of the newest entry.
    head: PathBuf,
    most_bytes: u64,
}

impl LedgerFile {
    pub(crate) fn new(folder: &Path, route: &str) -> LedgerFile {
        let path = |end: &str| folder.join(format!("{route}.ledger.jsonl{end}"));
        LedgerFile { path: path(""), aside: path(".1"), head: path(".head"), most_bytes: FILE_BYTES }
    }

    /// Adds an entry. When it returns the entry is on disk.
    pub(crate) fn append(&self, entry: &LedgerEntry) -> io::Result<()> {
        let (file, hash) = self.write(entry)?;
        file.sync_data()?;
        self.note(&hash)
    }

    /// Adds an entry, and leaves it to the caller to sync the file, whose path is answered.
    pub(crate) fn append_unsynced(self, entry: &LedgerEntry) -> io::Result<PathBuf> {
        let (_, hash) = self.write(entry)?;
        self.note(&hash)?;
        Ok(self.path)
    }

    /// The file and the entry's hash.
    fn write(&self, entry: &LedgerEntry) -> io::Result<(File, String)> {
        if fs::metadata(&self.path).is_ok_and(|meta| meta.len() > self.most_bytes) {
            fs::rename(&self.path, &self.aside)?;
        }
        let mut file = private_file().read(true).append(true).create(true).open(&self.path)?;
        let prev = previous(self.lines()?.last(), &read_if_there(&self.head)?);
        let text = serde_json::to_string(&LedgerEntry { prev, ..entry.clone() })?;
        let mut line = format!("{text}\n");
        if is_cut_off(&mut file)? {
            line.insert(0, '\n');
        }
        file.write_all(line.as_bytes())?;
        Ok((file, Line::new(String::new(), text.into_bytes()).hash()))
    }

    /// After the entry: where the process ends in between, the next entry mends it.
    fn note(&self, hash: &str) -> io::Result<()> {
        private_file().write(true).create(true).truncate(true).open(&self.head)?.write_all(hash.as_bytes())
    }

    /// Every line that is whole, oldest first. One that was cut off when the process ended was never an entry.
    fn lines(&self) -> io::Result<Vec<Line>> {
        let mut text = read_if_there(&self.aside)?;
        text.push_str(&read_if_there(&self.path)?);
        let is_whole = |line: &&str| line.starts_with('{') && line.ends_with('}');
        Ok(text.lines().filter(is_whole).map(|line| Line::new(String::new(), line.as_bytes().to_vec())).collect())
    }

    /// All of it. `epoch` is that of the flags.
    pub(crate) fn whole(&self, epoch: u64) -> io::Result<Ledger> {
        let lines = self.lines()?;
        let written = read_if_there(&self.head)?;
        let is_newest = lines.last().is_some_and(|newest| newest.hash() == written);
        // Older ones are given up with the file aside.
        let is_full = fs::metadata(&self.aside).is_ok_and(|meta| meta.len() > self.most_bytes);
        Ok(Ledger { epoch, is_newest, is_full, lines })
    }

    /// The newest entries, newest first, of epochs up to the one in force. Lines that were cut off, and entries whose change was never
    /// made because the process ended in between, are left out.
    pub(crate) fn newest(&self, epoch: u64, limit: usize) -> io::Result<Vec<LedgerEntry>> {
        let mut text = read_if_there(&self.aside)?;
        text.push_str(&read_if_there(&self.path)?);
        let mut below = epoch.saturating_add(1);
        let mut entries = Vec::new();
        for entry in text.lines().rev().filter_map(|line| serde_json::from_str::<LedgerEntry>(line).ok()) {
            if entries.len() == limit {
                break;
            }
            if entry.epoch < below {
                below = entry.epoch;
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

/// What an entry names as the one before it: the newest one, unless that is not what is known to have been written last. (A process that ended between the
/// entry and the note of it left a note of the entry before.)
fn previous(newest: Option<&Line>, head: &str) -> String {
    let Some(line) = newest else { return if head.is_empty() { GENESIS.to_owned() } else { gap(head) } };
    let hash = line.hash();
    let is_noted = hash == head || head.is_empty();
    let is_one_later = serde_json::from_slice::<LedgerEntry>(&line.text).is_ok_and(|entry| entry.prev == head);
    if is_noted || is_one_later { hash } else { gap(head) }
}

/// Whether the last line lacks its end: the process, or the machine, ended while it was written.
fn is_cut_off(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0u8];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn read_if_there(path: &Path) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::flags::Kind;

    fn entry(epoch: u64) -> LedgerEntry {
        let (who, why) = ("alice".to_owned(), "to see".to_owned());
        LedgerEntry { epoch, time_ms: 5, kind: Kind::Change, who, why, ..LedgerEntry::default() }
    }

    fn epochs(ledger: &LedgerFile, epoch: u64, limit: usize) -> Vec<u64> {
        ledger.newest(epoch, limit).unwrap().into_iter().map(|entry| entry.epoch).collect()
    }

    #[test]
    fn a_cut_line_and_a_change_that_was_never_made_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = LedgerFile::new(folder.path(), "search");
        assert_eq!(epochs(&ledger, 9, 9), [0u64; 0]);
        ledger.append(&entry(2)).unwrap();
        private_file().append(true).open(&ledger.path).unwrap().write_all(b"{\"epoch\":3,\"ti").unwrap();
        ledger.append(&entry(3)).unwrap();
        ledger.append(&entry(4)).unwrap();
        assert_eq!(epochs(&ledger, 3, 9), [3, 2], "4 was never in force");
        ledger.append(&LedgerEntry { who: "bob".to_owned(), ..entry(4) }).unwrap();
        assert_eq!(epochs(&ledger, 4, 2), [4, 3]);
        assert_eq!(
            ledger.newest(4, 1).unwrap().first().unwrap().who,
            "bob",
            "the later of two entries for one epoch is the one that was made"
        );
    }

    #[test]
    fn it_takes_bounded_room_and_forgets_the_oldest_first() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = LedgerFile { most_bytes: 2_000, ..LedgerFile::new(folder.path(), "search") };
        for epoch in 1..=200 {
            ledger.append(&entry(epoch)).unwrap();
        }
        let bytes: u64 = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 4_800, "{bytes}");
        let kept = epochs(&ledger, 200, 1_000);
        assert_eq!(kept.first(), Some(&200));
        assert!(kept.len() >= 10 && kept.is_sorted_by(|newer, older| *newer == older + 1), "{kept:?}");
    }
}
