//! The watched folder: which plugin files it holds, and when one is ready to be read.
//!
//! A file may arrive by rename (at once whole) or be written in place (whole at some time). Both work: a file is read when it has
//! not changed for [`SETTLE`], and what was read counts only if it did not change meanwhile. One that was read too early is
//! refused as broken and read again when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::admission::check_size;
use super::rejection::Rejection;
use crate::flags::PolicyRef;

/// A file must be left alone for this long before it is read.
pub(super) const SETTLE: Duration = Duration::from_millis(100);
/// Plugin files that are looked at; further ones are refused by name.
pub(super) const MOST_FILES: usize = 64;

/// What tells one state of a file from another, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    inode: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        Stamp { length: file.len(), modified: file.modified().ok(), inode: file.ino(), changed: (file.ctime(), file.ctime_nsec()) }
    }
}

struct Seen {
    stamp: Stamp,
    since: Instant,
    was_offered: bool,
}

/// Names that are like a plugin's file, and what is there instead.
type NotFiles = Vec<(String, &'static str)>;

/// The folder as it was last looked at.
pub(super) struct Folder {
    dir: PathBuf,
    seen: BTreeMap<String, Seen>,
    /// Plugins beyond [`MOST_FILES`], as last found.
    passed_over: BTreeSet<String>,
    /// Files `.wasm` with names that flags cannot say, as last found.
    unusable: Vec<PathBuf>,
    /// What is called like a plugin and is no file, as last found.
    not_files: BTreeSet<String>,
}

/// What a look at the folder found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Plugins whose file is new or has changed, and is settled.
    pub(super) changed: Vec<String>,
    /// Plugins whose file is gone.
    pub(super) gone: Vec<String>,
    /// Plugins that are not looked at, and were not passed over before: there are too many.
    pub(super) passed_over: Vec<String>,
    /// Names of what is no file, and was not before; what it is instead.
    pub(super) not_files: NotFiles,
    /// Whether a file is still being written: look again after [`SETTLE`].
    pub(super) is_settling: bool,
}

impl Folder {
    pub(super) fn new(dir: &Path) -> Folder {
        Folder {
            dir: dir.to_owned(),
            seen: BTreeMap::new(),
            passed_over: BTreeSet::new(),
            unusable: Vec::new(),
            not_files: BTreeSet::new(),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.wasm"))
    }

    /// The first look, at start: every file is taken as it is, so that what the flags name serves the first query. One that is
    /// just being written is refused, and read again when it changes.
    pub(super) fn look_at_start(&mut self, now: Instant) -> Look {
        self.look_by(now, |_, _| true)
    }

    /// Looks at every plugin file. When the folder itself cannot be read, nothing has changed: what was admitted stays.
    pub(super) fn look(&mut self, now: Instant) -> Look {
        self.look_by(now, is_settled)
    }

    fn look_by(&mut self, now: Instant, is_settled: fn(&Seen, Instant) -> bool) -> Look {
        let Ok((mut found, not_files)) = self.list() else { return Look::default() };
        let mut look = Look { passed_over: self.pass_over(&mut found), not_files, ..Look::default() };
        self.seen.retain(|name, _| {
            let is_there = found.contains_key(name);
            if !is_there {
                look.gone.push(name.clone());
            }
            is_there
        });
        for (name, stamp) in found {
            let seen = self.seen.entry(name.clone()).or_insert_with(|| Seen { stamp: stamp.clone(), since: now, was_offered: false });
            if seen.stamp != stamp {
                *seen = Seen { stamp, since: now, was_offered: false };
            }
            if seen.was_offered {
                continue;
            }
            if is_settled(seen, now) {
                seen.was_offered = true;
                look.changed.push(name);
            } else {
                look.is_settling = true;
            }
        }
        look
    }

    /// Whether this plugin's file, as last looked at, was offered; also when there is none.
    pub(super) fn is_taken_up(&self, name: &str) -> bool {
        self.seen.get(name).is_none_or(|seen| seen.was_offered)
    }

    /// Offers this plugin again at a later look: it changed while it was read.
    pub(super) fn offer_again(&mut self, name: &str, now: Instant) {
        if let Some(seen) = self.seen.get_mut(name) {
            seen.was_offered = false;
            seen.since = now;
        }
    }

    /// Plugin files, and what is called like one and was not told of before.
    fn list(&mut self) -> io::Result<(BTreeMap<String, Stamp>, NotFiles)> {
        let (mut found, mut unusable, mut not_files) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let Some(name) = plugin_name(&path) else {
                if looks_like_a_plugin(&path) && unusable.len() < MOST_FILES {
                    unusable.push(path);
                }
                continue;
            };
            // Follows links: a mounted folder may hold links to the files of its present generation.
            match fs::metadata(&path) {
                Ok(file) if file.is_file() => drop(found.insert(name, Stamp::of(&file))),
                _ if not_files.len() >= MOST_FILES => {}
                Ok(file) if file.is_dir() => drop(not_files.insert(name, "it is a folder")),
                Ok(_) => drop(not_files.insert(name, "it is no regular file")),
                Err(_) if path.is_symlink() => drop(not_files.insert(name, "it is a link that leads nowhere")),
                // Gone since the folder was read.
                Err(_) => {}
            }
        }
        for path in unusable.iter().filter(|path| !self.unusable.contains(path)) {
            tracing::warn!(path = %path.display(), "a plugin is not looked at: {}", Rejection::Name);
        }
        self.unusable = unusable;
        let before = std::mem::replace(&mut self.not_files, not_files.keys().cloned().collect());
        not_files.retain(|name, _| !before.contains(name));
        Ok((found, not_files.into_iter().collect()))
    }

    /// Leaves no more than [`MOST_FILES`]. Answers who is passed over that was not before; of very many, the first by name.
    fn pass_over(&mut self, found: &mut BTreeMap<String, Stamp>) -> Vec<String> {
        let surplus = found.len().saturating_sub(MOST_FILES);
        // Those that were looked at before stay, so that more files throw out none that is in force.
        let newest = found.keys().rev().filter(|name| !self.seen.contains_key(*name));
        let passed_over: BTreeSet<String> = newest.take(surplus).cloned().collect();
        found.retain(|name, _| !passed_over.contains(name));
        let told = passed_over.difference(&self.passed_over).take(MOST_FILES).cloned().collect();
        self.passed_over = passed_over;
        told
    }
}

/// Somebody means it to be one: `.wasm`, and not hidden as files are that are still being written.
fn looks_like_a_plugin(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.ends_with(b".wasm") && !name.starts_with(b".") && path.is_file()
}

/// Refuses a file that the router would not look at.
///
/// # Errors
/// [`Rejection::Name`].
pub(crate) fn check_name(path: &Path) -> Result<(), Rejection> {
    plugin_name(path).map(|_| ()).ok_or(Rejection::Name)
}

/// The name of a plugin by its file's: `NAME.wasm`, where the name is one that flags can say.
fn plugin_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".wasm")?;
    PolicyRef::parse(name).filter(|parsed| parsed.digest.is_none()).map(|parsed| parsed.name)
}

fn is_settled(seen: &Seen, now: Instant) -> bool {
    now.duration_since(seen.since) >= SETTLE
}

/// Reads a plugin file; `None` when it changed meanwhile.
///
/// # Errors
/// [`Rejection::Unreadable`] and [`Rejection::TooLarge`].
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Rejection> {
    let unreadable = |error: io::Error| Rejection::Unreadable { reason: error.to_string() };
    let file = File::open(path).map_err(unreadable)?;
    let before = file.metadata().map_err(unreadable)?;
    check_size(before.len(), limit)?;
    let mut bytes = Vec::new();
    (&file).take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let after = fs::metadata(path).map_err(unreadable)?;
    let is_same = Stamp::of(&before) == Stamp::of(&after) && bytes.len() as u64 == after.len();
    Ok(is_same.then_some(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn changed(names: &[&str]) -> Look {
        Look { changed: names.iter().map(|name| (*name).to_owned()).collect(), ..Look::default() }
    }

    #[test]
    fn a_file_is_offered_once_when_it_has_settled_and_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path());
        let start = Instant::now();
        assert_eq!(folder.look(start), Look::default());
        fs::write(dir.path().join("a.wasm"), "one").unwrap();
        assert_eq!(folder.look(start), Look { is_settling: true, ..Look::default() });
        assert_eq!(folder.look(start + SETTLE), changed(&["a"]));
        assert_eq!(folder.look(start + 2 * SETTLE), Look::default());

        fs::write(dir.path().join("a.wasm"), "two, longer").unwrap();
        assert!(folder.look(start + 3 * SETTLE).is_settling);
        assert_eq!(folder.look(start + 4 * SETTLE), changed(&["a"]));

        fs::write(dir.path().join(".new"), "three").unwrap();
        fs::rename(dir.path().join(".new"), dir.path().join("a.wasm")).unwrap();
        assert!(folder.look(start + 5 * SETTLE).is_settling);
        assert_eq!(folder.look(start + 6 * SETTLE), changed(&["a"]));

        fs::remove_file(dir.path().join("a.wasm")).unwrap();
        assert_eq!(folder.look(start + 7 * SETTLE).gone, ["a"]);
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["README.md", ".hidden.wasm", "Upper.wasm", "a b.wasm", "x@y.wasm", "half.wasm.tmp"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join("folder.wasm")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("nowhere"), dir.path().join("link.wasm")).unwrap();
        let mut folder = Folder::new(dir.path());
        let not_files = vec![("folder".to_owned(), "it is a folder"), ("link".to_owned(), "it is a link that leads nowhere")];
        assert_eq!(folder.look(Instant::now()), Look { not_files, ..Look::default() });
        assert_eq!(folder.look(Instant::now()), Look::default(), "said once");
        // Those that somebody means to be plugins are told of.
        folder.unusable.sort();
        assert_eq!(folder.unusable, ["Upper.wasm", "a b.wasm", "x@y.wasm"].map(|name| dir.path().join(name)));
    }

    #[test]
    fn a_crowded_folder_keeps_those_that_were_seen_and_names_the_others_once() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(dir.path().join(format!("{name}.wasm")), "x").unwrap();
        (0..MOST_FILES).for_each(|number| write(&format!("m{number:02}")));
        let mut folder = Folder::new(dir.path());
        let now = Instant::now();
        assert_eq!(folder.look_at_start(now).changed.len(), MOST_FILES);
        // Whether their names come first or last.
        write("a");
        write("z");
        let passed_over = ["a", "z"].map(str::to_owned).to_vec();
        assert_eq!(folder.look(now), Look { passed_over, ..Look::default() });
        assert_eq!(folder.look(now + 2 * SETTLE), Look::default(), "said once");
        fs::remove_file(dir.path().join("m07.wasm")).unwrap();
        assert_eq!(folder.look(now + 3 * SETTLE), Look { gone: vec!["m07".to_owned()], is_settling: true, ..Look::default() });
        assert_eq!(folder.look(now + 4 * SETTLE), changed(&["a"]), "there is room for one of them");
    }

    #[test]
    fn a_folder_that_cannot_be_read_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.wasm"), "one").unwrap();
        let mut folder = Folder::new(dir.path());
        let start = Instant::now();
        folder.look(start);
        assert_eq!(folder.look(start + SETTLE), changed(&["a"]));
        fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(folder.look(start + 2 * SETTLE), Look::default());
    }

    #[test]
    fn a_file_over_the_limit_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wasm");
        fs::write(&path, vec![0; 100]).unwrap();
        assert_eq!(read(&path, 99), Err(Rejection::TooLarge { bytes: 100, limit: 99 }));
        assert_eq!(read(&path, 100), Ok(Some(vec![0; 100])));
    }
}
