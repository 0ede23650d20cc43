//! The servers' model repository on disk, where it is the caller's to fill: `<folder>/<model>/<version>/<file>`.
//!
//! A version's folder gets its name when it is complete, so it is there whole or not at all. What is in the works, or about to go, has a name
//! that begins with a dot, which servers do not look into.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fault::Trouble;
use crate::{NAME_RULE, is_name, read_version};

/// Names of folders that are being written, and of versions that may come back.
const PLACING: &str = ".placing-";
const ASIDE: &str = ".aside-";
const REPLACED: &str = ".replaced-";
/// The largest settings file.
const SETTINGS_BYTES: usize = 64 << 10;

/// A file beside the model's, which says how it is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsFile {
    /// Its name: `model-settings.json`.
    pub name: String,
    /// Its text, in which `{model}`, `{version}` and `{file}` are filled in; other braces stay.
    pub text: String,
}

/// One model's place in a repository. It belongs to one pool: its servers serve what is in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    root: PathBuf,
    model: String,
    file: String,
    settings: Option<SettingsFile>,
}

impl Folder {
    /// `root` is the repository, which must be there; `model` the servers' name of the model, `file` the name of its file (`model.onnx`).
    ///
    /// # Errors
    /// A name that is none, or a repository that is no folder.
    pub fn new(root: &Path, model: &str, file: &str, settings: Option<SettingsFile>) -> Result<Folder, String> {
        let names = [Some(model), Some(file), settings.as_ref().map(|settings| settings.name.as_str())];
        if let Some(name) = names.into_iter().flatten().find(|name| !is_name(name)) {
            return Err(format!("{name:?}: must be {NAME_RULE}"));
        }
        if let Some(settings) = settings.as_ref().filter(|settings| settings.name == file || settings.text.len() > SETTINGS_BYTES) {
            return Err(format!("{}: must have another name than the model's file, and at most {SETTINGS_BYTES} bytes", settings.name));
        }
        let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
        if !root.is_dir() {
            return Err(format!("{}: is no folder", root.display()));
        }
        Ok(Folder { root, model: model.to_owned(), file: file.to_owned(), settings })
    }

    /// Where it is, for messages.
    pub(crate) fn shown(&self) -> String {
        self.model_folder().display().to_string()
    }

    /// The model that it is for.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// The versions that are there. Blocks.
    ///
    /// # Errors
    /// The folder cannot be read, or it is a symbolic link.
    pub fn versions(&self) -> io::Result<BTreeSet<u64>> {
        Ok(self.entries()?.iter().filter_map(|name| read_version(name)).collect())
    }

    /// Puts a version there: true when there was none, or another one with this number, which is replaced. Blocks.
    ///
    /// # Errors
    /// Files that cannot be read or written; a symbolic link where the model's or the version's folder should be.
    pub fn put(&self, version: u64, artefact: &Path) -> io::Result<bool> {
        static PUTS: AtomicU64 = AtomicU64::new(0);
        let folder = self.model_folder();
        check_real(&folder)?;
        let target = folder.join(version.to_string());
        let is_there = check_real(&target)?;
        if is_there && self.holds(&target, version, artefact)? {
            return Ok(false);
        }
        fs::create_dir_all(&folder)?;
        let unique = format!("{version}-{}-{}", std::process::id(), PUTS.fetch_add(1, Ordering::Relaxed));
        let placing = folder.join(format!("{PLACING}{unique}"));
        self.write(&placing, version, artefact).inspect_err(|_| drop(remove_all(&placing)))?;
        if is_there {
            let replaced = folder.join(format!("{REPLACED}{unique}"));
            fs::rename(&target, &replaced)?;
            fs::rename(&placing, &target)?;
            fs::remove_dir_all(&replaced)?;
        } else {
            fs::rename(&placing, &target)?;
        }
        File::open(&folder)?.sync_all()?;
        Ok(true)
    }

    fn write(&self, placing: &Path, version: u64, artefact: &Path) -> io::Result<()> {
        let mut source = open(artefact)?;
        fs::create_dir(placing)?;
        // By what is read and written, so that the file gets the rights of a new one: the servers may run as somebody else.
        let mut file = File::create(placing.join(&self.file))?;
        io::copy(&mut source, &mut file)?;
        file.sync_all()?;
        if let Some((name, text)) = self.settings_of(version) {
            let mut file = File::create(placing.join(name))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
        }
        File::open(placing)?.sync_all()
    }

    /// Removes every version but these, and what was left in the works. Blocks.
    ///
    /// # Errors
    /// Files that cannot be removed.
    pub fn keep_only(&self, versions: &BTreeSet<u64>) -> io::Result<()> {
        for version in self.versions()?.difference(versions) {
            self.remove(*version)?;
        }
        self.settle()
    }

    /// Removes one version, where it is there.
    pub(crate) fn remove(&self, version: u64) -> io::Result<()> {
        let target = self.model_folder().join(version.to_string());
        if !check_real(&target)? {
            return Ok(());
        }
        // First by name, so that no server sees half of it.
        let doomed = self.model_folder().join(format!("{REPLACED}{version}"));
        remove_all(&doomed)?;
        fs::rename(&target, &doomed)?;
        remove_all(&doomed)
    }

    /// Hides every version but one from the servers, so that it may come back.
    pub(crate) fn set_aside(&self, but: u64) -> io::Result<()> {
        for version in self.versions()?.into_iter().filter(|version| *version != but) {
            let aside = self.model_folder().join(format!("{ASIDE}{version}"));
            remove_all(&aside)?;
            fs::rename(self.model_folder().join(version.to_string()), &aside)?;
        }
        Ok(())
    }

    /// Brings those back, as if they had never been hidden.
    pub(crate) fn bring_back(&self) -> io::Result<()> {
        for name in self.entries()? {
            let Some(version) = name.strip_prefix(ASIDE).and_then(read_version) else { continue };
            let (aside, target) = (self.model_folder().join(&name), self.model_folder().join(version.to_string()));
            if check_real(&target)? { remove_all(&aside)? } else { fs::rename(&aside, &target)? }
        }
        Ok(())
    }

    /// Removes what is hidden and what was left in the works. What is half removed has another name by then, so it cannot come back.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let folder = self.model_folder();
        for name in self.entries()?.iter().filter(|name| name.starts_with(ASIDE)) {
            let doomed = folder.join(format!("{REPLACED}{}", name.trim_start_matches('.')));
            remove_all(&doomed)?;
            fs::rename(folder.join(name), doomed)?;
        }
        for name in self.entries()? {
            if [PLACING, REPLACED].iter().any(|start| name.starts_with(start)) {
                remove_all(&folder.join(name))?;
            }
        }
        Ok(())
    }

    fn model_folder(&self) -> PathBuf {
        self.root.join(&self.model)
    }

    /// The names in the model's folder; none when it is not there.
    fn entries(&self) -> io::Result<Vec<String>> {
        let folder = self.model_folder();
        if !check_real(&folder)? {
            return Ok(Vec::new());
        }
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
        names.collect()
    }

    fn settings_of(&self, version: u64) -> Option<(&str, String)> {
        self.settings.as_ref().map(|settings| {
            let text =
                settings.text.replace("{model}", &self.model).replace("{version}", &version.to_string()).replace("{file}", &self.file);
            (settings.name.as_str(), text)
        })
    }

    /// Whether a version's folder holds these bytes, and the settings that it should have.
    fn holds(&self, target: &Path, version: u64, artefact: &Path) -> io::Result<bool> {
        let has_settings = self.settings_of(version).is_none_or(|(name, text)| {
            let path = target.join(name);
            is_file(&path) && fs::read(path).is_ok_and(|found| found == text.as_bytes())
        });
        let path = target.join(&self.file);
        if !has_settings || !is_file(&path) {
            return Ok(false);
        }
        same(&path, artefact)
    }
}

/// Whether there is a folder; an error when it is something else, above all a link to somewhere else.
fn check_real(folder: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(found) => {
            let what = if found.is_symlink() { "is a symbolic link" } else { "is no folder" };
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} {what}", folder.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// With the path in the error.
fn open(path: &Path) -> io::Result<File> {
    File::open(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Follows no link.
fn remove_all(path: &Path) -> io::Result<()> {
    let done = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (open(one)?, open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&one).take(1 << 20).read_to_end(&mut left)?;
        (&other).take(1 << 20).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// Runs something that blocks, on a thread for that. It runs to its end, also when nobody waits for it any more.
pub(crate) async fn blocking<T: Send + 'static>(
    folder: &Folder,
    work: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
) -> Result<T, Trouble> {
    let mine = folder.clone();
    let done = tokio::task::spawn_blocking(move || work(&mine)).await;
    match done {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => {
            Err(Trouble::refused(error.to_string()))
        }
        Ok(Err(error)) => Err(Trouble::away(error.to_string())),
        Err(error) => Err(Trouble::away(format!("a thread died: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(root: &Path) -> Folder {
        let settings = SettingsFile {
            name: "model-settings.json".to_owned(),
            text: r#"{"name": "{model}", "parameters": {"uri": "./{file}", "version": "{version}"}}"#.to_owned(),
        };
        Folder::new(root, "m", "model.txt", Some(settings)).unwrap()
    }

    fn artefact(root: &Path, text: &str) -> PathBuf {
        let path = root.join("artefact");
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_version_is_put_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        assert_eq!(folder.versions().unwrap(), [].into());
        let file = artefact(root.path(), "trees");
        assert!(folder.put(3, &file).unwrap());
        assert!(!folder.put(3, &file).unwrap());
        assert_eq!(fs::read_to_string(root.path().join("m/3/model.txt")).unwrap(), "trees");
        let settings = fs::read_to_string(root.path().join("m/3/model-settings.json")).unwrap();
        assert_eq!(settings, r#"{"name": "m", "parameters": {"uri": "./model.txt", "version": "3"}}"#);
        // Other bytes of the same number take their place.
        assert!(folder.put(3, &artefact(root.path(), "TREES")).unwrap());
        assert_eq!(fs::read_to_string(root.path().join("m/3/model.txt")).unwrap(), "TREES");
        assert_eq!(folder.entries().unwrap(), ["3"]);
    }

    #[test]
    fn versions_go_and_come_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let file = artefact(root.path(), "trees");
        for version in [1, 2, 3] {
            folder.put(version, &file).unwrap();
        }
        folder.set_aside(2).unwrap();
        folder.set_aside(2).unwrap();
        assert_eq!(folder.versions().unwrap(), [2].into());
        folder.bring_back().unwrap();
        assert_eq!(folder.versions().unwrap(), [1, 2, 3].into());
        folder.set_aside(2).unwrap();
        folder.put(1, &file).unwrap();
        folder.bring_back().unwrap();
        assert_eq!(folder.versions().unwrap(), [1, 2, 3].into());
        folder.keep_only(&[3].into()).unwrap();
        folder.remove(9).unwrap();
        assert_eq!(folder.entries().unwrap(), ["3"]);
    }

    #[test]
    fn nothing_leads_out_of_it() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let file = artefact(outside.path(), "trees");
        for name in ["", "..", ".m", "a/b", "a\\b"] {
            assert!(Folder::new(root.path(), name, "model.txt", None).unwrap_err().contains("must be 1 to 128"), "{name}");
            assert!(Folder::new(root.path(), "m", name, None).is_err(), "{name}");
        }
        assert!(Folder::new(&file, "m", "f", None).unwrap_err().contains("is no folder"));
        let folder = folder(root.path());
        std::os::unix::fs::symlink(outside.path(), root.path().join("m")).unwrap();
        assert!(folder.put(1, &file).unwrap_err().to_string().contains("is a symbolic link"));
        fs::remove_file(root.path().join("m")).unwrap();
        folder.put(1, &file).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("m/2")).unwrap();
        assert!(folder.put(2, &file).is_err() && folder.remove(2).is_err());
        // What looks like ours and is a link is removed as a link.
        fs::remove_file(root.path().join("m/2")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("m/.aside-2")).unwrap();
        folder.settle().unwrap();
        assert!(file.is_file());
    }

    #[test]
    fn an_artefact_that_is_gone_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        assert!(folder.put(1, &root.path().join("none")).is_err());
        assert_eq!(folder.entries().unwrap(), [""; 0]);
    }
}
